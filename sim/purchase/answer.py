"""The whole answer to a purchase question: plan, life, shock, new plan, fan, and what matters.

The planner knows the rules announced by the day of planning and the events that a file calls known;
the plan is lived through twice, undisturbed and as things came. Where things came differently the
planner may plan anew from the month after, with the orders that came through. A deadline that cannot
be met any more is given up for the earliest possible finish, and the answer says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date

import numpy as np

from ersatz.device_models.catalog.export import list_parts
from ersatz.sim.invariants import Holds
from ersatz.sim.law.rules import judge, load_rules
from ersatz.sim.purchase.buildout import (
    DAY_S,
    MONTH_DAYS,
    BuildOut,
    permitted,
    prolonged,
    purchase_problem,
)
from ersatz.sim.purchase.decide import Turn, in_time_by_speed, turns
from ersatz.sim.purchase.diagnose import Remedy, Shadow, diagnose, shadows
from ersatz.sim.purchase.events import Draw, Event, foreseen, with_embargoes
from ersatz.sim.purchase.gate import known_rules, rule_gate
from ersatz.sim.purchase.holds import check_cloud, check_life, check_plan
from ersatz.sim.purchase.life.chance import Cloud, Swing, Uncertain, live_often, swings
from ersatz.sim.purchase.life.replay import LogLine, Replayed, replay
from ersatz.sim.purchase.periods import on_other_bounds
from ersatz.sim.purchase.programme import Held, PurchaseProblem
from ersatz.sim.purchase.purchase import Purchase, cheapest, fastest, front, hurried
from ersatz.sim.purchase.reading.file import Inquiry


@dataclass(frozen=True, slots=True)
class Renewed:
    """A plan made anew after a shock, and how it fares."""

    month: int  # from which orders were open again
    plan: Purchase
    life: Replayed
    late: bool  # no plan meets the deadline any more


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of one offer at one site for the first order."""

    offer: str
    site: str
    leaves: date
    policy: str
    rules: tuple[str, ...]
    words: str


@dataclass(frozen=True, slots=True)
class Flip:
    """A device whose verdict changed rules turn, on the day from which they bind."""

    device: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Answered:
    """Everything found out about one case."""

    inquiry: Inquiry
    problem: PurchaseProblem
    plan: Purchase | None
    remedies: tuple[Remedy, ...]  # when there is no plan
    shadows: tuple[Shadow, ...]
    quiet: Replayed | None  # the plan without events, with expected failures
    life: Replayed | None  # the plan as things came
    renewed: Renewed | None
    front: tuple[Purchase, ...]
    cloud: Cloud | None
    swings: tuple[Swing, ...]
    verdicts: tuple[Verdict, ...]
    spread: Mapping[str, tuple[float, float]] = field(
        default_factory=dict
    )  # of each life, in months
    flips: tuple[Flip, ...] = ()  # what changed rules change for devices of the catalogue
    turns: tuple[Turn, ...] = ()  # what would turn the plan
    in_time: float | None = None  # how likely its deadlines are kept, by the speed alone

    @property
    def final(self) -> Replayed | None:
        """The life that the buyer ends up with."""
        return self.renewed.life if self.renewed else self.life


def answer(inquiry: Inquiry, advance: Callable[[str], None] = lambda _: None) -> Answered:
    """Plan, live through it, plan anew, draw; see the module.

    Raises `BrokenAnswerError` when the answer cannot be true.
    """
    answered = _answer(inquiry, advance)
    holds = Holds(inquiry.name)
    renewed, months = answered.renewed, inquiry.buildout.months
    plans = {"plan": answered.plan, "planned_anew": renewed.plan if renewed else None}
    lives = {"as_planned": answered.quiet, "as_things_came": answered.life,
             "planned_anew": renewed.life if renewed else None}  # fmt: skip
    for what, plan in plans.items():
        if plan is not None:
            check_plan(holds, what, plan, months)
    for what, life in lives.items():
        if life is not None:
            check_life(holds, what, life)
    if answered.cloud is not None:
        check_cloud(holds, answered.cloud)
    holds.done()
    return answered


