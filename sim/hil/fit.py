"""Fit measured kernels: the seconds of each term of each operation, and the device's own parameters.

Terms: relative residuals, non-negative, soft-L1 (SciPy), so that a disturbed sample moves little. Half
of the points of every operation are held out, predicted by the fit of the other half and by a table
of it; the fit that is kept uses all points. Device parameters are those of the kernel model
(`ersatz.device_models.kernels.kernel`), by the same points: they serve every kernel that was not measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ersatz.device_models.calibration.measured import (
    Calibration,
    Origin,
    Point,
    calibrated_device,
    with_small,
)
from ersatz.device_models.calibration.table_timer import sizes_of, tables_of
from ersatz.device_models.catalog.device import Device
from ersatz.device_models.kernels.kernel import calibrated_time
from ersatz.device_models.kernels.operations import operation_of
from ersatz.device_models.kernels.terms import (
    Machine,
    OperationFit,
    machine_of,
    term_values,
    terms_of,
)

ROBUST = 0.1  # relative residual from which a point counts less
FEWEST = 4  # points that an operation needs to be fitted
PLAIN_MOVES = ("copy", "residual")  # operations that only move bytes
SHARE_BOUNDS = (1e-3, 1.0)  # of a sustained share

Array = npt.NDArray[np.float64]
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One point that a fit has not seen, and what it was predicted at."""

    point: Point
    fitted_s: float
    table_s: float

    @property
    def operation(self) -> str:
        """The point's operation."""
        return operation_of(self.point.kernel)

    @property
    def error(self) -> float:
        """Fitted / measured - 1."""
        return self.fitted_s / self.point.seconds - 1.0

    @property
    def table_error(self) -> float:
        """Interpolated / measured - 1."""
        return self.table_s / self.point.seconds - 1.0


def fit_calibration(
    origin: Origin, device: Device, points: Sequence[Point], missing: Sequence[str] = ()
) -> tuple[Calibration, list[HeldOut]]:
    """Return the calibration of measured points, and its held-out half predicted."""
    machine = machine_of(device)
    groups = by_operation(points)
    held: list[HeldOut] = []
    fits: dict[Key, OperationFit] = {}
    for key, members in sorted(groups.items()):
        if len(members) < FEWEST:
            continue
        judged = _hold_out(key, members, machine, origin.seed)
        held += judged
        errors = np.abs([h.error for h in judged])
        fits[key] = OperationFit(
            *key, fit_terms(members, machine), len(members), float(np.median(errors)),
            float(np.mean(errors)), float(np.quantile(errors, 0.8)),
        )  # fmt: skip
    parameters = fit_parameters(device, points)
    calibration = Calibration(origin, machine, parameters, fits, tuple(points), tuple(missing),
                              launches=host_times(points))  # fmt: skip
    return calibration, held


def with_small_steps(
    calibration: Calibration, device: Device, points: Sequence[Point]
) -> Calibration:
    """Return the calibration with kernels of steps that stay in the cache, where there are any."""
    if not points:
        return calibration
    fitted, _ = fit_calibration(calibration.origin, device, points)
    return with_small(calibration, fitted.fits, points)


def host_times(points: Sequence[Point]) -> dict[str, float]:
    """Return what the host needs to issue a kernel of each operation, where a device runs by itself.

    An operation may be one call or a dozen, and a backward pass several more: where the host bounds
    a step it is the sum of them that counts.
    """
    found: dict[str, list[float]] = {}
    for point in points:
        if point.host_s > 0:
            found.setdefault(operation_of(point.kernel), []).append(point.host_s)
    return {operation: float(np.median(times)) for operation, times in sorted(found.items())}


def by_operation(points: Iterable[Point]) -> dict[Key, list[Point]]:
    """Return the points of each operation and dtype."""
    groups: dict[Key, list[Point]] = {}
    for point in points:
        groups.setdefault((operation_of(point.kernel), point.kernel.dtype), []).append(point)
    return groups


def _hold_out(key: Key, members: Sequence[Point], machine: Machine, seed: int) -> list[HeldOut]:
    """Predict a random half of the points by the other half."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(6, *key[0].encode())))
    order = rng.permutation(len(members))
    half = (len(members) + 1) // 2
    known, others = ([members[i] for i in part] for part in (order[:half], order[half:]))
    fit = OperationFit(*key, fit_terms(known, machine), half, 0.0, 0.0, 0.0)
    table = tables_of(known).get(key)
    return [
        HeldOut(
            point, fit.seconds(point.kernel, machine),
            table.read(sizes_of(point.kernel))[0] if table else float("nan"),
        )
        for point in others
    ]  # fmt: skip


def fit_terms(points: Sequence[Point], machine: Machine) -> dict[str, float]:
    """Return the seconds of each term of the points' operation, those at zero left out."""
    from scipy.optimize import least_squares, nnls

    seconds = np.array([p.seconds for p in points])
    rows = np.array([term_values(p.kernel, machine) for p in points]) / seconds[:, None]
    scale = rows.mean(axis=0)
    used = scale > 0
    rows = rows[:, used] / scale[used]
    start = np.maximum(nnls(rows, np.ones(len(points)))[0], 1e-6)

    def residuals(costs: Array) -> Array:
        return np.asarray(rows @ costs - 1.0)

    found = least_squares(residuals, start, jac=lambda _: rows, bounds=(0.0, np.inf),
                          loss="soft_l1", f_scale=ROBUST, max_nfev=200)  # fmt: skip
    names = np.array(terms_of(operation_of(points[0].kernel)))[used]
    costs = found.x / scale[used]
    return {
        str(name): float(cost)
        for name, cost, part in zip(names, costs, found.x, strict=True)
        if part > 1e-4
    }


