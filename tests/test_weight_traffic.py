"""Weights and gradients between ranks: buckets, ZeRO, hybrid sharding, tied tables, and their memory.

Ops are counted in the programs of plans with round numbers; on links of 100 GB/s without latency a
gather or scatter of S bytes over n ranks takes S (n-1)/n / 100 GB/s.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from factories import make_device, make_model, make_node, make_scenario, make_stack
from hypothesis import given, settings
from hypothesis import strategies as st

from ersatz.sim.plan.layout import chunk_params, communicators, split_layers, weight_spread
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario, Training
from ersatz.sim.step.build import build_program
from ersatz.sim.step.program import Op
from ersatz.sim.step.step import step_seconds
from ersatz.sim.step.traffic.weights import Bucket, Part, WeightTraffic
from ersatz.sim.workload.model import Experts, LatentAttention

MOE = make_model(experts=Experts(routed=16, top_k=2, hidden=500))


def plan(
    stack: dict[str, Any] | None = None, node: dict[str, Any] | None = None, nodes: int = 1,
    training: Training | None = None, **changes: Any,
) -> Scenario:  # fmt: skip
    """Eight ranks of one node, eight micro-batches each, unless told otherwise."""
    model = changes.pop("model", make_model())
    parallel = Parallel(**{"dp": 8, **changes})
    pools = (Pool("", make_node(**(node or {})), nodes, make_stack(**(stack or {}))),)
    training = training or Training(1000, 8 * parallel.dp, 1)
    return make_scenario(model=model, parallel=parallel, pools=pools, training=training)


def issued(scenario: Scenario, name: str, stage: int = 0) -> list[Op]:
    """Every op of that name that a stage runs in a step."""
    program, _ = build_program(scenario)
    blocks = [program.blocks[visit.stage, visit.block] for visit in program.schedule.walk
              if visit.stage == stage]  # fmt: skip
    return [op for block in (*blocks, program.tails[stage]) for op in block.ops if op.name == name]


def bytes_of(ops: list[Op], ranks: int = 8, rate: float = 100e9) -> float:
    """Whole bytes of gathers and scatters over `ranks`."""
    return sum(op.device_s for op in ops) * rate * ranks / (ranks - 1)


PARAMS = 8 * make_model().layer_params(moe=False) + 2 * 10e6  # layers, embedding and head


@pytest.mark.parametrize(("least", "buckets"), [(0, 10), (33e6, 4), (1e9, 1)])
def test_layers_share_a_bucket(least: float, buckets: int) -> None:
    """Embedding and head have 10 M weights, a layer 16 M. From the end 33 M hold head and two layers
    (42 M); then three layers (48 M); three layers; embedding. The bytes are the same: 4 each."""
    scenario = plan(stack={"bucket_params": least}, zero=1)
    found = issued(scenario, "reduce")
    assert len(found) == buckets
    assert bytes_of(found) == pytest.approx(4 * PARAMS, rel=1e-6)
    assert len(issued(scenario, "gather")) == buckets  # beside the first forward pass


def test_buckets_grow_with_the_ranks() -> None:
    """6.5 M weights per rank are 52 M for eight ranks: head and three layers, four, one and table."""
    stack = {"bucket_params": 1.0, "bucket_params_per_rank": 6.5e6}
    assert len(issued(plan(stack=stack, zero=1), "reduce")) == 3


def test_buckets_save_the_latency_of_large_groups() -> None:
    """64 nodes with hops of 100 us: 63 hops a collective, ten of them against one."""
    out = make_node().scale_out
    node = {"scale_out": replace(out, latency_s=100e-6, nic_bandwidth=1e15)}
    each, one = (
        step_seconds(plan(stack={"bucket_params": p}, node=node, nodes=64, zero=1, dp=512))
        for p in (0, 1e9)
    )
    assert each > one


def test_later_chunks_may_be_one_bucket_each() -> None:
    """Two stages of four layers: 10 + 64 M weights, in five buckets on the first, one on the last."""
    stack = {"bucket_params": 1.0, "bucket_first_chunk_only": True}
    scenario = plan(stack=stack, pp=2, dp=4, zero=1)
    assert [len(issued(scenario, "reduce", stage)) for stage in (0, 1)] == [5, 1]


def test_zero_2_reduces_what_it_does_not_hold() -> None:
    """Ten parts, eight micro-batches: 10 scatters with ZeRO 1, 80 with ZeRO 2; weights are gathered
    once, or with each micro-batch where only shards are kept between them."""
    assert len(issued(plan(zero=1), "reduce")) == 10
    assert len(issued(plan(zero=2), "reduce")) == 80
    assert len(issued(plan(zero=2), "gather")) == 10
    shards = plan(stack={"zero2_gather": "micro-batch"}, zero=2)
    assert len(issued(shards, "gather")) == 80
    assert step_seconds(plan(zero=2)) >= step_seconds(plan(zero=1))


def test_zero_2_may_reduce_once_per_run_of_a_chunk() -> None:
    """Interleaved over two stages, two chunks, eight micro-batches in groups of two: each chunk goes
    back four times in a row of two. Five parts a stage and run: 4 x 5 scatters; with plain 1F1B one
    run holds them all. Memory holds a whole chunk's gradients meanwhile."""
    stack = {"zero2_reduce": "run"}
    interleaved = plan(stack=stack, pp=2, vp=2, dp=4, zero=2, schedule="interleaved")
    assert len(issued(interleaved, "reduce")) == 4 * 5
    assert len(issued(plan(stack=stack, pp=2, dp=4, zero=2), "reduce")) == 5
    assert step_seconds(plan(stack=stack, zero=2)) == step_seconds(plan(zero=1))
    parts = plan_memory(plan(stack=stack, zero=2)).parts
    assert (
        parts["gradients"] + parts["whole gradients"] > plan_memory(plan(zero=1)).parts["gradients"]
    )


