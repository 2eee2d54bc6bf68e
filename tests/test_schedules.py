"""Every schedule against its closed form, its memory and its completeness."""

from collections import Counter

import numpy as np
import pytest

from ersatz.sim.plan.memory.moments import (
    BACKWARD,
    FORWARD,
    JOIN,
    LAYER,
    LOSS,
    UPDATE,
    moments_of,
    stage_moments,
)
from ersatz.sim.plan.orders import PIPELINE_SCHEDULES, orders_of
from ersatz.sim.plan.schedules import Schedule, make_schedule
from ersatz.sim.scenario.scenario import Parallel, Training
from tests.factories import make_scenario

UNIT = {"F": 1.0, "B": 2.0, "I": 1.0, "W": 1.0}


def play(schedule: Schedule, phase: dict[str, float], pair: float) -> tuple[float, float]:
    """Return (makespan, longest idle time inside a stage's own span) with fixed phase times."""
    free = [0.0] * schedule.stages
    first: list[float | None] = [None] * schedule.stages
    work = [0.0] * schedule.stages
    sent: dict[int, float] = {-1: 0.0}
    for stage, block, inputs, outputs in schedule.walk:
        start = max(free[stage], *(sent[m] for m in inputs))
        first[stage] = start if first[stage] is None else first[stage]
        seconds = pair if len(block) == 2 else phase[block[0][0]]
        free[stage] = start + seconds
        work[stage] += seconds
        sent.update({m: free[stage] for m in outputs if m >= 0})
    idle = [f - (s or 0.0) - w for f, s, w in zip(free, first, work, strict=True)]
    return max(free), max(idle)


@pytest.mark.parametrize(("p", "m"), [(1, 1), (2, 3), (4, 8), (8, 32), (16, 64)])
@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
def test_plain_pipelines_take_m_plus_p_minus_1_slots(name: str, p: int, m: int) -> None:
    # every micro-batch passes every stage: m slots of work and p-1 slots of filling and draining
    assert play(make_schedule(name, p, m), UNIT, 3.0)[0] == (m + p - 1) * 3.0


@pytest.mark.parametrize(("p", "m", "v"), [(2, 4, 2), (4, 8, 2), (4, 8, 3), (8, 16, 4)])
def test_interleaving_divides_the_bubble_by_the_chunks(p: int, m: int, v: int) -> None:
    # a chunk takes 1/v of a stage's time, so filling and draining take (p-1)(F+B)/v
    phases = {name: seconds / v for name, seconds in UNIT.items()}
    assert play(make_schedule("interleaved", p, m, v), phases, 0.0)[0] == pytest.approx(
        m * 3.0 + (p - 1) * 3.0 / v
    )


@pytest.mark.parametrize(("p", "m"), [(2, 4), (4, 8), (8, 32), (6, 6)])
def test_zb_h1_leaves_a_third_of_the_bubble(p: int, m: int) -> None:
    # weight gradients fill the drain: (p-1)(F + I - W), with F = I = W = 1 that is p-1
    assert play(make_schedule("zb-h1", p, m), UNIT, 0.0)[0] == m * 3.0 + (p - 1) * 1.0


@pytest.mark.parametrize(("p", "m"), [(2, 4), (4, 8), (4, 12), (8, 16), (8, 32)])
def test_zb_v_never_idles_between_its_first_and_last_op(p: int, m: int) -> None:
    makespan, idle = play(make_schedule("zb-v", p, m), UNIT, 0.0)
    assert idle == 0.0
    assert makespan == 6.0 * m + (p - 1)  # two chunks of F, I, W each, and the first fill


@pytest.mark.parametrize(("p", "m"), [(2, 8), (4, 16), (8, 20), (16, 120)])
def test_dualpipe_bubble_is_the_published_one(p: int, m: int) -> None:
    # (p/2 - 1)(F&B + B - 3W) with overlapped F&B = 3, whole backward B = 2, W = 1
    makespan, _ = play(make_schedule("dualpipe", p, m), UNIT, 3.0)
    assert makespan - 3.0 * m == (p / 2 - 1) * (3 + 2 - 3)


@pytest.mark.parametrize(("p", "m"), [(1, 2), (2, 8), (4, 16), (5, 23), (8, 120)])
def test_dualpipev_has_the_bubble_of_a_dualpipe_of_twice_the_stages(p: int, m: int) -> None:
    # (2p/2 - 1)(F&B + B - 3W) over chunks of half a stage; a micro-batch passes a rank twice
    makespan, _ = play(make_schedule("dualpipev", p, m), UNIT, 3.0)
    assert makespan - 6.0 * m == (p - 1) * (3 + 2 - 3)


def test_dualpipe_of_deepseek_v3_has_the_published_counts() -> None:
    # rank r of 16 runs F alone 23-r times and overlapped pairs 97+r times, 120 micro-batches
    schedule = make_schedule("dualpipe", 16, 120)
    for rank in range(8):
        order = schedule.orders[rank]
        alone = sum(len(slot) == 1 and slot[0].phase == "F" for slot in order)
        pairs = sum(len(slot) == 2 for slot in order)
        split = rank == 7  # the middle rank runs its first pair one after the other
        assert (alone, pairs) == (23 - rank + split, 97 + rank - split)


