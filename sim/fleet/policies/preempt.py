"""Schedulers that interrupt: by priority, by fair share, by least attained service.

All three rank jobs anew at each call. A waiting job that does not fit may take the place of running
jobs of a worse class, the worst and youngest first, as few as make room for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import insort
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from ersatz.sim.fleet.cluster import Placement
from ersatz.sim.fleet.free import Free
from ersatz.sim.fleet.log import Claims, Quota, Record
from ersatz.sim.fleet.policies.placement import Placer
from ersatz.sim.fleet.policies.queue import Admit, within_limits
from ersatz.sim.fleet.policies.shapes import Entry, Lines, shape_of
from ersatz.sim.fleet.protocol import Attempt, Decision, Preempt, Start, View, WakeAt
from ersatz.sim.fleet.workload.jobs import Job

Rank = tuple[float, ...]
NOBODY = Job("nobody", 0.0, 0, 0.0)  # holds what is kept for others


class PreemptiveScheduler(ABC):
    """Common ground: ranks, victims, and starting in order of rank."""

    name = "preemptive"
    strict = True  # nobody overtakes a job that does not fit

    def __init__(self, placer: Placer | None = None, admit: Admit = within_limits) -> None:
        self.placer = placer or Placer()
        self.admit = admit
        self.claims = Claims(preempts="any")
        self.lines = Lines()

    @abstractmethod
    def rank(self, view: View, job: Job) -> Rank:
        """Return what jobs are ordered by, the smallest first: their class, then their place in it.

        It is a job's for as long as it waits, and those of one class and shape have the same victims.
        """

    @abstractmethod
    def may_evict(self, view: View, job: Job, victim: Attempt) -> bool:
        """Tell whether a waiting job may take the place of a running one."""

    def may_lose(self, view: View, victim: Attempt, held: Mapping[str, int]) -> bool:
        """Tell whether a tenant that would hold `held` devices may lose a job on top."""
        return True

    def on_start(self, view: View) -> None:  # noqa: B027 (there may be nothing to do)
        """Nothing to prepare."""

    def in_order(self, view: View) -> Iterator[Job]:
        """Yield the waiting jobs by rank; between equals who began to wait first.

        One that finds nothing stands for those of its class and shape behind it (`Lines`).
        """
        for job in view.arrived:
            rank = self.rank(view, job)
            self.lines.add((rank[0], shape_of(view, job)), rank, job)
        return self.lines.in_order(view.waiting)

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        """Start by rank, interrupting where that is allowed and helps.

        Who waits for victims to leave keeps what is free of its place: worse ranks stay off it.
        """
        kept: dict[int, int] = {}  # node -> devices
        beside: Free | None = None  # what is free beside that; None: all
        for job in self.in_order(view):
            if not self.admit(view, job, 0):
                continue
            placement, meant = self.placer.find(view, job, beside), None
            if placement is None:
                victims, meant = self._victims(view, job, beside)
                yield from (Preempt(v.job.id, for_job=job.id) for v in victims)
                if victims:  # those with a time of grace still hold their devices
                    self.lines.ask_again()
                    beside = _beside(view, kept)
                    placement = self.placer.find(view, job, beside)
            if placement:
                yield Start(job.id, placement)
                if beside:
                    beside.take(job, placement)
            elif self.strict and not self._lacks_nodes(view, job):
                return
            elif meant and any(mask & ~kept.get(node, 0) for node, mask in meant):
                kept |= {node: mask | kept.get(node, 0) for node, mask in meant}
                beside = _beside(view, kept)
                self.lines.ask_again()

    def _victims(
        self, view: View, job: Job, beside: Free | None = None
    ) -> tuple[Sequence[Attempt], Placement | None]:
        """Return the attempts whose end makes room for a job, and where; none if nothing does."""
        leaving = [a for a in view.running.values() if a.notice_s]
        able = [a for a in view.running.values() if not a.notice_s and self._helps(view, job, a)
                and self.may_evict(view, job, a)]  # fmt: skip
        if not (leaving or able):
            return (), None
        free = (beside or view.free).copy()
        for attempt in leaving:
            free.give(attempt.job, attempt.placement)
        if leaving and (found := self.placer.find(view, job, free)):
            return (), found
        able.sort(key=lambda a: self.rank(view, a.job), reverse=True)
        for attempt in able:  # one alone, if that is enough
            if attempt.devices >= job.least and self.may_lose(view, attempt, view.used):
                free.give(attempt.job, attempt.placement)
                if found := self.placer.find(view, job, free):
                    return (attempt,), found
                free.take(attempt.job, attempt.placement)
        return self._several(view, job, able, free)

    def _several(
        self, view: View, job: Job, able: Sequence[Attempt], free: Free
    ) -> tuple[Sequence[Attempt], Placement | None]:
        """Return as many of these attempts as make room together, in their order."""
        chosen: list[Attempt] = []
        held = Counter(view.used)
        for attempt in able:
            if not self.may_lose(view, attempt, held):
                continue
            held[attempt.job.tenant] -= attempt.devices
            free.give(attempt.job, attempt.placement)
            chosen.append(attempt)
            if found := self.placer.find(view, job, free):
                return _needed(chosen, found), found
        return (), None

    def _lacks_nodes(self, view: View, job: Job) -> bool:
        """Tell whether a job would not fit even if nothing ran, as nodes are down or drained."""
        if not view.free.closed:
            return False
        free = view.free.copy()
        for attempt in view.running.values():
            free.give(attempt.job, attempt.placement)
        return self.placer.find(view, job, free) is None

    def _helps(self, view: View, job: Job, attempt: Attempt) -> bool:
        kind = view.cluster.nodes[attempt.placement[0][0]].type
        return not job.types or kind in job.types

    def on_end(self, view: View) -> None:  # noqa: B027
        """Nothing to let go."""


def _beside(view: View, kept: Mapping[int, int]) -> Free | None:
    """Return what is free beside devices that are kept for others; None where none are."""
    if not kept:
        return None
    free = view.free.copy()
    parts = ((node, mask & free.masks[node]) for node, mask in kept.items())
    free.take(NOBODY, tuple((node, mask) for node, mask in parts if mask))
    return free


def _needed(chosen: Sequence[Attempt], placement: Placement) -> Sequence[Attempt]:
    """Return the attempts on whose devices a placement lies."""
    wanted = dict(placement)
    return [a for a in chosen if any(mask & wanted.get(node, 0) for node, mask in a.placement)]


class PriorityScheduler(PreemptiveScheduler):
    """Higher priority first; it interrupts lower priority."""

    name = "priority"

    def __init__(self, placer: Placer | None = None, admit: Admit = within_limits) -> None:
        super().__init__(placer, admit)
        self.claims = Claims(preempts="lower")

    def rank(self, view: View, job: Job) -> Rank:
        """Order by priority, then by submission."""
        return (-job.priority, job.submit_s)

    def may_evict(self, view: View, job: Job, victim: Attempt) -> bool:
        """Only lower priority makes way."""
        return victim.job.priority < job.priority


class FairScheduler(PreemptiveScheduler):
    """The tenant that holds the least of its share first; lent devices are called back.

    A tenant borrows beyond its share what others leave idle, up to its limit. When an owner's job
    fits into its share but not among the free devices, jobs on loan make way, the latest first;
    while it waits nevertheless, nobody borrows more.
    Without quotas all tenants have the same share and nothing is called back.
    """

    name = "fair"
    strict = False

    def __init__(self, placer: Placer | None = None, admit: Admit = within_limits) -> None:
        super().__init__(placer, admit)
        self._tenants: dict[str, list[Entry]] = {}  # each with its jobs, the first first
        self._standing: set[str] = set()
        self._arrivals = 0

    def on_start(self, view: View) -> None:
        """Promise when borrowed devices are given back."""
        self.claims = Claims(preempts="any", reclaim_s=max(view.rules.grace_s, 1.0))

    def share(self, view: View, tenant: str) -> int:
        """Return how many devices a tenant has a right to."""
        return view.rules.quotas.get(tenant, Quota(1, 0)).share

    def rank(self, view: View, job: Job) -> Rank:
        """Order by the part of its share that the tenant holds, then by submission."""
        return (view.used[job.tenant] / max(self.share(view, job.tenant), 1), job.submit_s)

    def may_evict(self, view: View, job: Job, victim: Attempt) -> bool:
        """Borrowers make way for owners."""
        owner = view.used[job.tenant] + job.devices <= self.share(view, job.tenant)
        return bool(view.rules.quotas) and owner and victim.job.tenant != job.tenant

    def may_lose(self, view: View, victim: Attempt, held: Mapping[str, int]) -> bool:
        """Only jobs that live on loan alone make way."""
        return held[victim.job.tenant] - victim.devices >= self.share(view, victim.job.tenant)

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        """Serve tenants in turn: after each start the order is looked up again."""
        for waiting in view.arrived:
            self._stand(waiting)
        stuck: set[str] = set()
        owed = False  # an owner waits within its share: nobody borrows more
        while True:
            heads = self._heads(view, stuck)
            job = min(heads, key=lambda j: self.rank(view, j), default=None)
            if job is None:
                return
            own = view.used[job.tenant] + job.devices <= self.share(view, job.tenant)
            able = self.admit(view, job, 0) and (own or not owed)
            placement = self.placer.find(view, job) if able else None
            if placement is None and able:
                victims, _ = self._victims(view, job)
                for victim in victims:
                    yield Preempt(victim.job.id, for_job=job.id)
                    if victim.job.id in view.waiting:
                        self._stand(view.waiting[victim.job.id])
                placement = self.placer.find(view, job) if victims else None
            if placement:
                yield Start(job.id, placement)
            else:
                stuck.add(job.tenant)
                owed = owed or (own and bool(view.rules.quotas))

    def _stand(self, job: Job) -> None:
        """Let a job wait among its tenant's."""
        if job.id not in self._standing:
            self._standing.add(job.id)
            self._arrivals += 1
            insort(self._tenants.setdefault(job.tenant, []), (job.submit_s, self._arrivals, job.id))

    def _heads(self, view: View, stuck: set[str]) -> list[Job]:
        """Return the first waiting job of each tenant that is not stuck; who has left is dropped."""
        heads = []
        for tenant, line in self._tenants.items():
            while line and line[0][2] not in view.waiting:
                self._standing.discard(line.pop(0)[2])
            if line and tenant not in stuck:
                heads.append(view.waiting[line[0][2]])
        return heads


