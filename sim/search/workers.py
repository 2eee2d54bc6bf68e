"""Prices from several processes: rows that come soon are handed out, and told in their order.

What a search decides depends on prices alone, so it is the same with any number of workers. A worker
that dies takes its pool with it: a new one begins what is open again; after some such ends the rest is
priced in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

from ersatz.sim.processes import helpers, obey_parent
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.search.pricing import AHEAD, InPlace, Price, Pricer, Row

MOST_DEATHS = 3  # of pools, until no new one is begun
MOST_WORKERS = 256
Tell = Callable[[str], None]

_case: InPlace | None = None  # of a worker's process


def _begin(parent: int, scenario: Scenario, least: str) -> None:
    """Set a worker up: the scenario travels once."""
    global _case
    obey_parent(parent)
    _case = InPlace(scenario, least)


def _price(row: Row) -> Price:
    assert _case is not None
    return _case.price(row)


@dataclass(slots=True)
class Pooled:
    """Prices rows of one scenario in several processes."""

    scenario: Scenario
    least: str
    workers: int
    tell: Tell = lambda words: None
    deaths: int = 0
    ahead: int = AHEAD
    _pool: ProcessPoolExecutor | None = None
    _open: dict[Row, Future[Price]] = field(default_factory=dict)

    def expect(self, rows: Sequence[Row]) -> None:
        """Hand out rows; those that were told before and not asked for are dropped."""
        for row in [row for row in self._open if row not in set(rows)]:
            self._open.pop(row).cancel()
        for row in rows:
            self._submit(row)

    def price(self, row: Row) -> Price:
        """Return what the layout of a row takes."""
        while True:
            future = self._open.pop(row, None)
            if future is None:
                if self._submit(row):
                    continue
                return InPlace(self.scenario, self.least).price(row)
            try:
                return future.result()
            except BrokenProcessPool:
                self._bury([row, *self._open])

    def _submit(self, row: Row) -> bool:
        """Hand out a row; False where no pool is begun any more."""
        if row in self._open:
            return True
        if self.deaths >= MOST_DEATHS:
            return False
        try:
            self._open[row] = self._begun().submit(_price, row)
        except BrokenProcessPool:
            self._bury([row, *self._open])
        return True

    def _begun(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = helpers(self.workers, _begin, self.scenario, self.least)
        return self._pool

    def _bury(self, rows: Sequence[Row]) -> None:
        """Begin again what a dead pool left, or say that the rest is priced here."""
        self.deaths += 1
        self.close()
        if self.deaths >= MOST_DEATHS:
            self.tell(f"workers died {self.deaths} times: the rest is priced in this process")
            return
        self.tell("a worker died: what it had begins again")
        for row in rows:
            self._submit(row)

    def close(self) -> None:
        """End the processes and see them off: one row at most is still being priced by each."""
        self._open.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def many(workers: int, tell: Tell) -> Callable[[Scenario, str], Pricer]:
    """Return what makes pricers with so many processes."""

    def make(scenario: Scenario, least: str) -> Pricer:
        return Pooled(scenario, least, workers, tell)

    return make
