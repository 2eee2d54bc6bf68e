"""What of a fleet a real Slurm carries: how long jobs last where, what is told otherwise, what is refused.

An emulated job sleeps. How long depends on which devices it gets, so it is told its time for each
accelerator type and number of leaves, and looks where it is when it starts. Nothing that is told
otherwise goes unsaid: `Carried.notes` are assumptions of the answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ersatz.sim.errors import InputError, Problem
from ersatz.sim.fleet.cluster import Cluster
from ersatz.sim.fleet.doors.slurm.submit import sizes_asked_for
from ersatz.sim.fleet.engine.fleet import FleetSpec
from ersatz.sim.fleet.engine.outages import Failures, Outage
from ersatz.sim.fleet.log import Rules
from ersatz.sim.fleet.workload.jobs import Job, Speed, Workload, trace_speed

Rates = Mapping[tuple[str, int], float]  # (accelerator type, leaves that it spans) -> rate


@dataclass(frozen=True, slots=True)
class Carried:
    """A fleet's jobs and outages as Slurm is told of them."""

    workload: Workload
    rates: Mapping[str, Rates]  # of each job whose rate is not 1 everywhere
    outages: tuple[Outage, ...]
    notes: tuple[str, ...]  # what was told otherwise


def carry(spec: FleetSpec) -> Carried:
    """Return what Slurm is told of a fleet; raises `InputError` with everything that it cannot carry."""
    refuse_what_slurm_cannot(spec.cluster, spec.workload, spec.rules)
    fast = tuple(o for o in spec.outages if not (isinstance(o, Failures) and o.slowdown < 1))
    jobs, rates, problems = [], {}, []
    for job in spec.workload.jobs:
        rigid = replace(job, min_devices=0, max_devices=0)
        if spec.speed is trace_speed:
            jobs.append(rigid)
            continue
        found = rates_of(spec.cluster, rigid, spec.speed)
        if not found:
            problems.append(f"job {job.id} runs on none of the types that it may use")
        elif len(set(found.values())) > 1 and job.walltime_s < job.duration_s:
            problems.append(f"job {job.id} ends at its limit, which differs between the types that it may"
                            " use; name one type")  # fmt: skip
        else:
            rates[job.id] = found
            kinds = tuple(dict.fromkeys(kind for kind, _ in found))
            jobs.append(replace(rigid, types=kinds) if set(kinds) != set(_kinds(spec.cluster, job))
                        else rigid)  # fmt: skip
    if problems:
        raise InputError(Problem(spec.workload.name, 0, 0, "", "", text) for text in problems)
    workload = Workload(tuple(jobs), spec.workload.name, spec.workload.source)
    return Carried(workload, rates, fast, _notes(spec, fast, rates))


def _kinds(cluster: Cluster, job: Job) -> Sequence[str]:
    return job.types or cluster.types


def _sizes(cluster: Cluster, job: Job) -> set[int]:
    kinds = _kinds(cluster, job)
    return {node.devices for node in cluster.nodes if node.devices and node.type in kinds}


def rates_of(cluster: Cluster, job: Job, speed: Speed) -> Rates:
    """Return a job's rate by type and leaves; types on which it does not run at all are left out."""
    rates: dict[tuple[str, int], float] = {}
    for kind in _kinds(cluster, job):
        members = [node for node in cluster.nodes if node.type == kind and node.devices]
        size = max((node.devices for node in members), default=0)
        if not size or job.devices > sum(node.devices for node in members):
            continue
        nodes = math.ceil(job.devices / size)
        most = min(len({node.leaf for node in members}), job.max_leaves or job.devices, job.devices)
        found = {(kind, leaves): speed(job, kind, job.devices, max(nodes, leaves), leaves)
                 for leaves in range(1, most + 1)}  # fmt: skip
        if min(found.values()) > 0:
            rates |= found
    return rates


def _notes(
    spec: FleetSpec, fast: tuple[Outage, ...], rates: Mapping[str, Rates]
) -> tuple[str, ...]:
    jobs = spec.workload.jobs
    elastic = sum(job.least < job.devices or job.most > job.devices for job in jobs)
    varied = sum(len(set(found.values())) > 1 for found in rates.values())
    narrowed = sum(
        len(_sizes(spec.cluster, job)) > len(sizes_asked_for(spec.cluster, job)) for job in jobs
    )
    saved = any(job.checkpoint_s for job in jobs)
    return tuple(text for text in (
        f"slurm: {elastic} elastic jobs run at the size that they ask for" if elastic else "",
        f"slurm: the one limit of each of {varied} jobs is that on its slowest type" if varied else "",
        f"slurm: {narrowed} jobs that may span several leaves ask for nodes of one size alone, as it would"
        " look for a range of nodes on one leaf" if narrowed else "",
        "slurm: nodes do not become slow, since jobs sleep" if fast != spec.outages else "",
        "slurm: interrupted jobs start over: it keeps no checkpoints"
        if saved and any(isinstance(o, Failures) for o in fast) else "",
        "slurm: a tenant's limit is GrpTRES of its account; its share is FairShare, which counts under"
        " PriorityType=priority/multifactor and guarantees nothing" if spec.rules.quotas else "",
    ) if text)  # fmt: skip


def refuse_what_slurm_cannot(cluster: Cluster, workload: Workload, rules: Rules) -> None:
    """Raise `InputError` with everything that this door cannot carry over."""
    wrong = []
    if rules.max_failures:
        wrong.append("slurm requeues a job however often its nodes fail: no 'max_failures'")
    if any(node.devices == 0 for node in cluster.nodes):
        wrong.append("nodes without devices cannot be emulated")
    for what, hit in (
        ("shares of devices", lambda j: j.milli < 1000),
        ("jobs without devices", lambda j: j.devices == 0),
        ("limits on pods", lambda j: j.max_pods),
        ("endless jobs", lambda j: not math.isfinite(j.duration_s)),
    ):
        first = next((job for job in workload.jobs if hit(job)), None)
        if first is not None:
            wrong.append(f"{what} cannot be carried over (job {first.id})")
    if wrong:
        raise InputError(Problem(workload.name, 0, 0, "", "", text) for text in wrong)
