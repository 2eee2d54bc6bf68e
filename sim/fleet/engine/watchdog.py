"""Ends a decision that takes too long, without a cost per decision.

A timer of the operating system looks in now and then: if the same decision is still being made as
the last time, it is given up. Works in the main thread, and on code that returns to Python at times
and does not swallow whatever is raised; code of a file runs in a process of its own (`policies.own`).
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

AGAIN_S = 0.1


class HangError(BaseException):
    """A decision took too long; no `Exception`, so that a scheduler does not swallow it."""


class Watchdog:
    """Watches the decisions that are made inside its `with` block."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.inside = False  # a decision is being made
        self.number = 0  # which
        self._seen = -1
        self._on = limit_s > 0 and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Watchdog:
        if self._on:
            self._before = signal.signal(signal.SIGALRM, self._look)
            signal.setitimer(signal.ITIMER_REAL, self.limit_s, self.limit_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._on:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, self._before)

    def _look(self, number: int, frame: FrameType | None) -> None:
        if self.inside and self._seen == self.number:
            # Who swallows it gets it again; `inside` ends with the decision.
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S, AGAIN_S)
            raise HangError
        self._seen = self.number if self.inside else -1