def fit_parameters(device: Device, points: Sequence[Point]) -> dict[str, float]:
    """Return the device parameters of the kernel model that the measurements put in its place.

    A measured rate above the data sheet's raises it: it is the data sheet that errs.
    """
    found: dict[str, float] = {}
    groups = by_operation(points)
    copies = [p.kernel.nbytes / p.seconds for p in points if p.kernel.name in PLAIN_MOVES]
    found["memory_bandwidth"] = max([device.memory_bandwidth, *copies])
    for dtype in sorted({p.kernel.dtype for p in points if p.kernel.kind == "matmul"}):
        rates = [
            p.kernel.flop / p.seconds
            for p in points
            if p.kernel.dtype == dtype and operation_of(p.kernel).startswith("product")
        ]
        if rates:
            fastest = max(rates)
            found[f"matrix_peak.{dtype}"] = max(fastest, device.matrix_peak.get(dtype, 0.0))
            found[f"matrix_ceiling.{dtype}"] = device.matrix_ceiling.get(dtype, 0.8)
    for name, chosen in _parameter_points(groups).items():
        if chosen:
            found[name] = _fit_share(device, found, name, chosen)
    host = [p.host_s for p in points if p.host_s > 0]
    found["kernel_launch_s"] = float(np.median(host)) if host else 0.0
    return found


def _parameter_points(groups: Mapping[Key, Sequence[Point]]) -> dict[str, list[Point]]:
    """Return the points that decide each sustained share, bandwidth first."""
    moves = [p for key, members in groups.items() if key[0] in PLAIN_MOVES for p in members]
    chosen = {"memory_efficiency": moves}
    for dtype in sorted({key[1] for key in groups}):
        chosen[f"matrix_ceiling.{dtype}"] = [
            p for key, members in groups.items()
            if key[1] == dtype and key[0].startswith("product") for p in members
        ]  # fmt: skip
    for name, operation in (("forward", "attention"), ("backward", "attention back")):
        chosen[f"attention_{name}"] = [
            p for key, members in groups.items() if key[0] == operation for p in members
        ]
    return chosen


def _fit_share(
    device: Device, found: Mapping[str, float], name: str, points: Sequence[Point]
) -> float:
    """Return the share (0 to 1) that brings the kernel model nearest to the points."""
    from scipy.optimize import minimize_scalar

    seconds = np.log([p.seconds for p in points])

    def misfit(log_share: float) -> float:
        trial = with_parameters(device, {**found, name: float(np.exp(log_share))})
        times = np.log([calibrated_time(trial, p.kernel) for p in points])
        return float(np.abs(times - seconds).mean())

    bounds = tuple(np.log(SHARE_BOUNDS))
    result = minimize_scalar(misfit, bounds=bounds, method="bounded")
    return float(np.exp(result.x))


def with_parameters(device: Device, parameters: Mapping[str, float]) -> Device:
    """Return the device with these parameters in place of its own."""
    origin = Origin(device.name, "", "", "", "", "", "", 0, 0.0)
    return calibrated_device(device, Calibration(origin, machine_of(device), parameters, {}, ()))


def summary_errors(held: Sequence[HeldOut]) -> dict[str, dict[str, float]]:
    """Return held-out errors by class: products, grouped, attention, the rest, and all."""
    classes: dict[str, Callable[[str], bool]] = {
        "matrix products": lambda o: o.startswith("product"),
        "grouped products": lambda o: o.startswith("grouped"),
        "attention": lambda o: o.startswith("attention"),
        "all others": lambda o: not o.startswith(("product", "grouped", "attention")),
        "all kernels": lambda o: True,
    }
    found = {}
    for name, belongs in classes.items():
        chosen = [h for h in held if belongs(h.operation)]
        if chosen:
            fitted = np.abs([h.error for h in chosen])
            table = np.abs([h.table_error for h in chosen if math.isfinite(h.table_error)])
            found[name] = {
                "points": float(len(chosen)), "median": float(np.median(fitted)),
                "mean": float(np.mean(fitted)), "p90": float(np.quantile(fitted, 0.9)),
                "table_median": float(np.median(table)) if len(table) else math.nan,
                "spread": float(np.median([h.point.spread for h in chosen])),
            }  # fmt: skip
    return found