class LeastServiceScheduler(PreemptiveScheduler):
    """Least attained service, in steps (Tiresias' discretised two-dimensional LAS).

    Service is devices times seconds held. Jobs fall to the next class when they pass a threshold;
    a better class interrupts a worse one, and within a class the first come goes first.
    """

    name = "las"
    strict = False

    def __init__(
        self, placer: Placer | None = None, admit: Admit = within_limits,
        thresholds_s: Sequence[float] = (3600.0 * 8, 3600.0 * 8 * 24),
    ) -> None:  # fmt: skip
        super().__init__(placer, admit)
        self.thresholds_s = tuple(thresholds_s)
        self._next_wake = 0.0

    def level(self, view: View, job: Job) -> int:
        """Return the class of a job: how many thresholds its service has passed."""
        served = view.served_s(job.id) * (1 + 1e-9)  # times of waking are rounded
        return sum(served >= limit for limit in self.thresholds_s)

    def rank(self, view: View, job: Job) -> Rank:
        """Order by class, then by submission."""
        return (self.level(view, job), job.submit_s)

    def may_evict(self, view: View, job: Job, victim: Attempt) -> bool:
        """A worse class makes way."""
        return self.level(view, victim.job) > self.level(view, job)

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        """Start by class, and wake when the next running job passes a threshold."""
        yield from super().on_event(now, events, view)
        if not view.waiting:
            return
        crossings = []
        for attempt in view.running.values():
            served = view.served_s(attempt.job.id)
            ahead = [limit for limit in self.thresholds_s if limit > served * (1 + 1e-9)]
            if ahead and attempt.devices:
                crossings.append(now + (ahead[0] - served) / attempt.devices)
        if crossings and (self._next_wake <= now or min(crossings) < self._next_wake):
            self._next_wake = min(crossings)
            yield WakeAt(self._next_wake)
