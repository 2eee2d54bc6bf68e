"""Workloads of Batsim: JSON with jobs and profiles, of which the delays are read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.fleet.workload.traces.rows import (
    CellError,
    Row,
    fail,
    jobs_of,
    read_json,
    shown,
    workload_of,
)

SOURCE = "Batsim workload"


def read_batsim(path: Path) -> Workload:
    """Read a workload whose profiles are delays; raises `InputError`. Jobs are counted from 1."""
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("jobs"), list):
        fail(path, "has no list 'jobs'")
    profiles = data.get("profiles")
    delays = {
        name: profile["delay"]
        for name, profile in (profiles.items() if isinstance(profiles, dict) else ())
        if isinstance(profile, dict) and profile.get("type") == "delay" and "delay" in profile
    }

    def rows() -> Iterator[Row]:
        for number, job in enumerate(data["jobs"], 1):
            cells = job if isinstance(job, dict) else {}
            yield Row(number, {key: shown(value) for key, value in cells.items()})

    def make(row: Row) -> Job | None:
        if row.text("profile") not in delays:
            raise CellError("profile", row.text("profile"), "expected the name of a delay profile")
        run = Row(row.line, {"delay": shown(delays[row.text("profile")])}).number("delay")
        return Job(row.text("id"), row.number("subtime"), row.count("res"), run,
                   walltime_s=row.number("walltime", math.inf) or math.inf)  # fmt: skip

    jobs, left_out = jobs_of(path, rows(), make)
    return workload_of(path, jobs, SOURCE, left_out)
