"""Schedulers made of an order, a placement and an admission, as in Blox.

`QueueScheduler(name, place, key, admit)` starts the first waiting job as long as it fits; nobody
overtakes. The order is a key per job, which must not change while the job waits.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Sequence

from sim.fleet.jobs import Job
from sim.fleet.log import Claims, Record
from sim.fleet.policies.placement import Place, first_fit
from sim.fleet.protocol import Decision, Start, View

Key = Callable[[Job], float]


def by_submission(job: Job) -> float:
    """Order jobs by when they were submitted."""
    return job.submit_s


class QueueScheduler:
    """Starts jobs in the order of a key, each as soon as it fits."""

    def __init__(
        self, name: str = "fifo", place: Place = first_fit, key: Key = by_submission
    ) -> None:
        self.name, self.place, self.key = name, place, key
        self.claims = Claims()
        self.queue: list[tuple[float, int, str]] = []  # last first
        self._count = 0

    def on_start(self, view: View) -> None:
        """Nothing to prepare."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        """Start from the head of the queue until a job does not fit."""
        self.enqueue(view.arrived)
        while self.queue:
            job = view.waiting[self.queue[-1][2]]
            placement = self.place(view, job)
            if placement is None:
                return
            self.queue.pop()
            yield Start(job.id, placement)

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Sort jobs that began to wait into the queue."""
        for job in jobs:
            self._count -= 1
            insort(self.queue, (-self.key(job), self._count, job.id))

    def on_end(self, view: View) -> None:
        """Nothing to let go."""
