"""Kernel times against published benchmarks (data/measured/kernels.csv).

A benchmark runs cool and alone: its sustained ceiling lies above that of training, so the ceiling of
each table of products is fitted here, with the judged product left out; what is tested is the shape
of the kernel model. `collective_benchmarks` does the same for collectives.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ersatz.device_models.catalog.device import Device
from ersatz.device_models.catalog.reading import load_device
from ersatz.device_models.kernels.kernel import calibrated_time, matmul
from ersatz.device_models.shipped import DATA

CEILINGS = np.linspace(0.4, 0.98, 117)


def benchmark_rows(name: str) -> Iterator[dict[str, str]]:
    """Return the rows of a table of `data/measured`."""
    with (DATA / "measured" / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def judge_kernels() -> dict[str, list[float]]:
    """Return relative errors of time of matrix products, each left out of its table's ceiling."""
    tables: dict[str, list[tuple[float, np.ndarray]]] = defaultdict(list)
    for row in benchmark_rows("kernels.csv"):
        if "DeepGEMM" in row["source"] and row["tflops"]:
            m, n, k = (float(row[key]) for key in "MNK")
            kernel = matmul("gemm", m, n, k, "fp8", groups=int(row["groups"] or 1))
            measured = kernel.flop / (float(row["tflops"]) * 1e12)
            times = np.array(
                [calibrated_time(_ceiled(load_device("h800"), c), kernel) for c in CEILINGS]
            )
            kind = "grouped" if "Grouped" in row["kernel"] else "plain"
            few = "M below 1024" if float(row["M"]) < 1024 else "M from 1024"
            name = f"FP8 products on H800, {kind}, {few}"
            tables[name].append((measured, times))
    return {name: _left_out(rows) for name, rows in tables.items()}


def _ceiled(device: Device, ceiling: float) -> Device:
    return replace(device, matrix_ceiling={**device.matrix_ceiling, "fp8": float(ceiling)})


def _left_out(rows: list[tuple[float, np.ndarray]]) -> list[float]:
    errors = np.array([times / measured - 1 for measured, times in rows])
    found = []
    for place in range(len(rows)):
        others = np.delete(np.abs(np.log1p(errors)), place, axis=0)
        found.append(float(errors[place, int(np.argmin(others.sum(axis=0)))]))
    return found
