"""Own runs: a stack moved to where a few measured steps of one's own cluster are."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np

from ersatz.device_models.catalog.reading import load_stack
from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.text.names import is_name
from ersatz.device_models.text.problems import InputError, Problem
from ersatz.sim.anchor.factors import NAMES, Array, row_scale, slopes, spreads
from ersatz.sim.anchor.file import stack_text
from ersatz.sim.anchor.posterior import Posterior, posterior
from ersatz.sim.anchor.records import Anchored, AnchoredFactor, AnchoredRun
from ersatz.sim.anchor.width import anchored_half
from ersatz.sim.answers.answer import Answer, Overrides, override_texts
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.importing.cases import load_any
from ersatz.sim.report.json_out import plain
from ersatz.sim.report.measured.anchor import render_anchor
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.step import simulate_step
from ersatz.sim.uncertainty.intervals import reasons
from ersatz.sim.validation.reading.rows import read_run
from ersatz.sim.validation.reading.rules import Refused
from ersatz.sim.validation.reading.table import read_table

MOST = 60  # runs that are asked about
PUBLISHED = "step.duration_s"


@dataclass(frozen=True, slots=True)
class Measured:
    """A step of one's own: what was run, and how long it took."""

    name: str
    scenario: Scenario
    seconds: float


def anchor(
    runs: str | Path | Sequence[str | Path], stack: str = "", name: str = "my-stack",
    day: str = "", overrides: Overrides = (),
) -> Answer[Anchored]:  # fmt: skip
    """Move a stack to where measured steps of one's own cluster are.

    `runs` are tables of measured runs (CSV, as for `validate`), scenario files whose `published`
    states step.duration_s, or logs that state a step (`overrides` say what these do not); `stack` is
    the one to start from, by default what the rows say they ran. The answer's `files()` holds the
    stack file under `name`, dated `day` (by default today); scenarios take
    it as `stack: FILE`. Raises `InputError` for rows that cannot be read, that mix stacks or devices,
    or that no device could have run that fast.
    """
    if not is_name(name):
        raise InputError([_problem(name[:60], "expected a name of letters, digits, - and _")])
    paths = [Path(p) for p in ([runs] if isinstance(runs, str | Path) else runs)]
    if again := [p for i, p in enumerate(paths) if p.resolve() in [q.resolve() for q in paths[:i]]]:
        raise InputError([_problem(str(p), "stands twice: a run counts once") for p in again])
    base = load_stack(stack) if stack else None
    left_out: list[str] = []
    measured = [m for path in paths for m in _read(path, base, override_texts(overrides), left_out)]
    base, device = _common(measured, paths)
    _possible(measured)
    found = posterior(lambda logs: _ask(measured, logs), row_scale())
    record = _record(measured, base, device, found, name, day or str(datetime.date.today()), paths,
                     tuple(left_out))  # fmt: skip
    return Answer(
        "anchor", {name: record}, view=lambda: render_anchor(record, name),
        record=lambda: plain(record), files=lambda: {f"{name}.yaml": record.text},
    )  # fmt: skip


def _problem(file: str, expected: str, line: int = 0) -> Problem:
    return Problem(file, line, 0, "", "", expected)


def _read(
    path: Path, base: Stack | None, overrides: Sequence[str], left_out: list[str]
) -> Iterator[Measured]:
    """Yield the measured steps of a table or of a scenario file."""
    for m in (_of_table(path, left_out) if path.suffix == ".csv" else
              _of_scenario(path, overrides, left_out)):  # fmt: skip
        if base is None:
            yield m
        else:
            pools = tuple(replace(pool, stack=base) for pool in m.scenario.pools)
            yield replace(m, scenario=replace(m.scenario, pools=pools))


