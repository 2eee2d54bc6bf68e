"""What every answer to a purchase question must keep; see `ersatz.sim.invariants`."""

from __future__ import annotations

import numpy as np

from ersatz.sim.invariants import Holds
from ersatz.sim.purchase.life.chance import Cloud
from ersatz.sim.purchase.life.replay import Replayed
from ersatz.sim.purchase.purchase import Purchase


def check_plan(holds: Holds, what: str, plan: Purchase, months: int) -> None:
    """Check a plan: whole orders, money that adds up, a bound below its cost, an end in time."""
    holds.each(f"{what}.orders", plan.orders)
    holds.true(
        f"{what}: orders are no whole nodes", bool((plan.orders == np.rint(plan.orders)).all())
    )
    holds.each(f"{what}.rented", plan.rented)
    holds.each(f"{what}.use", plan.use)
    holds.within(f"{what}.cash", plan.cash)
    holds.sums(
        f"{what}.cash", {f"month {i}": float(v) for i, v in enumerate(plan.spent)}, plan.cash
    )
    holds.within(f"{what}.cost", plan.cost, -plan.cash, plan.cash)
    holds.within(f"{what}.gap", plan.gap, 0.0, 1.0)
    holds.within(f"{what}.months", plan.months, 1, months)


def check_life(holds: Holds, what: str, life: Replayed) -> None:
    """Check what came of a plan: nothing negative, no month before the start."""
    for name in ("delivered", "blocked", "seized", "lost"):
        holds.each(f"{what}.{name}", getattr(life, name))
    for name in ("kwh", "carbon_kg", "device_hours", "left"):
        holds.within(f"{what}.{name}", getattr(life, name))
    holds.each(f"{what}.cost", list(life.cost.values()))
    holds.each(f"{what}.fleet", life.fleet)
    holds.each(f"{what}.work", np.diff(life.work, axis=0))
    holds.true(f"{what}: a job ends before it began", all(m >= 0 for m in life.finish_months))


def check_cloud(holds: Holds, cloud: Cloud) -> None:
    """Check the drawn lives: money finite and not negative, ends not before the start."""
    holds.each("monte_carlo.cost", cloud.cost)
    holds.each("monte_carlo.devices", cloud.fleet)
    holds.true("monte_carlo: a life ends before it began", bool((cloud.finish >= 0).all()))
