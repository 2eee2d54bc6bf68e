"""Conditions of the network that come and go: while one lasts, steps take longer or none can be made.

Each condition begins as a Poisson process and lasts a fixed time; while several last, the worst one
counts. A condition under which no step can be made stops the job like a failure: work since the last
safe checkpoint is lost, and the job starts again when the condition is over. One that takes a network
card away stops the job, too: it starts again at once, and the card's devices share a neighbour's until
the condition is over. Not modelled: a condition that begins again while it lasts, the restart that takes
a card back, and parts that break for good (those are `failures`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import simpy

from ersatz.sim.errors import InfeasibleError
from ersatz.sim.plan.network import dead_cards
from ersatz.sim.scenario.scenario import Condition, FabricSpec, Scenario

Events = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True)
class ConditionPlan:
    """A condition with what it does to the job."""

    name: str
    rate: float  # per second
    duration_s: float
    slowdown: float  # step time / full step time; infinite when no step can be made
    restarts: bool = False  # it takes a card away: the job starts again without it

    @property
    def interrupts(self) -> bool:
        """Whether the job stops when it begins."""
        return self.restarts or self.slowdown == math.inf


@dataclass(slots=True)
class Conditions:
    """The conditions of one replica that last at the moment."""

    lasting: Counter[str] = field(default_factory=Counter)
    slowdowns: Mapping[str, float] = field(default_factory=dict)

    @property
    def slowdown(self) -> float:
        """The factor of the worst one; 1 when all is well."""
        return max([1.0, *(self.slowdowns[name] for name, n in self.lasting.items() if n)])

    def stopped_by(self, plan: ConditionPlan) -> str:
        """Return the name of a condition that stops the job as it is now; of others nothing."""
        return plan.name if plan.restarts or self.slowdowns[plan.name] == math.inf else ""

    @property
    def stops(self) -> bool:
        """Whether no step can be made."""
        return self.slowdown == math.inf


def plan_conditions(
    scenario: Scenario, step_s: float, step_seconds: Callable[[Scenario], float]
) -> tuple[ConditionPlan, ...]:
    """Ask the step engine once for each condition of a job."""
    plans = []
    for condition in scenario.job.conditions:
        worse = _under(scenario, condition)
        plans.append(ConditionPlan(
            condition.name, condition.rate, condition.duration_s,
            _slowdown(worse, step_s, step_seconds), restarts=dead_cards(worse) > dead_cards(scenario),
        ))  # fmt: skip
    return tuple(plans)


def _under(scenario: Scenario, condition: Condition) -> Scenario:
    """Return the job while a condition lasts."""
    fabric = scenario.fabric or FabricSpec()
    worse = replace(
        fabric,
        faults=(*fabric.faults, *condition.faults),
        background=max(fabric.background, condition.background),
    )
    return replace(scenario, fabric=worse)


def _slowdown(worse: Scenario, step_s: float, step_seconds: Callable[[Scenario], float]) -> float:
    try:
        return max(step_seconds(worse) / step_s, 1.0)
    except InfeasibleError:
        return math.inf


def come_and_go(
    env: simpy.Environment, plan: ConditionPlan, now: Conditions, rng: np.random.Generator,
    changed: Callable[[str], bool],
) -> Events:  # fmt: skip
    """Let a condition begin and end until the job is over; `changed` tells whether it goes on.

    It is told the name when the condition stops the job, and nothing when only the pace changes.
    """
    while True:
        yield env.timeout(rng.exponential(1.0 / plan.rate))
        now.lasting[plan.name] += 1
        if not changed(now.stopped_by(plan)):
            return
        yield env.timeout(plan.duration_s)
        now.lasting[plan.name] -= 1
        if not changed(""):
            return


def condition_streams(seed: int, replica: int, count: int) -> Sequence[np.random.Generator]:
    """Return one independent generator for each condition of one replica of a job."""
    root = np.random.SeedSequence(seed, spawn_key=(5, replica))
    return [np.random.default_rng(child) for child in root.spawn(count)]
