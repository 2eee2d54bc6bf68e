"""Tables of operations of dense layouts, written by hand from what the frameworks do.

Sources, read for what is collected here: Megatron-Core (`tensor_parallel/layers.py`, `mappings.py`,
`cross_entropy.py`, `distributed/distributed_data_parallel.py`, `finalize_model_grads.py`,
`pipeline_parallel/schedules.py`, `transformer/multi_latent_attention.py`), Transformer Engine's
context parallelism (`flash_attn_p2p_communicate`), torchtitan's `apply_fsdp` and PyTorch's
`foreach_reduce`, DeepSpeed's `engine.allreduce_gradients` and ZeRO stages, DeepSpeed-Ulysses
(Jacobs et al. 2023), MaxText's sharding of `fsdp`, MindSpeed's ring attention.
"""

from __future__ import annotations

from ersatz.sim.scenario.scenario import Parallel
from ersatz.sim.workload.model import LatentAttention, Model
from tests.factories import make_model
from tests.ops_tables import (
    CONTEXT,
    EXCHANGE,
    GATHER,
    OPT,
    PIPELINE,
    REDUCE,
    SCATTER,
    SEND,
    TENSOR,
    WEIGHTS,
    A,
    B,
    F,
    Flop,
    Layout,
    P,
    Row,
    everywhere,
    layout_scenario,
)

H = 1024  # hidden; heads of 64
BF16, FP32 = 2, 4  # bytes


def llama(layers: int, vocab: int = 32000, kv_heads: int = 4, **changes: object) -> Model:
    """Grouped queries (16 heads, 4 of keys and values), gated MLP of 4,096, untied vocabulary."""
    shape = dict(layers=layers, hidden=H, heads=16, kv_heads=kv_heads, head_dim=64,
                 ffn_hidden=4096, vocab=vocab)  # fmt: skip
    return make_model(**{**shape, **changes})


def gpt(layers: int, vocab: int = 32000, **changes: object) -> Model:
    """As many heads of keys and values as of queries, an MLP of two matrices, tied vocabulary."""
    return llama(layers, vocab, kv_heads=16, **{"gated": False, "tied": True, **changes})


# Weights of a layer. llama: queries and output H x H each, keys and values H x 256 each; three
# matrices of H x 4096. gpt: four matrices of H x H; two of H x 4096.
LLAMA = 2 * H * H + 2 * H * 256 + 3 * H * 4096
DOWN = 4096 * H  # of these, what leads out of the MLP
GPT = 4 * H * H + 2 * H * 4096
VOCAB = 32000 * H


def trained(products: float, attention: float, head: float) -> dict[tuple[str, str], Flop]:
    """FLOPs of a step from those of its forward passes, with fused attention and no recomputation.

    Backward a product is two: the gradients of its input and of its weights. Fused attention
    computes five products of scores' size for the two of the forward pass; one, the scores, was
    there before: 2.5 times the FLOPs, a fifth of them again.
    """
    found = {
        (F, "products"): Flop(products),
        (B, "products"): Flop(2 * products),
        (F, "attention"): Flop(attention),
        (B, "attention"): Flop(2.5 * attention, again=0.5 * attention),
    }
    if head:
        found |= {(F, "head"): Flop(head), (B, "head"): Flop(2 * head)}
    return found


def again(
    table: dict[tuple[str, str], Flop], kinds: tuple[str, ...]
) -> dict[tuple[str, str], Flop]:
    """Add that the forward pass of `kinds` is computed a second time."""
    return table | {(A, k): Flop(table[F, k].flop, again=table[F, k].flop) for k in kinds}


def up_to_the_last(table: dict[tuple[str, str], Flop], last: float) -> dict[tuple[str, str], Flop]:
    """Take the last product of every layer, `last` FLOPs in all, from what is computed again.

    Checkpoints without reentry and graph compilers stop at the last tensor that a gradient needs: the
    input of the product down. Its result goes into a sum, which needs neither of its operands.
    """
    flop = table[A, "products"].flop - last
    return table | {(A, "products"): Flop(flop, again=flop)}


