"""From a scenario to everything that `ersatz run` says: the one way through the clocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.device_models.networks.facts import network_power
from ersatz.sim.anchor.width import anchored_width
from ersatz.sim.errors import InfeasibleError, LayoutError
from ersatz.sim.invariants import check_run
from ersatz.sim.job.chance import job_chance
from ersatz.sim.job.checkpoint import saved_params
from ersatz.sim.job.conditions import plan_conditions
from ersatz.sim.job.cost import job_cost
from ersatz.sim.job.energy import job_energy
from ersatz.sim.job.job import simulate_phases
from ersatz.sim.job.work import StepWithout, Work, starts_anew, step_count
from ersatz.sim.plan.memory import least_capacity, plan_memory, remedies
from ersatz.sim.plan.remarks import network_remarks
from ersatz.sim.records import (
    Comparison,
    JobResult,
    MemoryResult,
    PhaseResult,
    RunResult,
    StepResult,
    wrong_metric,
)
from ersatz.sim.scenario.resolving.joint import other_reading
from ersatz.sim.scenario.scenario import Scenario, layout_words
from ersatz.sim.step.degraded import degraded_step_seconds, replicas_left
from ersatz.sim.step.longer import longer_remark
from ersatz.sim.step.step import (
    busy_share,
    shares_links,
    simulate_step,
    step_seconds,
    unshared,
)
from ersatz.sim.uncertainty.intervals import why_wide, with_interval


def run_case(
    scenario: Scenario, timer: Timer = calibrated_time, width: float | None = None
) -> RunResult:
    """Simulate one case: memory, step, job, energy and money.

    The job, its energy and its cost are None for a step study (no token budget); the cost is None
    without a cost section. `width` is the relative half width of the step's 80 % interval where
    the kernel times come from a device that was proved. Raises `InfeasibleError` when no step can
    be made at all, and `BrokenAnswerError` when the answer cannot be true.
    """
    for row in scenario.published:
        if words := wrong_metric(row.metric):
            raise ValueError(f"published: {row.metric!r}: {words}")
    parts, main = scenario.parts, scenario.main_phase
    anchored = anchored_width(parts[main], timer) if width is None else None
    if anchored:
        width = anchored[0]
    steps = [with_interval(part, simulate_step(part, timer), width) for part in parts]
    memories = [plan_memory(part, advise=False) for part in parts]
    fullest = min(range(len(parts)), key=lambda i: _room(memories[i]))
    step, memory = steps[main], memories[fullest]
    if memory.verdict != "fits":
        advice = _advice(parts[fullest], steps[fullest], timer)
        memory = replace(memory, advice=tuple(advice))
    job = energy = cost = None
    works: tuple[Work, ...] = ()
    if scenario.training.tokens:
        works = tuple(_works(parts, steps, timer))
        job = simulate_phases(scenario, works, saved_params(scenario.model))
        energy = job_energy(scenario, job, _busy(works, steps))
        cost = job_cost(scenario, job, energy) if scenario.cost else None
    chance = job_chance(scenario, step, job, cost) if job else None
    result = RunResult(
        name=scenario.name, step=step, memory=memory, job=job, cost=cost, energy=energy,
        published=(),
        assumptions=(
            *((anchored[1],) if anchored else (why_wide(scenario),) if width is None else ()),
            *network_remarks(scenario), *_joint_worth(scenario, step, timer),
            *longer_remark(parts[main]), *_job_remarks(scenario, job), *scenario.assumptions,
        ),
        phases=tuple(_phases(scenario, works, steps, memories)),
        sources=tuple(_sources(scenario)),
        chance=chance,
    )  # fmt: skip
    return check_run(_with_published(scenario, result), *_limits(scenario))


def _room(memory: MemoryResult) -> tuple[float, float]:
    """Return how surely a plan fits and how much of the device it leaves, both small where it is full."""
    return memory.fit_probability, 1.0 - memory.peak_bytes / memory.capacity_bytes


def _works(parts: Sequence[Scenario], steps: Sequence[StepResult], timer: Timer) -> Iterator[Work]:
    """Yield what the job does in each phase; the step engine is asked for steps that are slowed."""
    for before, part, step in zip((None, *parts), parts, steps, strict=False):
        weather = plan_conditions(part, step.duration_s, lambda worse: step_seconds(worse, timer))
        anew = before is not None and starts_anew(before, part)
        slowed = _degraded(part, step, timer)
        yield Work(step_count(part), step.duration_s, slowed, weather, anew)


def work_seconds(scenario: Scenario, step_s: float) -> float:
    """Return the time of a job's steps without stops, where one step of it takes `step_s`."""
    if not scenario.phases:
        t = scenario.training
        return t.tokens / (t.global_batch * t.sequence_length) * step_s
    return math.fsum(step_count(part) * step_seconds(part) for part in scenario.parts)


def _busy(works: Sequence[Work], steps: Sequence[StepResult]) -> float:
    """Return the share of all steps together during which the mean device is busy."""
    whole = math.fsum(work.seconds for work in works)
    return math.fsum(
        work.seconds / whole * busy_share(step) for work, step in zip(works, steps, strict=True)
    )


