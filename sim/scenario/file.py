"""Read scenario files: YAML, overrides and cases in, resolved scenarios or all problems out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ersatz.device_models.text.problems import InputError, Problem
from ersatz.device_models.text.yamltext import YamlText, read_yaml
from ersatz.sim.scenario.case_file import Case, apply_overrides, cases_of, validated
from ersatz.sim.scenario.resolve import resolve
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.scenario.schema import ScenarioFile

__all__ = ["apply_overrides", "cases_of_text", "load_cases"]


def load_cases(
    path: Path | str, overrides: Sequence[str] = (), seed: int | None = None, *, plans: bool = False
) -> tuple[Scenario, ...]:
    """Return the cases of a scenario file in order; the first is the baseline.

    `overrides` are texts like `training.global_batch=4096`. Raises `InputError` with every fault
    of every case. Who `plans` is given cases without a layout with what is open noted in them.
    """
    return cases_of_text(read_yaml(path), overrides, seed, plans=plans)


def cases_of_text(
    text: YamlText, overrides: Sequence[str] = (), seed: int | None = None, *, plans: bool = False
) -> tuple[Scenario, ...]:
    """Return the cases of a scenario that was read already; raises as `load_cases` does."""
    scenarios: list[Scenario] = []
    problems: list[Problem] = []
    for case in cases_of(text, overrides, seed):
        scenario = scenario_of(case, Path(text.file).parent, plans=plans)
        problems += case.problems
        if scenario:
            scenarios.append(scenario)
    if problems:
        raise InputError(problems)
    return tuple(scenarios)


def scenario_of(case: Case, folder: Path, *, plans: bool = False) -> Scenario | None:
    """Return the scenario of a case, or None with its faults noted in it."""
    spec = validated(case, ScenarioFile)
    if spec is None:
        return None
    return resolve(spec, case.name, folder, case.blame, lambda: bool(case.problems), plans=plans)