def test_memory_in_flight() -> None:
    """As published: zero-bubble schedules hold 1F1B's first stage's worth (ZB-V of half chunks) on every
    stage until their weight gradients; DualPipe one more than stages."""

    def most(name: str, p: int, m: int) -> list[int]:
        training, parallel = Training(1000, m, 1), Parallel(pp=p, schedule=name)
        scenario = make_scenario(training=training, parallel=parallel)
        return [int(stage_moments(scenario, s).flying.sum(axis=1).max()) for s in range(p)]

    assert most("1f1b", 4, 8) == [4, 3, 2, 1]
    assert most("gpipe", 4, 8) == [8, 8, 8, 8]
    assert most("zb-h1", 4, 8) == [4, 4, 4, 4]
    assert most("zb-v", 4, 8) == [8, 8, 8, 8]
    assert most("dualpipe", 8, 20) == [9] * 8
    assert most("dualpipev", 4, 10) == [9] * 4  # chunks of half a stage


@pytest.mark.parametrize("name", PIPELINE_SCHEDULES)
def test_orders_are_data_that_a_caller_may_pass(name: str) -> None:
    made = make_schedule(name, 4, 8, 2 if name == "interleaved" else 1)
    if name.startswith("dualpipe"):
        return  # its overlapped slots have no place in the plain form of a custom order
    plain = tuple(tuple(tuple(slot[0]) for slot in order) for order in made.orders)
    again = make_schedule(name, 4, 8, 2 if name == "interleaved" else 1, plain)
    assert again.walk == made.walk


def test_wrong_orders_are_named() -> None:
    with pytest.raises(ValueError, match="expected 1 of each"):
        make_schedule("1f1b", 1, 1, 1, ((("F", 0, 0),),))
    good = (("F", 0, 0), ("B", 0, 0))
    for orders in ((good,), (good, good, ()), (good,) * 3):
        with pytest.raises(ValueError, match=f"orders of {len(orders)} stages for 2"):
            make_schedule("1f1b", 2, 1, 1, orders)
    for chunk, microbatch in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        strange = (("F", chunk, microbatch), ("B", chunk, microbatch))
        with pytest.raises(
            ValueError, match=f"micro-batch {microbatch} of chunk {chunk}; there are 1"
        ):
            make_schedule("1f1b", 2, 1, 1, (strange, good))
    backward_first = ((("B", 0, 0), ("F", 0, 0)), (("F", 0, 0), ("B", 0, 0)))
    with pytest.raises(ValueError, match="circular: stage 0 waits"):
        make_schedule("1f1b", 2, 1, 1, backward_first)
    with pytest.raises(ValueError, match="twice"):
        make_schedule("1f1b", 1, 1, 1, ((("F", 0, 0), ("F", 0, 0), ("B", 0, 0)),))
    with pytest.raises(ValueError, match="whole groups of 4"):
        make_schedule("interleaved", 4, 6, 2)
    with pytest.raises(ValueError, match="even"):
        make_schedule("dualpipe", 3, 12)
    with pytest.raises(ValueError, match="at least"):
        make_schedule("zb-v", 4, 4)


@pytest.mark.parametrize(
    ("name", "p", "m", "v"),
    [("gpipe", 3, 4, 1), ("1f1b", 3, 7, 1), ("interleaved", 2, 4, 3), ("zb-h1", 3, 7, 1),
     ("zb-v", 3, 7, 1), ("dualpipe", 4, 8, 1), ("dualpipev", 3, 7, 1)],
)  # fmt: skip
def test_moments_are_what_a_walk_through_the_order_meets(name: str, p: int, m: int, v: int) -> None:
    """One part after the other: what stands when it ends, and what once it has freed its own."""
    for stage, order in enumerate(orders_of(name, p, m, v)):
        late = {(q.chunk, q.microbatch) for slot in order for q in slot if q.phase == "W"}
        flying, due, met = Counter[int](), Counter[int](), []
        for q in (q for slot in order for q in slot):
            whole = q.phase == "W" or (q.phase == "B" and (q.chunk, q.microbatch) not in late)
            flying[q.chunk] += q.phase == "F"
            due[q.chunk] += q.phase == "F"
            moments = {"F": (FORWARD,), "W": ()}.get(q.phase, (LOSS, LAYER))
            met += [(what, q.chunk, flying[q.chunk], due[q.chunk]) for what in moments]
            due[q.chunk] -= q.phase in "BI"
            flying[q.chunk] -= whole
            if whole:
                met.append((BACKWARD, q.chunk, flying[q.chunk], due[q.chunk]))
        found = moments_of(name, p, m, v, stage)
        rows = np.arange(len(met))
        assert met == list(zip(
            found.what[rows].tolist(), found.chunk[rows].tolist(),
            found.flying[rows, found.chunk[rows]].tolist(),
            found.due[rows, found.chunk[rows]].tolist(), strict=True,
        ))  # fmt: skip
        assert found.what[-2:].tolist() == [JOIN, UPDATE]
        assert not found.flying[-1].any()
