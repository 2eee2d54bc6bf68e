"""Limits of time that travel between machines: stated for a quiet core, scaled by what this one does now.

A limit in seconds says more of the machine than of the program. What is timed here is held against a
plain Python loop run just before and just after it, in seconds of processor time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

STEPS = 500_000
QUIET_S = 0.010  # of the loop below, on the core for which limits are stated
COUNTED = 4.0  # where branches are counted, the program is slowed and the loop is not


def loop_seconds() -> float:
    """Seconds of processor time that a fixed amount of plain Python work takes."""
    begun, total = time.process_time(), 0
    for i in range(STEPS):
        total += i
    return time.process_time() - begun


def pace() -> float:
    """How many times longer than on a quiet core anything takes here and now; 1 or more."""
    counted = COUNTED if sys.gettrace() is not None else 1.0
    return counted * max(1.0, loop_seconds() / QUIET_S)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Assert that the body takes at most so much processor time, of a quiet core."""
    before, begun = pace(), time.process_time()
    yield
    spent = time.process_time() - begun
    allowed = seconds * max(before, pace())
    assert spent < allowed, f"{spent:.2f} s of processor time, {allowed:.2f} allowed"
