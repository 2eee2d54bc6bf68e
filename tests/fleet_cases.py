"""A small mixed fleet with failures, three tenants and random jobs, for several tests."""

from __future__ import annotations

import random

from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.engine.fleet import FleetSpec
from ersatz.sim.fleet.engine.outages import Failures, Outage
from ersatz.sim.fleet.log import Quota, Rules
from ersatz.sim.fleet.workload.jobs import Job, Workload

YEAR = 365 * 86400.0
MIXED = make_cluster(make_pool("h800", 4, nodes_per_leaf=2), make_pool("910b", 4, nodes_per_leaf=2))
QUOTAS = {"a": Quota(32, 48), "b": Quota(16, 48), "c": Quota(16, 32)}
BREAKING: tuple[Outage, ...] = (
    Failures("device", 300 / YEAR, 3600.0),
    Failures("node", 200 / YEAR, 3600.0, slowdown=0.5),
)


def mixed_speed(job: Job, kind: str, devices: int, nodes: int, leaves: int) -> float:
    """A 910B does half of what an H800 does, and leaves cost five per cent."""
    return {"h800": 1.0, "910b": 0.5}[kind] * (0.95 if leaves > 1 else 1.0) * devices / job.devices


def random_jobs(count: int, seed: int, gap_s: float = 400.0) -> Workload:
    """Jobs of 1 to 32 devices and some minutes to hours."""
    draw = random.Random(seed)
    time_s, jobs = 0.0, []
    for i in range(count):
        time_s += draw.expovariate(1 / gap_s)
        work = draw.lognormvariate(7.5, 1.0)
        jobs.append(Job(
            str(i), time_s, draw.choice([1, 1, 2, 4, 8, 8, 16, 24]), work, draw.choice("abc"),
            draw.choice([0, 0, 1, 2]), walltime_s=work * (1 + draw.random()), checkpoint_s=600,
            restart_s=30, max_leaves=draw.choice([0, 0, 1]) if i % 2 else 0,
            types=draw.choice([(), (), ("h800", "910b"), ("h800",)]),
            after=(str(i - 1),) if i % 10 == 9 else (),
        ))  # fmt: skip
        if jobs[-1].devices > 16 and jobs[-1].max_leaves:
            jobs[-1] = Job(str(i), time_s, 16, work, "a", walltime_s=work * 2)
    return Workload(tuple(jobs))


def mixed_case(
    seed: int = 0, count: int = 80, *, breaking: bool = True, **rules: float
) -> FleetSpec:
    """The case; `rules` are further fields of `Rules`."""
    outages = BREAKING if breaking else ()
    return FleetSpec(MIXED, random_jobs(count, seed), Rules(QUOTAS, **rules), mixed_speed,  # type: ignore[arg-type]
                     outages, seed)  # fmt: skip
