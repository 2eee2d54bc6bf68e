"""The report of an anchor: what the measured steps moved, and how sure steps are now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.device_models.text.units import format_duration
from ersatz.sim.anchor.posterior import DOUBTED

if TYPE_CHECKING:
    from ersatz.sim.anchor.records import Anchored

MOST_RUNS = 24


def render_anchor(found: Anchored, name: str) -> RenderableType:
    """Return the widths first, then the factors and the runs."""
    good = sum(run.weight >= DOUBTED for run in found.runs)
    parts: list[RenderableType] = [
        Text(f"{name}: {found.stack} moved to {good} measured runs on {found.device}", style="bold"),
        Text(f"a step like these is now known to +-{100 * found.width_after:.0f} % (80 %);"
             f" before it was +-{100 * found.width_before:.0f} %"),
        Text(""), _factors(found), Text(""), _runs(found),
    ]  # fmt: skip
    bad = [run.name for run in found.runs if run.weight < DOUBTED]
    if bad:
        parts.append(Text(f"contradicted by the others and hardly counted: {', '.join(bad)}"))
    parts += [Text(f"not used: {words}") for words in found.left_out[:MOST_RUNS]]
    parts += [Text(""), Text(f"use it: ersatz run SCENARIO --stack {name}.yaml", style="dim")]
    return Group(*parts)


def _factors(found: Anchored) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("what was moved", min_width=32)
    for heading in ("factor", "open before (1 sd)", "now"):
        table.add_column(heading, justify="right")
    for f in found.factors:
        table.add_row(f.name, f"{f.factor:.3g}", f"+-{100 * f.open_before:.0f} %",
                      f"+-{100 * f.open_after:.0f} %")  # fmt: skip
    return table


def _runs(found: Anchored) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("measured", min_width=32, overflow="fold")
    for heading in ("step", "error before", "error now", "weight"):
        table.add_column(heading, justify="right")
    for run in found.runs[:MOST_RUNS]:
        table.add_row(run.name, format_duration(run.measured_s), f"{100 * run.before:+.1f} %",
                      f"{100 * run.after:+.1f} %", f"{run.weight:.2f}")  # fmt: skip
    if len(found.runs) > MOST_RUNS:
        table.add_row(f"and {len(found.runs) - MOST_RUNS} more (--json lists all)", "", "", "", "")
    return table
