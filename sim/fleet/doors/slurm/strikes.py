"""Failures and maintenance for a real Slurm: when which node goes down, comes back, or is drained.

The same random streams as in the fleet give the same times, without a fleet: the outages act on a
diary. Slow nodes have no place in it; a sleeping job is as fast on any node.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
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
    done: bool = False  # by the one before it

    def orders(self) -> list[str]:
        """Return the arguments of `scontrol` that do it, none where it is done already."""
        if self.done:
            return []
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
    down: Counter[int] = field(default_factory=Counter)  # node -> causes for which it is
    drained: Counter[int] = field(default_factory=Counter)

    def _write(self, action: Action, node: int, cause: str) -> None:
        self.written.append(Strike(self.env.now, action, node, cause))

    def lose(self, node: int, cause: str, *, beside: bool = False) -> bool:
        """Take a node down; False if it was already, unless it is held down `beside` that."""
        if self.down[node] and not beside:
            return False
        self.down[node] += 1
        if self.down[node] == 1:
            self._write("down", node, cause)
        return True

    def restore(self, node: int, cause: str) -> None:
        """Bring a node back; Slurm would let it take jobs again, also where it was drained."""
        self.down[node] -= 1
        if self.down[node]:
            return
        self._write("up", node, cause)
        if self.drained[node]:
            self._write("drain", node, cause)

    def drain(self, node: int, cause: str, undo: bool = False) -> bool:
        """Let a node take no new jobs, or take them again with the last that drained it."""
        self.drained[node] += -1 if undo else 1
        if self.drained[node] == (0 if undo else 1):
            self._write("undrain" if undo else "drain", node, cause)
        return True

    def slow(self, node: int, factor: float, cause: str, undo: bool = False) -> None:
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
        yield from _at_once(diary.written)
        diary.written.clear()


def _at_once(written: Sequence[Strike]) -> list[Strike]:
    """Return what happens in one instant without drains that are undone in it.

    Slurm's `resume` ends a drain, too; to drain and undrain afterwards would take virtual minutes, in
    which jobs start.
    """
    undrained = {s.node for s in written if s.action == "undrain"}
    back = {s.node for s in written if s.action == "up"} & undrained
    return [replace(s, done=s.action == "undrain" and s.node in back) for s in written
            if not (s.action == "drain" and s.node in back)]  # fmt: skip
