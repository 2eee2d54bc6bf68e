"""From a scenario to everything that `ersatz run` says: the one way through the clocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.sim.job.conditions import plan_conditions
from ersatz.sim.job.cost import job_cost
from ersatz.sim.job.energy import job_energy
from ersatz.sim.job.job import simulate_job
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.records import Comparison, RunResult, StepResult, wrong_metric
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.step import busy_share, degraded_step_seconds, simulate_step, step_seconds
from ersatz.sim.uncertainty.intervals import half_width, is_measured, with_interval


def run_case(
    scenario: Scenario, timer: Timer = calibrated_time, width: float | None = None
) -> RunResult:
    """Simulate one case: memory, step, job, energy and money.

    The job, its energy and its cost are None for a step study (no token budget); the cost is None
    without a cost section. `width` is the relative half width of the step's 80 % interval where
    the kernel times come from a device that was proved. Raises `InfeasibleError` when no step can
    be made at all.
    """
    for row in scenario.published:
        if words := wrong_metric(row.metric):
            raise ValueError(f"published: {row.metric!r}: {words}")
    memory = plan_memory(scenario)
    step = with_interval(scenario, simulate_step(scenario, timer), width)
    job = energy = cost = None
    if scenario.training.tokens:
        job = simulate_job(
            scenario,
            step.duration_s,
            degraded_step_s=_degraded(scenario, step, timer),
            conditions=plan_conditions(
                scenario, step.duration_s, lambda worse: step_seconds(worse, timer)
            ),
            model_params=scenario.model.params(),
        )
        energy = job_energy(scenario, job, busy_share(step))
        cost = job_cost(scenario, job, energy) if scenario.cost else None
    result = RunResult(
        name=scenario.name, step=step, memory=memory, job=job, cost=cost, energy=energy,
        published=(),
        assumptions=(*(_interval_reason(scenario) if width is None else ()), *scenario.assumptions),
        sources=tuple(_sources(scenario)),
    )  # fmt: skip
    return _with_published(scenario, result)


def _degraded(scenario: Scenario, step: StepResult, timer: Timer) -> Callable[[int], float]:
    """Ask the step engine once per number of lost replicas."""
    known = {0: step.duration_s}

    def seconds(replicas_lost: int) -> float:
        if replicas_lost not in known:
            known[replicas_lost] = degraded_step_seconds(scenario, replicas_lost, timer)
        return known[replicas_lost]

    return seconds


def _interval_reason(scenario: Scenario) -> Iterator[str]:
    for pool in scenario.pools:
        if not is_measured(pool):
            yield (
                f"no measured training run of {pool.node.device.title} was published: the interval"
                f" is wide (a factor of {1 + half_width(scenario):.2f} either way)"
            )


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