def megatron_sequence_parallel() -> Layout:
    """Megatron-Core: tp 4 with sequence parallelism, dp 2, distributed optimizer, 4 micro-batches.

    Forward, per layer: the column-parallel products (qkv, up) gather their input, the row-parallel
    (out, down) scatter their output. The vocabulary: the embedding scatters its output, the head
    gathers its input. Backward, every gather of the forward pass becomes a scatter of the gradient
    and the other way round; besides, a column-parallel product kept only its slice of the input
    and gathers it a second time for the weights' gradient: two in a layer, one in the head.
    The loss reduces three fp32 numbers per token one after the other: maximum, target's logit, sum.
    A rank holds a quarter of all weights, 31.6 M, less than the least bucket of 40 M: one
    reduce-scatter of bf16 gradients and one all-gather of weights, both over dp 2, once a step.
    Norms work on a quarter of the tokens: their gradients are summed over tp at the end (the norm
    before the head, of H weights, is not written down here or below).
    """
    layers, m, tokens, tp, dp = 4, 4, 2048, 4, 2
    wide = tokens * H * BF16
    weights = (layers * LLAMA + 2 * VOCAB) / tp
    sends = {
        TENSOR: everywhere(1, [
            Row(F, GATHER, tp, m * (2 * layers + 1), wide),
            Row(F, SCATTER, tp, m * (2 * layers + 1), wide),
            Row(F, REDUCE, tp, m * 3, tokens * FP32),
            Row(B, GATHER, tp, m * (2 * layers + 2 * layers + 1 + 1), wide),
            Row(B, SCATTER, tp, m * (2 * layers + 1), wide),
            Row(OPT, REDUCE, tp, 1, layers * 2 * H * BF16),
        ]),
        WEIGHTS: everywhere(1, [Row(B, SCATTER, dp, 1, weights * BF16),
                                Row(F, GATHER, dp, 1, weights * BF16)]),
    }  # fmt: skip
    # causal: a token looks at half of the sequence; scores and values 1,024 columns each
    flops = trained(
        m * 2 * tokens * layers * LLAMA / tp,
        m * 2 * tokens * (tokens / 2) * (2 * H) * layers / tp,
        m * 2 * tokens * VOCAB / tp,
    )
    scenario = layout_scenario(llama(layers), "megatron-core", "h100-8", 1, Parallel(tp=tp, dp=dp),
                               sequence=tokens, batch=m * dp)  # fmt: skip
    return Layout("megatron tp sp", scenario, sends, {0: flops})


def megatron_without_sequence_parallel() -> Layout:
    """Megatron-LM of 2021: tp 2, every activation whole on each rank, dp 4, no ZeRO, GPT tied.

    Forward an all-reduce after out and after down, one after the embedding; backward one before
    qkv and before up, one before the head. The loss as ever: three numbers per token. Gradients,
    fp16 as the stack says, are reduced after the last backward pass, all in one. The vocabulary is
    one matrix where embedding and head share a stage: V x H once.
    Attention is not fused: both passes work on the full square, half of it masked, for nothing;
    backward four products for two, none of them a repetition since the scores are kept.
    """
    layers, m, tokens, tp, dp = 4, 2, 1024, 2, 4
    wide = tokens * H * BF16
    weights = (layers * GPT + VOCAB) / tp
    sends = {
        TENSOR: everywhere(1, [
            Row(F, REDUCE, tp, m * (2 * layers + 1), wide),
            Row(F, REDUCE, tp, m * 3, tokens * FP32),
            Row(B, REDUCE, tp, m * (2 * layers + 1), wide),
        ]),
        WEIGHTS: everywhere(1, [Row(OPT, REDUCE, dp, 1, weights * 2)]),
    }  # fmt: skip
    products = m * 2 * tokens * layers * GPT / tp
    square = m * 2 * tokens * tokens * (2 * H) * layers / tp
    head = m * 2 * tokens * VOCAB / tp
    flops = trained(products, square, head) | {
        (F, "attention"): Flop(square, padding=square / 2),
        (B, "attention"): Flop(2 * square, padding=square),
    }
    scenario = layout_scenario(
        gpt(layers), "megatron-2021", "a100-80-8", 1,
        Parallel(tp=tp, dp=dp, zero=0, sequence_parallel=False), sequence=tokens, batch=m * dp,
    )  # fmt: skip
    return Layout("megatron tp", scenario, sends, {0: flops})


