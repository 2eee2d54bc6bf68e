"""`ersatz validate`: predicted against measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ersatz.sim.cli.app import Failure, HtmlOption, JsonOption, OutOption, app
from ersatz.sim.cli.cases import page_text
from ersatz.sim.cli.output import deliver
from ersatz.sim.cli.process.terminal import grouped, progress, say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ersatz.sim.validation.errors.heldout import Judged
    from ersatz.sim.validation.errors.predict import Prediction
    from ersatz.sim.validation.reading.table import Table


@app.command(epilog="Example: ersatz validate runs.csv --json -")
def validate(
    table: Annotated[
        str | None,
        typer.Argument(help="CSV of measured runs; without it, the table that travels along."),
    ] = None,
    json: JsonOption = None, out: OutOption = None,
    oddities: Annotated[
        bool, typer.Option("--oddities", help="Model known faults of single clusters, too.")
    ] = False,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Errors with model or lineage left out; doubles the time.")
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Judge memory: stated peaks, runs that ran, crashes.")
    ] = False,
    crashes: Annotated[
        str | None,
        typer.Option("--crashes", metavar="TABLE", help="CSV of runs out of memory, for --memory."),
    ] = None,
    html: HtmlOption = None,
) -> None:  # fmt: skip
    """Predict every row of a table of measured runs, and report the errors."""
    if html and (memory or crashes):
        raise Failure(2, ["--html: expected without --memory and --crashes, which have no page"])
    if memory or crashes:
        return _validate_memory(table, crashes, json, out)
    from ersatz.sim.report.json_out import plain
    from ersatz.sim.validation.errors.summary import row_record
    from ersatz.sim.validation.reading.lineages import SHIPPED
    from ersatz.sim.validation.reading.table import read_table

    read = read_table(table or SHIPPED)
    predictions, judged = _predicted(read, oddities, left_out=held_out or table is None)
    summary = _summary(predictions, judged, read if table is None else None)
    held = {j.run.line: j for j in judged}
    rows = [row_record(p, held.get(p.run.line)) for p in predictions]
    record, view = {"rows": rows, "summary": plain(summary)}, _view(summary)
    page = {html: lambda: page_text("validation", record, {}, view)} if html else {}
    deliver("validation", record, view, json, out, drawings=page)
    for problem in read.problems:
        say(problem)
    if held_out and not judged:
        words = "nothing can be left out: no complete, verified row of a source that was fitted to"
        say(f"{read.file}: {words}")
    if not summary["predicted"]:
        raise Failure(2, [f"{read.file}: none of its rows can be predicted"])


def _predicted(
    read: Table, oddities: bool, *, left_out: bool
) -> tuple[list[Prediction], list[Judged]]:
    """Predict every run, and where it is wanted each without what was fitted to its lineage."""
    from ersatz.sim.validation.errors.heldout import judge
    from ersatz.sim.validation.errors.predict import predict_table

    with progress(len(read.runs)) as advance:
        predictions = list(predict_table(read.runs, advance, oddities=oddities))
    if not left_out:
        return predictions, []
    with progress(len(read.runs)) as advance:
        return predictions, judge(predictions, advance)


def _summary(
    predictions: list[Prediction], judged: list[Judged], shipped: Table | None
) -> dict[str, Any]:
    """Return the errors, those with something left out where they were asked for; jobs of `shipped`."""
    from ersatz.sim.validation.errors.heldout import headline
    from ersatz.sim.validation.errors.jobs import job_summary, judge_jobs
    from ersatz.sim.validation.errors.summary import summarise

    summary = summarise(predictions)
    if judged:
        summary["held_out"] = headline(judged)
    if shipped and (jobs := judge_jobs(shipped.runs)):
        summary["jobs"] = job_summary(jobs)
    return summary


def _view(summary: dict[str, Any]) -> RenderableType:
    """Return the report: what was left out first, for nothing was fitted to it."""
    from ersatz.sim.report.measured.validation import (
        render_headline,
        render_jobs,
        render_validation,
    )

    parts = {"held_out": render_headline, "jobs": render_jobs}
    first = [render(summary[name]) for name, render in parts.items() if name in summary]
    return grouped(*first, render_validation(summary))


def _validate_memory(
    table: str | None, crashes: str | None, json: str | None, out: Path | None
) -> None:
    """Judge peaks and verdicts of runs, beside runs that ran out of memory."""
    from ersatz.device_models.shipped import DATA
    from ersatz.sim.report.json_out import plain
    from ersatz.sim.report.measured.memory import render_memory
    from ersatz.sim.validation.errors.memory_table import judge_memory
    from ersatz.sim.validation.reading.lineages import SHIPPED
    from ersatz.sim.validation.reading.table import read_table

    runs = table or SHIPPED
    shipped = DATA / "measured" / "out_of_memory_h100_nanotron.csv"
    with progress(len(read_table(runs).runs)) as advance:
        verdicts = judge_memory(crashes or (None if table else shipped), runs, advance)
    deliver("validation", plain(verdicts), render_memory(verdicts), json, out)
    for problem in verdicts.problems:
        say(problem)
