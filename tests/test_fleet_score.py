"""Placements by score: FGD's fragments by hand, and which device is taken."""

from __future__ import annotations

import pytest

from sim.fleet.cluster import Cluster, FleetNode
from sim.fleet.free import Free
from sim.fleet.jobs import Job, Workload
from sim.fleet.policies.score import (
    EVEN,
    ScoredPlacement,
    fragments,
    least_fragments,
    mix_of,
    packing,
)

ASK = (1, 465, 6000, 0, ())  # 465/1000 of a device and six processors


def test_fragments_by_hand() -> None:
    left = (200, 1000, 1000, 500)
    # One processor is left, six are asked for: all that is left is lost to 9.33 % of the jobs.
    assert fragments(("x", 1000, 0, left), [(ASK, 0.0933)]) == pytest.approx(0.0933 * 2700)
    # With processors enough, only the device with 200 left is lost.
    assert fragments(("x", 8000, 0, left), [(ASK, 1.0)]) == 200
    # Two whole devices: the two shared ones are lost; three: all.
    assert fragments(("x", 0, 0, left), [((2, 1000, 0, 0, ()), 1.0)]) == 700
    assert fragments(("x", 0, 0, left), [((3, 1000, 0, 0, ()), 1.0)]) == 2700
    # Another type: all.
    assert fragments(("x", 8000, 0, left), [((1, 100, 0, 0, ("y",)), 1.0)]) == 2700


def test_the_mix_is_what_is_asked_for_most() -> None:
    jobs = [Job(str(i), 0, 1 if i < 19 else 8, 1, memory_mib=i) for i in range(20)]
    assert mix_of(Workload((*jobs, Job("cpu", 0, 0, 1)))) == [((1, 1000, 0, 0, ()), 1.0)]  # 95 %


@pytest.mark.parametrize("score", [least_fragments(EVEN), packing])
def test_a_share_goes_to_the_device_that_is_shared_already(score) -> None:  # type: ignore[no-untyped-def]
    free = Free(Cluster((FleetNode("a", "x", 4), FleetNode("b", "x", 4))))
    free.take(Job("0", 0, 1, 1, milli=400), ((1, 0b10),))
    job = Job("1", 0, 1, 1, milli=600)
    assert ScoredPlacement(score)(free, job, "", 1, -1) == ((1, 0b10),)


def test_fgd_keeps_a_node_whole_for_those_who_need_it() -> None:
    free = Free(Cluster((FleetNode("a", "x", 8), FleetNode("b", "x", 8))))
    free.take(Job("0", 0, 1, 1), ((1, 1),))
    # Node b is lost to jobs of eight already: one more device of it costs them nothing.
    assert ScoredPlacement(least_fragments(EVEN))(free, Job("1", 0, 1, 1), "", 1, -1) == ((1, 2),)
