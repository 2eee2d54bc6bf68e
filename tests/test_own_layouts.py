"""Pools with layouts of their own: stages and replicas on different devices, held against the engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from factories import make_device, make_model, make_node, make_scale_out, make_scenario, make_stack

import ersatz
from ersatz.device_models.catalog.reading import load_node, load_stack
from ersatz.sim.errors import InfeasibleError, InputError
from ersatz.sim.plan.borders import stage_borders
from ersatz.sim.plan.layout import on_pool
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.plan.memory.peaks import stage_peaks
from ersatz.sim.run import run_case
from ersatz.sim.scenario.resolving.own import joined_layout
from ersatz.sim.scenario.scenario import Joint, Parallel, Pool, PoolLayout, Scenario, Training
from ersatz.sim.step.build import build_program, stage_pools
from ersatz.sim.step.folded import folded_times
from ersatz.sim.step.oracle import oracle_step
from ersatz.sim.step.quick.walk import quick_times
from ersatz.sim.step.step import job_programs, simulate_step, split_replicas, step_seconds
from ersatz.sim.step.vector import alike, vector_step
from ersatz.sim.workload.model_file import load_model

FAST = make_node(name="fast", device=make_device(matrix_peak={"bf16": 200e12}))
SLOW = make_node(name="slow")


def staged(first: Parallel, second: Parallel, sizes: tuple[int, int] = (1, 1), **keys) -> Scenario:  # type: ignore[no-untyped-def]
    """Four stages, two on each pool, layouts their own; devices follow from the layouts."""
    job = Parallel(pp=4, stage_pools=("a", "a", "b", "b"), chunk_layers=(3, 3, 1, 1))
    own, pools = [], []
    for name, node, one, size in zip("ab", (FAST, SLOW), (first, second), sizes, strict=True):
        layout = replace(job, tp=one.tp, cp=one.cp, dp=one.dp, recompute=one.recompute,
                         sequence_parallel=one.tp > 1, own=True)  # fmt: skip
        own.append(PoolLayout(name, layout, size))
        pools.append(Pool(name, node, 2 * one.tp * one.cp * one.dp // 8, make_stack(**keys)))
    return make_scenario(
        pools=tuple(pools), parallel=joined_layout(job, own), training=Training(1000, 64, sizes[0]),
        joint=Joint(),
    )  # fmt: skip


CASES = (
    staged(Parallel(tp=2, dp=4), Parallel(tp=2, dp=4)),
    staged(Parallel(tp=1, dp=8), Parallel(tp=2, dp=4), (1, 2)),
    staged(Parallel(tp=5, dp=8), Parallel(tp=2, cp=2, dp=4, recompute="full"), (1, 2)),
    staged(Parallel(tp=2, dp=2), Parallel(tp=2, dp=8), (8, 2), overlap_p2p=False, launch_s=1e-6),
)


@pytest.mark.parametrize("case", CASES)
def test_every_engine_takes_pools_with_their_own_layouts(case: Scenario) -> None:
    program, flop = build_program(case)
    body, end = folded_times(program)
    assert quick_times(case) == (body, end)
    assert end == vector_step(program) == oracle_step(program, alike(program))
    assert step_seconds(case) == end == simulate_step(case).duration_s
    # however ranks are dealt out, the model's work is the same; what is computed again comes on top
    plain = build_program(CASES[0])[1]
    again = case.parallel.pools[1].parallel.recompute == "full"
    assert flop > 1.05 * plain if again else flop == pytest.approx(plain, rel=1e-9)


def test_equal_layouts_of_their_own_are_the_layout_of_the_job() -> None:
    own = CASES[0]
    one = replace(own.parallel.pools[0].parallel, own=False)
    common = replace(own, parallel=one)
    assert step_seconds(own) == step_seconds(common)
    assert plan_memory(own) == plan_memory(common)
    assert build_program(own)[1] == pytest.approx(build_program(common)[1], rel=1e-12)


def test_a_message_between_eight_and_four_ranks_by_hand() -> None:
    # Eight ranks with cards of 10 GB/s send to four: 40 GB/s arrive, 5 for each of the eight; the other
    # way each of the four has its own 10. Through a joint of 20 GB/s in all it is half of both.
    case = staged(Parallel(tp=1, dp=8), Parallel(tp=1, dp=4), (1, 2))
    case = replace(case, pools=(case.pools[0], replace(case.pools[1], nodes=1)))
    nbytes = 1000 * 1000 * 2.0  # of a sequence's activations
    pools = stage_pools(case)
    for joint, there, back in ((Joint(), 5e9, 10e9), (Joint(bandwidth=20e9), 2.5e9, 5e9)):
        tied = replace(case, joint=joint)
        assert stage_borders(tied, pools, [(1, 2)])[1, 2].rate == back  # of the four
        program, _ = build_program(tied)
        sent = {stage: [op for (s, variant), block in program.blocks.items() if s == stage
                        and variant[0][0] == phase for op in block.ops if op.name == "send"]
                for stage, phase in ((1, "F"), (2, "B"))}  # fmt: skip
        assert sent[1][0].device_s == pytest.approx(nbytes / there, rel=1e-6)
        assert sent[2][0].device_s == pytest.approx(2 * nbytes / back, rel=1e-6)


def test_the_memory_of_each_pool_is_that_of_its_own_layout() -> None:
    case = CASES[2]
    for peak in stage_peaks(case):
        own = on_pool(case, peak.pool)
        alone = replace(own, parallel=replace(own.parallel, own=False), pools=case.pools)
        assert peak.total == list(stage_peaks(alone))[peak.stage].total


def replicated(*own: tuple[str, int, Parallel, int], batch: int = 96, **joint: float) -> Scenario:
    """Pools of whole replicas: node, nodes, layout and micro-batch of each."""
    layouts, pools = [], []
    for number, (node, nodes, one, size) in enumerate(own):
        dp = nodes * 8 // (one.tp * one.cp * one.pp)
        layout = replace(one, dp=dp, mixed="replicas", own=True, sequence_parallel=one.tp > 1)
        layouts.append(PoolLayout(str(number), layout, size))
        pools.append(Pool(str(number), FAST if node == "fast" else SLOW, nodes, make_stack()))
    job = Parallel(mixed="replicas")
    return make_scenario(
        model=make_model(vocab=10), pools=tuple(pools), parallel=joined_layout(job, layouts),
        training=Training(1000, batch, layouts[0].micro_batch), joint=Joint(**joint),
    )  # fmt: skip


def test_replicas_with_their_own_layouts_share_the_batch_by_speed() -> None:
    # Twice as fast a device, as many replicas of as many devices: two thirds of the batch.
    case = replicated(("fast", 1, Parallel(tp=2), 1), ("slow", 1, Parallel(pp=2), 2))
    fast, slow = split_replicas(case)
    assert fast.training.global_batch + slow.training.global_batch == 96
    assert fast.training.global_batch == pytest.approx(64, abs=8)
    assert (fast.training.micro_batch, slow.training.micro_batch) == (1, 2)
    assert fast.training.global_batch % 4 == 0
    assert slow.training.global_batch % 8 == 0
    programs = job_programs(
        case, __import__("ersatz.device_models.kernels.kernel", fromlist=["x"]).calibrated_time
    )[1]
    assert [program.stages for program in programs] == [1, 2]
    assert step_seconds(case) == simulate_step(case).duration_s
    # a schedule that takes one micro-batch a stage at once is given whole rounds
    looped = Parallel(pp=2, vp=2, schedule="interleaved")
    case = replicated(("fast", 1, Parallel(tp=2), 1), ("slow", 1, looped, 1))
    assert split_replicas(case)[1].training.global_batch % (2 * 4) == 0
    # nine rounds of two stages are odd for a whole batch, but not for a share of it
    odd = replace(case, training=replace(case.training, global_batch=92))
    assert plan_memory(odd).fits


def test_gradients_of_pools_with_their_own_layouts_meet_once() -> None:
    # All weights' gradients, 4 bytes each, pass a joint of 1 GB/s: half of what two pools hold, there and
    # back (2 (n - 1) / n = 1), whatever the degrees; the rest of the step is a fraction of it.
    for layout in (Parallel(tp=2), Parallel(pp=2), Parallel(tp=5, pp=4)):
        nodes = 5 if layout.tp == 5 else 1
        case = replicated(("fast", 1, Parallel(tp=1), 1), ("slow", nodes, layout, 1), bandwidth=1e9)
        free = replace(case, joint=Joint())
        expected = 4 * case.model.params() / 1e9
        assert step_seconds(case) - step_seconds(free) == pytest.approx(expected, rel=0.1)


def test_real_pools_of_two_vendors_run_with_their_own_degrees() -> None:
    pools = (Pool("h", load_node("h800-8"), 2, load_stack("megatron-core")),
             Pool("a", load_node("ascend-910b2-8"), 2, load_stack("mindspeed")))  # fmt: skip
    job = Parallel(pp=4, stage_pools=("h", "h", "a", "a"), chunk_layers=(11, 11, 5, 5))
    own = [PoolLayout("h", replace(job, tp=2, dp=4, own=True), 1),
           PoolLayout("a", replace(job, tp=4, dp=2, recompute="selective", own=True), 2)]  # fmt: skip
    model = load_model("llama3-8b")
    case = make_scenario(model=model, pools=pools, parallel=joined_layout(job, own),
                         training=Training(4096, 64, 1), joint=Joint())  # fmt: skip
    program, _ = build_program(case)
    assert quick_times(case) == folded_times(program)
    assert folded_times(program)[1] == pytest.approx(vector_step(program), rel=1e-12)
    result = run_case(case)
    assert result.memory.fits
    assert 0.2 < result.step.mfu < 0.6


FILE = """question: Does a mix of pools with their own layouts run?
model: llama3-8b
cluster:
  pools: [{name: h, node: h800-8, nodes: 2}, {name: a, node: ascend-910b2-8, nodes: 2}]
