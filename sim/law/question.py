"""One question put to the rules: which criteria hold, and what one gate decides on a day.

Within a gate the strictest rule decides; a rule that `relaxes` others takes the place of their
stricter policy where its criterion holds. An attribute that nobody published, or that is only
assumed, makes a policy "unknown" only where it decides. So do rules that the data do not cover.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date

from ersatz.device_models.catalog.export import Part
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.law.expression import Value
from ersatz.sim.law.places import Buyer, load_places
from ersatz.sim.law.rule import ORDER, STRICTNESS, UNCHANGED, Rule, Rules, Term


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
class Finding:
    """A rule whose criterion holds (or may hold: `certain` is false) with its class."""

    rule: Rule
    name: str
    term: Term
    certain: bool = True


@dataclass(slots=True)
class Question:
    """What is asked, and the attributes that criteria read."""

    rules: Rules
    part: Part
    place: str
    buyer: Buyer
    origin: str
    area_m2: float | None
    units: float | None = None  # devices that are asked for
    values: dict[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = self._values()

    def headquarters(self) -> str:
        return self.place if self.buyer.headquarters == "destination" else self.buyer.headquarters

    @property
    def buying(self) -> tuple[str, ...]:
        """The gates that decide: a rule against use binds outside the designer's country."""
        return (
            ("export", "import", "use")
            if self.place != self.part.designer
            else ("export", "import")
        )

    @property
    def item(self) -> str:
        """The class of goods that rules speak of."""
        if self.part.vendor == "generic":
            return "other"
        return "accelerator" if self.part.peaks else "memory"

    def findings(self, gate: str) -> list[Finding]:
        """Return every rule of a gate whose criterion holds or may hold, whatever the day."""
        found = [f for rule in self.rules if gate in rule.gates and self.concerns(rule, gate)
                 for f in _apply(rule, self.values)]  # fmt: skip
        return [f for f in found if not (f.rule.relaxes and self._exceeds(f.term))]

    def _exceeds(self, term: Term) -> bool:
        """Tell whether more devices are asked for than the quota of one buyer."""
        most = term.most(self.part.tpp)
        return most is not None and self.units is not None and self.units > most

    def concerns(self, rule: Rule, gate: str) -> bool:
        """Tell whether a rule's issuer has a say at a gate: goods that stay at home are no export."""
        if gate == "export":
            at_home = rule.issuer == self.place or self.place == self.part.designer == self.origin
            return not at_home and (
                rule.worldwide or rule.issuer in (self.part.designer, self.origin)
            )
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
        tpp = None if part.assumes("datasheet_peak", "matrix_peak") else part.tpp
        values: dict[str, Value] = {
            "TPP": tpp, "PD": None if tpp is None else part.density(self.area_m2),
            "memory_gb_s": None if part.assumes("memory_bandwidth") else part.memory_bandwidth / 1e9,
            "io_gb_s": None if part.assumes("io_bandwidth") else part.io_bandwidth / 1e9,
            "stack_density": part.stack_density(self.area_m2),
            "process_nm": None if part.assumes("process_nm") else part.process_nm,
            "transistors": part.transistors, "data_centre": part.data_centre,
            "sold_in_us": part.sold_in_us, "device": part.name, "vendor": part.vendor,
            "designer": part.designer, "destination": self.place, "origin": self.origin,
            "headquarters": self.headquarters(), "buyer": buyer.kind, "party": buyer.party,
            "item": self.item, "units": self.units,
            "order_tpp": None if self.units is None or tpp is None else self.units * tpp,
            "listed": buyer.listed,
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


def _apply(rule: Rule, values: Mapping[str, Value]) -> list[Finding]:
    """Return the class of a rule that holds; several, uncertain, where an unknown decides."""
    found: list[Finding] = []
    inputs = {**values, **rule.thresholds}
    for name, expression in rule.classes.items():
        truth = expression.evaluate(inputs)
        if truth is not False:
            found.append(Finding(rule, name, rule.terms[name], certain=False))
        if truth is True:
            same = len({f.term.policy for f in found}) == 1  # whichever of them it is
            return [replace(found[-1], certain=True)] if same else found
    return found


def lacking(question: Question, gate: str) -> tuple[str, ...]:
    """Return what the data do not cover of a gate, in words: there "no rule found" says nothing."""
    places, place = load_places(), question.place
    sellers = {question.part.designer, question.origin} - {place}
    if gate == "export":
        return tuple(
            f"the export rules of {places.names.get(issuer, issuer)} on goods of class "
            f"{question.item} for {places.names[place]} are not in the data"
            for issuer in sorted(sellers)
            if not places.export_coverage(issuer, place, question.item)
        )
    if gate == "import" and sellers and not places.import_coverage(place):
        return (f"the import rules of {places.names[place]} are not in the data",)
    return ()


def gate_verdict(question: Question, gate: str, found: Iterable[Finding], day: date) -> GateVerdict:
    """Return what a gate says on a day; unknown where rules that are not in the data could be stricter."""
    verdict = decide(question, gate, found, day)
    missing = lacking(question, gate)
    if not missing or ORDER[verdict.policy] == "denied":
        return verdict
    return replace(verdict, policy="unknown", alternative=verdict.policy, doubts=missing, terms=())


def decide(question: Question, gate: str, found: Iterable[Finding], day: date) -> GateVerdict:
    """Return the strictest policy of the findings that bind on a day, after relaxations."""
    active = [f for f in found if f.rule.in_force(day) and question.covered(f.rule, gate, day)]
    outcomes = _relaxed([f for f in active if f.certain])
    policy = max((o.policy for o in outcomes), key=STRICTNESS.__getitem__, default="free")
    unsure = [f for f in active if not f.certain and f.term.policy != UNCHANGED
              and STRICTNESS[f.term.policy] > STRICTNESS[policy]]  # fmt: skip
    if unsure:
        undecided = tuple(f"{f.rule.id} class {f.name} ({f.term.policy}) cannot be decided: "
                        + "; ".join(reasons(f, question.values)) for f in unsure)  # fmt: skip
        return GateVerdict(gate, "unknown", unique(f.rule.id for f in unsure), policy, undecided)
    deciding = [o for o in outcomes if o.policy == policy]
    terms = tuple(f.term for o in deciding for f in o.findings)
    other = max((o.alternative for o in outcomes), key=STRICTNESS.__getitem__, default=policy)
    disputed = other != policy
    if _leaves(policy) and not _leaves(
        other
    ):  # a reading by which it is stopped: not free for all that
        doubts = unique(t.doubt for t in terms if t.doubt)
        rules = unique(f.rule.id for o in deciding for f in o.findings)
        return GateVerdict(gate, "unknown", rules, other, doubts)
    return GateVerdict(
        gate, policy, unique(f.rule.id for o in deciding for f in o.findings),
        other if disputed else "", unique(t.doubt for t in terms if t.doubt and disputed), terms,
    )  # fmt: skip


def _leaves(policy: str) -> bool:
    return ORDER[policy] in ("free", "notify")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A policy that binds, and the rules that make it: a relaxing rule first, then the relaxed."""

    policy: str
    findings: tuple[Finding, ...]

    @property
    def alternative(self) -> str:
        """The policy under another reading; the same where there is none."""
        return next((f.term.alternative for f in self.findings if f.term.alternative), self.policy)


def _relaxed(found: list[Finding]) -> list[_Outcome]:
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


def _milder(relaxing: Finding, finding: Finding) -> bool:
    """Tell whether a relaxing rule's policy, or what it leaves open, is milder than a finding's."""
    term = relaxing.term
    policy = term.alternative if term.policy == UNCHANGED else term.policy
    return STRICTNESS.get(policy, 99) < STRICTNESS[finding.term.policy]


def reasons(finding: Finding, values: Mapping[str, Value]) -> list[str]:
    return finding.rule.classes[finding.name].explain({**values, **finding.rule.thresholds})


def unique(texts: Iterable[str]) -> tuple[str, ...]:
    """Return texts without repetitions, in order."""
    return tuple(dict.fromkeys(texts))
