"""Fit device and stack parameters to measured training runs, all of them together.

    python -m ersatz.sim.validation.fit [RUNS.csv] [--dry | --check]

Log errors of step time, soft-L1 (robust to outliers), each source weighted by its number of
configurations to the power -1/2, and a weak pull of every parameter to its prior or relative. The
step engine is linearised in the logarithms of the parameters (`Linear`), the robust problem solved
on that, and the engine asked again until it agrees. A fold that leaves rows out starts from the last
linear problem and asks the engine about the rows that it keeps; the others are then predicted. The
same table gives the same values, from the priors alone: `--check` refits and compares with the files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from ersatz.device_models.text.whole import write_all_whole
from ersatz.sim.processes import side_by_side
from ersatz.sim.validation.fit.folds import PATH, Folds, fit_folds, folds_text
from ersatz.sim.validation.fit.parameters import (
    Parameter,
    fitted_parameters,
    fitted_texts,
    shipped_values,
    turned,
)
from ersatz.sim.validation.fit.samples import Sample, log_error, samples, usable
from ersatz.sim.validation.reading.lineages import SHIPPED
from ersatz.sim.validation.reading.table import read_table

Array = npt.NDArray[np.float64]
PULL = 0.25  # a parameter one whole range from its prior costs as if every row erred by this x SOFT
SOFT = 0.05  # log error from which a row counts as an outlier, less and less
STEP = 0.02  # of the logarithm, for derivatives
TRUST = 0.5  # most that a logarithm moves between two looks at the engine
ROUNDS = 10
SETTLED = 0.002  # relative gain of a round below which the fit has converged
SAME = 0.01  # most that a refit's values may differ from those of the files
FAR = 2.0  # most that a logarithm moves at first when rows are left out
CHORDS = 3  # times that a fold asks the engine again
STRAIGHT = 0.005  # moves of an error up to which the linear problem is trusted


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

        residuals, jacobian = self._problem(keep)
        low, high = self._bounds()
        inside = np.maximum(low, self.at - trust), np.minimum(high, self.at + trust)
        start = np.clip(self.at, inside[0] + 1e-9, inside[1] - 1e-9)
        found = least_squares(residuals, start, lambda _: jacobian, bounds=inside, loss="soft_l1",
                              f_scale=SOFT)  # fmt: skip
        return np.asarray(found.x)

    def cost(self, theta: Array, keep: npt.NDArray[np.bool_] | None = None) -> float:
        """Return what `solve` minimises: robust squares of errors and pull, in units of `SOFT`."""
        kept = np.ones(len(self.samples), dtype=bool) if keep is None else keep
        left = self._problem(kept)[0](theta)
        return robust_cost(left) * left.size / int(kept.sum())

    def asked_at(self, theta: Array, keep: npt.NDArray[np.bool_]) -> Linear:
        """Return the problem around `theta`: the engine's errors where they moved, the old slopes."""
        values = values_at(self.parameters, theta)
        shift = self.slopes @ (theta - self.at)
        bent = np.abs(self.slopes) @ np.abs(theta - self.at)
        errors = self.errors + shift
        for i in np.flatnonzero(keep & (bent > STRAIGHT)):
            errors[i] = _error(values, self.samples[int(i)])
        return replace(self, at=theta, errors=errors)

    def _bounds(self) -> tuple[Array, Array]:
        return (np.log([p.low for p in self.parameters]),
                np.log([p.high for p in self.parameters]))  # fmt: skip

    def _problem(self, keep: npt.NDArray[np.bool_]) -> tuple[Callable[[Array], Array], Array]:
        """Residuals as a function of the logarithms, and their constant derivatives."""
        counts = Counter(s.source for s, k in zip(self.samples, keep, strict=True) if k)
        weight = np.array([counts[s.source] ** -0.5 if k else 0.0
                           for s, k in zip(self.samples, keep, strict=True)])  # fmt: skip
        weight *= keep.sum() / weight.sum()
        root = np.sqrt(weight)[keep]
        slopes, errors = self.slopes[keep], self.errors[keep]
        pull, aim = self._pull(*self._bounds(), keep.sum())

        def residuals(theta: Array) -> Array:
            predicted = errors + slopes @ (theta - self.at)
            return np.concatenate((root * predicted, pull @ theta - aim))

        return residuals, np.concatenate((root[:, None] * slopes, pull))

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
    return np.array(list(side_by_side(partial(_error, dict(values)), rows, 8)))


