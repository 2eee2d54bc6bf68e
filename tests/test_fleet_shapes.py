"""Schedulers ask once for each shape of job, and decide as if they had asked for every job."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fleet_cases import MIXED, mixed_case

from ersatz.sim.fleet.cluster import Placement
from ersatz.sim.fleet.engine.fleet import FleetSpec, run_fleet
from ersatz.sim.fleet.free import Free
from ersatz.sim.fleet.policies.placement import Placer, best_fit
from ersatz.sim.fleet.policies.preempt import (
    FairScheduler,
    LeastServiceScheduler,
    PreemptiveScheduler,
    PriorityScheduler,
)
from ersatz.sim.fleet.policies.queue import FillScheduler
from ersatz.sim.fleet.policies.registry import POLICIES
from ersatz.sim.fleet.protocol import Decision, Scheduler, Start, View
from ersatz.sim.fleet.workload.jobs import Job, Workload


class SortsAnew(PreemptiveScheduler):
    """Asks all who wait at every event, in order of rank."""

    def in_order(self, view: View) -> Iterator[Job]:
        yield from sorted(view.waiting.values(), key=lambda j: self.rank(view, j))


class PrioritiesAnew(SortsAnew, PriorityScheduler):
    """By priority."""


class ServiceAnew(SortsAnew, LeastServiceScheduler):
    """By service."""


class FairAnew(FairScheduler):
    """Looks for the tenants' first jobs among all who wait."""

    def _heads(self, view: View, stuck: set[str]) -> list[Job]:
        heads: dict[str, Job] = {}
        for job in sorted(view.waiting.values(), key=lambda j: j.submit_s):
            if job.tenant not in stuck:
                heads.setdefault(job.tenant, job)
        return list(heads.values())


class FillsAnew(FillScheduler):
    """Asks all who wait at every event."""

    def start_in_order(self, view: View) -> Iterator[Decision]:
        for job in sorted(view.waiting.values(), key=lambda j: j.submit_s):
            if self.admit(view, job, 0) and (placement := self.placer.find(view, job)):
                yield Start(job.id, placement)


def of_any_rank(made: PreemptiveScheduler) -> PreemptiveScheduler:
    made.strict = not made.strict
    return made


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("grace_s", [0.0, 300.0])
@pytest.mark.parametrize(
    ("kept", "anew"),
    [
        (PriorityScheduler, PrioritiesAnew),
        (lambda: of_any_rank(PriorityScheduler()), lambda: of_any_rank(PrioritiesAnew())),
        (LeastServiceScheduler, ServiceAnew),
        (FairScheduler, FairAnew),
        (lambda: FillScheduler("fill"), lambda: FillsAnew("fill")),
    ],
)
def test_who_stands_for_his_shape_is_answered_as_all_of_it_would_be(
    kept: Callable[[], Scheduler], anew: Callable[[], Scheduler], grace_s: float, seed: int
) -> None:
    case = mixed_case(seed, 160, grace_s=grace_s)
    one, other = (run_fleet(case, make()) for make in (kept, anew))
    assert any(r.event == "start" for r in one.records)
    assert one.records == other.records


class Counts(Placer):
    """Counts how often it is asked for devices."""

    asked = 0

    def find(self, view: View, job: Job, free: Free | None = None) -> Placement | None:
        type(self).asked += 1
        return super().find(view, job, free)


@pytest.mark.parametrize("policy", ["fill", "las", "fair", "priority", "easy"])
def test_a_queue_without_end_asks_no_more_for_a_job_than_a_short_one(policy: str) -> None:
    jobs = tuple(Job(str(i), 60.0 * i, 8, 7200.0, "ab"[i % 2], i % 3, walltime_s=9e3)
                 for i in range(800))  # fmt: skip
    Counts.asked = 0
    run_fleet(FleetSpec(MIXED, Workload(jobs)), POLICIES[policy](Counts(best_fit)))
    assert Counts.asked < 20 * len(jobs)  # eight places for two jobs an hour: 600 wait at last
