"""The report of `ersatz legal`: one verdict explained, or a table of devices by days."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.sim.law.legal import (
    LegalAnswer,
    LegalQuestion,
    PublicRecord,
    flips,
    scheduled,
    together,
    watch,
)
from ersatz.sim.law.places import find_buyer, find_place, load_places
from ersatz.sim.law.rule import POLICIES
from ersatz.sim.law.rules import NOTICE, Change, Verdict, days_beyond
from ersatz.sim.report.json_out import plain

WORDS = {"free": "free", "notify": "notice", "licensed": "licensed", "approval": "approval",
         "case_by_case": "case", "licence": "letter", "denied": "DENIED", "unknown": "unknown"}  # fmt: skip
STYLES = {"free": "green", "notify": "green", "licensed": "green", "approval": "yellow",
          "case_by_case": "yellow", "licence": "red", "denied": "red", "unknown": "magenta"}  # fmt: skip
PER_TABLE = 6  # days side by side in 100 columns


def render_legal(answers: Sequence[LegalAnswer], *, watching: bool = False) -> RenderableType:
    """Return the report of one question, or of several cases beside the first.

    `watching` adds what is scheduled to change in the year after the last day.
    """
    base = answers[0]
    parts: list[RenderableType] = [Text(line, style="bold yellow") for line in _age(base.question)]
    if base.question.question:
        parts.append(Text(base.question.question, style="bold"))
    for other in answers[1:]:
        parts += [Text(line) for line in _flip_lines(base, other)]
    if len(answers) > 1:
        parts.append(Text(""))
    last = answers[-1]
    single = len(answers) <= 2 and len(last.verdicts) == len(last.question.days) == 1
    parts += _explained(last, next(iter(last.verdicts.values()))[0]) if single else _tabled(answers)
    parts += _watched(last) if watching else ()
    return Group(*parts, Text(""), Text(NOTICE, style="dim"))


def _age(question: LegalQuestion) -> Iterator[str]:
    """Say how old the knowledge is, where a day lies beyond the last known rule."""
    last = question.days[-1]
    late = days_beyond(question.rules, last)
    if late:
        yield (f"Rules are known to {question.rules.checked_until}, {late} days before {last}: later "
               "ones are missing, scheduled ones are counted.")  # fmt: skip


def _watched(answer: LegalAnswer) -> Iterator[RenderableType]:
    """Yield what is scheduled to change in the twelve months after the last day."""
    found = watch(answer)
    lines = [f"{change.day} {name}: {WORDS[change.before]} -> {WORDS[change.after]} "
             f"({', '.join(change.rules)})" for name, change in found]  # fmt: skip
    first = answer.question.days[-1]
    none = [f"no verdict on these devices is scheduled to change; rules are known to "
            f"{answer.question.rules.checked_until}"]  # fmt: skip
    yield from _listed(f"changes within 12 months after {first}", lines or none)
    yield from _listed("rules that begin or end in these months", [
        f"{turn.day} {turn.rule} {'begins' if turn.begins else 'ends'} ({', '.join(turn.gates)}):"
        f" {', '.join(devices)}" for turn, devices in scheduled(answer)])  # fmt: skip
    seen = {line: None for row in answer.verdicts.values() for line in row[-1].pending}
    yield from _listed("announced, not binding", tuple(seen))


def _place(code: str) -> str:
    return load_places().names[find_place(code)]


def _scene(question: LegalQuestion) -> str:
    origin = f", shipped from {_place(question.origin)}" if question.origin else ""
    return f"to {_place(question.destination)}{origin}; buyer: {find_buyer(question.buyer).title}"


def _explained(answer: LegalAnswer, verdict: Verdict) -> Iterator[RenderableType]:
    """Yield one verdict with everything that leads to it; the answer stands first."""
    may = "may be bought" if verdict.may_buy else "may not be bought"
    may = "may be bought with a licence only" if verdict.may_apply else may
    may = "may not be bought on what the data know" if verdict.policy == "unknown" else may
    sold = answer.question.parts[verdict.device].on_sale(verdict.day)
    unsold = "" if sold else "; not yet on sale"
    yield Text(f"{verdict.device} on {verdict.day} {_scene(answer.question)}{unsold}")
    yield Text(f"{may}: {verdict.meaning}", style=f"bold {STYLES[verdict.policy]}")
    yield Text(f"because of {', '.join(verdict.rule_ids) or _no_rule(verdict)}")
    if verdict.alternative:
        yield Text(f"under another reading: {WORDS[verdict.alternative]}", style="magenta")
    known = f"rules are known to {answer.question.rules.checked_until}"
    yield Text(f"changed last: {_change(verdict.last_change, known)}")
    yield Text(f"changes next: {_change(verdict.next_change, known)}")
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


def _no_rule(verdict: Verdict) -> str:
    """Say what "no rule" means: nothing found in what the data cover, or rules that they lack."""
    if verdict.policy == "unknown":
        return "rules that are not in the data"
    return "no rule among those that the data cover"


def _change(change: Change | None, known: str = "") -> str:
    if change is None:
        return f"nothing that the rules know of ({known})"
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
    for answer in answers:
        yield from (Text(line) for line in _sums(answer))
    for start in range(0, len(columns), PER_TABLE):
        yield Text("")
        yield _block(base, columns[start : start + PER_TABLE], len(answers) > 1)
    yield Text("")
    yield Text(_legend(answers))
    yield from _listed("which rule decides about which device", _closing(answers))
    if len(base.verdicts) == 1:
        yield from _listed("course", [_change(c) for c in next(iter(base.courses.values()))])
    yield from _listed("public record that differs", _differences(base.disagreements))
    notes = [f"{answer.question.name}: {note}" for answer in answers
             for note in answer.question.rules.assumptions]  # fmt: skip
    parts = sorted({note for row in base.verdicts.values() for verdict in row
                    for note in verdict.assumptions if note.startswith(f"{verdict.device}: ")})  # fmt: skip
    yield from _listed("assumptions", notes + parts)


def _sums(answer: LegalAnswer) -> Iterator[str]:
    """Say what the devices come to together where a rule counts them in one sum."""
    for found in together(answer):
        share = f"{100 * found.asked / found.most:.0f} % of what {found.rule} leaves"
        more = ": more than may be had, though each alone is within it" if found.over else ""
        yield f"{found.day}: {' and '.join(found.devices)} together are {share}{more}"


def _closing(answers: Sequence[LegalAnswer]) -> list[str]:
    """Say for each rule that closes or opens something which devices it decides about."""
    found: dict[str, dict[str, None]] = {}
    for answer in answers:
        for row in answer.verdicts.values():
            for verdict in row:
                for rule in verdict.rule_ids:
                    found.setdefault(rule, {})[verdict.device] = None
    return [f"{rule}: {', '.join(devices)}" for rule, devices in sorted(found.items())]


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
    word = WORDS[verdict.policy] + marks_of(verdict)
    sold = answer.question.parts[verdict.device].on_sale(verdict.day)
    return word if sold else f"({word})"


def marks_of(verdict: Verdict) -> str:
    """Return the marks after a verdict: + destination's own rules, ! use, ? another reading."""
    own, other = verdict.gates["export"].policy, verdict.gates["import"].policy
    marks = [
        ("+", verdict.policy == other != own),
        ("!", verdict.gates["use"].policy == "denied"),
        ("?", bool(verdict.alternative)),
    ]
    return "".join(mark for mark, shown in marks if shown)


