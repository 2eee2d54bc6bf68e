"""What the rules say of a case's devices, for the first screen of a report."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from functools import cache, lru_cache

from ersatz.device_models.catalog.export import knows_part
from ersatz.sim.law.rule import POLICIES
from ersatz.sim.law.rules import Rules, Verdict, judge, load_rules, timeline
from ersatz.sim.report.legal import WORDS
from ersatz.sim.report.page.markup import Fact
from ersatz.sim.report.pictures.verdicts import Bar, Row, verdict_chart

MOODS = {"free": "good", "notify": "good", "licensed": "good", "approval": "doubtful",
         "case_by_case": "doubtful", "licence": "bad", "denied": "bad", "unknown": "doubtful"}  # fmt: skip


@cache
def _rules() -> Rules:
    """Read the shipped rules once: a page asks again and again."""
    return load_rules()


@lru_cache(maxsize=2048)
def _verdict(device: str, day: date, place: str) -> Verdict:
    return judge(_rules(), device, day, place)


def law_day(day: date | None) -> date:
    """Return the day that is asked about: by default the last on which the rules are known."""
    return day or _rules().checked_until


def law_facts(devices: Iterable[str], day: date | None, place: str) -> list[Fact]:
    """Return a line per device that the rules know: may it go to a place on a day, and by which rule."""
    on = law_day(day)
    return [_fact(device, on, place) for device in dict.fromkeys(devices) if knows_part(device)]


def _fact(device: str, day: date, place: str) -> Fact:
    try:
        verdict = _verdict(device, day, place)
    except ValueError as error:
        return Fact(f"law: {device}", "not asked", str(error))
    since = f" since {verdict.last_change.day}" if verdict.last_change else ""
    by = f" by {', '.join(verdict.rule_ids)}" if verdict.rule_ids else ""
    mood = MOODS.get(verdict.policy, "doubtful")
    return Fact(f"law: {device}", f"{WORDS[verdict.policy].lower()} to {verdict.destination}{_hedge(verdict)}",
                f"on {day}{since}{by}: {verdict.meaning}", mood)  # fmt: skip


def _hedge(verdict: Verdict) -> str:
    return (
        f" ({WORDS[verdict.alternative].lower()} by another reading)" if verdict.alternative else ""
    )


def law_picture(devices: Iterable[str], day: date | None, place: str) -> str:
    """Return the verdicts of devices over all that the rules know, the day asked marked."""
    rules, on = _rules(), law_day(day)
    known = max(rules.checked_until, on)
    first, last = rules.known_from, known + min(timedelta(days=60), date.max - known)
    rows = []
    for device in dict.fromkeys(devices):
        if not knows_part(device):
            continue
        policy, start, bars = "", first, list[Bar]()
        ids: tuple[str, ...] = ()
        for change in timeline(rules, device, place):
            if change.day > first:
                bars.append(Bar(start, change.day, policy or change.before, ids, start > first))
                start = change.day
            policy, ids = change.after, change.rules
        bars.append(
            Bar(start, last, policy or judge(rules, device, on, place).policy, ids, start > first)
        )
        rows.append(Row(device, tuple(bars)))
    if not rows:
        return ""
    labels = {policy: WORDS[policy] for policy in (*POLICIES, "unknown")}
    return verdict_chart(f"Export to {place}, buyer: company", rows, (first, last), labels, [on],
                         rules.checked_until)  # fmt: skip
