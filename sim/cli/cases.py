"""Scenarios named on the command line: found, loaded, run, reported."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from ersatz.sim.cli.app import Failure
from ersatz.sim.cli.output import deliver
from ersatz.sim.cli.process.terminal import progress

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ersatz.sim.hil.timers import Chosen
    from ersatz.sim.records import RunResult
    from ersatz.sim.scenario.scenario import Scenario


def find_scenario(name: str) -> Path:
    """Return the path of a scenario file, or of the shipped scenario of that name.

    Raises `InputError` where there is neither, with what is called nearly so.
    """
    from ersatz.sim.errors import InputError, Problem, did_you_mean

    found = look_up(name)
    if found is None:
        near = did_you_mean(Path(name).stem[:100], _shipped())
        raise InputError(
            [Problem(name, 0, 0, "", "", f"cannot be read: there is no such file{near}")]
        )
    return found


def look_up(name: str) -> Path | None:
    """Return the path that a word of the command line means, if it means a file or a shipped name."""
    from ersatz.device_models.shipped import SCENARIOS

    path = Path(name)
    try:
        if path.exists():
            return path
    except (OSError, ValueError):  # a name that no file can have
        return None
    if path.parts[:1] == ("scenarios",) and ".." not in path.parts:
        inside = SCENARIOS / path.relative_to("scenarios")
        return inside if inside.is_file() else None
    return _shipped().get(name) or _shipped().get(name.removesuffix(".yaml"))


@cache
def _shipped() -> dict[str, Path]:
    """Return the shipped scenarios by name."""
    from ersatz.device_models.shipped import SCENARIOS

    return {path.stem: path for path in sorted(SCENARIOS.rglob("*.yaml"))}


def simulate(
    paths: Sequence[Path], overrides: Sequence[str], seed: int | None, times: Chosen | None = None
) -> tuple[list[Scenario], list[RunResult], list[str]]:
    """Load and run all cases; returns those that can be run, their results, why others cannot.

    `times` are kernel times other than the catalogue's. Raises when a scenario is faulty or none
    of the cases can be run.
    """
    from dataclasses import replace

    from ersatz.sim.errors import InfeasibleError
    from ersatz.sim.run import run_case
    from ersatz.sim.scenario.file import load_cases

    cases = []
    for path in paths:
        found = load_cases(path, overrides, seed)
        several = len(paths) > 1 and len(found) > 1
        cases += [replace(c, name=f"{path.stem}/{c.name}") if several else c for c in found]
    if times:
        cases = times.prepare(cases)
    done, results, reasons = [], [], []
    with progress(len(cases)) as advance:
        for case in cases:
            try:
                results.append(times.run(case) if times else run_case(case))
                done.append(case)
            except InfeasibleError as error:
                reasons.append(f"infeasible: {case.name}: {error}")
            advance(case.name)
    if not results:
        raise Failure(1, reasons)
    return done, results, reasons


def finish(
    paths: Sequence[Path], scenarios: Sequence[Scenario], results: Sequence[RunResult],
    view: RenderableType, json: str | None, out: Path | None, overrides: Sequence[str],
    reasons: Sequence[str] = (),
) -> None:  # fmt: skip
    """Print the report, write what was asked for, and fail when a plan cannot run or does not fit."""
    from ersatz.sim.report.json_out import result_json, run_files

    files = partial(
        run_files, results, paths, overrides
    )  # copies the scenario, if it is still there
    deliver("result", result_json(scenarios, results), view, json, out, files)
    tight = [r for r in results if not r.memory.fits]
    if tight or reasons:
        raise Failure(1, [*reasons, *(
            f"infeasible: {r.name} does not fit into memory; would fit with: {'; '.join(r.memory.advice)}"
            for r in tight)])  # fmt: skip