def megatron_ring() -> Layout:
    """Transformer Engine's ring: cp 4, dp 2, grouped queries, 8,192 tokens, of which 2,048 a rank.

    Forward a rank passes on keys and values of its 2,048 tokens, 256 columns each, three times.
    Backward keys and values go round once more, and their gradients go round behind them: twice
    the bytes. Weights are shared by cp x dp = 8 ranks: 126 M in reverse order, in buckets that
    close above 40 M. A token's causal half is that of the whole sequence.
    """
    layers, m, tokens, cp, dp = 2, 2, 2048, 4, 2
    pair = tokens * 2 * 256 * BF16
    weights = layers * LLAMA + 2 * 8000 * H
    sends = {
        CONTEXT: everywhere(1, [
            Row(F, SEND, cp, m * layers * (cp - 1), pair),
            Row(B, SEND, cp, m * layers * (cp - 1), 2 * pair),
        ]),
        WEIGHTS: everywhere(1, [Row(B, SCATTER, cp * dp, 1, weights * BF16),
                                Row(F, GATHER, cp * dp, 1, weights * BF16)]),
    }  # fmt: skip
    flops = trained(
        m * 2 * tokens * layers * LLAMA,
        m * 2 * tokens * (cp * tokens / 2) * (2 * H) * layers,
        m * 2 * tokens * 8000 * H,
    )
    scenario = layout_scenario(llama(layers, 8000), "megatron-core", "h100-8", 1,
                               Parallel(cp=cp, dp=dp), sequence=cp * tokens, batch=m * dp)  # fmt: skip
    return Layout("megatron ring", scenario, sends, {0: flops}, frozenset({CONTEXT, WEIGHTS}))


def deepspeed_ulysses() -> Layout:
    """DeepSpeed-Ulysses: cp 8 exchanges heads for tokens, attention with 16 heads of each; ZeRO 1.

    Forward queries, keys and values are exchanged (a rank sends its tokens' H columns of each) and
    the output is exchanged back: four of tokens x H. Backward the same four gradients. Nothing
    travels round a ring. Gradients as `deepspeed` below says, over the 8 ranks of cp.
    """
    layers, m, tokens, cp = 2, 2, 1024, 8
    wide = tokens * H * BF16
    weights = layers * GPT + 8000 * H
    sends = {
        CONTEXT: everywhere(1, [Row(F, EXCHANGE, cp, m * layers * 4, wide),
                                Row(B, EXCHANGE, cp, m * layers * 4, wide)]),
        WEIGHTS: everywhere(1, [Row(B, REDUCE, cp, 1, weights * BF16),
                                Row(OPT, GATHER, cp, 1, weights * BF16)]),
    }  # fmt: skip
    flops = trained(
        m * 2 * tokens * layers * GPT,
        m * 2 * tokens * (cp * tokens / 2) * (2 * H) * layers,
        m * 2 * tokens * 8000 * H,
    )
    scenario = layout_scenario(
        gpt(layers, 8000), "deepspeed", "h100-8", 1, Parallel(cp=cp, zero=1, cp_comm="a2a"),
        sequence=cp * tokens, batch=m,
    )  # fmt: skip
    return Layout("deepspeed ulysses", scenario, sends, {0: flops}, frozenset({CONTEXT, WEIGHTS}))


