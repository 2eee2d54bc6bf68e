"""Answers on the command line: their report, their files, their exit status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ersatz.sim.cli.app import Failure, asked_line
from ersatz.sim.cli.output import Drawing, deliver

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ersatz.sim.answers.answer import Answer
    from ersatz.sim.hil.timers import Chosen
    from ersatz.sim.records import RunResult
    from ersatz.sim.scenario.scenario import Scenario


def finish(
    paths: Sequence[Path], scenarios: Sequence[Scenario], results: Sequence[RunResult],
    view: RenderableType, json: str | None, out: Path | None, overrides: Sequence[str],
    reasons: Sequence[str] = (), html: Path | None = None,
    drawings: Mapping[Path, Drawing] | None = None, times: Chosen | None = None,
) -> None:  # fmt: skip
    """Print the report, write what was asked for, and fail when a plan cannot run or does not fit."""
    from ersatz.sim.answers.cases import case_pictures, infeasible
    from ersatz.sim.report.json_out import result_json, run_files

    def files() -> dict[str, str | bytes]:  # copies the scenario, if it still stands
        return {**run_files(results, paths, overrides), **case_pictures(scenarios, results, times)}

    record = result_json(scenarios, results)
    page = (
        {html: lambda: page_text("run", record, case_pictures(scenarios, results, times), view)}
        if html
        else {}
    )
    deliver("result", record, view, json, out, files, {**page, **(drawings or {})})
    if stuck := infeasible(results, reasons):
        raise Failure(1, stuck)


def page_text(verb: str, record: Any, pictures: Mapping[str, str], view: RenderableType) -> str:
    """Return an answer as a page."""
    from ersatz.sim.report.page.material import Material
    from ersatz.sim.report.page.page import whole_page
    from ersatz.sim.report.tables.html import html

    return whole_page([Material(verb, record, pictures, html(view), command=asked_line())])


def conclude(
    answer: Answer[Any], json: str | None, out: Path | None = None, html: Path | None = None,
    drawings: Mapping[Path, Drawing] | None = None,
) -> None:  # fmt: skip
    """Print and write an answer, and fail where something is infeasible."""
    page = {html: lambda: answer.to_html(command=asked_line())} if html else {}
    deliver(answer.verb, answer.to_dict(), answer.view(), json, out, answer.files,
            {**page, **(drawings or {})})  # fmt: skip
    if not answer.feasible:
        raise Failure(1, answer.reasons)
