"""Failures and maintenance for a real Slurm: when which node goes down, comes back, or is drained.

The same random streams as in the fleet give the same times, without a fleet: the outages act on a
diary. Slow nodes have no place in it; a sleeping job is as fast on any node.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import simpy

from ersatz.sim.fleet.cluster import Cluster
from ersatz.sim.fleet.doors.slurm.config import node_name, word
from ersatz.sim.fleet.engine.outages import Outage, begin_outages

Action = Literal["down", "up", "drain", "undrain"]
_STATES: dict[Action, str] = {
    "down": "down",
    "up": "resume",
    "drain": "drain",
    "undrain": "undrain",
}


@dataclass(frozen=True, slots=True)
class Strike:
    """What is to happen to a node."""

    at_s: float
    action: Action
    node: int
    cause: str

    def orders(self) -> list[str]:
        """Return the arguments of `scontrol` that do it."""
        order = ["update", f"nodename={node_name(self.node)}", f"state={_STATES[self.action]}"]
        return [*order, f"reason={word(self.cause)}"] if self.action in ("down", "drain") else order


@dataclass(frozen=True, slots=True)
class Struck:
    """A strike that Slurm has carried out between two moments of its clock, in whole seconds."""

    strike: Strike
    from_s: float
    to_s: float


@dataclass(slots=True)
class _Diary:
    """Takes down what outages do."""

    env: simpy.Environment
    cluster: Cluster
    written: list[Strike] = field(default_factory=list)
    down: set[int] = field(default_factory=set)
    drained: set[int] = field(default_factory=set)

    def _write(self, action: Action, node: int, cause: str) -> None:
        self.written.append(Strike(self.env.now, action, node, cause))

    def lose(self, node: int, cause: str) -> bool:
        """Take a node down; False if it was already."""
        if node in self.down:
            return False
        self.down.add(node)
        self._write("down", node, cause)
        return True

    def restore(self, node: int, cause: str) -> None:
        """Bring a node back; Slurm would let it take jobs again, also where it was drained."""
        self.down.discard(node)
        self._write("up", node, cause)
        if node in self.drained:
            self._write("drain", node, cause)

    def drain(self, node: int, cause: str, undo: bool = False) -> None:
        """Let a node take no new jobs, or take them again."""
        if (node in self.drained) != undo:
            return
        (self.drained.discard if undo else self.drained.add)(node)
        self._write("undrain" if undo else "drain", node, cause)

    def slow(self, node: int, factor: float, cause: str) -> None:
        """Nothing: see the head of this module."""

    def strike(self) -> None:
        """Nothing: who reads the diary stops when the run does."""


def strikes(cluster: Cluster, outages: Sequence[Outage], seed: int) -> Iterator[Strike]:
    """Yield what happens to nodes in the order of time, for ever if failures do not end."""
    env = simpy.Environment()
    diary = _Diary(env, cluster)
    begin_outages(diary, outages, seed)
    while env.peek() < math.inf:
        env.step()
        yield from diary.written
        diary.written.clear()