def megatron_latent() -> Layout:
    """Megatron-Core's latent attention (MLA), tp 2 with sequence parallelism, dp 4.

    The down-projections run on the rank's half of the tokens with whole weights, and what is
    gathered is small: latents of queries (512) and of keys and values (256) by the up-projections,
    which are column-parallel, and the rotary key (32) by itself. Backward their gradients are
    scattered; the up-projections gather both latents again; the output's gradient (H) is gathered.
    The MLP as ever. Down-projections are whole on each rank, reduced as such over dp, and summed
    over tp at the end, as norms are: each rank saw half of the tokens.
    """
    layers, m, tokens, tp, dp = 2, 2, 2048, 2, 4
    wide = tokens * H * BF16
    latents = tokens * (512 + 256) * BF16
    rotary = tokens * 32 * BF16
    down = H * (512 + 256 + 32)
    up = 512 * 16 * (64 + 32) + 256 * 16 * (64 + 64) + 16 * 64 * H
    mlp = 3 * H * 4096
    vocab = 8000 * H
    # a line per size, in bytes; an engine may gather what is gathered together in one
    sends = {
        TENSOR: everywhere(1, [
            Row(F, GATHER, tp, m, layers * (latents + rotary + wide) + wide),
            Row(F, SCATTER, tp, m, layers * 2 * wide + wide),
            Row(F, REDUCE, tp, m * 3, tokens * FP32),
            Row(B, GATHER, tp, m, layers * (wide + latents + 2 * wide) + 2 * wide),
            Row(B, SCATTER, tp, m, layers * (latents + rotary + wide) + wide),
            Row(OPT, REDUCE, tp, 1, layers * (down + 2 * H) * BF16),
        ]),
        WEIGHTS: everywhere(1, [
            Row(B, SCATTER, dp, 1, (layers * (down + (up + mlp) / tp) + 2 * vocab / tp) * BF16),
            Row(F, GATHER, dp, 1, (layers * (down + (up + mlp) / tp) + 2 * vocab / tp) * BF16),
        ]),
    }  # fmt: skip
    flops = trained(
        m * 2 * tokens * layers * (down + up + mlp) / tp,
        m * 2 * tokens * (tokens / 2) * 16 * (64 + 32 + 64) * layers / tp,
        m * 2 * tokens * vocab / tp,
    )
    # scores of 96 columns and values of 64: backward 3 x 96 + 2 x 64 for 160, of which 96 again
    forward = flops[F, "attention"].flop
    flops[B, "attention"] = Flop(forward * 416 / 160, again=forward * 96 / 160)
    latent = LatentAttention(q_rank=512, kv_rank=256, rope_dim=32, nope_dim=64, v_dim=64)
    scenario = layout_scenario(llama(layers, 8000, latent=latent), "megatron-core", "h800-8", 1,
                               Parallel(tp=tp, dp=dp), sequence=tokens, batch=m * dp)  # fmt: skip
    return Layout("megatron mla", scenario, sends, {0: flops}, frozenset({TENSOR, WEIGHTS}))


def megatron_1f1b_tied() -> Layout:
    """Megatron-Core: 4 stages of 2 layers, 1F1B, tp 2 with sequence parallelism, tied, full recompute.

    A message is a rank's slice of the tokens: half of tokens x H. Every stage but the last sends
    all micro-batches forward, every one but the first sends as many gradients back. The first and
    the last stage hold a copy of the vocabulary each and add up its gradients, once a step. Full
    recomputation repeats a layer's forward pass with its collectives, not the embedding's nor the
    head's. dp is 1: no gradients travel.
    """
    layers, stages, m, tokens, tp = 2, 4, 8, 2048, 2
    wide = tokens * H * BF16
    inner = [
        Row(F, GATHER, tp, m * 2 * layers, wide),
        Row(F, SCATTER, tp, m * 2 * layers, wide),
        Row(A, GATHER, tp, m * 2 * layers, wide),
        Row(A, SCATTER, tp, m * 2 * layers, wide),
        Row(B, GATHER, tp, m * 4 * layers, wide),
        Row(B, SCATTER, tp, m * 2 * layers, wide),
        Row(OPT, REDUCE, tp, 1, layers * 2 * H * BF16),
    ]
    tensor = {stage: list(inner) for stage in range(stages)}
    tensor[0] += [Row(F, SCATTER, tp, m, wide), Row(B, GATHER, tp, m, wide)]
    tensor[3] += [
        Row(F, GATHER, tp, m, wide), Row(F, REDUCE, tp, 3 * m, tokens * FP32),
        Row(B, GATHER, tp, m, wide), Row(B, SCATTER, tp, m, wide),
    ]  # fmt: skip
    each = wide / tp
    shared = [Row(OPT, REDUCE, 2, 1, VOCAB / tp * BF16)]
    sends = {
        TENSOR: tensor,
        WEIGHTS: {0: shared, 3: shared},
        PIPELINE: {0: [Row(P, SEND, stages, m, each)], 1: [Row(P, SEND, stages, 2 * m, each)],
                   2: [Row(P, SEND, stages, 2 * m, each)], 3: [Row(P, SEND, stages, m, each)]},
    }  # fmt: skip
    body = again(
        trained(m * 2 * tokens * layers * LLAMA / tp,
                m * 2 * tokens * (tokens / 2) * (2 * H) * layers / tp, 0.0),
        ("products", "attention"),
    )  # fmt: skip
    head = m * 2 * tokens * VOCAB / tp
    last = body | {(F, "head"): Flop(head), (B, "head"): Flop(2 * head)}
    scenario = layout_scenario(
        llama(layers * stages, tied=True), "megatron-core", "h100-8", 1,
        Parallel(tp=tp, pp=stages, recompute="full"), sequence=tokens, batch=m,
    )  # fmt: skip
    return Layout("megatron 1f1b", scenario, sends, {0: body, 1: body, 2: body, 3: last})


