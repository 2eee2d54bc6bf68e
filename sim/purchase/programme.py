"""The purchase problem as plain arrays, and as the rows of a mixed-integer linear programme.

Devices d, sites s, months t, jobs j, groups g (sets of devices that train together). Decided are
nodes ordered (whole), nodes rented, node-months that a job uses, and which one group at which one
site a job runs on in a month: devices that make no plan together are never added up. Machines wear
out by the expected survival. Not modelled: resale, partial deliveries, idle power, moving machines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PurchaseProblem:
    """What may be bought, what for, and within which limits; all money in one currency.

    Shapes: D devices, S sites, T months, J jobs, G groups. Infinity means without limit.
    """

    devices: tuple[str, ...]
    sites: tuple[str, ...]
    jobs: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]  # devices of each group
    price: Floats  # (D, S, T) per node, paid with the order; duty and fees included
    allowed: Bools  # (D, S, T) the order may be placed
    usable_from: Ints  # (D, T) month in which an order of month t can work; T or more: too late
    supply: Floats  # (D, T) nodes that can be ordered in a month
    quota: Floats  # (D,) nodes over all months
    survival: Floats  # (D, T) share of nodes that work at an age in months
    rent: Floats  # (D, S, T) per node-month
    rentable: Floats  # (D, S, T) nodes for rent
    running: Floats  # (D, S, T) per node-month in use: electricity, repair
    power_w: Floats  # (D, S) at the meter, per node in use
    site_power_w: Floats  # (S, T)
    space: Floats  # (S, T) nodes
    budget: Floats  # (T,) that may be spent by the end of a month
    rate: Floats  # (J, D) work per node-month
    efficiency: Floats  # (J, G) of a group against the sum of its devices; 0: no plan
    ready: Ints  # (J, D) first month in which the software of a job runs on a device
    work: Floats  # (J,)
    deadline: Ints  # (J,) months
    fixed: Floats  # (D,) paid once in the first month when any job uses the device
    left: Floats  # (D, T) share of the price that an order of month t is still worth at the end

    @property
    def months(self) -> int:
        """Number of months."""
        return int(self.supply.shape[1])


@dataclass(frozen=True, slots=True)
class Held:
    """The past of a plan that is made anew: orders and use of the months before `month`."""

    month: int
    orders: Floats  # (D, S, T) that were placed and came through
    use: Floats  # (J, G, D, S, T) at most


@dataclass(slots=True)
class Rows:
    """Rows of a sparse matrix with their bounds, gathered one at a time."""

    columns: list[Ints] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    name: list[str] = field(default_factory=list)

    def add(self, name: str, parts: Iterable[tuple[Any, Any]], low: float, high: float) -> None:
        """Add low <= sum(value x column) <= high; a part is (columns, values)."""
        columns, values = [], []
        for column, value in parts:
            flat = np.ravel(column).astype(np.int64)
            columns.append(flat)
            values.append(np.broadcast_to(np.ravel(value), flat.shape).astype(np.float64))
        self.columns.append(np.concatenate(columns) if columns else np.zeros(0, np.int64))
        self.values.append(np.concatenate(values) if values else np.zeros(0))
        self.low.append(low)
        self.high.append(high)
        self.name.append(name)

    def matrix(self, width: int) -> Any:
        """Return the rows as a sparse matrix of `width` columns."""
        from scipy import sparse

        row = np.repeat(np.arange(len(self.columns)), [len(c) for c in self.columns])
        flat = (np.concatenate(self.values), (row, np.concatenate(self.columns)))
        return sparse.csr_matrix(flat, shape=(len(self.columns), width))


@dataclass(frozen=True, slots=True)
class Programme:
    """The columns of the variables and the rows that bind them."""

    problem: PurchaseProblem
    members: tuple[tuple[int, int], ...]  # (group, device) of each row of `use`
    order: Ints  # (D, S, T) columns
    rented: Ints  # (D, S, T)
    use: Ints  # (J, members, S, T)
    runs: Ints  # (J, G, S, T) the job runs on this group at this site
    ported: Ints  # (D,)
    width: int
    lower: Floats
    upper: Floats
    whole: Floats
    cash: Floats  # money spent per unit of each column
    cost: Floats  # money spent less what is left at the end
    rows: Rows


def build_programme(
    problem: PurchaseProblem, *, tight: bool = True, held: Held | None = None
) -> Programme:
    """Return the mixed-integer programme of a purchase problem.

    `held` is what has happened already. `tight` lets the switch of a group know a site's power,
    which the solver likes; it must be off where limits are to be relaxed.
    """
    d, s, t = problem.price.shape
    j, g = problem.efficiency.shape
    members = tuple((i, device) for i, group in enumerate(problem.groups) for device in group)
    shapes = [(d, s, t), (d, s, t), (j, len(members), s, t), (j, g, s, t), (d,)]
    starts = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    order, rented, use, runs, ported = (
        np.arange(a, b).reshape(shape)
        for a, b, shape in zip(starts[:-1], starts[1:], shapes, strict=True)
    )
    width = int(starts[-1])
    lower, upper, whole = np.zeros(width), np.zeros(width), np.zeros(width)
    most = _most_nodes(problem)
    upper[order] = np.where(problem.allowed, most[:, None, None], 0.0)
    upper[rented] = np.minimum(problem.rentable, most[:, None, None])
    upper[runs], upper[ported] = 1.0, 1.0
    upper[use] = _most_use(problem, members)
    if held:
        past = slice(0, held.month)
        lower[order[:, :, past]] = upper[order[:, :, past]] = held.orders[:, :, past]
        for m, (group, device) in enumerate(members):
            done = held.use[:, group, device, :, past]
            upper[use[:, m, :, past]] = np.minimum(upper[use[:, m, :, past]], done)
    whole[order], whole[runs], whole[ported] = 1.0, 1.0, 1.0
    cash = np.zeros(width)
    cash[order] = problem.price
    cash[rented] = np.where(upper[rented] > 0, problem.rent, 0.0)
    for m, (_, device) in enumerate(members):
        cash[use[:, m]] = problem.running[device]
    cash[ported] = problem.fixed
    cost = cash.copy()
    cost[order] = problem.price * (1.0 - problem.left[:, None, :])
    made = Programme(problem, members, order, rented, use, runs, ported, width, lower, upper, whole, cash,
                     cost, Rows())  # fmt: skip
    _bind_machines(made)
    _bind_sites_and_supply(made)
    _bind_jobs(made, tight)
    _bind_money(made)
    return made


def _most_nodes(problem: PurchaseProblem) -> Floats:
    """Nodes of a device that could ever be of use: all work in a single month."""
    rate = np.where(problem.rate > 0, problem.rate, np.inf)
    best = np.where(problem.efficiency > 0, problem.efficiency, np.inf).min(axis=1)
    alone = (problem.work[:, None] / rate / np.minimum(best, 1.0)[:, None]).sum(axis=0)
    return np.asarray(np.ceil(alone / np.maximum(problem.survival.min(axis=1), 1e-6)))


def _most_use(problem: PurchaseProblem, members: tuple[tuple[int, int], ...]) -> Floats:
    """Upper bound of each use: what does all the work of a job, 0 where the job cannot run."""
    months = np.arange(problem.months)
    bound = np.zeros((len(problem.jobs), len(members), len(problem.sites), problem.months))
    for j in range(len(problem.jobs)):
        for m, (group, device) in enumerate(members):
            speed = problem.rate[j, device] * problem.efficiency[j, group]
            ready = max(problem.ready[j, i] for i in problem.groups[group])
            open_ = (months >= ready) & (months < problem.deadline[j])
            bound[j, m] = np.where(open_, problem.work[j] / speed if speed > 0 else 0.0, 0.0)
    return bound


def _bind_machines(p: Programme) -> None:
    """Nodes in use are at most those that have arrived and still work, and those rented."""
    problem = p.problem
    for d in range(len(problem.devices)):
        own = [m for m, (_, device) in enumerate(p.members) if device == d]
        for t in range(problem.months):
            placed = np.flatnonzero(problem.usable_from[d] <= t)
            alive = -problem.survival[d, t - problem.usable_from[d, placed]]
            for s in range(len(problem.sites)):
                parts = [(p.use[:, own, s, t], 1.0), (p.order[d, s, placed], alive),
                         (p.rented[d, s, t], -1.0)]  # fmt: skip
                p.rows.add(f"machines {problem.devices[d]}", parts, -np.inf, 0.0)


def _bind_sites_and_supply(p: Programme) -> None:
    problem = p.problem
    device = [d for _, d in p.members]
    for s, site in enumerate(problem.sites):
        for t in range(problem.months):
            if np.isfinite(problem.site_power_w[s, t]):
                watts = np.broadcast_to(
                    problem.power_w[device, s], (len(problem.jobs), len(device))
                )
                p.rows.add(f"power {site}", [(p.use[:, :, s, t], watts)], -np.inf,
                           float(problem.site_power_w[s, t]))  # fmt: skip
            if np.isfinite(problem.space[s, t]):
                arrived = problem.usable_from <= t
                parts = [(p.order[d, s, arrived[d]], 1.0) for d in range(len(problem.devices))]
                p.rows.add(f"space {site}", [*parts, (p.rented[:, s, t], 1.0)], -np.inf,
                           float(problem.space[s, t]))  # fmt: skip
    for d, name in enumerate(problem.devices):
        for t in map(int, np.flatnonzero(np.isfinite(problem.supply[d]))):
            p.rows.add(f"supply {name}", [(p.order[d, :, t], 1.0)], -np.inf,
                       float(problem.supply[d, t]))  # fmt: skip
        if np.isfinite(problem.quota[d]):
            p.rows.add(f"quota {name}", [(p.order[d], 1.0)], -np.inf, float(problem.quota[d]))


def _bind_jobs(p: Programme, tight: bool) -> None:
    """One group at one site per job and month; the work is done by the deadline."""
    problem = p.problem
    for j, job in enumerate(problem.jobs):
        speed = np.array([problem.rate[j, d] * problem.efficiency[j, g] for g, d in p.members])
        for t in range(problem.months):
            p.rows.add(f"group {job}", [(p.runs[j, :, :, t], 1.0)], -np.inf, 1.0)
        done = np.broadcast_to(speed[:, None, None], p.use[j].shape)
        p.rows.add(f"work {job}", [(p.use[j], done)], float(problem.work[j]), np.inf)
        for m, (g, d) in enumerate(p.members):
            for s in range(len(problem.sites)):
                for t in map(int, np.flatnonzero(p.upper[p.use[j, m, s]] > 0)):
                    most = float(p.upper[p.use[j, m, s, t]])
                    if tight:
                        most = min(most, _fitting(problem, d, s, t))
                    p.rows.add("switch", [(p.use[j, m, s, t], 1.0), (p.runs[j, g, s, t], -most)],
                               -np.inf, 0.0)  # fmt: skip
                    if problem.fixed[d] > 0:
                        p.rows.add("porting", [(p.runs[j, g, s, t], 1.0), (p.ported[d], -1.0)],
                                   -np.inf, 0.0)  # fmt: skip


def _fitting(problem: PurchaseProblem, d: int, s: int, t: int) -> float:
    """Nodes of a device that can be in use at a site: as many as its power carries."""
    watts = problem.power_w[d, s]
    return float(problem.site_power_w[s, t] / watts) if watts > 0 else np.inf


def _bind_money(p: Programme) -> None:
    problem = p.problem
    for t in map(int, np.flatnonzero(np.isfinite(problem.budget))):
        upto = slice(0, t + 1)
        columns = [p.order[:, :, upto], p.rented[:, :, upto], p.use[:, :, :, upto], p.ported]
        parts = [(c, p.cash[c]) for c in columns]
        p.rows.add("budget", parts, -np.inf, float(problem.budget[t]))
