"""Why there is no plan, and what would help least: limits relaxed one family at a time.

A family of limits (the budget, a site's power, a device's supply ...) is multiplied by 1 + z and the
least z that admits a plan is sought. What has no number (a rule, a lead time, the deadline) is lifted
or moved and the question asked again. For a plan that exists, the same families tell what binds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ersatz.sim.purchase.programme import PurchaseProblem, build_programme
from ersatz.sim.purchase.purchase import TIME_LIMIT_S, Purchase, is_feasible, solve

MORE = 0.10  # by which a limit grows to see what it is worth


@dataclass(frozen=True, slots=True)
class Remedy:
    """One limit and the least change of it, alone, that admits a plan."""

    constraint: str
    increase: float | None  # share of the limit; None when it has no number
    text: str


@dataclass(frozen=True, slots=True)
class Shadow:
    """What a tenth more of a limit saves."""

    constraint: str
    saving: float


def families(problem: PurchaseProblem) -> tuple[str, ...]:
    """Return the names of the limits that have a number, in the order of their rows."""
    kinds = ("budget", "power", "space", "supply", "quota")
    names = build_programme(problem).rows.name
    return tuple(dict.fromkeys(n for n in names if n.split(" ")[0] in kinds))


def diagnose(
    problem: PurchaseProblem,
    rules: dict[str, str] | None = None,
    time_limit_s: float = TIME_LIMIT_S,
) -> tuple[Remedy, ...]:
    """Return what would make an infeasible problem feasible, the least change of a number first.

    `rules` names, per device, the rule that forbids it, for the text.
    """
    numbers = sorted(_numbers(problem, time_limit_s), key=lambda remedy: remedy.increase or 0.0)
    others = _others(problem, rules or {}, time_limit_s)
    return (*numbers, *others, *_less_work(problem, time_limit_s))


def _numbers(problem: PurchaseProblem, time_limit_s: float) -> Iterator[Remedy]:
    programme = build_programme(problem, tight=False)
    nothing = np.zeros(programme.width)
    for family in families(problem):
        solved = solve(
            programme, nothing, gap=0.001, extra=[(family, 1.0)], time_limit_s=time_limit_s
        )
        if solved is not None:
            share = float(solved[0][-1])
            yield Remedy(family, share, f"{family}: {100 * share:.1f} % more")


def _less_work(problem: PurchaseProblem, time_limit_s: float) -> Iterator[Remedy]:
    """The share of all jobs' work that the limits admit."""
    programme = build_programme(problem)
    rows = programme.rows
    works = [i for i, name in enumerate(rows.name) if name.startswith("work ")]
    for i in works:  # sum of work + z work >= work
        rows.columns[i] = np.append(rows.columns[i], programme.width)
        rows.values[i] = np.append(rows.values[i], rows.low[i])
    wider = replace(
        programme, width=programme.width + 1, lower=np.append(programme.lower, 0.0),
        upper=np.append(programme.upper, 1.0), whole=np.append(programme.whole, 0.0),
    )  # fmt: skip
    objective = np.append(np.zeros(programme.width), 1.0)
    solved = solve(wider, objective, gap=0.001, time_limit_s=time_limit_s)
    if solved is not None:
        less = float(solved[0][-1])
        yield Remedy("work", less, f"work: {100 * less:.1f} % fewer tokens in every job")


def _others(
    problem: PurchaseProblem, rules: dict[str, str], time_limit_s: float
) -> Iterator[Remedy]:
    months = problem.months
    for extra in range(1, months - int(problem.deadline.min()) + 1):
        later = np.minimum(problem.deadline + extra, months)
        if is_feasible(replace(problem, deadline=later), time_limit_s):
            yield Remedy("deadline", None, f"deadline: {extra} month{'s' * (extra > 1)} later")
            break
    for d, name in enumerate(problem.devices):
        if problem.allowed[d].all():
            continue
        allowed = problem.allowed.copy()
        allowed[d] = True
        if is_feasible(replace(problem, allowed=allowed), time_limit_s):
            rule = f" ({rules[name]})" if name in rules else ""
            yield Remedy(f"rules {name}", None, f"rules: {name} allowed{rule}")
    now = np.broadcast_to(np.arange(months), problem.usable_from.shape)
    if is_feasible(replace(problem, usable_from=now), time_limit_s):
        yield Remedy("lead time", None, "lead time: machines that work in the month of their order")


def shadows(problem: PurchaseProblem, plan: Purchase) -> tuple[Shadow, ...]:
    """Return what a tenth more of each limit (a month more for the deadline) would save.

    Judged on the programme with everything divisible; the largest saving first.
    """
    base = _divisible(problem)
    found = [Shadow(family, base - _divisible(problem, family)) for family in families(problem)]
    later = np.minimum(problem.deadline + 1, problem.months)
    found.append(Shadow("deadline", base - _divisible(replace(problem, deadline=later))))
    least = 1e-6 * max(plan.cost, 1.0)
    return tuple(sorted((s for s in found if s.saving > least), key=lambda s: -s.saving))


def _divisible(problem: PurchaseProblem, family: str | None = None) -> float:
    programme = build_programme(problem, tight=False)
    if family:
        rows = programme.rows
        rows.high = [high * (1 + MORE) if name == family else high
                     for name, high in zip(rows.name, rows.high, strict=True)]  # fmt: skip
    solved = solve(programme, programme.cost, whole=False)
    return float("inf") if solved is None else float(programme.cost @ solved[0])