def _phases(
    scenario: Scenario, works: Sequence[Work], steps: Sequence[StepResult],
    memories: Sequence[MemoryResult],
) -> Iterator[PhaseResult]:  # fmt: skip
    """Yield the phases of a job that has several."""
    for phase, work, step, memory in zip(scenario.phases, works, steps, memories, strict=False):
        t = phase.training
        yield PhaseResult(
            phase.name, phase.ramp, t.tokens, work.steps, t.global_batch, t.sequence_length,
            layout_words(phase), step.duration_s, step.tokens_per_s_per_device, step.mfu,
            work.seconds, memory.peak_bytes, memory.verdict, work.anew,
        )  # fmt: skip


def _advice(scenario: Scenario, step: StepResult, timer: Timer) -> Iterator[str]:
    """Yield the smallest sets of changes with which a plan fits for sure, the quickest first.

    Where collectives share links, which takes seconds to follow, what a change does to the step is told
    from steps with links of their own.
    """
    timed, stopped = [], []
    longer, about = 1.0, ""
    if shares_links(scenario):
        longer, about = step.duration_s / step_seconds(unshared(scenario), timer), "about "
    for words, changed in remedies(scenario):
        try:
            timed.append((longer * step_seconds(unshared(changed), timer), words))
        except (InfeasibleError, LayoutError) as error:
            stopped.append(f"{words} (it would fit, but no step can be made: {error})")
    for seconds, words in sorted(timed):
        yield f"{words} (a step of {about}{seconds:.4g} s, {seconds / step.duration_s - 1:+.0%})"
    yield from stopped
    yield f"devices with at least {least_capacity(scenario) / 2**30:.0f} GiB"


def _limits(scenario: Scenario) -> tuple[float, float]:
    """Return the highest matrix rate of all devices in any format, and the bytes of the weights."""
    fastest = math.fsum(max(p.node.device.matrix_peak.values()) * p.devices for p in scenario.pools)
    return fastest, scenario.model.params() * DTYPE_BYTES[scenario.training.precision]


def _degraded(scenario: Scenario, step: StepResult, timer: Timer) -> StepWithout:
    """Ask the step engine once per number of replicas that lost nodes leave."""
    known = {replicas_left(scenario, [0] * len(scenario.pools)): step.duration_s}

    @cache
    def seconds(lost: tuple[int, ...]) -> float:
        left = replicas_left(scenario, lost)
        if left not in known:
            known[left] = degraded_step_seconds(scenario, lost, timer)
        return known[left]

    return seconds


def _joint_worth(scenario: Scenario, step: StepResult, timer: Timer) -> Iterator[str]:
    """Say what the step would be if the pools were joined the other way."""
    joint = scenario.joint
    if joint is None or not joint.assumed:
        return
    other = other_reading(joint)
    try:
        seconds = step_seconds(replace(scenario, joint=other), timer)
    except InfeasibleError as error:
        yield f"cluster.joint.path {other.path} instead: no step can be made ({error})"
        return
    yield (
        f"cluster.joint.path {other.path} instead of {joint.path}: a step of {seconds:.4g} s, not"
        f" {step.duration_s:.4g} s ({seconds / step.duration_s - 1:+.1%})"
    )


def _job_remarks(scenario: Scenario, job: JobResult | None) -> Iterator[str]:
    """Say what of the job was not taken as it was asked for, or is not counted."""
    if job is None:
        return
    if job.replicas < scenario.job.replicas:
        yield (
            f"job.replicas: {job.replicas:,} draws, not {scenario.job.replicas:,}: with these as many"
            " failures, pauses and conditions of the network are walked as take some seconds"
        )
    wanted = scenario.job.checkpoint.interval_s
    if wanted and job.checkpoint_interval_s > wanted:
        yield (
            f"job.checkpoint.interval of {wanted:,.0f} s is shorter than a step or a write of a"
            f" checkpoint: {job.checkpoint_interval_s:,.0f} s are taken"
        )
    for pool in scenario.pools:
        if pool.node.nics and pool.nodes > 1 and not network_power(pool.node, pool.nodes):
            out = pool.node.scale_out
            yield f"{out.name}: the power of switches and optics is not known and not counted"


def _sources(scenario: Scenario) -> Iterator[str]:
    """Sources of the facts of the devices, nodes, links and stacks in use, each once."""
    seen: set[str] = set()
    for pool in scenario.pools:
        for part in (
            pool.node.device,
            pool.node,
            pool.node.scale_up,
            pool.node.scale_out,
            pool.stack,
        ):
            used = {fact.source for fact in part.facts.values()}
            for key, text in part.sources.items():
                if key in used and text not in seen:
                    seen.add(text)
                    yield text
    if scenario.model.source:
        yield scenario.model.source


def _with_published(scenario: Scenario, result: RunResult) -> RunResult:
    rows = tuple(
        Comparison(p.metric, p.value, value, value / p.value - 1.0, p.source)
        for p in scenario.published
        if (value := predicted_value(result, p.metric)) is not None
    )
    return replace(result, published=rows)


def predicted_value(result: RunResult, metric: str) -> float | None:
    """Return the value of a dotted metric such as 'step.duration_s' or 'cost.per_trillion_tokens'.

    A last part that names a key of a mapping (`step.breakdown.bubble`) is looked up in it; what is
    not in it is zero. None when the part of the result is missing (no job, no cost).
    """
    value: object = result
    for name in metric.split("."):
        if value is None:
            return None
        value = value.get(name, 0.0) if isinstance(value, Mapping) else getattr(value, name)
    return float(value) if isinstance(value, int | float) else None
