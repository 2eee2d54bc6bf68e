"""The report of `ersatz emulate`: the step first, then where it goes, then what was assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.device_models.text.units import format_bytes, format_duration
from ersatz.sim.emulate.records import EmulateResult
from ersatz.sim.emulate.trace import UNCOMPILED

MOST_ROWS = 12
NOTICE = (
    "Emulated: no such device was there. docs/emulate.md says what is and what is not modelled."
)


def render_emulation(result: EmulateResult) -> RenderableType:
    """Return the report of one emulated script."""
    parts: list[RenderableType] = [_answer(result), Text(""), _breakdown(result)]
    if result.assumptions[:1] == (UNCOMPILED,):
        parts.insert(0, Text(UNCOMPILED, style="bold"))
    if result.collectives:
        parts += [Text(""), _collectives(result)]
    parts += [Text(""), _operators(result)]
    if len(result.ranks) > 1:
        parts += [Text(""), _ranks(result)]
    if result.policies:
        parts += [
            Text(""),
            _places("answered by policy, for nobody knows the value", result.policies),
        ]
    parts += [Text(""), Text("assumed:"), *(Text(f"  - {line}") for line in result.assumptions)]
    return Group(*parts, Text(""), Text(NOTICE, style="dim"))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    return table


def _answer(result: EmulateResult) -> RenderableType:
    table = Table(box=None, pad_edge=False, show_header=False)
    interval = f"{format_duration(result.low80_s)} - {format_duration(result.high80_s)}"
    fits = f"{format_bytes(result.memory_bytes)} of {format_bytes(result.capacity_bytes)}"
    for label, value in (
        ("step", format_duration(result.step_s)),
        ("  80 % interval", interval),
        ("memory", f"{fits} reserved at most"),
        ("FLOPs / peak", f"{100 * result.hfu:.1f} % (all that is executed)"),
        ("devices", f"{result.world:,} x {result.device}, seen as {result.shown_as}"),
        ("script", result.script),
    ):
        table.add_row(label, Text(value, overflow="fold"))
    return table


def _breakdown(result: EmulateResult) -> RenderableType:
    table = _table("where the step goes", "time", "share")
    for cause, seconds in result.breakdown.items():
        if seconds >= 0.001 * result.step_s:
            table.add_row(cause, format_duration(seconds), f"{100 * seconds / result.step_s:.1f} %")
    return table


def _collectives(result: EmulateResult) -> RenderableType:
    table = _table(
        "collectives of a step", "rank", "members", "apart", "count", "bytes each", "alone"
    )
    for row in result.collectives[: 4 * MOST_ROWS]:
        table.add_row(row.kind, f"{row.rank}", f"{row.size:,}", f"{row.stride or 'uneven'}", f"{row.count:,}",
                      format_bytes(row.nbytes), format_duration(row.seconds))  # fmt: skip
    return table


def _operators(result: EmulateResult) -> RenderableType:
    table = _table("longest operators", "count", "time")
    for name, count, seconds in result.operators[:MOST_ROWS]:
        table.add_row(name, f"{count:,}", format_duration(seconds))
    return table


def _ranks(result: EmulateResult) -> RenderableType:
    table = _table("rank", "step", "by its clock", "reserved", "kernels", "CPU time", "real memory")
    for row in result.ranks:
        table.add_row(f"{row.rank}", format_duration(row.step_s), format_duration(row.live_s),
                      format_bytes(row.peak_reserved), f"{row.kernels:,}", f"{row.cpu_s:.1f} s",
                      format_bytes(row.rss_bytes))  # fmt: skip
    return table


def _places(title: str, counts: Mapping[str, int]) -> RenderableType:
    table = _table(title, "times")
    rows: Sequence[tuple[str, int]] = sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))
    for place, count in rows[:MOST_ROWS]:
        table.add_row(place, f"{count:,}")
    return table