def _answer(inquiry: Inquiry, advance: Callable[[str], None]) -> Answered:
    b = inquiry.buildout
    known = tuple(event for event in inquiry.events if event.known or event.called_by)
    gate = with_embargoes(inquiry.foreseen, known, b.start)
    problem = purchase_problem(foreseen(b, known), gate)
    plans = _plans(b, problem)
    verdicts = _verdicts(inquiry)

    def longer(months: int) -> PurchaseProblem:
        return purchase_problem(foreseen(prolonged(b, months), known), gate)

    if not plans:
        remedies = diagnose(problem, _to_allow(verdicts), b.time_limit_s, longer)
        return Answered(
            inquiry, problem, None, remedies, (), None, None, None, (), None, (), verdicts
        )
    plan = plans[0]
    quiet = replay(b, plan, inquiry.foreseen, known)
    life = replay(b, plan, inquiry.gate, inquiry.events)
    renewed = _renew(inquiry, plan, life) if inquiry.replan else None
    kept = renewed.plan if renewed else plan
    cloud = None
    bars: tuple[Swing, ...] = ()
    if inquiry.draws:
        inputs = [_own(b, kept, u) for u in inquiry.inputs]
        cloud = live_often(b, kept, inquiry.gate, inquiry.events, inputs, inquiry.draws, b.seed,
                           advance=advance)  # fmt: skip
        bars = swings(b, kept, inquiry.gate, inquiry.events, inputs, _outcome(inquiry))
    turning = turns(b, problem, plan, gate, known)
    return Answered(
        inquiry, problem, plan, (), shadows(problem, plan, longer), quiet, life, renewed,
        tuple(plans) if b.objective == "pareto" else (), cloud, bars, verdicts,
        _spreads(inquiry, known, plan, renewed), _flips(inquiry), turning, _in_time(b, plan, turning),
    )  # fmt: skip


def _plans(b: BuildOut, problem: PurchaseProblem) -> list[Purchase]:
    if b.objective == "pareto":
        return list(front(problem, b.gap, b.time_limit_s))
    solver = fastest if b.objective == "time" else cheapest
    plan = solver(problem, b.gap, b.time_limit_s)
    if (
        plan and plan.rented.any()
    ):  # what is rented may stand anywhere in time: as early as possible
        plan = hurried(problem, plan, b.gap, b.time_limit_s)
    return [plan] if plan else []


def _outcome(inquiry: Inquiry) -> Callable[[Replayed], float]:
    def outcome(life: Replayed) -> float:
        if inquiry.outcome == "cost":
            return life.total
        if inquiry.outcome == "delivered":
            return float(life.delivered.sum())
        return min(life.finish, 2.0 * inquiry.buildout.months)  # not done: the end of the clock

    return outcome


def _interval(b: BuildOut, plan: Purchase) -> tuple[float, float]:
    """Return the ends of the 80 % interval of the speed, as factors: the widest that the plan uses."""
    used = {b.groups[g] for g in np.flatnonzero(plan.use.sum(axis=(0, 2, 3, 4)))}
    rates = [t for job in b.jobs for t in job.throughputs if t.devices in used]
    return min((t.low for t in rates), default=1.0), max((t.high for t in rates), default=1.0)


def _own(b: BuildOut, plan: Purchase, given: Uncertain) -> Uncertain:
    """Return an input as it is for a plan: a predicted speed has the interval of its own devices."""
    if given.law != "interval":
        return given
    low, high = _interval(b, plan)
    used = [b.offers[d].name for d in np.flatnonzero(plan.use.any(axis=(0, 1, 3, 4)))]
    return replace(given, low=low, high=high, of=" and ".join(used))


def _spreads(
    inquiry: Inquiry, known: tuple[Event, ...], plan: Purchase, renewed: Renewed | None
) -> dict[str, tuple[float, float]]:
    """Return, for each life, the months to train at both ends of its own speed's 80 % interval."""
    b = inquiry.buildout
    lives = {"as planned": (plan, inquiry.foreseen, known),
             "as things came": (plan, inquiry.gate, inquiry.events)}  # fmt: skip
    if renewed:
        lives["planned anew"] = (renewed.plan, inquiry.gate, inquiry.events)
    found = {}
    for name, (chosen, gate, events) in lives.items():
        low, high = _interval(b, chosen)
        if low != high:
            fast, slow = (replay(b, chosen, gate, events, Draw({"throughput": speed})).finish
                          for speed in (high, low))  # fmt: skip
            found[name] = (fast, slow)
    return found


