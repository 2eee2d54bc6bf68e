"""A program under a keeper, as ersatz holds it. Times are real seconds."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

KEEPER = str(Path(__file__).with_name("keeper.py"))
FAREWELL_S = 2.0  # for a program to end by itself
LAST_S = 30.0  # for the keeper to end everything


class Kept:
    """A program with all that it starts; raises `OSError` where it cannot be started."""

    def __init__(
        self, words: Sequence[str], folder: Path, *, fds: tuple[int, ...] = (), relay: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._ended: dict[str, object] | None = None
        head = [
            sys.executable,
            "-I",
            "-S",
            KEEPER,
            str(folder),
            str(relay),
            ",".join(map(str, fds)),
        ]
        self._keeper = subprocess.Popen(
            [*head, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=fds,
            env=environment, start_new_session=True,  # an interrupt is for ersatz, not for them
        )  # fmt: skip
        assert self._keeper.stdout is not None
        begun = json.loads(self._keeper.stdout.readline() or '{"error": "its keeper ended"}')
        if "error" in begun:
            self.end()
            raise OSError(0, begun["error"])
        self.pid = int(begun["pid"])

    def how_it_ended(self, wait_s: float = 0.0) -> str:
        """Return how the program ended, with its last words, or an empty text while it runs."""
        out = self._keeper.stdout
        if self._ended is None and out is not None and select.select([out], [], [], wait_s)[0]:
            self._ended = json.loads(out.readline() or '{"status": -9, "words": ""}')
        if self._ended is None:
            return ""
        code = int(str(self._ended["status"]))
        how = f"was killed by {_signal(-code)}" if code < 0 else f"exited with status {code}"
        lines = str(self._ended["words"]).strip().splitlines()
        return f"{how}; it wrote: {lines[-1][:200]}" if lines else how

    def end(self, *, patient: bool = False) -> None:
        """End the program and all that came from it; a patient caller lets it end by itself."""
        if patient:
            self.how_it_ended(FAREWELL_S)
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        try:
            self._keeper.wait(LAST_S)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
        if self._keeper.stdout is not None:
            self._keeper.stdout.close()


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def environment() -> dict[str, str]:
    """Return the environment of a scheduler: its sets have the same order every time."""
    return {"PYTHONHASHSEED": "0", **os.environ}
