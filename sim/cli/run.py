"""`ersatz run` and `ersatz compare`: a training job, or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ersatz.sim.cli.app import (
    CalibrationOption,
    Failure,
    HtmlOption,
    JsonOption,
    OutOption,
    SeedOption,
    SetOption,
    StackOption,
    app,
    with_stack,
)
from ersatz.sim.cli.cases import conclude, finish
from ersatz.sim.cli.process.terminal import grouped, progress
from ersatz.sim.scenario.shipped import find_scenario

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ersatz.sim.cli.output import Drawing
    from ersatz.sim.hil.timers import Chosen
    from ersatz.sim.records import RunResult
    from ersatz.sim.scenario.scenario import Scenario


@app.command(epilog="Examples: ersatz run ling-plus-substitution --set training.micro_batch=2;"
             " ersatz run deepseek-v3-h800 --ops")  # fmt: skip
def run(
    scenario: Annotated[str, typer.Argument(help="Scenario file, or name of a shipped one.")],
    json: JsonOption = None, out: OutOption = None, set_: SetOption = None, seed: SeedOption = None,
    timer: Annotated[
        str, typer.Option("--timer", help="Kernel times: calibrated, roofline, table, live, paced.")
    ] = "calibrated",
    calibration: CalibrationOption = None,
    attach: Annotated[
        list[str] | None,
        typer.Option("--attach", metavar="[NAME=]BACKEND[@ray]", help="Live devices; repeatable."),
    ] = None,
    ops: Annotated[
        bool, typer.Option("--ops", help="Show what every rank sends and computes in a step.")
    ] = False,
    stack: StackOption = None, html: HtmlOption = None,
    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE", help="Write a timeline for Perfetto.")
    ] = None,
    ranks: Annotated[
        str, typer.Option("--ranks", metavar="A,B,...", help="Of the timeline; first of each stage.")
    ] = "",
) -> None:  # fmt: skip
    """Simulate a training job, from operators to money."""
    set_ = with_stack(set_, stack)
    from ersatz.sim.answers.cases import load_several, simulate
    from ersatz.sim.report.run import render_run, times_notes

    path = find_scenario(scenario)
    if _replays(path):
        from ersatz.sim.answers.emulate import replay

        conclude(
            replay(path, set_ or [], seed, timer=timer, calibration=calibration or ""), json, out
        )
        return
    times = _kernel_times(timer, calibration, attach)
    scenarios, results, reasons = simulate(load_several([path], set_ or [], seed), times, progress)
    if ops:
        results, view = _operations(scenarios, results)
    else:
        view = render_run(scenarios, results)
    if times:
        view = grouped(view, *times_notes(results))
    drawings = _traced(trace, ranks, scenarios, results, times)
    finish([path], scenarios, results, view, json, out, set_ or [], reasons, html, drawings, times)


def _traced(
    file: Path | None, ranks: str, scenarios: Sequence[Scenario], results: Sequence[RunResult],
    times: Chosen | None,
) -> dict[Path, Drawing]:  # fmt: skip
    """Return the timeline that was asked for, by its file."""
    if file is None:
        if ranks:
            raise Failure(2, ["--ranks: expected with --trace"])
        return {}
    if times and times.sources is not None:
        raise Failure(
            2, ["--trace: expected kernel times of the catalogue or of a calibration, not live"]
        )
    from ersatz.sim.answers.trace import trace_of
    from ersatz.sim.report.timelines.chrome import unpacked

    words = [word.strip() for word in ranks.split(",") if word.strip()]
    if wrong := [word for word in words if not word.isdecimal() or len(word) > 9]:
        raise Failure(2, [f"--ranks: {wrong[0][:40]!r} - expected numbers such as 0,128"])
    timer_of = {"timer_of": times.timer_for} if times else {}
    data = trace_of(scenarios, results, [int(word) for word in words], **timer_of)
    return {file: unpacked(data) if file.suffix == ".json" else data}


def _replays(path: Path) -> bool:
    """Tell whether a file replays a recording of `ersatz emulate`."""
    from ersatz.sim.emulate.replaying.replay import is_replay

    return is_replay(path)


def _operations(
    scenarios: Sequence[Scenario], results: Sequence[RunResult]
) -> tuple[list[RunResult], RenderableType]:
    """Return the results with what their ranks send and compute, and the report of that."""
    from dataclasses import replace

    from ersatz.sim.report.operations import render_operations
    from ersatz.sim.step.operations import step_operations

    counted = [replace(result, operations=step_operations(scenario))
               for scenario, result in zip(scenarios, results, strict=True)]  # fmt: skip
    return counted, render_operations(scenarios, counted)


def _kernel_times(timer: str, calibration: str | None, attach: list[str] | None) -> Chosen | None:
    """Return the kernel times that the options ask for; None for the catalogue's."""
    if (timer, calibration, attach) == ("calibrated", None, None):
        return None
    from ersatz.sim.cli.process.terminal import telling
    from ersatz.sim.hil.timers import choose

    return choose(timer, calibration, attach or (), telling)


@app.command(epilog="Example: ersatz compare deepseek-v3-h800 pangu-ultra-moe-910b")
def compare(
    scenarios: Annotated[list[str], typer.Argument(help="Scenario files or names.")],
    json: JsonOption = None, out: OutOption = None, set_: SetOption = None, seed: SeedOption = None,
    stack: StackOption = None, html: HtmlOption = None,
) -> None:  # fmt: skip
    """Show several scenarios, and their cases, side by side."""
    set_ = with_stack(set_, stack)
    from ersatz.sim.answers.cases import load_several, named_apart, simulate
    from ersatz.sim.report.run import render_comparison

    paths = [find_scenario(name) for name in scenarios]
    cases, results, reasons = simulate(load_several(paths, set_ or [], seed), watch=progress)
    named = named_apart(cases, results)
    view = render_comparison(cases, named)
    finish(paths, cases, named, view, json, out, set_ or [], reasons, html)
