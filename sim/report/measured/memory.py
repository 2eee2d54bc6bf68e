"""The terminal report of `ersatz validate --memory`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.sim.validation.errors.memory_peaks import Errors
from ersatz.sim.validation.errors.memory_table import MemoryVerdicts

WIDE = 52  # of a name in a table
SHOWN = 12  # vetoed rows


def render_memory(verdicts: MemoryVerdicts) -> RenderableType:
    """Return the headline, stated peaks by source and kind, and verdicts by source and model."""
    parts: list[RenderableType] = [Text(line, style="bold") for line in _headline(verdicts)]
    if verdicts.vetoed:
        shown = ", ".join(verdicts.vetoed[:SHOWN])
        more = len(verdicts.vetoed) - SHOWN
        parts.append(
            Text(f"vetoed although they ran: {shown}" + (f" and {more} more" if more > 0 else ""))
        )
    for title, groups in (("stated peaks by source", verdicts.peaks_by_source),
                          ("by software", verdicts.peaks_by_stack),
                          ("by what is counted", verdicts.peaks_by_kind)):  # fmt: skip
        if groups:
            parts += [Text(""), _peaks(title, groups)]
    parts += [Text(""), _ran(verdicts)]
    if verdicts.by_model:
        parts += [Text(""), _models(verdicts)]
    return Group(*parts)


def _headline(v: MemoryVerdicts) -> Iterator[str]:
    kept = "no run can be judged" if v.kept_sources_equal is None else (
        f"{100 * v.kept_sources_equal:.1f} % of what ran kept")  # fmt: skip
    if v.sources_equal is None or v.caught_sources_equal is None:
        yield f"memory verdicts: {kept}, sources equal; no crashes were given (--crashes)"
    else:
        yield (f"memory verdicts: {100 * v.sources_equal:.1f} % right, sources equal"
               f" ({kept}, {100 * v.caught_sources_equal:.1f} % of crashes caught)")  # fmt: skip
    if v.peaks:
        yield (f"stated peaks: within {_pair(v.peaks.median, v.peaks.p90)} (median / 90th percentile,"
               f" sources equal);")  # fmt: skip
        yield (f"  {_pair(v.peaks.source_out_median, v.peaks.source_out_p90)} with a row's source left out,"
               f" {_pair(v.peaks.left_out_median, v.peaks.left_out_p90)} with its whole lineage")  # fmt: skip


def _pair(median: float, p90: float) -> str:
    return f"{100 * median:.1f} / {100 * p90:.0f} %"


def _peaks(title: str, groups: Mapping[str, Errors]) -> Table:
    table = _table(title, "rows", "median / p90", "bias", "source out", "lineage out")
    for name, e in groups.items():
        table.add_row(name[:WIDE], f"{e.rows:,}", _pair(e.median, e.p90), f"{100 * e.bias:+.1f} %",
                      _pair(e.source_out_median, e.source_out_p90),
                      _pair(e.left_out_median, e.left_out_p90))  # fmt: skip
    return table


def _ran(verdicts: MemoryVerdicts) -> Table:
    """Sources of which a run is vetoed, and the rest together."""
    table = _table("runs that ran, by source", "judged", "kept")
    whole = [(rows, kept) for rows, kept in verdicts.by_source.values() if rows == kept]
    for name, (rows, kept) in verdicts.by_source.items():
        if kept < rows:
            table.add_row(name[:WIDE], f"{rows:,}", _share(kept, rows))
    if whole:
        rows = sum(count for count, _ in whole)
        table.add_row(f"{len(whole)} other sources", f"{rows:,}", _share(rows, rows))
    return table


def _models(verdicts: MemoryVerdicts) -> Table:
    table = _table("crashes and runs of nanotron", "crashed", "caught", "ran", "kept", "balanced")
    for name, s in [*verdicts.by_model.items(), ("all", verdicts.total)]:
        table.add_row(name, f"{s.crashed:,}", _share(s.caught, s.crashed), f"{s.ran:,}",
                      _share(s.kept, s.ran), f"{100 * s.balanced:.1f} %")  # fmt: skip
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
