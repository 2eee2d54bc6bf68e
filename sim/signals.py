"""SIGINT and SIGTERM, answered in words and with the status that a shell gives them.

Nothing heavy is imported here: this stands before everything else.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_ASKED = (signal.SIGINT, signal.SIGTERM)
_raised: list[Stopped] = []  # at most one


class Stopped(BaseException):
    """The process was asked to end by SIGINT or SIGTERM; `status` is what it should end with."""

    def __init__(self, number: int) -> None:
        self.status = 128 + number
        super().__init__(signal.Signals(number).name)


def leave_at_once(number: int, frame: FrameType | None) -> None:
    """End with a sentence: files are renamed when they are whole, so there is nothing to tidy."""
    name = signal.Signals(number).name
    try:
        os.write(2, f"interrupted by {name}: what was finished is whole\n".encode())
    finally:
        os._exit(128 + number)


def leave_on_signals() -> None:
    """End at once when asked to, but where that was turned off from outside (`nohup`, `&`)."""
    for number in _ASKED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave_at_once)


def raise_on_signals() -> None:
    """Raise `Stopped` when asked to end, so that devices and daemons are let go.

    Asked a second time, the process ends at once. Forked helpers leave it to their parent.
    """
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            leave_on_signals()
            _raised.append(Stopped(number))
            raise _raised[-1]
        if number == signal.SIGTERM:
            os._exit(128 + number)

    def unraisable(lost: sys.UnraisableHookArgs) -> None:
        """End at once where the interpreter drops what was raised: in a callback of its own."""
        if isinstance(lost.exc_value, Stopped):
            leave_at_once(lost.exc_value.status - 128, None)
        sys.__unraisablehook__(lost)

    sys.unraisablehook = unraisable
    for number in _ASKED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def stopped() -> Stopped | None:
    """Return what was raised, if anything was: what fails after it, fails because of it.

    An interpreter or a library may have put another exception in its place; until Python 3.12 a
    class body does (`__set_name__`).
    """
    return _raised[-1] if _raised else None


def ignore_signals() -> None:
    """Let the interpreter end in peace: the answer was given, only memory is left to tidy."""
    for number in _ASKED:
        signal.signal(number, signal.SIG_IGN)