def test_zero_3_gathers_frozen_weights_for_lora() -> None:
    """Ten parts gathered forward and all but the head backward of eight micro-batches; no gradients
    to scatter."""
    lora = plan(model=make_model(lora_rank=16), zero=3)
    assert len(issued(lora, "gather")) == (10 + 9) * 8
    assert issued(lora, "reduce") == []
    assert issued(plan(model=make_model(lora_rank=16), zero=1), "gather") == []


def test_layers_are_gathered_in_8_bits_where_the_stack_does_so() -> None:
    """8 layers in one byte, embedding and head in two; backward the head (20 MB) is still there."""
    training = Training(1000, 8, 1, "fp8")
    narrow = plan(stack={"narrow_weight_gather": True}, zero=3, training=training)
    layers = 8 * make_model().layer_params(moe=False)
    assert bytes_of(issued(narrow, "gather")) == pytest.approx(2 * layers + 3 * 20e6, rel=1e-6)
    wide = plan(zero=3, training=training)
    assert bytes_of(issued(wide, "gather")) == pytest.approx(2 * 2 * PARAMS - 20e6, rel=1e-6)


def test_hybrid_sharding_reduces_its_shards_over_the_replicas() -> None:
    """dp 64, shard 8: groups of eight neighbours, eight copies of each. All-reduce of an eighth."""
    parallel = Parallel(dp=64, shard=8, zero=3)
    groups = communicators(parallel, make_node(), 64)
    assert (groups["dp"].group.size, groups["dp"].group.nodes) == (8, 1)
    assert (groups["rep"].group.size, groups["rep"].group.nodes) == (8, 8)
    hybrid = plan(nodes=8, dp=64, shard=8, zero=3)
    assert len(issued(hybrid, "reduce")) == 2 * 10 * 8  # scatters inside, sums across
    # ZeRO 0 has nothing to shard: one group of all
    assert communicators(replace(parallel, zero=0), make_node(), 64)["dp"].group.size == 64


