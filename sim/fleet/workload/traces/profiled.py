"""Traces that name a model instead of a run time: Gavel (OSDI 2020), Sia (SOSP 2023).

Gavel's jobs are steps; its throughput table (steps per second by job type, devices and accelerator)
gives their run time on a reference type, and a `Speed` for the others. Sia's jobs name an application;
its measured profiles do not travel with the workloads, so an application's work is taken from the class
that Pollux's paper (OSDI 2021, table 1) puts it in: small 0-1, medium 1-10, large 10-100 and
extra large 100-1,000 device-hours, the geometric middle of each (small: 0.1 to 1).
"""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ersatz.sim.fleet.workload.jobs import Job, Speed, Workload
from ersatz.sim.fleet.workload.traces.rows import (
    CellError,
    Row,
    csv_rows,
    fail,
    jobs_of,
    open_text,
    read_json,
    shown,
    workload_of,
)

GAVEL_SOURCE = "Gavel, Stanford 2020 (OSDI 2020; MIT)"
SIA_SOURCE = "Sia, CMU 2023 (SOSP 2023); work assumed from the application's class"
TABLE = "simulation_throughputs.json"
_MIDDLE_H = {"small": 0.316, "medium": 3.16, "large": 31.6, "extra large": 316.0}
SIA_CLASSES = {
    "cifar10": "small", "ncf": "small", "deepspeech2": "medium", "bert": "medium",
    "yolov3": "large", "imagenet": "extra large", "gpt_pipe": "extra large",
}  # fmt: skip
# Columns by number of fields: a physical-cluster trace has a folder, a mode and a goal more.
MOST_STEPS = 1e9  # in a second
_GAVEL = {
    7: ("type", "command", "flag", "data", "steps", "arrival", "scale"),
    9: ("type", "command", "folder", "flag", "data", "steps", "scale", "mode", "arrival"),
    10: ("type", "command", "folder", "flag", "data", "steps", "scale", "mode", "goal", "arrival"),
}


@dataclass(frozen=True, slots=True)
class Throughputs:
    """Gavel's table: steps per second of a job alone, by accelerator, job type and devices."""

    rates: Mapping[str, Mapping[tuple[str, int], float]]

    def rate(self, kind: str, model: str, devices: int, *, spread: bool = False) -> float:
        """Return steps per second; 0 where nothing was measured. `spread`: over several nodes."""
        table = self.rates.get(f"{kind}_unconsolidated" if spread else kind, {})
        return table.get((model, devices), 0.0)


def read_throughputs(path: Path) -> Throughputs:
    """Read Gavel's throughput table; raises `InputError`."""
    data = read_json(path)
    if not isinstance(data, dict) or not all(isinstance(jobs, dict) for jobs in data.values()):
        fail(path, "is no throughput table: expected rates of jobs by accelerator")
    rates = {}
    for kind, jobs in data.items():
        rates[kind] = {
            _job_type(path, key): _steps_per_s(path, key, row) for key, row in jobs.items()
        }
    return Throughputs(rates)


def _job_type(path: Path, key: str) -> tuple[str, int]:
    """Return job type and devices, as a key like "('ResNet-18', 2)" says."""
    try:
        found = ast.literal_eval(key)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        found = None
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], str)
            and isinstance(found[1], int)):  # fmt: skip
        fail(path, f"is no throughput table: {shown(key)!r} - expected a job type and its devices")
    return found


def _steps_per_s(path: Path, key: str, row: Any) -> float:
    """Return the rate of a job that runs alone."""
    rate = row.get("null") if isinstance(row, dict) else None
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= MOST_STEPS:
        fail(
            path,
            f"is no throughput table: {shown(key)}: expected a rate of it alone ('null'), from 0 on",
        )
    return float(rate)


def find_throughputs(path: Path) -> Path:
    """Return the table in a trace's folder or above it; raises `InputError`."""
    for folder in path.resolve().parents[:3]:
        for name in (TABLE, f"{TABLE}.gz"):
            if os.path.exists(folder / name):
                return folder / name
    fail(path, f"needs {TABLE} in its folder or above: its jobs are steps, not seconds")


def read_gavel(path: Path, reference: str = "v100") -> Workload:
    """Read a `.trace` file; run times are those on `reference`. Raises `InputError`."""
    table = read_throughputs(find_throughputs(path))
    lines = open_text(path).splitlines()
    columns = _GAVEL.get(len(lines[0].split("\t")) if lines else 0)
    if columns is None:
        fail(path, "has no lines of 7, 9 or 10 fields with tabs between", 1)

    def make(row: Row) -> Job | str:
        devices, model = row.count("scale"), row.text("type")
        rate = table.rate(reference, model, devices)
        if not rate:
            return f"its throughput table has no rate of them on {reference}"
        return Job(f"{row.line}", row.number("arrival"), devices, row.count("steps") / rate,
                   model=model)  # fmt: skip

    rows = csv_rows(path, (), delimiter="\t", header=columns)
    jobs, left_out = jobs_of(path, rows, make)
    return workload_of(path, jobs, f"{GAVEL_SOURCE}, run times of {reference}", left_out)


def gavel_speed(table: Throughputs, reference: str = "v100") -> Speed:
    """Return a `Speed` by the table, relative to the reference; 0 where nothing was measured."""

    def speed(job: Job, kind: str, devices: int, nodes: int, leaves: int) -> float:
        base = table.rate(reference, job.model, job.devices)
        spread = nodes > 1 and devices > 1
        return table.rate(kind, job.model, devices, spread=spread) / base if base else 0.0

    return speed


def read_sia(path: Path) -> Workload:
    """Read a workload of Sia or Pollux; raises `InputError`."""

    def make(row: Row) -> Job:
        application, devices = row.text("application"), row.count("num_replicas", 1)
        if application not in SIA_CLASSES:
            raise CellError("application", application, f"expected one of {', '.join(SIA_CLASSES)}")
        work_s = _MIDDLE_H[SIA_CLASSES[application]] * 3600.0
        return Job(row.text("name"), row.number("time"), devices, work_s / max(devices, 1),
                   model=application)  # fmt: skip

    needed = ("name", "time", "application", "num_replicas", "batch_size")
    jobs, left_out = jobs_of(path, csv_rows(path, needed), make)
    return workload_of(path, jobs, SIA_SOURCE, left_out)
