"""The report of recorded steps on other devices: a table of the cases, then each in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.device_models.text.units import format_bytes, format_duration, format_money, format_si
from ersatz.sim.emulate.records import ReplayResult
from ersatz.sim.emulate.report import render_emulation
from ersatz.sim.report.run import job_tables


def render_replays(question: str, results: Sequence[ReplayResult]) -> RenderableType:
    """Return the report of the cases of a recording."""
    parts: list[RenderableType] = [Text(question, style="bold"), Text(""), *_answers(results)]
    for result in results:
        title = [Text(""), Text(result.name, style="bold")] if len(results) > 1 else []
        parts += [*title, Text(""), render_emulation(result.step), *job_tables(result)]
    return Group(*parts)


def _answers(results: Sequence[ReplayResult]) -> Iterator[RenderableType]:
    """Yield the table of answers, where there is more to say than a step."""
    if len(results) == 1 and not results[0].job:
        return
    table = Table(box=None, pad_edge=False)
    names = ("", "devices", "step", "80 % interval", "memory", "wall time", "cost", "energy")
    for name in names:
        table.add_column(name, justify="left" if not name else "right", overflow="fold")
    for result in results:
        step, job, cost = result.step, result.job, result.cost
        table.add_row(
            result.name, f"{step.world:,} x {step.device}", format_duration(step.step_s),
            f"{format_duration(step.low80_s)} - {format_duration(step.high80_s)}",
            f"{format_bytes(step.memory_bytes)}{'' if fits(result) else ' (too much)'}",
            format_duration(job.wall_s) if job else "-",
            format_money(cost.total, cost.currency) if cost else "-",
            format_si(result.energy.kwh * 1e3, "Wh") if result.energy else "-",
        )  # fmt: skip
    yield table


def fits(result: ReplayResult) -> bool:
    """Tell whether what tensors held at most goes into a device: segments can be given back."""
    held = max(row.peak_allocated for row in result.step.ranks)
    return held <= result.step.capacity_bytes


def wont_fit(result: ReplayResult) -> str:
    """Return why a case cannot be run."""
    step = result.step
    held = max(row.peak_allocated for row in step.ranks)
    return (f"infeasible: {result.name}: tensors held {format_bytes(held)} where it was recorded,"
            f" {step.device} has {format_bytes(step.capacity_bytes)}")  # fmt: skip