def _legend(answers: Sequence[LegalAnswer]) -> str:
    pairs = [(a, verdict) for a in answers for row in a.verdicts.values() for verdict in row]
    verdicts = [verdict for _, verdict in pairs]
    used = {verdict.policy for verdict in verdicts}
    words = [
        f"{WORDS[policy]}: {meaning}" for policy, meaning in POLICIES.items() if policy in used
    ]
    if "unknown" in used:
        words.append("unknown: an unpublished attribute or a rule that the data lack decides")
    marks = {
        "+": "by the destination's own rules",
        "!": "its use is claimed to violate US guidance (outside China: a breach, so denied)",
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


def _coming(answer: LegalAnswer) -> dict[str, Any]:
    """Return what is scheduled within twelve months after the last day."""
    return {
        "changes": [{"device": name} | _dated(plain(change)) for name, change in watch(answer)],
        "rules": [_dated(plain(turn)) | {"devices": list(devices)}
                  for turn, devices in scheduled(answer)],
    }  # fmt: skip


def _record(answer: LegalAnswer) -> dict[str, Any]:
    rows = [verdict for row in answer.verdicts.values() for verdict in row]
    return {
        "verdicts": [_dated(plain(v)) | {"may_buy": v.may_buy, "may_apply": v.may_apply,
                                         "alternative": v.alternative, "meaning": v.meaning}
                     for v in rows],
        "within_12_months": _coming(answer),
        "together": [_dated(plain(s)) | {"over": s.over} for s in together(answer)],
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
