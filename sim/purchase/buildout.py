"""A build-out: what is on offer, where it may stand, what it is for; and its purchase problem.

Descriptions only: the programme plans with them and the replay lets them happen. Time is counted in
months of 1/12 year from the start. A gate tells what the rules say of a device at a date; a planner
asks it with what is known on the day of planning.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from ersatz.sim.job.cost import YEAR_S, value_after
from ersatz.sim.purchase.programme import Bools, Floats, Ints, PurchaseProblem
from ersatz.sim.purchase.rates import Throughput

MONTH_S = 2_629_800.0
DAY_S = 86_400.0
MONTH_DAYS = MONTH_S / DAY_S
VALUE_DECAY = 0.14  # orders of magnitude a year (Epoch AI)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the rules say of one device, destination and date."""

    policy: str  # free, notify, case or denied
    rules: tuple[str, ...] = ()
    words: str = ""
    surcharge: float = 0.0  # fee and duty, share of the price
    notice_days: float = 0.0  # before which nothing may leave


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
    deadline: int  # months
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
    count_on_licences: bool  # plan as if every case-by-case licence were granted
    gap: float
    time_limit_s: float
    embodied_kg: float = 164.0  # per device
    device_life_s: float = 4 * YEAR_S

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


def kept(offer: Offer, age_s: float) -> float:
    """Return the expected share of devices that work at an age: exp(-rate (1 - repaired) age).

    >>> from dataclasses import replace
    >>> round(math.exp(-0.09 * 3), 3)
    0.763
    """
    return math.exp(-offer.failure_rate * (1.0 - offer.repaired) * age_s)


def permitted(buildout: BuildOut, gate: Gate) -> tuple[Bools, Floats, Floats]:
    """Return which orders may leave, their surcharge, and the days of notice before that.

    Each is (devices, sites, months). A case-by-case licence counts only if the planner counts on it.
    """
    shape = (len(buildout.offers), len(buildout.sites), buildout.months)
    allowed, surcharge = np.ones(shape, dtype=bool), np.zeros(shape)
    notice = np.zeros(shape)
    good = ("free", "notify", "case") if buildout.count_on_licences else ("free", "notify")
    for d, offer in enumerate(buildout.offers):
        for s, site in enumerate(buildout.sites):
            for t in range(buildout.months):
                leaves = buildout.date_at(t * MONTH_DAYS + offer.lead_s / DAY_S)
                answer = gate(offer, site, leaves)
                allowed[d, s, t] = (
                    answer.policy in good
                    and math.isfinite(offer.price[t])
                    and offer.is_at(site.name)
                )
                surcharge[d, s, t] = answer.surcharge
                notice[d, s, t] = answer.notice_days
    return allowed, surcharge, notice


def works_from(buildout: BuildOut, gate: Gate, offer: Offer, site: Site, month: int) -> date:
    """Return the day on which an order of a month works, a notice included."""
    day = month * MONTH_DAYS + offer.lead_s / DAY_S
    notice = gate(offer, site, buildout.date_at(day)).notice_days
    return buildout.date_at(day + notice + offer.transit_s / DAY_S)


def purchase_problem(buildout: BuildOut, gate: Gate) -> PurchaseProblem:
    """Return the purchase problem of a build-out under the rules that `gate` tells of."""
    offers, sites, jobs, months = buildout.offers, buildout.sites, buildout.jobs, buildout.months
    groups = buildout.groups
    names = [offer.name for offer in offers]
    allowed, surcharge, notice = permitted(buildout, gate)
    price = np.array([[[p if math.isfinite(p) else 0.0 for p in o.price]] * len(sites)
                      for o in offers])  # fmt: skip
    ages = (np.arange(months) + 0.5) * MONTH_S
    power = np.array([[watts_of(buildout, o) * o.per_node * s.pue for s in sites] for o in offers])
    energy = power * np.array([s.energy_price for s in sites]) * MONTH_S
    repairs = [o.per_node * o.failure_rate * o.repaired * MONTH_S * o.repair_share
               * _mean_price(o) / o.per_node for o in offers]  # fmt: skip
    legal_rent = np.array([[[o.is_at(s.name) and gate(o, s, buildout.day(t)).policy != "denied"
                             for t in range(months)] for s in sites] for o in offers])  # fmt: skip
    left_age = (months - np.arange(months)) / 12.0
    worth = np.array(
        [value_after(1.0, VALUE_DECAY, age) if buildout.count == "use" else 0.0 for age in left_age]
    )
    return PurchaseProblem(
        devices=tuple(names), sites=tuple(s.name for s in sites), jobs=tuple(j.name for j in jobs),
        groups=tuple(tuple(names.index(n) for n in group) for group in groups),
        price=price * (1.0 + surcharge), allowed=allowed, usable_from=usable_from(buildout, notice),
        supply=np.array([o.supply for o in offers]), quota=np.array([o.quota for o in offers]),
        survival=np.array([[kept(o, age) for age in ages] for o in offers]),
        rent=_tiled([o.rent * o.per_node * MONTH_S / 3600.0 if math.isfinite(o.rent) else 0.0
                     for o in offers], len(sites), months),
        rentable=_tiled([o.rentable if math.isfinite(o.rent) else 0.0 for o in offers],
                        len(sites), months) * legal_rent,
        running=np.repeat((energy + np.array(repairs)[:, None])[:, :, None], months, axis=2),
        power_w=power, site_power_w=np.array([[s.power_w] * months for s in sites]),
        space=np.array([[s.space] * months for s in sites]), budget=np.array(buildout.budget),
        rate=np.array([[_alone(j, o) * o.per_node * MONTH_S for o in offers] for j in jobs]),
        efficiency=np.array([[_efficiency(j, group) for group in groups] for j in jobs]),
        ready=np.array([[math.ceil(o.porting_s / MONTH_S) for o in offers] for _ in jobs]),
        work=np.array([j.tokens for j in jobs]), deadline=np.array([j.deadline for j in jobs]),
        fixed=np.array([o.porting_cost for o in offers]),
        left=np.tile(worth, (len(offers), 1)),
    )  # fmt: skip


def usable_from(buildout: BuildOut, notice: Floats) -> Ints:
    """Return the first whole month in which an order of each month works, (devices, months)."""
    extra = notice.max(axis=1) * DAY_S
    wait = np.array([o.delay_s for o in buildout.offers])[:, None] + extra
    whole = np.ceil(wait / MONTH_S - 1e-9).astype(np.int64)
    return np.asarray(whole + np.arange(buildout.months)[None])


def _mean_price(offer: Offer) -> float:
    known = [p for p in offer.price if math.isfinite(p)]
    return math.fsum(known) / len(known) if known else 0.0


def _tiled(values: list[float], sites: int, months: int) -> Floats:
    return np.tile(np.array(values)[:, None, None], (1, sites, months))


def _alone(job: Job, offer: Offer) -> float:
    known = (t.tokens_per_s[offer.name] for t in job.throughputs if offer.name in t.devices)
    return max(known, default=0.0)


def _efficiency(job: Job, group: tuple[str, ...]) -> float:
    return next((t.efficiency for t in job.throughputs if t.devices == group), 0.0)
