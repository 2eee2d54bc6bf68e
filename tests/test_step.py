"""Whole plans: layer work by hand, engines agree on real programs, and what layouts must cost."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import make_device, make_model, make_node, make_scale_up, make_scenario, make_stack
from hypothesis import given, settings
from hypothesis import strategies as st

from ersatz.device_models.kernels.kernel import Kernel
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.plan.layout import cost_split
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.scenario.file import load_cases
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario, Stragglers, Training
from ersatz.sim.step import longer
from ersatz.sim.step.breakdown import explain_folded, explain_step
from ersatz.sim.step.build import build_program
from ersatz.sim.step.degraded import degraded_step_seconds
from ersatz.sim.step.folded import folded_step
from ersatz.sim.step.longer import longer_remark
from ersatz.sim.step.oracle import oracle_step
from ersatz.sim.step.step import (
    share_microbatches,
    simulate_step,
    step_seconds,
)
from ersatz.sim.step.vector import alike, vector_step
from ersatz.sim.workload.model import Experts
from ersatz.sim.workload.ops import embedding_work, head_work, layer_work
from ersatz.sim.workload.pieces import Comm, Shard


def make_shard(**changes: object) -> Shard:
    values: dict[str, object] = dict(
        model=make_model(), stack=make_stack(), tokens=1000.0, sequence=1000, precision="bf16",
        tp=1, cp=1, ep=1, etp=1, sequence_parallel=False,
    )  # fmt: skip
    return Shard(**(values | changes))  # type: ignore[arg-type]


def flop(pieces) -> float:  # type: ignore[no-untyped-def]
    return sum(p.flop for p in pieces if isinstance(p, Kernel))


def test_layer_flop_by_hand() -> None:
    # 16 M weights, 1000 tokens: 32 GFLOP; causal attention 2 x 1000 x 500 x (1000 + 1000) = 2 GFLOP
    work = layer_work(make_shard(), moe=False)
    assert flop(work.forward) == 2 * 16e6 * 1000 + 2e9
    assert flop(work.weight_grad) == 2 * 16e6 * 1000
    # backward attention: five products for two: 2 x 1000 x 500 x (3 x 1000 + 2 x 1000)
    assert flop(work.input_grad) == 2 * 16e6 * 1000 + 5e9


def test_a_step_executes_what_mfu_counts_without_recomputation() -> None:
    # forward, input and weight gradients are 6 FLOPs per weight; flash attention repeats the scores:
    # 7 products instead of 6
    scenario = make_scenario()
    _, executed = build_program(scenario)
    training, model = scenario.training, scenario.model
    tokens = training.global_batch * training.sequence_length
    counted = model.flop_per_token(1000, causal=True) * tokens
    norms = 6 * (8 * 2000) * tokens  # norm weights are counted as parameters
    again = model.attention_flop_per_token(1000, causal=True) * tokens / 2
    assert executed == pytest.approx(counted - norms + again, rel=1e-9)


@pytest.mark.parametrize("tp", [2, 5, 10])
def test_tensor_parallelism_divides_the_work(tp: int) -> None:
    whole, part = layer_work(make_shard(), moe=False), layer_work(make_shard(tp=tp), moe=False)
    assert flop(part.forward) == pytest.approx(flop(whole.forward) / tp)
    # one all-reduce of 1000 tokens x 1000 x 2 bytes per block and direction
    comms = [p for p in part.forward if isinstance(p, Comm)]
    assert [(c.kind, c.nbytes) for c in comms] == [("all_reduce", 2e6)] * 2
    spread = layer_work(make_shard(tp=tp, sequence_parallel=True), moe=False)
    kinds = [p.kind for p in spread.forward if isinstance(p, Comm)]
    assert kinds == ["all_gather", "reduce_scatter"] * 2


def test_experts_work_on_routed_tokens() -> None:
    model = make_model(experts=Experts(routed=8, top_k=2, hidden=500, shared=1))
    work = layer_work(make_shard(model=model, ep=4), moe=True)
    # 1000 tokens x 2 experts and one shared expert of 3 x 1000 x 500 weights, attention 4 M weights
    expected = 2 * 1000 * (4e6 + 3 * 1.5e6 + 8 * 1000) + 2e9
    assert flop(work.forward) == pytest.approx(expected)
    exchange = [p for p in work.forward if isinstance(p, Comm)]
    assert [(c.kind, c.nbytes) for c in exchange] == [("all_to_all", 2 * 1000 * 1000 * 2.0)] * 2


def test_vocabulary_work() -> None:
    assert flop(head_work(make_shard()).forward) == 2 * 1000 * 1000 * 10_000
    assert flop(embedding_work(make_shard()).forward) == 0


LAYOUTS = st.sampled_from([
    dict(dp=2), dict(dp=2, zero=0), dict(dp=2, zero=2), dict(dp=2, zero=3), dict(tp=2, dp=2),
    dict(tp=2, dp=1, sequence_parallel=False), dict(cp=2, dp=2), dict(pp=2, dp=2),
    dict(pp=2, dp=1, schedule="gpipe"), dict(pp=2, vp=2, dp=2, schedule="interleaved"),
    dict(pp=2, dp=2, schedule="zb-h1"), dict(pp=2, dp=1, schedule="zb-v"),
    dict(pp=2, dp=1, schedule="dualpipe"), dict(pp=2, dp=1, schedule="dualpipev"),
    dict(pp=2, dp=2, tp=2, recompute="full"),
    dict(pp=2, dp=2, recompute="selective", zero=3), dict(dp=4, shard=2, zero=3),
    dict(pp=2, vp=2, dp=2, schedule="interleaved", zero=2), dict(cp=2, dp=2, cp_comm="a2a"),
    dict(cp=4, dp=1, cp_comm="a2a+p2p", cp_inner=2), dict(cp=2, dp=1, cp_comm="all_gather"),
    dict(tp=2, etp=2, dp=2, ep=2), dict(tp=2, etp=2, dp=2, ep=2, expert_layout="strided"),
    dict(tp=2, dp=2, pp=2, sequence_parallel=False),
])  # fmt: skip


def random_scenario(data: st.DataObject) -> Scenario:
    """A small plan with random layout, model and software."""
    layout = dict(data.draw(LAYOUTS))
    moe = data.draw(st.booleans())
    if (
        moe
        and "ep" not in layout
        and layout["dp"] == 2
        and layout.get("tp", 1) == 1
        and layout.get("cp", 1) == 1
    ):
        layout["ep"] = 2
    experts = Experts(routed=4, top_k=2, hidden=500, shared=1) if moe else None
    stack = make_stack(
        launch_s=data.draw(st.sampled_from([0.0, 1e-5, 1e-3])),
        moe_host_sync=data.draw(st.booleans()), expert_host_s=1e-4,
        overlap_expert=data.draw(st.booleans()), overlap_p2p=data.draw(st.booleans()),
        overlap_grad_reduce=data.draw(st.booleans()), overlap_param_gather=data.draw(st.booleans()),
        bucket_params=data.draw(st.sampled_from([0.0, 3e7])), tp_overlap_backward=data.draw(st.booleans()),
        zero2_reduce=data.draw(st.sampled_from(["micro-batch", "run"])),
        zero2_gather=data.draw(st.sampled_from(["micro-batch", "step"])),
        overlap_p2p_plain=data.draw(st.booleans()), p2p_host_sync=data.draw(st.booleans()),
        scatter_messages=data.draw(st.booleans()),
        overlap_contention=0.2, tp_overlap_chunks=data.draw(st.sampled_from([1, 4])), step_host_s=0.01,
    )  # fmt: skip
    parallel = Parallel(**layout)
    node = make_node(devices=2, scale_up=make_scale_up(domain=2, latency_s=1e-6), nics=1)
    return make_scenario(
        model=make_model(layers=4, experts=experts),
        pools=(Pool("", node, max(parallel.world // 2, 1), stack),),
        training=Training(1000, 4 * parallel.dp, 1),
        parallel=parallel,
    )


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_engines_agree_bit_for_bit_on_whole_plans(data: st.DataObject) -> None:
    scenario = random_scenario(data)
    program, _ = build_program(scenario)
    expected = oracle_step(program, alike(program))
    assert vector_step(program) == expected
    assert folded_step(program) == pytest.approx(expected, rel=1e-12)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    slowness = [1.0 + rng.random(program.shape) for _ in range(program.stages)]
    assert vector_step(program, slowness) == oracle_step(program, slowness)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_both_accounts_of_time_are_complete(data: st.DataObject) -> None:
    program, _ = build_program(random_scenario(data))
    exact, folded = explain_step(program), explain_folded(program)
    assert folded.duration_s == exact.duration_s
    for mine, other in zip(folded.by_stage, exact.by_stage, strict=True):
        assert sum(mine.values()) == pytest.approx(exact.duration_s)
        for cause in ("matrix", "attention", "elementwise", "experts", "tensor parallel"):
            assert mine.get(cause, 0.0) == pytest.approx(other.get(cause, 0.0), abs=1e-9)


def pipeline(**changes: object) -> Scenario:
    parallel = Parallel(pp=4, dp=2, **changes)  # type: ignore[arg-type]
    return make_scenario(model=make_model(layers=8), parallel=parallel,
                         training=Training(1000, 64, 1))  # fmt: skip


def test_interleaving_and_zero_bubble_shorten_the_step() -> None:
    plain = step_seconds(pipeline())
    assert step_seconds(pipeline(vp=2, schedule="interleaved")) < plain
    assert step_seconds(pipeline(schedule="zb-h1")) < plain
    assert step_seconds(pipeline(recompute="full")) > plain


def test_one_straggler_slows_everybody_who_waits() -> None:
    scenario = pipeline()
    slow = replace(scenario, stragglers=Stragglers(ranks={0: 0.5}))
    plain, late = simulate_step(scenario), simulate_step(slow)
    # stage 0 has some slack against the last stage with its head: less than its 50 % shows
    assert 1.05 < late.duration_s / plain.duration_s < 1.5
    assert late.breakdown["straggler"] > 0


@pytest.mark.parametrize(
    "changes", [{}, {"vp": 2, "schedule": "interleaved"}, {"schedule": "zb-h1"}]
)
def test_of_very_many_micro_batches_the_last_are_like_one_another(
    changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """96 micro-batches, of which 32 are followed: the account is that of all, cause by cause."""
    slow = replace(pipeline(**changes), stragglers=Stragglers(ranks={0: 0.5, 5: 0.2}),
                   training=Training(1000, 192, 1))  # fmt: skip
    whole = simulate_step(slow)
    assert not longer_remark(slow)
    monkeypatch.setattr(longer, "MOST", 32)
    monkeypatch.setattr(longer, "LAST", 8)
    short = simulate_step(slow)
    assert short.duration_s == pytest.approx(whole.duration_s, rel=1e-9)
    assert step_seconds(slow) == pytest.approx(whole.duration_s, rel=1e-9)
    assert short.breakdown == pytest.approx(whole.breakdown, rel=1e-6, abs=1e-9 * whole.duration_s)
    assert short.hfu == pytest.approx(whole.hfu)
    assert "32 of 96 micro-batches" in longer_remark(slow)[0]


def test_the_last_are_alike_where_links_are_shared_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.yaml").write_text("""
question: What do links that are shared cost?
model: {name: m, layers: 8, hidden: 2048, heads: 16, vocab: 1000}
stack: megatron-core
cluster: {node: h800-8, nodes: 2}
training: {sequence_length: 1024, global_batch: 384, micro_batch: 1, precision: bf16}
parallel: {tp: 2, pp: 2, dp: 4, zero: 1, recompute: none, schedule: 1f1b, sequence_parallel: true}
fabric: {size: 4, contention: true, background: 0.1}
""")
    (case,) = load_cases(tmp_path / "s.yaml")
    whole = simulate_step(case)
    monkeypatch.setattr(longer, "MOST", 32)
    monkeypatch.setattr(longer, "LAST", 8)
    assert longer_remark(case)
    short = simulate_step(case)
    assert short.duration_s == pytest.approx(whole.duration_s, rel=1e-9)
    assert short.breakdown == pytest.approx(whole.breakdown, rel=1e-6, abs=1e-9)


def test_stragglers_are_drawn_from_the_seed() -> None:
    spec = Stragglers(fraction=0.3, slowdown=0.2)
    first = simulate_step(replace(pipeline(), stragglers=spec, seed=1))
    assert first == simulate_step(replace(pipeline(), stragglers=spec, seed=1))
    assert first.by_stage != simulate_step(replace(pipeline(), stragglers=spec, seed=2)).by_stage


def test_host_bound_steps_take_the_launches() -> None:
    # launches of 10 ms for kernels of microseconds: the step is the host's time, whatever the device
    slow = make_stack(launch_s=0.01, collective_launch_s=0.01)
    scenario = make_scenario(pools=(Pool("", make_node(), 1, slow),))
    fast_device = make_node(device=make_device(matrix_peak={"bf16": 1e18}, memory_bandwidth=1e16))
    faster = replace(scenario, pools=(Pool("", fast_device, 1, slow),))
    result = simulate_step(scenario)
    assert result.breakdown["launch"] / result.duration_s > 0.9
    assert step_seconds(faster) == pytest.approx(result.duration_s, rel=0.05)


def test_a_tensor_group_across_nodes_pays_the_network() -> None:
    # groups of 10 on nodes of 10 go over 100 GB/s links; on nodes of 5 over two nodes' cards
    model = make_model()
    wide = make_node(devices=10, nics=10, scale_up=make_scale_up(domain=10))
    narrow = make_node(devices=5, nics=5, scale_up=make_scale_up(domain=5))

    def exposed(node, nodes: int) -> float:  # type: ignore[no-untyped-def]
        scenario = make_scenario(model=model, pools=(Pool("", node, nodes, make_stack()),),
                                 parallel=Parallel(tp=10, dp=1),
                                 training=Training(1000, 8, 1))  # fmt: skip
        return simulate_step(scenario).breakdown["tensor parallel"]

    inside, across = exposed(wide, 1), exposed(narrow, 2)
    assert across / inside == pytest.approx(100 / 50, rel=0.01)  # five cards of 10 GB/s a node


def test_share_of_micro_batches_by_speed() -> None:
    # 10 replicas three times as fast as 30 others: 600 micro-batches as 30 and 10 each
    assert share_microbatches(600, [10, 30], [3.0, 1.0]) == [30, 10]
    assert share_microbatches(400, [10, 30], [1.0, 1.0]) == [10, 10]
    with pytest.raises(InfeasibleError, match="divisible by micro_batch x 10"):
        share_microbatches(605, [10, 30], [3.0, 1.0])


def mixed(**changes: object) -> Scenario:
    slow = make_node(device=make_device(name="slow", matrix_peak={"bf16": 25e12}))
    pools = (Pool("fast", make_node(), 1, make_stack()), Pool("slow", slow, 1, make_stack()))
    return make_scenario(pools=pools, parallel=Parallel(dp=16, mixed="replicas", **changes),  # type: ignore[arg-type]
                         training=Training(1000, 320, 1))  # fmt: skip


def test_mixed_replicas_by_speed_beat_an_equal_split() -> None:
    by_speed, equal = simulate_step(mixed()), simulate_step(mixed(batch_split="equal"))
    alone = make_scenario(training=Training(1000, 320, 1))
    assert by_speed.duration_s < step_seconds(alone) < equal.duration_s
    assert by_speed.devices == 16


def test_mixed_stages_run_on_their_pools() -> None:
    slow = make_node(device=make_device(name="slow", matrix_peak={"bf16": 50e12}))
    pools = (Pool("fast", make_node(), 1, make_stack()), Pool("slow", slow, 1, make_stack()))
    parallel = Parallel(pp=2, dp=8, stage_pools=("fast", "slow"))
    scenario = make_scenario(pools=pools, parallel=parallel, training=Training(1000, 64, 1))
    first, second = simulate_step(scenario).by_stage
    assert second["matrix"] > 1.8 * first["matrix"]


def test_fewer_replicas_take_more_micro_batches_each() -> None:
    # 128 micro-batches over two nodes of 8 replicas are 8 each, over one they are 16 each
    scenario = make_scenario()
    scenario = replace(scenario, pools=(replace(scenario.pools[0], nodes=2),),
                       parallel=replace(scenario.parallel, dp=16),
                       training=replace(scenario.training, global_batch=128))  # fmt: skip
    ratio = degraded_step_seconds(scenario, [1]) / step_seconds(scenario)
    assert ratio == pytest.approx(2.0, rel=0.05)
    assert degraded_step_seconds(scenario, [2]) == math.inf


def test_memory_by_hand() -> None:
    # weights 128 M + 20 M; one rank of eight with ZeRO 1, fp32 gradients, 12 bytes of state each
    scenario = make_scenario()
    memory = plan_memory(scenario)
    weights = scenario.model.params() - 1000 - 8 * 0  # the last norm is left out
    assert memory.parts["weights"] == pytest.approx(2.0 * weights)
    assert memory.parts["gradients"] == pytest.approx(4.0 * weights)
    assert memory.parts["optimizer"] == pytest.approx(12.0 * weights / 8)
    # a layer keeps two boundaries of 2 MB, q, k, v and output, two inputs, and three times f
    layer = 2 * 2e6 + 2 * 1000 * 4000 + 2 * 1000 * (2 * 1000 + 3 * 4000)
    logits = 8.0 * 1000 * 10_000
    assert memory.parts["activations"] == pytest.approx(8 * layer)
    assert memory.parts["loss"] == pytest.approx(logits + 2e6)  # and what enters the head
    assert memory.peak_bytes == pytest.approx(sum(memory.parts.values()))


@pytest.mark.parametrize(
    ("zero", "shares"), [(0, (1, 1, 1)), (1, (1, 1, 8)), (2, (1, 8, 8)), (3, (8, 8, 8))]
)
def test_zero_divides_state_over_its_group(zero: int, shares: tuple[int, int, int]) -> None:
    parts = plan_memory(make_scenario(parallel=Parallel(dp=8, zero=zero))).parts  # type: ignore[arg-type]
    whole = plan_memory(make_scenario(parallel=Parallel(dp=8, zero=0))).parts
    for use, share in zip(("weights", "gradients", "optimizer"), shares, strict=True):
        assert parts[use] == pytest.approx(whole[use] / share)


def test_a_plan_that_does_not_fit_says_what_would_help() -> None:
    # 80 layers hold 1.3 B weights: 2.6 GB, 5.1 GB of gradients, 15 GB of state on a device of 20 GB
    small = make_node(device=make_device(memory_bytes=20e9))
    scenario = make_scenario(model=make_model(layers=80), pools=(Pool("", small, 1, make_stack()),),
                             parallel=Parallel(dp=8, zero=0))  # fmt: skip
    memory = plan_memory(scenario)
    assert not memory.fits
    assert "zero: 1" in memory.advice
    fixed = replace(scenario, parallel=replace(scenario.parallel, zero=1))
    assert plan_memory(fixed).fits
    assert any(text.startswith("devices with at least") for text in memory.advice)


def test_memory_follows_the_schedule() -> None:
    def peak(**changes: object) -> float:
        return plan_memory(pipeline(**changes)).parts["activations"]

    assert peak(schedule="gpipe") > peak(schedule="1f1b")
    assert peak(recompute="full") < peak(recompute="selective") < peak()


def test_layers_dealt_out_by_cost() -> None:
    # 16 layers and a head worth 0.9 x 4 = 3.6 layers on two stages: a share is 9.8, so 10 and 6
    model = make_model(layers=16, hidden=2048, heads=32, head_dim=64, ffn_hidden=8192, vocab=131072)
    assert cost_split(model, 2) == (10, 6)
    # 28 layers, head 3.2, eight stages: a share is 3.9, so four each and the head alone
    wide = make_model(layers=28, hidden=3072, heads=32, head_dim=96, ffn_hidden=8192, vocab=131072)
    assert cost_split(wide, 8) == (4, 4, 4, 4, 4, 4, 4, 0)
