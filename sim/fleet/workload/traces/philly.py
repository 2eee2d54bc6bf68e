"""Microsoft's Philly trace (Jeon et al., ATC 2019): its JSON log, and the CSV that Sia's artefact made.

Users wait in virtual clusters, which are tenants here. The JSON holds attempts; their times add up to
the work of one. The CSV has neither waits nor final states.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.fleet.workload.traces.rows import (
    CellError,
    Row,
    fail,
    jobs_of,
    read_csv,
    read_json,
    shown,
    workload_of,
)

SOURCE = "Philly, Microsoft 2017 (ATC 2019; CC BY 4.0)"
COLUMNS = ("timestamp", "duration", "num_gpus", "cluster")


def read_philly(path: Path) -> Workload:
    """Read `cluster_job_log` (JSON) or a CSV of `COLUMNS`; raises `InputError`."""
    if path.name.startswith("cluster_job_log"):
        jobs, left_out = jobs_of(path, _entries(path), _from_entry)
        return workload_of(path, jobs, SOURCE, left_out)

    def make(row: Row) -> Job | None:
        devices = row.count("num_gpus")
        if not devices:
            return None
        return Job(f"{row.line - 1}", row.clock("timestamp"), devices, row.number("duration"),
                   tenant=row.text("cluster"))  # fmt: skip

    return read_csv(path, COLUMNS, make, SOURCE)


def _entries(path: Path) -> Iterator[Row]:
    """Yield the entries of the JSON log as rows, numbered from 1: JSON has no lines to name."""
    entries = read_json(path)
    if not isinstance(entries, list):
        fail(path, "holds no list of jobs")
    for number, entry in enumerate(entries, 1):
        yield Row(number, {}, data=entry)


def _from_entry(row: Row) -> Job | None:
    entry = row.data
    try:
        times = Row(row.line, {"submitted_time": shown(entry["submitted_time"])})
        runs = [run for attempt in entry["attempts"] if (run := _run_s(attempt))]
        held = [sum(len(part["gpus"]) for part in a["detail"]) for a in entry["attempts"]]
        name, tenant = shown(entry["jobid"]), shown(entry.get("vc") or "")
    except (KeyError, TypeError, AttributeError):
        expected = (
            "is no job of the log: expected jobid, submitted_time and attempts with their detail"
        )
        raise CellError("", shown(entry), expected) from None
    if not runs or not max(held):
        return None
    return Job(name, times.clock("submitted_time"), max(held), math.fsum(runs), tenant=tenant)


def _run_s(attempt: dict[str, Any]) -> float:
    """Return how long an attempt ran; 0 where its start or its end is not recorded."""
    times = {key: shown(attempt.get(key)) for key in ("start_time", "end_time")}
    if "None" in times.values() or "" in times.values():
        return 0.0
    row = Row(0, times)
    return max(row.clock("end_time") - row.clock("start_time"), 0.0)
