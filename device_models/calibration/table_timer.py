"""The `table` timer: interpolate measured kernels themselves, without any model of their time.

In the logarithms of an operation's sizes, a plane is fitted to the nearest measured points (weights
fall with the square of the distance, so that a measured point gives its own time back) and read at
the kernel. Slopes are kept between 0 and 1.3: twice the work takes no less time, and hardly more
than twice of it. Beyond the largest sizes this is extrapolation, and `reach` says how far; below the
smallest the smallest hold, since a call costs what it costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ersatz.device_models.calibration.measured import (
    OWN_STACK,
    Calibration,
    Point,
    calibrated_device,
    is_measured,
    kernel_key,
    own_seconds,
)
from ersatz.device_models.catalog.device import Device
from ersatz.device_models.kernels.kernel import Kernel, Timer, calibrated_time
from ersatz.device_models.kernels.operations import is_product, operation_of

NEAREST = 14
LEAST = 3  # points below which an operation counts as not measured
STEEPEST = 1.3
PULL = 0.005  # ridge towards a common slope of 1, where points cannot tell

Array = npt.NDArray[np.float64]


def sizes_of(kernel: Kernel) -> list[float]:
    """Return the sizes on which the time of a kernel's operation depends.

    For attention these are FLOPs, score elements (FLOPs per head size) and elements of the values.
    """
    operation = operation_of(kernel)
    if is_product(operation):
        sizes = [kernel.m, kernel.n, kernel.k, float(kernel.groups)]
    elif operation.startswith("attention"):
        sizes = [kernel.flop, kernel.flop / max(kernel.k, 1.0), kernel.m * kernel.n]
    elif operation.startswith("embedding"):
        sizes = [kernel.m, kernel.n, kernel.k]
    else:
        sizes = [kernel.m, kernel.n]
    return [max(size, 1.0) for size in sizes]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Measured points of one operation: logarithms of sizes (points, sizes) and of seconds."""

    sizes: Array
    seconds: Array

    def read(self, sizes: Sequence[float]) -> tuple[float, float]:
        """Return (seconds, reach): reach is the distance to the nearest point in e-foldings."""
        place = np.maximum(np.log(np.asarray(sizes)), self.sizes.min(axis=0))
        offsets = self.sizes - place
        distance = np.sqrt((offsets**2).sum(axis=1))
        near = np.argsort(distance, kind="stable")[:NEAREST]
        reach = float(distance[near[0]])
        if reach < 1e-9:
            return float(np.exp(self.seconds[near[0]])), 0.0
        return float(np.exp(self._plane(offsets[near], self.seconds[near], distance[near]))), reach

    def _plane(self, offsets: Array, seconds: Array, distance: Array) -> float:
        """Value at the origin of a weighted plane, slopes held between 0 and `STEEPEST`."""
        from scipy.optimize import lsq_linear

        weight = 1.0 / (distance + 0.02)
        count = offsets.shape[1]
        rows = np.column_stack([np.ones(len(offsets)), offsets]) * weight[:, None]
        anchor = np.hstack([np.zeros((count, 1)), np.eye(count)]) * PULL * weight.sum()
        slopes = np.full(count, 1.0) * PULL * weight.sum()
        low = [-np.inf, *[0.0] * count]
        high = [np.inf, *[STEEPEST] * count]
        found: Any = lsq_linear(
            np.vstack([rows, anchor]), np.concatenate([seconds * weight, slopes]), (low, high)
        )
        return float(found.x[0])


def tables_of(points: Sequence[Point]) -> dict[tuple[str, str], Table]:
    """Return a table for each operation and dtype with enough points."""
    rows: dict[tuple[str, str], list[tuple[list[float], float]]] = {}
    for point in points:
        key = operation_of(point.kernel), point.kernel.dtype
        rows.setdefault(key, []).append((sizes_of(point.kernel), point.seconds))
    return {
        key: Table(np.log([s for s, _ in found]), np.log([t for _, t in found]))
        for key, found in rows.items()
        if len(found) >= LEAST
    }


def table_timer(calibration: Calibration, stack: str = OWN_STACK) -> Timer:
    """Return the timer; what was not measured on this device is modelled (`calibrated_time`)."""
    tables = tables_of(calibration.points)
    own = own_seconds(calibration)

    @lru_cache(maxsize=4096)
    def look_up(kernel: Kernel) -> float:
        return tables[operation_of(kernel), kernel.dtype].read(sizes_of(kernel))[0]

    def timer(device: Device, kernel: Kernel) -> float:
        if is_measured(calibration, device, kernel, stack):
            exact = own.get(kernel_key(kernel))
            if exact is None and (operation_of(kernel), kernel.dtype) in tables:
                exact = look_up(kernel)
            if exact is not None:
                return exact * calibration.slowdown(kernel)
        return calibrated_time(calibrated_device(device, calibration), kernel)

    return timer
