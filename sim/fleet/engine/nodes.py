"""Which nodes are down, drained or slow, and since how many causes: what outages and drains act on.

A node is down until the last of the causes that keep it down is over, drained until the last who drained
it undrains it, and as slow as the slowest of its spells under way.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import simpy

from ersatz.sim.fleet.cluster import Cluster, Placement
from ersatz.sim.fleet.free import Free


class Tenancy(Protocol):
    """What stands on the nodes, and where it is noted what happens to them."""

    env: simpy.Environment
    cluster: Cluster
    free: Free

    def write(
        self, event: str, job: str = "", placement: Placement = (), node: int = -1,
        value: float = 0.0, detail: str = "",
    ) -> None:  # fmt: skip
        """Add a record to the log."""

    def tell(self) -> None:
        """Let the scheduler know of the latest record."""

    def leave(self, node: int, cause: str) -> None:
        """Let all that runs on a node fail."""

    def keep_pace(self, node: int, cause: str) -> None:
        """Let what runs on a node go on at the speed that the node has now."""


class Nodes:
    """The state of a fleet's nodes."""

    def __init__(self, fleet: Tenancy) -> None:
        self.fleet, self.env, self.cluster = fleet, fleet.env, fleet.cluster
        self.down: set[int] = set()
        self.drained: dict[int, Counter[str]] = {}  # node -> by whom, and how often at once
        self.slowed: dict[int, float] = {}
        self.strikes = 0  # failures since a job ended, also of what is down already
        self._drain_cause: dict[int, str] = {}  # the first of each node
        self._out: Counter[int] = Counter()  # causes for which a node is down
        self._spells: dict[int, list[float]] = {}  # factors of a node's slow spells under way

    def lose(self, node: int, cause: str, *, beside: bool = False) -> bool:
        """Take a node down with all that runs on it.

        A node that is down already is not struck again (False), but a planned outage is held
        `beside` what keeps it down: it is back when the last of these is over.
        """
        if node in self.down and not beside:
            return False
        self._out[node] += 1
        if node in self.down:
            return True
        self.down.add(node)
        self._note("down", node, cause)
        self.fleet.free.close(node)
        self.fleet.leave(node, cause)
        return True

    def restore(self, node: int, cause: str) -> None:
        """Bring a node back, once nothing keeps it down any more."""
        self._out[node] -= 1
        if self._out[node]:
            return
        self.down.discard(node)
        self._note("up", node, cause)
        if node not in self.drained:
            self.fleet.free.open(node)

    def drain(self, node: int, cause: str, undo: bool = False) -> bool:
        """Let a node take no new jobs, or (`undo`) take them again; False if `cause` had not drained it.

        Drains of several causes, or of one that overlaps with itself, end with the last of them.
        """
        held = self.drained.setdefault(node, Counter())
        if not undo:
            held[cause] += 1
            if held.total() == 1:
                self._drain_cause[node] = cause
                self._note("drain", node, cause)
                self.fleet.free.close(node)
            return True
        known = held[cause] > 0
        held[cause] -= known
        if held.total() == 0:
            del self.drained[node]
            if known:
                self._note("undrain", node, self._drain_cause.pop(node))
                if node not in self.down:
                    self.fleet.free.open(node)
        return known

    def slow(self, node: int, factor: float, cause: str, undo: bool = False) -> None:
        """Let a node work at a factor of its speed, and its jobs with it, or (`undo`) no longer.

        Of several spells at once the slowest counts.
        """
        spells = self._spells.setdefault(node, [])
        (spells.remove if undo else spells.append)(factor)
        factor = min(spells, default=1.0)
        if factor == self.slowed.get(node, 1.0):
            return
        self.slowed[node] = factor
        if factor == 1.0:
            del self.slowed[node]
        self._note("slow", node, cause, factor)
        self.fleet.keep_pace(node, cause)

    def strike(self) -> None:
        """Count the failures since a job ended: a run without `until` may otherwise never end."""
        self.strikes += 1

    def _note(self, event: str, node: int, cause: str, value: float = 0.0) -> None:
        self.fleet.write(event, node=node, value=value, detail=cause)
        self.fleet.tell()
