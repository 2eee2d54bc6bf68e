"""Placements by score: FGD's fragments by hand, and which device is taken."""

from __future__ import annotations

import pytest

from ersatz.sim.fleet.cluster import Cluster, FleetNode
from ersatz.sim.fleet.free import Free
from ersatz.sim.fleet.policies.score import (
    EVEN,
    ScoredPlacement,
    clustering,
    fragments,
    least_fragments,
    least_product,
    mix_of,
    packing,
)
from ersatz.sim.fleet.workload.jobs import Job, Workload

ASK = (1, 465, 6000, 0, ())  # 465/1000 of a device and six processors


def test_fragments_by_hand() -> None:
    left = (200, 1000, 1000, 500)
    # One processor is left, six are asked for: all that is left is lost to 9.33 % of the jobs.
    assert fragments(("x", 1000, 0, left, ()), [(ASK, 0.0933)]) == pytest.approx(0.0933 * 2700)
    # With processors enough, only the device with 200 left is lost.
    assert fragments(("x", 8000, 0, left, ()), [(ASK, 1.0)]) == 200
    # Two whole devices: the two shared ones are lost; three: all.
    assert fragments(("x", 0, 0, left, ()), [((2, 1000, 0, 0, ()), 1.0)]) == 700
    assert fragments(("x", 0, 0, left, ()), [((3, 1000, 0, 0, ()), 1.0)]) == 2700
    # Another type: all.
    assert fragments(("x", 8000, 0, left, ()), [((1, 100, 0, 0, ("y",)), 1.0)]) == 2700


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


def nodes_with(*jobs: tuple[int, Job, int]) -> Free:
    """Return four nodes, of 2, 4, 4 and 4 devices, with (node, job, devices as bits) on them."""
    sizes = enumerate((2, 4, 4, 4))
    free = Free(Cluster(tuple(FleetNode(f"n{i}", "x", n, cpu_milli=8000) for i, n in sizes)))
    for node, job, mask in jobs:
        free.take(job, ((node, mask),))
    return free


ONE, TWO = Job("1", 0, 1, 1), Job("2", 0, 2, 1)
HALF, CPU = Job("h", 0, 1, 1, milli=500), Job("c", 0, 0, 1, cpu_milli=1000)
LIGHT = Job("l", 0, 1, 1, milli=300)


def test_packing_knows_devices_in_use_nodes_in_use_and_idle_nodes() -> None:
    place = ScoredPlacement(packing).one_node
    # Two shared devices have room: the fuller one, of node 2, though node 1 comes first.
    free = nodes_with((1, LIGHT, 1), (2, HALF, 0b10))
    assert place(free, HALF, "", 1, -1) == ((2, 0b10),)
    # A whole device: of the first node in use, not of the smallest idle one (0).
    assert place(free, ONE, "", 1, -1) == ((1, 0b10),)
    # All idle but for processors, which do not count: the smallest node.
    assert place(nodes_with((2, CPU, 0)), ONE, "", 1, -1) == ((0, 1),)
    # Jobs without devices are all alike to it: the first node with processors left.
    free = nodes_with(*[(0, CPU, 0)] * 8)
    assert place(free, CPU, "", 0, -1) == ((1, 0),)


def test_clustering_keeps_sizes_apart() -> None:
    place = ScoredPlacement(clustering).one_node
    # Node 1 holds ones and twos, node 2 ones alone, node 3 twos alone: a one goes to node 2 ...
    free = nodes_with((1, ONE, 1), (1, TWO, 0b110), (2, ONE, 1), (3, TWO, 0b11))
    assert place(free, ONE, "", 1, -1) == ((2, 0b10),)
    # ... a two to node 3, a part of a device to the idle node 0; jobs of processors count nowhere.
    assert place(free, TWO, "", 2, -1) == ((3, 0b1100),)
    free.take(CPU, ((0, 0),))
    assert place(free, HALF, "", 1, -1) == ((0, 1),)
    # With node 2 full, a one goes where ones stand with others (1), before the idle node.
    free.take(Job("3", 0, 3, 1), ((2, 0b1110),))
    assert place(free, ONE, "", 1, -1) == ((1, 0b1000),)
    # Where no size is at home and no node idle: among strangers, with the least left.
    free = nodes_with((0, ONE, 1), (1, ONE, 1), (2, ONE, 1), (3, ONE, 1))
    assert place(free, HALF, "", 1, -1) == ((0, 0b10),)
    # What has gone counts no more.
    free.give(ONE, ((2, 1),))
    assert free.held[2] == {}
    assert place(free, HALF, "", 1, -1) == ((2, 1),)


def test_dot_product_goes_where_its_wants_are_least_left() -> None:
    free = nodes_with((1, TWO, 0b11), (2, Job("3", 0, 3, 1), 0b111))
    # Left are 2, 2, 1 and 4 devices; one device of eight: whole hundredths tell node 2 apart.
    wide = Job("w", 0, 1, 1, cpu_milli=8000)
    assert ScoredPlacement(least_product).one_node(free, wide, "", 1, -1) == ((2, 0b1000),)
