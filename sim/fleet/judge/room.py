"""Whether a waiting job fits the devices that are free, as far as a log alone can tell.

Careful: "fits" is said only where any reasonable scheduler could have started the job. Where a log does
not show that a model runs on a type of device at all, or where wishes cannot be looked through
cheaply, the job counts as one that does not fit.
"""

from __future__ import annotations

from collections import Counter

from ersatz.sim.fleet.cluster import UNCOUNTED, size_of
from ersatz.sim.fleet.free import Free, members
from ersatz.sim.fleet.log import RELEASES, Log, Record
from ersatz.sim.fleet.workload.jobs import Job

Shape = tuple[object, ...]


def shape_of(job: Job) -> Shape:
    """Return what decides where a job fits, and to whom it belongs."""
    return (job.devices, job.types, job.tenant, job.priority, job.model, job.max_nodes, job.max_leaves,
            job.max_pods, job.mixed, job.milli, job.cpu_milli, job.memory_mib)  # fmt: skip


class Room:
    """Free devices, and the waiting jobs by shape, replayed from records that hold no fault."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.free = Free(log.cluster)
        self.counted = any(
            n.cpu_milli < UNCOUNTED or n.memory_mib < UNCOUNTED for n in log.cluster.nodes
        )
        self.waiting: dict[Shape, dict[str, Job]] = {}  # in the order in which they began to wait
        self.example: dict[Shape, Job] = {}
        self.used: Counter[str] = Counter()
        self._held: dict[str, tuple[tuple[int, int], ...]] = {}
        self._shape: dict[str, Shape] = {}  # of each job that has waited
        self._closed: Counter[int] = Counter()
        self._runs_on = _seen_on(log)
        self._known: dict[Shape, bool] = {}  # what fits, until something is taken or given

    def book(self, r: Record) -> None:
        """Bring the state up to date with a record."""
        event = r.event
        job = self.log.jobs.get(r.job) if r.job else None
        if job is not None:
            if event == "start":
                self._start(job, r)
            elif event in RELEASES:
                self._release(job, r)
            elif event in ("reject", "abandon"):
                self._leave(job)
            elif event == "ready" or (event == "submit" and not job.after):
                self._wait(job)
        elif r.node >= 0 and event in ("down", "drain", "up", "undrain"):
            self._known.clear()
            self._closed[r.node] += 1 if event in ("down", "drain") else -1
            (self.free.close if self._closed[r.node] > 0 else self.free.open)(r.node)

    def _wait(self, job: Job) -> None:
        shape = self._shape.get(job.id) or self._shape.setdefault(job.id, shape_of(job))
        self.example.setdefault(shape, job)
        self.waiting.setdefault(shape, {})[job.id] = job

    def _leave(self, job: Job) -> None:
        shape = self._shape.get(job.id) or shape_of(job)
        jobs = self.waiting.get(shape, {})
        jobs.pop(job.id, None)
        if not jobs:
            self.waiting.pop(shape, None)

    def _start(self, job: Job, r: Record) -> None:
        self._leave(job)
        self._known.clear()
        self.free.take(job, r.placement)
        self._held[job.id] = r.placement
        self.used[job.tenant] += size_of(r.placement)

    def _release(self, job: Job, r: Record) -> None:
        self._known.clear()
        placement = self._held.pop(job.id, ())
        self.free.give(job, placement)
        self.used[job.tenant] -= size_of(placement)
        if r.event in ("fail", "preempt", "resize"):
            self._wait(job)

    def admits(self, job: Job) -> bool:
        """Tell whether a job's tenant stays within its limit."""
        quota = self.log.rules.quotas.get(job.tenant)
        return quota is None or self.used[job.tenant] + job.devices <= quota.limit

    def fits(self, shape: Shape) -> bool:
        """Tell whether a waiting job of a shape could start now, whole and as it wishes."""
        if shape not in self._known:
            self._known[shape] = self._fits(self.example[shape])
        return self._known[shape]

    def _fits(self, job: Job) -> bool:
        if not job.devices or not self.admits(job):
            return False
        if job.milli < 1000:
            return self._fits_shared(job)
        if job.devices > self.free.free:
            return False
        kinds = job.types or self.log.cluster.types
        if job.mixed:
            return not (job.max_nodes or job.max_leaves or job.max_pods or self.counted
                        or job.types or job.model)  # fmt: skip
        return any(self._fits_on(job, kind) for kind in kinds
                   if not job.model or job.devices in self._runs_on.get((job.model, kind), ()))  # fmt: skip

    def _fits_shared(self, job: Job) -> bool:
        kinds = job.types or self.log.cluster.types
        return any(self.free.has_room(job, node)
                   for kind in kinds for node in members(self.free.nodes_with(kind, 1)))  # fmt: skip

    def _fits_on(self, job: Job, kind: str) -> bool:
        free, count = self.free, job.devices
        if free.of(kind) < count:
            return False
        limits = [m for m in (job.max_nodes, job.max_leaves, job.max_pods) if m]
        if not limits and not self.counted:
            return True
        if len(limits) > 1:
            return False
        nodes = free.nodes_with(kind, count if job.max_nodes == 1 else 1)
        if job.max_nodes == 1 and not self.counted:
            return bool(nodes)
        room: Counter[int] = Counter()
        most = limits[0] if limits else len(self.log.cluster.nodes)
        share, ample = -(-count // most), set[int]()  # domains with a full share: `most` of them do
        for node in members(nodes):
            if not self.counted or free.has_room(job, node):
                domain = self._domain(job, node)
                room[domain] += free.masks[node].bit_count()
                if room[domain] >= share:
                    ample.add(domain)
                    if room[domain] >= count or len(ample) >= most:
                        return True
        return sum(devices for _, devices in room.most_common(most)) >= count

    def _domain(self, job: Job, node: int) -> int:
        spec = self.log.cluster.nodes[node]
        return node if job.max_nodes else spec.leaf if job.max_leaves else spec.pod


def _seen_on(log: Log) -> dict[tuple[str, str], set[int]]:
    """Return on which types, in which sizes, a model was seen to run at all."""
    seen: dict[tuple[str, str], set[int]] = {}
    for r in log.records:
        if r.event == "start" and r.placement and (job := log.jobs.get(r.job)) and job.model:
            kind = log.cluster.nodes[r.placement[0][0]].type
            seen.setdefault((job.model, kind), set()).add(size_of(r.placement))
    return seen
