"""Waiting jobs by shape: what is found of one holds for all that differ in nothing that decides.

A queue of a hundred thousand jobs has a handful of shapes. Where one of a shape finds no devices, none
behind it will, until devices come back; so a scheduler asks once for each shape, not once for each job.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Hashable, Iterator, Mapping
from heapq import heapify, heappop, heappush

from ersatz.sim.fleet.protocol import View
from ersatz.sim.fleet.workload.jobs import Job

Entry = tuple[float, int, str]  # key, order of arrival, job
Ranked = tuple[tuple[float, ...], int, str]  # rank, order of arrival, job


def shape_of(view: View, job: Job) -> tuple[object, ...]:
    """Return what decides where a job fits, how fast it runs, and whether it is admitted."""
    tenant = job.tenant if view.rules.quotas else ""
    return (job.devices, job.types, tenant, job.model, job.min_devices, job.max_devices,
            job.max_nodes, job.max_leaves, job.max_pods, job.mixed, job.milli, job.cpu_milli,
            job.memory_mib)  # fmt: skip


class Lines:
    """Waiting jobs in lines, one for each shape, each by a rank that is theirs while they wait."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, list[Ranked]] = {}
        self._arrivals = 0
        self._again = False

    def add(self, shape: Hashable, rank: tuple[float, ...], job: Job) -> None:
        """Let a job stand in the line of its shape; between equals who came first goes first."""
        self._arrivals += 1
        insort(self._lines.setdefault(shape, []), (rank, self._arrivals, job.id))

    def in_order(self, waiting: Mapping[str, Job]) -> Iterator[Job]:
        """Yield jobs by rank; one that waits on when the next is asked for ends its line.

        Who has left is met sooner or later, and dropped there.
        """
        heads = [(line[0], shape) for shape, line in self._lines.items() if line]
        heapify(heads)  # no two entries are equal: shapes are never compared
        stuck: list[Hashable] = []
        self._again = False
        while heads:
            entry, shape = heappop(heads)
            job = waiting.get(entry[2])
            if job is not None:
                yield job
            if entry[2] in waiting:
                stuck.append(shape)
            else:
                self._drop(shape, entry)
                self._push(heads, shape, entry)
            if self._again:
                self._again = False
                for line in stuck:
                    self._push(heads, line, entry)
                stuck.clear()

    def ask_again(self) -> None:
        """Devices came back in a walk: lines that had ended go on behind the job of the moment."""
        self._again = True

    def _push(self, heads: list[tuple[Ranked, Hashable]], shape: Hashable, after: Ranked) -> None:
        line = self._lines.get(shape, [])
        at = bisect_right(line, after)
        if at < len(line):
            heappush(heads, (line[at], shape))

    def _drop(self, shape: Hashable, entry: Ranked) -> None:
        line = self._lines[shape]
        del line[bisect_left(line, entry)]
        if not line:
            del self._lines[shape]


class Shape:
    """Waiting jobs that differ in nothing but their limits."""

    def __init__(self, job: Job) -> None:
        self.job = job  # one of them
        self.entries: list[Entry] = []  # the first is last
        self.limits: list[float] = []  # beside them
        self._shortest: list[float] = []  # heap of limits; may hold some that have gone
        self._gone: list[float] = []  # heap of those

    def add(self, entry: Entry, limit_s: float) -> None:
        """Let a job wait."""
        at = bisect_left(self.entries, entry)
        self.entries.insert(at, entry)
        self.limits.insert(at, limit_s)
        heappush(self._shortest, limit_s)

    def drop(self, entry: Entry) -> None:
        """Let a job go."""
        at = bisect_left(self.entries, entry)
        del self.entries[at]
        heappush(self._gone, self.limits.pop(at))

    def first(self, most_s: float, head: Job) -> Entry | None:
        """Return the first entry with a limit of at most `most_s`, the head left out."""
        while self._gone and self._gone[0] == self._shortest[0]:
            heappop(self._gone)
            heappop(self._shortest)
        if not self._shortest or self._shortest[0] > most_s:
            return None
        for at in range(len(self.limits) - 1, -1, -1):
            if self.limits[at] <= most_s and self.entries[at][2] != head.id:
                return self.entries[at]
        return None
