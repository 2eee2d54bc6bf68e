"""Fit device and stack parameters to measured training runs, all of them together.

    python -m sim.validation.fit [RUNS.csv] [--dry | --check]

Log errors of step time, soft-L1 (robust to outliers), each source weighted by its number of
configurations to the power -1/2, and a weak pull of every parameter to its prior or relative. The
step engine is linearised in the logarithms of the parameters (`Linear`), the robust problem solved
on that, and the engine asked again until it agrees. A fold that leaves rows out solves the last
linear problem without them; its rows are then predicted by the engine itself. The same table gives
the same values, from the priors alone: `--check` refits and compares with the files.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt

from sim.validation.folds import Folds, fit_folds, write_folds
from sim.validation.heldout import SHIPPED
from sim.validation.parameters import (
    Parameter,
    fitted_parameters,
    shipped_values,
    turned,
    write_values,
)
from sim.validation.predict import PROCESSES
from sim.validation.samples import Sample, log_error, samples, usable
from sim.validation.table import read_table

Array = npt.NDArray[np.float64]
PULL = 0.25  # a parameter one whole range from its prior costs as if every row erred by this x SOFT
SOFT = 0.05  # log error from which a row counts as an outlier, less and less
STEP = 0.02  # of the logarithm, for derivatives
TRUST = 0.5  # most that a logarithm moves between two looks at the engine
ROUNDS = 3  # a fourth gains half a percent of the cost
SETTLED = 0.002  # relative gain of a round below which the fit has converged
SAME = 0.01  # most that a refit's values may differ from those of the files
FAR = 2.0  # most that a logarithm moves when rows are left out


@dataclass(frozen=True, slots=True)
class Linear:
    """The errors of all samples near a point: error + slope (theta - at)."""

    samples: Sequence[Sample]
    parameters: Sequence[Parameter]
    at: Array  # logarithms of the parameters
    errors: Array  # log errors per sample
    slopes: Array  # samples x parameters

    def solve(self, keep: npt.NDArray[np.bool_], trust: float = TRUST) -> Array:
        """Return the best logarithms for the samples of `keep`, at most `trust` from here."""
        from scipy.optimize import least_squares

        counts = Counter(s.source for s, k in zip(self.samples, keep, strict=True) if k)
        weight = np.array([counts[s.source] ** -0.5 if k else 0.0
                           for s, k in zip(self.samples, keep, strict=True)])  # fmt: skip
        weight *= keep.sum() / weight.sum()
        root = np.sqrt(weight)[keep]
        slopes, errors = self.slopes[keep], self.errors[keep]
        low = np.log([p.low for p in self.parameters])
        high = np.log([p.high for p in self.parameters])
        pull, aim = self._pull(low, high, keep.sum())

        def residuals(theta: Array) -> Array:
            predicted = errors + slopes @ (theta - self.at)
            return np.concatenate((root * predicted, pull @ theta - aim))

        jacobian = np.concatenate((root[:, None] * slopes, pull))
        inside = np.maximum(low, self.at - trust), np.minimum(high, self.at + trust)
        start = np.clip(self.at, inside[0] + 1e-9, inside[1] - 1e-9)
        found = least_squares(residuals, start, lambda _: jacobian, bounds=inside, loss="soft_l1",
                              f_scale=SOFT)  # fmt: skip
        return np.asarray(found.x)

    def _pull(self, low: Array, high: Array, rows: int) -> tuple[Array, Array]:
        """Rows of the penalty: towards the prior's value, or towards the relative's parameter."""
        place = {p.name: i for i, p in enumerate(self.parameters)}
        strength = PULL * SOFT * np.sqrt(rows) / (high - low)
        matrix, aim = np.diag(strength), np.zeros(len(self.parameters))
        for i, p in enumerate(self.parameters):
            if p.like:
                matrix[i, place[p.like]] = -strength[i]
            else:
                aim[i] = strength[i] * np.log(p.prior)
        return matrix, aim


def values_at(parameters: Sequence[Parameter], theta: Array) -> dict[Parameter, float]:
    """Return parameters with their values, rounded as the files keep them."""
    return {p: float(f"{v:.3g}") for p, v in zip(parameters, np.exp(theta), strict=True)}


def errors_at(rows: Sequence[Sample], values: Mapping[Parameter, float]) -> Array:
    """Ask the engine for the log errors of samples under a set of values."""
    with get_context("fork").Pool(PROCESSES) as pool:
        return np.array(pool.map(partial(_error, dict(values)), rows, chunksize=8))


def _error(values: Mapping[Parameter, float], sample: Sample) -> float:
    return log_error(turned(sample.scenario, values), sample.measured_s)


def linearise(rows: Sequence[Sample], parameters: Sequence[Parameter], theta: Array) -> Linear:
    """Ask the engine for errors and their slopes at a point."""
    job = partial(_slopes, tuple(parameters), theta)
    with get_context("fork").Pool(PROCESSES) as pool:
        found = pool.map(job, rows, chunksize=4)
    return Linear(
        rows, parameters, theta, np.array([e for e, _ in found]), np.array([s for _, s in found])
    )


def _slopes(parameters: Sequence[Parameter], theta: Array, sample: Sample) -> tuple[float, Array]:
    values = dict(zip(parameters, np.exp(theta).tolist(), strict=True))
    here = turned(sample.scenario, values)
    error = log_error(here, sample.measured_s)
    slopes = np.zeros(len(parameters))
    for i, p in enumerate(parameters):
        if p.concerns(sample.scenario):
            moved = turned(here, {p: values[p] * float(np.exp(STEP))})
            slopes[i] = (log_error(moved, sample.measured_s) - error) / STEP
    return error, slopes


def fit(rows: Sequence[Sample], tell: Callable[[str], None] = print) -> Linear:
    """Fit all parameters to the samples; returns the linear problem at the solution."""
    parameters = fitted_parameters()
    theta = np.log([p.prior for p in parameters])
    everything = np.ones(len(rows), dtype=bool)
    linear = linearise(rows, parameters, theta)
    trust = TRUST
    for number in range(ROUNDS):
        theta = linear.solve(everything, trust)
        new = linearise(rows, parameters, theta)
        was, now = (robust_cost(x.errors) for x in (linear, new))
        tell(f"round {number + 1}: median |log error| {np.median(np.abs(new.errors)):.4f},"
             f" cost {was:.3f} -> {now:.3f}")  # fmt: skip
        if now < was:
            linear = new
        if abs(was - now) < SETTLED * was:
            break
        trust /= 2 if now < was else 4
    return linear


def robust_cost(errors: Array) -> float:
    """Return the mean soft-L1 loss of log errors."""
    return float(np.mean(2 * (np.sqrt(1 + (errors / SOFT) ** 2) - 1)))


def fitted_values(linear: Linear) -> dict[Parameter, float]:
    """Return the solution's values."""
    return values_at(linear.parameters, linear.at)


