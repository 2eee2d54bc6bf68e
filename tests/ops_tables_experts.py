"""Tables of operations of layouts with experts, and of two vendors in one job, written by hand.

Sources: Megatron-Core (`transformer/moe/token_dispatcher.py`: all-to-all over the expert group,
all-gather and reduce-scatter over the experts' tensor group; `parallel_state.py`: how expert groups
lie), DeepSeek-AI 2024 (what travels in 8 bits, DualPipe's two copies), PyTorch FSDP2.
"""

from __future__ import annotations

from dataclasses import replace

from ersatz.device_models.catalog.reading import load_node, load_stack
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario, Training
from ersatz.sim.workload.model import Experts, LatentAttention, Model
from tests.factories import make_scenario
from tests.ops_tables import (
    CONTEXT,
    EXCHANGE,
    EXPERTS,
    GATHER,
    OPT,
    PIPELINE,
    REDUCE,
    SCATTER,
    SEND,
    TENSOR,
    WEIGHTS,
    B,
    F,
    Flop,
    Layout,
    P,
    Row,
    everywhere,
    layout_scenario,
)
from tests.ops_tables_dense import BF16, FP32, LLAMA, VOCAB, H, llama, trained

ATTENTION = 2 * H * H + 2 * H * 256  # weights of a layer's attention, as in llama
EXPERT = 3 * H * 2048  # of one expert
ROUTED, TOP = 8, 2
SMALL = 8000 * H  # a small vocabulary


def mixture(layers: int) -> Model:
    """Attention as in llama, and in every layer 8 experts of 2,048 of which a token visits 2."""
    return llama(layers, 8000, experts=Experts(routed=ROUTED, top_k=TOP, hidden=2048))


def with_experts(
    table: dict[tuple[str, str], Flop], grouped: float, imbalance: float = 1.0
) -> dict[tuple[str, str], Flop]:
    """Add the experts' products: of the fullest rank, of which what is above the mean is padding."""
    extra = (imbalance - 1) * grouped
    return table | {
        (F, "grouped products"): Flop(grouped + extra, padding=extra),
        (B, "grouped products"): Flop(2 * (grouped + extra), padding=2 * extra),
    }


def tensor_rows(layers: int, m: int, tokens: int, tp: int) -> list[Row]:
    """Tensor parallelism with sequence parallelism around experts, which need none of it.

    Per layer only the attention gathers and scatters: forward one of each, backward the gradient
    and once more the input gathered, one scatter. Embedding, head and loss as in a dense model.
    Norms and the router are whole on each rank and see a slice of the tokens: their gradients are
    summed over tp at the end.
    """
    wide = tokens * H * BF16
    return [
        Row(F, GATHER, tp, m * (layers + 1), wide),
        Row(F, SCATTER, tp, m * (layers + 1), wide),
        Row(F, REDUCE, tp, m * 3, tokens * FP32),
        Row(B, GATHER, tp, m * (2 * layers + 2), wide),
        Row(B, SCATTER, tp, m * (layers + 1), wide),
        Row(OPT, REDUCE, tp, 1, layers * (2 * H + H * ROUTED) * BF16),
    ]


def megatron_folded() -> Layout:
    """Megatron-Core, expert groups folded over tp: tp 2, ep 4, etp 1, 8 ranks, 2 experts a rank.

    A rank routes its half of the micro-batch's tokens; their 2 copies go to the experts and come
    back, forward and backward: four all-to-all a layer, of tokens / 2 x 2 x H. The expert group is
    four neighbouring ranks. Dense weights are shared by dp 4, the experts' by the 2 ranks of the
    8 that hold the same ones; the router is whole on both ranks of tp. Both in one bucket.
    """
    layers, m, tokens, tp, ep, dp = 2, 2, 2048, 2, 4, 4
    copies = tokens / tp * TOP * H * BF16
    dense = (layers * ATTENTION + 2 * SMALL) / tp + layers * H * ROUTED
    experts = layers * ROUTED / ep * EXPERT
    sends = {
        TENSOR: everywhere(1, tensor_rows(layers, m, tokens, tp)),
        EXPERTS: everywhere(1, [Row(F, EXCHANGE, ep, m * layers * 2, copies),
                                Row(B, EXCHANGE, ep, m * layers * 2, copies)]),
        WEIGHTS: everywhere(1, [
            Row(B, SCATTER, dp, 1, dense * BF16), Row(F, GATHER, dp, 1, dense * BF16),
            Row(B, SCATTER, 2, 1, experts * BF16), Row(F, GATHER, 2, 1, experts * BF16),
        ]),
    }  # fmt: skip
    flops = trained(
        m * 2 * tokens / tp * layers * (ATTENTION + H * ROUTED),
        m * 2 * tokens * (tokens / 2) * (2 * H) * layers / tp,
        m * 2 * tokens * SMALL / tp,
    )
    flops = with_experts(flops, m * 2 * (tokens / tp * TOP) * layers * EXPERT)
    scenario = layout_scenario(mixture(layers), "megatron-core", "h100-8", 1,
                               Parallel(tp=tp, ep=ep, dp=dp), sequence=tokens, batch=m * dp)  # fmt: skip
    return Layout("megatron ep folded", scenario, sends, {0: flops}, inside={EXPERTS: 4})


