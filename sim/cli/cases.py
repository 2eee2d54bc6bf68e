"""Scenarios named on the command line: found, loaded, run, reported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sim.cli.app import Failure
from sim.cli.output import console, plain_text, progress, write_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.records import RunResult
    from sim.scenario import Scenario


def find_scenario(name: str) -> Path:
    """Return the path of a scenario file, or of the shipped scenario of that name."""
    from importlib.resources import files

    path = Path(name)
    if path.exists():
        return path
    shipped = Path(str(files("scenarios")))
    inside = path.relative_to("scenarios") if path.parts[:1] == ("scenarios",) else path
    found = [shipped / inside, *sorted(shipped.rglob(f"{name}.yaml"))]
    return next((p for p in found if p.is_file()), path)


def simulate(
    paths: Sequence[Path], overrides: Sequence[str], seed: int | None
) -> tuple[list[Scenario], list[RunResult]]:
    """Load and run all cases of the scenarios; raises when one is faulty or infeasible."""
    from dataclasses import replace

    from sim.run import run_case
    from sim.scenario_file import load_cases

    cases = []
    for path in paths:
        found = load_cases(path, overrides, seed)
        several = len(paths) > 1 and len(found) > 1
        cases += [replace(c, name=f"{path.stem}/{c.name}") if several else c for c in found]
    with progress(len(cases)) as advance:
        results = []
        for case in cases:
            results.append(run_case(case))
            advance(case.name)
    return cases, results


def finish(
    paths: Sequence[Path], scenarios: Sequence[Scenario], results: Sequence[RunResult],
    view: RenderableType, json: str | None, out: Path | None, overrides: Sequence[str],
) -> None:  # fmt: skip
    """Print the report, write what was asked for, and fail when a plan does not fit."""
    from sim.report.json_out import result_json, to_text, write_out

    screen = console()
    if json != "-":
        screen.print(view)
    if json:
        write_text(json, to_text(result_json(scenarios, results)))
    if out:
        try:
            write_out(out, scenarios, results, plain_text(view), paths[0], overrides)
        except OSError as error:
            raise Failure(2, [f"{out}: cannot be written: {error.strerror}"]) from error
    tight = [r for r in results if not r.memory.fits]
    if tight:
        raise Failure(1, [f"infeasible: {r.name} does not fit into memory; would fit with:"
                          f" {'; '.join(r.memory.advice)}" for r in tight])  # fmt: skip
