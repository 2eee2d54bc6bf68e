"""The fleet of a build-out while it lives: machines that fail and return, jobs that use them.

State only: the replay joins machines and turns the clock; between two of its events the fleet
advances in closed form. Devices fail by the exponential law; a share comes back after its repair.
Each job runs on the group that the plan names, or on the fastest one once it is behind the plan,
as far as the site's power goes. Not modelled: idle power, moving machines, faults of one job alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ersatz.sim.purchase.buildout import DAY_S, MONTH_DAYS, BuildOut, watts_of
from ersatz.sim.purchase.events import Draw
from ersatz.sim.purchase.programme import Floats
from ersatz.sim.purchase.purchase import Purchase

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
        self.order = sorted(range(len(b.jobs)), key=lambda j: (b.jobs[j].deadline, j))
        self.per_node = np.array([offer.per_node for offer in offers], float)
        self.watts = np.array([watts_of(b, offer) for offer in offers])
        self.pue = np.array([site.pue for site in b.sites])
        self.power = np.array([site.power_w for site in b.sites])
        self.energy = np.array([s.energy_price for s in b.sites]) * draw.get("energy_price", 1.0)
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
        self._train(0.5 * (before + self.alive), days)
        self.since = now

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
                each = offer.repair_share * price / offer.per_node
                self.account.cost["repair"] += float(count) * each

    def _train(self, mean: Floats, days: float) -> None:
        """Give the machines to the jobs in the order of their deadlines."""
        month = int(self.since / MONTH_DAYS + 1e-9)
        rented = self.plan.rented[:, :, self._renting(month)] * self.per_node[:, None]
        free, power = mean + rented, self.power.copy()
        for j in self.order:
            if math.isfinite(self.finish[j]):
                continue
            g, s, speed, fed = self._choose(j, month, free, power)
            if speed <= 0:
                continue
            left = self.b.jobs[j].tokens - self.done[j]
            share = min(left / (speed * days), 1.0)
            self.done[j] += min(speed * days, left)
            if left <= speed * days:
                self.finish[j] = (self.since + share * days) / MONTH_DAYS
            power[s] -= fed * self._draws(free)[g, s]
            self._use(g, s, free, rented, days * share * fed)

    def _renting(self, month: int) -> int:
        """Return the month whose rents hold: after the last one they go on until the jobs are done."""
        rents = np.flatnonzero(self.plan.rented.any(axis=(0, 1)))
        last = int(rents[-1]) if len(rents) else self.b.months - 1
        return min(month, last)

    def _choose(
        self, j: int, month: int, free: Floats, power: Floats
    ) -> tuple[int, int, float, float]:
        """Return (group, site, tokens per day, share that the site's power feeds).

        The group is the plan's while the job is on time, else the fastest.
        """
        ready = self.ready <= self.since + 1e-9
        fed = np.minimum(1.0, power / np.maximum(self._draws(free), 1e-9))
        rates = (self.speed[j] * ready) @ free * fed
        rates[[not all(ready[d] for d in group) for group in self.groups]] = 0.0
        chosen = int(np.argmax(rates))
        behind = self.done[j] < self._due(j) - 1e-6 * self.b.jobs[j].tokens
        if month < self.b.months and not behind:
            use = self.plan.use[j, :, :, :, month].sum(axis=1)  # (G, S)
            wanted = int(np.argmax(use))
            if use.flat[wanted] > 0 and rates.flat[wanted] > 0:
                chosen = wanted
        g, s = divmod(chosen, rates.shape[1])
        return g, s, float(rates[g, s]), float(fed[g, s])

    def _due(self, j: int) -> float:
        """Return the work that the plan has done by now."""
        done = np.concatenate([[0.0], self.plan.work_done[j]])
        return float(np.interp(self.since / MONTH_DAYS, np.arange(len(done)), done))

    def _draws(self, free: Floats) -> Floats:
        """Return the watts at the meter of every group at every site (G, S)."""
        return np.asarray(self.member @ (free * self.watts[:, None] * self.pue))

    def _use(self, g: int, s: int, free: Floats, rented: Floats, days: float) -> None:
        """Take the machines of a group for a while: electricity, rent, emissions."""
        account, site = self.account, self.b.sites[s]
        for d in self.groups[g]:
            devices, offer = free[d, s], self.b.offers[d]
            kwh = devices * self.watts[d] * site.pue * days * 24.0 / 1e3
            account.kwh += kwh
            account.cost["electricity"] += kwh * 3.6e6 * self.energy[s]
            account.carbon_kg += kwh * 3.6e6 * site.carbon
            account.device_hours += devices * days * 24.0
            if rented[d, s]:
                account.cost["rent"] += rented[d, s] * offer.rent * days * 24.0
            if d not in self.ported and devices:
                self.ported.add(d)
                account.cost["porting"] += offer.porting_cost
            free[d, s] = 0.0