def test_experts_are_sharded_over_the_same_block_of_replicas() -> None:
    """dp 64, ep 8, shard 16: blocks of 16 ranks hold two copies of each expert; four blocks."""
    dense, expert = weight_spread(Parallel(dp=64, ep=8, shard=16, zero=3))
    assert (dense.shard, dense.copies) == (16, 4)
    assert (expert.shard, expert.copies) == (2, 4)
    narrow = weight_spread(Parallel(dp=64, ep=8, shard=4, zero=3))[1]
    assert (narrow.shard, narrow.copies) == (1, 8)  # ep takes more ranks than a block has


@given(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 8, 16]),
       st.sampled_from([0, 2, 4, 16]), st.sampled_from([1, 2, 3]))  # fmt: skip
def test_time_and_memory_agree_on_what_is_sharded(
    tp: int, cp: int, ep: int, shard: int, zero: Any
) -> None:
    """The ranks over which collectives run are those that memory divides by."""
    parallel = Parallel(tp=tp, cp=cp, ep=ep, dp=16, shard=shard, zero=zero)
    groups = communicators(parallel, make_node(), 16)
    dense, expert = weight_spread(parallel)
    assert dense.shard == groups["dp"].group.size
    assert expert.shard == groups["edp"].group.size
    assert dense.shard * dense.copies == 16 * cp
    assert expert.shard * expert.copies == 16 * cp * tp // ep


def test_dualpipe_shares_the_state_of_a_chunks_two_copies() -> None:
    """Stages r and p-1-r hold the same two chunks: their gradients meet, their optimiser is halved."""
    plain, twice = (
        communicators(Parallel(pp=4, dp=8, schedule=name), make_node(), 8)
        for name in ("1f1b", "dualpipe")
    )
    assert twice["dp"].group.size == 2 * plain["dp"].group.size
    state = [
        plan_memory(plan(pp=4, dp=8, nodes=4, schedule=name, training=Training(1000, 128, 1)))
        .parts["optimizer"]
        for name in ("1f1b", "dualpipe")
    ]  # fmt: skip
    # 12 bytes of state a weight: two layers and the embedding over 8; four and both tables over 16
    assert state[0] == pytest.approx(12 / 8 * (2 * make_model().layer_params(moe=False) + 10e6))
    assert state[1] == pytest.approx(12 / 16 * (4 * make_model().layer_params(moe=False) + 20e6))


def test_a_tied_table_is_held_and_sent_once() -> None:
    """Ten parts, but one table of 10 M: the head's is the embedding's."""
    tied = plan(model=make_model(tied=True), zero=1)
    assert bytes_of(issued(tied, "reduce")) == pytest.approx(4 * (PARAMS - 10e6), rel=1e-6)
    chunks = split_layers(tied.model, tied.parallel)
    assert chunk_params(tied.model, chunks[0], tied.parallel)[0] == PARAMS - 10e6


@pytest.mark.parametrize(("model", "sums"), [
    (make_model(), 0), (make_model(tied=True), 1), (make_model(predict_layers=1), 1),
])  # fmt: skip
def test_copies_of_the_table_are_summed_over_both_ends(model: Any, sums: int) -> None:
    """The last stage has a copy as its head, or to predict with; the first and last sum gradients."""
    scenario = plan(model=model, pp=4, dp=2)
    assert [len(issued(scenario, "embedding sum", s)) for s in range(4)] == [sums, 0, 0, sums]
    assert issued(plan(model=model), "embedding sum") == []


def test_prediction_modules_hold_the_embedding_on_another_stage() -> None:
    """10 M more than layers, module (a layer and 2 h^2) and head; not on the embedding's own stage."""
    model = make_model(predict_layers=1)
    last = split_layers(model, Parallel(pp=2, dp=1))[-1]
    layer = model.layer_params(moe=False)
    assert chunk_params(model, last, Parallel(pp=2))[0] == 5 * layer + 2e6 + 10e6 + 10e6
    alone = split_layers(model, Parallel(dp=1))[-1]
    assert chunk_params(model, alone, Parallel())[0] == 9 * layer + 2e6 + 10e6 + 10e6


