"""What a whole job may cost and when it may be done: its step, its stops and its prices drawn together.

The draws of a cause follow from its name (`uncertainty.draws`), so what two cases have in common
cancels in their difference. A price that a scenario gives is taken as it stands unless it says how
low and high it may be; one that was looked up, the power and the share of the machines' life in use
have the factors of `data/chances.yaml`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ersatz.sim.records import Chance, CostResult, Difference, JobResult, RunResult, StepResult
from ersatz.sim.scenario.defaults import chance_range
from ersatz.sim.scenario.scenario import CostSpec, Scenario
from ersatz.sim.uncertainty.draws import END, Array, factors, standard, step_factors

LOW, HIGH = 10.0, 90.0  # percentiles between which 80 % of the draws lie
SAVED = 0.20  # saving whose probability is told: what Ant Group claimed
POWER = ("electricity",)  # parts of the cost that go with the power


def job_chance(
    scenario: Scenario, step: StepResult, job: JobResult, cost: CostResult | None
) -> Chance:
    """Return the 80 % intervals of a job's end and cost, and what makes the cost's wide."""
    width = _width(step)
    walls = job.wall_s * _time_factors(scenario, job, width)
    low, high = np.percentile(walls, (LOW, HIGH))
    if cost is None:
        return Chance(float(low), float(high), None, None, {})
    each = cost_draws(scenario, step, job, cost) / scenario.training.tokens * 1e12
    least, most = np.percentile(each, (LOW, HIGH))
    return Chance(float(low), float(high), float(least), float(most),
                  _causes(scenario, job, cost, width))  # fmt: skip


def cost_draws(scenario: Scenario, step: StepResult, job: JobResult, cost: CostResult) -> Array:
    """Return draws of the whole cost, in the currency of the scenario."""
    spec, seed = scenario.cost, scenario.seed
    assert spec is not None
    rest, power = _divided(cost)
    used = _used(spec, seed)
    time = _time_factors(scenario, job, _width(step))
    found: Array = time * used * (rest * _price_factors(spec, seed) + power * _power_factors(seed))
    return found


def differences(
    scenarios: Sequence[Scenario], results: Sequence[RunResult]
) -> tuple[Difference, ...]:
    """Return what each case saves against the first, per token, where both cost the same currency."""
    paid = [(s, r, cost_draws(s, r.step, r.job, r.cost) / s.training.tokens)
            for s, r in zip(scenarios, results, strict=True) if r.job and r.cost]  # fmt: skip
    if not paid or paid[0][1] is not results[0]:
        return ()
    _, first, baseline = paid[0]
    return tuple(
        difference(r.name, draws, first.name, baseline)
        for _, r, draws in paid[1:]
        if r.cost and first.cost and r.cost.currency == first.cost.currency
    )


def difference(name: str, draws: Array, against: str, baseline: Array) -> Difference:
    """Return what a case saves against another: draws of both, made from common causes."""
    saved = 1.0 - draws / np.where(baseline > 0, baseline, math.inf)
    low, middle, high = np.percentile(saved, (LOW, 50.0, HIGH))
    return Difference(name, against, float(middle), float(low), float(high),
                      float(np.mean(saved > 0)), float(np.mean(saved >= SAVED)))  # fmt: skip


def _width(step: StepResult) -> float:
    """Return the relative half width of a step's interval."""
    return step.high80_s / step.duration_s - 1.0


def _time_factors(scenario: Scenario, job: JobResult, width: float) -> Array:
    """Return draws of true over predicted time: the step, and the job's own stops."""
    found: Array = step_factors(scenario, width) * _stop_factors(scenario, job)
    return found


def _stop_factors(scenario: Scenario, job: JobResult) -> Array:
    half = max(math.log(job.wall_high80_s / job.wall_low80_s) / 2, 0.0)
    found: Array = np.exp(half / END * standard(f"stops/{scenario.name}", scenario.seed))
    return found


def _price_factors(spec: CostSpec, seed: int) -> Array:
    where = "/".join(f"{n}={v:g}" for n, v in sorted({**spec.rent, **spec.server_price}.items()))
    return factors(f"price/{spec.model}/{where}", seed, spec.price_low, spec.price_high)


def _power_factors(seed: int) -> Array:
    return factors("power", seed, *chance_range("power"))


def _used(spec: CostSpec, seed: int) -> Array | float:
    """Return draws of what the machines' idle life adds to an hour of use."""
    if spec.model != "annuity":
        return 1.0
    low, high = chance_range("utilisation")
    return factors("utilisation", seed, 1.0 / high, 1.0 / low)


def _divided(cost: CostResult) -> tuple[float, float]:
    """Return what goes with prices, and what goes with power."""
    power = math.fsum(v for k, v in cost.parts.items() if k.startswith(POWER))
    return cost.total - power, power


def _causes(
    scenario: Scenario, job: JobResult, cost: CostResult, width: float
) -> Mapping[str, float]:
    """Return by how much each cause alone would make the cost high, as a share of it."""
    spec, seed = scenario.cost, scenario.seed
    assert spec is not None
    rest, power = _divided(cost)
    total = cost.total or math.inf  # what is free is for certain
    alone = {
        "step": step_factors(scenario, width),
        "stops": _stop_factors(scenario, job),
        "price": (rest * _price_factors(spec, seed) + power) / total,
        "power": (rest + power * _power_factors(seed)) / total,
        "utilisation": _used(spec, seed) * np.ones(1),
    }
    spread = {name: float(np.percentile(f, HIGH)) - 1.0 for name, f in alone.items()}
    return {name: share for name, share in spread.items() if share >= 0.0005}
