"""Who waits, as a log tells it, by shape: of each shape the first one speaks for all."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping

from ersatz.sim.fleet.judge.room import Shape, shape_of
from ersatz.sim.fleet.workload.jobs import Job


class Waiting:
    """The waiting jobs, each shape's in the order in which they were submitted."""

    def __init__(self, jobs: Mapping[str, Job]) -> None:
        self._jobs = jobs
        self._lines: dict[Shape, list[tuple[int, str]]] = {}
        self._line_of: dict[str, list[tuple[int, str]]] = {}  # of each job that has waited

    def add(self, name: str, order: int) -> None:
        """Let a job wait, the `order`-th of all; one without a description is nobody's."""
        line = self._line_of.get(name)
        if line is None:
            job = self._jobs.get(name)
            if job is None:
                return
            line = self._line_of[name] = self._lines.setdefault((job.least, *shape_of(job)), [])
        insort(line, (order, name))

    def discard(self, name: str, order: int) -> None:
        """Let a job go."""
        if (line := self._line_of.get(name)) is not None:
            del line[bisect_left(line, (order, name))]

    def firsts(self) -> list[Job]:
        """Return the first job of each shape, in the order in which they were submitted."""
        return [
            self._jobs[name] for _, name in sorted(line[0] for line in self._lines.values() if line)
        ]
