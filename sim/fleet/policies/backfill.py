"""EASY backfilling: the head of the queue has a reservation, others may start if they leave it be.

The reservation names devices, not just their number: the placement that the head would get when
running jobs have ended at their limits. A job may start if it ends before the reservation, or if
it keeps off the reserved devices. (Lifka 1995; reserving the identity of hosts as batsched does.)
Without limits on run times nothing can be promised, and nothing overtakes. A head that would not fit even
when all running jobs are over, because nodes are down or drained, is promised nothing either: until
they are back everybody may overtake it (what Slurm and batsched do then is not the same thing everywhere).
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ersatz.sim.fleet.cluster import Placement
from ersatz.sim.fleet.free import Free
from ersatz.sim.fleet.log import RELEASES, Claims, Record
from ersatz.sim.fleet.policies.placement import Placer
from ersatz.sim.fleet.policies.queue import (
    Admit,
    Key,
    QueueScheduler,
    by_submission,
    within_limits,
)
from ersatz.sim.fleet.policies.shapes import Entry, Shape, shape_of
from ersatz.sim.fleet.protocol import Decision, Reserve, Start, View
from ersatz.sim.fleet.workload.jobs import Job

VOIDS = frozenset(
    {"down", "up", "drain", "undrain", "slow"}
)  # events after which promises are made anew
End = tuple[float, int, str]  # limit of an attempt, its number, job


@dataclass(frozen=True, slots=True)
class Reservation:
    """When and where the head of the queue will start at the latest."""

    job: Job
    at_s: float
    placement: Placement
    lacks_nodes: bool = False  # it would not fit even when all running jobs are over


class EasyScheduler(QueueScheduler):
    """Starts jobs in order, and lets others overtake that do not delay the head."""

    def __init__(
        self, name: str = "easy", placer: Placer | None = None, key: Key = by_submission,
        admit: Admit = within_limits,
    ) -> None:  # fmt: skip
        super().__init__(name, placer, key, admit)
        self.claims = Claims(backfill="easy")
        self.reservation: Reservation | None = None
        self.ends: list[End] = []  # of running attempts, the earliest first
        self._end_of: dict[str, End] = {}
        self._starts = 0
        self.shapes: dict[tuple[object, ...], Shape] = {}
        self._shape_of: dict[str, Shape] = {}

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        """Start in order, renew the head's reservation, then let others overtake."""
        released = self._forget_ended(events)
        fresh = list(view.arrived)
        self.enqueue(view)
        if any(record.event in VOIDS for record in events):
            self.reservation = None  # nobody can keep a promise about nodes that have changed
        yield from self._noting(view, self._start_heads(view))
        head = self._head_of(view)
        if head is None:
            self.reservation = None
            return
        old = self.reservation
        renew = released or old is None or old.job.id != head.id
        if renew:
            self.reservation = self._reserve(view, head)
            if math.isfinite(self.reservation.at_s) and (old is None or self.reservation != old):
                yield Reserve(head.id, self.reservation.at_s, self.reservation.placement)
        if view.free.free or view.free.shared:
            only = None if renew else fresh
            yield from self._noting(view, self._overtake(view, now, head, only))

    def _start_heads(self, view: View) -> Iterator[Decision]:
        """Start the job with the reservation first, then others in order until one does not fit."""
        if self.reservation:
            job = self.reservation.job
            placement = self.placer.find(view, job) if self.admit(view, job, 0) else None
            if placement is None:
                return
            self.reservation = None
            yield self.start(job, placement)
        yield from self.start_in_order(view)

    def _head_of(self, view: View) -> Job | None:
        """Return the job whose start is promised: once it has a reservation, it keeps it."""
        if self.reservation:
            return self.reservation.job
        return self.head(view) if self.queue else None

    def _forget_ended(self, events: Sequence[Record]) -> bool:
        """Drop the ends of attempts that are over; tells whether anything but arrivals happened."""
        happened = False
        for record in events:
            happened = happened or record.event != "submit"
            if record.event in RELEASES and record.job in self._end_of:
                del self.ends[bisect_left(self.ends, self._end_of.pop(record.job))]
        return happened

    def _noting(self, view: View, decisions: Iterator[Decision]) -> Iterator[Decision]:
        """Pass decisions on, and note when each started attempt will end at the latest."""
        for decision in decisions:
            yield decision
            self._starts += 1
            attempt = view.running[decision.job]  # type: ignore[union-attr]
            end = self._end_of[attempt.job.id] = (attempt.limit_s, self._starts, attempt.job.id)
            insort(self.ends, end)

    def _reserve(self, view: View, head: Job) -> Reservation:
        """Return the first time at which the head fits if attempts last until their limits."""
        free = view.free.copy()
        at = 0
        while at < len(self.ends):
            time_s = self.ends[at][0]
            if time_s == math.inf:
                return Reservation(head, math.inf, ())
            while at < len(self.ends) and self.ends[at][0] == time_s:
                attempt = view.running[self.ends[at][2]]
                free.give(attempt.job, attempt.placement)
                at += 1
            if found := self.placer.find(view, head, free):
                return Reservation(head, max(time_s, view.now), found)
        return Reservation(head, math.inf, (), lacks_nodes=bool(view.free.closed))

    def _overtake(
        self, view: View, now: float, head: Job, only: Sequence[Job] | None
    ) -> Iterator[Decision]:
        """Start jobs behind the head, in order, that leave its reservation be."""
        reserved = self.reservation
        if reserved is None or not (math.isfinite(reserved.at_s) or reserved.lacks_nodes):
            return
        outside = _without(view.free, head, reserved.placement)
        while view.free.free or view.free.shared:
            if only is None:
                found = self._first_of_shapes(view, reserved.at_s - now, head, outside)
            else:
                found = next((f for job in only if job.id in self._entries and job.id != head.id
                              and (f := self._try(view, job, reserved.at_s - now, head, outside))),
                             None)  # fmt: skip
            if found is None:
                return
            job, placement = found
            yield self.start(job, placement)
            outside.take(job, placement)

    def _try(
        self, view: View, job: Job, gap_s: float, head: Job, outside: Free
    ) -> tuple[Job, Placement] | None:
        """Return a job with devices on which it may start now, or None."""
        if job.least > view.free.free and job.milli == 1000:
            return None
        if not self.admit(view, job, head.devices if job.tenant == head.tenant else 0):
            return None
        placement = self.placer.find(view, job)
        if placement and job.walltime_s / view.rate(job, placement) > gap_s:
            placement = self.placer.find(view, job, outside)
        return (job, placement) if placement else None

    def _first_of_shapes(
        self, view: View, gap_s: float, head: Job, outside: Free
    ) -> tuple[Job, Placement] | None:
        """Return the first job in the queue that may start now, asking once per shape of job.

        Jobs of one shape differ in their limits only: either all of them fit beside the
        reservation, or those do that end before it.
        """
        best: tuple[Entry, Placement] | None = None
        for shape in self.shapes.values():
            if not shape.entries or (shape.job.least > view.free.free and shape.job.milli == 1000):
                continue
            if not self.admit(
                view, shape.job, head.devices if shape.job.tenant == head.tenant else 0
            ):
                continue
            if placement := self.placer.find(view, shape.job, outside):
                entry = shape.first(math.inf, head)
                beside = placement
            else:
                entry = None
            if placement := self.placer.find(view, shape.job):
                sooner = shape.first(gap_s * view.rate(shape.job, placement), head)
                if sooner and (entry is None or sooner >= entry):
                    entry, beside = sooner, placement
            if entry and (best is None or entry > best[0]):
                best = entry, beside
        return (view.waiting[best[0][2]], best[1]) if best else None

    def enqueue(self, view: View) -> None:
        """Sort jobs that began to wait into the queue, and to those of their shape."""
        super().enqueue(view)
        for job in view.arrived:
            shape = self.shapes.setdefault(shape_of(view, job), Shape(job))
            self._shape_of[job.id] = shape
            shape.add(self._entries[job.id], job.walltime_s)

    def start(self, job: Job, placement: Placement) -> Start:
        """Return the decision to start a job, which leaves the queue."""
        self._shape_of.pop(job.id).drop(self._entries[job.id])
        return super().start(job, placement)


def _without(free: Free, job: Job, placement: Placement) -> Free:
    """Return what is free beside a reservation."""
    outside = free.copy()
    if placement:
        outside.take(job, placement)
    return outside
