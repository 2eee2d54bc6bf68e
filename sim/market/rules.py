"""Is a device legal to buy, at a date and for a destination: rules put to a device, gate by gate.

Gates: `export` (the seller's country: rules issued where the part was designed or is shipped from,
and rules with worldwide reach), `import` (the destination's own rules), `foundry` (may more of a
part be made), `use` (may it be used), `duty` and `power` (what it costs). Export and import decide
about a purchase; foundry and use are reported beside it. Within a gate the strictest rule decides;
a rule that `relaxes` others takes the place of their stricter policy where its criterion holds.
Not modelled: end-use checks beyond the kind of buyer, transit, penalties. This is no legal advice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date

from device_models.export import Part, load_part
from sim.errors import InputError, Problem
from sim.market.expression import Value
from sim.market.places import Buyer, find_buyer, find_date, find_place
from sim.market.rulebook import (
    GATES,
    POLICIES,
    STRICTNESS,
    UNCHANGED,
    Rule,
    Rules,
    Term,
    load_rules,
)

__all__ = ["Change", "GateVerdict", "Rules", "Verdict", "judge", "load_rules", "timeline"]

BUYING = ("export", "import")  # the gates that decide about a purchase
NOTICE = "This is a model of published rules and no legal advice."


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What one gate says; `rules` are those that decide, the strictest first."""

    gate: str
    policy: str
    rules: tuple[str, ...] = ()
    alternative: str = ""  # the policy under another reading of the rules
    doubts: tuple[str, ...] = ()
    terms: tuple[Term, ...] = ()


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


@dataclass(frozen=True, slots=True)
class _Finding:
    """A rule whose criterion holds (or may hold: `certain` is false) with its class."""

    rule: Rule
    name: str
    term: Term
    certain: bool = True


@dataclass(slots=True)
class _Question:
    """What is asked, and the attributes that criteria read."""

    rules: Rules
    part: Part
    place: str
    buyer: Buyer
    origin: str
    area_m2: float | None
    values: dict[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = self._values()

    def headquarters(self) -> str:
        return self.place if self.buyer.headquarters == "destination" else self.buyer.headquarters

    def findings(self, gate: str) -> list[_Finding]:
        """Return every rule of a gate whose criterion holds or may hold, whatever the day."""
        return [f for rule in self.rules if gate in rule.gates and self.concerns(rule, gate)
                for f in _apply(rule, self.values)]  # fmt: skip

    def concerns(self, rule: Rule, gate: str) -> bool:
        """Tell whether a rule's issuer has a say at a gate."""
        if gate == "export":
            return rule.worldwide or rule.issuer in (self.part.designer, self.origin)
        if gate == "import":
            return rule.issuer == self.place
        return True

    def covered(self, rule: Rule, gate: str, day: date) -> bool:
        """Tell whether a rule covers the place; a foundry delivers to the designer."""
        if gate == "foundry":
            return rule.covers(self.part.designer, self.part.designer, day)
        return rule.covers(self.place, self.headquarters(), day)

    def _values(self) -> dict[str, Value]:
        """Return the attributes that criteria read."""
        part, buyer = self.part, self.buyer
        values: dict[str, Value] = {
            "TPP": part.tpp, "PD": part.density(self.area_m2),
            "memory_gb_s": part.memory_bandwidth / 1e9, "io_gb_s": part.io_bandwidth / 1e9,
            "stack_density": part.stack_density, "process_nm": part.process_nm,
            "transistors": part.transistors, "data_centre": part.data_centre,
            "sold_in_us": part.sold_in_us, "device": part.name, "vendor": part.vendor,
            "designer": part.designer, "destination": self.place, "origin": self.origin,
            "headquarters": self.headquarters(), "buyer": buyer.kind, "listed": buyer.listed,
            "owned_by_listed": float(buyer.owned_by_listed), "state_funded": buyer.state_funded,
            "big_tech": buyer.big_tech, "cleared_2026": buyer.cleared_2026,
            "research": buyer.research, "military": buyer.military, "class_3A090": "none",
        }  # fmt: skip
        for rule in self.rules:
            if rule.defines:
                found = _apply(rule, values)
                values[rule.defines] = (None if any(not f.certain for f in found) else
                                        found[0].name if found else "none")  # fmt: skip
        return values


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
    _check_day(rules, on)
    found = {gate: question.findings(gate) for gate in GATES}
    gates = {gate: _decide(question, gate, found[gate], on) for gate in GATES}
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
        assumptions=(*rules.assumptions, *_assumed(question.part)),
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
) -> _Question:
    part = load_part(device) if isinstance(device, str) else device
    place = find_place(destination)
    source = find_place(origin) if origin else part.designer
    return _Question(rules, part, place, find_buyer(buyer), source, part.die_area_m2)


