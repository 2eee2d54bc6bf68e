"""The engines against each other and against closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import SHAPES, random_program, uniform_program

from ersatz.sim.step.breakdown import explain_step
from ersatz.sim.step.folded import folded_step
from ersatz.sim.step.oracle import oracle_step
from ersatz.sim.step.program import COMPUTE, TICK, Block, Work, make_op, ticks
from ersatz.sim.step.vector import alike, vector_step


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_vector_equals_oracle_bit_for_bit_with_stragglers(seed: int) -> None:
    program = random_program(seed)
    rng = np.random.default_rng(seed)
    slowness = [1.0 + rng.random(program.shape) for _ in range(program.stages)]
    assert vector_step(program, slowness) == oracle_step(program, slowness)


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_all_engines_agree_when_ranks_are_alike(seed: int) -> None:
    program = random_program(seed)
    expected = oracle_step(program, alike(program))
    assert vector_step(program) == expected
    assert folded_step(program) == pytest.approx(expected, rel=1e-12)


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_every_second_of_every_stage_has_one_cause(seed: int) -> None:
    times = explain_step(random_program(seed))
    for causes in times.by_stage:
        assert sum(causes.values()) == pytest.approx(times.duration_s, rel=1e-12)


@pytest.mark.parametrize("engine", [vector_step, folded_step, lambda p: oracle_step(p, alike(p))])
@pytest.mark.parametrize(("p", "m"), [(1, 1), (2, 2), (4, 8), (8, 32)])
def test_uniform_1f1b_is_m_plus_p_minus_1_exactly(engine, p: int, m: int) -> None:  # type: ignore[no-untyped-def]
    forward, backward = ticks(0.1), ticks(0.2)
    program = uniform_program("1f1b", p, m, 1, {"F": forward, "B": backward})
    assert engine(program) == (m + p - 1) * (forward + backward)


@pytest.mark.parametrize("shape", SHAPES)
def test_bubble_of_the_breakdown_is_what_work_leaves(shape: tuple[str, int, int, int]) -> None:
    name, p, m, v = shape
    program = uniform_program(name, p, m, v, {"F": 1.0, "B": 2.0, "I": 1.0, "W": 1.0})
    times = explain_step(program)
    chunks = m * program.schedule.chunks // (2 if name == "dualpipe" else 1)
    for causes in times.by_stage:
        assert causes["matrix"] == 3.0 * chunks
        assert causes["matrix"] + causes.get("bubble", 0.0) == times.duration_s


def test_small_kernels_are_bound_by_the_host() -> None:
    # three kernels of 1 s that the host needs 2 s each to launch: launched at 2, 4, 6, done at 7
    op = make_op("compute", COMPUTE, [Work(2.0, 1.0, "matrix")] * 3)
    assert (op.device_s, op.host_s, op.lead_s) == (3.0, 6.0, 7.0)
    # with launches of 0.5 s only the first shows: 0.5, then 3 s of work
    assert make_op("compute", COMPUTE, [Work(0.5, 1.0, "matrix")] * 3).lead_s == 3.5


def test_a_straggler_holds_its_group_and_no_other() -> None:
    # 2 x 2 ranks; every op is followed by an all-reduce over tp; rank (0, 1) takes twice as long
    work = make_op("compute", COMPUTE, [Work(0.0, 1.0, "matrix")], after=(-1,))
    meet = make_op("meet", COMPUTE, [Work(0.0, 0.5, "tp")], sync=(0,), scales=False)
    from programs import make_program

    program = make_program(
        "1f1b", 1, 3, 1, (2, 1, 1, 2),
        lambda _: Block((work, meet), ((1, 0),)), lambda: Block(()),
    )  # fmt: skip
    slowness = np.ones((2, 1, 1, 2))
    slowness[0, 0, 0, 1] = 2.0
    # the slow group needs 2.5 s per block, 3 micro-batches x 2 phases = 6 blocks: 15 s
    assert vector_step(program, [slowness]) == 15.0
    assert vector_step(program) == 9.0


def test_times_lie_on_the_clock_grid() -> None:
    assert ticks(0.1) / TICK == round(0.1 / TICK)
    assert sum([ticks(0.1)] * 1000) == 1000 * ticks(0.1)  # sums are exact


def test_collectives_are_single_pieces_of_work() -> None:
    with pytest.raises(ValueError, match="single piece"):
        make_op("bad", COMPUTE, [Work(0.0, 1.0, "tp")] * 2, sync=(0,))
