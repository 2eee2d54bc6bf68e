"""The fleet of a build-out while it lives: machines that fail and return, jobs that use them.

State only: the replay joins machines and turns the clock; between two of its events the fleet
advances in closed form. Devices fail by the exponential law; a share comes back after its repair.
Each job has the share of the machines that the plan gives it in a period, and what of these nobody
else has. A job that is behind the plan takes the fastest group of what nobody else has, one far behind
that of all that is free, in the order of deadlines, as far as the site's power goes.
Not modelled: idle power, moving machines, faults of one job alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ersatz.sim.purchase.buildout import DAY_S, MONTH_DAYS, BuildOut, watts_of
from ersatz.sim.purchase.events import Draw
from ersatz.sim.purchase.periods import CLOSE, Floats
from ersatz.sim.purchase.purchase import Purchase

BEHIND = 1e-5  # share of a job's work: less than a clock or a solver tells
FAR_BEHIND = 0.02  # from where a job takes machines that the plan gives to less urgent ones
PARTS = ("machines", "network", "fees and duty", "smuggler's premium", "rent", "electricity", "repair",
         "porting")  # fmt: skip


@dataclass(slots=True)
class Account:
    """What was used and paid so far."""

    cost: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    kwh: float = 0.0
    carbon_kg: float = 0.0
    device_hours: float = 0.0


class LivingFleet:
    """Working devices (D, S), the jobs' progress (J,), and what they consume."""

    def __init__(self, buildout: BuildOut, plan: Purchase, draw: Draw) -> None:
        b, offers = buildout, buildout.offers
        self.b, self.plan = b, plan
        names = [offer.name for offer in offers]
        self.groups = [tuple(names.index(n) for n in group) for group in b.groups]
        self.member = np.array([[d in g for d in range(len(offers))] for g in self.groups], float)
        speed = draw.get("throughput", 1.0) * DAY_S  # tokens per day and device: (J, G, D)
        self.speed = np.array([[[job.speed(g, n) if n in g else 0.0 for n in names]
                                for g in b.groups] for job in b.jobs]) * speed  # fmt: skip
        self.planned = np.atleast_1d(
            plan.use.any(axis=(1, 2, 3, 4))
        )  # jobs that the plan gives machines
        self.order = sorted(range(len(b.jobs)), key=lambda j: (b.jobs[j].deadline, j))
        self.per_node = np.array([offer.per_node for offer in offers], float)
        self.watts = np.array([watts_of(b, offer) for offer in offers])
        self.pue = np.array([site.pue for site in b.sites])
        self.power = np.array([site.power_w for site in b.sites])
        self.energy = np.array([s.energy_price for s in b.sites]) * draw.get("energy_price", 1.0)
        self.rent_factor = draw.get("rent", 1.0)
        self.hazard = np.array([offer.failure_rate * DAY_S for offer in offers])
        self.hazard *= draw.get("failure_rate", 1.0)
        self.repaired = np.array([draw.get("repaired", offer.repaired) for offer in offers])
        self.repair_days = np.array([offer.repair_s / DAY_S for offer in offers])
        self.ready = np.array([offer.porting_s / DAY_S for offer in offers])
        self.ready *= draw.get("porting_delay", 1.0)
        self.chance = (
            None if draw.seed is None else {c: draw.stream(c) for c in ("failure", "repair")}
        )
        self.alive = np.zeros((len(offers), len(b.sites)))
        self.lost = np.zeros(len(offers))  # failed for good
        self.returning: list[tuple[float, Floats]] = []  # (day of failure, devices)
        self.done = np.zeros(len(b.jobs))
        self.finish = [math.inf] * len(b.jobs)  # months
        self.ported: set[int] = set()
        self.account = Account()
        self.since = 0.0  # day

    def advance(self, now: float) -> None:
        """Let machines fail and jobs work from the last event until day `now`."""
        days = now - self.since
        if days <= 0:
            return
        before = self.alive.copy()
        if before.any():
            self._fail(now, days)
        self._train(self._mean(before, days), days)
        self.since = now

    def _mean(self, before: Floats, days: float) -> Floats:
        """Return the machines that work on average between two events."""
        if self.chance is not None:
            return np.asarray(0.5 * (before + self.alive))
        loss = (self.hazard * (1.0 - self.repaired) * days)[:, None]
        some = loss > 0
        return np.asarray(
            before * np.where(some, -np.expm1(-loss) / np.where(some, loss, 1.0), 1.0)
        )

    def come_back(self, now: float) -> None:
        """Return repaired devices, at the first turn of a month after their repair."""
        still = []
        for day, devices in self.returning:
            due = (day + self.repair_days <= now + 1e-9)[:, None]
            self.alive += np.where(due, devices, 0.0)
            rest = np.where(due, 0.0, devices)
            if rest.any():
                still.append((day, rest))
        self.returning = still

    def _fail(self, now: float, days: float) -> None:
        """Thin the fleet by the exponential law."""
        if (
            self.chance is None
        ):  # expected numbers: the repaired never seem to be away, as in the plan
            gone = -self.alive * np.expm1(-self.hazard * (1.0 - self.repaired) * days)[:, None]
            self.alive -= gone
            self.lost += gone.sum(axis=1)
            self._pay_repairs(self.alive.sum(axis=1) * self.hazard * self.repaired * days)
            return
        share = -np.expm1(-self.hazard * days)[:, None]
        dead = self.chance["failure"].binomial(self.alive.astype(np.int64), share)
        mended = self.chance["repair"].binomial(dead, self.repaired[:, None]).astype(float)
        self.alive -= dead
        self.lost += (dead - mended).sum(axis=1)
        self._pay_repairs(mended.sum(axis=1))
        if mended.any():
            self.returning.append((now, mended))

    def _pay_repairs(self, devices: Floats) -> None:
        for offer, count in zip(self.b.offers, devices, strict=True):
            if count and offer.repair_share:
                price = next((p for p in reversed(offer.price) if math.isfinite(p)), 0.0)
                each = offer.repair_share * price / (1.0 + offer.network_share) / offer.per_node
                self.account.cost["repair"] += float(count) * each

    def _train(self, mean: Floats, days: float) -> None:
        """Give the machines to the jobs in the order of their deadlines."""
        period = self._period()
        rented = self.plan.rented[:, :, self._renting(period)] * self.per_node[:, None]
        there = mean + rented
        free, power = there.copy(), self.power.copy()
        for j in self.order:
            if math.isfinite(self.finish[j]):
                continue
            g, s, taken, feed = self._choose(j, period, there, free, power)
            watts = float((taken * self.watts).sum() * self.pue[s])
            fed = min(1.0, feed / watts) if watts > 0 else 1.0
            speed = float(self.speed[j, g] @ taken) * fed
            if speed <= 0:
                continue
            left = self.b.jobs[j].tokens - self.done[j]
            share = min(left / (speed * days), 1.0)
            self.done[j] += min(speed * days, left)
            if left <= speed * days + BEHIND * self.b.jobs[j].tokens:
                self.finish[j] = (self.since + share * days) / MONTH_DAYS
            power[s] -= fed * watts
            free[:, s] -= taken
            hired = np.where(there[:, s] > 0, rented[:, s] / np.maximum(there[:, s], 1e-9), 0.0)
            self._use(g, s, taken, hired, days * share * fed)

    def _period(self) -> int:
        """Return the plan's period of now; after the last one their number."""
        return int(np.searchsorted(self.plan.bounds, self.since / MONTH_DAYS + CLOSE, "right")) - 1

    def _renting(self, period: int) -> int:
        """Return the period whose rents hold: after the last they go on until the jobs are done."""
        rents = np.flatnonzero(self.plan.rented.any(axis=(0, 1)))
        last = int(rents[-1]) if len(rents) else self.plan.rented.shape[2] - 1
        return min(period, last)

    def _choose(
        self, j: int, period: int, there: Floats, free: Floats, power: Floats
    ) -> tuple[int, int, Floats, float]:
        """Return (group, site, devices (D,), watts) that a job has."""
        ready = np.asarray(self.ready <= self.since + CLOSE * MONTH_DAYS)
        behind = self._behind(j, period) if self.planned[j] else 1.0
        pool, feed = free, power
        if behind <= FAR_BEHIND:
            claims = self._claims(j, period, there)
            pool = np.maximum(free - claims, 0.0)
            feed = power - np.minimum((claims * self.watts[:, None]).sum(axis=0) * self.pue, power)
        runs = np.array([all(ready[d] for d in group) for group in self.groups])
        if behind < BEHIND:
            g, s = self._planned(j, period)
            kept = (
                pool[:, s]
                * self.member[g]
                * (runs[g] and self.plan.share[j, g, :, s, period].any())
            )
            return g, s, kept, float(feed[s])
        fed = np.minimum(1.0, feed / np.maximum(self._draws(pool), 1e-9))
        rates = (self.speed[j] * ready) @ pool * fed * runs[:, None]
        g, s = divmod(int(np.argmax(rates)), rates.shape[1])
        return g, s, pool[:, s] * self.member[g] * (rates[g, s] > 0), float(feed[s])

    def _claims(self, j: int, period: int, there: Floats) -> Floats:
        """Return the machines (D, S) that the plan gives to the jobs that are served after this one."""
        later = self.order[self.order.index(j) + 1 :]
        others = [k for k in later if not math.isfinite(self.finish[k])]
        if not others or period >= len(self.plan.bounds) - 1:
            return np.zeros_like(there)
        return np.asarray(self.plan.share[others, :, :, :, period].sum(axis=(0, 1)) * there)

    def _planned(self, j: int, period: int) -> tuple[int, int]:
        """Return the group and the site on which the plan runs a job in a period."""
        use = self.plan.use[j, :, :, :, period].sum(axis=1)  # (G, S)
        g, s = divmod(int(np.argmax(use)), use.shape[1])
        return g, s

    def _behind(self, j: int, period: int) -> float:
        """Return by which share of its work a job is behind the plan of this period's beginning."""
        if period >= len(self.plan.bounds) - 1:
            return 1.0
        due = self.plan.work_done[j, period - 1] if period else 0.0
        return float(due - self.done[j]) / self.b.jobs[j].tokens

    def _draws(self, free: Floats) -> Floats:
        """Return the watts at the meter of every group at every site (G, S)."""
        return np.asarray(self.member @ (free * self.watts[:, None] * self.pue))

    def _use(self, g: int, s: int, taken: Floats, hired: Floats, days: float) -> None:
        """Use machines (D,), of which a share is hired, for a while: electricity, rent, emissions."""
        account, site = self.account, self.b.sites[s]
        for d in self.groups[g]:
            devices, offer = taken[d], self.b.offers[d]
            kwh = devices * self.watts[d] * site.pue * days * 24.0 / 1e3
            account.kwh += kwh
            own = kwh * (1.0 - hired[d] * offer.powered_rent)
            account.cost["electricity"] += own * 3.6e6 * self.energy[s]
            account.carbon_kg += kwh * 3.6e6 * site.carbon
            account.device_hours += devices * days * 24.0
            if hired[d] > 0:
                rent = offer.rent * self.rent_factor
                account.cost["rent"] += devices * hired[d] * rent * days * 24.0
            if d not in self.ported and devices:
                self.ported.add(d)
                account.cost["porting"] += offer.porting_cost
