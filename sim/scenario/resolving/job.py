"""How a job runs, what fails and what is kept ready; what is not given is said where there is a job."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ersatz.sim.scenario.defaults import job_defaults
from ersatz.sim.scenario.resolving.machines import resolve_faults
from ersatz.sim.scenario.scenario import (
    CheckpointSpec,
    Condition,
    FailureSpec,
    JobSpec,
    PauseSpec,
    Pool,
    shared_out,
)
from ersatz.sim.scenario.sections.job import FailuresSection, JobSection

Blame = Callable[..., None]


def resolve_job(
    section: JobSection, pools: list[Pool], matters: bool, blame: Blame, assumptions: list[str]
) -> JobSpec:
    """Return how a job runs; what was not given is said in `assumptions` where there is a job."""
    c = section.checkpoint
    said: list[str] = assumptions if matters else []
    number, by_pool = _spares(section, pools, blame, said)
    node_bandwidth = c.node_bandwidth
    if node_bandwidth is None:
        node_bandwidth = _default("node_bandwidth", "job.checkpoint", said)
    return JobSpec(
        failures=_failures(section.failures, pools, said),
        checkpoint=CheckpointSpec(
            0.0 if c.interval == "optimal" else c.interval, c.mode, c.storage_bandwidth,
            node_bandwidth, c.memory_bandwidth, c.bytes_per_param,
        ),
        detection_s=section.detection,
        restart_s=section.restart,
        spare_nodes=number,
        pool_spares=by_pool,
        on_loss=section.on_loss,
        evaluation=PauseSpec(section.evaluation.every, section.evaluation.duration),
        maintenance=PauseSpec(section.maintenance.every, section.maintenance.duration),
        conditions=tuple(
            Condition(c.name, c.rate, c.duration, resolve_faults(c.faults), c.background)
            for c in section.conditions
        ),
        replicas=section.replicas,
    )  # fmt: skip


def _default(key: str, section: str, said: list[str]) -> float:
    """Return a default of the data, and say it."""
    default = job_defaults()[key]
    said.append(f"{section}.{key} is not given: {default.words}")
    return default.value


def _failures(f: FailuresSection, pools: list[Pool], said: list[str]) -> FailureSpec:
    """Return how often what fails; software and switches by the number of devices where not given."""
    devices = sum(pool.devices for pool in pools)
    rates = {"switch_rate": f.switch_rate, "software_rate": f.software_rate}
    switch, software = (
        _default(key, "job.failures", said if f.scale else []) * devices if rate is None else rate
        for key, rate in rates.items()
    )
    return FailureSpec(
        f.scale, f.device_rate, f.node_rate, switch, software, f.law, f.shape, f.device_repair
    )


def default_spares(nodes: int) -> int:
    """Return the nodes kept ready for so many: a share, at least two, but no more than one for eight.

    >>> [default_spares(n) for n in (1, 7, 8, 16, 128, 1024)]
    [0, 0, 1, 2, 3, 21]
    """
    return min(max(math.ceil(nodes * job_defaults()["spare_share"].value), 2), nodes // 8)


def _spares(
    section: JobSection, pools: list[Pool], blame: Blame, said: list[str]
) -> tuple[int, Mapping[str, int]]:
    """Return how many nodes are kept ready, and of which pool."""
    spares = section.spare_nodes
    if isinstance(spares, dict):
        names = [pool.name for pool in pools]
        for name in sorted(set(spares) - set(names)):
            blame(("job", "spare_nodes", name), name, f"expected a pool: {', '.join(names)}")
        return sum(spares.values()), dict(spares)
    if spares is None:
        each = {pool.name: default_spares(pool.nodes) for pool in pools}
        dealt = ", ".join(f"{n} of {name}" if name else str(n) for name, n in each.items())
        share = 100 * job_defaults()["spare_share"].value
        said.append(
            f"job.spare_nodes is not given: {dealt} ({share:g} %, at least 2, at most one for eight)"
        )
        return sum(each.values()), each if len(pools) > 1 else {}
    if len(pools) > 1 and spares:
        shares = shared_out(spares, [pool.nodes for pool in pools])
        dealt = ", ".join(f"{n} of {p.name}" for n, p in zip(shares, pools, strict=True))
        said.append(f"job.spare_nodes is not given by pool: {dealt}, in proportion to their nodes")
    return spares, {}