def megatron_interleaved() -> Layout:
    """Megatron-Core: 2 stages of 2 chunks of 1 layer, interleaved, tp 2 without sequence parallelism.

    Positions 0 and 2 stand on stage 0, 1 and 3 on stage 1. Without sequence parallelism a message
    is whole on every rank of tp. Stage 0 sends both its positions forward and one back, stage 1
    one forward and both back. dp 2, ZeRO 1: each chunk is its own buffer and one bucket, reduced
    in its last backward pass and gathered in its first forward pass.
    """
    m, tokens, tp, dp = 4, 1024, 2, 2
    wide = tokens * H * BF16
    vocab = 8000 * H
    edge, inner = (GPT + vocab) / tp * BF16, GPT / tp * BF16
    layer = [Row(F, REDUCE, tp, m * 2 * 2, wide), Row(B, REDUCE, tp, m * 2 * 2, wide)]
    sends = {
        TENSOR: {
            0: [*layer, Row(F, REDUCE, tp, m, wide)],
            1: [*layer, Row(B, REDUCE, tp, m, wide), Row(F, REDUCE, tp, 3 * m, tokens * FP32)],
        },
        WEIGHTS: everywhere(2, [
            Row(B, SCATTER, dp, 1, edge), Row(B, SCATTER, dp, 1, inner),
            Row(F, GATHER, dp, 1, edge), Row(F, GATHER, dp, 1, inner),
        ]),
        PIPELINE: everywhere(2, [Row(P, SEND, 2, 3 * m, wide)]),
    }  # fmt: skip
    body = trained(
        m * 2 * tokens * 2 * GPT / tp, m * 2 * tokens * (tokens / 2) * 2 * H * 2 / tp, 0.0
    )
    head = m * 2 * tokens * vocab / tp
    last = body | {(F, "head"): Flop(head), (B, "head"): Flop(2 * head)}
    scenario = layout_scenario(
        gpt(4, 8000, tied=False), "megatron-core", "h100-8", 1,
        Parallel(tp=tp, pp=2, vp=2, dp=dp, schedule="interleaved", sequence_parallel=False),
        sequence=tokens, batch=m * dp,
    )  # fmt: skip
    return Layout("megatron interleaved", scenario, sends, {0: body, 1: last})


def fsdp2() -> Layout:
    """torchtitan: FSDP2 over 8 ranks, a unit each for the embedding, every layer, and the head.

    Each micro-batch gathers every unit forward in bf16 and again backward (the embedding's too:
    FSDP2 does not know that its backward pass needs no weights), except the head, which is kept
    since its backward pass follows at once; and scatters every unit's gradients in fp32.
    """
    layers, m, tokens, dp = 4, 2, 2048, 8
    sends = {
        WEIGHTS: everywhere(1, [
            Row(F, GATHER, dp, m * layers, LLAMA * BF16), Row(F, GATHER, dp, m * 2, VOCAB * BF16),
            Row(B, GATHER, dp, m * layers, LLAMA * BF16), Row(B, GATHER, dp, m, VOCAB * BF16),
            Row(B, SCATTER, dp, m * layers, LLAMA * FP32), Row(B, SCATTER, dp, m * 2, VOCAB * FP32),
        ]),
    }  # fmt: skip
    flops = trained(
        m * 2 * tokens * layers * LLAMA,
        m * 2 * tokens * (tokens / 2) * (2 * H) * layers,
        m * 2 * tokens * VOCAB,
    )
    scenario = layout_scenario(llama(layers), "torchtitan", "h100-8", 1, Parallel(dp=dp, zero=3),
                               sequence=tokens, batch=m * dp)  # fmt: skip
    return Layout("fsdp2", scenario, sends, {0: flops})


