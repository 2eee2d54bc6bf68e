"""The fleet as a scheduler sees it: read only, and without a way to what it cannot know."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol, overload

from ersatz.sim.fleet.cluster import Cluster, Placement, size_of
from ersatz.sim.fleet.fits import spans
from ersatz.sim.fleet.free import Free
from ersatz.sim.fleet.log import Record, Rules
from ersatz.sim.fleet.protocol import Attempt, Progress
from ersatz.sim.fleet.workload.jobs import Job, Speed


class State(Protocol):
    """What is seen of a fleet, or of a mirror of it."""

    cluster: Cluster
    rules: Rules
    free: Free
    waiting: OrderedDict[str, Job]
    running: dict[str, Attempt]
    progress: dict[str, Progress]
    used: Counter[str]
    arrived: list[Job]
    slowed: dict[int, float]

    @property
    def now(self) -> float:
        """Seconds since the start."""

    @property
    def records(self) -> list[Record]:
        """All that has happened so far."""

    def speed(self, job: Job, kind: str, devices: int, nodes: int, leaves: int) -> float:
        """Return the rate of a job on healthy devices of one type."""


def rate_of(state: State, job: Job, placement: Placement) -> float:
    """Return the rate of a job on healthy nodes: its slowest accelerator type's."""
    nodes = state.cluster.nodes
    count, leaves, _ = spans(state.cluster, placement)
    kinds = {nodes[placement[0][0]].type} if count == 1 else {nodes[n].type for n, _ in placement}
    size = size_of(placement)
    return min(state.speed(job, kind, size, count, leaves) for kind in kinds)


def slowness_of(state: State, placement: Placement) -> float:
    """Return the factor of the slowest node of a placement."""
    return min(state.slowed.get(node, 1.0) for node, _ in placement)


class _Records(Sequence[Record]):
    """All that has happened so far, to be read only."""

    __slots__ = ("_count", "_read")

    def __init__(self, state: State) -> None:
        self._read: Callable[[Any], Any] = lambda key: state.records[key]
        self._count: Callable[[], int] = lambda: len(state.records)

    @overload
    def __getitem__(self, key: int) -> Record: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Record]: ...
    def __getitem__(self, key: int | slice) -> Record | Sequence[Record]:
        return self._read(key)  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return self._count()


class FleetView:
    """Implements `ersatz.sim.fleet.protocol.View`.

    The fleet itself is no attribute of it, so that nothing but what is shown can be reached by
    mistake. Who writes into `free` harms its own placements only: the log is judged without it.
    """

    __slots__ = ("_densest", "_now", "_rate_of", "_slowness_of", "_speed", "arrived", "cluster",
                 "free", "progress", "records", "rules", "running", "used", "waiting")  # fmt: skip

    def __init__(self, state: State) -> None:
        self._now: Callable[[], float] = lambda: state.now
        self._speed: Speed = lambda *key: state.speed(*key)
        self._rate_of: Callable[[Job, Placement], float] = lambda job, at: rate_of(state, job, at)
        self._slowness_of: Callable[[Placement], float] = lambda at: (
            slowness_of(state, at) if state.slowed else 1.0
        )
        self.cluster: Cluster = state.cluster
        self.rules: Rules = replace(state.rules, quotas=dict(state.rules.quotas))
        self.free: Free = state.free
        self.waiting: Mapping[str, Job] = MappingProxyType(state.waiting)
        self.running: Mapping[str, Attempt] = MappingProxyType(state.running)
        self.progress: Mapping[str, Progress] = MappingProxyType(state.progress)
        self.used: Mapping[str, int] = MappingProxyType(state.used)
        self.records: Sequence[Record] = _Records(state)
        self.arrived: Sequence[Job] = state.arrived
        self._densest = {
            kind: max((n.devices for n in state.cluster.nodes if n.type == kind), default=1) or 1
            for kind in state.cluster.types
        }

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self._now()

    def speed(self, job: Job, kind: str, devices: int, nodes: int, leaves: int) -> float:
        """Return the rate of a job on healthy devices of a type, spread over so many nodes and leaves."""
        return self._speed(job, kind, devices, nodes, leaves)

    def rate(self, job: Job, placement: Placement) -> float:
        """Return at which rate a placement would do a job's work now; 0: it cannot."""
        return self._rate_of(job, placement) * self._slowness_of(placement)

    def rate_on(self, job: Job, kind: str, devices: int = 0) -> float:
        """Return the rate on so many devices (0: its gang) of a type, as close together as can be."""
        if kind not in self._densest:
            return 0.0
        count = devices or job.devices
        nodes = max(-(-count // self._densest[kind]), 1)
        return self._speed(job, kind, count, nodes, 1)

    def served_s(self, job: str) -> float:
        """Return the device-seconds that a job has had."""
        progress = self.progress.get(job)
        served = progress.served_s if progress else 0.0
        attempt = self.running.get(job)
        return served + (attempt.devices * (self.now - attempt.start_s) if attempt else 0.0)
