"""The fleet as a scheduler sees it: read only, nothing copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from ersatz.sim.fleet.cluster import Cluster, Placement
from ersatz.sim.fleet.free import Free
from ersatz.sim.fleet.log import Rules
from ersatz.sim.fleet.protocol import Attempt, Progress
from ersatz.sim.fleet.workload.jobs import Job

if TYPE_CHECKING:
    from ersatz.sim.fleet.engine.fleet import Fleet


class FleetView:
    """Implements `ersatz.sim.fleet.protocol.View`."""

    __slots__ = ("_densest", "_fleet", "arrived", "cluster", "free", "progress", "rules", "running",
                 "used", "waiting")  # fmt: skip

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.cluster: Cluster = fleet.cluster
        self.rules: Rules = fleet.rules
        self.free: Free = fleet.free
        self.waiting: Mapping[str, Job] = MappingProxyType(fleet.waiting)
        self.running: Mapping[str, Attempt] = MappingProxyType(fleet.running)
        self.progress: Mapping[str, Progress] = MappingProxyType(fleet.progress)
        self.used: Mapping[str, int] = MappingProxyType(fleet.used)
        self.arrived: Sequence[Job] = fleet.arrived
        self._densest = {
            kind: max((n.devices for n in fleet.cluster.nodes if n.type == kind), default=1) or 1
            for kind in fleet.cluster.types
        }

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self._fleet.env.now

    def rate(self, job: Job, placement: Placement) -> float:
        """Return at which rate a placement would do a job's work now; 0: it cannot."""
        rate = self._fleet.rate(job, placement)
        return rate * self._fleet.slowness(placement) if self._fleet.slowed else rate

    def rate_on(self, job: Job, kind: str, devices: int = 0) -> float:
        """Return the rate on so many devices (0: its gang) of a type, as close together as can be."""
        count = devices or job.devices
        nodes = max(-(-count // self._densest[kind]), 1)
        return self._fleet.spec.speed(job, kind, count, nodes, 1)

    def served_s(self, job: str) -> float:
        """Return the device-seconds that a job has had."""
        progress = self.progress.get(job)
        served = progress.served_s if progress else 0.0
        attempt = self.running.get(job)
        return served + (attempt.devices * (self.now - attempt.start_s) if attempt else 0.0)
