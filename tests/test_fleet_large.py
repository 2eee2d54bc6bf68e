"""What fleets of many thousands of nodes ask for: sets of nodes, places, and pictures that stay small."""

from __future__ import annotations

import numpy as np
import pytest

from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.free import Free, first, members, set_of
from ersatz.sim.fleet.log import Log
from ersatz.sim.fleet.policies.placement import EVERYWHERE, leaf_fit
from ersatz.sim.fleet.workload.jobs import Job
from ersatz.sim.report.pictures.fleet_gantt import MOST_ROWS, leaf_heat
from ersatz.sim.report.pictures.fleet_plots import STEPS, thinned


@pytest.mark.parametrize("size", [1, 63, 64, 65, 8000, 100_000])
def test_a_set_has_the_members_that_it_was_made_of(size: int) -> None:
    rng = np.random.default_rng(size)
    for share in (0.001, 0.5, 1.0):
        nodes = np.flatnonzero(rng.random(size) < share).tolist()
        made = set_of(nodes)
        assert made == sum(1 << node for node in nodes[:50]) | set_of(nodes[50:])
        assert list(members(made)) == nodes
        assert not nodes or first(made) == nodes[0]


def test_the_leaf_that_a_job_fills_best_is_found_among_thousands() -> None:
    """Leaves of two nodes of eight: all have four free devices, one has three and one has five."""
    free = Free(make_cluster(make_pool("h800", 8000, nodes_per_leaf=2)))
    for node in range(8000):
        free.set_free(node, 0b11)
    free.set_free(6001, 0b1)
    free.set_free(7000, 0b111)
    for devices, leaf in ((3, 3000), (4, 0), (5, 3500)):
        found = leaf_fit(free, Job("a", 0.0, devices, 60.0), "h800", devices, EVERYWHERE)
        assert found is not None
        assert {node // 2 for node, _ in found} == {leaf}


def test_of_many_leaves_some_share_a_row() -> None:
    few, many = (make_cluster(make_pool("h800", n, nodes_per_leaf=1)) for n in (300, 3000))
    pictures = [leaf_heat(Log(cluster), "fifo", 10.0) for cluster in (few, many)]
    rows = [picture.count("<rect") for picture in pictures]
    assert rows[0] == rows[1]
    assert MOST_ROWS <= rows[0] < MOST_ROWS + 20


def test_a_curve_of_many_steps_keeps_its_integral() -> None:
    rng = np.random.default_rng(3)
    times = np.sort(rng.uniform(0.0, 90.0, 5000))
    times[0] = 0.0
    values = rng.integers(0, 50, 5000).astype(float)
    line = thinned(times.tolist(), values.tolist(), 90.0)
    width = 90.0 / STEPS
    covered = [min(width, times[-1] - at) for at, _ in line]
    exact = float((values[:-1] * np.diff(times)).sum())
    assert sum(v * w for (_, v), w in zip(line, covered, strict=True)) == pytest.approx(exact)