def _error(values: Mapping[Parameter, float], sample: Sample) -> float:
    return log_error(turned(sample.scenario, values), sample.measured_s)


def linearise(rows: Sequence[Sample], parameters: Sequence[Parameter], theta: Array) -> Linear:
    """Ask the engine for errors and their slopes at a point."""
    job = partial(_slopes, tuple(parameters), theta)
    found = list(side_by_side(job, rows, 4))
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


def fit(
    rows: Sequence[Sample],
    tell: Callable[[str], None] = print,
    parameters: Sequence[Parameter] = (),
) -> Linear:
    """Fit all parameters, or those given, to the samples; returns the linear problem at the solution."""
    parameters = parameters or fitted_parameters()
    everything = np.ones(len(rows), dtype=bool)
    linear = linearise(rows, parameters, np.log([p.prior for p in parameters]))
    trust = TRUST
    for number in range(ROUNDS):
        theta = linear.solve(everything, trust)
        new = linearise(rows, parameters, theta)
        was, hoped, now = linear.cost(linear.at), linear.cost(theta), new.cost(theta)
        tell(f"round {number + 1}: median |log error| {np.median(np.abs(new.errors)):.4f},"
             f" cost {was:.4f} -> {now:.4f}, hoped {hoped:.4f}, within {trust:g}")  # fmt: skip
        if now < was:
            linear = new
        if abs(was - now) < SETTLED * was:
            break
        trust *= 0.25 if was - now < 0.25 * (was - hoped) else 1.0
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
    """Return the values without each lineage and each model; of unfitted groups, those of the fit."""

    def solve(masks: Sequence[npt.NDArray[np.bool_]]) -> list[dict[Parameter, float]]:
        return list(side_by_side(partial(fold_values, linear), masks))

    rows = linear.samples
    folds = fit_folds([s.family for s in rows], [s.lineage for s in rows], solve)
    whole = fitted_values(linear)
    lineages = {s.lineage: whole for s in everything} | dict(folds.lineages)
    families = {s.family: whole for s in everything} | dict(folds.families)
    return Folds(lineages, families)


def fold_values(linear: Linear, keep: npt.NDArray[np.bool_]) -> dict[Parameter, float]:
    """Return the values that fit the samples of `keep` best, by chords: the slopes stay."""
    # never back to the whole fit's values: they have seen what is left out
    best = linear.asked_at(linear.solve(keep, trust=FAR), keep)
    for _ in range(CHORDS):
        theta = best.solve(keep, trust=TRUST)
        here = best.asked_at(theta, keep)
        if here.cost(theta, keep) >= best.cost(best.at, keep):
            break
        best = here
    return values_at(best.parameters, best.at)


def report_drift(values: Mapping[Parameter, float]) -> int:
    """Print how far a refit is from the files; returns the exit status: 1 above `SAME`."""
    shipped = shipped_values()
    drift = {p.name: abs(value / shipped[p] - 1.0) for p, value in values.items()}
    worst = max(drift, key=drift.__getitem__)
    print(
        f"farthest from the files: {worst}, {100 * drift[worst]:.2f} % (allowed {100 * SAME:g} %)"
    )
    return int(drift[worst] > SAME)


def write(values: Mapping[Parameter, float], folds: Folds, note: str) -> None:
    """Write what was fitted into the catalogue."""
    texts = {PATH: folds_text(folds), **fitted_texts(values, note)}
    write_all_whole(texts)  # the values belong together: all on the disk before the first counts
    for path in texts:
        print("wrote", path.name)


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
    write(values, left_out(linear, everything), note)
