"""Tiresias' traces (NSDI 2019): a CSV of jobs, and a CSV that describes its cluster."""

from __future__ import annotations

from pathlib import Path

from ersatz.sim.fleet.cluster import Cluster, FleetNode
from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.fleet.workload.traces.rows import CellError, Row, csv_rows, fail, read_csv, sound

SOURCE = "Tiresias, SymbioticLab 2019 (NSDI 2019; Apache-2.0)"
NEEDED = ("job_id", "num_gpu", "submit_time", "duration")
MOST_NODES = 100_000
CLUSTER = ("num_switch", "num_node_p_switch", "num_gpu_p_node", "num_cpu_p_node", "mem_p_node")


def read_tiresias(path: Path) -> Workload:
    """Read a `*_job.csv`; raises `InputError`."""

    def make(row: Row) -> Job | None:
        devices = row.count("num_gpu")
        if not devices:
            return None
        return Job(row.text("job_id"), row.number("submit_time"), devices, row.number("duration"),
                   model=row.text("model_name"))  # fmt: skip

    return read_csv(path, NEEDED, make, SOURCE)


def read_tiresias_cluster(path: Path, kind: str = "gpu") -> Cluster:
    """Read a cluster file: so many switches of so many nodes; memory in GB. Raises `InputError`."""
    rows = list(csv_rows(path, CLUSTER))
    if len(rows) != 1:
        fail(path, f"has {len(rows)} rows; expected one")
    try:
        switches, nodes, devices, cpus, memory = (sound(rows[0]).count(key) for key in CLUSTER)
    except CellError as error:
        fail(path, f"{error.key}: {error.value!r} - {error.expected}", rows[0].line)
    if switches * nodes > MOST_NODES:
        fail(path, f"has {switches * nodes} nodes; expected at most {MOST_NODES}", rows[0].line)
    return Cluster(
        tuple(
            FleetNode(f"{kind}-{leaf * nodes + i}", kind, devices, leaf, 0, 1000 * cpus,
                      1024 * memory)
            for leaf in range(switches) for i in range(nodes)
        ),
        path.name.split(".")[0],
    )  # fmt: skip
