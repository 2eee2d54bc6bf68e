"""A build-out: what is on offer, where it may stand, what it is for; and its purchase problem.

Descriptions only: the programme plans with them and the replay lets them happen. Time is counted in
months of 1/12 year from the start. A gate tells what the rules say of a device at a date; a planner
asks it with what is known on the day of planning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import partial

import numpy as np

from ersatz.sim.job.cost import value_after
from ersatz.sim.law.rule import Quota
from ersatz.sim.purchase.caps import Counted, shared_caps
from ersatz.sim.purchase.periods import Floats, arrival_cuts, given, next_turn, period_bounds
from ersatz.sim.purchase.programme import Bools, PurchaseProblem
from ersatz.sim.purchase.rates import Throughput
from ersatz.sim.scenario.defaults import default_of

MONTH_S = 2_629_800.0
DAY_S = 86_400.0
MONTH_DAYS = MONTH_S / DAY_S


@dataclass(frozen=True, slots=True)
class Answer:
    """What the rules say of one device, destination and date."""

    policy: str  # free, notify, case or denied
    rules: tuple[str, ...] = ()
    words: str = ""
    surcharge: float = 0.0  # fee and duty, share of the price
    notice_days: float = 0.0  # before which nothing may leave
    presumed: bool = False  # a licence that is presumed to be approved
    quota: float = math.inf  # devices in all that leave on these terms
    sums: tuple[Quota, ...] = ()  # that the rules count over all devices together


Gate = Callable[["Offer", "Site", date], Answer]


@dataclass(frozen=True, slots=True)
class Offer:
    """A node that can be bought or rented; money per node in the build-out's currency."""

    name: str
    title: str
    device: str  # of the catalogue, for the rules; empty when it is none
    per_node: int
    price: tuple[float, ...]  # (months,) with network and other shares; infinite: not for sale
    network_share: float  # of the price above
    rent: float  # per device-hour; infinite: not for rent
    rentable: float  # nodes
    lead_s: float  # from the order to the export
    transit_s: float  # from the export to the site, installation included
    supply: tuple[float, ...]  # (months,) nodes
    quota: float  # nodes
    failure_rate: float  # per device and second
    repaired: float  # share of failed devices
    repair_s: float
    repair_share: float  # of a device's price, per repair
    watts: float  # per device in use, without cooling; the plan's where that is known
    porting_cost: float
    porting_s: float
    domestic: bool  # made where it is used: no export
    lot: int = 1  # nodes that are ordered together
    powered_rent: bool = True  # the rent includes electricity
    standing: bool = False  # machines for rent that are there already
    licence_s: tuple[float, float] = (0.0, 0.0)  # wait for one presumed approved, for one decided
    sites: tuple[str, ...] = ()  # where it can be had; empty: everywhere

    def is_at(self, site: str) -> bool:
        """Tell whether it can be had at a site."""
        return not self.sites or site in self.sites

    @property
    def for_sale(self) -> bool:
        """Tell whether it can be bought in any month."""
        return any(map(math.isfinite, self.price))

    @property
    def delay_s(self) -> float:
        """Time from an order to a node that works."""
        return self.lead_s + self.transit_s


@dataclass(frozen=True, slots=True)
class Site:
    """Where machines stand."""

    name: str
    country: str
    power_w: float
    space: float  # nodes
    energy_price: float  # money per joule
    pue: float
    carbon: float  # kg per joule


@dataclass(frozen=True, slots=True)
class Job:
    """What the machines are for."""

    name: str
    tokens: float
    deadline: float  # months
    throughputs: tuple[Throughput, ...]

    def speed(self, group: tuple[str, ...], device: str) -> float:
        """Return tokens per second of one device within a group; 0 without a plan."""
        for known in self.throughputs:
            if known.devices == group:
                return known.tokens_per_s[device] * known.efficiency
        return 0.0