def _of_table(path: Path, left_out: list[str]) -> Iterator[Measured]:
    """Yield the steps of a table's rows; those that cannot be used are added to `left_out`."""
    read = read_table(path)
    problems = list(read.problems)
    found = []
    for run in read.runs[:MOST]:
        try:
            reading = read_run(run)
        except Refused as error:
            problems.append(_problem(str(path), str(error), run.line))
            continue
        if reading.measured_s is None:
            problems.append(
                _problem(str(path), "its metric says nothing of a step's time", run.line)
            )
        else:
            found.append(
                Measured(run.id or f"line {run.line}", reading.scenario, reading.measured_s)
            )
    if not found:
        raise InputError(problems or [_problem(str(path), "expected rows of measured runs")])
    left_out += map(str, problems)
    if len(read.runs) > MOST:
        left_out.append(f"{path}: rows after the first {MOST}")
    yield from found


def _of_scenario(path: Path, overrides: Sequence[str], left_out: list[str]) -> Iterator[Measured]:
    cases = load_any(path, overrides)
    found = [Measured(case.name, case, row.value)
             for case in cases for row in case.published if row.metric == PUBLISHED]  # fmt: skip
    if not found:
        raise InputError([_problem(str(path), f"expected `published` with {PUBLISHED}")])
    if len(found) > MOST:
        left_out.append(f"{path}: steps after the first {MOST}")
    yield from found[:MOST]


def _common(measured: Sequence[Measured], paths: Sequence[Path]) -> tuple[Stack, str]:
    """Return the one stack and the one device of all runs."""
    stacks = {pool.stack.name: pool.stack for m in measured for pool in m.scenario.pools}
    devices = sorted({pool.node.device.name for m in measured for pool in m.scenario.pools})
    where = ", ".join(map(str, paths))
    problems = []
    if len(stacks) > 1:
        names = ", ".join(sorted(stacks))
        words = f"runs are of several stacks ({names}): anchor them one by one, or say --stack"
        problems.append(_problem(where, words))
    if len(devices) > 1:
        words = f"runs are of several devices ({', '.join(devices)}): anchor them one by one"
        problems.append(_problem(where, words))
    if problems:
        raise InputError(problems)
    return next(iter(stacks.values())), devices[0]


def _possible(measured: Sequence[Measured]) -> None:
    """Refuse steps that are faster than the devices' peaks allow."""
    problems = []
    for m in measured:
        try:
            step = simulate_step(m.scenario)
        except (InfeasibleError, ValueError) as error:
            problems.append(_problem(m.name, f"cannot be run as stated: {error}"))
            continue
        share = step.hfu * step.duration_s / m.seconds
        if share > 1:
            words = (
                f"a step of {m.seconds:.4g} s would need {100 * share:.0f} % of the devices' peak"
            )
            problems.append(_problem(m.name, words))
    if problems:
        raise InputError(problems)


def _ask(measured: Sequence[Measured], logs: Array) -> tuple[Array, Array]:
    asked = [slopes(m.scenario, list(logs)) for m in measured]
    errors = [
        math.log(seconds / m.seconds) for (seconds, _), m in zip(asked, measured, strict=True)
    ]
    return np.array(errors), np.array([slope for _, slope in asked])


def _record(
    measured: Sequence[Measured], base: Stack, device: str, found: Posterior, name: str, day: str,
    paths: Sequence[Path], left_out: tuple[str, ...],
) -> Anchored:  # fmt: skip
    before, slope = _ask(measured, np.zeros(len(NAMES)))
    source = ", ".join(path.name for path in paths)
    plain = [{reason.name: reason.width for reason in reasons(m.scenario)} for m in measured]
    now = [
        anchored_half(p, g, found.covariance, found.spread)
        for p, g in zip(plain, slope, strict=True)
    ]
    return Anchored(
        base.name, device,
        tuple(
            AnchoredRun(m.name, m.seconds, math.expm1(b), math.expm1(a), float(w))
            for m, b, a, w in zip(measured, before, found.errors, found.weights, strict=True)
        ),
        tuple(
            AnchoredFactor(n, math.exp(log), float(prior), math.sqrt(found.covariance[i][i]))
            for i, (n, log, prior) in enumerate(zip(NAMES, found.logs, spreads(), strict=True))
        ),
        math.expm1(fmean(math.hypot(*p.values()) for p in plain)), math.expm1(fmean(now)), left_out,
        stack_text(base, found, name, device, day, source),
    )  # fmt: skip
