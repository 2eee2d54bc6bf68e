"""Large programmes in two steps: where each job runs is read off the divisible plan, then the rest is solved.

The divisible plan lets a job run at several sites and on several groups at once. Each job is given the
one that does most of its work, for the whole plan or period by period, and what is left (whole lots,
who has which machines) is solved as a programme of its own; where that is not good enough, every place
that the divisible plan uses is left open and the job may move between them. Its distance is proved from
below: no plan costs less than the divisible one, nor than the best plan at one site that has what is
best of each (`merged`), where a job still runs on one group at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ersatz.sim.purchase.periods import Floats
from ersatz.sim.purchase.programme import Programme, PurchaseProblem

LARGE = 6_000  # columns from which a programme is solved in two steps
HUGE = 30_000  # and from which the whole is not tried after that: it is never done in time
USED = 1e-4  # share of a job's work from which a place is used


def restrictions(programme: Programme, divisible: Floats) -> Iterator[Programme]:
    """Yield the programme with each job on one group and site: for good, then period by period."""
    p = programme
    work = _work(p, divisible)  # (J, G, S, P)
    whole = work.sum(axis=3)
    best = whole.reshape(len(whole), -1).argmax(axis=1)
    for_good = np.zeros(work.shape, bool)
    for j, flat in enumerate(best):
        g, s = divmod(int(flat), work.shape[2])
        for_good[j, g, s] = True
    yield _limited(p, for_good)
    by_period = np.zeros(work.shape, bool)
    flat_work = np.moveaxis(work, 3, 1).reshape(work.shape[0], work.shape[3], -1)
    for j, t in np.ndindex(flat_work.shape[:2]):
        row = flat_work[j, t]
        flat = row.argmax() if row.max() > 0 else best[j]
        g, s = divmod(int(flat), work.shape[2])
        by_period[j, g, s, t] = True
    yield _limited(p, by_period)
    used = whole > USED * whole.sum(axis=(1, 2), keepdims=True)
    yield _limited(p, np.broadcast_to(used[..., None], work.shape))


def merged(problem: PurchaseProblem) -> PurchaseProblem:
    """Return the problem with one site in place of all: its plans cost no more than any plan's.

    The site has the least prices, rents and power of each device, the earliest arrivals, and all sites'
    power, space and rentable nodes together.
    """
    price = _least(problem.price, problem.allowed)
    rentable = problem.rentable.sum(axis=1, keepdims=True)
    rent = np.where(problem.rentable > 0, problem.rent, np.inf).min(axis=1, keepdims=True)
    works = np.where(problem.allowed[..., None], problem.works, 0.0)
    caps = tuple(replace(cap, weight=_least(cap.weight, problem.allowed)) for cap in problem.caps)
    return replace(
        problem, sites=("all",), price=price,
        allowed=np.asarray(problem.allowed.any(axis=1, keepdims=True)),
        works=works.max(axis=1, keepdims=True),
        rent=np.where(np.isfinite(rent), rent, 0.0), rentable=rentable,
        running=problem.running.min(axis=1, keepdims=True),
        power_w=problem.power_w.min(axis=1, keepdims=True),
        site_power_w=problem.site_power_w.sum(axis=0, keepdims=True),
        space=problem.space.sum(axis=0, keepdims=True), caps=caps,
    )  # fmt: skip


def groups_of(programme: Programme, runs: Floats) -> Programme:
    """Return the programme in which each job runs on the groups (J, G, P) that it `runs` on, at any site.

    In a period in which it rests it may run on any of those that it runs on at other times.
    """
    on = runs > 0.5
    ever = np.broadcast_to(on.any(axis=2, keepdims=True), on.shape)
    may = np.where(on.any(axis=1, keepdims=True), on, ever)
    return _limited(programme, np.broadcast_to(may[:, :, None, :], programme.runs.shape))


def _least(values: Floats, allowed: NDArray[np.bool_]) -> Floats:
    """Return the least value over the sites where an order may be placed; 0 where it may nowhere."""
    least = np.where(allowed, values, np.inf).min(axis=1, keepdims=True)
    return np.asarray(np.where(np.isfinite(least), least, 0.0))


def _work(p: Programme, values: Floats) -> Floats:
    """Return the work (J, G, S, P) that a divisible plan does on each group at each site."""
    problem = p.problem
    work = np.zeros((len(problem.jobs), len(problem.groups), *p.use.shape[2:]))
    for m, (g, d) in enumerate(p.members):
        speed = problem.rate[:, d] * problem.efficiency[:, g]
        work[:, g] += speed[:, None, None] * values[p.use[:, m]]
    return work


def _limited(p: Programme, may: NDArray[Any]) -> Programme:
    """Return the programme in which a job may run only where it `may`."""
    upper, lower = p.upper.copy(), p.lower.copy()
    upper[p.runs] = may
    for m, (g, _) in enumerate(p.members):
        upper[p.use[:, m]] = np.where(may[:, g], upper[p.use[:, m]], 0.0)
    return replace(p, upper=upper, lower=np.minimum(lower, upper))
