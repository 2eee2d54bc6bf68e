"""Refit the parameters of software stacks and devices from tables of measured runs.

    python -m sim.validation.fit RUNS.csv [STACK ...] [--held-out]

Parameters, bounds and priors stand in `device_models/data/validation/fit.yaml`: each belongs to a stack
or to the devices of one architecture, none to a run or a model. A stack is fitted on the rows that
run on it: log errors of step time, soft-L1 (robust to outliers), each source weighted by its number
of rows to the power -1/2, and a pull of `PULL` of the allowed range towards the prior. The values are
written into the catalogue's files; the same table gives the same values.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from device_models.yamltext import parse_yaml
from sim.errors import InfeasibleError
from sim.scenario import Pool, Scenario
from sim.step.step import step_seconds
from sim.validation.metrics import measured_step_seconds
from sim.validation.rows import Refused, scenario_of
from sim.validation.table import Run, read_table

DATA = Path(str(files("device_models") / "data"))
PULL = 0.15  # of the log range: how strongly a parameter is held to its prior
FOLDS = 3  # of model families, when their errors are measured left out
MOST_ROWS = 90  # of a stack that enter a fit, drawn evenly over its sources and models
OUTLIER = 0.6  # log error beyond which a row does not enter the fit (it is still scored)


@dataclass(frozen=True, slots=True)
class Knob:
    """One fitted parameter: `stack.NAME.field`, or `device.PREFIX.field[.dtype]`."""

    name: str
    low: float
    high: float
    prior: float

    @property
    def parts(self) -> list[str]:
        """The name, split."""
        return self.name.split("/")


@lru_cache(maxsize=1)
def knobs() -> dict[str, list[Knob]]:
    """Return the parameters to be fitted, by stack."""
    text = parse_yaml((DATA / "validation" / "fit.yaml").read_text(), "fit.yaml").data
    return {stack: [Knob(row["name"], row["low"], row["high"], row["prior"]) for row in rows]
            for stack, rows in text["stacks"].items()}  # fmt: skip


def turned(scenario: Scenario, values: dict[str, float]) -> Scenario:
    """Return a scenario with parameters set."""
    return replace(scenario, pools=tuple(_turned_pool(pool, values) for pool in scenario.pools))


def _turned_pool(pool: Pool, values: dict[str, float]) -> Pool:
    stack, device = pool.stack, pool.node.device
    for name, value in values.items():
        kind, owner, key, *dtype = name.split("/")
        if kind == "stack" and owner == stack.name:
            stack = replace(stack, **{key: value})  # type: ignore[arg-type]
        elif kind == "device" and device.name.startswith(tuple(owner.split("|"))):
            new: Any = value
            if dtype:
                new = {**getattr(device, key), **dict.fromkeys(dtype[0].split("|"), value)}
            device = replace(device, **{key: new})
    return replace(pool, stack=stack, node=replace(pool.node, device=device))


@dataclass(frozen=True, slots=True)
class Sample:
    """A row that enters a fit."""

    run: Run
    scenario: Scenario
    measured_s: float


def samples(runs: Sequence[Run], stack: str, values: dict[str, float]) -> list[Sample]:
    """Return the usable rows of a stack: predicted, no gross outlier, spread over sources."""
    found = []
    for run in runs:
        try:
            scenario = scenario_of(run, oddities=True)
            if scenario.pools[0].stack.name != stack:
                continue
            measured = measured_step_seconds(run, scenario)
            error = _log_error(turned(scenario, values), measured or 0.0)
        except (Refused, ValueError, InfeasibleError):
            continue
        if measured and abs(error) < OUTLIER:
            found.append(Sample(run, scenario, measured))
    return _spread(found)


def _spread(found: list[Sample]) -> list[Sample]:
    """Thin a large group evenly: every n-th row in the order of source, model and layout."""
    found = sorted(found, key=lambda s: (s.run.text("source"), s.run.text("model_name"), s.run.id))
    step = max(len(found) / MOST_ROWS, 1.0)
    return [found[int(i * step)] for i in range(int(len(found) / step))]


def _log_error(scenario: Scenario, measured: float) -> float:
    if measured <= 0:
        return float("inf")
    return float(np.log(step_seconds(scenario) / measured))


def fit_stack(stack: str, rows: Sequence[Sample]) -> tuple[dict[str, float], float, float]:
    """Fit one stack's parameters; returns (values, median error before, median error after)."""
    from scipy.optimize import least_squares

    mine = knobs()[stack][: max(len(rows) // 5, 1)]
    counts = Counter(s.run.text("source") for s in rows)
    weight = np.array([counts[s.run.text("source")] ** -0.5 for s in rows])
    weight /= weight.mean()
    low = np.log([k.low for k in mine])
    high = np.log([k.high for k in mine])
    prior = np.clip(np.log([k.prior for k in mine]), low + 1e-6, high - 1e-6)

    def errors(theta: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        values = {k.name: float(v) for k, v in zip(mine, np.exp(theta), strict=True)}
        return np.array([_log_error(turned(s.scenario, values), s.measured_s) for s in rows])

    def residuals(theta: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        pull = PULL * (theta - prior) / (high - low) * np.sqrt(len(rows) / 10)
        return np.concatenate((np.sqrt(weight) * errors(theta), pull))

    found = least_squares(residuals, prior, bounds=(low, high), loss="soft_l1", f_scale=0.05,
                          diff_step=0.02, max_nfev=12)  # fmt: skip
    before, after = (float(np.median(np.abs(np.expm1(errors(t))))) for t in (prior, found.x))
    return (
        {k.name: float(f"{v:.3g}") for k, v in zip(mine, np.exp(found.x), strict=True)},
        before,
        after,
    )


def held_out_errors(stack: str, rows: Sequence[Sample]) -> list[float]:
    """Return the log errors of rows whose model family was left out of the fit (`FOLDS` folds)."""
    families = sorted({(s.run.text("source"), s.run.text("model_name")) for s in rows})
    fold = {family: i % FOLDS for i, family in enumerate(families)}
    errors: list[float] = []
    for number in range(min(FOLDS, len(families))):

        def out(sample: Sample, number: int = number) -> bool:
            run = sample.run
            return fold[run.text("source"), run.text("model_name")] == number

        values, _, _ = fit_stack(stack, [s for s in rows if not out(s)])
        errors += [_log_error(turned(s.scenario, values), s.measured_s) for s in rows if out(s)]
    return errors


def write_values(values: dict[str, float]) -> Iterator[Path]:
    """Write fitted values into the catalogue's files; yields those that changed."""
    for name, value in values.items():
        kind, owner, key, *dtype = name.split("/")
        for path in _paths(kind, owner):
            text = path.read_text("utf-8")
            keys = dtype[0].split("|") if dtype else [key]
            new = text
            for one in keys:
                new = _written(new, key if dtype else "", one, value)
            if new != text:
                path.write_text(new, "utf-8")
                yield path


def _paths(kind: str, owner: str) -> list[Path]:
    if kind == "stack":
        return [DATA / "stacks" / f"{owner}.yaml"]
    known = sorted((DATA / "devices").glob("*.yaml"))
    return [path for path in known if path.stem.startswith(tuple(owner.split("|")))]


def _written(text: str, section: str, key: str, value: float) -> str:
    """Replace one leaf's value; times are written in microseconds or milliseconds."""
    start = text.index(f"\n{section}:") if section else 0
    shown = f"{value:g}"
    if key.endswith("_s"):
        shown = f"{value * 1e6:.3g} us" if value < 1e-3 else f"{value * 1e3:.3g} ms"
    quoted = f'"{shown}"' if " " in shown else shown

    def rewrite(found: re.Match[str]) -> str:
        sure = "low" if found[4] == "assumed" else found[4]
        return f"{found[1]}{quoted}{found[2]}FIT{found[3]}{sure}"

    pattern = rf"^(\s*{key}: \{{value: )[^,]+(, source: )\w+(.*?confidence: )(\w+)"
    return text[:start] + re.sub(pattern, rewrite, text[start:], count=1, flags=re.M)


def main(arguments: Sequence[str]) -> None:
    """Refit the named stacks (all by default) from a table and write the values.

    With --held-out nothing is written: the errors of left-out model families are printed.
    """
    held_out = "--held-out" in arguments
    arguments = [a for a in arguments if a != "--held-out"]
    table = read_table(arguments[0])
    for stack in arguments[1:] or knobs():
        prior = {k.name: k.prior for k in knobs()[stack]}
        rows = samples(table.runs, stack, prior)
        if held_out:
            size = np.abs(np.expm1(held_out_errors(stack, rows)))
            print(f"{stack}: {len(rows)} rows, families left out: median error"
                  f" {100 * np.median(size):.1f} %, 90th percentile"
                  f" {100 * np.quantile(size, 0.9):.1f} %", flush=True)  # fmt: skip
            continue
        values, before, after = fit_stack(stack, rows)
        print(f"{stack}: {len(rows)} rows, {len(values)} parameters,"
              f" median error {100 * before:.1f} % -> {100 * after:.1f} %", flush=True)  # fmt: skip
        for name, value in values.items():
            print(f"  {name} = {value:g}")
        if after < before:  # no change without a gain
            list(write_values(values))


if __name__ == "__main__":
    main(sys.argv[1:])
