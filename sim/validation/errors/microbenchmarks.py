"""Kernel times against published benchmarks (data/measured/kernels.csv, attention.csv).

A benchmark runs cool and alone: its sustained ceiling lies above that of training, so the ceiling of
each table of products is fitted here, with the judged product left out; what is tested is the shape
of the kernel model. So it is with attention: share and ramp follow from the table's other lengths.
On a bin of another die's kernels (H20) nothing is fitted: it tests the kernels' table and the clock
that follows from power. `collective_benchmarks` does the same for collectives.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from ersatz.device_models.catalog.device import DTYPE_BYTES, Device
from ersatz.device_models.catalog.reading import load_device
from ersatz.device_models.kernels.attention import attention_kernel
from ersatz.device_models.kernels.kernel import calibrated_time, matmul, sixteen_bit_peak
from ersatz.device_models.shipped import DATA

CEILINGS = np.linspace(0.4, 0.98, 117)


def benchmark_rows(name: str) -> Iterator[dict[str, str]]:
    """Return the rows of a table of `data/measured`."""
    with (DATA / "measured" / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def judge_kernels() -> dict[str, list[float]]:
    """Return relative errors of time of kernels by group, each left out of what it is judged by."""
    return _judge_products() | _judge_attention() | _judge_bins()


def _judge_products() -> dict[str, list[float]]:
    """Matrix products, each left out of its table's ceiling."""
    tables: dict[str, list[tuple[float, np.ndarray]]] = defaultdict(list)
    for row in benchmark_rows("kernels.csv"):
        if "DeepGEMM" in row["source"] and row["tflops"]:
            m, n, k = (float(row[key]) for key in "MNK")
            written = DTYPE_BYTES[row["dtype"].rpartition(" ")[2]]
            kernel = matmul("gemm", m, n, k, "fp8", groups=int(row["groups"] or 1),
                            output_bytes=written)  # fmt: skip
            measured = kernel.flop / (float(row["tflops"]) * 1e12)
            times = np.array(
                [calibrated_time(_ceiled(load_device("h800"), c), kernel) for c in CEILINGS]
            )
            name = f"FP8 products on H800, {_kind(row)}"
            tables[name].append((measured, times))
    return {name: _left_out(rows) for name, rows in tables.items()}


def _kind(row: Mapping[str, str]) -> str:
    if "Weight gradients" in row["kernel"]:
        return "weight gradients"
    kind = "grouped" if "Grouped" in row["kernel"] else "plain"
    return f"{kind}, M below 1024" if float(row["M"]) < 1024 else f"{kind}, M from 1024"


def _ceiled(device: Device, ceiling: float) -> Device:
    return replace(device, matrix_ceiling={**device.matrix_ceiling, "fp8": float(ceiling)})


def _left_out(rows: list[tuple[float, np.ndarray]]) -> list[float]:
    errors = np.array([times / measured - 1 for measured, times in rows])
    found = []
    for place in range(len(rows)):
        others = np.delete(np.abs(np.log1p(errors)), place, axis=0)
        found.append(float(errors[place, int(np.argmin(others.sum(axis=0)))]))
    return found


def _judge_attention() -> dict[str, list[float]]:
    """Attention at a length, from the same kernel's other lengths with heads and mask alike."""
    tables: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
    for row in benchmark_rows("attention.csv"):
        key = tuple(row[k] for k in ("device", "kernel", "direction", "causal", "head"))
        tables[key].append((float(row["length"]), float(row["tflops"])))
    found: dict[str, list[float]] = defaultdict(list)
    for (device, kernel, direction, *_), points in tables.items():
        if len(points) > 3:
            title = load_device(device).title
            found[f"{direction} attention on {title}, {kernel}"] += _from_other_lengths(points)
    return dict(found)


def _from_other_lengths(points: list[tuple[float, float]]) -> list[float]:
    """Errors of 1 / rate = (1 + ramp / length) / most, fitted without the judged point.

    The slope is the median of those of all pairs (Theil and Sen): short ones are far out on this axis,
    and one that lies beside the curve (Triton's at 512 tokens) would bend it for all others.
    """
    from scipy.stats import theilslopes

    lengths, rates = np.array(points).T
    found = []
    for place in range(len(points)):
        x, y = np.delete(1 / lengths, place), np.delete(1 / rates, place)
        slope = float(theilslopes(y, x).slope)
        base = float(np.median(y - slope * x))
        found.append(float((base + slope / lengths[place]) * rates[place] - 1))
    return found


def _judge_bins() -> dict[str, list[float]]:
    """Causal attention on H20, all from the catalogue."""
    device, found = load_device("h20"), []
    for row in benchmark_rows("attention.csv"):
        version = attention_kernel(device, [row["kernel"]])
        if row["device"] != device.name or row["causal"] != "1" or version is None:
            continue
        backward = row["direction"] == "backward"
        peak = sixteen_bit_peak(device)
        share = version.share(float(row["length"]), float(row["head"]), peak, backward=backward)
        rate = peak * share * device.sustained_clock
        found.append(float(row["tflops"]) * 1e12 / rate - 1)
    return {"attention on H20, by the clock of its bin": found}
