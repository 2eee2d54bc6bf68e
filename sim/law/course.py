"""The course of a verdict: on which days it changes, and which rules begin or end then.

A gate is judged with the doubt that its die area leaves. Days that are scheduled in the data count like
those that have been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from ersatz.device_models.catalog.export import Part, load_part
from ersatz.sim.law.places import Buyer, find_buyer, find_place
from ersatz.sim.law.question import Finding, GateVerdict, Question, gate_verdict, unique
from ersatz.sim.law.rule import GATES, STRICTNESS, Rules


@dataclass(frozen=True, slots=True)
class Change:
    """A day on which the verdict changes, and from what to what."""

    day: date
    before: str
    after: str
    rules: tuple[str, ...]  # that decide afterwards, or before where nothing binds afterwards


@dataclass(frozen=True, slots=True)
class Turn:
    """A day on which a rule that holds for a device begins or ends, at some gates."""

    day: date
    rule: str
    begins: bool
    gates: tuple[str, ...]


def timeline(
    rules: Rules, device: str | Part, destination: str, buyer: str | Buyer = "company",
    origin: str | None = None, *, units: float | None = None,
) -> tuple[Change, ...]:  # fmt: skip
    """Return the days on which the verdict of a device changes, from the rules' first day on."""
    question = put(rules, device, destination, buyer, origin, units)
    return tuple(history(question, {gate: question.findings(gate) for gate in question.buying}))


def turns(
    rules: Rules, device: str | Part, destination: str, buyer: str | Buyer = "company",
    origin: str | None = None, *, units: float | None = None,
) -> tuple[Turn, ...]:  # fmt: skip
    """Return the days on which rules that hold for a device begin or end at any gate, in order.

    Those count too that leave its verdict as it is, and those on whether more of it may be made.
    """
    question = put(rules, device, destination, buyer, origin, units)
    gates: dict[tuple[date, str, bool], list[str]] = {}
    for gate in GATES:
        for f in question.findings(gate):
            for day, begins in ((f.rule.binds, True), (f.rule.ends, False)):
                if day and f.rule.status == "rule" and question.covered(f.rule, gate, day):
                    names = gates.setdefault((day, f.rule.id, begins), [])
                    names += [gate] if gate not in names else []
    return tuple(Turn(day, rule, begins, tuple(names))
                 for (day, rule, begins), names in sorted(gates.items()))  # fmt: skip


def put(
    rules: Rules, device: str | Part, destination: str, buyer: str | Buyer, origin: str | None,
    units: float | None,
) -> Question:  # fmt: skip
    """Return the question of a device for a place and a buyer; raises `InputError` for unknown ones."""
    part = load_part(device) if isinstance(device, str) else device
    place = find_place(destination)
    source = find_place(origin) if origin else part.designer
    return Question(rules, part, place, find_buyer(buyer), source, part.known_area_m2, units)


def _with_area_doubt(question: Question, verdict: GateVerdict, day: date) -> GateVerdict:
    """Add a doubt where the least or most die area that may count changes a gate's policy."""
    part = question.part
    doubts: list[str] = []
    deciding = verdict.rules
    for area in (part.die_area_least_m2, part.die_area_most_m2):
        if area is None or area == part.die_area_m2:
            continue
        other = replace(question, area_m2=area)
        said = gate_verdict(other, verdict.gate, other.findings(verdict.gate), day)
        policy = said.policy
        if policy not in (verdict.policy, verdict.alternative):
            doubts.append(f"with a die area of {area * 1e6:,.0f} mm2 instead of "
                          f"{(part.die_area_m2 or 0) * 1e6:,.0f} mm2 it is {policy}")  # fmt: skip
            verdict = replace(verdict, alternative=verdict.alternative or policy)
            deciding = (*deciding, *said.rules)
    if doubts and part.assumes("die_area_m2"):
        assumed = (
            f"with the assumed {(part.die_area_m2 or 0) * 1e6:,.0f} mm2 it is {verdict.policy}"
        )
        return replace(verdict, policy="unknown", rules=unique(deciding), terms=(),
                       doubts=(assumed, *doubts))  # fmt: skip
    return replace(verdict, doubts=(*verdict.doubts, *doubts))


def history(question: Question, found: Mapping[str, list[Finding]]) -> list[Change]:
    """Return the days on which the purchase's verdict changes, in order, with those scheduled."""
    rules, buying = question.rules, question.buying
    days = {
        day for gate in buying for f in found[gate] for day in (f.rule.binds, f.rule.ends) if day
    }
    days |= {start for gate in buying for f in found[gate] for _, start in f.rule.places if start}
    changes: list[Change] = []
    before: tuple[str, tuple[str, ...]] | None = None
    for day in sorted({rules.known_from, *(d for d in days if d > rules.known_from)}):
        gates = [whole(question, gate, found[gate], day) for gate in buying]
        policy = strictest([gate.policy for gate in gates])
        ids = unique(name for gate in gates for name in gate.rules)
        if before and policy != before[0]:
            changes.append(Change(day, before[0], policy, ids or before[1]))
        before = (policy, ids)
    return changes


def whole(question: Question, gate: str, found: list[Finding], day: date) -> GateVerdict:
    """Return what a gate says on a day, with what the die area leaves open."""
    return _with_area_doubt(question, gate_verdict(question, gate, found, day), day)


def strictest(policies: Sequence[str]) -> str:
    """Return the strictest of several policies; what is unknown counts unless another is denied."""
    if "unknown" in policies:
        return "denied" if "denied" in policies else "unknown"
    return max(policies, key=STRICTNESS.__getitem__)
