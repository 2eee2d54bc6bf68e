"""The standard streams: there, able to take any character, and quiet when their reader went away."""

from __future__ import annotations

import io
import os
import sys


class _Closed(io.TextIOBase):
    """A standard output that was closed before the start: nothing can be said, and that is said."""

    def write(self, text: str) -> int:
        raise OSError(9, "it is closed")


def open_streams() -> None:
    """See to it that the three standard streams are there, and take any character.

    Without this the next file to be opened would get the number of a closed stream, and what a
    library prints would land in it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = _Closed()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def give_up_stdout() -> None:
    """Send what standard output still holds nowhere, so that the interpreter's end says nothing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
