"""Verdicts as sections of a page: may each device be bought on a day, by which rule, and what changes."""

from __future__ import annotations

from collections.abc import Iterator

from ersatz.sim.report.legal import WORDS
from ersatz.sim.report.page.law import MOODS
from ersatz.sim.report.page.markup import (
    SIGNS,
    Fact,
    card,
    cards,
    folded,
    picture,
    said,
    section,
    sentences,
    table,
)
from ersatz.sim.report.page.material import Material, Record

MOST_FACTS = 8


def first(m: Material) -> str:
    """Return the verdicts: a card per day for a few devices, a table of devices by days for many."""
    return "".join(
        _answer(case, name if len(m.cases) > 1 else "") for name, case in m.cases.items()
    )


def _answer(case: Record, title: str) -> str:
    days: dict[str, list[Record]] = {}
    for verdict in case["verdicts"]:
        days.setdefault(verdict["day"], []).append(verdict)
    if all(len(row) <= MOST_FACTS for row in days.values()) and len(days) <= 4:
        return cards(
            card(f"{title} {day}".strip(), [_fact(v) for v in row]) for day, row in days.items()
        )
    devices = list(dict.fromkeys(v["device"] for v in case["verdicts"]))
    found = {(v["device"], v["day"]): v for v in case["verdicts"]}
    rows = [(device, *(_cell(found.get((device, day))) for day in days)) for device in devices]
    return (f"<h3>{said(title)}</h3>" if title else "") + table(("", *days), rows)


def _cell(verdict: Record | None) -> str:
    if verdict is None:
        return ""
    return f"{SIGNS[MOODS.get(verdict['policy'], 'doubtful')]} {_word(verdict['policy'])}"


def _word(policy: str) -> str:
    return WORDS.get(policy, policy).lower()


def _fact(v: Record) -> Fact:
    rules = f" by {', '.join(v['rule_ids'])}" if v["rule_ids"] else ""
    coming = v["next_change"]
    then = f"; {_word(coming['after'])} from {coming['day']}" if coming else ""
    other = f"; another reading: {_word(v['alternative'])}" if v["alternative"] else ""
    return Fact(v["device"], _word(v["policy"]), f"{v['meaning']}{rules}{then}{other}",
                MOODS.get(v["policy"], "doubtful"))  # fmt: skip


def sections(m: Material) -> Iterator[str]:
    """Yield the sections below the first screen."""
    yield section("Verdicts over time", *(picture(svg) for svg in m.pictures.values()))
    for name, case in m.cases.items():
        title = f"{name}: " if len(m.cases) > 1 else ""
        body = "".join(folded(f"{v['device']}, {v['day']}", sentences(v["arithmetic"], numbered=False))
                       for v in case["verdicts"][:200] if v["arithmetic"])  # fmt: skip
        yield section(f"{title}The arithmetic", body)
        rows = [(device, c["day"], _word(c["before"]),
                 _word(c["after"]), ", ".join(c["rules"]))
                for device, course in case["courses"].items() for c in course]  # fmt: skip
        head = ("device", "day", "from", "to", "rules")
        yield section(
            f"{title}Every change",
            folded(f"{len(rows)} changes", table(head, rows)) if rows else "",
        )
        used = {rule for v in case["verdicts"] for rule in v["rule_ids"]}
        used |= {rule for course in case["courses"].values() for c in course for rule in c["rules"]}
        listed = [(rule, case["rules"][rule]["title"], case["rules"][rule]["confidence"],
                   case["rules"][rule]["source"]) for rule in sorted(used) if rule in case["rules"]]  # fmt: skip
        yield section(f"{title}Rules and their sources", table(("rule", "", "confidence", "source"), listed)
                      if listed else "")  # fmt: skip
