"""The reference for L3: the program as SimPy processes whose transfers share links.

Nothing is common with `ersatz.sim.step.coupled` but the program: streams and hosts are those of the oracle
(L4), speeds come from the array solver `max_min_rates`, and every change of who moves data is an event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import simpy

from ersatz.device_models.networks.sharing import NO_LINK, max_min_rates
from ersatz.sim.step.oracle import Events, OracleStep, Rank, RunningOp
from ersatz.sim.step.program import Op, Program
from ersatz.sim.step.vector import alike


@dataclass(slots=True, eq=False)
class Transfer:
    """Data on its way."""

    uses: list[tuple[tuple[int, str], float]]
    left: float  # seconds at full speed
    done: simpy.Event
    speed: float = 0.0


@dataclass(slots=True, eq=False)
class Links:
    """Everything that moves at the moment, and how fast."""

    env: simpy.Environment
    moving: list[Transfer] = field(default_factory=list)
    since: float = 0.0
    changes: int = 0

    def move(self, uses: list[tuple[tuple[int, str], float]], seconds: float) -> simpy.Event:
        """Start a transfer; returns the event of its end."""
        transfer = Transfer(uses, seconds, self.env.event())
        self._advance()
        self.moving.append(transfer)
        self._share()
        return transfer.done

    def _advance(self) -> None:
        for transfer in self.moving:
            transfer.left -= transfer.speed * (self.env.now - self.since)
        self.since = self.env.now

    def _share(self) -> None:
        self.changes += 1
        if not self.moving:
            return
        links = sorted({link for t in self.moving for link, _ in t.uses})
        hops = max(len(t.uses) for t in self.moving)
        routes = np.full((len(self.moving), hops), NO_LINK)
        uses = np.zeros(routes.shape)
        for row, transfer in enumerate(self.moving):
            for column, (link, share) in enumerate(transfer.uses):
                routes[row, column], uses[row, column] = links.index(link), share
        speeds = max_min_rates(
            routes, np.ones(len(links)), bounds=np.ones(len(self.moving)), uses=uses
        )
        for transfer, speed in zip(self.moving, speeds.tolist(), strict=True):
            transfer.speed = speed
        self.env.process(self._wait(self.changes))

    def _wait(self, change: int) -> Events:
        first = min(self.moving, key=lambda t: t.left / t.speed)
        yield self.env.timeout(max(first.left / first.speed, 0.0))
        if change == self.changes:
            self._advance()
            self.moving.remove(first)
            first.done.succeed()
            self._share()


@dataclass(slots=True, eq=False)
class CoupledOracle(OracleStep):
    """The oracle with links that transfers share; programs of one rank per stage."""

    links: Links = field(init=False)

    def __post_init__(self) -> None:
        self.links = Links(self.env)

    def _stream(self, rank: Rank, ops: Sequence[RunningOp]) -> Events:
        for running in ops:
            yield from running.waits
            for work, issued in zip(running.op.work, running.issued, strict=True):
                yield issued
                if running.op.uses and work.seconds:
                    yield self.links.move(self._links(rank[0], running.op), work.seconds)
                else:
                    yield self.env.timeout(work.seconds)
            running.done.succeed()

    def _links(self, stage: int, op: Op) -> list[tuple[tuple[int, str], float]]:
        target = (stage + op.to) % self.program.stages
        return [((target if kind == "in" else stage, kind), share) for kind, share in op.uses]


def coupled_oracle(program: Program) -> float:
    """Return the duration of a step of one rank per stage, links shared."""
    return CoupledOracle(program, alike(program)).run()
