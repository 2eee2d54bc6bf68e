"""Conservative backfilling: every waiting job has a reservation, and none is ever put off.

When devices come back early, each waiting job in turn gives up its reservation and takes the first
place in the timetable that it can get, so that none becomes later (Mu'alem and Feitelson 2001).
Only jobs are looked at for which devices given back may be of use (`policies.lineup`).
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ersatz.sim.fleet.cluster import Placement
from ersatz.sim.fleet.free import Free
from ersatz.sim.fleet.log import RELEASES, Claims, Record
from ersatz.sim.fleet.policies.lineup import Lineup
from ersatz.sim.fleet.policies.placement import Placer
from ersatz.sim.fleet.policies.queue import (
    Admit,
    Key,
    QueueScheduler,
    by_submission,
    within_limits,
)
from ersatz.sim.fleet.policies.shapes import Entry
from ersatz.sim.fleet.policies.timetable import Timetable
from ersatz.sim.fleet.protocol import Decision, Reserve, View
from ersatz.sim.fleet.workload.jobs import Job

DEPTH = 1000  # waiting jobs that are booked at once
_FILLER = Job("filler", 0.0, 0, 0.0)
CHANGES = frozenset({"down", "up", "drain", "undrain", "slow", "fail"})  # void all promises


@dataclass(frozen=True, slots=True)
class Booking:
    """Devices booked for a job, running or waiting."""

    start_s: float
    end_s: float
    placement: Placement


class ConservativeScheduler(QueueScheduler):
    """Books every job at once, and moves bookings only forward in time.

    A tenant's bookings count as if all of them ran at once, so that its limit breaks no promise. At most
    `depth` waiting jobs are booked at once, the first ones; those behind them wait without a promise
    (Slurm's `bf_max_job_test` does the same, at 500).
    """

    def __init__(
        self, name: str = "conservative", placer: Placer | None = None, key: Key = by_submission,
        admit: Admit = within_limits, depth: int = DEPTH,
    ) -> None:  # fmt: skip
        super().__init__(name, placer, key, admit)
        self.claims = Claims(backfill="conservative")
        self.depth = depth
        self.bookings: dict[str, Booking] = {}
        self.table = Timetable(0.0, 0)
        self.lineup = Lineup()
        self._behind: list[Entry] = []  # beyond the depth, the first last
        self._promised: set[str] = (
            set()
        )  # jobs that were told a start since all promises were made anew
        self._booked: Counter[str] = Counter()  # devices of waiting jobs' bookings, by tenant
        self._first: tuple[int, ...] = ()  # device number of each node's slot 0
        self._open = 0  # devices of the nodes that take jobs, as a set
        self._closed: set[int] = set()  # the other nodes, when last looked at
        self._void = False  # the machines have changed since the timetable was begun
        self._of_kind: dict[str, int] = {}  # all devices of a type; '' is any
        self._nothing: Free | None = None  # a fleet of which nothing is free

    def on_start(self, view: View) -> None:
        """Begin with an empty timetable of all devices."""
        nodes = view.cluster.nodes
        self._open = (1 << view.cluster.devices) - 1
        self.table = Timetable(0.0, self._open)
        self._first = view.cluster.first
        self._of_kind = {"": self._open} | {
            kind: _devices_of(view, kind) for kind in view.cluster.types
        }
        self._nothing = Free(view.cluster)
        self._nothing.take(_FILLER, tuple(
            (i, (1 << n.devices) - 1) for i, n in enumerate(nodes) if n.devices))  # fmt: skip

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        """Keep the timetable, book new jobs, move others forward, and start those that are due."""
        self.enqueue(view)
        self.table.advance(now)
        for job in view.arrived:
            insort(self._behind, self._entries[job.id])
        self._void = self._void or any(r.event in CHANGES for r in events)
        moves = self._void
        if self._void:
            if not self._behind and not len(self.lineup):
                return  # nobody to make a promise to
            self._begin_anew(now, view)
        for record in events:
            if record.event in RELEASES and record.job in self.bookings and (
                record.job not in view.running):  # fmt: skip
                self.lineup.open(now, self.bookings[record.job].end_s)
                self._unbook(record.job, now)
                moves = True
        self._line_up(view)
        if moves:
            self.lineup.vain[:] = False
            self.lineup.begin_round(self.table)
        at = 0
        while (at := self._next(at, moves)) < len(self.lineup):
            before = len(self.lineup)
            yield from self._book(view, now, at)
            at += len(self.lineup) == before  # else it has started, and the next stands here
            if at >= len(self.lineup):
                self._line_up(view)
        self.lineup.forget(now)

    def _next(self, at: int, moves: bool) -> int:
        """Return the next job that may get a booking, or (`moves`) another one."""
        if moves:
            return self.lineup.next_that_may_move(at, self.table)
        fresh = np.flatnonzero(np.isinf(self.lineup.start[at:]) & ~self.lineup.vain[at:])
        return at + int(fresh[0]) if len(fresh) else len(self.lineup)

    def _line_up(self, view: View) -> None:
        """Let waiting jobs line up, as many as may be booked at once."""
        while self._behind and (
            len(self.lineup) < self.depth
            or self.lineup.place_of(self._behind[-1]) < len(self.lineup)
        ):
            entry = self._behind.pop()
            job = view.waiting[entry[2]]
            kinds = ("",) if job.mixed else self.placer.kinds(view, job)
            fastest = max(
                (view.rate_on(job, k or view.cluster.types[0]) for k in kinds), default=0.0
            )
            self.lineup.add(entry, job.least, job.walltime_s / (fastest or math.inf))

    def _begin_anew(self, now: float, view: View) -> None:
        """Rebuild the timetable from what runs, after a change of the machines."""
        self.bookings, self._promised, self._void = {}, set(), False
        self._booked.clear()
        self.lineup.start[:] = self.lineup.end[:] = math.inf
        for i in self._closed ^ view.free.closed:
            self._open ^= ((1 << view.cluster.nodes[i].devices) - 1) << self._first[i]
        self._closed = set(view.free.closed)
        self.table = Timetable(now, self._open)
        for name, attempt in view.running.items():
            self._enter(name, Booking(now, attempt.limit_s, attempt.placement))

    def _enter(self, name: str, booking: Booking) -> None:
        self.bookings[name] = booking
        self.table.take(booking.start_s, booking.end_s, _bits(self._first, booking.placement))

    def _unbook(self, name: str, now: float) -> None:
        booking = self.bookings.pop(name)
        start = max(booking.start_s, now)
        devices = _bits(self._first, booking.placement) & self._open  # a drained node takes no more
        self.table.give(start, booking.end_s, devices)

    def _book(self, view: View, now: float, at: int) -> Iterator[Decision]:
        """Give a job the first place in the timetable, and start it if that is now."""
        name, lineup = self.lineup.name(at), self.lineup
        job = view.waiting[name]
        before = self.bookings.get(name)
        if before:
            lineup.book(at, math.inf, math.inf)
            self._unbook(name, now)
            self._booked[job.tenant] -= job.devices
        booking = None
        if self.admit(view, job, self._booked[job.tenant]):
            booking = self._first_place(view, job)
        if before and (booking is None or booking.start_s > before.start_s):
            booking = before  # another placement may come out worse: a promise is kept
        if booking is None:
            lineup.vain[at] = True
            return
        if before and before != booking:
            lineup.open(max(before.start_s, now), before.end_s)
            lineup.vain[:] = False
        if booking.start_s <= now and not view.free.fault(job, booking.placement):
            lineup.drop(at)
            yield self.start(job, booking.placement)
            self._enter(name, Booking(now, view.running[name].limit_s, booking.placement))
            return
        self._enter(name, booking)
        self._booked[job.tenant] += job.devices
        lineup.book(at, booking.start_s, booking.end_s)
        if name not in self._promised or before is None or booking.start_s < before.start_s:
            self._promised.add(name)
            yield Reserve(name, booking.start_s, booking.placement)

    def _first_place(self, view: View, job: Job) -> Booking | None:
        """Return the earliest time at which devices are free for a job's whole limit."""
        best: Booking | None = None
        table = self.table
        for kind in ("",) if job.mixed else self.placer.kinds(view, job):
            rate = view.rate_on(job, kind or view.cluster.types[0])
            lasts = job.walltime_s / (rate or math.inf)
            among, at = self._of_kind.get(kind, 0), 0
            while (
                lasts and at < len(table.times) and not (best and table.times[at] >= best.start_s)
            ):
                free, after = table.during(at, lasts, among, job.least)
                if free and (found := self._place_at(view, job, kind, at, among, lasts, free)):
                    best = found
                    break
                at = after
        return best if best and math.isfinite(best.start_s) else None

    def _place_at(
        self, view: View, job: Job, kind: str, at: int, among: int, lasts: float, free: int
    ) -> Booking | None:
        """Return a booking from a step of the timetable on; slower placements last longer."""
        while free and (found := self._fill(view, job, kind, free)):
            needs = job.walltime_s / (view.rate(job, found) or math.inf)
            if needs <= lasts:
                begin = self.table.times[at]
                return Booking(begin, begin + needs, found)
            lasts = needs
            free, _ = self.table.during(at, lasts, among, job.least)
        return None

    def _fill(self, view: View, job: Job, kind: str, devices: int) -> Placement | None:
        """Return a placement among a set of devices."""
        now_free = self.table.counts[0] == view.free.free and not view.free.shared
        if now_free and devices == self.table.free[0]:
            return self.placer.fill(view.free, job, kind)  # the same, and indexed already
        assert self._nothing is not None
        free = self._nothing.copy()
        raw = devices.to_bytes(view.cluster.devices // 8 + 1, "little")
        for i, (node, first) in enumerate(zip(view.cluster.nodes, self._first, strict=True)):
            own = raw[first // 8 : (first + node.devices) // 8 + 1]
            mask = int.from_bytes(own, "little") >> first % 8 & (1 << node.devices) - 1
            if mask:
                free.set_free(i, mask)
        return self.placer.fill(free, job, kind)


def _devices_of(view: View, kind: str) -> int:
    """Return all devices of a type as a set."""
    bits = ("01"[node.type == kind] * node.devices for node in reversed(view.cluster.nodes))
    return int("".join(bits) or "0", 2)


def _bits(first: tuple[int, ...], placement: Placement) -> int:
    """Return a placement as a set of devices."""
    devices = 0
    for node, mask in placement:
        devices |= mask << first[node]
    return devices
