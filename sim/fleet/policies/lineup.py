"""The waiting jobs that have, or are to get, a reservation; and which of them could start earlier.

A reservation can only become earlier, or move to other devices, where devices have been given back since
it was last looked at: an opening. Whether an opening may be of use follows from counts alone, for all
jobs at once; so few of many thousand jobs are looked at closely, and none that could move is left out.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

import numpy as np

from ersatz.sim.fleet.policies.shapes import Entry
from ersatz.sim.fleet.policies.timetable import Timetable


@dataclass(frozen=True, slots=True)
class Opening:
    """A span of time in which devices were given back."""

    start_s: float
    end_s: float
    number: int


class Lineup:
    """Jobs in their order, each with the start of its reservation; infinite: it has none."""

    def __init__(self) -> None:
        self.entries: list[tuple[float, int, str]] = []  # negated, so that the first is first
        self.start = np.empty(0)
        self.end = np.empty(0)
        self.least_s = np.empty(0)  # the shortest time that a reservation can last
        self.size = np.empty(0, dtype=np.int64)
        self.seen = np.empty(0, dtype=np.int64)  # the latest opening that was looked at
        self.may_move = np.empty(0, dtype=bool)  # by all openings that were looked at in this round
        self.vain = np.empty(0, dtype=bool)  # asked for in vain, and nothing was given back since
        self.openings: list[Opening] = []
        self._sizes: Counter[int] = Counter()
        self._count = 0  # openings so far, ...
        self._looked = 0  # ... and those that this round has looked at

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, at: int) -> str:
        """Return the job at a place."""
        return self.entries[at][2]

    def place_of(self, entry: Entry) -> int:
        """Return where a job stands, or would."""
        return bisect_left(self.entries, _ascending(entry))

    def add(self, entry: Entry, size: int, least_s: float) -> None:
        """Let a job without a reservation line up."""
        at = self.place_of(entry)
        self.entries.insert(at, _ascending(entry))
        self._sizes[size] += 1
        values = (math.inf, math.inf, least_s, size, self._count, True, False)
        for key, value in zip(_COLUMNS, values, strict=True):
            setattr(self, key, np.insert(getattr(self, key), at, value))

    def drop(self, at: int) -> None:
        """Let a job go."""
        size = int(self.size[at])
        self._sizes[size] -= 1
        if not self._sizes[size]:
            del self._sizes[size]
        del self.entries[at]
        for key in _COLUMNS:
            setattr(self, key, np.delete(getattr(self, key), at))

    def book(self, at: int, start_s: float, end_s: float) -> None:
        """Note a reservation."""
        self.start[at], self.end[at] = start_s, end_s

    def open(self, start_s: float, end_s: float) -> None:
        """Note that devices were given back for a time."""
        if end_s > start_s:
            self._count += 1
            self.openings.append(Opening(start_s, end_s, self._count))

    def forget(self, now: float) -> None:
        """A round is over: drop the openings that everybody has looked at, or that are past."""
        known = int(self.seen.min()) if len(self.seen) else self._count
        self.openings = [o for o in self.openings if o.number > known and o.end_s > now]

    def begin_round(self, table: Timetable) -> None:
        """Find out who may get another reservation by what has been opened since it was asked."""
        self.may_move = np.isinf(self.start) | (self.start <= table.times[0])
        for opening in self.openings:
            fresh = self.seen < opening.number
            if fresh.any():
                self.may_move |= fresh & self._may_use(0, opening, table)
        self._looked = self._count

    def next_that_may_move(self, at: int, table: Timetable) -> int:
        """Return the first place from `at` on whose job may get another reservation, or the end."""
        for opening in self.openings[::-1]:
            if opening.number <= self._looked:
                break
            self.may_move[at:] |= self._may_use(at, opening, table)
        self._looked = self._count
        rest = self.may_move[at:]
        found = int(rest.argmax()) if rest.any() else len(rest)
        self.seen[at : at + found + 1] = self._count
        return at + found

    def _may_use(self, at: int, opening: Opening, table: Timetable) -> np.ndarray:
        """Tell of each job from a place on whether an opening may be of use to it."""
        start, end, size = self.start[at:], self.end[at:], self.size[at:]
        hits = np.zeros(len(start), dtype=bool)
        for begin, stop in table.runs(opening.start_s, opening.end_s, 1):
            hits |= (start >= begin) & (end <= stop)  # other devices at the same time
        most = table.most(opening.start_s, opening.end_s)
        for count in self._sizes:
            if count > most:
                continue
            mine = size == count
            for begin, stop in table.runs(opening.start_s, opening.end_s, count):
                room = (start <= stop) | (begin + self.least_s[at:] <= stop)
                hits |= mine & (start > begin) & room
        return hits


_COLUMNS = ("start", "end", "least_s", "size", "seen", "may_move", "vain")


def _ascending(entry: Entry) -> tuple[float, int, str]:
    return -entry[0], -entry[1], entry[2]
