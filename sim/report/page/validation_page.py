"""Predicted against measured as sections of a page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from ersatz.sim.report.page.markup import Fact, card, cards, picture, section, sentences, table
from ersatz.sim.report.page.material import Material, Record
from ersatz.sim.report.pictures.charts import log_ticks
from ersatz.sim.report.pictures.frame import AXIS, COLOURS, Frame, draw, keyed

MOST_ROWS = 400
MARKS = tuple(10.0**n for n in range(-4, 7))


def first(m: Material) -> str:
    """Return how many rows there are and how far off predictions are."""
    return cards([card("", list(_facts(m.record)))])


def _facts(record: Record) -> Iterator[Fact]:
    summary = record["summary"]
    yield Fact(
        "rows",
        f"{summary['rows']:,}",
        f"{summary['predicted']:,} predicted, {summary['refused']:,} refused",
    )
    errors = sorted(abs(row["relative_error"]) for row in _predicted(record))
    if errors:
        ninth = errors[min(math.ceil(0.9 * len(errors)), len(errors)) - 1]
        yield Fact("error of step time", f"{100 * median(errors):.1f} % in the median",
                   f"90th percentile {100 * ninth:.0f} %; each row counts once")  # fmt: skip
    inside = [row["step_time_low80_s"] <= row["step_time_measured_s"] <= row["step_time_high80_s"]
              for row in _predicted(record) if row.get("step_time_low80_s") is not None]  # fmt: skip
    if inside:
        yield Fact("80 % intervals", f"hold {100 * sum(inside) / len(inside):.0f} % of the measured values",
                   f"of {len(inside):,} rows")  # fmt: skip


def _predicted(record: Record) -> list[Record]:
    return [row for row in record["rows"] if row.get("relative_error") is not None]


def sections(m: Material) -> Iterator[str]:
    """Yield the sections below the first screen."""
    rows = _predicted(m.record)
    yield section("Predicted against measured", picture(_scatter(rows)) if rows else "")
    listed = [(row["id"], f"{row['step_time_measured_s']:.4g}", f"{row['step_time_predicted_s']:.4g}",
               f"{100 * row['relative_error']:+.1f} %") for row in rows[:MOST_ROWS]]  # fmt: skip
    head = ("run", "measured, s", "predicted, s", "error")
    more = f" (the first {MOST_ROWS} of {len(rows):,})" if len(rows) > MOST_ROWS else ""
    yield section(f"Every run{more}", table(head, listed, right=(1, 2, 3)) if listed else "")
    reasons = m.record["summary"].get("reasons") or {}
    yield section(
        "Refused because", sentences((f"{n}: {why}" for why, n in reasons.items()), numbered=False)
    )


def _scatter(rows: list[Record]) -> str:
    points = [
        (math.log10(row["step_time_measured_s"]), math.log10(row["step_time_predicted_s"]))
        for row in rows
    ]
    low = math.floor(min(v for point in points for v in point) - 0.05)
    high = math.ceil(max(v for point in points for v in point) + 0.05)
    ticks = log_ticks(low, high, MARKS, lambda v: f"{v:g} s")
    frame = keyed(
        Frame("Step times, logarithmic", "measured", "predicted", (low, high), (low, high), ticks, ticks,
              height=560),
        {"a run": COLOURS[0], "exact; dashed 25 % off": AXIS},
    )  # fmt: skip
    lines = []
    for off in (0.0, math.log10(1.25), -math.log10(1.25)):
        (x0, y0), (x1, y1) = frame.at(low, low + off), frame.at(high, high + off)
        dash = ' stroke-dasharray="5 4"' if off else ""
        lines.append(
            f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{AXIS}"{dash}/>'
        )
    for x, y in points:
        across, up = frame.at(x, y)
        lines.append(
            f'<circle cx="{across:.1f}" cy="{up:.1f}" r="2.6" fill="{COLOURS[0]}" fill-opacity="0.6"/>'
        )
    return draw(frame, lines)
