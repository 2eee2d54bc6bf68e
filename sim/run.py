"""From a scenario to everything that `ersatz run` says: the one way through the clocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.device_models.networks.facts import network_power
from ersatz.sim.anchor.width import anchored_width
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.invariants import check_run
from ersatz.sim.job.chance import job_chance
from ersatz.sim.job.checkpoint import saved_params
from ersatz.sim.job.conditions import plan_conditions
from ersatz.sim.job.cost import job_cost
from ersatz.sim.job.energy import job_energy
from ersatz.sim.job.job import StepWithout, simulate_job
from ersatz.sim.plan.memory import least_capacity, plan_memory, remedies
from ersatz.sim.plan.remarks import network_remarks
from ersatz.sim.records import Comparison, JobResult, RunResult, StepResult, wrong_metric
from ersatz.sim.scenario.joint import other_reading
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.degraded import degraded_step_seconds, replicas_left
from ersatz.sim.step.step import busy_share, simulate_step, step_seconds
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
    memory = plan_memory(scenario, advise=False)
    anchored = anchored_width(scenario, timer) if width is None else None
    if anchored:
        width = anchored[0]
    step = with_interval(scenario, simulate_step(scenario, timer), width)
    if memory.verdict != "fits":
        memory = replace(memory, advice=tuple(_advice(scenario, step, timer)))
    job = energy = cost = None
    if scenario.training.tokens:
        job = simulate_job(
            scenario,
            step.duration_s,
            degraded_step_s=_degraded(scenario, step, timer),
            conditions=plan_conditions(
                scenario, step.duration_s, lambda worse: step_seconds(worse, timer)
            ),
            model_params=saved_params(scenario.model),
        )
        energy = job_energy(scenario, job, busy_share(step))
        cost = job_cost(scenario, job, energy) if scenario.cost else None
    chance = job_chance(scenario, step, job, cost) if job else None
    result = RunResult(
        name=scenario.name, step=step, memory=memory, job=job, cost=cost, energy=energy,
        published=(),
        assumptions=(
            *((anchored[1],) if anchored else (why_wide(scenario),) if width is None else ()),
            *network_remarks(scenario), *_joint_worth(scenario, step, timer),
            *_job_remarks(scenario, job), *scenario.assumptions,
        ),
        sources=tuple(_sources(scenario)),
        chance=chance,
    )  # fmt: skip
    return check_run(_with_published(scenario, result), *_limits(scenario))


def _advice(scenario: Scenario, step: StepResult, timer: Timer) -> Iterator[str]:
    """Yield the smallest sets of changes with which a plan fits for sure, the quickest first."""
    timed = []
    for words, changed in remedies(scenario):
        try:
            timed.append((step_seconds(changed, timer), words))
        except (InfeasibleError, ValueError):
            continue
    for seconds, words in sorted(timed):
        yield f"{words} (a step of {seconds:.4g} s, {seconds / step.duration_s - 1:+.0%})"
    yield f"devices with at least {least_capacity(scenario) / 2**30:.0f} GiB"


def _limits(scenario: Scenario) -> tuple[float, float]:
    """Return the highest matrix rate of all devices in any format, and the bytes of the weights."""
    fastest = math.fsum(max(p.node.device.matrix_peak.values()) * p.devices for p in scenario.pools)
    return fastest, scenario.model.params() * DTYPE_BYTES[scenario.training.precision]


def _degraded(scenario: Scenario, step: StepResult, timer: Timer) -> StepWithout:
    """Ask the step engine once per number of replicas that lost nodes leave."""
    known = {replicas_left(scenario, [0] * len(scenario.pools)): step.duration_s}

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
