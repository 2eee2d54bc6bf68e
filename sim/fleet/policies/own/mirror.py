"""The fleet as a scheduler in another process sees it: replayed from the records of its log."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import Any, NamedTuple

from ersatz.sim.fleet.cluster import Cluster, Placement, size_of
from ersatz.sim.fleet.free import Free
from ersatz.sim.fleet.log import FINAL, RELEASES, Record, Rules
from ersatz.sim.fleet.protocol import Attempt, Progress, View
from ersatz.sim.fleet.workload.jobs import Job

ATTEMPT = ("number", "start_s", "rate", "limit_s", "since_s", "done_s", "notice_s", "nominal",
           "first_rate")  # fmt: skip
PROGRESS = ("kept_s", "attempts", "failures", "served_s", "waits_since_s")
_attempt, _progress = attrgetter(*ATTEMPT), attrgetter(*PROGRESS)
Values = tuple[Any, ...]
Speeds = Callable[[str, str, int, int, int], float]


class News(NamedTuple):
    """What has happened since the last: plain data, and jobs as schedulers see them."""

    now: float
    records: list[Record]
    jobs: dict[str, Job]  # those that wait for the first time
    attempts: dict[str, Values]  # of jobs that something happened to, where they run
    progress: dict[str, Values]  # and where they are not over
    arrived: list[str]


def news(view: View, since: int, known: dict[str, Job]) -> News:
    """Return what has happened since record number `since`; jobs that are `known` are not told again."""
    records = list(view.records[since:])
    touched = dict.fromkeys(record.job for record in records if record.job)
    jobs = {name: view.waiting[name] for name in touched
            if name in view.waiting and name not in known}  # fmt: skip
    known.update(jobs)
    return News(
        view.now, records, jobs,
        {name: _attempt(view.running[name]) for name in touched if name in view.running},
        {name: _progress(view.progress[name]) for name in touched if name in view.progress},
        [job.id for job in view.arrived],
    )  # fmt: skip


class Mirror:
    """Implements `ersatz.sim.fleet.engine.view.State`."""

    def __init__(self, cluster: Cluster, rules: Rules, speeds: Speeds) -> None:
        self.cluster, self.rules = cluster, rules
        self.now = 0.0
        self.free = Free(cluster)
        self.waiting: OrderedDict[str, Job] = OrderedDict()
        self.running: dict[str, Attempt] = {}
        self.progress: dict[str, Progress] = {}
        self.used: Counter[str] = Counter()
        self.arrived: list[Job] = []
        self.slowed: dict[int, float] = {}
        self.records: list[Record] = []
        self._jobs: dict[str, Job] = {}
        self._down: set[int] = set()
        self._drained: set[int] = set()
        self._speeds = speeds
        self._known: dict[tuple[str, str, int, int, int], float] = {}

    def speed(self, job: Job, kind: str, devices: int, nodes: int, leaves: int) -> float:
        """Return the rate of a job on healthy devices of one type; asked for once."""
        key = job.id, kind, devices, nodes, leaves
        if key not in self._known:
            self._known[key] = self._speeds(*key)
        return self._known[key]

    def learn(self, told: News) -> None:
        """Bring the mirror up to date."""
        self.now = told.now
        self._jobs |= told.jobs
        for record in told.records:
            self._replay(record)
        for name, values in told.attempts.items():
            self.running[name] = replace(
                self.running[name], **dict(zip(ATTEMPT, values, strict=True))
            )
        for name in dict.fromkeys(record.job for record in told.records if record.job):
            if name in told.progress:
                self.progress[name] = Progress(*told.progress[name])
            else:
                self.progress.pop(name, None)
        self.arrived[:] = [self._jobs[name] for name in told.arrived]
        self.records += told.records

    def _replay(self, record: Record) -> None:
        event, name = record.event, record.job
        if event == "start":
            self._start(name, record.placement)
        elif event in RELEASES:
            self._release(name)
        if event in ("submit", "ready", "fail", "preempt", "resize") and name in self._jobs:
            self.waiting[name] = self._jobs[name]
            self.waiting.move_to_end(name)
        elif event in FINAL:
            self.waiting.pop(name, None)
        elif record.node >= 0:
            self._node(event, record.node, record.value)

    def _start(self, name: str, placement: Placement) -> None:
        job, devices = self.waiting.pop(name), size_of(placement)
        self.free.take(job, placement)
        self.used[job.tenant] += devices
        self.running[name] = Attempt(job, placement, devices, 0.0, 0.0, 0.0, 0)

    def _release(self, name: str) -> None:
        attempt = self.running.pop(name)
        self.free.give(attempt.job, attempt.placement)
        self.used[attempt.job.tenant] -= attempt.devices

    def _node(self, event: str, node: int, value: float) -> None:
        if event == "slow":
            self.slowed[node] = value
            if value == 1.0:
                del self.slowed[node]
            return
        if event in ("down", "up"):
            (self._down.add if event == "down" else self._down.discard)(node)
        elif event in ("drain", "undrain"):
            (self._drained.add if event == "drain" else self._drained.discard)(node)
        closed = node in self._down or node in self._drained
        (self.free.close if closed else self.free.open)(node)
