"""Which ranks are slow, and how the slow ones stay in a job that is cut down or divided.

Ranks are numbered over the whole job: those of several pools of replicas follow each other in the
order of the pools. What is drawn is drawn once for the whole job, so that every question about the
job (a step, a step with fewer nodes, one under a condition) sees the same slow devices. A node that
is lost is taken not to be the one with a slow device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ersatz.sim.plan.layout import rank_shape
from ersatz.sim.scenario.scenario import Parallel, Scenario, Stragglers
from ersatz.sim.step.program import Program
from ersatz.sim.step.vector import ONE, Array


def named_stragglers(scenario: Scenario) -> Scenario:
    """Return the scenario with its slow devices drawn: each has a rank and a slowdown."""
    spec = scenario.stragglers
    if not (spec.fraction and spec.slowdown):
        return scenario
    drawn: dict[int, float] = {}
    first = 0
    for stream, count in enumerate(_programs(scenario)):
        rng = np.random.default_rng(np.random.SeedSequence(scenario.seed, spawn_key=(1, stream)))
        slow = np.flatnonzero(rng.random(count) < spec.fraction)
        drawn |= {first + int(rank): spec.slowdown for rank in slow}
        first += count
    return replace(scenario, stragglers=Stragglers(ranks={**drawn, **spec.ranks}))


def _programs(scenario: Scenario) -> list[int]:
    """Return the ranks of each program: one for all, or one for each pool of replicas."""
    if len(scenario.pools) > 1 and scenario.parallel.mixed == "replicas":
        return [pool.devices for pool in scenario.pools]
    return [scenario.parallel.world]


def stragglers_between(ranks: Mapping[int, float], first: int, count: int) -> Stragglers:
    """Return the slow ranks among `count` from `first`, counted from there."""
    return Stragglers(ranks={r - first: s for r, s in ranks.items() if first <= r < first + count})


def kept_stragglers(ranks: Mapping[int, float], before: Parallel, after: Parallel) -> Stragglers:
    """Return the slow ranks of a layout whose data-parallel degree has shrunk: none is let go."""
    kept: dict[int, float] = {}
    old, new = (p.tp * p.cp * p.dp for p in (before, after))
    for rank, slowdown in ranks.items():
        stage, place = divmod(rank, old)
        moved = stage * new + place % new
        kept[moved] = max(slowdown, kept.get(moved, 0.0))
    return Stragglers(ranks=kept)


def slowness(scenario: Scenario, program: Program) -> list[Array] | None:
    """Return the factor on the times of every rank, by stage; None when all are alike.

    The scenario's stragglers have names (`named_stragglers`).
    """
    ranks = scenario.stragglers.ranks
    if not ranks:
        return None
    shape = rank_shape(scenario.parallel)
    factors = np.ones(int(np.prod(shape)) * program.stages)
    for rank, slowdown in ranks.items():
        factors[rank] = 1.0 + slowdown
    rows = factors.reshape(program.stages, -1)
    return [row.reshape(shape, order="F") if (row != 1).any() else ONE for row in rows]