@dataclass(frozen=True, slots=True)
class BuildOut:
    """Everything that a plan is made from."""

    question: str
    seed: int
    currency: str
    start: date
    months: int
    budget: tuple[float, ...]  # (months,) to be spent by the end of each
    count: str  # cash, or use: cash less what the machines are worth at the end
    objective: str  # cost, time or pareto
    offers: tuple[Offer, ...]
    sites: tuple[Site, ...]
    jobs: tuple[Job, ...]
    count_on_licences: bool | None  # which licences the plan takes as granted; None: the presumed
    gap: float
    time_limit_s: float
    embodied_kg: float = field(default_factory=partial(default_of, "embodied_per_device"))  # each
    device_life_s: float = field(default_factory=partial(default_of, "device_life"))
    # of what machines are worth, in orders of magnitude a year
    value_decay: float = field(default_factory=partial(default_of, "value_decay"))

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Groups of devices that some job has a plan for."""
        found = dict.fromkeys(t.devices for job in self.jobs for t in job.throughputs)
        return tuple(found)

    def day(self, months: float) -> date:
        """Return the date that many months after the start."""
        return self.start + timedelta(days=months * MONTH_DAYS)

    def date_at(self, days: float) -> date:
        """Return the date that many days after the start."""
        return self.start + timedelta(days=math.floor(days))


def watts_of(buildout: BuildOut, offer: Offer) -> float:
    """Return the power of one device in use: the largest that a plan of any job asks."""
    known = [t.watts[offer.name] for job in buildout.jobs for t in job.throughputs
             if offer.name in t.devices]  # fmt: skip
    return max(known, default=offer.watts)


def counted_on(buildout: BuildOut, answer: Answer) -> bool:
    """Tell whether the plan takes it that an order may leave: free, or a licence it counts on."""
    if answer.policy != "case":
        return answer.policy in ("free", "notify")
    counted = buildout.count_on_licences
    return answer.presumed if counted is None else counted


def licence_days(offer: Offer, answer: Answer) -> float:
    """Return the days that an order waits for a notice or a licence before it leaves."""
    waited = (
        offer.licence_s[0 if answer.presumed else 1] / DAY_S if answer.policy == "case" else 0.0
    )
    return max(answer.notice_days, waited)


def permitted(buildout: BuildOut, gate: Gate) -> tuple[Bools, Floats, Floats]:
    """Return which orders may leave, their surcharge, and the days that they wait before that.

    Each is (devices, sites, months). What had to wait is judged again on the day on which it leaves.
    """
    shape = (len(buildout.offers), len(buildout.sites), buildout.months)
    allowed, surcharge, wait = np.ones(shape, dtype=bool), np.zeros(shape), np.zeros(shape)
    for d, offer in enumerate(buildout.offers):
        for s, site in enumerate(buildout.sites):
            for t in range(buildout.months):
                day = t * MONTH_DAYS + offer.lead_s / DAY_S
                answer = gate(offer, site, buildout.date_at(day))
                wait[d, s, t] = licence_days(offer, answer)
                later = gate(offer, site, buildout.date_at(day + wait[d, s, t]))
                allowed[d, s, t] = (
                    counted_on(buildout, answer) and later.policy != "denied"
                    and math.isfinite(offer.price[t]) and offer.is_at(site.name)
                )  # fmt: skip
                surcharge[d, s, t] = answer.surcharge
    return allowed, surcharge, wait


def works_from(buildout: BuildOut, gate: Gate, offer: Offer, site: Site, month: int) -> date:
    """Return the day on which an order of a month works, a notice or licence included."""
    day = month * MONTH_DAYS + offer.lead_s / DAY_S
    wait = licence_days(offer, gate(offer, site, buildout.date_at(day)))
    return buildout.date_at(day + wait + offer.transit_s / DAY_S)


def purchase_problem(buildout: BuildOut, gate: Gate) -> PurchaseProblem:
    """Return the purchase problem of a build-out under the rules that `gate` tells of."""
    offers, sites, jobs, months = buildout.offers, buildout.sites, buildout.jobs, buildout.months
    groups = buildout.groups
    names = [offer.name for offer in offers]
    allowed, surcharge, wait = permitted(buildout, gate)
    bounds, works = standing(buildout, allowed, wait)
    price = np.array([[[p if math.isfinite(p) else 0.0 for p in o.price]] * len(sites)
                      for o in offers])  # fmt: skip
    power = np.array([[watts_of(buildout, o) * o.per_node * s.pue for s in sites] for o in offers])
    energy = power * np.array([s.energy_price for s in sites]) * MONTH_S
    repairs = [
        o.failure_rate * o.repaired * MONTH_S * o.repair_share * _mean_price(o) for o in offers
    ]
    bare = np.array([1.0 / (1.0 + o.network_share) for o in offers])[:, None, None]
    legal_rent = np.array([[[o.is_at(s.name) and gate(o, s, buildout.day(t)).policy != "denied"
                             for t in range(months)] for s in sites] for o in offers])  # fmt: skip
    left_age = (months - np.arange(months)) / 12.0
    worth = np.array(
        [
            value_after(1.0, buildout.value_decay, age) if buildout.count == "use" else 0.0
            for age in left_age
        ]
    )
    return PurchaseProblem(
        devices=tuple(names), sites=tuple(s.name for s in sites), jobs=tuple(j.name for j in jobs),
        groups=tuple(tuple(names.index(n) for n in group) for group in groups),
        price=price * (1.0 + surcharge * bare), allowed=allowed, bounds=bounds, works=works,
        loss=losses(buildout), lot=np.array([float(o.lot) for o in offers]),
        supply=np.array([o.supply for o in offers]), quota=np.array([o.quota for o in offers]),
        rent=np.repeat(_rents(buildout, energy)[:, :, None], months, axis=2),
        rentable=_tiled([o.rentable if math.isfinite(o.rent) else 0.0 for o in offers],
                        len(sites), months) * legal_rent,
        running=np.repeat((energy + np.array(repairs)[:, None])[:, :, None], months, axis=2),
        power_w=power, site_power_w=np.array([[s.power_w] * months for s in sites]),
        space=np.array([[s.space] * months for s in sites]), budget=np.array(buildout.budget),
        rate=np.array([[_alone(j, o) * o.per_node * MONTH_S for o in offers] for j in jobs]),
        efficiency=np.array([[_efficiency(j, group) for group in groups] for j in jobs]),
        ready=np.array([[o.porting_s / MONTH_S for o in offers] for _ in jobs]),
        work=np.array([j.tokens for j in jobs]), deadline=np.array([j.deadline for j in jobs]),
        fixed=np.array([o.porting_cost for o in offers]),
        left=np.tile(worth, (len(offers), 1)),
        caps=shared_caps(_counted(buildout, gate, allowed, wait), allowed.shape),
    )  # fmt: skip


def _counted(buildout: BuildOut, gate: Gate, allowed: Bools, wait: Floats) -> Iterator[Counted]:
    """Yield each order that may leave with each sum in which the rules count it."""
    for d, s, t in np.argwhere(allowed).tolist():
        offer, site = buildout.offers[d], buildout.sites[s]
        left = buildout.date_at(t * MONTH_DAYS + offer.lead_s / DAY_S + wait[d, s, t])
        for quota in gate(offer, site, left).sums:
            yield Counted((d, s, t), quota, site.country, left.year, offer.per_node)


def standing(buildout: BuildOut, allowed: Bools, wait: Floats) -> tuple[Floats, Floats]:
    """Return the turns of the plan's periods, and the node-months (D, S, T, P) that an order gives.

    `wait` are the days (D, S, T) before an order that is `allowed` leaves, besides its lead time.
    """
    b, months = buildout, buildout.months
    delay = np.array([o.delay_s for o in b.offers])[:, None, None] / DAY_S + wait
    arrivals = np.arange(months) + delay / MONTH_DAYS
    limited = np.array([math.isfinite(site.power_w) for site in b.sites])
    cuts = [job.deadline for job in b.jobs] + [o.porting_s / MONTH_S for o in b.offers]
    bounds = period_bounds(
        months, [*cuts, *arrival_cuts(arrivals[limited[:, None] & allowed], months)]
    )
    counted = np.where(limited[:, None], next_turn(arrivals, bounds), arrivals)
    return bounds, given(arrivals, bounds, losses(b)[:, None, None], counted)


def losses(buildout: BuildOut) -> Floats:
    """Return the share of each offer's devices (D,) that is lost in a month: those not repaired."""
    return np.array([o.failure_rate * (1.0 - o.repaired) * MONTH_S for o in buildout.offers])


