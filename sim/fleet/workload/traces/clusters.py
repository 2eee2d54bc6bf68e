"""Job lists of Slurm-like clusters: SenseTime's Helios (SC 2021), Shanghai AI Lab's Acme (NSDI 2024).

Both list every job with submission, run time and final state. Jobs without devices are left out, as are
those that never ran. Acme's kind of work (pretraining, evaluation, ...) is kept as the job's model.
"""

from __future__ import annotations

from pathlib import Path

from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.fleet.workload.traces.rows import Row, read_csv

HELIOS_SOURCE = "Helios, SenseTime 2020 (SC 2021)"
ACME_SOURCE = "Acme, Shanghai AI Laboratory 2023 (NSDI 2024)"
COLUMNS = ("job_id", "user", "gpu_num", "node_num", "state", "submit_time", "duration")


def read_helios(path: Path) -> Workload:
    """Read a `cluster_log.csv` of Helios; virtual clusters are tenants. Raises `InputError`."""
    return read_csv(path, (*COLUMNS, "vc"), lambda row: _job(row, row.text("vc")), HELIOS_SOURCE)


def read_acme(path: Path) -> Workload:
    """Read `trace_seren.csv` or `trace_kalos.csv` of Acme; users are tenants. Raises `InputError`."""
    return read_csv(path, (*COLUMNS, "type"), lambda row: _job(row, row.text("user")), ACME_SOURCE)


def _job(row: Row, tenant: str) -> Job | None:
    devices, duration_s = row.count("gpu_num", 0), row.number("duration", 0.0)
    if not devices or not duration_s:
        return None
    return Job(row.text("job_id"), row.clock("submit_time"), devices, duration_s, tenant=tenant,
               model=row.text("type"))  # fmt: skip