def _check_day(rules: Rules, day: date) -> None:
    if not rules.known_from <= day <= rules.known_until:
        expected = (f"the rules are known from {rules.known_from} to {rules.known_until}; "
                    "to go on with the last ones set knowledge.until=DATE")  # fmt: skip
        raise InputError([Problem("date", 0, 0, "", day.isoformat(), expected)])


def _apply(rule: Rule, values: Mapping[str, Value]) -> list[_Finding]:
    """Return the class of a rule that holds; several, uncertain, where an unknown decides."""
    found: list[_Finding] = []
    inputs = {**values, **rule.thresholds}
    for name, expression in rule.classes.items():
        truth = expression.evaluate(inputs)
        if truth is not False:
            found.append(_Finding(rule, name, rule.terms[name], certain=False))
        if truth is True:
            same = len({f.term.policy for f in found}) == 1  # whichever of them it is
            return [replace(found[-1], certain=True)] if same else found
    return found


def _decide(question: _Question, gate: str, found: Iterable[_Finding], day: date) -> GateVerdict:
    """Return the strictest policy of the findings that bind on a day, after relaxations."""
    active = [f for f in found if f.rule.in_force(day) and question.covered(f.rule, gate, day)]
    outcomes = _relaxed([f for f in active if f.certain])
    policy = max((o.policy for o in outcomes), key=STRICTNESS.__getitem__, default="free")
    unsure = [f for f in active if not f.certain and f.term.policy != UNCHANGED
              and STRICTNESS[f.term.policy] > STRICTNESS[policy]]  # fmt: skip
    if unsure:
        lacking = tuple(f"{f.rule.id} class {f.name} ({f.term.policy}) cannot be decided: "
                        + "; ".join(_reasons(f, question.values)) for f in unsure)  # fmt: skip
        return GateVerdict(gate, "unknown", _unique(f.rule.id for f in unsure), policy, lacking)
    deciding = [o for o in outcomes if o.policy == policy]
    terms = tuple(f.term for o in deciding for f in o.findings)
    other = max((o.alternative for o in outcomes), key=STRICTNESS.__getitem__, default=policy)
    disputed = other != policy
    return GateVerdict(
        gate, policy, _unique(f.rule.id for o in deciding for f in o.findings),
        other if disputed else "", _unique(t.doubt for t in terms if t.doubt and disputed), terms,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A policy that binds, and the rules that make it: a relaxing rule first, then the relaxed."""

    policy: str
    findings: tuple[_Finding, ...]

    @property
    def alternative(self) -> str:
        """The policy under another reading; the same where there is none."""
        return next((f.term.alternative for f in self.findings if f.term.alternative), self.policy)


def _relaxed(found: list[_Finding]) -> list[_Outcome]:
    """Let rules that relax others take their place; raises `InputError` where they contradict."""
    outcomes: list[_Outcome] = []
    for finding in found:
        if finding.rule.relaxes:
            continue
        relaxers = [f for f in found if finding.rule.id in f.rule.relaxes and _milder(f, finding)]
        outdone = {name for f in relaxers for name in f.rule.relaxes}
        relaxers = [f for f in relaxers if f.rule.id not in outdone]
        wanted = sorted({f.term.policy for f in relaxers})
        if len(wanted) > 1:
            names = " and ".join(f"{f.rule.id} ({f.term.policy})" for f in relaxers)
            expected = f"contradictory rules: {names} both relax it; one must relax the other"
            raise InputError([Problem(finding.rule.id, 0, 0, "relaxes", "", expected)])
        changed = [policy for policy in wanted if policy != UNCHANGED]
        policy = changed[0] if changed else finding.term.policy
        outcomes.append(_Outcome(policy, (*relaxers, finding)))
    return outcomes


def _milder(relaxing: _Finding, finding: _Finding) -> bool:
    """Tell whether a relaxing rule's policy, or what it leaves open, is milder than a finding's."""
    term = relaxing.term
    policy = term.alternative if term.policy == UNCHANGED else term.policy
    return STRICTNESS.get(policy, 99) < STRICTNESS[finding.term.policy]


def _with_area_doubt(question: _Question, verdict: GateVerdict, day: date) -> GateVerdict:
    """Add a doubt where the least or most die area that may count changes a gate's policy."""
    part = question.part
    doubts: list[str] = []
    for area in (part.die_area_least_m2, part.die_area_most_m2):
        if area is None or area == part.die_area_m2:
            continue
        other = replace(question, area_m2=area)
        policy = _decide(other, verdict.gate, other.findings(verdict.gate), day).policy
        if policy != verdict.policy:
            doubts.append(f"with a die area of {area * 1e6:,.0f} mm2 instead of "
                          f"{(part.die_area_m2 or 0) * 1e6:,.0f} mm2 it is {policy}")  # fmt: skip
            verdict = replace(verdict, alternative=verdict.alternative or policy)
    return replace(verdict, doubts=(*verdict.doubts, *doubts))


def _history(question: _Question, found: Mapping[str, list[_Finding]]) -> list[Change]:
    """Return the days on which export or import change, in order."""
    rules = question.rules
    days = {
        day for gate in BUYING for f in found[gate] for day in (f.rule.binds, f.rule.ends) if day
    }
    days |= {start for gate in BUYING for f in found[gate] for _, start in f.rule.places if start}
    changes: list[Change] = []
    before: tuple[str, tuple[str, ...]] = ("free", ())
    for day in sorted(d for d in days if rules.known_from <= d <= rules.known_until):
        gates = [_decide(question, gate, found[gate], day) for gate in BUYING]
        policy = _stricter(gates[0].policy, gates[1].policy)
        ids = _unique(name for gate in gates for name in gate.rules)
        if policy != before[0]:
            changes.append(Change(day, before[0], policy, ids or before[1]))
        before = (policy, ids)
    return changes


def _stricter(one: str, other: str) -> str:
    """Return the stricter of two policies; what is unknown counts unless the other is denied."""
    if "unknown" in (one, other):
        return "denied" if "denied" in (one, other) else "unknown"
    return max(one, other, key=STRICTNESS.__getitem__)


def _pending(
    question: _Question, found: Mapping[str, list[_Finding]], day: date
) -> tuple[str, ...]:
    """Return what was announced by a day, concerns the device and does not bind yet."""
    return _unique(
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
    question: _Question, gates: Mapping[str, GateVerdict],
    found: Mapping[str, list[_Finding]], day: date,
) -> list[str]:  # fmt: skip
    """Return the sentences that lead to a verdict: legal figures, then each rule that was tried."""
    part = question.part
    dtype = part.tpp_format
    sentences = [f"TPP {part.tpp:,.1f} = {part.peaks[dtype] / 1e12:,.1f} TFLOP/s ({dtype}, dense) x "
                 f"{part.tpp / (part.peaks[dtype] / 1e12):.0f} bits"] if part.peaks else []  # fmt: skip
    density = part.density(part.die_area_m2)
    if density is not None and part.die_area_m2:
        sentences.append(f"PD {density:.2f} = {part.tpp:,.1f} / {part.die_area_m2 * 1e6:,.0f} mm2")
    elif part.peaks:
        sentences.append("PD unknown: the die area is not published")
    values = question.values
    for gate in GATES:
        for rule in question.rules:
            if gate not in rule.gates or not rule.in_force(day):
                continue
            if not question.covered(rule, gate, day) or not question.concerns(rule, gate):
                continue
            holding = [f for f in found[gate] if f.rule.id == rule.id]
            if holding:
                for f in holding:
                    note = f" ({f.term.note})" if f.term.note else ""
                    sentences.append(f"{gate}: {rule.id} {f.name}: {f.term.policy}{note}, as "
                                     + "; ".join(_reasons(f, values)))  # fmt: skip
            elif gate in BUYING and _tells(rule, values):
                reasons = [r for e in rule.classes.values()
                           for r in e.explain({**values, **rule.thresholds})]  # fmt: skip
                sentences.append(
                    f"{gate}: {rule.id} does not hold: " + "; ".join(dict.fromkeys(reasons))
                )
    if part.designer != "US" and not gates["export"].rules:
        sentences.append(
            f"export: designed in {part.designer}, so no export rule of the US applies"
        )
    return sentences


def _tells(rule: Rule, values: Mapping[str, Value]) -> bool:
    """Tell whether it is worth saying that a rule does not hold: it compares with thresholds."""
    of_stacks = any("stack_density" in e.names for e in rule.classes.values())
    return bool(rule.thresholds) and not rule.relaxes and not (of_stacks and values["TPP"])


def _reasons(finding: _Finding, values: Mapping[str, Value]) -> list[str]:
    return finding.rule.classes[finding.name].explain({**values, **finding.rule.thresholds})


def _assumed(part: Part) -> tuple[str, ...]:
    """Return the legal figures of a part that are assumptions."""
    keys = ("die_area_m2", "datasheet_peak", "matrix_peak", "memory_bandwidth", "process_nm")
    return _unique(
        f"{part.name}: {fact.key} {fact.text} ({fact.note or 'assumed'})"
        for fact in part.facts.values()
        if fact.confidence == "assumed" and fact.key.split(".")[0] in keys and fact.value
    )


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
