"""A purchase plan lived through on the fleet clock (SimPy, in days): orders, gates, shocks.

An order waits for its lead time, is judged on the day of its export, may wait for a licence and for
the importing country, travels, and joins the fleet. What has left the country proceeds; what has not
is not paid, or goes the smuggler's way. A licence is decided once for all shipments that it covers.
Not modelled: resale, interest, deposits, new plans (the planner makes those).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from ersatz.sim.job.cost import value_after
from ersatz.sim.purchase.buildout import (
    DAY_S,
    MONTH_DAYS,
    Answer,
    BuildOut,
    Gate,
    Offer,
)
from ersatz.sim.purchase.events import Draw, Event, with_embargoes
from ersatz.sim.purchase.life.machines import LivingFleet
from ersatz.sim.purchase.periods import CLOSE, Floats
from ersatz.sim.purchase.purchase import Purchase

Steps = Generator[simpy.Event, Any, None]
GATES = {"licence": ("approval", "licence_delay"), "import": ("import_approval", "import_delay")}


@dataclass(frozen=True, slots=True)
class LogLine:
    """One decision of a gate."""

    day: float
    offer: str
    site: str
    nodes: float
    outcome: str
    rules: tuple[str, ...]
    words: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a plan."""

    finish_months: tuple[float, ...]  # (jobs,) infinite when not done by the end
    cost: dict[str, float]
    kwh: float
    carbon_kg: float
    device_hours: float
    delivered: Floats  # (D,) devices
    blocked: Floats  # (D,) devices
    seized: Floats  # (D,) devices
    lost: Floats  # (D,) devices that failed for good
    fleet: Floats  # (months + 1, D) working devices at the start of each month
    work: Floats  # (months + 1, J) tokens
    left: float  # what the working machines are worth at the end of the plan
    log: tuple[LogLine, ...]

    @property
    def total(self) -> float:
        """All money."""
        return math.fsum(self.cost.values())

    @property
    def finish(self) -> float:
        """Months until the last job is done."""
        return max(self.finish_months)


@dataclass(slots=True)
class Ledger:
    """Orders on their way and what became of them, in devices."""

    delivered: Floats
    blocked: Floats
    seized: Floats
    price: Floats  # (D,) factors of today
    worth: Floats  # (D,) of what was paid, at the end of the plan
    ordered: float = 0.0  # money for machines on order or paid
    pulled: int = -1  # month up to which orders were placed ahead
    verdicts: dict[tuple[str, int], bool] = field(default_factory=dict)
    log: list[LogLine] = field(default_factory=list)