training: {sequence_length: 4096, global_batch: 64, micro_batch: 1}
parallel:
  pp: 4
  stage_pools: [h, h, a, a]
  pools: {h: {tp: 2}, a: {tp: 4, micro_batch: 2}}
"""


def test_a_file_says_what_each_pool_has_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mix.yaml"
    path.write_text(FILE)
    answer = ersatz.run(path)
    assert "h: tp 2, 2 stages, dp 4, ZeRO 1, micro-batch 1" in str(answer)
    assert "a: tp 4, 2 stages, dp 2, ZeRO 1, micro-batch 2" in str(answer)
    path.write_text(FILE.replace("pp: 4", "mixed: replicas").replace("  stage_pools: [h, h, a, a]\n", "")
                    .replace("tp: 4,", "tp: 1, pp: 2,"))  # fmt: skip
    assert "a: 2 stages, 1f1b x 1, dp 8" in str(ersatz.run(path))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("a: {tp: 4, micro_batch: 2}", "a: {tp: 4}", "each stage must see the same sequences"),
        ("a: {tp: 4", "a: {tp: 3", "16 devices are no multiple of the 6"),
        ("a: {tp: 4", "b: {tp: 4", "expected a pool: h, a"),
        ("a: {tp: 4", "a: {pp: 4", "is the job's where pools hold stages"),
        ("a: {tp: 4, micro_batch: 2}", "a: {tp: 8, dp: 2}", "dp"),
        ("pools: {h", "batch_split: equal\n  pools: {h", "share by speed"),
        ("question", "stragglers: {fraction: 0.1, slowdown: 0.1}\nquestion", "stragglers"),
        ("[h, h, a, a]", "[h, h, h, h]", "holds no stage of pool a"),
        ("pp: 4", "pp: 4\n  mixed: replicas", "each replica stands on one pool"),
    ],
)
def test_what_does_not_go_together_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "mix.yaml"
    assert old in FILE
    path.write_text(FILE.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        ersatz.run(path)
    assert words in str(caught.value)


def test_a_pool_with_a_card_less_node_is_refused() -> None:
    alone = make_node(nics=0, scale_out=make_scale_out())
    case = CASES[1]
    case = replace(case, pools=(case.pools[0], replace(case.pools[1], node=alone)))
    with pytest.raises(InfeasibleError, match="no network cards"):
        step_seconds(case)


def test_a_schedule_that_no_replica_can_run_is_named(tmp_path: Path) -> None:
    """DualPipe on one stage, for replicas on two kinds of device: as on one kind."""
    path = tmp_path / "x.yaml"
    path.write_text("""question: Replicas?
model: {layers: 8, hidden: 512, heads: 8, vocab: 1000}
cluster:
  pools:
    - {name: h, node: h800-8, nodes: 1}
    - {name: a, node: ascend-910b2-8, nodes: 1}
training: {sequence_length: 512, global_batch: 64}
parallel: {mixed: replicas, schedule: dualpipe}
""")
    with pytest.raises(InputError, match="DualPipe needs even stages"):
        ersatz.run(path)
