"""Run a fleet's workload through one of the doors; all give the same kind of log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from ersatz.sim.errors import InputError, Problem
from ersatz.sim.fleet.cluster import Cluster
from ersatz.sim.fleet.doors.batsim import BatsimScheduler
from ersatz.sim.fleet.doors.peer import Peer
from ersatz.sim.fleet.doors.slurm.given import read_conf
from ersatz.sim.fleet.doors.slurm.replay import replay_on_slurm
from ersatz.sim.fleet.engine.fleet import FleetSpec, run_fleet
from ersatz.sim.fleet.log import Claims, Log
from ersatz.sim.fleet.workload.jobs import Job, Speed, Workload, trace_speed


@dataclass(frozen=True, slots=True)
class Door:
    """A way to a scheduler outside. `scheduler` is a command, `speed` that of Slurm's clock."""

    kind: Literal["batsim", "slurm"]
    scheduler: str = ""
    endpoint: str = ""
    timeout_s: float = 30.0  # of real time, for an answer
    speed: float = 200.0
    forward: bool = False  # tell it of slow nodes as well
    preempt: bool = False  # Slurm may requeue jobs of lower priority
    claims: Claims | None = None
    conf: str = ""  # a slurm.conf of the user's


def run_at_door(
    spec: FleetSpec, door: Door, advance: Callable[[str], None] = lambda _: None
) -> Log:
    """Run a workload under a scheduler outside.

    Raises `InputError` for what the door cannot do, and `InfeasibleError` (as `RunEndedError`, with the
    log so far) when the scheduler fails. `advance` is told of each job that Slurm has done with.
    """
    if door.kind == "batsim":
        try:
            peer = Peer(door.scheduler, door.endpoint, timeout_s=door.timeout_s)
        except ValueError as error:
            option = "--endpoint" if door.endpoint and not door.scheduler else "--scheduler"
            raise InputError([Problem("--door batsim", 0, 0, option, "", str(error))]) from None
        scheduler = BatsimScheduler(peer, claims=door.claims, jobs=len(spec.workload.jobs),
                                    forward=door.forward)  # fmt: skip
        return run_fleet(replace(spec, about=(*spec.about, ("door", "batsim"))), scheduler)
    if not 1.0 <= door.speed <= 1000.0:
        expected = "expected 1 (real time) to 1000; 60 to 200 keep its scheduler in time"
        raise InputError([Problem("--door slurm", 0, 0, "--speed", f"{door.speed:g}", expected)])
    given = read_conf(door.conf, spec.cluster) if door.conf else None
    workload = at_rate(spec.cluster, spec.workload, spec.speed)
    return replay_on_slurm(
        spec.cluster, workload, speed=door.speed, rules=spec.rules, preempt=door.preempt,
        outages=spec.outages, seed=spec.seed, advance=advance, about=dict(spec.about), given=given,
    )  # fmt: skip


def at_rate(cluster: Cluster, workload: Workload, speed: Speed) -> Workload:
    """Return a workload whose jobs last as long as they do at a speed; raises `InputError`.

    Slurm's jobs sleep: how long must be known before it chooses devices. So a job whose speed differs
    between the types that it may use cannot be carried over.
    """
    if speed is trace_speed:
        return workload
    jobs, problems = [], []
    for job in workload.jobs:
        rates = {_rate(cluster, job, kind, speed) for kind in job.types or cluster.types}
        rate = next(iter(rates))
        if len(rates) > 1 or rate <= 0:
            problems.append(job.id)
        else:
            jobs.append(replace(job, duration_s=job.duration_s / rate,
                                walltime_s=job.walltime_s / rate))  # fmt: skip
    if problems:
        text = (f"the speed of {len(problems)} jobs depends on the accelerator type (job"
                f" {problems[0]}); name one type each")  # fmt: skip
        raise InputError([Problem(workload.name, 0, 0, "", "", text)])
    return Workload(tuple(jobs), workload.name, workload.source)


def _rate(cluster: Cluster, job: Job, kind: str, speed: Speed) -> float:
    size = max((n.devices for n in cluster.nodes if n.type == kind), default=1) or 1
    return speed(job, kind, job.devices, max(-(-job.devices // size), 1), 1)
