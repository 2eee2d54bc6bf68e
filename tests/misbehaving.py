"""Schedulers that misbehave on purpose, and a fleet with everything that they could abuse."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.engine.fleet import FleetSpec
from ersatz.sim.fleet.engine.outages import Failures, Maintenance
from ersatz.sim.fleet.log import Claims, Quota, Record, Rules
from ersatz.sim.fleet.policies.placement import Placer, best_fit, first_fit
from ersatz.sim.fleet.protocol import (
    Decision,
    Drain,
    Preempt,
    Reject,
    Reserve,
    Resize,
    Scheduler,
    Start,
    View,
    WakeAt,
)
from ersatz.sim.fleet.workload.jobs import Job, Workload

YEAR_S = 365.25 * 86400.0


def full_house(seed: int = 1, jobs: int = 320) -> FleetSpec:
    """Eight nodes of 8 in two leaves, two tenants, gangs, small and elastic jobs, nodes that fail."""
    draw = random.Random(seed)
    found = []
    for i in range(jobs):
        kind = "gang" if i % 32 == 5 else "elastic" if i % 32 == 17 else "small"
        work = draw.lognormvariate(8.4, 0.8) * (2 if kind == "gang" else 1)
        found.append(Job(
            f"{kind}-{i}", draw.uniform(0, 1.6e5), 32 if kind == "gang" else 8 if kind == "elastic"
            else draw.choice([1, 1, 2, 4, 8]), work, draw.choice("ab"),
            2 if kind == "gang" else 1 if kind == "elastic" else 0,
            walltime_s=work * draw.uniform(1.1, 3), checkpoint_s=600, restart_s=120,
            min_devices=4 if kind == "elastic" else 0, max_devices=16 if kind == "elastic" else 0,
        ))  # fmt: skip
    return FleetSpec(
        make_cluster(make_pool("h800", 8, nodes_per_leaf=4)), Workload(tuple(found)),
        Rules({"a": Quota(32, 48), "b": Quota(32, 48)}, grace_s=60.0),
        outages=(Failures("node", 6 / YEAR_S, 7200.0), Maintenance(4e4, 7200, (7,), 3600)), seed=seed,
    )  # fmt: skip


class Plain:
    """Honest filling in the order of submission: the ground on which others misbehave."""

    claims = Claims(preempts="any")

    def __init__(self) -> None:
        self.name = type(self).__name__
        self.placer = Placer(best_fit)

    def on_start(self, view: View) -> None:
        pass

    def on_end(self, view: View) -> None:
        pass

    def order(self, view: View) -> list[Job]:
        """The jobs that may start, in this order."""
        return sorted(view.waiting.values(), key=lambda j: (j.submit_s, j.id))

    def fill(self, view: View, jobs: Sequence[Job]) -> Iterator[Decision]:
        for job in jobs:
            quota = view.rules.quotas.get(job.tenant)
            if quota and view.used.get(job.tenant, 0) + job.devices > quota.limit:
                continue
            if job.id in view.waiting and (found := self.placer.find(view, job)):
                yield Start(job.id, found)

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        yield from self.fill(view, self.order(view))


class LowFirst(Plain):
    """1: starts jobs of the lowest priority only, while any waits."""

    def order(self, view: View) -> list[Job]:
        jobs = super().order(view)
        low = [j for j in jobs if j.priority == 0]
        return low or jobs


class RejectsTheLarge(Plain):
    """2: turns away whatever asks for more than four devices."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        for job in list(view.waiting.values()):
            if job.devices > 4:
                yield Reject(job.id, "")
        yield from super().on_event(now, events, view)


class RejectsInWords(Plain):
    """2b: turns away a fifth of the jobs, with a reason that sounds good."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        for job in list(view.waiting.values()):
            if hash(job.submit_s) % 5 == 0:
                yield Reject(job.id, "no capacity")
        yield from super().on_event(now, events, view)


class DoubleStarts(Plain):
    """3: starts a job twice."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        for decision in super().on_event(now, events, view):
            yield decision
            yield decision


