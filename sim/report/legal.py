"""The report of `ersatz legal`: one verdict explained, or a table of devices by days."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.sim.law.legal import LegalAnswer, LegalQuestion, PublicRecord, flips
from ersatz.sim.law.places import find_buyer, find_place, load_places
from ersatz.sim.law.rule import POLICIES
from ersatz.sim.law.rules import NOTICE, Change, Verdict
from ersatz.sim.report.json_out import plain

WORDS = {"free": "free", "notify": "notice", "licensed": "licensed", "approval": "approval",
         "case_by_case": "case", "licence": "letter", "denied": "DENIED", "unknown": "unknown"}  # fmt: skip
STYLES = {"free": "green", "notify": "green", "licensed": "green", "approval": "yellow",
          "case_by_case": "yellow", "licence": "red", "denied": "red", "unknown": "magenta"}  # fmt: skip
PER_TABLE = 6  # days side by side in 100 columns


def render_legal(answers: Sequence[LegalAnswer]) -> RenderableType:
    """Return the report of one question, or of several cases beside the first."""
    base = answers[0]
    parts: list[RenderableType] = []
    if base.question.question:
        parts.append(Text(base.question.question, style="bold"))
    for other in answers[1:]:
        parts += [Text(line) for line in _flip_lines(base, other)]
    if len(answers) > 1:
        parts.append(Text(""))
    last = answers[-1]
    single = len(answers) <= 2 and len(last.verdicts) == len(last.question.days) == 1
    parts += _explained(last, next(iter(last.verdicts.values()))[0]) if single else _tabled(answers)
    return Group(*parts, Text(""), Text(NOTICE, style="dim"))


def _place(code: str) -> str:
    return load_places().names[find_place(code)]


def _scene(question: LegalQuestion) -> str:
    origin = f", shipped from {_place(question.origin)}" if question.origin else ""
    return f"to {_place(question.destination)}{origin}; buyer: {find_buyer(question.buyer).title}"


def _explained(answer: LegalAnswer, verdict: Verdict) -> Iterator[RenderableType]:
    """Yield one verdict with everything that leads to it; the answer stands first."""
    may = "may be bought" if verdict.may_buy else "may not be bought"
    may = "may be bought with a licence only" if verdict.may_apply else may
    yield Text(f"{verdict.device} on {verdict.day} {_scene(answer.question)}")
    yield Text(f"{may}: {verdict.meaning}", style=f"bold {STYLES[verdict.policy]}")
    yield Text(f"because of {', '.join(verdict.rule_ids) or 'no rule'}")
    yield Text(f"changed last: {_change(verdict.last_change)}")
    yield Text(f"changes next: {_change(verdict.next_change)}")
    yield Text("")
    table = Table(box=None, pad_edge=False)
    for column in ("gate", "verdict", "rules"):
        table.add_column(column, no_wrap=column != "rules")
    for gate, found in verdict.gates.items():
        if gate in ("duty", "power") and not found.rules:
            continue
        table.add_row(gate, WORDS[found.policy], ", ".join(found.rules) or "none", style="")
    yield table
    yield from _listed("terms", _terms(verdict))
    yield from _listed("doubts", _doubts(verdict))
    yield from _listed("how it follows", verdict.arithmetic)
    yield from _listed("announced, not binding", verdict.pending)
    yield from _listed("public record that differs", _differences(answer.disagreements))
    yield from _listed("sources", _sources(answer, verdict))
    yield from _listed("assumptions", verdict.assumptions)


def _change(change: Change | None) -> str:
    if change is None:
        return "nothing that the rules know of"
    return (
        f"{change.day}, {WORDS[change.before]} -> {WORDS[change.after]} ({', '.join(change.rules)})"
    )


def _listed(title: str, lines: Sequence[str]) -> Iterator[RenderableType]:
    if lines:
        yield Text("")
        yield Text(title, style="bold")
        for line in lines:
            yield Text(f"- {line}")


def _terms(verdict: Verdict) -> list[str]:
    found = [
        (verdict.wait_days, f"notice of {verdict.wait_days:.0f} days"),
        (verdict.fee, f"fee of {verdict.fee:.0%} of the price"),
        (verdict.duty, f"duty of {verdict.duty:.0%} of the customs value"),
        (verdict.quota, f"quota: {verdict.quota}"),
        (
            verdict.power_discount,
            f"electricity {verdict.power_discount:.0%} cheaper in some provinces",
        ),
    ]
    return [text for value, text in found if value]


def _doubts(verdict: Verdict) -> list[str]:
    found = [f"{gate}: {doubt}" for gate, v in verdict.gates.items() for doubt in v.doubts]
    other = [f"{gate}: under the other reading {v.alternative}" for gate, v in verdict.gates.items()
             if v.alternative]  # fmt: skip
    return found + other


def _sources(answer: LegalAnswer, verdict: Verdict) -> list[str]:
    rules = answer.question.rules.rules
    named = dict.fromkeys(name for gate in verdict.gates.values() for name in gate.rules)
    return [f"{name}: {rules[name].source} ({rules[name].confidence} confidence)"
            + (f"; {rules[name].note}" if rules[name].note else "") for name in named]  # fmt: skip


def _differences(found: Sequence[tuple[PublicRecord, str]]) -> list[str]:
    return [
        f"{record.device} on {record.day}, {record.gate}: reported {WORDS[record.reported]}, "
        f"the rules say {WORDS[policy]} ({record.note}; {record.source})"
        for record, policy in found
    ]


def _tabled(answers: Sequence[LegalAnswer]) -> Iterator[RenderableType]:
    """Yield a table of devices by days and cases; what may be bought, and the best of it, first."""
    base = answers[0]
    yield Text(_scene(base.question))
    columns = [(answer, i) for answer in answers for i in range(len(answer.question.days))]
    for answer, i in columns:
        yield Text(_summary(answer, i, len(answers) > 1))
    for start in range(0, len(columns), PER_TABLE):
        yield Text("")
        yield _block(base, columns[start : start + PER_TABLE], len(answers) > 1)
    yield Text("")
    yield Text(_legend(answers))
    if len(base.verdicts) == 1:
        yield from _listed("course", [_change(c) for c in next(iter(base.courses.values()))])
    yield from _listed("public record that differs", _differences(base.disagreements))
    notes = [f"{answer.question.name}: {note}" for answer in answers
             for note in answer.question.rules.assumptions]  # fmt: skip
    parts = sorted({note for row in base.verdicts.values() for verdict in row
                    for note in verdict.assumptions if note.startswith(f"{verdict.device}: ")})  # fmt: skip
    yield from _listed("assumptions", notes + parts)


def _summary(answer: LegalAnswer, i: int, cases: bool) -> str:
    column, best = answer.on_sale(i), answer.best(i)
    may = sum(verdict.may_buy for verdict in column)
    strongest = f"; strongest to train: {best.device}" if best else ""
    case = f"{answer.question.name}, " if cases else ""
    day = answer.question.days[i]
    return f"{case}{day}: {may} of {len(column)} on sale may be bought{strongest}"


def _block(base: LegalAnswer, columns: Sequence[tuple[LegalAnswer, int]], cases: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("device", no_wrap=True)
    for answer, i in columns:
        day = answer.question.days[i].isoformat()
        table.add_column(f"{answer.question.name}\n{day}" if cases else day)
    for name in base.verdicts:
        found = [(a, a.verdicts[name][i]) for a, i in columns if name in a.verdicts]
        table.add_row(name, *(Text(_cell(a, v), style=STYLES[v.policy]) for a, v in found))
    return table


def _cell(answer: LegalAnswer, verdict: Verdict) -> str:
    own, other = verdict.gates["export"].policy, verdict.gates["import"].policy
    marks = [
        ("+", verdict.policy == other != own),
        ("!", verdict.gates["use"].policy == "denied"),
        ("?", bool(verdict.alternative)),
    ]
    word = WORDS[verdict.policy] + "".join(mark for mark, shown in marks if shown)
    sold = answer.question.parts[verdict.device].on_sale(verdict.day)
    return word if sold else f"({word})"


def _legend(answers: Sequence[LegalAnswer]) -> str:
    pairs = [(a, verdict) for a in answers for row in a.verdicts.values() for verdict in row]
    verdicts = [verdict for _, verdict in pairs]
    used = {verdict.policy for verdict in verdicts}
    words = [
        f"{WORDS[policy]}: {meaning}" for policy, meaning in POLICIES.items() if policy in used
    ]
    if "unknown" in used:
        words.append("unknown: an unpublished attribute decides")
    marks = {
        "+": "by the destination's own rules",
        "!": "its use is claimed to violate US guidance",
        "?": "another reading is possible",
        "(": "in brackets: not yet on sale",
    }
    shown = "".join(_cell(*pair) for pair in pairs)
    found = [f"{mark} {text}".removeprefix("( ") for mark, text in marks.items() if mark in shown]
    return "; ".join([*words, *found])


def _flip_lines(base: LegalAnswer, other: LegalAnswer) -> Iterator[str]:
    """Say in one line per day and pair of policies which devices a case changes."""
    found = flips(base, other)
    name = other.question.name
    if not found:
        yield f"{name}: no verdict changes"
    groups: dict[tuple[date, str, str], list[str]] = {}
    for device, day, before, after in found:
        groups.setdefault((day, before, after), []).append(device)
    for (day, before, after), devices in sorted(groups.items()):
        yield (f"{name}, {day}: {len(devices)} from {WORDS[before]} to {WORDS[after]}: "
               + ", ".join(devices))  # fmt: skip


def legal_record(answers: Sequence[LegalAnswer]) -> dict[str, Any]:
    """Return the answers as mappings and lists, days as text."""
    return {
        "question": answers[0].question.question,
        "notice": NOTICE,
        "cases": {answer.question.name: _record(answer) for answer in answers},
    }


def _record(answer: LegalAnswer) -> dict[str, Any]:
    rows = [verdict for row in answer.verdicts.values() for verdict in row]
    return {
        "verdicts": [_dated(plain(v)) | {"may_buy": v.may_buy, "may_apply": v.may_apply,
                                         "alternative": v.alternative, "meaning": v.meaning}
                     for v in rows],
        "courses": {name: _dated(plain(course)) for name, course in answer.courses.items()},
        "disagreements": [_dated(plain(r)) | {"rules_say": policy} for r, policy in answer.disagreements],
        "rules": {rule.id: {"title": rule.title, "source": rule.source, "confidence": rule.confidence}
                  for rule in answer.question.rules},
    }  # fmt: skip


def _dated(value: Any) -> Any:
    """Write the days within a record as text."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _dated(item) for key, item in value.items()}
    return [_dated(item) for item in value] if isinstance(value, list) else value