def _in_time(b: BuildOut, plan: Purchase, turning: tuple[Turn, ...]) -> float | None:
    """Return how likely the plan keeps its deadlines, by what is known of its speed alone."""
    least = [turn.value for turn in turning if turn.kind == "speed"]
    low, high = _interval(b, plan)
    return in_time_by_speed(least[0], low, high) if least and low != high else None


def _verdicts(inquiry: Inquiry) -> tuple[Verdict, ...]:
    """Ask the gate about each offer's first order, as things come."""
    b = inquiry.buildout
    gate = with_embargoes(inquiry.gate, inquiry.events, b.start)
    found = []
    for offer in b.offers:
        for site in (site for site in b.sites if offer.is_at(site.name)):
            leaves = b.date_at(offer.lead_s / DAY_S)
            said = gate(offer, site, leaves)
            found.append(
                Verdict(offer.name, site.name, leaves, said.policy, said.rules, said.words)
            )
    return tuple(found)


def _to_allow(verdicts: tuple[Verdict, ...]) -> dict[str, str]:
    """Say, per offer, what would have to be allowed: by which rules, or on which licence to count."""
    found: dict[str, str] = {}
    for v in verdicts:
        rules = f" ({', '.join(v.rules)})" if v.rules else ""
        if v.policy == "denied":
            found.setdefault(v.offer, f"{v.offer} allowed{rules}")
        elif v.policy == "case":
            found[v.offer] = (f"a licence for {v.offer}{rules}; to plan as if it came, set"
                              " purchase.count_on_licences: true")  # fmt: skip
    return found


def _renew(inquiry: Inquiry, plan: Purchase, life: Replayed) -> Renewed | None:
    """Plan anew from the month after the first shock; None where nothing came unexpectedly."""
    b = inquiry.buildout
    shock = _shock(inquiry.events, life.log)
    if shock is None:
        return None
    month = min(
        max(math.floor(shock / MONTH_DAYS) + 1, 0), b.months
    )  # it may be older than the plan
    seen = tuple(replace(event, known=True) for event in inquiry.events)
    gate = inquiry.gate
    if inquiry.rules is not None:
        gate = rule_gate(known_rules(inquiry.rules, b.date_at(shock)), inquiry.buyer, inquiry.home)
    gate = with_embargoes(gate, seen, b.start)
    problem = purchase_problem(foreseen(b, seen), gate)
    came, _, _ = permitted(b, with_embargoes(inquiry.gate, seen, b.start))
    used = on_other_bounds(plan.use, plan.bounds, problem.bounds)
    held = Held(month, np.where(came, plan.orders, 0.0), used)
    solver = fastest if b.objective == "time" else cheapest
    found, late = solver(problem, b.gap, b.time_limit_s, held), False
    if found is None:
        late, longest = True, np.full_like(problem.deadline, b.months)
        found = fastest(replace(problem, deadline=longest), b.gap, b.time_limit_s, held)
    if found is None:
        return None
    return Renewed(month, found, replay(b, found, inquiry.gate, inquiry.events), late)


def _shock(events: tuple[Event, ...], log: tuple[LogLine, ...]) -> float | None:
    """Return the day on which something came that was not planned with."""
    days = [event.day for event in events if not event.known and not event.called_by]
    days += [line.day for line in log if line.outcome in ("stopped", "refused at the border")]
    return min(days) if days else None


def _flips(inquiry: Inquiry) -> tuple[Flip, ...]:
    """Judge every device of the catalogue under the shipped and the changed rules, when these bind."""
    rules, b = inquiry.rules, inquiry.buildout
    if rules is None or not inquiry.changed:
        return ()
    shipped, found = load_rules(), []
    days = [r.binds for r in rules if r.binds and shipped.rules.get(r.id) != r]
    day = min(max([b.start, *days]), shipped.known_until)
    for device in list_parts():
        before, after = (judge(r, device, day, b.sites[0].country, inquiry.buyer, changes=False).policy
                         for r in (shipped, rules))  # fmt: skip
        if before != after:
            found.append(Flip(device, before, after))
    return tuple(found)