def hsdp() -> Layout:
    """torchtitan: HSDP, shards over the 8 ranks of a node, replicas on 4 nodes, one micro-batch.

    As FSDP2 within the node; besides, the scattered gradients, an eighth of each unit, are
    all-reduced over the 4 nodes, unit by unit.
    """
    layers, tokens, shard, nodes = 4, 2048, 8, 4
    sends = {
        WEIGHTS: everywhere(1, [
            Row(F, GATHER, shard, layers, LLAMA * BF16), Row(F, GATHER, shard, 2, VOCAB * BF16),
            Row(B, GATHER, shard, layers, LLAMA * BF16), Row(B, GATHER, shard, 1, VOCAB * BF16),
            Row(B, SCATTER, shard, layers, LLAMA * FP32), Row(B, SCATTER, shard, 2, VOCAB * FP32),
            Row(B, REDUCE, nodes, layers, LLAMA / shard * FP32),
            Row(B, REDUCE, nodes, 2, VOCAB / shard * FP32),
        ]),
    }  # fmt: skip
    flops = trained(
        2 * tokens * layers * LLAMA,
        2 * tokens * (tokens / 2) * (2 * H) * layers,
        2 * tokens * VOCAB,
    )
    scenario = layout_scenario(
        llama(layers), "torchtitan", "h100-8", nodes,
        Parallel(dp=shard * nodes, zero=3, shard=shard), sequence=tokens, batch=shard * nodes,
    )  # fmt: skip
    return Layout("hsdp", scenario, sends, {0: flops})


def deepspeed(zero: int) -> Layout:
    """DeepSpeed ZeRO 1, 2 or 3 over 8 ranks, four micro-batches accumulated, tied vocabulary.

    ZeRO 1 reduces at the boundary of accumulation only, ZeRO 2 holds an eighth of the gradients
    and must reduce in every micro-batch; both all-reduce a bucket and keep their part of it
    (`use_multi_rank_bucket_allreduce`, on by default), and gather the new weights after the step.
    ZeRO 3 gathers forward and backward and scatters gradients, in every micro-batch; the table,
    being tied, is kept for the head's backward pass (`stage3_max_reuse_distance`, taken to hold no
    more than that, as with models that need ZeRO 3) and fetched once more for the embedding's.
    Gradients travel in bf16, as those of the stack do.
    """
    layers, m, tokens, dp = 4, 4, 1024, 8
    whole = (layers * GPT + VOCAB) * BF16
    times = 1 if zero == 1 else m
    if zero == 3:
        rows = [Row(F, GATHER, dp, m, whole), Row(B, GATHER, dp, m, whole),
                Row(B, SCATTER, dp, m, whole)]  # fmt: skip
    else:
        rows = [Row(B, REDUCE, dp, times, whole), Row(OPT, GATHER, dp, 1, whole)]
    flops = trained(
        m * 2 * tokens * layers * GPT,
        m * 2 * tokens * (tokens / 2) * (2 * H) * layers,
        m * 2 * tokens * VOCAB,
    )
    scenario = layout_scenario(
        gpt(layers), "deepspeed", "h100-8", 1, Parallel(dp=dp, zero=zero),  # type: ignore[arg-type]
        sequence=tokens, batch=m * dp,
    )  # fmt: skip
    sends = {WEIGHTS: everywhere(1, rows)}
    return Layout(f"deepspeed zero {zero}", scenario, sends, {0: flops}, frozenset({WEIGHTS}))


def maxtext() -> Layout:
    """MaxText: axis `fsdp` over 16 devices, remat full, one micro-batch.

    The scan over layers gathers a layer's weights for its forward pass, gathers them once more for
    recomputation and gradients together, and scatters fp32 gradients. Embedding and head stand
    outside the scan, where the compiler gathers each once for both passes; neither is recomputed.
    Of a layer that is computed again the compiler drops what no gradient needs: the product down.
    """
    layers, tokens, dp = 4, 2048, 16
    sends = {
        WEIGHTS: everywhere(1, [
            Row(F, GATHER, dp, layers, LLAMA * BF16), Row(F, GATHER, dp, 2, VOCAB * BF16),
            Row(B, GATHER, dp, layers, LLAMA * BF16),
            Row(B, SCATTER, dp, layers, LLAMA * FP32), Row(B, SCATTER, dp, 2, VOCAB * FP32),
        ]),
    }  # fmt: skip
    flops = again(
        trained(2 * tokens * layers * LLAMA, 2 * tokens * (tokens / 2) * (2 * H) * layers,
                2 * tokens * VOCAB),
        ("products", "attention"),
    )  # fmt: skip
    flops = up_to_the_last(flops, 2 * tokens * layers * DOWN)
    scenario = layout_scenario(
        llama(layers), "maxtext", "h100-8", 2, Parallel(dp=dp, zero=3, recompute="full"),
        sequence=tokens, batch=dp,
    )  # fmt: skip
    return Layout("maxtext", scenario, sends, {0: flops})


