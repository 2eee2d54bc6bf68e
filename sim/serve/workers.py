"""Processes that answer, so that a page stays quick while others compute; equal questions are asked once."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from ersatz.sim.processes import end_now
from ersatz.sim.serve.asks import answered, ready, warm, wrong
from ersatz.sim.serve.telling import forgotten

MOST_KEPT = 400  # answers
MOST_LETTERS = 40_000_000  # of all that are kept
MOST_S = 120.0  # of one answer
Key = tuple[str, tuple[tuple[str, str], ...], bool]


class Workers:
    """Two pools: one for what slides, one for what takes long, so that neither waits for the other."""

    def __init__(self, folders: list[str], quick: int = 0) -> None:
        self.folders, self.counts = (
            folders,
            {"quick": quick or max(os.cpu_count() or 1, 1), "slow": 1},
        )
        self.pools = {name: self._pool(name) for name in self.counts}
        self.kept: OrderedDict[Key, str] = OrderedDict()
        self.letters = 0
        self.asked: dict[Key, asyncio.Task[str]] = {}

    def _pool(self, name: str) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.counts[name], context, ready, (self.folders,))

    def warm(self) -> list[Future[int]]:
        """Start the processes, and let each answer once."""
        return [
            self.pools[name].submit(warm)
            for name, count in self.counts.items()
            for _ in range(count)
        ]

    async def answer(self, page: str, values: Mapping[str, str], *, exact: bool) -> str:
        """Return the answer of a page as HTML: from memory, from who asked the same, or computed."""
        key = page, tuple(sorted(values.items())), exact
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        task = self.asked.get(key)
        if task is None:
            task = self.asked[key] = asyncio.create_task(
                self._computed(key, page, dict(values), exact)
            )
            task.add_done_callback(lambda _: self.asked.pop(key, None))
        return await asyncio.shield(task)

    async def _computed(self, key: Key, page: str, values: dict[str, str], exact: bool) -> str:
        name = "quick" if page == "what-if" else "slow"
        if name == "slow" and not self.busy(but=key):
            forgotten(Path(self.folders[0]))
        loop, pool = asyncio.get_running_loop(), self.pools[name]
        try:
            asked = loop.run_in_executor(pool, answered, page, values, exact, self.folders[0])
            text = await asyncio.wait_for(asked, MOST_S)
        except TimeoutError:
            self._renew(name)
            return wrong([f"took more than {MOST_S:.0f} s; the command line has the time"])
        except (BrokenProcessPool, asyncio.CancelledError):
            if self.pools[name] is pool:
                self._renew(name)
            return wrong(["It was ended before it was done."], "No answer")
        self._keep(key, text)
        return text

    def busy(self, but: Key | None = None) -> bool:
        """Tell whether something long is being answered."""
        return any(key[0] != "what-if" and key != but for key in self.asked)

    def cancel(self) -> None:
        """End what takes long; who asked for it hears that it was ended."""
        self._renew("slow")

    def _renew(self, name: str) -> None:
        """Put new processes in place of those that hang or died."""
        old, self.pools[name] = self.pools[name], self._pool(name)
        end_now(old)

    def _keep(self, key: Key, text: str) -> None:
        self.kept[key] = text
        self.letters += len(text)
        while len(self.kept) > MOST_KEPT or self.letters > MOST_LETTERS:
            _, dropped = self.kept.popitem(last=False)
            self.letters -= len(dropped)

    def close(self) -> None:
        """End the processes."""
        for pool in self.pools.values():
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
