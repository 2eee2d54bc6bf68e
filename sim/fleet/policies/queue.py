"""Schedulers made of an order, a placement and an admission, as in Blox.

The order is a key per job that does not change while it waits; the placement says where; the
admission who may start at all. `QueueScheduler` starts jobs in order, and nobody overtakes but jobs
that stand behind one that is not admitted.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence

from ersatz.sim.fleet.log import Claims, Record
from ersatz.sim.fleet.policies.placement import Placer
from ersatz.sim.fleet.policies.shapes import Entry, Lines, shape_of
from ersatz.sim.fleet.protocol import Decision, Start, View
from ersatz.sim.fleet.workload.jobs import Job

Key = Callable[[Job], float]
Admit = Callable[[View, Job, int], bool]


def by_submission(job: Job) -> float:
    """Order jobs by when they were submitted."""
    return job.submit_s


def by_limit(job: Job) -> float:
    """Order jobs by the run time that they ask for, the shortest first."""
    return job.walltime_s


def within_limits(view: View, job: Job, beside: int = 0) -> bool:
    """Admit a job if its tenant stays within its limit, `beside` devices on top of what it holds."""
    quota = view.rules.quotas.get(job.tenant)
    return quota is None or view.used[job.tenant] + job.devices + beside <= quota.limit


class QueueScheduler:
    """Starts jobs in the order of a key, each as soon as it fits."""

    def __init__(
        self, name: str = "fifo", placer: Placer | None = None, key: Key = by_submission,
        admit: Admit = within_limits,
    ) -> None:  # fmt: skip
        self.name, self.key, self.admit = name, key, admit
        self.placer = placer or Placer()
        self.claims = Claims()
        self.queue: list[Entry] = []  # the first is last, where it is cheap to take away
        self._entries: dict[str, Entry] = {}
        self._arrivals = 0

    def on_start(self, view: View) -> None:
        """Nothing to prepare."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        """Start from the head of the queue until a job does not fit."""
        self.enqueue(view)
        yield from self.start_in_order(view)

    def start_in_order(self, view: View) -> Iterator[Decision]:
        """Start jobs in order until one is admitted but does not fit: it is the head."""
        at = len(self.queue) - 1
        while at >= 0:
            job = view.waiting[self.queue[at][2]]
            if self.admit(view, job, 0):
                placement = self.placer.find(view, job)
                if placement is None:
                    return
                yield self.start(job, placement)
            at -= 1

    def start(self, job: Job, placement: tuple[tuple[int, int], ...]) -> Start:
        """Return the decision to start a job, which leaves the queue."""
        entry = self._entries.pop(job.id)
        del self.queue[bisect_left(self.queue, entry)]
        return Start(job.id, placement)

    def enqueue(self, view: View) -> None:
        """Sort jobs that began to wait into the queue."""
        for job in view.arrived:
            self._arrivals -= 1
            entry = self._entries[job.id] = (-self.key(job), self._arrivals, job.id)
            insort(self.queue, entry)

    def head(self, view: View) -> Job | None:
        """Return the first waiting job that is admitted."""
        for _, _, name in reversed(self.queue):
            job = view.waiting[name]
            if self.admit(view, job, 0):
                return job
        return None

    def on_end(self, view: View) -> None:
        """Nothing to let go."""


class FillScheduler(QueueScheduler):
    """Starts whatever fits, in order: no device idles beside a job that could use it.

    Large gangs may wait for ever behind a stream of small ones.
    """

    def __init__(
        self, name: str = "fill", placer: Placer | None = None, key: Key = by_submission,
        admit: Admit = within_limits,
    ) -> None:  # fmt: skip
        super().__init__(name, placer, key, admit)
        self.claims = Claims(work_conserving=True)
        self.lines = Lines()

    def enqueue(self, view: View) -> None:
        """Let jobs that began to wait stand with those of their shape."""
        for job in view.arrived:
            self.lines.add(shape_of(view, job), (self.key(job),), job)

    def start_in_order(self, view: View) -> Iterator[Decision]:
        """Start every job that fits, the first first."""
        for job in self.lines.in_order(view.waiting):
            if self.admit(view, job, 0) and (placement := self.placer.find(view, job)):
                yield Start(job.id, placement)
