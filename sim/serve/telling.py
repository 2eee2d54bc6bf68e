"""How far a long answer has come: a worker writes it to a file of the site's folder, the server tells browsers."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ersatz.device_models.text.units import format_duration
from ersatz.sim.search.pricing import Price

FILE = "progress.json"
PAUSE_S = 0.2  # between two words


@dataclass(slots=True)
class Telling:
    """What one answer says of itself on the way; nothing where there is no folder."""

    folder: Path
    what: str
    count: int = 0
    best_s: float = float("inf")
    last: float = 0.0
    fits: int = field(default=0)

    def priced(self, price: Price) -> None:
        """Hear of a layout that was priced."""
        self.count += 1
        self.best_s = min(self.best_s, price.seconds)
        self.fits += price.seconds < float("inf")
        best = f"; the fastest so far takes {format_duration(self.best_s)}" if self.fits else ""
        self._say(f"{self.count:,} layouts priced, {self.fits:,} of them fit{best}", 0)

    @contextmanager
    def watch(self, total: int) -> Iterator[Callable[[str], None]]:
        """Count things that are simulated, of so many."""

        def advance(name: str) -> None:
            self.count += 1
            self._say(f"{self.count:,} of {total:,}: {name[:60]}", total)

        yield advance

    def _say(self, words: str, total: int) -> None:
        now = time.monotonic()
        if now - self.last < PAUSE_S and self.count != total:
            return
        self.last = now
        if not self.folder.is_dir():
            return
        text = json.dumps({"what": self.what, "words": words, "done": self.count, "total": total})
        beside = self.folder / f"{FILE}.{os.getpid()}"
        beside.write_text(text, "utf-8")
        beside.replace(self.folder / FILE)


async def told(folder: Path, busy: Callable[[], bool]) -> AsyncIterator[str]:
    """Yield server-sent events while something long is answered: each new word, then that it is over."""
    said = ""
    while busy():
        text = heard(folder)
        if text and text != said:
            said = text
            yield f"data: {text}\n\n"
        await asyncio.sleep(PAUSE_S)
    yield "event: over\ndata: {}\n\n"


def heard(folder: Path) -> str:
    """Return the last word; nothing where none was said."""
    try:
        return (folder / FILE).read_text("utf-8")
    except OSError:
        return ""


def forgotten(folder: Path) -> None:
    """Forget what another answer said."""
    (folder / FILE).unlink(missing_ok=True)