class Replay:
    """One life of a plan."""

    def __init__(
        self, buildout: BuildOut, plan: Purchase, gate: Gate, events: Sequence[Event] = (),
        draw: Draw | None = None, horizon: int | None = None,
    ) -> None:  # fmt: skip
        self.b, self.plan, self.events = buildout, plan, events
        self.draw = draw or Draw()
        self.gate = with_embargoes(gate, events, buildout.start, self.draw)
        self.months = horizon or 2 * buildout.months
        self.env = simpy.Environment()
        self.chance = None if self.draw.seed is None else {
            cause: self.draw.stream(cause) for cause in ("licence", "import", "seizure")}  # fmt: skip
        self.life = LivingFleet(buildout, plan, self.draw)
        kinds = len(buildout.offers)
        price = np.full(kinds, self.draw.get("price", 1.0))
        self.ledger = Ledger(
            np.zeros(kinds), np.zeros(kinds), np.zeros(kinds), price, np.zeros(kinds)
        )
        self.placed: set[int] = set()  # months whose orders are
        self.fleet: list[Floats] = []
        self.work: list[Floats] = []

    def run(self) -> Replayed:
        """Let everything happen; returns what came of it."""
        for event in self.events:
            if event.day <= 0:
                self._apply(event)
            else:
                self.env.process(self._later(event))
        self.env.process(self._calendar())
        self.env.process(self._turns())
        self.env.run(until=self.months * MONTH_DAYS + 1e-6)
        account, ledger = self.life.account, self.ledger
        made = self.b.embodied_kg * account.device_hours * 3600.0 / self.b.device_life_s
        return Replayed(
            tuple(self.life.finish), account.cost, account.kwh, account.carbon_kg + made,
            account.device_hours, ledger.delivered, ledger.blocked, ledger.seized, self.life.lost,
            np.array(self.fleet), np.array(self.work), self._left(), tuple(ledger.log),
        )  # fmt: skip

    def _left(self) -> float:
        delivered = np.maximum(self.ledger.delivered, 1e-9)
        return float((self.ledger.worth * self.life.alive.sum(axis=1) / delivered).sum())

    def _calendar(self) -> Steps:
        """Place the orders of each month, and let the fleet live until the next."""
        for month in range(self.months + 1):
            self.life.advance(self.env.now)
            self.life.come_back(self.env.now)
            self.fleet.append(self.life.alive.sum(axis=1))
            self.work.append(self.life.done.copy())
            if self.ledger.pulled < month < self.b.months:
                self._place(month)
            if month >= self.b.months and all(map(math.isfinite, self.life.finish)):
                return
            if month < self.months:
                yield self.env.timeout((month + 1) * MONTH_DAYS - self.env.now)

    def _turns(self) -> Steps:
        """Let the fleet live until each turn within a month: there the plan's shares change."""
        for turn in self.plan.bounds:
            if abs(turn - round(turn)) > CLOSE:
                yield self.env.timeout(turn * MONTH_DAYS - self.env.now)
                self.life.advance(self.env.now)

    def _place(self, month: int) -> None:
        """Place the orders of a month, once: stocks that are laid in twice hold no more."""
        if month in self.placed:
            return
        self.placed.add(month)
        for d, s in zip(*np.nonzero(self.plan.orders[:, :, month]), strict=True):
            self.env.process(self._order(int(d), int(s), month))

    def _later(self, event: Event) -> Steps:
        yield self.env.timeout(event.day)
        self.life.advance(self.env.now)
        self._apply(event)

    def _apply(self, event: Event) -> None:
        """Change what the event changes; one that was planned with happens all the same."""
        life, values = self.life, event.values
        hit = np.array([event.hits(o.name) for o in self.b.offers])
        if event.kind == "price":
            self.ledger.price[hit] *= 1.0 + values["change"]
        elif event.kind == "repair":
            life.repaired[hit] = values["repaired"]
            life.hazard[hit] *= values["failures"]
        elif event.kind == "power":
            here = [not event.sites or site.name in event.sites for site in self.b.sites]
            life.energy[np.array(here)] *= 1.0 + values["change"]
        elif event.kind == "porting":
            delay = values["delay_days"] * self.draw.get("porting_delay", 1.0)
            life.ready[hit] = np.maximum(life.ready[hit], event.day) + delay
            life.account.cost["porting"] += values["cost"]
        elif event.kind == "stockpile":
            now = math.ceil(event.day / MONTH_DAYS)  # negative before the plan begins
            last = min(now + int(values["months"]), self.b.months) - 1
            self.ledger.pulled = max(self.ledger.pulled, last)
            for month in range(max(now, 0), last + 1):
                self._place(month)

    # -- an order ---------------------------------------------------------------------------------

    def _order(self, d: int, s: int, month: int) -> Steps:
        """Order, wait, pass the gates, pay, travel, join the fleet."""
        offer, ledger = self.b.offers[d], self.ledger
        price = offer.price[month] * ledger.price[d]
        nodes = self.plan.orders[d, s, month] * self._supplied(offer)
        if price > 0:
            nodes = min(nodes, self._affordable(month) / price)
        nodes = math.floor(nodes + 1e-9)
        if nodes <= 0:
            return
        ledger.ordered += nodes * price
        yield self.env.timeout(offer.lead_s / DAY_S * self.draw.get("lead_time", 1.0))
        answer, wait, granted = self._judged(d, s)
        yield self.env.timeout(wait)
        if granted and wait:  # what has not left is judged again
            answer = self._answer(d, s)
            granted = answer.policy != "denied"
        if not granted:
            self._note(d, s, nodes, "stopped", answer)
            yield from self._smuggle(d, s, nodes, price)
            return
        self._pay(offer, nodes, price, answer.surcharge)
        delay, admitted = self._ask("import", d, s, answer)
        yield self.env.timeout(offer.transit_s / DAY_S + delay)
        if admitted:
            self._note(d, s, nodes, "delivered", answer)
            ledger.worth[d] += nodes * price * self._kept_value(month)
            self._join(d, nodes, s)
            return
        self._note(d, s, nodes, "refused at the border", answer)
        self._pay(offer, -nodes, price, answer.surcharge)
        self._block(d, nodes, price)

    def _kept_value(self, month: int) -> float:
        """Return the share of a price paid in a month that is left at the end of the plan."""
        return value_after(1.0, self.b.value_decay, (self.b.months - month) / 12.0)

    def _supplied(self, offer: Offer) -> float:
        """Return the share of an order that the maker delivers."""
        share = self.draw.get("supply", 1.0)
        for event in self.events:
            late = event.day <= self.env.now and not event.known
            if event.kind == "supply" and event.hits(offer.name) and late:
                share *= 1.0 + event.values["change"]
        return min(share, 1.0)

    def _affordable(self, month: int) -> float:
        """Return what the budget leaves for machines: all but what the plan spends on running them."""
        running = float((self.plan.spent - self.plan.machines)[: month + 1].sum())
        return max(self.b.budget[month] - running - self.ledger.ordered, 0.0)

    def _answer(self, d: int, s: int) -> Answer:
        return self.gate(self.b.offers[d], self.b.sites[s], self.b.date_at(self.env.now))

    def _judged(self, d: int, s: int) -> tuple[Answer, float, bool]:
        """Return the rules' answer today, days to wait, and whether it may leave then."""
        answer = self._answer(d, s)
        if answer.policy == "denied":
            return answer, 0.0, False
        wait, granted = self._ask("licence", d, s, answer)
        return answer, max(wait, answer.notice_days), granted

    def _ask(self, kind: str, d: int, s: int, answer: Answer) -> tuple[float, bool]:
        """Return days and answer of the licence or import gates that stand today."""
        wait, granted, verdicts = 0.0, True, self.ledger.verdicts
        approval, delay = GATES[kind]
        for i, event in enumerate(self.events):
            hit = event.hits(self.b.offers[d].name, self.b.sites[s].name)
            if event.kind == kind and hit and event.asked_of(answer) and event.day <= self.env.now:
                wait += self.draw.get(delay, event.values["delay_days"])
                likely = self.draw.get(approval, event.values["approval"])
                if (kind, i) not in verdicts:
                    drawn = self.chance[kind].random() if self.chance else 0.5
                    verdicts[kind, i] = bool(drawn < likely + 1e-12)
                granted &= verdicts[kind, i]
        return wait, granted

    def _smuggle(self, d: int, s: int, nodes: float, price: float) -> Steps:
        """Buy again from a smuggler where there is one; some of it is seized."""
        ways = [e for e in self.events if e.kind == "smuggling" and e.day <= self.env.now
                and e.hits(self.b.offers[d].name, self.b.sites[s].name)]  # fmt: skip
        if not ways:
            self._block(d, nodes, price)
            return
        values = ways[-1].values
        premium = self.draw.get("premium", values["premium"])
        seizure = self.draw.get("seizure", values["seizure"])
        self._pay(self.b.offers[d], nodes, price, 0.0)
        self.life.account.cost["smuggler's premium"] += nodes * price * premium
        yield self.env.timeout(values["delay_days"])
        taken = nodes * seizure
        if self.chance:
            taken = float(self.chance["seizure"].binomial(int(nodes), seizure))
        self.ledger.seized[d] += taken * self.b.offers[d].per_node
        self._note(d, s, nodes - taken, "smuggled", Answer("", (), f"{taken:.0f} nodes seized"))
        self._join(d, nodes - taken, s)

    def _pay(self, offer: Offer, nodes: float, price: float, surcharge: float) -> None:
        cost, share = self.life.account.cost, offer.network_share / (1.0 + offer.network_share)
        cost["machines"] += nodes * price * (1.0 - share)
        cost["network"] += nodes * price * share
        cost["fees and duty"] += nodes * price * (1.0 - share) * surcharge

    def _block(self, d: int, nodes: float, price: float) -> None:
        self.ledger.blocked[d] += nodes * self.b.offers[d].per_node
        self.ledger.ordered -= nodes * price

    def _join(self, d: int, nodes: float, s: int) -> None:
        self.life.advance(self.env.now)
        devices = nodes * self.b.offers[d].per_node
        self.life.alive[d, s] += devices
        self.ledger.delivered[d] += devices

    def _note(self, d: int, s: int, nodes: float, outcome: str, answer: Answer) -> None:
        self.ledger.log.append(LogLine(self.env.now, self.b.offers[d].name, self.b.sites[s].name,
                                       nodes, outcome, answer.rules, answer.words))  # fmt: skip


def replay(
    buildout: BuildOut, plan: Purchase, gate: Gate, events: Sequence[Event] = (),
    draw: Draw | None = None, horizon: int | None = None,
) -> Replayed:  # fmt: skip
    """Live through a plan once; the clock goes on until `horizon` months, by default twice the plan's."""
    return Replay(buildout, plan, gate, events, draw, horizon).run()
