"""Answers on the command line: their report, their files, their exit status."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ersatz.sim.cli.app import Failure
from ersatz.sim.cli.output import deliver

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ersatz.sim.answers.answer import Answer
    from ersatz.sim.records import RunResult
    from ersatz.sim.scenario.scenario import Scenario


def finish(
    paths: Sequence[Path], scenarios: Sequence[Scenario], results: Sequence[RunResult],
    view: RenderableType, json: str | None, out: Path | None, overrides: Sequence[str],
    reasons: Sequence[str] = (),
) -> None:  # fmt: skip
    """Print the report, write what was asked for, and fail when a plan cannot run or does not fit."""
    from ersatz.sim.answers.cases import infeasible
    from ersatz.sim.report.json_out import result_json, run_files
    from ersatz.sim.report.pictures.memory_timeline import memory_pictures

    def files() -> dict[str, str | bytes]:  # copies the scenario, if it still stands
        return {**run_files(results, paths, overrides), **memory_pictures(scenarios)}

    deliver("result", result_json(scenarios, results), view, json, out, files)
    if stuck := infeasible(results, reasons):
        raise Failure(1, stuck)


def conclude(answer: Answer[Any], json: str | None, out: Path | None = None) -> None:
    """Print and write an answer, and fail where something is infeasible."""
    deliver(answer.verb, answer.to_dict(), answer.view(), json, out, answer.files)
    if not answer.feasible:
        raise Failure(1, answer.reasons)