def test_weights_that_every_tensor_rank_holds_whole() -> None:
    """Norms, routers and latent down-projections are not divided by tp; two key heads over four
    ranks are one each."""
    latent = make_model(latent=LatentAttention(q_rank=300, kv_rank=100, rope_dim=20, nope_dim=80,
                                               v_dim=60))  # fmt: skip
    runs = ((latent.layer(moe=False), 1),)
    chunk = replace(split_layers(latent, Parallel())[0], runs=runs, embedding=False, head=False)
    one, four = (chunk_params(latent, chunk, Parallel(tp=tp))[0] for tp in (1, 4))
    whole = 420 * 1000 + 2 * 1000
    assert four == (one - whole) / 4 + whole
    few = make_model(kv_heads=2, heads=12, head_dim=100)
    runs = ((few.layer(moe=False), 1),)
    chunk = replace(split_layers(few, Parallel())[0], runs=runs, embedding=False, head=False)
    keys = 2 * 100 * 1000
    rest = 2 * 1200 * 1000 + 12e6
    assert chunk_params(few, chunk, Parallel(tp=4))[0] == rest / 4 + keys + 2000


def test_messages_are_whole_without_sequence_parallelism() -> None:
    """1,000 tokens x 1,000 in 2 bytes over 100 GB/s: 20 us; halved by sequence parallelism, or by
    old software that splits them and gathers on arrival."""
    size = {"tp": 2, "pp": 2, "dp": 2}
    whole = issued(plan(**size, sequence_parallel=False), "send")
    assert [op.device_s for op in whole] == pytest.approx([20e-6] * 8)
    spread = issued(plan(**size, sequence_parallel=True), "send")
    assert [op.device_s for op in spread] == pytest.approx([10e-6] * 8)
    old = plan(stack={"scatter_messages": True}, **size, sequence_parallel=False)
    assert [op.device_s for op in issued(old, "send")] == pytest.approx([10e-6] * 8)
    assert len(issued(old, "message gather")) == len(issued(old, "send"))


def test_messages_of_one_chunk_per_stage_hold_the_stream_and_the_host() -> None:
    """Megatron overlaps them only where a stage has several chunks; otherwise its host waits."""
    stack = {"overlap_p2p_plain": False, "p2p_host_sync": True}
    plain = issued(plan(stack=stack, pp=2, dp=4), "send")
    assert all(op.stream == 1 and op.host_waits for op in plain)
    several = plan(stack=stack, pp=2, vp=2, dp=4, schedule="interleaved")
    assert all(op.stream != 1 and not op.host_waits for op in issued(several, "send"))


def test_one_job_said_in_two_ways_takes_one_time_and_one_memory() -> None:
    """Interleaved with one chunk is 1F1B; ZeRO 0-3 in a group of one are the same."""
    ways = [plan(pp=4, dp=2, schedule=name) for name in ("1f1b", "interleaved")]
    assert len({step_seconds(way) for way in ways}) == 1
    assert len({plan_memory(way).peak_bytes for way in ways}) == 1
    for model in (make_model(), MOE):
        alike = [plan(dp=1, zero=zero, model=model, stack={"fresh_gradient_bytes": 2.0})
                 for zero in range(4)]  # fmt: skip
        assert len({step_seconds(way) for way in alike}) == 1
        assert len({plan_memory(way).peak_bytes for way in alike}) == 1


RECOMPUTE = st.sampled_from([
    ("core_attn",), ("layernorm", "activation"), ("mla_up_proj",), ("permute", "activation"),
    ("experts", "mlp"), ("every_second_product",), ("core_attn", "layernorm", "experts"),
])  # fmt: skip