def megatron_expert_tensor() -> Layout:
    """Megatron-Core with experts cut in two: tp 2, ep 2, etp 2, 8 ranks, half of 4 experts a rank.

    As folded, and between the two all-to-all the rows that the ranks of an expert's tensor group
    received are gathered (tokens x 2 copies x H in all) and the outputs scattered; backward the
    scatter is a gather and the gather a scatter.
    """
    layers, m, tokens, tp, ep, etp, dp = 2, 2, 2048, 2, 2, 2, 4
    copies = tokens / tp * TOP * H * BF16
    dense = (layers * ATTENTION + 2 * SMALL) / tp + layers * H * ROUTED
    experts = layers * ROUTED / ep * EXPERT / etp
    sends = {
        TENSOR: everywhere(1, tensor_rows(layers, m, tokens, tp)),
        EXPERTS: everywhere(1, [
            Row(F, EXCHANGE, ep, m * layers * 2, copies),
            Row(F, GATHER, etp, m * layers, etp * copies),
            Row(F, SCATTER, etp, m * layers, etp * copies),
            Row(B, EXCHANGE, ep, m * layers * 2, copies),
            Row(B, GATHER, etp, m * layers, etp * copies),
            Row(B, SCATTER, etp, m * layers, etp * copies),
        ]),
        WEIGHTS: everywhere(1, [
            Row(B, SCATTER, dp, 1, dense * BF16), Row(F, GATHER, dp, 1, dense * BF16),
            Row(B, SCATTER, 2, 1, experts * BF16), Row(F, GATHER, 2, 1, experts * BF16),
        ]),
    }  # fmt: skip
    flops = trained(
        m * 2 * tokens / tp * layers * (ATTENTION + H * ROUTED),
        m * 2 * tokens * (tokens / 2) * (2 * H) * layers / tp,
        m * 2 * tokens * SMALL / tp,
    )
    # half of the experts' products for twice the rows
    flops = with_experts(flops, m * 2 * (tokens * TOP) * layers * EXPERT / etp)
    scenario = layout_scenario(
        mixture(layers), "megatron-core", "h100-8", 1, Parallel(tp=tp, ep=ep, etp=etp, dp=dp),
        sequence=tokens, batch=m * dp,
    )  # fmt: skip
    return Layout("megatron etp", scenario, sends, {0: flops})


def megatron_strided() -> Layout:
    """Megatron-Core before folding: expert groups are a part of dp; tp 4, etp 4, cp 2, ep 4 of dp 4.

    Members of an expert group stand tp x cp = 8 ranks apart, so each in a node of its own (folded
    they would stand etp = 4 apart, two in a node). A rank routes a quarter of its 1,024 tokens.
    Otherwise as with folded groups and etp, and a ring of cp 2 with a head of keys and values a
    rank. Dense weights are shared by cp x dp = 8 ranks, an expert's slice by 32 / 16 = 2.
    """
    layers, m, tokens, tp, cp, ep, dp = 2, 1, 1024, 4, 2, 4, 4
    copies = tokens / tp * TOP * H * BF16
    pair = tokens * 2 * (256 / tp) * BF16
    dense = (layers * ATTENTION + 2 * SMALL) / tp + layers * H * ROUTED
    experts = layers * ROUTED / ep * EXPERT / tp
    sends = {
        TENSOR: everywhere(1, tensor_rows(layers, m, tokens, tp)),
        CONTEXT: everywhere(1, [Row(F, SEND, cp, m * layers * (cp - 1), pair),
                                Row(B, SEND, cp, m * layers * (cp - 1), 2 * pair)]),
        EXPERTS: everywhere(1, [
            Row(F, EXCHANGE, ep, m * layers * 2, copies),
            Row(F, GATHER, tp, m * layers, tp * copies),
            Row(F, SCATTER, tp, m * layers, tp * copies),
            Row(B, EXCHANGE, ep, m * layers * 2, copies),
            Row(B, GATHER, tp, m * layers, tp * copies),
            Row(B, SCATTER, tp, m * layers, tp * copies),
        ]),
        WEIGHTS: everywhere(1, [
            Row(B, SCATTER, cp * dp, 1, dense * BF16), Row(F, GATHER, cp * dp, 1, dense * BF16),
            Row(B, SCATTER, 2, 1, experts * BF16), Row(F, GATHER, 2, 1, experts * BF16),
        ]),
    }  # fmt: skip
    flops = trained(
        m * 2 * tokens / tp * layers * (ATTENTION + H * ROUTED),
        m * 2 * tokens * (cp * tokens / 2) * (2 * H) * layers / tp,
        m * 2 * tokens * SMALL / tp,
    )
    flops = with_experts(flops, m * 2 * (tokens * TOP) * layers * EXPERT / tp)
    scenario = layout_scenario(
        mixture(layers), "megatron-core", "h100-8", 4,
        Parallel(tp=tp, cp=cp, ep=ep, etp=tp, dp=dp, expert_layout="strided"),
        sequence=cp * tokens, batch=m * dp,
    )  # fmt: skip
    return Layout("megatron ep strided", scenario, sends, {0: flops}, frozenset({CONTEXT}),
                  inside={EXPERTS: 1})  # fmt: skip


