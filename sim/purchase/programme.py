"""The purchase problem as plain arrays, and as the rows of a mixed-integer linear programme.

Devices d, sites s, months t, periods p (months, cut at deadlines and the like), jobs j, groups g (sets
of devices that train together). Decided are lots ordered each month (whole), nodes rented,
node-months that a job uses, and which one group at which one site a job runs on in a period: devices
that make no plan together are never added up. A node works from the day on which it stands and wears
out by the expected survival. Not modelled: resale, partial deliveries, idle power, moving machines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ersatz.sim.purchase.periods import CLOSE, Floats

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Cap:
    """A limit on a weighted sum of orders: sum(weight x nodes) <= most."""

    name: str
    weight: Floats  # (D, S, T) per node
    most: float


@dataclass(frozen=True, slots=True)
class PurchaseProblem:
    """What may be bought, what for, and within which limits; all money in one currency.

    Shapes: D devices, S sites, T months, P periods, J jobs, G groups. Infinity means without limit.
    Moments are months from the start.
    """

    devices: tuple[str, ...]
    sites: tuple[str, ...]
    jobs: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]  # devices of each group
    price: Floats  # (D, S, T) per node, paid with the order; duty and fees included
    allowed: Bools  # (D, S, T) the order may be placed
    bounds: Floats  # (P + 1,) turns of the periods; those of the months are among them
    works: Floats  # (D, S, T, P) node-months that a node ordered in a month gives in a period
    loss: Floats  # (D,) share of the nodes that is lost in a month, for good
    lot: Floats  # (D,) nodes that are ordered together
    supply: Floats  # (D, T) nodes that can be ordered in a month
    quota: Floats  # (D,) nodes over all months
    rent: Floats  # (D, S, T) per node-month
    rentable: Floats  # (D, S, T) nodes for rent
    running: Floats  # (D, S, T) per node-month in use: electricity, repair
    power_w: Floats  # (D, S) at the meter, per node in use
    site_power_w: Floats  # (S, T)
    space: Floats  # (S, T) nodes
    budget: Floats  # (T,) that may be spent by the end of a month
    rate: Floats  # (J, D) work per node-month
    efficiency: Floats  # (J, G) of a group against the sum of its devices; 0: no plan
    ready: Floats  # (J, D) moment from which the software of a job runs on a device
    work: Floats  # (J,)
    deadline: Floats  # (J,) moments
    fixed: Floats  # (D,) paid once in the first month when any job uses the device
    left: Floats  # (D, T) share of the price that an order of month t is still worth at the end
    caps: tuple[Cap, ...] = ()  # that a rule counts over several devices

    @property
    def months(self) -> int:
        """Number of months."""
        return int(self.supply.shape[1])

    @property
    def spans(self) -> Floats:
        """Length of each period in months."""
        return np.asarray(np.diff(self.bounds))

    @property
    def month_of(self) -> Ints:
        """The month in which each period lies."""
        return np.asarray(np.floor(self.bounds[:-1] + CLOSE).astype(np.int64))

    @property
    def arrived(self) -> Bools:
        """(D, S, T, P) an order of a month stands at the site by the end of a period."""
        return np.asarray(np.maximum.accumulate(self.works > 0, axis=3))

    def open_periods(self, job: int, devices: Iterable[int]) -> Bools:
        """Return in which periods (P,) a job may run on devices."""
        ready = max(self.ready[job, d] for d in devices)
        return np.asarray((self.bounds[:-1] >= ready - CLOSE)
                          & (self.bounds[1:] <= self.deadline[job] + CLOSE))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Held:
    """The past of a plan that is made anew: orders and use of the months before `month`."""

    month: int
    orders: Floats  # (D, S, T) nodes that were placed and came through
    use: Floats  # (J, G, D, S, P) at most


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
            flat = np.asarray(column, np.int64).ravel()
            columns.append(flat)
            each = np.asarray(value, np.float64).ravel()
            values.append(each if each.size == flat.size else np.repeat(each, flat.size))
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
    order: Ints  # (D, S, T) columns, in lots
    rented: Ints  # (D, S, P) nodes
    use: Ints  # (J, members, S, P) node-months
    runs: Ints  # (J, G, S, P) the job runs on this group at this site
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
    p, of = len(problem.spans), problem.month_of
    shapes = [(d, s, t), (d, s, p), (j, len(members), s, p), (j, g, s, p), (d,)]
    starts = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    order, rented, use, runs, ported = (
        np.arange(a, b).reshape(shape)
        for a, b, shape in zip(starts[:-1], starts[1:], shapes, strict=True)
    )
    width = int(starts[-1])
    lower, upper, whole = np.zeros(width), np.zeros(width), np.zeros(width)
    lots = problem.lot[:, None, None]
    upper[order] = np.where(problem.allowed, np.ceil(_most_nodes(problem) / lots), 0.0)
    upper[rented] = np.minimum(problem.rentable[:, :, of], _most_rented(problem))
    upper[runs], upper[ported] = 1.0, 1.0
    upper[use] = _most_use(problem, members)
    if held:
        past, done = slice(0, held.month), np.flatnonzero(problem.bounds[1:] <= held.month + CLOSE)
        lower[order[:, :, past]] = upper[order[:, :, past]] = held.orders[:, :, past] / lots
        for m, (group, device) in enumerate(members):
            most = held.use[:, group, device][:, :, done]
            upper[use[:, m][:, :, done]] = np.minimum(upper[use[:, m][:, :, done]], most)
    whole[order], whole[runs], whole[ported] = 1.0, 1.0, 1.0
    cash = np.zeros(width)
    cash[order] = problem.price * lots
    cash[rented] = np.where(upper[rented] > 0, problem.rent[:, :, of] * problem.spans, 0.0)
    for m, (_, device) in enumerate(members):
        cash[use[:, m]] = problem.running[device][:, of]
    cash[ported] = problem.fixed
    cost = cash.copy()
    cost[order] = cash[order] * (1.0 - problem.left[:, None, :])
    made = Programme(problem, members, order, rented, use, runs, ported, width, lower, upper, whole, cash,
                     cost, Rows())  # fmt: skip
    _bind_machines(made)
    _bind_sites_and_supply(made)
    _bind_jobs(made, tight)
    _bind_money(made)
    return made


def _alone(problem: PurchaseProblem) -> Floats:
    """Node-months in which a device alone does a job, (J, D); 0 where it cannot."""
    best = np.where(problem.efficiency > 0, problem.efficiency, np.inf).min(axis=1)
    speed = problem.rate * np.minimum(best, 1.0)[:, None]
    return np.asarray(
        np.where(speed > 0, problem.work[:, None] / np.where(speed > 0, speed, 1.0), 0.0)
    )


def _most_nodes(problem: PurchaseProblem) -> Floats:
    """Nodes (D, S, T) that could ever be of use: each job is done in the period that suits it best."""
    alone, most = _alone(problem), np.zeros(problem.price.shape)
    for j in range(len(problem.jobs)):
        for d in np.flatnonzero(alone[j] > 0).tolist():
            best = problem.works[d][:, :, problem.open_periods(j, [d])].max(axis=2, initial=0.0)
            most[d] += alone[j, d] / np.where(best > CLOSE, best, np.inf)
    return np.asarray(np.ceil(most))


def _most_rented(problem: PurchaseProblem) -> Floats:
    """Nodes (D, 1, P) that could be of use if rented: all open work in one period."""
    alone, most = _alone(problem), np.zeros((len(problem.devices), 1, len(problem.spans)))
    for j in range(len(problem.jobs)):
        for d in range(len(problem.devices)):
            most[d, 0] += alone[j, d] / problem.spans * problem.open_periods(j, [d])
    return np.asarray(np.ceil(most))


def _most_use(problem: PurchaseProblem, members: tuple[tuple[int, int], ...]) -> Floats:
    """Upper bound of each use: what does all the work of a job, 0 where the job cannot run."""
    bound = np.zeros((len(problem.jobs), len(members), len(problem.sites), len(problem.spans)))
    for j in range(len(problem.jobs)):
        for m, (group, device) in enumerate(members):
            speed = problem.rate[j, device] * problem.efficiency[j, group]
            open_ = problem.open_periods(j, problem.groups[group])
            bound[j, m] = np.where(open_, problem.work[j] / speed if speed > 0 else 0.0, 0.0)
    return bound


def _bind_machines(p: Programme) -> None:
    """Node-months in use are at most those of the nodes that stand and still work, and those rented."""
    problem = p.problem
    members: dict[int, list[int]] = defaultdict(list)
    for m, (_, device) in enumerate(p.members):
        members[device].append(m)
    for d in range(len(problem.devices)):
        own = members[d]
        for s in range(len(problem.sites)):
            for t, span in enumerate(problem.spans):
                placed = np.flatnonzero(
                    (problem.works[d, s, :, t] > 0) & (p.upper[p.order[d, s]] > 0)
                )
                gives = -problem.works[d, s, placed, t] * problem.lot[d]
                parts = [(p.use[:, own, s, t], 1.0), (p.order[d, s, placed], gives),
                         (p.rented[d, s, t], -span)]  # fmt: skip
                p.rows.add(f"machines {problem.devices[d]}", parts, -np.inf, 0.0)


def _bind_sites_and_supply(p: Programme) -> None:
    problem, lot = p.problem, p.problem.lot
    device = [d for _, d in p.members]
    arrived = problem.arrived
    for s, site in enumerate(problem.sites):
        for t, (month, span) in enumerate(zip(problem.month_of, problem.spans, strict=True)):
            if np.isfinite(problem.site_power_w[s, month]):
                watts = np.broadcast_to(
                    problem.power_w[device, s], (len(problem.jobs), len(device))
                )
                p.rows.add(f"power {site}", [(p.use[:, :, s, t], watts)], -np.inf,
                           float(problem.site_power_w[s, month] * span))  # fmt: skip
            if np.isfinite(problem.space[s, month]):
                parts = [(p.order[d, s, arrived[d, s, :, t]], lot[d])
                         for d in range(len(problem.devices))]  # fmt: skip
                p.rows.add(f"space {site}", [*parts, (p.rented[:, s, t], 1.0)], -np.inf,
                           float(problem.space[s, month]))  # fmt: skip
    for d, name in enumerate(problem.devices):
        for t in map(int, np.flatnonzero(np.isfinite(problem.supply[d]))):
            p.rows.add(f"supply {name}", [(p.order[d, :, t], lot[d])], -np.inf,
                       float(problem.supply[d, t]))  # fmt: skip
        if np.isfinite(problem.quota[d]):
            p.rows.add(f"quota {name}", [(p.order[d], lot[d])], -np.inf, float(problem.quota[d]))
    for cap in problem.caps:
        share = cap.weight * lot[:, None, None] / max(cap.most, 1.0)
        some = share > 0
        p.rows.add(f"quota {cap.name}", [(p.order[some], share[some])], -np.inf,
                   min(cap.most, 1.0))  # fmt: skip


def _bind_jobs(p: Programme, tight: bool) -> None:
    """One group at one site per job and period; the work is done by the deadline."""
    problem = p.problem
    for j, job in enumerate(problem.jobs):
        speed = np.array([problem.rate[j, d] * problem.efficiency[j, g] for g, d in p.members])
        done = np.broadcast_to(speed[:, None, None], p.use[j].shape)
        p.rows.add(f"work {job}", [(p.use[j], done)], float(problem.work[j]), np.inf)
        for t in range(len(problem.spans)):
            if (p.upper[p.use[j, :, :, t]] > 0).any():
                p.rows.add(f"group {job}", [(p.runs[j, :, :, t], 1.0)], -np.inf, 1.0)
                _bind_switches(p, j, t, tight)


def _bind_switches(p: Programme, j: int, t: int, tight: bool) -> None:
    """What a job uses in a period is of the group that is switched on, and its devices are ported."""
    problem = p.problem
    for m, (g, d) in enumerate(p.members):
        for s in range(len(problem.sites)):
            most = float(p.upper[p.use[j, m, s, t]])
            if most > 0:
                most = min(most, _fitting(problem, d, s, t)) if tight else most
                p.rows.add("switch", [(p.use[j, m, s, t], 1.0), (p.runs[j, g, s, t], -most)],
                           -np.inf, 0.0)  # fmt: skip
    for d in map(int, np.flatnonzero(problem.fixed > 0)):
        groups = [g for g, members in enumerate(problem.groups) if d in members]
        p.rows.add("porting", [(p.runs[j, groups, :, t], 1.0), (p.ported[d], -1.0)], -np.inf, 0.0)


def _fitting(problem: PurchaseProblem, d: int, s: int, t: int) -> float:
    """Node-months of a device that a site can feed in a period."""
    watts = problem.power_w[d, s]
    power = problem.site_power_w[s, problem.month_of[t]] * problem.spans[t]
    return float(power / watts) if watts > 0 else np.inf


def _bind_money(p: Programme) -> None:
    problem, of = p.problem, p.problem.month_of
    for t in map(int, np.flatnonzero(np.isfinite(problem.budget))):
        by = of <= t
        columns = [p.order[:, :, : t + 1], p.rented[:, :, by], p.use[:, :, :, by], p.ported]
        parts = [(c, p.cash[c]) for c in columns]
        p.rows.add("budget", parts, -np.inf, float(problem.budget[t]))
