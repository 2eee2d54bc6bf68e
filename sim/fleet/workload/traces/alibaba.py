"""Alibaba's traces: PAI's tables (2020), openb's pods (2023), DLRM instances (2025).

PAI (Weng et al., NSDI 2022): a job is its tasks, each of some instances; an instance that asks for a
part of a device in a gang gets a whole one here (parts are for single instances). openb (FGD, ATC 2023):
a pod may ask for a part of a device and name models; pods without times run for ever. DLRM: an instance of
a recommendation service on nodes with accelerators (HN) or without (CN); what was there before the trace
began, or stays after it, has no such time.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.fleet.workload.traces.rows import (
    FOREVER_S,
    CellError,
    Row,
    csv_rows,
    fail,
    jobs_of,
    read_csv,
    workload_of,
)

PAI_SOURCE = "PAI, Alibaba 2020 (NSDI 2022; CC BY 4.0)"
DLRM_SOURCE = "disaggregated DLRM, Alibaba 2025 (NSDI 2025)"
OPENB_SOURCE = "openb, Alibaba 2023 (ATC 2023)"
DLRM_COLUMNS = ("instance_sn", "app_name", "gpu_request", "creation_time", "scheduled_time",
                "deletion_time")  # fmt: skip
JOB_COLUMNS = ("job_name", "inst_id", "user", "status", "start_time", "end_time")
TASK_COLUMNS = ("job_name", "task_name", "inst_num", "status", "start_time", "end_time", "plan_cpu",
                "plan_mem", "plan_gpu", "gpu_type")  # fmt: skip


def read_pai(path: Path) -> Workload:
    """Read pai_job_table.csv with pai_task_table.csv beside it; raises `InputError`.

    The published tables have no header; one is accepted. `path` is the job table or its folder.
    """
    folder = path if os.path.isdir(path) else path.parent
    job_table = _table(folder, "pai_job_table")
    task_table = _table(folder, "pai_task_table")
    tasks: dict[str, list[Row]] = defaultdict(list)
    for row in _headless(task_table, TASK_COLUMNS):
        if row.fault:
            fail(task_table, row.fault, row.line)
        tasks[row.text("job_name")].append(row)

    def make(row: Row) -> Job | None:
        try:
            return _pai_job(row, tasks.get(row.text("job_name"), []))
        except CellError as error:
            where = "" if error.key in row.cells else f" (of its tasks in {task_table.name})"
            raise CellError(error.key, error.value, error.expected + where) from None

    jobs, left_out = jobs_of(job_table, _headless(job_table, JOB_COLUMNS), make)
    return workload_of(job_table, jobs, PAI_SOURCE, left_out)


def _table(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.csv", folder / f"{name}.csv.gz"):
        if os.path.exists(path):
            return path
    fail(folder / f"{name}.csv", "is missing; both tables are needed")


def _headless(path: Path, columns: tuple[str, ...]) -> Iterator[Row]:
    for row in csv_rows(path, columns, header=columns):
        if row.cells.get(columns[0]) != columns[0]:
            yield row


def _pai_job(row: Row, tasks: list[Row]) -> Job | None:
    """Return a job of its tasks that use devices and have ended."""
    held = [t for t in tasks if t.number("plan_gpu", 0.0) and t.text("start_time")
            and t.text("end_time")]  # fmt: skip
    if not held:
        return None
    parts = [(t.number("plan_gpu") / 100.0, t.count("inst_num", 1)) for t in held]
    devices = sum(math.ceil(share) * count for share, count in parts)
    milli = round(1000 * parts[0][0]) if devices == 1 else 1000
    start = min(t.number("start_time") for t in held)
    end = max(t.number("end_time") for t in held)
    kinds = {t.text("gpu_type") for t in held} - {"", "MISC"}
    single = devices == 1 and len(held) == 1
    return Job(
        row.text("job_name"), row.number("start_time", start), devices, max(end - start, 0.0),
        tenant=row.text("user"), types=tuple(sorted(kinds)) if len(kinds) == 1 else (),
        milli=min(max(milli, 1), 1000),
        cpu_milli=round(10 * held[0].number("plan_cpu", 0.0)) if single else 0,
        memory_mib=round(1024 * held[0].number("plan_mem", 0.0)) if single else 0,
    )  # fmt: skip


def read_openb(path: Path) -> Workload:
    """Read a pod list; raises `InputError`. Without times a pod follows the last by a second."""

    def make(row: Row) -> Job:
        devices = row.count("num_gpu")
        milli = row.count("gpu_milli", 1000)
        submit = row.number("creation_time", row.line - 2.0)
        end = row.number("deletion_time", submit + FOREVER_S)
        start = row.number("scheduled_time", submit)
        return Job(
            row.text("name"), submit, devices, max(end - start, 0.0), tenant=row.text("qos"),
            types=tuple(kind for kind in row.text("gpu_spec").split("|") if kind),
            milli=milli if devices == 1 and milli else 1000,
            cpu_milli=row.count("cpu_milli", 0), memory_mib=row.count("memory_mib", 0),
            max_nodes=1,
        )  # fmt: skip

    return read_csv(path, ("name", "num_gpu", "gpu_milli"), make, OPENB_SOURCE)


def read_dlrm(path: Path) -> Workload:
    """Read instances of services that use devices; raises `InputError`. Applications are tenants."""

    def make(row: Row) -> Job | str:
        devices = row.count("gpu_request", 0)
        if not devices:
            return "no accelerator (nodes for processors alone)"
        submit = row.number("creation_time", 0.0)
        start = row.number("scheduled_time", submit)
        end = row.number("deletion_time", start + FOREVER_S)
        return Job(
            row.text("instance_sn"), submit, devices, max(end - start, 0.0), tenant=row.text("app_name"),
            cpu_milli=round(1000 * row.number("cpu_request", 0.0)),
            memory_mib=round(1024 * row.number("memory_request", 0.0)), max_nodes=1,
        )  # fmt: skip

    return read_csv(path, DLRM_COLUMNS, make, DLRM_SOURCE)
