"""What a job costs: rent, annuity of the capital, or the value that machines lose meanwhile.

Rent is device-hours times a price. The annuity spreads capital over a life at an interest rate
(capital recovery factor) and adds running costs, divided by the share of the life in use. The
depreciation model charges the value that the machines lose, either in a straight line or by a
constant share per year (Epoch AI's 0.14 orders of magnitude). Not modelled: tax, financing fees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ersatz.sim.records import CostResult, EnergyResult, JobResult
from ersatz.sim.scenario.scenario import CostSpec, Pool, Scenario

YEAR_S = 31_557_600.0
HOURS_PER_YEAR = 8760.0


def run_cost(flop: float, peak_flop_per_s: float, mfu: float, price_per_hour: float) -> float:
    """Return FLOP / (peak x MFU x 3600) x price: the cost of a run from its utilisation.

    >>> round(run_cost(1.728e23, 989e12, 0.2102, 27.5) / 1e6, 2)
    6.35
    """
    return flop / (peak_flop_per_s * mfu * 3600.0) * price_per_hour


def implied_mfu(flop: float, peak_flop_per_s: float, price_per_hour: float, cost: float) -> float:
    """Return the MFU at which a run costs `cost`: `run_cost` turned round."""
    return flop / (peak_flop_per_s * 3600.0) * price_per_hour / cost


def break_even_price(price: float, rate: float, other_rate: float) -> float:
    """Return the price at which a device of `rate` (peak x MFU) costs as much per work as another.

    `price` and `other_rate` are the other device's.
    """
    return price * rate / other_rate


def capital_recovery_factor(interest: float, years: float) -> float:
    """Return the yearly payment per unit of capital; without interest 1 / years.

    >>> capital_recovery_factor(0.0, 4.0)
    0.25
    """
    if interest == 0.0:
        return 1.0 / years
    return interest / -math.expm1(-years * math.log1p(interest))


def annuity_per_hour(
    capital: float, interest: float, years: float, opex_share: float, power_per_hour: float,
    sold: float,
) -> float:  # fmt: skip
    """Return the cost of an hour of use: capital, running costs and power, over the share in use."""
    yearly = capital * (capital_recovery_factor(interest, years) + opex_share)
    return (yearly / HOURS_PER_YEAR + power_per_hour) / sold


def decay_per_hour(value: float, decay: float) -> float:
    """Return the value lost per hour at the start, when it falls `decay` orders of magnitude a year."""
    return value * decay * math.log(10.0) / HOURS_PER_YEAR


def value_after(value: float, decay: float, years: float) -> float:
    """Return what is left of a value that falls `decay` orders of magnitude a year."""
    return value * math.pow(10.0, -decay * years)


def straight_line_per_hour(value: float, years: float) -> float:
    """Return the value lost per hour in a straight line to nothing."""
    return value / (years * HOURS_PER_YEAR)


def job_cost(scenario: Scenario, job: JobResult, energy: EnergyResult) -> CostResult:
    """Return what a job costs under the scenario's cost section (which it must have)."""
    spec = scenario.cost
    assert spec is not None
    parts: dict[str, float] = {}
    for pool, spares in zip(scenario.pools, scenario.spares, strict=True):
        hours = (pool.nodes + spares) * pool.node.devices * job.wall_s / 3600.0
        label = f" ({pool.name})" if pool.name else ""
        for name, amount in _pool_parts(spec, pool, hours, scenario, energy).items():
            parts[name + label] = amount
    if spec.model != "annuity" and spec.energy_price:
        parts["electricity"] = energy.kwh * 3.6e6 * spec.energy_price
    total = math.fsum(parts.values())
    return CostResult(
        total=total,
        currency=spec.currency,
        per_trillion_tokens=total / scenario.training.tokens * 1e12,
        per_device_hour=total / job.device_hours,
        parts=parts,
        model=spec.model,
    )


def _price(prices: Mapping[str, float], pool: Pool) -> float:
    return prices[pool.name] if pool.name in prices else prices[""]


def _pool_parts(
    spec: CostSpec, pool: Pool, hours: float, scenario: Scenario, energy: EnergyResult
) -> dict[str, float]:
    if spec.model == "rent":
        return {"rent": hours * 3600.0 * _price(spec.rent, pool)}
    server = _price(spec.server_price, pool) / pool.node.devices
    capital = server * (1.0 + spec.network_share)
    years = spec.life_s / YEAR_S
    if spec.model == "depreciation":
        lost = decay_per_hour if spec.value_decay else straight_line_per_hour
        rate = spec.value_decay or years
        server = value_after(server, spec.value_decay, spec.age_s / YEAR_S)
        return {"servers": hours * lost(server, rate),
                "network": hours * lost(server * spec.network_share, rate)}  # fmt: skip
    power = energy.pools_kwh[pool.name] * 3.6e6 * spec.energy_price / hours
    whole = annuity_per_hour(
        capital, spec.interest, years, spec.opex_share, power, spec.sold_fraction
    )
    without_power = annuity_per_hour(
        capital, spec.interest, years, spec.opex_share, 0.0, spec.sold_fraction
    )
    bare = annuity_per_hour(capital, spec.interest, years, 0.0, 0.0, spec.sold_fraction)
    return {
        "capital": hours * bare,
        "running": hours * (without_power - bare),
        "electricity": hours * (whole - without_power),
    }
