"""Prices from the workers of a running Ray cluster; each holds the scenario, rows go to the least busy.

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
from ersatz.sim.search.pricing import InPlace, Price, Pricer, Row, price_layout

RETRIES = 3  # of a worker that dies
Tell = Callable[[str], None]


class Worker:
    """Prices rows of one scenario on a machine of the cluster."""

    def __init__(self, scenario: Scenario, least: str) -> None:
        """Hold the scenario, so that what its layouts share is worked out once."""
        self.case = scenario, least

    def price(self, row: Row) -> Price:
        """Return what the layout of a row takes."""
        return price_layout(self.case[0], row, self.case[1])


@dataclass(slots=True)
class Remote:
    """Prices rows of one scenario on a Ray cluster that was joined."""

    scenario: Scenario
    least: str
    ray: Any
    workers: int
    tell: Tell = lambda words: None
    _actors: list[Any] = field(default_factory=list)
    _load: list[int] = field(default_factory=list)
    _open: dict[Row, tuple[int, Any]] = field(default_factory=dict)

    def expect(self, rows: Sequence[Row]) -> None:
        """Hand out rows; those that were told before and not asked for are dropped."""
        wanted = set(rows)
        for row in [row for row in self._open if row not in wanted]:
            number, ticket = self._open.pop(row)
            self._load[number] -= 1
            self.ray.cancel(ticket)
        for row in rows:
            self._submit(row)

    def price(self, row: Row) -> Price:
        """Return what the layout of a row takes."""
        self._submit(row)
        number, ticket = self._open.pop(row)
        self._load[number] -= 1
        try:
            price: Price = self.ray.get(ticket)
            return price
        except self.ray.exceptions.RayError as error:
            name = type(error).__name__
            self.tell(f"a worker of the Ray cluster failed ({name}): the layout is priced here")
            return InPlace(self.scenario, self.least).price(row)

    def _submit(self, row: Row) -> None:
        if row in self._open:
            return
        if not self._actors:
            kind = self.ray.remote(Worker).options(
                num_cpus=1, max_restarts=RETRIES, max_task_retries=RETRIES
            )
            case = self.ray.put(self.scenario)
            self._actors = [kind.remote(case, self.least) for _ in range(self.workers)]
            self._load = [0] * self.workers
        number = min(range(self.workers), key=lambda one: (self._load[one], one))
        self._load[number] += 1
        self._open[row] = number, self._actors[number].price.remote(row)

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
    alone = {
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
        many = workers if workers > 1 else max(int(ray.cluster_resources().get("CPU", 1)), 1)
        yield lambda scenario, least: Remote(scenario, least, ray, many, tell)
    finally:
        ray.shutdown()
