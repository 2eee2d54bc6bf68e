"""The report of `ersatz schedule`: who wins for whom, whether the rules were kept, and the figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ersatz.device_models.text.units import format_duration
from ersatz.sim.fleet.compare import Difference, Outcome
from ersatz.sim.fleet.judge.validate import Finding, Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

FIGURES = (
    ("mean completion", "jct_s", "time"), ("99th percentile", "jct_p99_s", "time"),
    ("mean wait", "wait_s", "time"), ("longest wait", "wait_max_s", "time"),
    ("slowdown", "slowdown", "number"), ("makespan", "makespan_s", "time"),
    ("devices in use", "allocated", "share"), ("goodput", "goodput", "share"),
    ("preemptions per job", "preemptions", "number"), ("worst fairness", "rho_max", "number"),
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
    """Return the answer in a few lines: who wins overall and for whom, and whether rules were kept."""
    broken = [draws[0].policy for draws in outcomes if not all(o.verdict.holds for o in draws)]
    stopped = [o for draws in outcomes for o in draws if o.reason]
    lines = [f"{o.policy} broke off: {o.reason}" for o in stopped[:3]]
    if len(outcomes) > 1:
        best = min(outcomes, key=lambda draws: _over(draws, "jct_s"))
        shortest = _over(best, "jct_s")
        winners = [(tenant, who) for tenant in _parts(outcomes, "tenants")
                   if (who := _winner(outcomes, tenant))]  # fmt: skip
        lines.append(f"{best[0].policy} has the shortest mean completion time, {format_duration(shortest)}."
                     if math.isfinite(shortest) else "No job was done under any of them.")  # fmt: skip
        if len(winners) > 1:
            each = ", ".join(f"{name or 'no tenant'}: {who}" for name, who in winners)
            lines.append(f"Best for {each}.")
    one = len(outcomes) == 1
    kept = (
        f"{outcomes[0][0].policy} keeps the rules" if one else f"All {len(outcomes)} keep the rules"
    )
    lines.append(f"Rules are BROKEN by {', '.join(broken)}; see below." if broken else f"{kept}.")
    return lines


def _winner(outcomes: Sequence[Sequence[Outcome]], tenant: str) -> str:
    """Return the policy under which a tenant's jobs are over soonest; empty where none is over."""
    means = {draws[0].policy: _part_mean(draws, "tenants", tenant, "jct_s") for draws in outcomes}
    best = min(means, key=lambda policy: means[policy])
    return best if math.isfinite(means[best]) else ""


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
    sure = d.low > 0 or d.high < 0
    low, high = round(100 * d.low), round(100 * d.high)
    return f"{d.change:+.0%} ({low:+d}..{high:+d}){'' if sure else ' ?'}"


def _verdict_lines(outcomes: Sequence[Sequence[Outcome]]) -> RenderableType:
    """Which of the thirteen properties hold, and the first offence of each policy."""
    from rich.console import Group
    from rich.text import Text

    lines: list[Any] = [Text("Properties checked on the event logs", style="bold")]
    for draws in outcomes:
        lines.append(Text(f"  {draws[0].policy}: {_tally([o.verdict for o in draws])}"))
        bad = next((o.verdict.first for o in draws if o.verdict.first), None)
        if bad:
            lines += [Text(line) for line in offence(bad)]
    return Group(*lines)


def offence(finding: Finding) -> list[str]:
    """Return a violated property as lines: what, why, and the records that led to it."""
    return [
        f"    {finding.number}. {finding.title}: {finding.count} times, first:",
        f"      {finding.why}"[:100],
        *(f"      {'>' if i == len(finding.context) - 1 else ' '} {line}"[:100]
          for i, line in enumerate(finding.context)),
    ]  # fmt: skip


def _tally(verdicts: Sequence[Verdict]) -> str:
    words: dict[str, list[str]] = {}
    for number in [f.number for f in verdicts[0].findings]:
        found = {f.status for v in verdicts for f in v.findings if f.number == number}
        status = "violated" if "violated" in found else sorted(found)[0]
        words.setdefault(status, []).append(str(number))
    order = ("violated", "holds", "not claimed", "not checked")
    return "; ".join(
        f"{s.upper() if s == 'violated' else s} {', '.join(words[s])}" for s in order if s in words
    )