class MovesNowhere(Plain):
    """4: moves running jobs to where they are, at every event, and claims never to interrupt."""

    claims = Claims()

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        for name, attempt in list(view.running.items()):
            closed = any(node in view.free.closed for node, _ in attempt.placement)
            if attempt.job.max_devices and not attempt.notice_s and not closed:
                yield Resize(name, attempt.placement)
        yield from super().on_event(now, events, view)


class MovesNowhereOpenly(MovesNowhere):
    """4b: the same, and says that it interrupts."""

    claims = Claims(preempts="any")


class ReadsTheTruth(Plain):
    """5: shortest true run time first."""

    def order(self, view: View) -> list[Job]:
        true = view._fleet.spec.workload.by_id  # type: ignore[attr-defined]
        return sorted(view.waiting.values(), key=lambda j: true[j.id].duration_s)


class ReadsTheState(Plain):
    """5b: the same by another name."""

    def order(self, view: View) -> list[Job]:
        true = view._state.jobs  # type: ignore[attr-defined]
        return sorted(view.waiting.values(), key=lambda j: true[j.id].duration_s)


class WritesProgress(Plain):
    """6: makes jobs nearly done."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        for progress in view.progress.values():
            progress.kept_s = 1e5  # type: ignore[misc]
        yield from super().on_event(now, events, view)


class OpensClosedNodes(Plain):
    """7: opens nodes that are down in its view, and starts there."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        for node in list(view.free.closed):
            view.free.open(node)
        yield from super().on_event(now, events, view)


class OversizesElastic(Plain):
    """8: gives elastic jobs more than they may have."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        yield from super().on_event(now, events, view)
        for name, attempt in list(view.running.items()):
            if attempt.job.max_devices and not attempt.notice_s:
                yield Resize(name, tuple((node, 255) for node in range(4)))


class PromisesEverything(Plain):
    """9: promises every job a start in a minute."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        yield from super().on_event(now, events, view)
        for name in list(view.waiting):
            yield Reserve(name, now + 60)


class OneTenantOnly(Plain):
    """10: never serves tenant b while tenant a waits."""

    def order(self, view: View) -> list[Job]:
        jobs = super().order(view)
        return [j for j in jobs if j.tenant == "a"] or jobs


class BreaksGangs(Plain):
    """11: starts large jobs on half of what they ask for."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        for job in list(view.waiting.values()):
            if job.devices == 32:
                yield Start(job.id, ((0, 255), (1, 255)))
        yield from super().on_event(now, events, view)


class IgnoresLimits(Plain):
    """12: gives tenants more than their limits."""

    def fill(self, view: View, jobs: Sequence[Job]) -> Iterator[Decision]:
        for job in jobs:
            if found := self.placer.find(view, job):
                yield Start(job.id, found)


class WritesAttempts(Plain):
    """13: makes running jobs done."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        for attempt in view.running.values():
            attempt.done_s = 1e9  # type: ignore[misc]
        yield from super().on_event(now, events, view)


class PreemptsEverybody(Plain):
    """14: preempts everybody every ten minutes and at every event."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        yield from super().on_event(now, events, view)
        for name in list(view.running):
            yield Preempt(name)
        yield WakeAt(now + 600)


class ForgesRecords(Plain):
    """15: writes into the log."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        view.records.append(Record(now, "finish", next(iter(view.waiting), "")))  # type: ignore[attr-defined]
        yield from super().on_event(now, events, view)


