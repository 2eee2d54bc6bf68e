"""Six placements on openb's pods, as FGD's paper compares them (ATC 2023): what is allocated at the end.

python tests/benchmarks/openb.py FOLDER [PLACEMENT,... [SEED,...]]     20 to 40 s for each and seed

FOLDER holds openb_pod_list_default.csv and openb_node_list_gpu_node.csv of Alibaba's cluster data (as
they are, or .gz). All pods come in random order, then more of them drawn with repetition, until 130 %
of the devices are asked for. None leaves; one that fits nowhere is dropped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import fmean

import numpy as np

from ersatz.sim.fleet.cluster import Cluster
from ersatz.sim.fleet.foreign import read_fleet
from ersatz.sim.fleet.free import Free
from ersatz.sim.fleet.policies.placement import nodes_of
from ersatz.sim.fleet.policies.score import (
    Score,
    ScoredPlacement,
    clustering,
    least_fragments,
    least_left,
    least_product,
    mix_of,
    nowhere_better,
    packing,
)
from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.fleet.workload.traces.alibaba import read_openb

REQUESTED = 1.3  # of the devices, when it ends
SCORES: dict[str, Score] = {
    "random": nowhere_better, "dot-product": least_product, "clustering": clustering,
    "packing": packing, "best-fit": least_left,
}  # fmt: skip
PLACEMENTS = (*SCORES, "fgd")  # fgd's score depends on the mix of pods


def asked(job: Job) -> int:
    """Thousandths of devices that a pod asks for."""
    return job.devices * job.milli


def arrivals(pods: Workload, cluster: Cluster, rng: np.random.Generator) -> list[Job]:
    """All pods in random order, then drawn ones."""
    jobs = pods.jobs
    order = [jobs[int(i)] for i in rng.permutation(len(jobs))]
    total = sum(map(asked, order))
    while total < REQUESTED * 1000 * cluster.devices:
        order.append(jobs[int(rng.integers(len(jobs)))])
        total += asked(order[-1])
    return order


def allocated(name: str, pods: Workload, cluster: Cluster, seed: int) -> float:
    """Per cent of the devices that are allocated when all have come."""
    rng = np.random.default_rng(seed)
    order = arrivals(pods, cluster, rng)
    score = SCORES[name] if name in SCORES else least_fragments(mix_of(pods))
    place = ScoredPlacement(score, rng if name == "random" else None)
    free, used = Free(cluster), 0
    for job in order:
        within = nodes_of(free, job.types or cluster.types)
        if found := place.one_node(free, job, "", job.devices, within):
            free.take(job, found)
            used += asked(job)
    return 100 * used / (1000 * cluster.devices)


def main(folder: Path, names: list[str], seeds: list[int]) -> None:
    """Print each seed's figure and their mean."""

    def file(name: str) -> Path:
        return next(
            (p for p in (folder / name, folder / f"{name}.gz") if p.exists()), folder / name
        )

    pods = read_openb(file("openb_pod_list_default.csv"))
    cluster = read_fleet(file("openb_node_list_gpu_node.csv"))
    for name in names:
        found = []
        for seed in seeds:
            found.append(allocated(name, pods, cluster, seed))
            print(f"{name}, seed {seed}: {found[-1]:.2f} % allocated", flush=True)
        print(f"{name}: mean {fmean(found):.2f}, {min(found):.2f} to {max(found):.2f}", flush=True)


if __name__ == "__main__":
    chosen = sys.argv[2].split(",") if len(sys.argv) > 2 else list(PLACEMENTS)
    numbers = sys.argv[3] if len(sys.argv) > 3 else "1,2,3,4,5,6,7,8,9,10"
    main(Path(sys.argv[1]), chosen, [int(number) for number in numbers.split(",")])
