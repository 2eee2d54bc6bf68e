"""Made-up measurements for tests: kernels whose times follow a law that is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from factories import make_device

from ersatz.device_models.calibration.measured import Calibration, Origin, Point
from ersatz.device_models.catalog.device import Device
from ersatz.device_models.kernels.kernel import Kernel, matmul, memory_kernel
from ersatz.sim.hil.fit import HeldOut, fit_calibration

ORIGIN = Origin("round", "cpu", "Round hardware", "1.0", "torch 0", "events", "2026-11-25", 0, 12.0)


def round_device() -> Device:
    """The tests' round device, with an fp32 peak of 50 TFLOP/s."""
    device = make_device()
    return replace(
        device, matrix_peak={**device.matrix_peak, "fp32": 50e12},
        matrix_ceiling={**device.matrix_ceiling, "fp32": 1.0},
    )  # fmt: skip


def product(m: float, n: float, k: float, name: str = "up") -> Kernel:
    """A product of fp32 matrices."""
    return matmul(name, m, n, k, "fp32", output_bytes=4.0)


def copy(rows: float, cols: float) -> Kernel:
    """A copy of fp32 numbers."""
    return memory_kernel("copy", 8.0 * rows * cols, dtype="fp32", m=rows, n=cols)


def product_seconds(kernel: Kernel) -> float:
    """20 us a call, 10 TFLOP/s, and 1 ns per element of the result."""
    return 20e-6 + kernel.flop / 10e12 + 1e-9 * kernel.m * kernel.n


def copy_seconds(kernel: Kernel) -> float:
    """5 us a call and 0.1 ns per element: 80 GB/s."""
    return 5e-6 + 0.1e-9 * kernel.m * kernel.n


def made_points(count: int = 40, noise: float = 0.0, outliers: int = 0) -> list[Point]:
    """Points of the two laws; `outliers` of them take three times as long."""
    rng = np.random.default_rng(1)
    points = []
    for _ in range(count):
        m, n, k = (float(round(x)) for x in np.exp(rng.uniform(4, 8, 3)))
        for kernel, law in ((product(m, n, k), product_seconds), (copy(m, n), copy_seconds)):
            seconds = law(kernel) * (1.0 + noise * float(rng.normal()))
            points.append(Point(kernel, seconds, 0.9 * seconds, 0.05, 7))
    return [replace(p, seconds=3 * p.seconds) if i < outliers else p for i, p in enumerate(points)]


def made_calibration(**changes: object) -> Calibration:
    """A calibration of the round device."""
    return replace(made_fit()[0], **changes)  # type: ignore[arg-type]


def made_fit() -> tuple[Calibration, list[HeldOut]]:
    """The fit of exact points, with the held-out half."""
    return fit_calibration(ORIGIN, round_device(), made_points())
