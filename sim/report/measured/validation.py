"""The terminal report of `ersatz validate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.sim.validation.errors.summary import GroupErrors

MOST_GROUPS = 14
MOST_REASONS = 6


def render_validation(summary: Mapping[str, Any]) -> RenderableType:
    """Return counts, the headline and the errors by group."""
    parts: list[RenderableType] = [
        Text(f"{summary['rows']:,} rows: {summary['predicted']:,} predicted,"
             f" {summary['refused']:,} refused", style="bold")
    ]  # fmt: skip
    if summary["apart"]:
        parts.append(Text(f"{summary['apart']:,} of them are suspect, second-hand or to be excluded by their"
                          " own table: they do not count below"))  # fmt: skip
    if "all" in summary:
        equal = summary["sources_weighted_equally"]
        parts.append(Text(
            f"error of step time, {equal['sources']} sources weighted equally: median"
            f" {_percent(equal['median'])}, 90th percentile {_percent(equal['p90'])}"
        ))  # fmt: skip
        parts += [Text(""), _groups("all rows", {"": summary["all"]})]
        for name, groups in summary["groups"].items():
            parts += [Text(""), _groups(f"by {name}", groups)]
    if summary["reasons"]:
        parts += [Text(""), Text("refused because")]
        for reason, count in list(summary["reasons"].items())[:MOST_REASONS]:
            parts.append(Text(f"  {count:5} {reason}"))
        more = len(summary["reasons"]) - MOST_REASONS
        if more > 0:
            parts.append(Text(f"        and {more} other reasons (--json lists all)"))
    return Group(*parts)


def render_headline(held_out: Mapping[str, Any]) -> RenderableType:
    """Return the honest figures: errors with a model or a source left out, beside in-sample."""
    slices = dict.fromkeys(name for figures in held_out.values() for name in figures)
    words = "|error of step time| in %: median / 90th percentile, sources weighted equally"
    table = Table(box=None, pad_edge=False, title=words, title_justify="left")
    table.add_column("", no_wrap=True)
    for method in held_out:
        table.add_column(method, justify="right", max_width=14)
    for name in slices:
        cells = [
            f"{100 * f[name]['median']:.1f} / {100 * f[name]['p90']:.0f}" if name in f else "-"
            for f in held_out.values()
        ]
        table.add_row(name, *cells, style="bold" if name == "all" else None)
    return Group(table, Text(""))


def render_jobs(jobs: Mapping[str, Any]) -> RenderableType:
    """Return one line on whole jobs: how many could be judged, and their errors."""
    return Text(f"{jobs['jobs']} whole jobs with a known layout: error of their duration, median"
                f" {_percent(jobs['median'])}, 90th percentile {_percent(jobs['p90'])}")  # fmt: skip


def _groups(title: str, groups: Mapping[str, GroupErrors]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(title, min_width=50, max_width=58, no_wrap=True, overflow="ellipsis")
    for column in ("rows", "median", "p90", "bias", "in 80 %"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, e in list(groups.items())[:MOST_GROUPS]:
        table.add_row(name, f"{e.rows:,}", _percent(e.median), _percent(e.p90),
                      f"{100 * e.bias:+.1f} %", f"{100 * e.coverage80:.0f} %")  # fmt: skip
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