def prolonged(buildout: BuildOut, months: int) -> BuildOut:
    """Return a build-out that may take some months more: what holds in its last month goes on."""
    b, more = buildout, months
    rise = b.budget[-1] - (b.budget[-2] if len(b.budget) > 1 else 0.0)
    rise = rise if math.isfinite(rise) else 0.0
    offers = tuple(replace(o, price=o.price + (o.price[-1],) * more,
                           supply=o.supply + (o.supply[-1],) * more) for o in b.offers)  # fmt: skip
    return replace(
        b, months=b.months + more, offers=offers,
        budget=b.budget + tuple(b.budget[-1] + rise * (i + 1) for i in range(more)),
        jobs=tuple(replace(job, deadline=job.deadline + more) for job in b.jobs),
    )  # fmt: skip


def _rents(buildout: BuildOut, energy: Floats) -> Floats:
    """Return the rent (D, S) of a node for a month, without the electricity that it includes."""
    rents = np.array([o.rent * o.per_node * MONTH_S / 3600.0 if math.isfinite(o.rent) else 0.0
                      for o in buildout.offers])[:, None]  # fmt: skip
    powered = np.array([o.powered_rent for o in buildout.offers])[:, None]
    return np.asarray(np.maximum(rents - energy * powered, 0.0))


def _mean_price(offer: Offer) -> float:
    """Return the mean price of a node without its network."""
    known = [p for p in offer.price if math.isfinite(p)]
    return math.fsum(known) / len(known) / (1.0 + offer.network_share) if known else 0.0


def _tiled(values: list[float], sites: int, months: int) -> Floats:
    return np.tile(np.array(values)[:, None, None], (1, sites, months))


def _alone(job: Job, offer: Offer) -> float:
    known = (t.tokens_per_s[offer.name] for t in job.throughputs if offer.name in t.devices)
    return max(known, default=0.0)


def _efficiency(job: Job, group: tuple[str, ...]) -> float:
    return next((t.efficiency for t in job.throughputs if t.devices == group), 0.0)
