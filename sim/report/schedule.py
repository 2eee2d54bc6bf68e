"""The report of `ersatz schedule`: who wins for whom, whether the rules were kept, and the figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ersatz.device_models.text.units import format_duration
from ersatz.sim.fleet.compare import Difference, Outcome
from ersatz.sim.fleet.judge.properties import Finding, Verdict
from ersatz.sim.fleet.standing import Standing, cannot_win, standing

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

WIDTH = 100
ORDER = ("violated", "bad conduct", "remark", "holds", "not claimed", "not checked")
MOST_UNFIT = 4  # told with reasons at once
FIGURES = (
    ("mean completion", "jct_s", "time"), ("99th percentile", "jct_p99_s", "time"),
    ("mean wait", "wait_s", "time"), ("longest wait", "wait_max_s", "time"),
    ("slowdown", "slowdown", "number"), ("makespan", "makespan_s", "time"),
    ("devices in use", "allocated", "share"), ("goodput", "goodput", "share"),
    ("interruptions a job", "preemptions", "number"), ("worst fairness", "rho_max", "number"),
    ("late jobs", "late", "share"), ("unfinished", "unfinished", "count"),
)  # fmt: skip


def render_schedule(
    question: str, outcomes: Sequence[Sequence[Outcome]], differences: Sequence[Difference],
    assumptions: Sequence[str],
) -> RenderableType:  # fmt: skip
    """Return the report of all policies, each with its draws."""
    from rich.console import Group
    from rich.text import Text

    several = len(outcomes) > 1
    parts: list[Any] = [
        Text(question, style="bold"),
        *(Text(line) for line in answer(outcomes)),
        Text(""),
    ]
    parts += [_figures(outcomes), Text("")]
    if several:
        parts += [_part_table(outcomes, "tenants", "tenant"), Text("")]
    else:
        parts += [_own_parts(outcomes[0][0]), Text("")]
    if len(outcomes[0]) > 1 and several:
        parts += [_difference_table(differences), Text("")]
    parts += [_verdict_lines(outcomes)]
    if assumptions:
        parts += [Text(""), *(Text(f"assumed: {line}", style="dim") for line in assumptions)]
    return Group(*parts)


def answer(outcomes: Sequence[Sequence[Outcome]]) -> list[str]:
    """Return the answer in a few lines: who wins overall and for whom, who cannot win and why."""
    unfit = [(draws[0].policy, why) for draws in outcomes if (why := cannot_win(draws))]
    lines = [] if len(outcomes) == 1 else _winners(outcomes, bool(unfit))
    lines += [
        _cut(f"{name} cannot win: it {why}", 2 * WIDTH - 10) for name, why in unfit[:MOST_UNFIT]
    ]
    if len(unfit) > MOST_UNFIT:
        lines.append(f"Nor can {', '.join(name for name, _ in unfit[MOST_UNFIT:])}.")
    if len(unfit) < len(outcomes):
        lines.append(_kept(outcomes, bool(unfit)))
    return lines


def _winners(outcomes: Sequence[Sequence[Outcome]], some_unfit: bool) -> list[str]:
    found = standing(outcomes)
    if not found.winners:
        return ["Nobody wins." if some_unfit else "No job was done under any of them."]
    lines = [f"{_of(found)}, {format_duration(found.best_s)}{_sureness(found)}."]
    if found.behind and found.chance is not None:
        others = ", ".join(f"{p} {_interval(*bounds)}" for p, *bounds in found.behind)
        lines.append(f"Longer than it by, in per cent (95 % interval): {others}.")
    each = {tenant: standing(outcomes, tenant) for tenant in _parts(outcomes, "tenants")}
    told = [f"{tenant or 'no tenant'}: {_several(one.winners)}" for tenant, one in each.items()
            if one.winners]  # fmt: skip
    if len(told) > 1:
        lines.append(f"Best for {'; '.join(told)}.")
    return lines


def _interval(change: float, low: float, high: float) -> str:
    """Write a relative change in per cent with its interval; open where draws do not say."""
    if math.isnan(low) or math.isinf(high):
        return f"{100 * change:+.0f}"
    return f"{100 * change:+.0f} ({100 * low:+.0f}..{100 * high:+.0f})"


def _of(found: Standing) -> str:
    if len(found.winners) == 1:
        return f"{found.winners[0]} has the shortest mean completion time"
    best, *others = found.winners
    return f"{best} has the shortest mean completion time, tied with {_several(others)}"


def _several(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _sureness(found: Standing) -> str:
    if found.chance is None:
        return " on this one draw; more draws would tell how much is chance"
    return " (the difference may be chance)" if found.chance else ""


def _kept(outcomes: Sequence[Sequence[Outcome]], some_unfit: bool) -> str:
    if len(outcomes) == 1:
        return f"{outcomes[0][0].policy} keeps the rules."
    return "The others keep the rules." if some_unfit else f"All {len(outcomes)} keep the rules."


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3].rstrip()}..."


def _over(draws: Sequence[Outcome], metric: str) -> float:
    """Mean of a figure over draws; infinite where there is none, so that it never wins."""
    if metric == "unfinished":
        return math.fsum(o.metrics["jobs"] - o.metrics["finished"] for o in draws) / len(draws)
    values = [o.metrics[metric] for o in draws]
    mean = math.fsum(values) / len(values)
    return mean if not math.isnan(mean) else math.inf


def _part_mean(draws: Sequence[Outcome], kind: str, name: str, metric: str) -> float:
    values = [
        v
        for o in draws
        if not math.isnan(v := getattr(o, kind).get(name, {}).get(metric, math.nan))
    ]
    return math.fsum(values) / len(values) if values else math.inf


def _parts(outcomes: Sequence[Sequence[Outcome]], kind: str) -> list[str]:
    return sorted({name for draws in outcomes for o in draws for name in getattr(o, kind)})


def shown(value: float, kind: str) -> str:
    """Return a figure as people read it; a dash where there is none."""
    if not math.isfinite(value):
        return "-"
    if kind == "time":
        return format_duration(value) if value >= 1 else "0 s"
    return {"share": f"{value:.1%}", "count": f"{value:,.0f}", "number": f"{value:,.2f}"}[kind]


def _table(title: str, columns: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _figures(outcomes: Sequence[Sequence[Outcome]]) -> Table:
    draws = len(outcomes[0])
    title = "All jobs" + (f", means over {draws} draws of jobs and failures" if draws > 1 else "")
    table = _table(title, ["", *(d[0].policy for d in outcomes)])
    for name, metric, kind in FIGURES:
        values = [_over(d, metric) for d in outcomes]
        if any(math.isfinite(v) for v in values) and (metric != "unfinished" or any(values)):
            table.add_row(name, *(shown(v, kind) for v in values))
    return table


def _part_table(outcomes: Sequence[Sequence[Outcome]], kind: str, what: str) -> Table:
    """Completion times and waits by tenant, policies side by side."""
    table = _table(f"By {what}", ["", *(d[0].policy for d in outcomes)])
    for title, metric in (("completion", "jct_s"), ("wait", "wait_s")):
        for name in _parts(outcomes, kind):
            cells = [shown(_part_mean(d, kind, name, metric), "time") for d in outcomes]
            table.add_row(f"{name or '(none)'}, mean {title}", *cells)
    return table


def _own_parts(outcome: Outcome) -> Table:
    table = _table("By tenant and accelerator type", ["", "jobs", "finished", "mean wait", "99 % wait",
                                                      "mean completion", "device-hours"])  # fmt: skip
    for part in (outcome.tenants, outcome.types):
        for name, figures in part.items():
            table.add_row(name or "(no tenant)", *(
                shown(figures[key], kind) for key, kind in (
                    ("jobs", "count"), ("finished", "count"), ("wait_s", "time"), ("wait_p99_s", "time"),
                    ("jct_s", "time"), ("device_hours", "count"))))  # fmt: skip
    return table


def _difference_table(differences: Sequence[Difference]) -> Table:
    policies = list(dict.fromkeys(d.policy for d in differences))
    table = _table(f"Against {policies[0]}: change in per cent (95 % interval; ? may be chance)",
                   ["", *policies[1:]])  # fmt: skip
    words = {metric: name for name, metric, _ in FIGURES} | {"rho": "mean fairness"}
    for metric in dict.fromkeys(d.metric for d in differences):
        row = {d.policy: d for d in differences if d.metric == metric}
        table.add_row(words.get(metric, metric), *(_change(row[p]) for p in policies[1:]))
    return table


def _change(d: Difference) -> str:
    if math.isnan(d.change):
        return "-"
    if math.isinf(d.high):
        return f"{d.change:+.0%} ?"
    sure = d.low > 0 or d.high < 0
    low, high = round(100 * d.low), round(100 * d.high)
    return f"{d.change:+.0%} ({low:+d}..{high:+d}){'' if sure else ' ?'}"


def _verdict_lines(outcomes: Sequence[Sequence[Outcome]]) -> RenderableType:
    """Which properties hold, and what speaks against each policy or is remarkable."""
    from rich.console import Group
    from rich.text import Text

    lines: list[Any] = [Text("Properties checked on the event logs", style="bold")]
    for draws in outcomes:
        lines.append(Text(f"  {draws[0].policy}: {_tally([o.verdict for o in draws])}"))
        lines += [Text(line) for finding in _told(draws) for line in offence(finding)]
        lines += [Text(_cut(f"    remark {f.number}: {f.why}", WIDTH)) for f in _remarks(draws)]
    return Group(*lines)


def _told(draws: Sequence[Outcome]) -> list[Finding]:
    """Return what speaks against a policy, each property once."""
    found: dict[int, Finding] = {}
    for outcome in draws:
        for f in outcome.verdict.findings:
            if f.convicts:
                found.setdefault(f.number, f)
    return [found[number] for number in sorted(found)]


def _remarks(draws: Sequence[Outcome]) -> list[Finding]:
    """Return the gravest remark on each property: of most records."""
    found: dict[int, Finding] = {}
    for outcome in draws:
        for f in outcome.verdict.remarks:
            if f.number not in found or f.count > found[f.number].count:
                found[f.number] = f
    return [found[number] for number in sorted(found)]


def offence(finding: Finding) -> list[str]:
    """Return an offence as lines: what, how grave, why, and the records that led to it."""
    grave = "RULE BROKEN" if finding.severity == "rule" else "BAD CONDUCT"
    return [
        _cut(f"    {grave}, {finding.number}. {finding.title}: {finding.count:,} times, first:", WIDTH),
        _cut(f"      {finding.why}", WIDTH),
        *(_cut(f"      {'>' if i == len(finding.context) - 1 else ' '} {line}", WIDTH)
          for i, line in enumerate(finding.context)),
    ]  # fmt: skip


def _tally(verdicts: Sequence[Verdict]) -> str:
    words: dict[str, list[str]] = {}
    for number in [f.number for f in verdicts[0].findings]:
        found = {f.status for v in verdicts for f in v.findings if f.number == number}
        words.setdefault(min(found, key=ORDER.index), []).append(str(number))
    return "; ".join(
        f"{s.upper() if s in ORDER[:2] else s} {', '.join(words[s])}" for s in ORDER if s in words
    )
