"""Replay 160 jobs on real Slurm, 64 emulated nodes x 8, and compare with our FIFO and EASY.

python tests/benchmarks/slurm_replay.py [SPEED]     takes about four minutes at 200
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import correlation, fmean

from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.doors.slurm.replay import replay_on_slurm
from ersatz.sim.fleet.engine.fleet import FleetSpec, run_fleet
from ersatz.sim.fleet.judge.validate import judge
from ersatz.sim.fleet.log import Log
from ersatz.sim.fleet.policies.backfill import EasyScheduler
from ersatz.sim.fleet.policies.queue import QueueScheduler
from ersatz.sim.fleet.workload.traces import read_trace

WORKLOAD = Path(__file__).resolve().parents[2] / "scenarios" / "fleet" / "crosscheck.csv"


def first_starts(log: Log) -> dict[str, float]:
    """Return when each job started first."""
    starts: dict[str, float] = {}
    for record in log.records:
        if record.event == "start":
            starts.setdefault(record.job, record.time_s)
    return starts


def mean_wait(log: Log) -> float:
    """Return the mean wait for the first start, in seconds."""
    return fmean(at - log.jobs[name].submit_s for name, at in first_starts(log).items())


def order(times: list[float]) -> list[float]:
    """Return the rank of each time."""
    ranks = {at: rank for rank, at in enumerate(sorted(times))}
    return [float(ranks[at]) for at in times]


def main(speed: float) -> None:
    """Run the three and print how they compare."""
    cluster, jobs = make_cluster(make_pool("h800", 64, nodes_per_leaf=16)), read_trace(WORKLOAD)
    load = jobs.device_s / jobs.jobs[-1].submit_s / cluster.devices
    print(
        f"{len(jobs.jobs)} jobs on {cluster.devices} devices, offered load {load:.2f}, x{speed:g}"
    )
    begin = time.monotonic()
    slurm = replay_on_slurm(cluster, jobs, speed=speed)
    print(f"slurm: {slurm.end_s:,.0f} virtual s in {time.monotonic() - begin:.0f} real s")
    names = list(first_starts(slurm))
    theirs = [first_starts(slurm)[name] for name in names]
    print(f"slurm: mean wait {mean_wait(slurm):,.0f} s")
    for scheduler in (QueueScheduler(), EasyScheduler()):
        log = run_fleet(FleetSpec(cluster, jobs), scheduler)
        ours = [first_starts(log)[name] for name in names]
        print(f"{log.about['policy']}: mean wait {mean_wait(log):,.0f} s; starts correlate with"
              f" slurm's {correlation(theirs, ours):.3f}, their order"
              f" {correlation(order(theirs), order(ours)):.3f}")  # fmt: skip
    late = max(slurm.jobs[job.id].submit_s - job.submit_s for job in jobs.jobs)
    longer = fmean(r.time_s - first_starts(slurm)[r.job] - slurm.jobs[r.job].duration_s
                   for r in slurm.records if r.event == "finish")  # fmt: skip
    print(f"submitted at most {late:.0f} s late; jobs ran {longer:.0f} s longer than their work")
    verdict = judge(slurm)
    print("properties:", "none violated" if verdict.holds else verdict.first)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 200.0)
