"""Our own CSV of jobs: a column per field of `Job`; fields that no job sets have no column."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

from ersatz.device_models.text.csvtext import csv_text
from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.fleet.workload.traces.rows import (
    CellError,
    Row,
    csv_rows,
    fail,
    jobs_of,
    workload_of,
)

NEEDED = ("id", "submit_s", "devices", "duration_s")
SOURCE = "jobs as CSV"
_FIELDS = {field.name: field for field in fields(Job)}


def workload_text(workload: Workload) -> str:
    """Return a workload as CSV; `read_own` gives it back, field by field."""
    columns = [name for name, field in _FIELDS.items() if name in NEEDED
               or any(getattr(job, name) != field.default for job in workload.jobs)]  # fmt: skip
    rows = ([_cell(getattr(job, name)) for name in columns] for job in workload.jobs)
    return csv_text(columns, rows)


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        return "|".join(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value == math.inf else value


def read_own(path: Path) -> Workload:
    """Read what `workload_text` writes; raises `InputError`. Blank cells are the default."""
    whole = (row for row in csv_rows(path, NEEDED) if not row.fault)
    unknown = set(next(whole, Row(0, {})).cells) - set(_FIELDS)
    if unknown:
        fail(path, f"has columns that no job has: {', '.join(sorted(unknown))}", 1)
    jobs, left_out = jobs_of(path, csv_rows(path, NEEDED), _job)
    return workload_of(path, jobs, SOURCE, left_out)


def _job(row: Row) -> Job:
    values: dict[str, Any] = {}
    for key in row.cells:
        cell = row.text(key)
        if cell or key in NEEDED:
            values[key] = _value(row, key, cell)
    return Job(**values)


def _value(row: Row, key: str, cell: str) -> Any:
    """Return a cell as its field's kind."""
    default = _FIELDS[key].default
    if key in ("id", "tenant", "model", "name"):
        return cell
    if isinstance(default, tuple):
        return tuple(part for part in cell.split("|") if part)
    if isinstance(default, bool):
        if cell not in ("yes", "no"):
            raise CellError(key, cell, "expected yes or no")
        return cell == "yes"
    if key == "priority":
        value = row.number(key, least=-math.inf)
        if value != int(value):
            raise CellError(key, cell, "expected a whole number")
        return int(value)
    if key == "devices" and row.count(key) < 1:
        raise CellError(key, cell, "expected a whole number from 1 on")
    return row.count(key) if key == "devices" or isinstance(default, int) else row.number(key)
