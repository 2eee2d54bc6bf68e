"""The work of a job: its phases, how fast each goes, and undisturbed stretches of it in closed form."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ersatz.sim.job.checkpoint import CheckpointCost
from ersatz.sim.job.conditions import ConditionPlan
from ersatz.sim.scenario.scenario import JobSpec, Scenario

StepWithout = Callable[[tuple[int, ...]], float]  # nodes lost of each pool -> seconds of a step


@dataclass(frozen=True, slots=True)
class Work:
    """The work of one phase of a job: steps that are alike."""

    steps: int
    step_s: float
    degraded_step_s: StepWithout | None = None
    conditions: tuple[ConditionPlan, ...] = ()
    anew: bool = False  # the job saves and starts again before it

    @property
    def seconds(self) -> float:
        """Time of all steps at full speed."""
        return self.steps * self.step_s

    def slowdown(self, lost: tuple[int, ...]) -> float:
        """Return step time / full step time without nodes; infinite when no step can be made."""
        if not any(lost) or self.degraded_step_s is None:
            return 1.0
        # fewer nodes are no gain: they were paid for
        return max(self.degraded_step_s(lost) / self.step_s, 1.0)


def step_count(scenario: Scenario) -> int:
    """Return the steps in which a phase processes its tokens."""
    training = scenario.training
    return math.ceil(training.tokens / (training.global_batch * training.sequence_length))


def starts_anew(before: Scenario, after: Scenario) -> bool:
    """Tell whether a job must be started again for its next phase: only a batch changes while it runs."""
    kept = ("sequence_length", "micro_batch")
    same = all(getattr(before.training, key) == getattr(after.training, key) for key in kept)
    return not same or before.parallel != after.parallel


@dataclass(frozen=True, slots=True)
class JobPlan:
    """Everything that the replicas of a job share."""

    spec: JobSpec
    phases: tuple[Work, ...]
    interval_s: float
    cost: CheckpointCost
    nodes: tuple[int, ...]  # of each pool
    spares: tuple[int, ...]  # nodes of each pool
    rates: dict[str, float]
    shares_upto: dict[str, tuple[float, ...]]  # of causes that take a node: pools' shares, added up
    conditions: tuple[ConditionPlan, ...]  # at their worst in any phase
    ends: tuple[float, ...]  # productive time at full speed until the end of each phase

    @property
    def work_s(self) -> float:
        """Productive time of the whole job at full speed."""
        return self.ends[-1]

    def phase_at(self, done: float) -> int:
        """Return the place of the phase in which a job is that has done so much."""
        return min(bisect_right(self.ends, done), len(self.ends) - 1)


def phase_ends(phases: Sequence[Work]) -> tuple[float, ...]:
    """Return the work until the end of each phase."""
    return tuple(accumulate(phase.seconds for phase in phases))


def worst_conditions(phases: Sequence[Work]) -> tuple[ConditionPlan, ...]:
    """Return each condition as it is in the phase that it slows most."""
    columns = zip(*(phase.conditions for phase in phases), strict=True)
    return tuple(max(column, key=lambda c: (c.interrupts, c.slowdown)) for column in columns)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Undisturbed cycles of work and checkpoint from a given state, in closed form."""

    plan: JobPlan
    done: float  # work at the start
    saved: float  # work at the latest checkpoint before the start
    slowdown: float
    end: float  # work at the end of the phase

    @property
    def _cycle(self) -> tuple[float, float, float]:
        """Seconds of work in a cycle, of the whole cycle, and how far into one the start is."""
        work = self.plan.interval_s * self.slowdown
        return work, work + self.plan.cost.stop_s, (self.done - self.saved) * self.slowdown

    @property
    def _cycles(self) -> int:
        """Checkpoints until the end; at the very end nothing is saved."""
        return max(math.ceil((self.end - self.saved) / self.plan.interval_s) - 1, 0)

    def seconds_to_end(self) -> float:
        """Return the time until all work is done."""
        _, _, into = self._cycle
        return (self.end - self.saved) * self.slowdown + self._cycles * self.plan.cost.stop_s - into

    def after(self, elapsed: float) -> tuple[float, float, float, float]:
        """Return (work done, seconds stopped, work saved, work safe) after `elapsed` seconds."""
        work_s, cycle, into = self._cycle
        interval, late = self.plan.interval_s, self.plan.cost.durable_after_s
        whole = elapsed >= self.seconds_to_end()
        cycles = self._cycles if whole else int((elapsed + into) // cycle)
        durable = min(int(max(elapsed + into - late, 0.0) // cycle), cycles)
        saved, safe = self.saved + cycles * interval, self.saved + durable * interval
        if whole:
            return self.end, cycles * self.plan.cost.stop_s, saved, safe
        rest = elapsed + into - cycles * cycle
        done = saved + min(rest, work_s) / self.slowdown
        stopped = cycles * self.plan.cost.stop_s + max(rest - work_s, 0.0)
        return min(done, self.end), stopped, saved, safe
