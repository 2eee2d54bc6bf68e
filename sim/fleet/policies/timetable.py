"""Which devices will be free when: a step function of time, each step a set of devices.

A set of devices is a whole number with a bit per device of the fleet. The first step begins now; the
last one lasts for ever.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right


class Timetable:
    """Free devices from now on."""

    def __init__(self, now: float, devices: int) -> None:
        self.times = [now]  # ascending; step i lasts from times[i] to times[i + 1]
        self.free = [devices]

    def advance(self, now: float) -> None:
        """Forget what lies before `now`."""
        at = bisect_right(self.times, now) - 1
        if at > 0:
            del self.times[:at], self.free[:at]
        self.times[0] = now

    def _cut(self, time_s: float) -> int:
        """Return the step that begins at a time, cutting one in two if need be."""
        at = bisect_left(self.times, time_s)
        if at == len(self.times) or self.times[at] != time_s:
            self.times.insert(at, time_s)
            self.free.insert(at, self.free[at - 1])
        return at

    def _span(self, start_s: float, end_s: float) -> range:
        first = self._cut(start_s)
        last = self._cut(end_s) if end_s < math.inf else len(self.times)
        return range(first, last)

    def take(self, start_s: float, end_s: float, devices: int) -> None:
        """Take devices for a time."""
        for at in self._span(start_s, end_s):
            self.free[at] &= ~devices

    def give(self, start_s: float, end_s: float, devices: int) -> None:
        """Give devices back for a time."""
        if end_s > start_s:
            for at in self._span(start_s, end_s):
                self.free[at] |= devices

    def during(self, at: int, duration_s: float, among: int, count: int) -> int:
        """Return the devices free from step `at` on for a duration; 0 if fewer than `count`."""
        end = self.times[at] + duration_s
        free = among
        while at < len(self.times) and (self.times[at] < end or not duration_s):
            free &= self.free[at]
            if free.bit_count() < count:
                return 0
            at += 1
            if not duration_s:
                break
        return free
