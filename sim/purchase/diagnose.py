"""Why there is no plan, and what would help least: limits relaxed one family at a time.

A family of limits (the budget, a site's power, a device's supply ...) is multiplied by 1 + z and the
least z that admits a plan is sought. What has no number (a rule, a lead time, the deadline) is lifted
or moved and the question asked again. Where no limit alone suffices, all may grow and the least sum of
their changes is named. For a plan that exists, the same families tell what binds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ersatz.sim.purchase.periods import Floats, given
from ersatz.sim.purchase.programme import Programme, PurchaseProblem, build_programme
from ersatz.sim.purchase.purchase import TIME_LIMIT_S, Purchase, is_feasible, solve

MORE = 0.10  # by which a limit grows to see what it is worth
NEAR = 1e-6  # of a limit, from where it is reached
MOST = 100.0  # from where growing a limit is no advice
LATER = (1, 2, 3, 6, 12, 24)  # months beyond the plan's own that are tried
Longer = Callable[[int], PurchaseProblem]  # the same problem with some months more


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
    rules: Mapping[str, str] | None = None,
    time_limit_s: float = TIME_LIMIT_S,
    longer: Longer | None = None,
) -> tuple[Remedy, ...]:
    """Return what would make an infeasible problem feasible, the least change of a number first.

    `rules` says, per device, what would have to be allowed, for the text; `longer` gives the problem
    with more months than it has.
    """
    found = sorted(_numbers(problem, time_limit_s), key=lambda remedy: remedy.increase or 0.0)
    found += _others(problem, rules or {}, time_limit_s, longer)
    found = found or list(_together(problem, time_limit_s))
    return (*found, *_less_work(problem, time_limit_s))


def _together(problem: PurchaseProblem, time_limit_s: float) -> Iterator[Remedy]:
    """The least sum of changes of several limits at once."""
    programme, named = build_programme(problem, tight=False), families(problem)
    solved = solve(programme, np.zeros(programme.width), gap=0.001, time_limit_s=time_limit_s,
                   extra=[(family, 1.0) for family in named])  # fmt: skip
    if solved is None:
        return
    shares = dict(zip(named, solved[0][programme.width :], strict=True))
    moved = {name: float(share) for name, share in shares.items() if share > 1e-4}
    if moved and max(moved.values()) <= MOST:
        words = " and ".join(f"{name} {100 * share:.1f} %" for name, share in moved.items())
        yield Remedy(" and ".join(moved), max(moved.values()), f"together: {words} more")


def _numbers(problem: PurchaseProblem, time_limit_s: float) -> Iterator[Remedy]:
    programme = build_programme(problem, tight=False)
    nothing = np.zeros(programme.width)
    for family in families(problem):
        solved = solve(
            programme, nothing, gap=0.001, extra=[(family, 1.0)], time_limit_s=time_limit_s
        )
        if solved is not None:
            share = float(solved[0][-1])
            more = f"{100 * share:.1f} % more"
            if share > MOST:
                more = f"{1.0 + share:,.0f} times as much"
            yield Remedy(family, share, f"{family}: {more}")
        elif _lifted(programme, family, nothing, time_limit_s):
            yield Remedy(family, None, f"{family}: it is 0, and some is needed")


def _lifted(
    programme: Programme, family: str, nothing: np.ndarray[Any, Any], time_limit_s: float
) -> bool:
    """Tell whether there is a plan without a family of limits: one of 0 grows to nothing."""
    rows = programme.rows
    kept = list(rows.high)
    if any(high for high, name in zip(kept, rows.name, strict=True) if name == family):
        return False
    rows.high[:] = [np.inf if name == family else high
                    for high, name in zip(kept, rows.name, strict=True)]  # fmt: skip
    try:
        return solve(programme, nothing, gap=0.001, time_limit_s=time_limit_s) is not None
    finally:
        rows.high[:] = kept


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
        if less > 0.999:
            return  # nothing at all can be done: no advice
        yield Remedy("work", less, f"work: {100 * less:.1f} % fewer tokens in every job")


def _others(
    problem: PurchaseProblem, rules: Mapping[str, str], time_limit_s: float, longer: Longer | None
) -> Iterator[Remedy]:
    yield from _later(problem, time_limit_s, longer)
    for d, name in enumerate(problem.devices):
        sold = problem.price[d] > 0
        if (problem.allowed[d] | ~sold).all():
            continue
        allowed = problem.allowed.copy()
        allowed[d] = sold
        if is_feasible(replace(problem, allowed=allowed), time_limit_s):
            yield Remedy(f"rules {name}", None, f"rules: {rules.get(name, f'{name} allowed')}")
    prompt = np.broadcast_to(np.arange(problem.months, dtype=float), problem.price.shape)
    works = given(prompt, problem.bounds, problem.loss[:, None, None])
    if is_feasible(replace(problem, works=works), time_limit_s):
        yield Remedy("lead time", None, "lead time: machines that work on the day of their order")


def _later(
    problem: PurchaseProblem, time_limit_s: float, longer: Longer | None
) -> Iterator[Remedy]:
    """The least number of months by which all deadlines must move."""
    months = problem.months
    for extra in range(1, months - int(problem.deadline.min()) + 1):
        later = np.minimum(problem.deadline + extra, months)
        if is_feasible(replace(problem, deadline=later), time_limit_s):
            yield Remedy("deadline", None, f"deadline: {extra} month{'s' * (extra > 1)} later")
            return
    for extra in LATER if longer else ():
        if longer and is_feasible(longer(extra), time_limit_s):
            words = f"deadline: {extra} month{'s' * (extra > 1)} later, and as many in the plan"
            yield Remedy("deadline", None, words)
            return


def shadows(
    problem: PurchaseProblem, plan: Purchase, longer: Longer | None = None
) -> tuple[Shadow, ...]:
    """Return what a tenth more of each limit (a month more for the deadline) would save.

    Judged on the programme with everything divisible; the largest saving first. `longer` gives the
    problem with more months, for a deadline at the plan's end.
    """
    programme = build_programme(problem, tight=False)
    solved = solve(programme, programme.cost, whole=False)
    if solved is None:
        return ()
    base, reached = float(programme.cost @ solved[0]), _reached(programme, solved[0])
    found = [Shadow(family, base - _wider_cost(programme, family))
             for family in families(problem) if family in reached]  # fmt: skip
    later = replace(problem, deadline=np.minimum(problem.deadline + 1, problem.months))
    found.append(Shadow("deadline", base - divisible_cost(longer(1) if longer else later)))
    least = 1e-6 * max(plan.cost, 1.0)
    return tuple(sorted((s for s in found if s.saving > least), key=lambda s: -s.saving))


def divisible_cost(problem: PurchaseProblem) -> float:
    """Return the least cost with everything divisible."""
    return _cost(build_programme(problem, tight=False))


def _cost(programme: Programme) -> float:
    solved = solve(programme, programme.cost, whole=False)
    return float("inf") if solved is None else float(programme.cost @ solved[0])


def _reached(programme: Programme, values: Floats) -> set[str]:
    """Return the families of which a limit is reached: that others were wider would save nothing."""
    rows = programme.rows
    used, high = rows.matrix(programme.width) @ values, np.array(rows.high)
    limited = np.flatnonzero(np.isfinite(high))
    least = high[limited] - NEAR * np.maximum(np.abs(high[limited]), 1.0)
    return {rows.name[at] for at in limited[used[limited] >= least].tolist()}


def _wider_cost(programme: Programme, family: str) -> float:
    """Return the least cost with everything divisible and a family of limits a tenth wider."""
    rows, kept = programme.rows, programme.rows.high
    rows.high = [high * (1 + MORE) if name == family else high
                 for name, high in zip(rows.name, kept, strict=True)]  # fmt: skip
    try:
        return _cost(programme)
    finally:
        rows.high = kept