def hsdp_experts() -> Layout:
    """FSDP2 with a mixture of experts: shards over a node, replicas on 4 nodes, no expert groups.

    A layer's unit holds all its experts: 8 x 6.3 M and 2.6 M more. Nothing but the all-reduce of
    an eighth of each unit's gradients leaves the node.
    """
    layers, tokens, shard, nodes = 2, 2048, 8, 4
    unit = ATTENTION + H * ROUTED + ROUTED * EXPERT
    sends = {
        WEIGHTS: everywhere(1, [
            Row(F, GATHER, shard, layers, unit * BF16), Row(F, GATHER, shard, 2, SMALL * BF16),
            Row(B, GATHER, shard, layers, unit * BF16), Row(B, GATHER, shard, 1, SMALL * BF16),
            Row(B, SCATTER, shard, layers, unit * FP32), Row(B, SCATTER, shard, 2, SMALL * FP32),
            Row(B, REDUCE, nodes, layers, unit / shard * FP32),
            Row(B, REDUCE, nodes, 2, SMALL / shard * FP32),
        ]),
    }  # fmt: skip
    flops = trained(
        2 * tokens * layers * (ATTENTION + H * ROUTED),
        2 * tokens * (tokens / 2) * (2 * H) * layers,
        2 * tokens * SMALL,
    )
    flops = with_experts(flops, 2 * tokens * TOP * layers * EXPERT)
    scenario = layout_scenario(
        mixture(layers), "torchtitan", "h100-8", nodes,
        Parallel(dp=shard * nodes, zero=3, shard=shard), sequence=tokens, batch=shard * nodes,
    )  # fmt: skip
    return Layout("hsdp experts", scenario, sends, {0: flops}, frozenset({WEIGHTS}))


def dualpipe() -> Layout:
    """DeepSeek-V3's way: 4 stages, DualPipe, ep 8, dp 8, 8 micro-batches, of which 4 a direction.

    Stage s holds position s of one direction and position 3 - s of the other, 2 layers each: in a
    step it runs 4 layers for 4 micro-batches forward and backward. Per layer the copies of the
    tokens go out in 8 bits and come back in 16; backward the gradients of what came back go out in
    8 bits, those of what went out come back in 16. A rank that holds two of a token's experts gets
    it once and gives back one sum: four experts drawn over 8 ranks sit on 8 (1 - (7/8)^4) = 3.31.
    The fullest rank of experts, 10 % above the mean, sets the size. Every position but a
    direction's last sends each of its 4 micro-batches forward, every one but the first its
    gradients back.
    The two copies of a position must stay equal: stages s and 3 - s reduce together, dense weights
    over 2 x dp = 16 ranks, the experts' over the two that hold the same; once, after the last
    backward pass, in fp32, and bf16 weights are gathered after the step.
    """
    layers, half, tokens, ep, dp, stages = 4, 4, 2048, 8, 8, 4
    routed, top, inner, full = 16, 4, 512, 1.1
    copies = tokens * ep * (1 - (1 - 1 / ep) ** top) * H * full
    down, up = H * (512 + 256 + 32), 512 * 16 * 96 + 256 * 16 * 128 + 16 * 64 * H
    one = 3 * H * inner
    dense = layers * (down + up + one + H * routed)
    experts = layers * routed / ep * one
    runs = layers * half

    def reduced(weights: float) -> list[Row]:
        return [
            Row(OPT, SCATTER, 2 * dp, 1, weights * FP32), Row(OPT, GATHER, 2 * dp, 1, weights * BF16),
            Row(OPT, SCATTER, 2, 1, experts * FP32), Row(OPT, GATHER, 2, 1, experts * BF16),
        ]  # fmt: skip

    outer, inner_rows = reduced(dense + 2 * SMALL), reduced(dense)
    message = tokens * H * BF16
    sends = {
        EXPERTS: everywhere(stages, [
            Row(F, EXCHANGE, ep, runs, copies), Row(F, EXCHANGE, ep, runs, 2 * copies),
            Row(B, EXCHANGE, ep, runs, copies), Row(B, EXCHANGE, ep, runs, 2 * copies),
        ]),
        WEIGHTS: {0: outer, 1: inner_rows, 2: inner_rows, 3: outer},
        PIPELINE: {s: [Row(P, SEND, stages, (2 if s in (0, 3) else 4) * half, message)]
                   for s in range(stages)},
    }  # fmt: skip
    body = trained(
        runs * 2 * tokens * (down + up + one + H * routed),
        runs * 2 * tokens * (tokens / 2) * 16 * (96 + 64),
        0.0,
    )
    forward = body[F, "attention"].flop
    body[B, "attention"] = Flop(forward * 416 / 160, again=forward * 96 / 160)
    body = with_experts(body, runs * 2 * tokens * top * one, full)
    head = half * 2 * tokens * SMALL
    ends = body | {(F, "head"): Flop(head), (B, "head"): Flop(2 * head)}
    model = llama(
        8, 8000, latent=LatentAttention(512, 256, 32, 64, 64),
        experts=Experts(routed=routed, top_k=top, hidden=inner, shared=1),
    )  # fmt: skip
    scenario = layout_scenario(
        model, "deepseek", "h800-8", 4, Parallel(pp=stages, ep=ep, dp=dp, schedule="dualpipe"),
        sequence=tokens, batch=2 * half * dp,
    )  # fmt: skip
    return Layout("dualpipe", scenario, sends, {0: ends, 1: body, 2: body, 3: ends})


