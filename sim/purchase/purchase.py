"""What to buy, when and where: the cheapest plan, the fastest, and the front between them.

The programme of `ersatz.sim.purchase.programme` is solved by HiGHS (scipy.optimize.milp). The fastest plan is
found by halving: the least month by which every job can be done, then the cheapest plan that does
it. The front is the cheapest plan for each deadline. Plans are exact to the asked gap.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ersatz.sim.errors import InfeasibleError
from ersatz.sim.purchase.periods import CLOSE, Floats
from ersatz.sim.purchase.programme import Held, Programme, PurchaseProblem, build_programme
from ersatz.sim.purchase.rounding import HUGE, LARGE, groups_of, merged, restrictions

GAP = 0.01
TIME_LIMIT_S = 60.0
SETTLING_S = 60.0  # for the same orders at earlier dates


@dataclass(frozen=True, slots=True)
class Purchase:
    """A plan: nodes by device, site and month, and what it costs."""

    orders: Floats  # (D, S, T) nodes
    bounds: Floats  # (P + 1,) turns of the periods, in months
    rented: Floats  # (D, S, P) nodes
    use: Floats  # (J, G, D, S, P) node-months
    share: Floats  # (J, G, D, S, P) of the machines that work then
    cost: float  # cash less what the machines are worth at the end
    cash: float
    machines: Floats  # (T,) cash of each month for machines that are bought
    bound: float  # no plan costs less
    gap: float
    months: int  # by which all jobs are done
    spent: Floats  # (T,) cash of each month
    work_done: Floats  # (J, P) by the end of each period

    def hired(self, d: int, s: int, since: float = 0.0) -> tuple[float, float]:
        """Return the most nodes that are rented of a device at a site, and for how many months."""
        later = self.bounds[:-1] >= since - CLOSE
        nodes = self.rented[d, s] * later
        return float(nodes.max()), float(np.diff(self.bounds)[nodes > 0].sum())


def cheapest(
    problem: PurchaseProblem, gap: float = GAP, time_limit_s: float = TIME_LIMIT_S,
    held: Held | None = None,
) -> Purchase | None:  # fmt: skip
    """Return a plan within `gap` of the cheapest, or None when there is none.

    Raises `InfeasibleError` when the solver found neither a plan nor a proof within the time.
    """
    programme = build_programme(problem, held=held)
    solved = None
    if programme.width > LARGE and held is None:
        solved = _in_two_steps(programme, gap, time_limit_s)
    if solved is None or (solved[2] > gap and programme.width < HUGE):
        whole = _or_none(programme, gap, time_limit_s, solved is not None)
        if solved is None or (whole is not None and whole[2] < solved[2]):
            solved = whole
    if solved is None:
        return None
    return _plan(programme, _settled(programme, solved[0]), *solved[1:])


def _or_none(
    programme: Programme, gap: float, time_limit_s: float, spare: bool
) -> tuple[Floats, float, float] | None:
    """Solve the whole programme; running out of time is no error where there is a `spare` plan."""
    try:
        return solve(programme, programme.cost, gap=gap, time_limit_s=time_limit_s)
    except InfeasibleError:
        if spare:
            return None
        raise


def _in_two_steps(
    programme: Programme, gap: float, time_limit_s: float
) -> tuple[Floats, float, float] | None:
    """Return the best plan found in two steps, with its distance from the best bound."""
    divisible = solve(programme, programme.cost, whole=False, time_limit_s=time_limit_s)
    if divisible is None:
        return None
    bound, best = float(programme.cost @ divisible[0]), None
    for limited in restrictions(programme, divisible[0]):
        found = _or_none(limited, gap / 2, time_limit_s / 4, True)
        if found is None:
            continue
        cost = float(programme.cost @ found[0])
        if best is None or cost < best[0]:
            best = cost, found[0]
        if best[0] - bound <= gap * abs(best[0]):
            break
    if best is None:
        return None
    if best[0] - bound > gap * abs(best[0]) and len(programme.problem.sites) > 1:
        bound, best = _at_one_site(programme, bound, best, gap, time_limit_s / 2)
    return best[1], bound, max(best[0] - bound, 0.0) / max(abs(best[0]), 1e-300)


def _at_one_site(
    programme: Programme, bound: float, best: tuple[float, Floats], gap: float, time_limit_s: float
) -> tuple[float, tuple[float, Floats]]:
    """Return a better bound and plan, from the plans at one site that has what is best of all.

    No plan costs less than the best of those. Only what is cheaper by more than the gap is looked for:
    that there is none is the proof, and quickly found. Otherwise the groups that it runs when, spread
    over the sites that there are, may be the better plan.
    """
    one = build_programme(merged(programme.problem))
    enough = best[0] - gap * (1.0 - 1e-6) * abs(best[0])
    one.rows.add("cheaper", [(np.arange(one.width), one.cost)], -np.inf, enough)
    try:
        found = solve(one, one.cost, gap=gap / 2, time_limit_s=time_limit_s)
    except InfeasibleError:  # the clock
        return bound, best
    if found is None:
        return max(bound, enough), best
    limited = groups_of(programme, found[0][one.runs][:, :, 0])
    spread = _or_none(limited, gap / 2, time_limit_s, True)
    if spread is not None and float(programme.cost @ spread[0]) < best[0]:
        best = float(programme.cost @ spread[0]), spread[0]
    return max(bound, found[1]), best


def _settled(programme: Programme, values: Floats) -> Floats:
    """Return the columns of the plan that orders the same for no more money, but as early as can be.

    What the solver happens to spread over months is one order then: fewer of them wait for rules that
    may come. Which groups run when is kept, so that this is quick.
    """
    p = programme
    lower, upper = p.lower.copy(), p.upper.copy()
    for fixed in (p.runs, p.ported):
        lower[fixed] = upper[fixed] = np.rint(values[fixed])
    orders = np.rint(values[p.order])
    if np.count_nonzero(orders) < 2:
        return values
    rows = replace(p.rows, **{f.name: list(getattr(p.rows, f.name)) for f in fields(p.rows)})
    rows.add(
        "as dear", [(np.arange(p.width), p.cost)], -np.inf, float(p.cost @ values) * (1 + 1e-9)
    )
    for d in range(orders.shape[0]):
        for s in range(orders.shape[1]):
            rows.add("as many", [(p.order[d, s], 1.0)], 0.0, float(orders[d, s].sum()))
    when = np.zeros(p.width)
    when[p.order] = np.arange(1.0, p.problem.months + 1.0)
    kept = replace(p, lower=lower, upper=upper, rows=rows)
    try:
        solved = solve(kept, when, gap=1e-6, time_limit_s=SETTLING_S)
    except InfeasibleError:
        return values
    return values if solved is None else solved[0]


def fastest(
    problem: PurchaseProblem, gap: float = GAP, time_limit_s: float = TIME_LIMIT_S,
    held: Held | None = None,
) -> Purchase | None:  # fmt: skip
    """Return the cheapest of the plans that are done in the earliest month possible."""
    low, high = 0, math.ceil(problem.deadline.max() - CLOSE)
    if not is_feasible(problem, time_limit_s, held):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if is_feasible(done_by(problem, middle), time_limit_s, held):
            high = middle
        else:
            low = middle
    return cheapest(done_by(problem, high), gap, time_limit_s, held)


def hurried(
    problem: PurchaseProblem, plan: Purchase, gap: float = GAP, time_limit_s: float = TIME_LIMIT_S
) -> Purchase:
    """Return the earliest plan that costs no more than a given one, but for the gap."""
    low, best = 0, plan
    while best.months - low > 1:
        middle = (low + best.months) // 2
        earlier = cheapest(done_by(problem, middle), gap, time_limit_s)
        if earlier and earlier.cost <= plan.cost * (1.0 + gap):
            best = earlier
        else:
            low = middle
    return best


def front(
    problem: PurchaseProblem, gap: float = GAP, time_limit_s: float = TIME_LIMIT_S
) -> tuple[Purchase, ...]:
    """Return the plans that no other beats in both time and cost, the fastest first."""
    plans: list[Purchase] = []
    start = fastest(problem, gap, time_limit_s)
    if start is None:
        return ()
    plans.append(start)
    for month in range(start.months + 1, math.ceil(problem.deadline.max() - CLOSE) + 1):
        plan = cheapest(done_by(problem, month), gap, time_limit_s)
        if plan and plan.cost < plans[-1].cost * (1.0 - gap) - 1e-9:
            plans.append(plan)
    return tuple(plans)


def done_by(problem: PurchaseProblem, month: int) -> PurchaseProblem:
    """Return the problem with every deadline drawn in to `month`."""
    return replace(problem, deadline=np.minimum(problem.deadline, month))


def is_feasible(
    problem: PurchaseProblem, time_limit_s: float = TIME_LIMIT_S, held: Held | None = None
) -> bool:
    """Tell whether any plan satisfies the problem."""
    programme = build_programme(problem, held=held)
    return solve(programme, np.zeros(programme.width), time_limit_s=time_limit_s) is not None


def solve(
    programme: Programme,
    objective: Floats,
    *,
    gap: float = GAP,
    whole: bool = True,
    time_limit_s: float = TIME_LIMIT_S,
    extra: Sequence[tuple[str, float]] = (),
) -> tuple[Floats, float, float] | None:
    """Minimise `objective`; returns (values of all columns, lower bound, gap) or None.

    `extra` appends columns that relax the upper limits of rows: (name of the rows, weight
    in the objective). Without `whole` the programme is solved as if everything were divisible.
    """
    from scipy import sparse
    from scipy.optimize import Bounds, LinearConstraint, milp

    matrix, high = programme.rows.matrix(programme.width), np.array(programme.rows.high)
    columns = [_relaxing(programme, family) for family, _ in extra]
    if columns:
        matrix = sparse.hstack([matrix, sparse.csr_matrix(np.stack(columns, axis=1))], "csr")
    lower = np.concatenate([programme.lower, np.zeros(len(extra))])
    upper = np.concatenate([programme.upper, np.full(len(extra), np.inf)])
    weights = np.concatenate([objective, [weight for _, weight in extra]])
    integer = np.concatenate([programme.whole, np.zeros(len(extra))]) if whole else None
    rows, low = _scales(matrix), np.array(programme.rows.low)
    scale = max(float(np.abs(weights).max()), 1e-300)
    with _silence():
        result = milp(
            weights / scale,
            integrality=integer,
            bounds=Bounds(lower, upper),
            constraints=LinearConstraint(sparse.diags(rows) @ matrix, low * rows, high * rows),
            options={"mip_rel_gap": gap, "time_limit": time_limit_s},
        )
    return _outcome(result, time_limit_s, scale)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what HiGHS writes to the process's standard output, whatever its options, out of reports."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _scales(matrix: Any) -> Floats:
    """Return a factor per row that brings its largest value to one: money and tokens are large."""
    most = abs(matrix).max(axis=1).toarray().ravel()
    return np.asarray(1.0 / np.where(most > 0, most, 1.0))


def _relaxing(programme: Programme, family: str) -> Floats:
    """Column of a factor by which the limits of a family of rows grow."""
    rows = programme.rows
    return np.array([-high if name == family else 0.0
                     for name, high in zip(rows.name, rows.high, strict=True)])  # fmt: skip


def _outcome(result: Any, time_limit_s: float, scale: float) -> tuple[Floats, float, float] | None:
    if result.x is not None:
        bound = result.mip_dual_bound if result.mip_dual_bound is not None else result.fun
        gap = result.mip_gap if result.mip_gap is not None else 0.0
        return result.x, float(bound) * scale, float(gap)
    if result.status == 2:
        return None
    raise InfeasibleError(f"no plan was found within {time_limit_s:g} s and none was ruled out;"
                          " give purchase.time_limit more, or fewer devices or months")  # fmt: skip


def _plan(programme: Programme, values: Floats, bound: float, gap: float) -> Purchase:
    problem, of = programme.problem, programme.problem.month_of
    use = np.zeros((len(problem.jobs), len(problem.groups), *problem.price.shape[:2], len(of)))
    done = np.zeros((len(problem.jobs), len(of)))
    for m, (g, d) in enumerate(programme.members):
        amount = np.where(values[programme.use[:, m]] > 1e-7, values[programme.use[:, m]], 0.0)
        use[:, g, d] = amount
        speed = problem.rate[:, d] * problem.efficiency[:, g]
        done += (speed[:, None, None] * amount).sum(axis=1)
    done = np.cumsum(done, axis=1)
    orders = np.rint(values[programme.order]) * problem.lot[:, None, None]
    rented = np.where(values[programme.rented] > 1e-7, values[programme.rented], 0.0)
    ported = np.rint(values[programme.ported])
    cash = programme.cash * values
    machines = (problem.price * orders).sum(axis=(0, 1))
    running = cash[programme.rented].sum(axis=(0, 1)) + cash[programme.use].sum(axis=(0, 1, 2))
    spent = machines + np.bincount(of, running, problem.months)
    spent[0] += float((ported * problem.fixed).sum())
    back = float((problem.price * orders * problem.left[:, None, :]).sum())
    ends = [problem.bounds[int(np.argmax(row >= work * (1 - 1e-6))) + 1]
            for row, work in zip(done, problem.work, strict=True)]  # fmt: skip
    return Purchase(
        orders, problem.bounds, rented, use, _shares(problem, orders, rented, use),
        float(spent.sum()) - back, float(spent.sum()), machines, bound, gap,
        math.ceil(max(ends) - CLOSE), spent, done,
    )  # fmt: skip


def _shares(problem: PurchaseProblem, orders: Floats, rented: Floats, use: Floats) -> Floats:
    """Return which share of the machines that work in a period each job has."""
    there = np.einsum("dso,dsop->dsp", orders, problem.works) + rented * problem.spans
    some = there > CLOSE
    return np.asarray(np.where(some, np.minimum(use / np.where(some, there, 1.0), 1.0), 0.0))
