"""What happens to nodes: failures by class of component, repair, slow nodes, planned maintenance.

A class of n like components of rate r fails as one Poisson stream of rate n r, which then picks one of
them: no process per device is needed, and a year of 100,000 devices costs some thousand events.
A failing device takes its node down, a failing leaf switch every node under it. Not modelled: ageing,
and failures that depend on load; both belong to the job's own clock (`ersatz.sim.job.failures`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import simpy

from ersatz.sim.fleet.cluster import Cluster
from ersatz.sim.fleet.engine.happening import FAIL, REPAIR, Happening

Events = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True)
class Failures:
    """Unplanned outages of one class of component."""

    component: Literal["device", "node", "leaf"]
    rate: float  # per second and component
    repair_s: float  # mean time until the nodes are back (or at full speed)
    type: str = ""  # accelerator type of the nodes concerned; empty: all
    repair: Literal["fixed", "exponential"] = "exponential"
    slowdown: float = 1.0  # below 1 the nodes stay up at this factor of their speed
    cause: str = ""  # in the log; by default the component


@dataclass(frozen=True, slots=True)
class Maintenance:
    """A planned outage: nodes take no new jobs from `drain_s` before it, and are down during it."""

    start_s: float
    duration_s: float
    nodes: tuple[int, ...]
    drain_s: float = 0.0
    cause: str = "maintenance"


Outage = Failures | Maintenance


class Ground(Protocol):
    """What an outage acts on."""

    env: simpy.Environment
    cluster: Cluster

    def lose(self, node: int, cause: str) -> bool:
        """Take a node down; False if it was already."""

    def restore(self, node: int, cause: str) -> None:
        """Bring a node back."""

    def drain(self, node: int, cause: str, undo: bool = False) -> None:
        """Let a node take no new jobs, or take them again."""

    def slow(self, node: int, factor: float, cause: str) -> None:
        """Let a node work at a factor of its speed; 1: as new."""

    def strike(self) -> None:
        """Take note of a failure, also of what is down already."""


def begin_outages(ground: Ground, outages: Sequence[Outage], seed: int) -> None:
    """Start the processes of all outages, each class with random numbers of its own."""
    seeds = np.random.SeedSequence(seed, spawn_key=(3,)).spawn(len(outages))
    for outage, own in zip(outages, seeds, strict=True):
        if isinstance(outage, Maintenance):
            ground.env.process(_maintain(ground, outage))
        else:
            ground.env.process(_strike(ground, outage, np.random.default_rng(own)))


def _strike(ground: Ground, spec: Failures, rng: np.random.Generator) -> Events:
    """Let components of a class fail, one after the other, for ever."""
    count, pick = components(ground.cluster, spec)
    if not count or not spec.rate:
        return
    while True:
        yield Happening(ground.env, FAIL, rng.exponential(1.0 / (count * spec.rate)))
        ground.strike()
        cause = spec.cause or spec.component
        repair = spec.repair_s if spec.repair == "fixed" else rng.exponential(spec.repair_s)
        for node in pick(int(rng.integers(count))):
            _hit(ground, spec, node, cause, repair)


def _hit(ground: Ground, spec: Failures, node: int, cause: str, repair: float) -> None:
    if spec.slowdown < 1.0:
        ground.slow(node, spec.slowdown, cause)
        Happening(ground.env, REPAIR, repair, lambda _: ground.slow(node, 1.0, "repair"))
    elif ground.lose(node, cause):
        Happening(ground.env, REPAIR, repair, lambda _: ground.restore(node, "repair"))


def components(cluster: Cluster, spec: Failures) -> tuple[int, Callable[[int], Iterable[int]]]:
    """Return how many components a class has, and the nodes that each takes along."""
    nodes = [i for i, n in enumerate(cluster.nodes) if spec.type in ("", n.type)]
    if spec.component == "leaf":
        leaves: dict[int, list[int]] = {}
        for i in nodes:
            leaves.setdefault(cluster.nodes[i].leaf, []).append(i)
        order = [leaves[leaf] for leaf in sorted(leaves)]
        return len(order), lambda component: order[component]
    if spec.component == "node":
        return len(nodes), lambda component: (nodes[component],)
    ends = np.cumsum([cluster.nodes[i].devices for i in nodes])
    total = int(ends[-1]) if len(ends) else 0
    return total, lambda device: (nodes[int(np.searchsorted(ends, device, side="right"))],)


def _maintain(ground: Ground, plan: Maintenance) -> Events:
    """Drain, take down, and bring back."""
    yield Happening(ground.env, FAIL, max(plan.start_s - plan.drain_s, 0.0))
    for node in plan.nodes:
        ground.drain(node, plan.cause)
    yield Happening(ground.env, FAIL, max(plan.start_s - ground.env.now, 0.0))
    lost = [node for node in plan.nodes if ground.lose(node, plan.cause)]
    yield Happening(ground.env, REPAIR, plan.duration_s)
    for node in plan.nodes:
        if node in lost:
            ground.restore(node, plan.cause)
        ground.drain(node, plan.cause, undo=True)
