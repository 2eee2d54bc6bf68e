"""Prices from the workers of a running Ray cluster; each holds the scenario.

Rows go in lots, so that neither this process nor Ray's own has much to do for each. Those of as many stages
and micro-batches share schedules, groups and kernels: they go to one worker, which keeps these, unless
another is much less busy; then those of a schedule move.

As with processes, what a search decides depends on prices alone. Ray begins a worker that dies again and
repeats what it had, some times; after that its rows are priced in this process, and that is said. The
machines of the cluster need the same version of ersatz.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ersatz.device_models.text.problems import InputError, Problem
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.search.pricing import AHEAD, InPlace, Price, Pricer, Row
from ersatz.sim.search.space import PP, SCHEDULE, VP, M

RETRIES = 3  # of a worker that dies
UNEVEN = 16  # rows that a worker may have more than another, before a schedule moves
LOT = 8  # rows of one task
Tell = Callable[[str], None]


class Worker:
    """Prices rows of one scenario on a machine of the cluster."""

    def __init__(self, scenario: Scenario, least: str) -> None:
        """Hold the scenario, so that what its layouts share is worked out once."""
        self.case = InPlace(scenario, least)

    def prices(self, rows: Sequence[Row]) -> dict[Row, Price]:
        """Return what the layouts of some rows take."""
        return {row: self.case.price(row) for row in rows}


@dataclass(slots=True, eq=False)
class _Lot:
    """Rows that one worker prices in one task."""

    worker: int
    ticket: Any
    left: set[Row]  # rows that may still be asked for
    prices: dict[Row, Price] = field(default_factory=dict)


@dataclass(slots=True)
class Remote:
    """Prices rows of one scenario on a Ray cluster that was joined."""

    scenario: Scenario
    least: str
    ray: Any
    workers: int
    tell: Tell = lambda words: None
    ahead: int = AHEAD
    _actors: list[Any] = field(default_factory=list)
    _load: list[int] = field(default_factory=list)
    _home: dict[tuple[int, ...], int] = field(default_factory=dict)  # worker by shape and schedule
    _open: dict[Row, _Lot] = field(default_factory=dict)
    _here: InPlace | None = None  # prices what no worker could

    def expect(self, rows: Sequence[Row]) -> None:
        """Hand out rows; those that were told before and not asked for are dropped."""
        wanted = set(rows)
        for row in [row for row in self._open if row not in wanted]:
            lot = self._taken(row)
            if not lot.left and not lot.prices:
                self.ray.cancel(lot.ticket)
        self._submit([row for row in rows if row not in self._open])

    def price(self, row: Row) -> Price:
        """Return what the layout of a row takes."""
        if row not in self._open:
            self._submit([row])
        lot = self._taken(row)
        try:
            if not lot.prices:
                lot.prices = self.ray.get(lot.ticket)
            return lot.prices[row]
        except self.ray.exceptions.RayError as error:
            name = type(error).__name__
            self.tell(f"a worker of the Ray cluster failed ({name}): the layout is priced here")
            self._here = self._here or InPlace(self.scenario, self.least)
            return self._here.price(row)

    def _taken(self, row: Row) -> _Lot:
        """Return the lot of a row, which is not open any more."""
        lot = self._open.pop(row)
        lot.left.discard(row)
        self._load[lot.worker] -= 1
        return lot

    def _submit(self, rows: Sequence[Row]) -> None:
        """Hand rows out, in lots of one worker each."""
        if not self._actors:
            kind = self.ray.remote(Worker).options(
                num_cpus=1, max_restarts=RETRIES, max_task_retries=RETRIES
            )
            # the scenario itself: a worker that begins again would miss one that is only referred to
            self._actors = [kind.remote(self.scenario, self.least) for _ in range(self.workers)]
            self._load = [0] * self.workers
        dealt: list[list[Row]] = [[] for _ in self._actors]
        for row in rows:
            dealt[self._worker(row)].append(row)
        for worker, mine in enumerate(dealt):
            for at in range(0, len(mine), LOT):
                some = mine[at : at + LOT]
                lot = _Lot(worker, self._actors[worker].prices.remote(some), set(some))
                self._open.update(dict.fromkeys(some, lot))

    def _worker(self, row: Row) -> int:
        """Return the worker of a row, which has one more then."""
        least = min(range(self.workers), key=lambda one: (self._load[one], one))
        shape = row[PP], row[M]
        schedule = *shape, row[SCHEDULE], row[VP]
        worker = self._home.setdefault(schedule, self._home.setdefault(shape, least))
        if self._load[worker] - self._load[least] > UNEVEN:
            worker = self._home[schedule] = least
        self._load[worker] += 1
        return worker

    def close(self) -> None:
        """End the workers; what is open is dropped."""
        self._open.clear()
        for actor in self._actors:
            self.ray.kill(actor)
        self._actors.clear()


@contextmanager
def on_cluster(
    address: str, workers: int, tell: Tell
) -> Iterator[Callable[[Scenario, str], Pricer]]:
    """Join a Ray cluster and give what makes pricers there; left again at the end.

    `workers` 1 takes as many as the cluster has processors. Raises `InputError` where Ray is not
    installed or the cluster cannot be joined.
    """
    try:
        import ray
    except ImportError as error:
        words = "needs Ray, which is not installed; pip install 'ersatz[dist]'"
        raise InputError([Problem("--ray", 0, 0, "", address[:60], words)]) from error
    alone: dict[str, Any] = {
        "_node_ip_address": "127.0.0.1",
        "include_dashboard": False,
    }  # one of its own: nobody else's
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR,
                 **(alone if address == "local" else {}))  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        words = f"cannot be joined: {str(error).splitlines()[0][:160]}"
        raise InputError([Problem("--ray", 0, 0, "", address[:60], words)]) from error
    try:
        there: dict[str, Any] = ray.cluster_resources()  # type: ignore[no-untyped-call, unused-ignore]
        many = workers if workers > 1 else max(int(there.get("CPU", 1)), 1)
        yield lambda scenario, least: Remote(scenario, least, ray, many, tell)
    finally:
        ray.shutdown()