class NeverLetsGo(Plain):
    """16: asks to be called again at once, for ever."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        yield from super().on_event(now, events, view)
        yield WakeAt(now + 1e-7)


class LendsForEver(Plain):
    """17: claims to call loans back within a minute, and does not."""

    claims = Claims(reclaim_s=60.0)


# -- others --------------------------------------------------------------------------------------------


class Idles(Plain):
    """Starts jobs at every fifth hour only."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        if now % 18000 < 60:
            yield from super().on_event(now, events, view)
        yield WakeAt((now // 18000 + 1) * 18000)


class Hoards(Plain):
    """Keeps three quarters of the nodes drained, for better times."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        if not view.free.closed & {1, 2, 3}:
            yield from (Drain(node) for node in (1, 2, 3))
        yield from super().on_event(now, events, view)


class UndrainsMaintenance(Plain):
    """Lifts the drain before a maintenance."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        yield from (Drain(r.node, undo=True) for r in events if r.event == "drain")
        yield from super().on_event(now, events, view)


class PreemptsForShow(Plain):
    """Preempts for the most urgent waiting job, and starts others."""

    claims = Claims(preempts="lower")

    def order(self, view: View) -> list[Job]:
        return [j for j in super().order(view) if j.priority == 0]

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        yield from super().on_event(now, events, view)
        urgent = max(view.waiting.values(), key=lambda j: j.priority, default=None)
        if urgent and urgent.priority:
            victims = [
                n
                for n, a in view.running.items()
                if a.job.priority < urgent.priority and not a.notice_s
            ]
            yield from (Preempt(name, for_job=urgent.id) for name in victims[:2])
        if urgent is not None and not view.running:
            yield from self.fill(view, [urgent])


class Swaps(Plain):
    """Moves small jobs back and forth between nodes."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        yield from super().on_event(now, events, view)
        for name, attempt in list(view.running.items()):
            if attempt.notice_s or attempt.devices > 4:
                continue
            free = view.free.copy()
            for kind in view.cluster.types:
                if found := first_fit(free, attempt.job, kind, attempt.devices, -1):
                    yield Resize(name, found)
            break
        yield WakeAt(now + 900)


class HatesSmall(Plain):
    """Lets the small jobs of tenant b wait until nothing else does."""

    def order(self, view: View) -> list[Job]:
        jobs = super().order(view)
        return [j for j in jobs if j.tenant != "b" or j.devices > 4] or jobs


class PutsOff(Plain):
    """Promises starts, and makes each promise anew when its time comes."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        yield from super().on_event(now, events, view)
        for name in list(view.waiting)[:3]:
            yield Reserve(name, now + 7200)


class Stops(Plain):
    """Starts nothing any more after a while."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        if now < 5e4:
            yield from super().on_event(now, events, view)


class SmallestFirst(Plain):
    """Honest: the smallest job that fits."""

    def order(self, view: View) -> list[Job]:
        return sorted(view.waiting.values(), key=lambda j: (j.devices, j.submit_s, j.id))


class ShortestFirst(Plain):
    """Honest: the shortest limit that fits."""

    def order(self, view: View) -> list[Job]:
        return sorted(view.waiting.values(), key=lambda j: (j.walltime_s, j.submit_s, j.id))


class UrgentFirst(Plain):
    """Honest: the most urgent that fits."""

    def order(self, view: View) -> list[Job]:
        return sorted(view.waiting.values(), key=lambda j: (-j.priority, j.submit_s, j.id))


class AtRandom(Plain):
    """Honest, if odd: any that fits."""

    def order(self, view: View) -> list[Job]:
        jobs = super().order(view)
        random.Random(len(view.records)).shuffle(jobs)
        return jobs


MISBEHAVING: dict[str, Callable[[], Scheduler]] = {
    c.__name__: c for c in (
        LowFirst, RejectsTheLarge, RejectsInWords, DoubleStarts, MovesNowhere, MovesNowhereOpenly,
        ReadsTheTruth, ReadsTheState, WritesProgress, OpensClosedNodes, OversizesElastic,
        PromisesEverything, OneTenantOnly, BreaksGangs, IgnoresLimits, WritesAttempts,
        PreemptsEverybody, ForgesRecords, NeverLetsGo, LendsForEver, Idles, Hoards,
        UndrainsMaintenance, PreemptsForShow, Swaps, HatesSmall, PutsOff, Stops)
}  # fmt: skip
HONEST: dict[str, Callable[[], Scheduler]] = {
    c.__name__: c for c in (Plain, ShortestFirst, UrgentFirst, AtRandom)
}
