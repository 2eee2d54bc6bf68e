"""A whole training job under SimPy: steps in closed form, interruptions as events.

Between events the job advances in closed form; a failure interrupts it, the work since the last
safe checkpoint is lost, and detection, a spare (or waiting, or going on with fewer replicas),
restart and loading follow; a failure in the meantime starts that again. A node that fails is replaced by
a spare of its own pool. When the network gets worse or better the job goes on at another pace; to take
repaired nodes back it saves and starts anew, as soon as they make another replica. Between phases with
another length of sequences or layout it does so, too; a batch changes while it runs. Many independent
replicas give a distribution. Not modelled: failures of idle spares, a queue for the storage.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from ersatz.sim.errors import InfeasibleError, InputError, Problem
from ersatz.sim.job.checkpoint import (
    checkpoint_cost,
    chosen_interval,
    daly_interval,
)
from ersatz.sim.job.conditions import ConditionPlan, Conditions, come_and_go, condition_streams
from ersatz.sim.job.failures import (
    CAUSES,
    TAKES_NODE,
    cluster_failure_rates,
    failure_times,
    pool_shares_upto,
    pool_stream,
    streams,
)
from ersatz.sim.job.work import (
    JobPlan,
    StepWithout,
    Stretch,
    Work,
    phase_ends,
    step_count,
    worst_conditions,
)
from ersatz.sim.records import JobResult
from ersatz.sim.scenario.scenario import Scenario

Events = Generator[simpy.Event, Any, None]
LOSSES = ("rework", "detection", "restart", "checkpoint", "degraded", "evaluation", "maintenance",
          "waiting")  # fmt: skip
MOST_INTERRUPTIONS = 200_000  # of one replica: beyond it the job makes no headway
MOST_TURNS = 500_000  # interruptions, pauses, changes of pace, of all draws: some 8 s
DRAW_TURNS = 60  # that take as long as to set up a draw
LEAST_DRAWS = 4


@dataclass(slots=True)
class Replica:
    """One draw of the job; all times in seconds."""

    plan: JobPlan
    env: simpy.Environment
    rngs: dict[str, np.random.Generator]
    pool_rng: np.random.Generator
    done: float = 0.0  # productive work
    saved: float = 0.0  # work at the latest checkpoint
    safe: float = 0.0  # work that a failure cannot take
    spares: list[int] = field(default_factory=list)  # nodes of each pool
    missing: list[int] = field(default_factory=list)  # nodes of each pool that nothing replaces
    running: tuple[int, ...] = ()  # nodes that were missing when the job was last started
    phase: int = 0
    lost: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    causes: Counter[str] = field(default_factory=Counter)
    turns: int = DRAW_TURNS  # what has happened, for how long it takes to walk
    process: simpy.Process | None = None
    conditions: Conditions = field(default_factory=Conditions)
    working: bool = False
    better: simpy.Event | None = None  # what a job that waits waits for
    next_evaluation: float = math.inf
    next_maintenance: float = math.inf

    def run(self) -> Events:
        """Work until all is done; failures arrive as interrupts."""
        spec = self.plan.spec
        self.spares = list(self.plan.spares)
        self.missing = [0] * len(self.spares)
        self.running = tuple(self.missing)
        self.next_evaluation = spec.evaluation.every_s or math.inf
        self.next_maintenance = spec.maintenance.every_s or math.inf
        while self.done < self.plan.work_s:
            try:
                yield from self._work()
            except simpy.Interrupt as interrupt:
                yield from self._recover(str(interrupt.cause))

    def _work(self) -> Events:
        """Work and save in cycles until the next pause or the end: one event, whatever happens."""
        if self.plan.phase_at(self.done) != self.phase:
            yield from self._next_phase()
        if self._gains():
            yield from self._take_back()
        pace = self._slowdown(self.running) * self.conditions.slowdown
        stretch = Stretch(self.plan, self.done, self.saved, pace, self.plan.ends[self.phase])
        pause = min(self.next_evaluation, self.next_maintenance)
        start = self.env.now
        planned = elapsed = min(stretch.seconds_to_end(), max(pause - start, 0.0))
        self.working = True
        try:
            yield self.env.timeout(planned)
        except simpy.Interrupt as interrupt:
            elapsed = min(self.env.now - start, planned)
            if interrupt.cause:
                raise
        finally:
            self.working = False
            self._advance(stretch, elapsed)
        if self.done < self.plan.work_s and elapsed == planned:
            yield from self._pause()

    def _gains(self) -> bool:
        """Whether the nodes that are back make the job faster than it was last started."""
        back = tuple(self.missing)
        return back != self.running and self._slowdown(back) < self._slowdown(self.running)

    def _slowdown(self, lost: tuple[int, ...]) -> float:
        return self.plan.phases[self.phase].slowdown(lost)

    def _next_phase(self) -> Events:
        """Go on to the next phase, which may need a new start."""
        self.turn_to(self.phase + 1)
        while self._waits or self.conditions.stops:
            yield from self._wait()
        if self.plan.phases[self.phase].anew:
            yield from self._take_back()

    def turn_to(self, phase: int) -> None:
        """Be in a phase: steps and what slows them are its own."""
        self.phase = phase
        slowed = self.plan.phases[phase].conditions
        self.conditions.slowdowns = {c.name: c.slowdown for c in slowed}

    def _take_back(self) -> Events:
        """Save, and start anew on all nodes that are there; nothing is lost."""
        cost = self.plan.cost
        yield from self._spend("checkpoint", cost.stop_s + cost.durable_after_s)
        self.saved = self.safe = self.done
        yield from self._start()

    def _start(self) -> Events:
        """Start the job on the nodes that are there."""
        yield from self._spend("restart", self.plan.spec.restart_s + self.plan.cost.load_s)
        self.running = tuple(self.missing)

    def _advance(self, stretch: Stretch, elapsed: float) -> None:
        """Count what a stretch of `elapsed` seconds has brought."""
        work, stopped, saved, safe = stretch.after(elapsed)
        self.lost["degraded"] += elapsed - stopped - (work - self.done)
        self.lost["checkpoint"] += stopped
        self.done, self.saved = work, saved
        self.safe = max(self.safe, safe)

    def _pause(self) -> Events:
        self.turns += 1
        spec = self.plan.spec
        if self.env.now >= self.next_evaluation:
            self.next_evaluation += spec.evaluation.every_s
            yield from self._spend("evaluation", spec.evaluation.duration_s)
        if self.env.now >= self.next_maintenance:
            self.next_maintenance += spec.maintenance.every_s
            yield from self._spend("maintenance", spec.maintenance.duration_s)

    def _spend(self, cause: str, seconds: float) -> Events:
        """Let time pass for a cause, counted also when it is interrupted."""
        start = self.env.now
        try:
            yield self.env.timeout(seconds)
        finally:
            self.lost[cause] += self.env.now - start

    def _recover(self, cause: str) -> Events:
        """Lose what is not safe, then detect, replace, restart and load; start over if it fails."""
        while cause:
            self._fall_back(cause)
            self.turn_to(self.plan.phase_at(self.done))
            spec = self.plan.spec
            try:
                yield from self._spend("detection", spec.detection_s)
                while self._waits or self.conditions.stops:
                    yield from self._wait()
                yield from self._start()
                cause = ""
            except simpy.Interrupt as interrupt:
                cause = str(interrupt.cause)

    @property
    def _waits(self) -> bool:
        """Whether too few nodes are there to go on."""
        if self.plan.spec.on_loss == "wait":
            return any(self.missing)
        return self._slowdown(tuple(self.missing)) == math.inf

    def _wait(self) -> Events:
        """Wait until something is repaired or over."""
        start, self.better = self.env.now, self.env.event()
        try:
            yield self.better
        finally:
            self.lost["waiting"] += self.env.now - start
            self.better = None

    def pace_changed(self, stopped_by: str = "") -> bool:
        """Let the job notice that its pace changes, or that it cannot go on; tells whether it runs."""
        if self.process is None or not self.process.is_alive:
            return False
        self.turns += 1
        if stopped_by or self.working:
            self.process.interrupt(stopped_by)
        elif self.better and not self.better.triggered:
            self.better.succeed()
        return True

    def _fall_back(self, cause: str) -> None:
        self.turns += 1
        self.causes[cause] += 1
        if self.causes.total() > MOST_INTERRUPTIONS:
            raise InfeasibleError(
                "the job makes no headway: it is interrupted more often than it can recover"
            )
        self.lost["rework"] += self.done - self.safe
        self.done = self.saved = self.safe
        if cause in TAKES_NODE:
            self._replace_node(self._pool_of(cause))

    def _pool_of(self, cause: str) -> int:
        """Draw the pool that loses a node."""
        shares = self.plan.shares_upto[cause]
        return bisect_right(shares, self.pool_rng.random()) if len(shares) > 1 else 0

    def _replace_node(self, pool: int) -> None:
        if self.spares[pool]:
            self.spares[pool] -= 1
        elif self.missing[pool] < self.plan.nodes[pool]:
            self.missing[pool] += 1
        else:
            return  # there is no node left that could fail
        self.env.process(self._repair(pool))

    def _repair(self, pool: int) -> Events:
        yield self.env.timeout(self.plan.spec.failures.device_repair_s)
        if self.missing[pool]:
            self.missing[pool] -= 1
            if not self.working or self._gains():
                self.pace_changed()
        else:
            self.spares[pool] += 1

    def strike(self, cause: str) -> Events:
        """Interrupt the job whenever a cause strikes, until the job is over."""
        for time in failure_times(
            self.plan.rates[cause], self.plan.spec.failures, self.rngs[cause]
        ):
            yield self.env.timeout(max(time - self.env.now, 0.0))
            if self.process is None or not self.process.is_alive:
                return
            self.process.interrupt(cause)


def run_replica(plan: JobPlan, seed: int, number: int) -> tuple[float, Replica]:
    """Run one draw of a job; returns (wall time, its record)."""
    env = simpy.Environment()
    replica = Replica(plan, env, streams(seed, number), pool_stream(seed, number))
    process = replica.process = env.process(replica.run())
    for cause in CAUSES:
        env.process(replica.strike(cause))
    replica.turn_to(0)
    rngs = condition_streams(seed, number, len(plan.conditions))
    for condition, rng in zip(plan.conditions, rngs, strict=True):
        env.process(come_and_go(env, condition, replica.conditions, rng, replica.pace_changed))
    env.run(until=process)
    return float(env.now), replica


def simulate_job(
    scenario: Scenario,
    step_s: float,
    *,
    degraded_step_s: StepWithout | None = None,
    conditions: tuple[ConditionPlan, ...] = (),
    model_params: float,
) -> JobResult:
    """Simulate a whole job of `scenario.training.tokens` whose steps are all alike.

    `step_s` is the duration of a step, `degraded_step_s(lost)` that with so many nodes of each pool
    lost (infinite when none can be made), `conditions` what slows or stops the job now and then;
    `model_params` are the weights that a checkpoint saves. Raises as `simulate_phases` does.
    """
    work = Work(step_count(scenario), step_s, degraded_step_s, conditions)
    return simulate_phases(scenario, (work,), model_params)


def simulate_phases(scenario: Scenario, phases: tuple[Work, ...], model_params: float) -> JobResult:
    """Simulate a whole job, phase by phase, and summarise its replicas.

    Raises `InfeasibleError` when failures leave no headway, `InputError` when a single draw holds more
    failures, pauses and changes than can be walked. Fewer draws than were asked for are made where each
    holds very many; `replicas` of the result is how many.
    """
    plan = _plan(scenario, phases, model_params)
    _check_turns(scenario, plan)
    return _summary(scenario, plan, _draws(scenario, plan))


def _draws(scenario: Scenario, plan: JobPlan) -> list[tuple[float, Replica]]:
    """Draw the job as often as asked, or until what happened in all draws is enough."""
    runs: list[tuple[float, Replica]] = []
    turns = 0
    while len(runs) < scenario.job.replicas and (turns < MOST_TURNS or len(runs) < LEAST_DRAWS):
        runs.append(run_replica(plan, scenario.seed, len(runs)))
        turns += runs[-1][1].turns
    return runs


def _check_turns(scenario: Scenario, plan: JobPlan) -> None:
    """Raise `InputError` where a draw holds more failures, pauses and conditions than can be walked."""
    job = scenario.job
    rate = math.fsum(plan.rates.values()) + math.fsum(2 * c.rate for c in job.conditions)
    rate += math.fsum(
        1 / pause.every_s for pause in (job.evaluation, job.maintenance) if pause.every_s
    )
    if (each := plan.work_s * rate) > MOST_TURNS:
        words = (f"expected at most {MOST_TURNS:,} failures, pauses and conditions of the network in one"
                 f" job; there would be some {each:,.0f}")  # fmt: skip
        raise InputError([Problem(scenario.name, 0, 0, "job", "", words)])


def _plan(scenario: Scenario, phases: tuple[Work, ...], params: float) -> JobPlan:
    spec, conditions = scenario.job, worst_conditions(phases)
    rates = dict(cluster_failure_rates(scenario.pools, spec.failures))
    nodes = tuple(pool.nodes for pool in scenario.pools)
    cost = checkpoint_cost(spec.checkpoint, params, sum(nodes))
    between = mean_time_between(rates, conditions)
    longest = max(phase.step_s for phase in phases)
    ends = phase_ends(phases)
    interval = min(chosen_interval(spec.checkpoint, cost, between, longest), ends[-1])
    shares = pool_shares_upto(scenario.pools, spec.failures)
    return JobPlan(
        spec, phases, interval, cost, nodes, scenario.spares, rates, shares, conditions, ends
    )


def mean_time_between(rates: dict[str, float], conditions: tuple[ConditionPlan, ...] = ()) -> float:
    """Return the mean time between interruptions in seconds; infinite without any.

    Conditions of the network count where they interrupt the job.
    """
    total = math.fsum([*rates.values(), *(c.rate for c in conditions if c.interrupts)])
    return 1.0 / total if total else math.inf


def _summary(scenario: Scenario, plan: JobPlan, runs: list[tuple[float, Replica]]) -> JobResult:
    walls = np.array([wall for wall, _ in runs])
    spares = scenario.spare_devices
    count = len(runs)
    known = [*(c for c in CAUSES if plan.rates[c]), *(c.name for c in plan.conditions)]
    causes = {c: math.fsum(r.causes[c] for _, r in runs) / count for c in known}
    wall, between = float(walls.mean()), mean_time_between(plan.rates, plan.conditions)
    return JobResult(
        steps=sum(phase.steps for phase in plan.phases),
        wall_s=wall,
        wall_low80_s=float(np.quantile(walls, 0.1)),
        wall_high80_s=float(np.quantile(walls, 0.9)),
        productive_s=plan.work_s,
        device_hours=(scenario.devices + spares) * wall / 3600.0,
        goodput=plan.work_s / wall,
        interruptions=math.fsum(causes.values()),
        interruptions_by_cause=causes,
        lost_s={c: math.fsum(r.lost[c] for _, r in runs) / count for c in LOSSES},
        checkpoint_interval_s=plan.interval_s,
        optimal_interval_s=daly_interval(plan.cost.stop_s, between),
        mtbf_s=between,
        replicas=count,
    )
