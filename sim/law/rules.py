"""Is a device legal to buy, at a date and for a destination: rules put to a device, gate by gate.

Gates: `export` (the seller's country: rules issued where the part was designed or is shipped from,
and rules with worldwide reach), `import` (the destination's own rules), `foundry` (may more of a
part be made), `use` (may it be used), `duty` and `power` (what it costs). Export, import and,
outside the designer's country, use decide about a purchase; foundry is reported beside it. Within a
gate the strictest rule decides; a rule that `relaxes` others takes the place of their stricter
policy where its criterion holds. What the data do not cover is unknown, not free.
Not modelled: end-use checks beyond the kind of buyer, transit, penalties. This is no legal advice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from ersatz.device_models.catalog.export import Part
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.law.course import Change, history, put, strictest, timeline, whole
from ersatz.sim.law.expression import Value
from ersatz.sim.law.places import Buyer, find_date, load_places
from ersatz.sim.law.question import Finding, GateVerdict, Question, reasons, unique
from ersatz.sim.law.rule import GATES, ORDER, POLICIES, Quota, Rule, Rules, Term
from ersatz.sim.law.rulebook import load_rules

__all__ = [
    "NOTICE",
    "Change",
    "GateVerdict",
    "Rules",
    "Verdict",
    "check_day",
    "judge",
    "load_rules",
    "strictest",
    "timeline",
]

NOTICE = "This is a model of published rules and no legal advice."


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of one device, day, destination and buyer."""

    device: str
    day: date
    destination: str
    buyer: str
    origin: str
    policy: str  # one of POLICIES, or "unknown": the strictest of the gates that decide
    buying: tuple[str, ...]  # the gates that decide about the purchase
    gates: Mapping[str, GateVerdict]
    rule_ids: tuple[str, ...]  # that decide about the purchase
    arithmetic: tuple[str, ...]  # sentences
    last_change: Change | None
    next_change: Change | None
    pending: tuple[str, ...]  # announced by that day and not yet binding
    wait_days: float  # of notice
    fee: float  # share of the price
    duty: float  # share of the customs value
    quota: str
    quota_units: float | None  # devices that this buyer may have
    quotas: tuple[Quota, ...]  # sums that the rules count over all devices together
    power_discount: float
    assumptions: tuple[str, ...]

    @property
    def order(self) -> str:
        """What an order meets: it leaves (free), after a notice, by a decision (case), or not (denied)."""
        return ORDER[self.policy]

    @property
    def may_buy(self) -> bool:
        """Buying is possible now: no licence, a notice only, or licences are granted to such buyers."""
        return self.order in ("free", "notify")

    @property
    def may_apply(self) -> bool:
        """A licence may be applied for with some prospect (presumed approval, or case by case)."""
        return self.order == "case"

    @property
    def alternative(self) -> str:
        """The policy under another reading of the rules, or an empty text."""
        other = strictest([gate.alternative or gate.policy for gate in self._buying()])
        return other if other != self.policy else ""

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why another reading is possible, or what is unknown."""
        return tuple(doubt for gate in self._buying() for doubt in gate.doubts
                     if self.alternative or gate.policy == self.policy)  # fmt: skip

    @property
    def meaning(self) -> str:
        """The policy in words."""
        return POLICIES.get(self.policy) or "; ".join(self.doubts)

    def _buying(self) -> list[GateVerdict]:
        return [self.gates[gate] for gate in self.buying]


def judge(
    rules: Rules, device: str | Part, day: str | date, destination: str,
    buyer: str | Buyer = "company", origin: str | None = None, *, changes: bool = True,
    units: float | None = None,
) -> Verdict:  # fmt: skip
    """Return what the rules say of a device on a day, for a destination and a kind of buyer.

    `origin` is where it is shipped from (the designer's country when None), `units` how many devices
    are asked for. `changes=False` leaves out what changed last and comes next. After the last known
    rule, those known by then and those scheduled are taken. Raises `InputError` for a day before the
    rules' knowledge, an unknown device, place or buyer, and rules that contradict one another.
    """
    question = put(rules, device, destination, buyer, origin, units)
    on = find_date(day)
    check_day(rules, on)
    found = {gate: question.findings(gate) for gate in GATES}
    gates = {gate: whole(question, gate, found[gate], on) for gate in GATES}
    policy = strictest([gates[gate].policy for gate in question.buying])
    buying = [term for gate in question.buying for term in gates[gate].terms]
    course = history(question, found) if changes else []
    past = [change for change in course if change.day <= on]
    future = [change for change in course if change.day > on]
    return Verdict(
        device=question.part.name, day=on, destination=question.place,
        buyer=question.buyer.party or question.buyer.kind,
        origin=question.origin, policy=policy, buying=question.buying, gates=gates,
        rule_ids=unique(name for gate in question.buying for name in gates[gate].rules),
        arithmetic=tuple(_arithmetic(question, gates, found, on)),
        last_change=past[-1] if past else None, next_change=future[0] if future else None,
        pending=_pending(question, found, on),
        wait_days=max((term.wait_days for term in buying), default=0.0),
        fee=max((term.fee for term in buying), default=0.0),
        duty=max((term.duty for term in gates["duty"].terms), default=0.0),
        quota="; ".join(dict.fromkeys(term.quota for term in buying if term.quota)),
        quota_units=_quota(buying, question.part.tpp),
        quotas=unique_quotas(question, gates, found),
        power_discount=max((term.power_discount for term in gates["power"].terms), default=0.0),
        assumptions=(*_beyond(rules, on), *rules.assumptions, *_covered_by_reports(question),
                     *_assumed_groups(question.place), *_assumed(question.part)),
    )  # fmt: skip


def _quota(terms: Sequence[Term], tpp: float) -> float | None:
    """Return the least quota in devices, or None without one."""
    quotas = (term.most(tpp) for term in terms)
    return min((most for most in quotas if most is not None), default=None)


def unique_quotas(
    question: Question, gates: Mapping[str, GateVerdict], found: Mapping[str, list[Finding]]
) -> tuple[Quota, ...]:
    """Return the sums of the terms that decide, each once, with the rule that counts it."""
    return tuple(dict.fromkeys(
        quota for gate in question.buying for f in found[gate]
        if f.rule.id in gates[gate].rules and f.term in gates[gate].terms
        for quota in f.term.quotas(f.rule.id, question.part.tpp)
    ))  # fmt: skip


def check_day(rules: Rules, day: date) -> None:
    """Raise `InputError` for a day before the rules' knowledge, saying how far it reaches."""
    if day < rules.known_from:
        expected = f"the rules are known from {rules.known_from} to {rules.known_until}"
        raise InputError([Problem("date", 0, 0, "", day.isoformat(), expected)])


def days_beyond(rules: Rules, day: date) -> int:
    """Return how many days after the last known rule a day lies; 0 within the rules' knowledge."""
    return max((day - rules.checked_until).days, 0)


def _beyond(rules: Rules, day: date) -> tuple[str, ...]:
    late = days_beyond(rules, day)
    if not late:
        return ()
    return (f"rules are known to {rules.checked_until}, {late} days before {day}: what was known or "
            "scheduled by then is taken as unchanged, what came later is missing",)  # fmt: skip


def _pending(question: Question, found: Mapping[str, list[Finding]], day: date) -> tuple[str, ...]:
    """Return what was announced by a day, concerns the device and does not bind yet."""
    return unique(
        f"{f.rule.id} ({f.term.policy}), announced {f.rule.announced}, "
        + (f"binds {f.rule.binds}" if f.rule.binds and not _void(f.rule) else
           f"was to bind {f.rule.binds} and never did" if f.rule.binds else "a bill")
        for gate in question.buying for f in found[gate]
        if f.rule.announced <= day and (f.rule.binds is None or f.rule.binds > day)
        and not (f.rule.ends and f.rule.ends <= day)
        and f.rule.status != "record" and question.covered(f.rule, gate, day)
    )  # fmt: skip


def _void(rule: Rule) -> bool:
    return rule.binds is not None and rule.ends is not None and rule.ends <= rule.binds


def _arithmetic(
    question: Question, gates: Mapping[str, GateVerdict],
    found: Mapping[str, list[Finding]], day: date,
) -> list[str]:  # fmt: skip
    """Return the sentences that lead to a verdict: legal figures, then each rule that was tried."""
    sentences = [*_figures(question), *_defined(question, day)]
    designer = question.part.designer
    for gate in GATES:
        for rule in question.rules:
            asked = gate in rule.gates and rule.in_force(day) and question.concerns(rule, gate)
            if asked and question.covered(rule, gate, day):
                holding = [f for f in found[gate] if f.rule.id == rule.id]
                sentences += _tried(gate, rule, holding, question.values)
    if question.place == designer == question.origin:
        sentences.append(
            "export and import: made and sold in one country, so there is neither; a later export is"
            " asked about anew"
        )
    elif designer != "US" and not gates["export"].rules:
        sentences.append(f"export: designed in {designer}, so no export rule of the US applies")
    return sentences


def _figures(question: Question) -> list[str]:
    """Return how the legal figures of a part come about."""
    part = question.part
    area_mm2 = (part.die_area_m2 or 0.0) * 1e6
    if not part.peaks:
        density = part.stack_density(question.area_m2) or 0.0
        return [f"{density:.1f} GB/s per mm2 = {part.memory_bandwidth / 1e9:,.0f} GB/s "
                f"/ {area_mm2:,.0f} mm2"]  # fmt: skip
    teraflops = part.peaks[part.tpp_format] / 1e12
    return [
        f"TPP {part.tpp:,.1f} = {teraflops:,.1f} TFLOP/s ({part.tpp_format}, dense) x "
        f"{part.tpp / teraflops:.0f} bits",
        f"PD {part.tpp / area_mm2:.2f} = {part.tpp:,.1f} / {area_mm2:,.0f} mm2" if area_mm2
        else "PD unknown: the die area is not published",
    ]  # fmt: skip


def _defined(question: Question, day: date) -> list[str]:
    """Say which class a part has under the rules that define one, where it is used elsewhere."""
    sentences = []
    for rule in question.rules:
        if rule.defines and rule.announced <= day and question.values[rule.defines] != "none":
            name = question.values[rule.defines]
            why = (
                rule.classes[str(name)].explain({**question.values, **rule.thresholds})
                if name
                else ()
            )
            sentences.append(f"{rule.defines} {name or 'unknown'} by {rule.id}: {'; '.join(why)}")
    return sentences


def _tried(gate: str, rule: Rule, holding: list[Finding], values: Mapping[str, Value]) -> list[str]:
    """Say what a rule that covers the purchase says, and by which numbers."""
    sentences = [
        f"{gate}: {rule.id} {f.name}: {f.term.policy}{f' ({f.term.note})' if f.term.note else ''}, as "
        + "; ".join(reasons(f, values))
        for f in holding
    ]
    if not holding and gate in ("export", "import") and _tells(rule, values):
        tried = [why for expression in rule.classes.values()
                 for why in expression.explain({**values, **rule.thresholds})]  # fmt: skip
        sentences.append(f"{gate}: {rule.id} does not hold: " + "; ".join(unique(tried)))
    return sentences


def _tells(rule: Rule, values: Mapping[str, Value]) -> bool:
    """Tell whether it is worth saying that a rule does not hold: it compares with thresholds."""
    of_stacks = any("stack_density" in e.names for e in rule.classes.values())
    return bool(rule.thresholds) and not rule.relaxes and not (of_stacks and values["TPP"])


def _covered_by_reports(question: Question) -> tuple[str, ...]:
    """Say where "no rule" rests on reports only, not on a search of the law."""
    places, place = load_places(), question.place
    sellers = sorted({question.part.designer, question.origin} - {place})
    found = [places.export_coverage(seller, place, question.item) for seller in sellers]
    found += [places.import_coverage(place)] if sellers else []
    return tuple(f"{places.names[place]}: {c.note}" for c in found if c and c.assumed)


def _assumed_groups(place: str) -> tuple[str, ...]:
    """Say that country groups are recalled, where they matter."""
    if place in ("CN", "HK", "MO", "US"):
        return ()
    return (f"{place}: the country groups D:1, D:4 and D:5 are as recalled and abridged",)


def _assumed(part: Part) -> tuple[str, ...]:
    """Return the legal figures of a part that are assumptions."""
    keys = ("die_area_m2", "datasheet_peak", "matrix_peak", "memory_bandwidth", "process_nm")
    return unique(
        f"{part.name}: {fact.key} {fact.text} ({fact.note or 'assumed'})"
        for fact in part.facts.values()
        if fact.confidence == "assumed" and fact.key.split(".")[0] in keys and fact.value
    )
