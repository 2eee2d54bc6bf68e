"""Is a device legal to buy, at a date and for a destination: rules put to a device, gate by gate.

Gates: `export` (the seller's country: rules issued where the part was designed or is shipped from,
and rules with worldwide reach), `import` (the destination's own rules), `foundry` (may more of a
part be made), `use` (may it be used), `duty` and `power` (what it costs). Export and import decide
about a purchase; foundry and use are reported beside it. Within a gate the strictest rule decides;
a rule that `relaxes` others takes the place of their stricter policy where its criterion holds.
Not modelled: end-use checks beyond the kind of buyer, transit, penalties. This is no legal advice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

from ersatz.device_models.catalog.export import Part, load_part
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.law.expression import Value
from ersatz.sim.law.places import Buyer, find_buyer, find_date, find_place
from ersatz.sim.law.question import Finding, GateVerdict, Question, decide, reasons, unique
from ersatz.sim.law.rule import GATES, POLICIES, STRICTNESS, Rule, Rules
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
    "timeline",
]

BUYING = ("export", "import")  # the gates that decide about a purchase
NOTICE = "This is a model of published rules and no legal advice."


@dataclass(frozen=True, slots=True)
class Change:
    """A day on which the verdict changes, and from what to what."""

    day: date
    before: str
    after: str
    rules: tuple[str, ...]  # that decide afterwards, or before where nothing binds afterwards


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of one device, day, destination and buyer."""

    device: str
    day: date
    destination: str
    buyer: str
    origin: str
    policy: str  # one of POLICIES, or "unknown": the stricter of export and import
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
    power_discount: float
    assumptions: tuple[str, ...]

    @property
    def may_buy(self) -> bool:
        """Buying is possible now: no licence, a notice only, or licences are granted to such buyers."""
        return self.policy in ("free", "notify", "licensed")

    @property
    def may_apply(self) -> bool:
        """A licence may be applied for with some prospect (presumed approval, or case by case)."""
        return self.policy in ("approval", "case_by_case")

    @property
    def alternative(self) -> str:
        """The policy under another reading of the rules, or an empty text."""
        return next((g.alternative for g in self._buying() if g.alternative), "")

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why another reading is possible, or what is unknown."""
        return tuple(doubt for gate in self._buying() for doubt in gate.doubts)

    @property
    def meaning(self) -> str:
        """The policy in words."""
        return POLICIES.get(self.policy, "an attribute is unknown that decides")

    def _buying(self) -> list[GateVerdict]:
        return [self.gates[gate] for gate in BUYING]


def judge(
    rules: Rules, device: str | Part, day: str | date, destination: str,
    buyer: str | Buyer = "company", origin: str | None = None, *, changes: bool = True,
) -> Verdict:  # fmt: skip
    """Return what the rules say of a device on a day, for a destination and a kind of buyer.

    `origin` is where it is shipped from (the designer's country when None). `changes=False` leaves
    out what changed last and comes next. Raises `InputError` for a day outside the rules'
    knowledge, an unknown device, place or buyer, and rules that contradict one another.
    """
    question = _ask(rules, device, destination, buyer, origin)
    on = find_date(day)
    check_day(rules, on)
    found = {gate: question.findings(gate) for gate in GATES}
    gates = {gate: decide(question, gate, found[gate], on) for gate in GATES}
    gates = {gate: _with_area_doubt(question, verdict, on) for gate, verdict in gates.items()}
    policy = _stricter(gates["export"].policy, gates["import"].policy)
    buying = [term for gate in BUYING for term in gates[gate].terms]
    history = _history(question, found) if changes else []
    past = [change for change in history if change.day <= on]
    future = [change for change in history if change.day > on]
    return Verdict(
        device=question.part.name, day=on, destination=question.place, buyer=question.buyer.kind,
        origin=question.origin, policy=policy, gates=gates,
        rule_ids=tuple(dict.fromkeys(name for gate in BUYING for name in gates[gate].rules)),
        arithmetic=tuple(_arithmetic(question, gates, found, on)),
        last_change=past[-1] if past else None, next_change=future[0] if future else None,
        pending=_pending(question, found, on),
        wait_days=max((term.wait_days for term in buying), default=0.0),
        fee=max((term.fee for term in buying), default=0.0),
        duty=max((term.duty for term in gates["duty"].terms), default=0.0),
        quota="; ".join(dict.fromkeys(term.quota for term in buying if term.quota)),
        quota_units=min((term.units for term in buying if term.units), default=None),
        power_discount=max((term.power_discount for term in gates["power"].terms), default=0.0),
        assumptions=(*rules.assumptions, *_assumed_groups(question.place), *_assumed(question.part)),
    )  # fmt: skip


def timeline(
    rules: Rules, device: str | Part, destination: str, buyer: str | Buyer = "company",
    origin: str | None = None,
) -> tuple[Change, ...]:  # fmt: skip
    """Return the days on which the verdict of a device changes, from the rules' first day on."""
    question = _ask(rules, device, destination, buyer, origin)
    return tuple(_history(question, {gate: question.findings(gate) for gate in BUYING}))


def _ask(
    rules: Rules, device: str | Part, destination: str, buyer: str | Buyer, origin: str | None
) -> Question:
    part = load_part(device) if isinstance(device, str) else device
    place = find_place(destination)
    source = find_place(origin) if origin else part.designer
    return Question(rules, part, place, find_buyer(buyer), source, part.die_area_m2)


def check_day(rules: Rules, day: date) -> None:
    """Raise `InputError` for a day outside the rules' knowledge, saying how far it reaches."""
    if not rules.known_from <= day <= rules.known_until:
        expected = (f"the rules are known from {rules.known_from} to {rules.known_until}; "
                    "to go on with the last ones set knowledge.until=DATE")  # fmt: skip
        raise InputError([Problem("date", 0, 0, "", day.isoformat(), expected)])


def _with_area_doubt(question: Question, verdict: GateVerdict, day: date) -> GateVerdict:
    """Add a doubt where the least or most die area that may count changes a gate's policy."""
    part = question.part
    doubts: list[str] = []
    for area in (part.die_area_least_m2, part.die_area_most_m2):
        if area is None or area == part.die_area_m2:
            continue
        other = replace(question, area_m2=area)
        policy = decide(other, verdict.gate, other.findings(verdict.gate), day).policy
        if policy != verdict.policy:
            doubts.append(f"with a die area of {area * 1e6:,.0f} mm2 instead of "
                          f"{(part.die_area_m2 or 0) * 1e6:,.0f} mm2 it is {policy}")  # fmt: skip
            verdict = replace(verdict, alternative=verdict.alternative or policy)
    return replace(verdict, doubts=(*verdict.doubts, *doubts))


def _history(question: Question, found: Mapping[str, list[Finding]]) -> list[Change]:
    """Return the days on which export or import change, in order."""
    rules = question.rules
    days = {
        day for gate in BUYING for f in found[gate] for day in (f.rule.binds, f.rule.ends) if day
    }
    days |= {start for gate in BUYING for f in found[gate] for _, start in f.rule.places if start}
    changes: list[Change] = []
    before: tuple[str, tuple[str, ...]] = ("free", ())
    for day in sorted(d for d in days if rules.known_from <= d <= rules.known_until):
        gates = [decide(question, gate, found[gate], day) for gate in BUYING]
        policy = _stricter(gates[0].policy, gates[1].policy)
        ids = unique(name for gate in gates for name in gate.rules)
        if policy != before[0]:
            changes.append(Change(day, before[0], policy, ids or before[1]))
        before = (policy, ids)
    return changes


def _stricter(one: str, other: str) -> str:
    """Return the stricter of two policies; what is unknown counts unless the other is denied."""
    if "unknown" in (one, other):
        return "denied" if "denied" in (one, other) else "unknown"
    return max(one, other, key=STRICTNESS.__getitem__)


def _pending(question: Question, found: Mapping[str, list[Finding]], day: date) -> tuple[str, ...]:
    """Return what was announced by a day, concerns the device and does not bind yet."""
    return unique(
        f"{f.rule.id} ({f.term.policy}), announced {f.rule.announced}, "
        + (f"binds {f.rule.binds}" if f.rule.binds and not _void(f.rule) else
           f"was to bind {f.rule.binds} and never did" if f.rule.binds else "a bill")
        for gate in BUYING for f in found[gate]
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
    for gate in GATES:
        for rule in question.rules:
            asked = gate in rule.gates and rule.in_force(day) and question.concerns(rule, gate)
            if asked and question.covered(rule, gate, day):
                holding = [f for f in found[gate] if f.rule.id == rule.id]
                sentences += _tried(gate, rule, holding, question.values)
    if question.part.designer != "US" and not gates["export"].rules:
        sentences.append(
            f"export: designed in {question.part.designer}, so no export rule of the US applies"
        )
    return sentences


def _figures(question: Question) -> list[str]:
    """Return how the legal figures of a part come about."""
    part = question.part
    area_mm2 = (part.die_area_m2 or 0.0) * 1e6
    if not part.peaks:
        return [f"{part.stack_density:.1f} GB/s per mm2 = {part.memory_bandwidth / 1e9:,.0f} GB/s "
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
    if not holding and gate in BUYING and _tells(rule, values):
        tried = [why for expression in rule.classes.values()
                 for why in expression.explain({**values, **rule.thresholds})]  # fmt: skip
        sentences.append(f"{gate}: {rule.id} does not hold: " + "; ".join(unique(tried)))
    return sentences


def _tells(rule: Rule, values: Mapping[str, Value]) -> bool:
    """Tell whether it is worth saying that a rule does not hold: it compares with thresholds."""
    of_stacks = any("stack_density" in e.names for e in rule.classes.values())
    return bool(rule.thresholds) and not rule.relaxes and not (of_stacks and values["TPP"])


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