@given(RECOMPUTE, st.booleans(), st.booleans(), st.sampled_from([1, 2]), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_recomputation_trades_memory_for_work_in_order(
    modules: tuple[str, ...], moe: bool, fused: bool, tp: int, layers: int
) -> None:
    """none >= selective >= full in memory, none <= selective <= full in FLOPs."""
    found = []
    for mode in ("none", "selective", "full"):
        model = make_model(layers=layers, experts=MOE.experts if moe else None)
        scenario = plan(
            model=model, tp=tp, dp=8 // tp, recompute=mode, recompute_modules=modules,
            stack={"flash_attention": fused},
        )  # fmt: skip
        found.append((plan_memory(scenario).peak_bytes, build_program(scenario)[1]))
    memory, work = zip(*found, strict=True)
    for more, less in (*pairwise(memory), *pairwise(work[::-1])):
        assert more >= less * (1 - 1e-12)


def test_selective_recomputation_drops_the_score_matrix() -> None:
    """Unfused, a layer keeps 5 a s^2 bytes of scores: 50 MB of ten heads at 1,000 tokens. Eight
    layers keep none; one layer's are there while it works, where the loss is small enough to see it."""
    stack = {"flash_attention": False}
    none, core = (
        plan_memory(plan(stack=stack, recompute=mode, recompute_modules=("core_attn",)))
        .parts["activations"]
        for mode in ("none", "selective")
    )  # fmt: skip
    assert none - core == pytest.approx(8 * 5 * 10 * 1000**2)
    small = plan(stack={**stack, "loss_memory_bytes": 1.0}, recompute="selective",
                 recompute_modules=("core_attn",))  # fmt: skip
    assert plan_memory(small).parts["working set"] == pytest.approx(5 * 10 * 1000**2 + 20e6)


def test_zero_3_holds_two_gathered_parts_and_a_layers_gradients() -> None:
    """Head of 40 M and a layer of 16 M in two bytes, gathered; the head's gradients in four."""
    model = make_model(vocab=40_000)
    parts = plan_memory(plan(stack={"loss_memory_bytes": 1.0}, model=model, zero=3)).parts
    layer = model.layer_params(moe=False)
    assert parts["gathered weights"] == 2 * (40e6 + layer)
    assert parts["whole gradients"] == 4 * 40e6


def test_more_ranks_of_a_mesh_gather_faster_than_few() -> None:
    """A group of four in a mesh of eight has three of seven links: 3 / 7 of the rate."""
    up = replace(make_node().scale_up, kind="mesh", links=7, link_bandwidth=10e9)
    node = make_node(scale_up=up)
    moe = make_model(experts=Experts(routed=8, top_k=2, hidden=4000))
    few, many = (
        sum(op.device_s for op in issued(
            replace(plan(model=moe, zero=3, tp=4, dp=dp, training=Training(1000, 8, 1)),
                    pools=(Pool("", node, 1, make_stack()),)), "gather") if op.device_s)
        for dp in (1, 2)
    )  # fmt: skip
    assert few > many  # eight micro-batches against four, three links against seven


def test_whole_weights_are_summed_over_the_tensor_group() -> None:
    """Sequence-parallel ranks see different rows of norms: 8 x 2,000 weights in four bytes, two
    turns of a ring of two at 100 GB/s."""
    found = issued(plan(tp=2, dp=4, sequence_parallel=True), "whole weights")
    assert [op.device_s for op in found] == [pytest.approx(8 * 2000 * 4 / 100e9)]
    assert issued(plan(tp=2, dp=4, sequence_parallel=False), "whole weights") == []


def test_a_lora_model_keeps_its_frozen_weights_in_8_bits_where_the_stack_does() -> None:
    """But for the tables: embedding and head, 10,000 x 1,000 each, stay in two bytes."""
    training = Training(1000, 64, 1, "fp8")
    wide, narrow = (
        plan_memory(plan(model=make_model(lora_rank=16), training=training,
                         stack={"narrow_frozen_weights": held})).parts["weights"]
        for held in (False, True)
    )  # fmt: skip
    assert narrow == wide / 2 + 2 * 10_000 * 1000
    assert make_device().supports("fp8")


def test_many_layers_are_cut_into_buckets_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each layer: building a step would take the square of the layers."""
    cuts: list[int] = []
    real = WeightTraffic.buckets

    def counted(self: WeightTraffic, parts: Sequence[Part], *, first_chunk: bool) -> list[Bucket]:
        cuts.append(len(parts))
        return real(self, parts, first_chunk=first_chunk)

    monkeypatch.setattr(WeightTraffic, "buckets", counted)
    build_program(plan(model=make_model(layers=64), zero=3))
    assert cuts == [66]  # with embedding and head
