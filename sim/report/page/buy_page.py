"""Purchases as sections of a page: what to buy, what comes of it, and what would turn the answer."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ersatz.device_models.text.units import format_money
from ersatz.sim.report.page.law import MOODS
from ersatz.sim.report.page.markup import (
    Fact,
    bars,
    card,
    cards,
    paragraph,
    picture,
    section,
    sentences,
    table,
)
from ersatz.sim.report.page.material import Material, Record

LIVES = {
    "as_planned": "as planned",
    "as_things_came": "as things came",
    "planned_anew": "planned anew",
}
PICTURES = (("fleet-planned", "Working devices, as planned"), ("fleet-came", "Working devices, as things came"),
            ("fleet-anew", "Working devices, planned anew"), ("fan", "Working devices by chance"),
            ("tornado", "What matters"), ("front", "Faster or cheaper"), ("legal", "What may leave, and when"))  # fmt: skip


def first(m: Material) -> str:
    """Return the answer of each case."""
    return cards(
        card(name if len(m.cases) > 1 else "", list(_facts(case))) for name, case in m.cases.items()
    )


def _facts(case: Record) -> Iterator[Fact]:
    if "answers" in case:
        yield from (Fact(str(row["kind"]).replace("_", " "), str(row["sentence"]))
                    for row in case["answers"] if row["sentence"])  # fmt: skip
    elif "plan" in case:
        yield from _plan_facts(case)
    elif "best_months" in case:
        yield Fact(
            "buy ahead", f"{case['best_months']} months of need", f"{case['nodes']:,.0f} nodes"
        )
        yield Fact(
            "expected cost", format_money(case["expected"][case["best_months"]], case["currency"])
        )
    elif "binding" in case:
        yield Fact("devices", f"{case['devices']:,.0f}")
        yield Fact(
            "what binds", ", ".join(f"{kind} {n} months" for kind, n in case["binding"].items())
        )


def _plan_facts(case: Record) -> Iterator[Fact]:
    if case["plan"] is None:
        helps = case["remedies"][0]["text"] if case["remedies"] else "none of the limits alone"
        yield Fact("plan", "none", f"least change that helps: {helps}", "bad")
        return
    yield Fact("buy", _bought(case["plan"]["orders"], case["plan"]["rented"]), mood="good")
    spread = case.get("finish_interval") or {}
    for key, name in LIVES.items():
        life = case.get(key)
        if life and (key == "as_planned" or _other(life, case["as_planned"])):
            yield Fact(name, _end(life), _ends(spread.get(name)) + _stopped(life),
                       "good" if all(m is not None for m in life["finish_months"]) else "bad")  # fmt: skip
            done = all(end is not None for end in life["finish_months"])
            per = f"{format_money(life['per_trillion_tokens'], case['currency'])} per 1e12 tokens"
            yield Fact("money", format_money(life["money"], case["currency"]), per if done else "")
    if cloud := case.get("monte_carlo"):
        ends = [cloud["finish_months"].get(k) for k in ("low10", "high90")]
        span = " to ".join("never" if end is None else f"{end:.1f} months" for end in ends)
        yield Fact("by chance", f"{100 * cloud['finished']:.0f} % of {cloud['draws']} lives end",
                   f"80 % of them: {span}")  # fmt: skip
    verdicts = {(v["offer"], v["policy"], ", ".join(v["rules"])): v for v in case["verdicts"]}
    for (offer, policy, rules), v in verdicts.items():
        yield Fact(f"law: {offer}", policy, f"leaving {v['leaves']}{f', {rules}' if rules else ''}",
                   MOODS.get(policy, "doubtful"))  # fmt: skip


def _bought(orders: list[Record], rented: list[Record]) -> str:
    words = [f"{o['nodes']:,.0f} {o['device']} nodes ({o['date']})" for o in orders[:4]]
    words += [
        f"rent {r['nodes']:,.0f} {r['device']} nodes for {r['months']:.3g} months"
        for r in rented[:4]
    ]
    more = len(orders) + len(rented) - len(words)
    return (", ".join(words) or "nothing") + (f" and {more} more" if more > 0 else "")


def _other(life: Record, planned: Record) -> bool:
    same = life["finish_months"] == planned["finish_months"]
    return not (same and math.isclose(life["money"], planned["money"], rel_tol=1e-9))


def _end(life: Record) -> str:
    ends = life["finish_months"]
    return (
        "not done"
        if any(end is None for end in ends)
        else f"done in {max(ends, default=0.0):.1f} months"
    )


def _ends(pair: list[float | None] | None) -> str:
    if not pair or pair == [None, None]:
        return ""
    low, high = ("never" if end is None else f"{end:.1f}" for end in pair)
    return f"80 % by the speed alone: {low} to {high} months. "


def _stopped(life: Record) -> str:
    lost = [f"{n:,.0f} {device} {word}" for key, word in (("blocked", "stopped"), ("seized", "seized"))
            for device, n in life[key].items() if n]  # fmt: skip
    return ", ".join(lost)


def sections(m: Material) -> Iterator[str]:
    """Yield the sections below the first screen."""
    used: set[str] = set()
    for name, case in m.cases.items():
        title = f"{name}: " if len(m.cases) > 1 else ""
        if "plan" in case:
            yield from _plan_sections(case, title)
        for kind, words in PICTURES:
            if drawn := m.picture(f"{name}-{kind}.svg"):
                used.add(f"{name}-{kind}.svg")
                yield section(f"{title}{words}", picture(drawn))
        if case.get("assumptions"):
            yield section(f"{title}Assumed", sentences(case["assumptions"]))
    rest = [svg for name, svg in m.pictures.items() if name not in used]
    yield section("Pictures", *(picture(svg) for svg in rest))


def _plan_sections(case: Record, title: str) -> Iterator[str]:
    currency = case["currency"]
    lives = [(name, case[key]) for key, name in LIVES.items() if case.get(key)]
    if lives:
        life = lives[-1][1]
        yield section(f"{title}Where the money goes ({lives[-1][0]})", bars(
            (part, amount, format_money(amount, currency)) for part, amount in life["cost"].items()))  # fmt: skip
        log = [(line["date"], line["offer"], line["site"], f"{line['nodes']:,.0f}", line["outcome"],
                ", ".join(line["rules"])) for line in life["log"][:40]]  # fmt: skip
        head = ("day", "device", "site", "nodes", "outcome", "rules")
        yield section(
            f"{title}What came, and what was stopped", table(head, log, right=(3,)) if log else ""
        )
    turns = [turn["text"] for turn in case["turns"]]
    yield section(f"{title}What would turn this answer", sentences(turns, numbered=False))
    rows = [(v["offer"], v["site"], v["leaves"], v["policy"], ", ".join(v["rules"]), v["words"])
            for v in case["verdicts"]]  # fmt: skip
    head = ("if ordered at the start", "site", "leaves", "verdict", "rules", "why")
    yield section(f"{title}Verdicts", table(head, rows) if rows else "")
    if case["remedies"]:
        yield section(
            f"{title}Each of these alone would help", sentences(r["text"] for r in case["remedies"])
        )
    if case["binding"]:
        yield section(f"{title}What binds", paragraph("saved by 10 %, or a month, more:"), bars(
            (b["constraint"], b["saving"], format_money(b["saving"], currency)) for b in case["binding"]))  # fmt: skip
