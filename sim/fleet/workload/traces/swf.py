"""The Standard Workload Format of the Parallel Workloads Archive (Chapin et al., JSSPP 1999).

18 fields a line with blanks between, -1 (here: anything negative) for unknown, comments after a
semicolon (in whatever encoding); further fields, which some logs add, are ignored. A job holds the
processors that it was given, or else those that it asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.fleet.workload.traces.rows import Row, jobs_of, open_text, workload_of

SOURCE = "Standard Workload Format"
FIELDS = ("job", "submit", "wait", "run", "given", "cpu_time", "memory", "asked", "limit",
          "asked_memory", "status", "user", "group", "program", "queue", "partition", "before",
          "think")  # fmt: skip


def read_swf(path: Path) -> Workload:
    """Read a log; raises `InputError` naming the line. Users are tenants; limits are kept."""
    jobs, left_out = jobs_of(path, _rows(path), _job)
    return workload_of(path, jobs, SOURCE, left_out)


def _rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(open_text(path, "replace").split("\n"), 1):
        if line.strip() and not line.lstrip().startswith(";"):
            fields = line.split()
            fault = "" if len(fields) >= len(FIELDS) else (
                f"has {len(fields)} fields; expected {len(FIELDS)}")  # fmt: skip
            yield Row(number, dict(zip(FIELDS, fields, strict=False)), fault)


def _job(row: Row) -> Job | None:
    known = {
        name: row.number(name, least=-math.inf)
        for name in ("submit", "run", "given", "asked", "limit")
    }
    devices = int(known["given"] if known["given"] > 0 else known["asked"])
    if devices <= 0 or known["run"] <= 0 or known["submit"] < 0:
        return None
    user = row.text("user")
    return Job(row.text("job"), known["submit"], devices, known["run"],
               tenant=f"user-{user}" if user != "-1" else "",
               walltime_s=known["limit"] if known["limit"] > 0 else math.inf)  # fmt: skip
