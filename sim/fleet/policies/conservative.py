"""Conservative backfilling: every waiting job has a reservation, and none is ever put off.

When devices come back early, each waiting job in turn gives up its reservation and takes the first
place in the timetable that it can get, so that none becomes later (Mu'alem and Feitelson 2001).
The work per event grows with the number of waiting jobs times the steps of the timetable.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ersatz.sim.fleet.cluster import Placement
from ersatz.sim.fleet.free import Free
from ersatz.sim.fleet.log import RELEASES, Claims, Record
from ersatz.sim.fleet.policies.placement import Placer
from ersatz.sim.fleet.policies.queue import Admit, Key, QueueScheduler, by_submission, within_limits
from ersatz.sim.fleet.policies.timetable import Timetable
from ersatz.sim.fleet.protocol import Decision, Reserve, View
from ersatz.sim.fleet.workload.jobs import Job

CHANGES = frozenset({"down", "up", "drain", "undrain", "slow", "fail"})  # void all promises


@dataclass(frozen=True, slots=True)
class Booking:
    """Devices booked for a job, running or waiting."""

    start_s: float
    end_s: float
    placement: Placement


class ConservativeScheduler(QueueScheduler):
    """Books every job at once, and moves bookings only forward in time.

    A tenant's bookings count as if all of them ran at once, so that its limit breaks no promise.
    """

    def __init__(
        self, name: str = "conservative", placer: Placer | None = None, key: Key = by_submission,
        admit: Admit = within_limits,
    ) -> None:  # fmt: skip
        super().__init__(name, placer, key, admit)
        self.claims = Claims(backfill="conservative")
        self.bookings: dict[str, Booking] = {}
        self.table = Timetable(0.0, 0)
        self._first: tuple[int, ...] = ()  # device number of each node's slot 0

    def on_start(self, view: View) -> None:
        """Begin with an empty timetable of all devices."""
        self.table = Timetable(0.0, (1 << view.cluster.devices) - 1)
        self._first = view.cluster.first

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        """Keep the timetable, book new jobs, move others forward, and start those that are due."""
        self.enqueue(view)
        self.table.advance(now)
        changed = any(r.event in CHANGES for r in events)
        if changed:
            self._begin_anew(now, view)
        released = False
        for record in events:
            if record.event in RELEASES and record.job in self.bookings and (
                record.job not in view.running):  # fmt: skip
                self._unbook(record.job, now)
                released = True
        fresh = {job.id for job in view.arrived}
        for _, _, name in self.queue[::-1]:
            if changed or released or name in fresh:
                yield from self._book(view, now, view.waiting[name], name in fresh or changed)

    def _begin_anew(self, now: float, view: View) -> None:
        """Rebuild the timetable from what runs, after a change of the machines."""
        cluster = view.cluster
        self.bookings = {}
        open_devices = _bits(cluster.first, tuple(
            (i, (1 << n.devices) - 1) for i, n in enumerate(cluster.nodes)
            if i not in view.free.closed))  # fmt: skip
        self.table = Timetable(now, open_devices)
        for name, attempt in view.running.items():
            self._enter(name, Booking(now, attempt.limit_s, attempt.placement))

    def _enter(self, name: str, booking: Booking) -> None:
        self.bookings[name] = booking
        self.table.take(booking.start_s, booking.end_s, _bits(self._first, booking.placement))

    def _unbook(self, name: str, now: float) -> None:
        booking = self.bookings.pop(name)
        start = max(booking.start_s, now)
        self.table.give(start, booking.end_s, _bits(self._first, booking.placement))

    def _book(self, view: View, now: float, job: Job, promise: bool) -> Iterator[Decision]:
        """Give a job the first place in the timetable, and start it if that is now."""
        before = self.bookings.get(job.id)
        if before:
            self._unbook(job.id, now)
        booked = sum(view.waiting[name].devices for name in self.bookings if name in view.waiting
                     and view.waiting[name].tenant == job.tenant)  # fmt: skip
        booking = self._first_place(view, job) if self.admit(view, job, booked) else None
        if before and (booking is None or booking.start_s > before.start_s):
            booking = before  # another placement may come out worse: a promise is kept
        if booking is None:
            return
        if booking.start_s <= now and not view.free.fault(job, booking.placement):
            yield self.start(job, booking.placement)
            end = view.running[job.id].limit_s
            self._enter(job.id, Booking(now, end, booking.placement))
            return
        self._enter(job.id, booking)
        if promise or before is None or booking.start_s < before.start_s:
            yield Reserve(job.id, booking.start_s, booking.placement)

    def _first_place(self, view: View, job: Job) -> Booking | None:
        """Return the earliest time at which devices are free for a job's whole limit."""
        best: Booking | None = None
        for kind in ("",) if job.mixed else self.placer.kinds(view, job):
            among = _of_kind(view, kind)
            for at, time_s in enumerate(self.table.times):
                if best and time_s >= best.start_s:
                    break
                if found := self._place_at(view, job, kind, at, among):
                    best = found
                    break
        return best if best and math.isfinite(best.start_s) else None

    def _place_at(self, view: View, job: Job, kind: str, at: int, among: int) -> Booking | None:
        """Return a booking from a step of the timetable on; slower placements last longer."""
        lasts = job.walltime_s / (view.rate_on(job, kind or view.cluster.types[0]) or math.inf)
        while lasts:
            free = self.table.during(at, lasts, among, job.least)
            found = self.placer.fill(_as_free(view, free), job, kind) if free else None
            if not found:
                return None
            needs = job.walltime_s / (view.rate(job, found) or math.inf)
            if needs <= lasts:
                return Booking(self.table.times[at], self.table.times[at] + needs, found)
            lasts = needs
        return None


def _of_kind(view: View, kind: str) -> int:
    """Return all devices of a type as a set; '' is any."""
    nodes, first = view.cluster.nodes, view.cluster.first
    if not kind or len(view.cluster.types) == 1:
        return (1 << view.cluster.devices) - 1
    return _bits(first, tuple((i, (1 << n.devices) - 1) for i, n in enumerate(nodes)
                              if n.type == kind))  # fmt: skip


def _bits(first: tuple[int, ...], placement: Placement) -> int:
    """Return a placement as a set of devices."""
    devices = 0
    for node, mask in placement:
        devices |= mask << first[node]
    return devices


def _as_free(view: View, devices: int) -> Free:
    """Return a set of devices as free devices of nodes, to find a placement among them."""
    free = Free(view.cluster)
    taken = []
    for i, n in enumerate(view.cluster.nodes):
        mask = (1 << n.devices) - 1
        taken.append((i, mask & ~(devices >> view.cluster.first[i])))
    free.take(Job("filler", 0.0, 0, 0.0), tuple((i, mask) for i, mask in taken if mask))
    return free
