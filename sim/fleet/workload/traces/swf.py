"""The Standard Workload Format of the Parallel Workloads Archive (Chapin et al., JSSPP 1999).

18 fields a line with blanks between, -1 (here: anything negative) for unknown, comments after a
semicolon (in whatever encoding); further fields, which some logs add, are ignored. A job holds the
processors that it was given, or else those that it asked for. A preceding job (field 17) must have
finished first, if the log has it and it ran; the think time after it (field 18) is left out. Jobs that
failed or were cancelled count for as long as they ran; what ran beyond its limit is ended at it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.fleet.workload.traces.rows import Row, jobs_of, open_text, workload_of

SOURCE = "Standard Workload Format"
FIELDS = ("job", "submit", "wait", "run", "given", "cpu_time", "memory", "asked", "limit",
          "asked_memory", "status", "user", "group", "program", "queue", "partition", "before",
          "think")  # fmt: skip
ENDS = {"0": "failed", "5": "cancelled"}


def read_swf(path: Path) -> Workload:
    """Read a log; raises `InputError` naming line and column. Users are tenants; limits are kept."""
    ends: Counter[str] = Counter()
    jobs, left_out = jobs_of(path, _rows(path), partial(_job, ends=ends))
    known = {job.id: job.submit_s for job in jobs}
    linked = [job if all(n != job.id and known.get(n, math.inf) <= job.submit_s for n in job.after)
              else replace(job, after=()) for job in jobs]  # fmt: skip
    said = {
        "ran beyond their limits and are ended at them":
            sum(job.duration_s > job.walltime_s for job in jobs),
        "failed or were cancelled and count for as long as they ran":
            ends["failed"] + ends["cancelled"],
        "name a preceding job that did not run before: they wait for none":
            sum(old.after != new.after for old, new in zip(jobs, linked, strict=True)),
        "have a think time after the preceding job, which is left out": ends["think"],
    }  # fmt: skip
    words = "".join(f"; {count:,} jobs {what}" for what, count in said.items() if count)
    return workload_of(path, linked, SOURCE + words, left_out)


def _rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(open_text(path, "replace").split("\n"), 1):
        if line.strip() and not line.lstrip().startswith(";"):
            fields = line.split()
            fault = "" if len(fields) >= len(FIELDS) else (
                f"has {len(fields)} fields; expected {len(FIELDS)}")  # fmt: skip
            yield Row(number, dict(zip(FIELDS, fields, strict=False)), fault, None, line)


def _job(row: Row, ends: Counter[str]) -> Job | str | None:
    known = {
        name: row.number(name, least=-math.inf)
        for name in ("submit", "run", "given", "asked", "limit", "before")
    }
    devices = int(known["given"] if known["given"] > 0 else known["asked"])
    if known["submit"] < 0:
        return "no time of submission"
    if devices <= 0 or known["run"] <= 0:
        return None
    user, before = row.text("user"), row.text("before")
    ends[ENDS.get(row.text("status"), "")] += 1
    ends["think"] += known["before"] > 0 and row.number("think", least=-math.inf) > 0
    return Job(row.text("job"), known["submit"], devices, known["run"],
               tenant=f"user-{user}" if user != "-1" else "",
               walltime_s=known["limit"] if known["limit"] > 0 else math.inf,
               after=(before,) if known["before"] > 0 else ())  # fmt: skip
