"""The phases of a job in a small table; the sizes of a growing batch are one row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.device_models.text.units import (
    format_bytes,
    format_count,
    format_duration,
    format_share,
)
from ersatz.sim.records import PhaseResult


def phase_rows(phases: Sequence[PhaseResult]) -> list[list[PhaseResult]]:
    """Return the phases with neighbouring sizes of a growing batch together."""
    found: list[list[PhaseResult]] = []
    for ramp, some in groupby(phases, key=lambda phase: phase.ramp):
        rows = list(some)
        found += [rows] if ramp else [[row] for row in rows]
    return found


def phases_words(phases: Sequence[PhaseResult]) -> str:
    """Say in a line how the time of the steps is shared: "short 87 %, long 13 %"."""
    whole = math.fsum(phase.productive_s for phase in phases)
    shares = [f"{_name(rows)} {format_share(_seconds(rows), whole)}" for rows in phase_rows(phases)]
    return ", ".join(shares[:4]) + (f" and {len(shares) - 4} more" if len(shares) > 4 else "")


def phase_tables(phases: Sequence[PhaseResult]) -> Iterator[RenderableType]:
    """Yield the table of the phases and the layouts that differ; nothing where there is one phase."""
    if not phases:
        return
    yield Text("")
    table = Table(box=None, pad_edge=False)
    table.add_column("the phases", overflow="fold")
    for column in ("tokens", "batch", "length", "step", "tokens/s/device", "time", "memory"):
        table.add_column(column, justify="right")
    whole = math.fsum(phase.productive_s for phase in phases)
    for rows in phase_rows(phases):
        first, last = rows[0], rows[-1]
        tokens = math.fsum(row.tokens for row in rows)
        seconds = _seconds(rows)
        rate = math.fsum(row.tokens_per_s_per_device * row.productive_s for row in rows) / seconds
        table.add_row(
            _name(rows), format_count(tokens), _span(first.global_batch, last.global_batch),
            f"{first.sequence_length:,}",
            "-" if len(rows) > 1 else format_duration(first.step_s), f"{rate:,.0f}",
            f"{format_duration(seconds)} {format_share(seconds, whole)}",
            f"{format_bytes(max(row.peak_bytes for row in rows))} {last.verdict}",
        )  # fmt: skip
    yield table
    yield from _layouts(phases)


def _layouts(phases: Sequence[PhaseResult]) -> Iterator[RenderableType]:
    """Say the layout of each phase that has one of its own, and where the job starts again."""
    if len({phase.layout for phase in phases}) > 1:
        yield from (Text(f"{row.name}: {row.layout}") for row in phases if not row.ramp)
    if anew := [phase.name for phase in phases if phase.anew]:
        yield Text(f"saved and started again before {', '.join(anew)}")


def _name(rows: Sequence[PhaseResult]) -> str:
    return rows[0].name if len(rows) == 1 else f"ramp, {len(rows)} sizes"


def _span(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,} - {last:,}"


def _seconds(rows: Sequence[PhaseResult]) -> float:
    return math.fsum(row.productive_s for row in rows)
