"""Which devices will be free when: a step function of time, each step a set of devices.

A set of devices is a whole number with a bit per device of the fleet. The first step begins now; the
last one lasts for ever. Neighbouring steps differ, so that there are no more of them than needed.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Timetable:
    """Free devices from now on."""

    def __init__(self, now: float, devices: int) -> None:
        self.times = [now]  # ascending; step i lasts from times[i] to times[i + 1]
        self.free = [devices]
        self.counts = [devices.bit_count()]  # of each step's devices

    def advance(self, now: float) -> None:
        """Forget what lies before `now`."""
        at = bisect_right(self.times, now) - 1
        if at > 0:
            del self.times[:at], self.free[:at], self.counts[:at]
        self.times[0] = now

    def take(self, start_s: float, end_s: float, devices: int) -> None:
        """Take devices for a time."""
        first, last = self._span(start_s, end_s)
        for at in range(first, last):
            self.free[at] = left = self.free[at] & ~devices
            self.counts[at] = left.bit_count()
        self._mend(first, last)

    def give(self, start_s: float, end_s: float, devices: int) -> None:
        """Give devices back for a time."""
        if end_s <= start_s:
            return
        first, last = self._span(start_s, end_s)
        for at in range(first, last):
            self.free[at] = more = self.free[at] | devices
            self.counts[at] = more.bit_count()
        self._mend(first, last)

    def _span(self, start_s: float, end_s: float) -> tuple[int, int]:
        first = self._cut(start_s)
        return first, self._cut(end_s) if end_s < math.inf else len(self.times)

    def _cut(self, time_s: float) -> int:
        """Return the step that begins at a time, cutting one in two if need be."""
        at = bisect_left(self.times, time_s)
        if at == len(self.times) or self.times[at] != time_s:
            self.times.insert(at, time_s)
            self.free.insert(at, self.free[at - 1])
            self.counts.insert(at, self.counts[at - 1])
        return at

    def _mend(self, first: int, last: int) -> None:
        """Join steps that have become alike at the ends of a span."""
        for at in (last, first):
            if 0 < at < len(self.times) and self.free[at] == self.free[at - 1]:
                del self.times[at], self.free[at], self.counts[at]

    def end_of(self, at: int) -> float:
        """Return when a step ends."""
        return self.times[at + 1] if at + 1 < len(self.times) else math.inf

    def during(self, at: int, duration_s: float, among: int, count: int) -> tuple[int, int]:
        """Return the devices free from step `at` on for a duration, and where to look next.

        The devices are 0 if they are fewer than `count`; the next step is then the first one whose
        time is not ruled out with this one.
        """
        end, free, step = self.times[at] + duration_s, among, at
        while step < len(self.times) and (self.times[step] < end or step == at):
            if self.counts[step] < count:
                return 0, step + 1
            free &= self.free[step]
            if free.bit_count() < count:
                return 0, at + 1
            step += 1
        return free, at + 1

    def most(self, start_s: float, end_s: float) -> int:
        """Return the most free devices at a time of a span."""
        first = max(bisect_right(self.times, start_s) - 1, 0)
        return max(self.counts[first : bisect_left(self.times, end_s)], default=0)

    def runs(self, start_s: float, end_s: float, count: int) -> Iterator[tuple[float, float]]:
        """Yield the longest stretches with `count` free devices or more that meet a span of time."""
        at = max(bisect_right(self.times, start_s) - 1, 0)
        while at > 0 and self.counts[at] >= count and self.counts[at - 1] >= count:
            at -= 1
        while at < len(self.times) and self.times[at] < end_s:
            if self.counts[at] < count:
                at += 1
                continue
            begin = self.times[at]
            while at < len(self.times) and self.counts[at] >= count:
                at += 1
            yield begin, self.times[at] if at < len(self.times) else math.inf
