"""Fleets as sections of a page: who wins for whom, who keeps the rules, and what it looked like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean

from ersatz.device_models.text.units import format_duration
from ersatz.sim.report.page.markup import (
    Fact,
    card,
    cards,
    folded,
    picture,
    section,
    sentences,
    table,
)
from ersatz.sim.report.page.material import Material, Record

KINDS = (
    ("gantt", "who held which node"),
    ("use", "devices in use"),
    ("leaves", "how full the leaves were"),
)
SHARED = (("queue.svg", "Jobs that wait"), ("completion.svg", "Completion times"), ("delay.svg", "Delays"),
          ("fragmentation.svg", "Fragmentation"))  # fmt: skip
FIGURES = (("jct_s", "mean completion", "time"), ("jct_p99_s", "99 % completion", "time"),
           ("wait_s", "mean wait", "time"), ("wait_p99_s", "99 % wait", "time"), ("makespan_s", "makespan", "time"),
           ("allocated", "fleet in use", "share"), ("goodput", "goodput", "share"),
           ("preemptions", "preemptions per job", "number"), ("failures", "failures per job", "number"),
           ("rho", "mean fairness", "number"), ("late", "missed deadlines", "share"))  # fmt: skip


def first(m: Material) -> str:
    """Return who wins, for whom, and a card per policy with what speaks against it."""
    record = m.record
    standing: Mapping[str, Record] = record["standing"]
    winners = list(standing["all"]["winners"])
    told = [Fact("shortest mean completion", ", ".join(winners) or "nobody",
                 f"{_time(standing['all']['best_s'])}{_sure(standing['all'])}", "good" if winners else "bad")]  # fmt: skip
    told += [Fact(name, ", ".join(one["winners"]) or "nobody", _time(one["best_s"]) + _sure(one))
             for name, one in list(standing.items())[1:12]]  # fmt: skip
    boxes = [card("Best for", told)]
    boxes += [
        card(str(policy["policy"]), list(_policy(policy))) for policy in record["policies"][:11]
    ]
    return cards(boxes)


def _sure(one: Record) -> str:
    if one["chance"] is None:
        return ", on one draw"
    return "; the difference may be chance" if one["chance"] else ""


def _time(value: float | None) -> str:
    return "-" if value is None else format_duration(value) if value >= 1 else "0 s"


def _mean(policy: Record, metric: str) -> float | None:
    values = [draw["metrics"].get(metric) for draw in policy["draws"]]
    known = [v for v in values if v is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _shown(value: float | None, kind: str) -> str:
    if value is None:
        return "-"
    return (
        _time(value) if kind == "time" else f"{value:.1%}" if kind == "share" else f"{value:,.2f}"
    )


def _policy(policy: Record) -> Iterator[Fact]:
    against = policy["cannot_win"]
    yield Fact("rules", "broken" if against else "kept", str(against), "bad" if against else "good")
    for metric, name, kind in FIGURES[:4]:
        yield Fact(name, _shown(_mean(policy, metric), kind))


def sections(m: Material) -> Iterator[str]:
    """Yield the sections below the first screen."""
    policies = m.record["policies"]
    names = [str(policy["policy"]) for policy in policies]
    rows = [
        (title, *(_shown(_mean(p, metric), kind) for p in policies))
        for metric, title, kind in FIGURES
    ]
    draws = len(policies[0]["draws"]) if policies else 0
    yield section(
        f"All jobs, means over {draws} draws",
        table(("", *names), rows, right=range(1, len(names) + 1)),
    )
    for kind, title in (("tenants", "By tenant"), ("types", "By accelerator type")):
        yield section(title, _parts(policies, kind, names))
    for name in names:
        shown = [(words, m.picture(f"{name}.{kind}.svg")) for kind, words in KINDS]
        yield section(f"{name}: what it looked like", *(picture(svg) for _, svg in shown if svg))
    for file, title in SHARED:
        yield section(title, picture(m.picture(file)) if m.picture(file) else "")
    yield section("What was checked on the event logs", *(_verdict(policy) for policy in policies))
    yield section("Assumed", sentences(m.record["assumptions"]))
    yield section(
        "What the figures mean",
        folded("definitions", table(("", ""), m.record["definitions"].items())),
    )


def _parts(policies: list[Record], kind: str, names: list[str]) -> str:
    parts = sorted({part for policy in policies for draw in policy["draws"] for part in draw[kind]})
    rows = []
    for part in parts:
        for metric, title in (("jct_s", "mean completion"), ("wait_s", "mean wait")):
            cells = []
            for policy in policies:
                values = [v for draw in policy["draws"]
                          if (v := draw[kind].get(part, {}).get(metric)) is not None]  # fmt: skip
                cells.append(_time(fmean(values)) if values else "-")
            rows.append((f"{part or '(none)'}, {title}", *cells))
    return table(("", *names), rows, right=range(1, len(names) + 1)) if rows else ""


def _verdict(policy: Record) -> str:
    rows = {}
    for draw in policy["draws"]:
        for finding in draw["verdict"]:
            if finding["count"] or finding["number"] not in rows:
                rows[finding["number"]] = (finding["number"], finding["title"], finding["status"],
                                           finding["count"] or "", finding["why"])  # fmt: skip
    head = ("", "property", "", "times", "first")
    return folded(str(policy["policy"]), table(head, [rows[n] for n in sorted(rows)]))
