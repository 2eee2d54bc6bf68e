"""EASY backfilling: the head of the queue has a reservation, others may start if they leave it be.

The reservation names devices, not just their number: the placement that the head would get when
running jobs have ended at their limits. A job may start if it ends before the reservation, or if
it keeps off the reserved devices. (Lifka 1995; reserving the identity of hosts as batsched does.)
Without limits on run times nothing can be promised, and nothing overtakes.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sim.fleet.cluster import Placement
from sim.fleet.free import Free
from sim.fleet.jobs import Job
from sim.fleet.log import RELEASES, Claims, Record
from sim.fleet.policies.placement import Placer
from sim.fleet.policies.queue import Admit, Key, QueueScheduler, by_submission, within_limits
from sim.fleet.protocol import Decision, Reserve, View

End = tuple[float, int, str]  # limit of an attempt, its number, job


@dataclass(frozen=True, slots=True)
class Reservation:
    """When and where the head of the queue will start at the latest."""

    job: Job
    at_s: float
    placement: Placement


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

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        """Start in order, renew the head's reservation, then let others overtake."""
        released = self._forget_ended(events)
        fresh = {job.id for job in view.arrived}
        self.enqueue(view.arrived)
        yield from self._noting(view, self.start_in_order(view))
        head = self.head(view) if self.queue else None
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
            names = None if renew else fresh
            yield from self._noting(view, self._overtake(view, now, head, names))

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
                break
            while at < len(self.ends) and self.ends[at][0] == time_s:
                attempt = view.running[self.ends[at][2]]
                free.give(attempt.job, attempt.placement)
                at += 1
            if found := self.placer.find(view, head, free):
                return Reservation(head, max(time_s, view.now), found)
        return Reservation(head, math.inf, ())

    def _overtake(
        self, view: View, now: float, head: Job, only: set[str] | None
    ) -> Iterator[Decision]:
        """Start jobs behind the head that leave its reservation be."""
        reserved = self.reservation
        if reserved is None or not math.isfinite(reserved.at_s):
            return
        outside = _without(view.free, head, reserved.placement)
        names = [name for _, _, name in reversed(self.queue) if name != head.id
                 and (only is None or name in only)]  # fmt: skip
        for name in names:
            if not (view.free.free or view.free.shared):
                return
            job = view.waiting[name]
            beside = head.devices if job.tenant == head.tenant else 0
            if job.least > view.free.free and job.milli == 1000:
                continue
            if not self.admit(view, job, beside):
                continue
            placement = self.placer.find(view, job)
            if placement is None:
                continue
            if now + job.walltime_s / view.rate(job, placement) > reserved.at_s:
                placement = self.placer.find(view, job, outside)
                if placement is None:
                    continue
            yield self.start(job, placement)
            outside.take(job, placement)


def _without(free: Free, job: Job, placement: Placement) -> Free:
    """Return what is free beside a reservation."""
    outside = free.copy()
    outside.take(job, placement)
    return outside
