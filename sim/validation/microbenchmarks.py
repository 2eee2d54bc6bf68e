"""Kernel and collective times against published benchmarks (data/measured/kernels, collectives.csv).

A benchmark runs cool and alone: its sustained ceiling lies above that of training, so the ceiling of
each table of products is fitted here, with the judged product left out; what is tested is the shape
of the kernel model. Collectives are predicted from the catalogue alone.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from device_models.catalog import load_device, load_node, load_scale_out
from device_models.collectives import bus_bandwidth, collective_time
from device_models.device import Device, Node
from device_models.group import Group
from device_models.kernels import calibrated_time, matmul
from sim.validation.parameters import DATA

LARGE = 64 * 2**20  # bytes from which bandwidth, not latency, decides a collective
NODES = {
    "H200": "h200-8",
    "B200": "b200-8",
    "A100": "a100-80-8",
    "MI300X": "mi300x-8",
    "H100": "h100-8",
}
CEILINGS = np.linspace(0.4, 0.98, 117)
GB = 1e9


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (DATA / "measured" / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def judge_kernels() -> dict[str, list[float]]:
    """Return relative errors of time of matrix products, each left out of its table's ceiling."""
    tables: dict[str, list[tuple[float, np.ndarray]]] = defaultdict(list)
    for row in _rows("kernels.csv"):
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


def judge_collectives() -> dict[str, list[float]]:
    """Return relative errors of bandwidth of all-reduces and expert exchanges, by group."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in _rows("collectives.csv"):
        kind = re.match(r"(all_?reduce|all_gather|reduce_scatter)", row["op"], re.I)
        node = _node(row["device"])
        if not kind or node is None or not row["busbw_gb_s"]:
            continue
        nbytes = float(row["size_bytes"] or 4 * 2**30)
        count = int(row["n_devices"])
        if "EFA" in row["device"] and "H100" in row["device"]:
            count *= 8  # the figure counts nodes
        group = Group(count, min(count, 8), 1)
        name = kind[1].lower().replace("allreduce", "all_reduce")
        ring = "ring" if re.search(r"Ring|NVLS off", row["op"]) else None
        seconds = collective_time(name, nbytes, group, node, algorithm=ring).seconds
        predicted = bus_bandwidth(name, nbytes, count, seconds) / GB
        size = "64 MiB or more" if nbytes >= LARGE else "smaller"
        where = "one node" if count <= 8 else "several nodes"
        found[f"collectives, {where}, {size}"].append(predicted / float(row["busbw_gb_s"]) - 1)
    return dict(sorted(found.items()))


def _node(device: str) -> Node | None:
    for key, name in NODES.items():
        if key in device and "FlagPerf" not in device:
            node = load_node(name)
            fast = "EFA" in device or "H100" in device
            return replace(node, scale_out=load_scale_out("ib-ndr400-rail")) if fast else node
    return None
