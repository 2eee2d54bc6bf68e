"""Shares of time: rounds that would change nothing are passed over, and nothing changes by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from ersatz.sim.fleet.cluster import Cluster, FleetNode
from ersatz.sim.fleet.engine.fleet import FleetSpec, run_fleet
from ersatz.sim.fleet.engine.outages import Failures
from ersatz.sim.fleet.log import Record
from ersatz.sim.fleet.policies.shares import ShareScheduler
from ersatz.sim.fleet.protocol import Decision, View
from ersatz.sim.fleet.workload.jobs import Job, Workload

SPEEDS = {"a": 1.0, "b": 0.6, "c": 0.25}
HOUR, DAY = 3600.0, 86400.0


class Counted(ShareScheduler):
    """Counts how often it is asked."""

    asked = 0

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        self.asked += 1
        return super().on_event(now, events, view)


class Restless(Counted):
    """Passes no round over."""

    def _settles(self, view: View, chosen: dict[str, str]) -> set[tuple[str, str]]:
        return set()


def speed(job: Job, kind: str, devices: int, nodes: int, leaves: int) -> float:
    return SPEEDS[kind] if job.id != "picky" or kind == "a" else 0.0


def spec(seed: int) -> FleetSpec:
    """Some jobs of hours over weeks, on three types of nodes that fail."""
    rng = np.random.default_rng(seed)
    nodes = tuple(FleetNode(f"{kind}{i}", kind, 8, i) for kind in SPEEDS for i in range(2))
    times = np.cumsum(rng.exponential(6 * HOUR, 24))
    jobs = tuple(
        Job("picky" if i == 3 else str(i), float(t), int(rng.choice((1, 2, 4, 8))),
            float(rng.exponential(8 * HOUR)), restart_s=60.0)
        for i, t in enumerate(times)
    )  # fmt: skip
    outages = (Failures("node", 1 / (5 * DAY), 2 * HOUR),)
    return FleetSpec(Cluster(nodes), Workload(jobs), speed=speed, outages=outages, seed=seed)


@pytest.mark.parametrize("seed", range(12))
def test_rounds_that_are_passed_over_would_have_changed_nothing(seed: int) -> None:
    settled, restless = Counted(), Restless()
    logs = [run_fleet(spec(seed), scheduler) for scheduler in (settled, restless)]
    assert logs[0].records == logs[1].records
    assert settled.asked < restless.asked


def test_a_job_alone_is_not_looked_at_every_round() -> None:
    """A thousand days hold 240,000 rounds of six minutes."""
    fleet = Cluster((FleetNode("a0", "a", 8), FleetNode("b0", "b", 8, 1)))
    job = Job("long", 0.0, 8, 1000 * DAY)
    scheduler = Counted()
    log = run_fleet(FleetSpec(fleet, Workload((job,)), speed=speed), scheduler)
    assert log.end_s == 1000 * DAY
    assert scheduler.asked < 10
