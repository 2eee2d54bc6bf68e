"""The terminal report of `ersatz validate --memory`."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.sim.validation.errors.memory_table import MemoryVerdicts


def render_memory(verdicts: MemoryVerdicts) -> RenderableType:
    """Return the verdicts by model and the errors of stated peaks by source."""
    table = Table(box=None, pad_edge=False)
    for column in ("model", "crashed", "caught", "ran", "kept", "balanced"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, s in [*verdicts.by_model.items(), ("all", verdicts.total)]:
        table.add_row(name, f"{s.crashed:,}", _share(s.caught, s.crashed), f"{s.ran:,}",
                      _share(s.kept, s.ran), f"{100 * s.balanced:.1f} %")  # fmt: skip
    peaks = Table(box=None, pad_edge=False)
    for column in ("stated peaks of", "rows", "median", "p90"):
        peaks.add_column(column, justify="left" if column == "stated peaks of" else "right")
    for source, (rows, median, p90) in verdicts.peaks.items():
        peaks.add_row(source, f"{rows:,}", f"{100 * median:.1f} %", f"{100 * p90:.0f} %")
    words = (
        f"memory verdicts: balanced accuracy {100 * verdicts.balanced_accuracy:.1f} %,"
        f" stated peaks within {100 * verdicts.peak_median:.1f} % in the median"
    )
    title = Text(words, style="bold")
    return Group(title, Text(""), table, Text(""), peaks)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
