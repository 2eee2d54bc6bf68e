"""What to buy, when and where: the cheapest plan, the fastest, and the front between them.

The programme of `ersatz.sim.purchase.programme` is solved by HiGHS (scipy.optimize.milp). The fastest plan is
found by halving: the least month by which every job can be done, then the cheapest plan that does
it. The front is the cheapest plan for each deadline. Plans are exact to the asked gap.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ersatz.sim.errors import InfeasibleError
from ersatz.sim.purchase.programme import Floats, Held, Programme, PurchaseProblem, build_programme

GAP = 0.01
TIME_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Purchase:
    """A plan: nodes by device, site and month, and what it costs."""

    orders: Floats  # (D, S, T) nodes
    rented: Floats  # (D, S, T) nodes
    use: Floats  # (J, G, D, S, T) node-months
    cost: float  # cash less what the machines are worth at the end
    cash: float
    machines: Floats  # (T,) cash of each month for machines that are bought
    bound: float  # no plan costs less
    gap: float
    months: int  # by which all jobs are done
    spent: Floats  # (T,) cash of each month
    work_done: Floats  # (J, T) by the end of each month


def cheapest(
    problem: PurchaseProblem, gap: float = GAP, time_limit_s: float = TIME_LIMIT_S,
    held: Held | None = None,
) -> Purchase | None:  # fmt: skip
    """Return a plan within `gap` of the cheapest, or None when there is none.

    Raises `InfeasibleError` when the solver found neither a plan nor a proof within the time.
    """
    programme = build_programme(problem, held=held)
    solved = solve(programme, programme.cost, gap=gap, time_limit_s=time_limit_s)
    return None if solved is None else _plan(programme, *solved)


def fastest(
    problem: PurchaseProblem, gap: float = GAP, time_limit_s: float = TIME_LIMIT_S,
    held: Held | None = None,
) -> Purchase | None:  # fmt: skip
    """Return the cheapest of the plans that are done in the earliest month possible."""
    low, high = 0, int(problem.deadline.max())
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
    for month in range(start.months + 1, int(problem.deadline.max()) + 1):
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
    problem = programme.problem
    use = np.zeros((len(problem.jobs), len(problem.groups), *problem.price.shape))
    done = np.zeros((len(problem.jobs), problem.months))
    for m, (g, d) in enumerate(programme.members):
        amount = np.where(values[programme.use[:, m]] > 1e-7, values[programme.use[:, m]], 0.0)
        use[:, g, d] = amount
        speed = problem.rate[:, d] * problem.efficiency[:, g]
        done += (speed[:, None, None] * amount).sum(axis=1)
    done = np.cumsum(done, axis=1)
    orders = np.rint(values[programme.order])
    rented = np.where(values[programme.rented] > 1e-7, values[programme.rented], 0.0)
    ported = np.rint(values[programme.ported])
    cash = programme.cash * values
    spent = (problem.price * orders).sum(axis=(0, 1)) + cash[programme.rented].sum(axis=(0, 1))
    spent += cash[programme.use].sum(axis=(0, 1, 2))
    spent[0] += float((ported * problem.fixed).sum())
    back = float((problem.price * orders * problem.left[:, None, :]).sum())
    finished = [int(np.argmax(row >= work * (1 - 1e-6))) + 1
                for row, work in zip(done, problem.work, strict=True)]  # fmt: skip
    return Purchase(orders, rented, use, float(spent.sum()) - back, float(spent.sum()),
                    (problem.price * orders).sum(axis=(0, 1)), bound, gap,
                    max(finished), spent, done)  # fmt: skip