def two_vendors() -> Layout:
    """H800 under Megatron-Core and 910B under MindSpeed, a stage each: tp 4, dp 2, 2 layers a stage.

    Within a stage all is as on one kind of device; H800 reduce gradients in bf16, 910B in fp32.
    A message of a slice of the tokens crosses between the pools, over the network, 4 each way.
    """
    layers, m, tokens, tp, dp = 2, 4, 1024, 4, 2
    wide = tokens * H * BF16
    first, second = ((layers * LLAMA + VOCAB) / tp,) * 2
    layer = [
        Row(F, GATHER, tp, m * 2 * layers, wide), Row(F, SCATTER, tp, m * 2 * layers, wide),
        Row(B, GATHER, tp, m * 4 * layers, wide), Row(B, SCATTER, tp, m * 2 * layers, wide),
    ]  # fmt: skip
    sends = {
        TENSOR: {
            0: [*layer, Row(F, SCATTER, tp, m, wide), Row(B, GATHER, tp, m, wide),
                Row(OPT, REDUCE, tp, 1, layers * 2 * H * BF16)],
            1: [*layer, Row(OPT, REDUCE, tp, 1, layers * 2 * H * FP32),
                Row(F, GATHER, tp, m, wide), Row(F, REDUCE, tp, 3 * m, tokens * FP32),
                Row(B, GATHER, tp, m, wide), Row(B, SCATTER, tp, m, wide)],
        },
        WEIGHTS: {
            0: [Row(B, SCATTER, dp, 1, first * BF16), Row(F, GATHER, dp, 1, first * BF16)],
            1: [Row(B, SCATTER, dp, 1, second * FP32), Row(F, GATHER, dp, 1, second * BF16)],
        },
        PIPELINE: everywhere(2, [Row(P, SEND, 2, m, wide / tp)]),
    }  # fmt: skip
    body = trained(m * 2 * tokens * layers * LLAMA / tp,
                   m * 2 * tokens * (tokens / 2) * 2 * H * layers / tp, 0.0)  # fmt: skip
    head = m * 2 * tokens * VOCAB / tp
    last = body | {(F, "head"): Flop(head), (B, "head"): Flop(2 * head)}
    return Layout("two vendors", _two_pools(llama(2 * layers), tp, dp, tokens, m), sends,
                  {0: body, 1: last}, inside={PIPELINE: 1})  # fmt: skip


def _two_pools(model: Model, tp: int, dp: int, tokens: int, m: int) -> Scenario:
    pools = (Pool("a", load_node("h800-8"), 1, load_stack("megatron-core")),
             Pool("b", load_node("ascend-910b2-8"), 1, load_stack("mindspeed")))  # fmt: skip
    scenario = make_scenario(model=model, pools=pools, training=Training(tokens, m * dp, 1))
    parallel = Parallel(tp=tp, pp=2, dp=dp, mixed="stages", stage_pools=("a", "b"))
    return replace(scenario, parallel=parallel)


EXPERT_LAYOUTS = (
    megatron_folded, megatron_expert_tensor, megatron_strided, hsdp_experts, dualpipe, two_vendors,
)  # fmt: skip
