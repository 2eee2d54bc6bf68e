"""Training jobs: `run` and `compare`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ersatz.sim.answers.answer import Answer, Overrides, Watch, by_name, override_texts, unwatched
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.importing.cases import load_any
from ersatz.sim.records import RunResult
from ersatz.sim.report.json_out import result_json, table_files
from ersatz.sim.report.pictures.memory_timeline import memory_pictures
from ersatz.sim.report.pictures.step_timeline import timeline_pictures
from ersatz.sim.report.run import render_comparison, render_run
from ersatz.sim.run import run_case
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.scenario.shipped import find_scenario

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ersatz.sim.hil.timers import Chosen

Named: TypeAlias = str | Path
View: TypeAlias = "Callable[[Sequence[Scenario], Sequence[RunResult]], RenderableType]"


def load(
    scenario: Named, overrides: Overrides = (), seed: int | None = None
) -> tuple[Scenario, ...]:
    """Return the cases of a scenario, by path or name of a shipped one; the first is the baseline.

    A launch script, a framework's configuration or its log is imported (`import_`), and is one case.

    A case without `parallel` is planned: it gets the fastest layout that fits.
    `overrides` change values by dotted key, as `--set` does: {"training.global_batch": 4096}.
    Raises `InputError` with every fault of every case.
    """
    return load_planned(find_scenario(scenario), override_texts(overrides), seed)


def load_planned(
    path: Path, overrides: Sequence[str] = (), seed: int | None = None
) -> tuple[Scenario, ...]:
    """Return the cases of a file; the layout of one that leaves it out is planned, and said.

    Raises as `load` does, and `InfeasibleError` where no layout can be run.
    """
    cases = load_any(path, overrides, seed, plans=True)
    if not any(case.open for case in cases):
        return cases
    from ersatz.sim.search.planned import planned

    return tuple(planned(case) for case in cases)


def run(
    scenario: Named | Scenario | Sequence[Scenario], overrides: Overrides = (),
    seed: int | None = None,
) -> Answer[RunResult]:  # fmt: skip
    """Simulate a training job, from operators to money, for each case of a scenario.

    Takes the name of a shipped scenario, the path of one, or cases that were loaded (`overrides`
    and `seed` are for the first two). Raises `InputError` for a faulty scenario and
    `InfeasibleError` where no case can be run at all.
    """
    if isinstance(scenario, str | Path):
        cases = load(scenario, overrides, seed)
    elif overrides or seed is not None:
        raise TypeError("overrides and seed belong to load(), where cases are given")
    else:
        cases = (scenario,) if isinstance(scenario, Scenario) else tuple(scenario)
    done, results, reasons = simulate(cases)
    return _answer("run", done, results, reasons, render_run)


def compare(
    *scenarios: Named | Scenario, overrides: Overrides = (), seed: int | None = None
) -> Answer[RunResult]:
    """Simulate several scenarios, and their cases, and show them side by side.

    Raises as `run` does.
    """
    paths = [find_scenario(s) for s in scenarios if not isinstance(s, Scenario)]
    given = [s for s in scenarios if isinstance(s, Scenario)]
    cases = [*load_several(paths, override_texts(overrides), seed), *given]
    done, results, reasons = simulate(cases)
    return _answer("compare", done, named_apart(done, results), reasons, render_comparison)


def load_several(
    paths: Sequence[Path], overrides: Sequence[str], seed: int | None
) -> list[Scenario]:
    """Return the cases of several files; those of a file with several are named after it, too."""
    cases: list[Scenario] = []
    for path in paths:
        found = load_planned(path, overrides, seed)
        several = len(paths) > 1 and len(found) > 1
        cases += [replace(c, name=f"{path.stem}/{c.name}") if several else c for c in found]
    return cases


def simulate(
    cases: Sequence[Scenario], times: Chosen | None = None, watch: Watch = unwatched
) -> tuple[list[Scenario], list[RunResult], list[str]]:
    """Run cases; returns those that can be run, their results, and why others cannot.

    `times` are kernel times other than the catalogue's. Raises `InfeasibleError` where none of the
    cases can be run.
    """
    if times:
        cases = times.prepare(cases)
    done, results, reasons = [], [], []
    with watch(len(cases)) as advance:
        for case in cases:
            try:
                results.append(times.run(case) if times else run_case(case))
                done.append(case)
            except InfeasibleError as error:
                reasons.append(f"{case.name}: {error}")
            advance(case.name)
    if not results:
        raise InfeasibleError("\n".join(reasons))
    return done, results, reasons


def named_apart(cases: Sequence[Scenario], results: Sequence[RunResult]) -> list[RunResult]:
    """Return the results under the names of their cases."""
    return [replace(r, name=c.name) for c, r in zip(cases, results, strict=True)]


def case_pictures(
    cases: Sequence[Scenario], results: Sequence[RunResult], times: Chosen | None = None
) -> dict[str, str]:
    """Return the pictures of each case under its result's name: its memory and its stages over a step.

    Live kernel times (`times`) are measured once and not again for a picture: no stages are drawn.
    """
    named = [replace(c, name=r.name) for c, r in zip(cases, results, strict=True)]
    held = [_fullest(c, r) for c, r in zip(named, results, strict=True)]
    if times is None:
        return {**memory_pictures(held), **timeline_pictures(named)}
    live = times.sources is not None
    return {**memory_pictures(held), **({} if live else timeline_pictures(named, times.timer_for))}


def _fullest(case: Scenario, result: RunResult) -> Scenario:
    """Return the phase of a job whose memory its result tells."""
    peaks = [phase.peak_bytes for phase in result.phases]
    return case.parts[peaks.index(result.memory.peak_bytes)] if peaks else case


def infeasible(results: Sequence[RunResult], reasons: Sequence[str]) -> list[str]:
    """Return why cases cannot be run, and which results do not fit and what would help."""
    tight = [f"{r.name} does not fit into memory; would fit with: {'; '.join(r.memory.advice)}"
             for r in results if not r.memory.fits]  # fmt: skip
    return [f"infeasible: {reason}" for reason in (*reasons, *tight)]


def _answer(
    verb: str, cases: Sequence[Scenario], results: Sequence[RunResult], reasons: Sequence[str],
    view: View,
) -> Answer[RunResult]:  # fmt: skip
    return Answer(
        verb, by_name((result.name, result) for result in results),
        view=lambda: view(cases, results), record=lambda: result_json(cases, results),
        reasons=tuple(infeasible(results, reasons)),
        files=lambda: {**table_files(results), **case_pictures(cases, results)},
    )  # fmt: skip