def mindspeed() -> Layout:
    """MindSpeed on 910B: tp 4 with sequence parallelism, ring of cp 2, full recompute, one stage.

    Tensor parallelism as Megatron's, ring attention as Transformer Engine's: keys and values of a
    rank's 4 heads and 2,048 tokens to the neighbour, once forward, once again when the layer is
    recomputed, and twice the bytes backward. 51 M weights a rank, in buckets of 40 M.
    """
    layers, m, tokens, tp, cp = 4, 2, 2048, 4, 2
    wide, pair = tokens * H * BF16, tokens * 2 * (H / tp) * BF16
    sends = {
        TENSOR: everywhere(1, [
            Row(F, GATHER, tp, m * (2 * layers + 1), wide),
            Row(F, SCATTER, tp, m * (2 * layers + 1), wide),
            Row(F, REDUCE, tp, m * 3, tokens * FP32),
            Row(A, GATHER, tp, m * 2 * layers, wide),
            Row(A, SCATTER, tp, m * 2 * layers, wide),
            Row(B, GATHER, tp, m * (4 * layers + 2), wide),
            Row(B, SCATTER, tp, m * (2 * layers + 1), wide),
            Row(OPT, REDUCE, tp, 1, layers * 2 * H * FP32),
        ]),
        CONTEXT: everywhere(1, [
            Row(F, SEND, cp, m * layers * (cp - 1), pair),
            Row(A, SEND, cp, m * layers * (cp - 1), pair),
            Row(B, SEND, cp, m * layers * (cp - 1), 2 * pair),
        ]),
        WEIGHTS: everywhere(1, [
            Row(B, SCATTER, cp, 1, (layers * GPT + VOCAB) / tp * FP32),
            Row(F, GATHER, cp, 1, (layers * GPT + VOCAB) / tp * BF16),
        ]),
    }  # fmt: skip
    flops = again(
        trained(
            m * 2 * tokens * layers * GPT / tp,
            m * 2 * tokens * (cp * tokens / 2) * (2 * H) * layers / tp,
            m * 2 * tokens * VOCAB / tp,
        ),
        ("products", "attention"),
    )
    scenario = layout_scenario(
        gpt(layers), "mindspeed", "ascend-910b2-8", 1, Parallel(tp=tp, cp=cp, recompute="full"),
        sequence=cp * tokens, batch=m,
    )  # fmt: skip
    return Layout("mindspeed", scenario, sends, {0: flops}, frozenset({CONTEXT}))


def lora() -> Layout:
    """LoRA under ZeRO 3: PyTorch FSDP over 8 ranks, full recompute, two micro-batches.

    Frozen weights are sharded and have to be gathered like any, forward and backward; they have no
    gradients to scatter. Those of the adapters (below 0.1 %) are not written down. Embedding and
    head are the root's unit, gathered once and kept for the backward pass. Backward only the
    gradient of a product's input; attention whole, five products; recomputed once, but for the product
    down, before which checkpoints of PyTorch stop.
    """
    layers, m, tokens, dp = 4, 2, 2048, 8
    sends = {
        WEIGHTS: everywhere(1, [
            Row(F, GATHER, dp, m * layers, LLAMA * BF16), Row(F, GATHER, dp, m * 2, VOCAB * BF16),
            Row(B, GATHER, dp, m * layers, LLAMA * BF16),
        ]),
    }  # fmt: skip
    products, head = m * 2 * tokens * layers * LLAMA, m * 2 * tokens * VOCAB
    attention = m * 2 * tokens * (tokens / 2) * (2 * H) * layers
    flops = again(trained(products, attention, head), ("products", "attention"))
    flops |= {(B, "products"): Flop(products), (B, "head"): Flop(head)}
    flops = up_to_the_last(flops, m * 2 * tokens * layers * DOWN)
    scenario = layout_scenario(
        llama(layers, lora_rank=16), "fsdp", "h100-8", 1,
        Parallel(dp=dp, zero=3, recompute="full"), sequence=tokens, batch=m * dp,
    )  # fmt: skip
    return Layout("lora zero 3", scenario, sends, {0: flops}, frozenset({WEIGHTS}))


DENSE = (
    megatron_sequence_parallel, megatron_without_sequence_parallel, megatron_ring,
    deepspeed_ulysses, megatron_latent, megatron_1f1b_tied, megatron_interleaved, fsdp2, hsdp,
    lambda: deepspeed(1), lambda: deepspeed(2), lambda: deepspeed(3), maxtext, mindspeed, lora,
)  # fmt: skip
