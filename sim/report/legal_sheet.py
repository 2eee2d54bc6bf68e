"""The verdicts of `ersatz legal` as CSV: one row per device and day, with rules, dates and sources."""

from __future__ import annotations

import csv
from io import StringIO

from ersatz.sim.law.legal import LegalAnswer, scheduled, watch
from ersatz.sim.law.rules import Verdict

COLUMNS = ("case", "device", "day", "destination", "buyer", "origin", "policy", "may_buy",
           "alternative", "export", "import", "use", "foundry", "rules", "binding_since", "next_change",
           "next_policy", "doubts", "citations", "rules_known_until")  # fmt: skip
BETWEEN = " | "
WATCHED = (
    "case",
    "day",
    "device",
    "before",
    "after",
    "rule",
    "begins_or_ends",
    "gates",
    "citation",
)


def legal_csv(answer: LegalAnswer) -> str:
    """Return a table with a header; several rules, doubts or citations stand between " | "."""
    sheet = StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in answer.verdicts.values():
        for verdict in row:
            writer.writerow(_row(answer, verdict))
    return sheet.getvalue()


def watch_csv(answer: LegalAnswer) -> str:
    """Return what is scheduled within twelve months: changes of verdicts, and rules at every gate."""
    sheet, book, name = StringIO(), answer.question.rules.rules, answer.question.name
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(WATCHED)
    for device, change in watch(answer):
        cited = BETWEEN.join(book[rule].source for rule in change.rules)
        writer.writerow([name, change.day, device, change.before, change.after,
                         BETWEEN.join(change.rules), "", "", cited])  # fmt: skip
    for turn, devices in scheduled(answer):
        for device in devices:
            writer.writerow([name, turn.day, device, "", "", turn.rule, "begins" if turn.begins else "ends",
                             BETWEEN.join(turn.gates), book[turn.rule].source])  # fmt: skip
    return sheet.getvalue()


def _row(answer: LegalAnswer, verdict: Verdict) -> list[str]:
    book, gates, coming = answer.question.rules.rules, verdict.gates, verdict.next_change
    rules = [book[name] for name in verdict.rule_ids]
    return [
        answer.question.name, verdict.device, verdict.day.isoformat(), verdict.destination,
        verdict.buyer, verdict.origin, verdict.policy, "yes" if verdict.may_buy else "no",
        verdict.alternative, *(gates[g].policy for g in ("export", "import", "use", "foundry")),
        BETWEEN.join(verdict.rule_ids), BETWEEN.join(str(rule.binds) for rule in rules),
        coming.day.isoformat() if coming else "", coming.after if coming else "",
        BETWEEN.join(verdict.doubts), BETWEEN.join(rule.source for rule in rules),
        answer.question.rules.checked_until.isoformat(),
    ]  # fmt: skip
