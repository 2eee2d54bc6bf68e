"""What Slurm is asked for a job: the arguments of `sbatch`, and its seconds where they depend on the place.

Facts about the options: Slurm 22.05's manual page sbatch(1).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ersatz.sim.fleet.cluster import Cluster
from ersatz.sim.fleet.doors.slurm.config import Site, limit_minutes, partition_of, word
from ersatz.sim.fleet.workload.jobs import Job


def sbatch_arguments(
    site: Site, cluster: Cluster, job: Job, rates: Mapping[tuple[str, int], float] | None = None
) -> list[str]:
    """Return the arguments of `sbatch` for a job, its script included.

    Whole nodes where the gang fills them; else the fewest nodes that hold it. Where its rate differs
    between the places that it may get, the script is given its table of seconds, in `seconds_file`.
    """
    kinds = tuple(word(kind) for kind in job.types or cluster.types)
    sizes = sizes_asked_for(cluster, job)
    size, least = max(sizes), min(sizes)
    name = kinds[0] + ":" if len(kinds) == 1 else ""
    if size != least and job.devices > least:
        nodes = f"{math.ceil(job.devices / size)}-{math.ceil(job.devices / least)}"
        request = [f"--nodes={nodes}", f"--gpus={name}{job.devices}"]
    elif job.devices <= size:
        request = ["--nodes=1", f"--gres=gpu:{name}{job.devices}"]
    elif job.devices % size == 0:
        request = [f"--nodes={job.devices // size}", f"--gres=gpu:{name}{size}"]
    else:
        request = [f"--nodes={math.ceil(job.devices / size)}", f"--gpus={name}{job.devices}"]
    if len(kinds) > 1:
        request.append(f"--constraint=[{'|'.join(kinds)}]" if not job.mixed else
                       f"--constraint={'|'.join(kinds)}")  # fmt: skip
    elif job.types and len(cluster.types) > 1:
        request.append(f"--constraint={kinds[0]}")
    partition = site.given.partition_of(job) if site.given else partition_of(job.priority)
    if job.max_leaves:
        request.append(f"--switches={job.max_leaves}@30-00:00:00")  # wait for it, however long
    if site.accounts:
        request += site.accounts.arguments(job)
    found = set((rates or {}).values()) or {1.0}
    length = (
        f"{job.duration_s / min(found):.3f}" if len(found) == 1 else str(seconds_file(site, job))
    )
    return [
        "--parsable", "--output=/dev/null", "--requeue", f"--job-name={word(job.id)}",
        f"--partition={partition}", f"--time={limit_minutes(job, min(found))}", *request,
        str(site.folder / "job.sh"), length, str(site.folder / "taken"),
    ]  # fmt: skip


def sizes_asked_for(cluster: Cluster, job: Job) -> list[int]:
    """Return the sizes of nodes that a job is asked for on: all of its types' but in one case.

    Slurm 22.05 looks for a range of nodes on one leaf only where `--switches` allows several. So a job that
    may span some is asked for on nodes of one size, that of most of its devices, if it fills them.
    """
    kinds = job.types or cluster.types
    room = Counter[int]()
    for node in cluster.nodes:
        if node.type in kinds and node.devices:
            room[node.devices] += node.devices
    usual = max(room, key=lambda size: room[size], default=1)
    if job.max_leaves > 1 and job.devices > min(room, default=1) and job.devices % usual == 0:
        return [usual]
    return sorted(room) or [1]


def seconds_file(site: Site, job: Job) -> Path:
    """Return where a job finds its seconds by type and leaves."""
    return site.folder / "seconds" / word(job.id)


def seconds_text(job: Job, rates: Mapping[tuple[str, int], float]) -> str:
    """Return a job's table: type, leaves, seconds."""
    return "".join(f"{word(kind)} {leaves} {job.duration_s / rate:.3f}\n"
                   for (kind, leaves), rate in rates.items())  # fmt: skip