def on_bound(values: Mapping[Parameter, float]) -> list[str]:
    """Name the parameters that the data push onto a bound: the physics lacks something there."""
    return [p.name for p, v in values.items() if v <= p.low * 1.005 or v >= p.high * 0.995]


def left_out(linear: Linear, everything: Sequence[Sample]) -> Folds:
    """Return the values without each source and each model; of unfitted groups, those of the fit."""
    folds = fit_folds(
        [s.family for s in linear.samples],
        lambda keep: values_at(linear.parameters, linear.solve(keep, trust=FAR)),
    )
    whole = fitted_values(linear)
    sources = {s.source: whole for s in everything} | dict(folds.sources)
    families = {s.family: whole for s in everything} | dict(folds.families)
    return Folds(sources, families)


def report_drift(values: Mapping[Parameter, float]) -> int:
    """Print how far a refit is from the files; returns the exit status: 1 above `SAME`."""
    shipped = shipped_values()
    drift = {p.name: abs(value / shipped[p] - 1.0) for p, value in values.items()}
    worst = max(drift, key=drift.__getitem__)
    print(
        f"farthest from the files: {worst}, {100 * drift[worst]:.2f} % (allowed {100 * SAME:g} %)"
    )
    return int(drift[worst] > SAME)


def main(arguments: Sequence[str]) -> None:
    """Refit everything from a table and write the values into the catalogue."""
    dry = {"--dry", "--check"} & set(arguments)
    tables = [a for a in arguments if not a.startswith("--")] or [str(SHIPPED)]
    everything = samples(read_table(tables[0]).runs)
    prior = {p: p.prior for p in fitted_parameters()}
    rows = usable(everything, errors_at(everything, prior).tolist())
    print(f"{len(rows)} configurations of {len(everything)}, {len(prior)} parameters", flush=True)
    linear = fit(rows, partial(print, flush=True))
    values = fitted_values(linear)
    for p, value in values.items():
        print(f"  {p.name} = {value:g} (prior {p.prior:g})")
    print("on a bound:", ", ".join(on_bound(values)) or "none")
    spread = float(np.median(np.abs(linear.errors)))
    note = (
        f"{len(values)} parameters fitted on {len(rows)} configurations, median error {spread:.3f}"
    )
    if "--check" in arguments:
        raise SystemExit(report_drift(values))
    if dry:
        return
    write_folds(left_out(linear, everything))
    for path in write_values(values, note):
        print("wrote", path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
