"""Whether a job's wishes are met by a placement, and whether they can be met at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ersatz.sim.fleet.cluster import Cluster, Placement
from ersatz.sim.fleet.log import Rules
from ersatz.sim.fleet.workload.jobs import Job


def spans(cluster: Cluster, placement: Placement) -> tuple[int, int, int]:
    """Return how many nodes, leaves and pods a placement spans."""
    if len(placement) == 1:
        return 1, 1, 1
    nodes = [cluster.nodes[node] for node, _ in placement]
    return len(nodes), len({n.leaf for n in nodes}), len({n.pod for n in nodes})


def broken_wish(cluster: Cluster, job: Job, placement: Placement) -> str:
    """Say which wish of a job (types, one type, spans) a placement breaks, or an empty text."""
    kinds = {cluster.nodes[node].type for node, _ in placement}
    if job.types and not kinds <= set(job.types):
        return f"asks for {' or '.join(job.types)}, not {', '.join(sorted(kinds - set(job.types)))}"
    if len(kinds) > 1 and not job.mixed:
        return f"a gang of one type was given {', '.join(sorted(kinds))}"
    found = spans(cluster, placement)
    limits = (job.max_nodes, job.max_leaves, job.max_pods)
    for what, most, count in zip(("nodes", "leaves", "pods"), limits, found, strict=True):
        if most and count > most:
            return f"asks for at most {most} {what}, not {count}"
    return ""


def never_fits(cluster: Cluster, rules: Rules, job: Job) -> str:
    """Say why a job cannot run even on the empty fleet, or return an empty text."""
    quota = rules.quotas.get(job.tenant)
    if quota and job.least > quota.limit:
        return f"asks for {job.least} devices, its tenant {job.tenant} may hold {quota.limit}"
    kinds = job.types or cluster.types
    groups = [kinds] if job.mixed else [(kind,) for kind in kinds]
    most = max((_room(cluster, job, group) for group in groups), default=-1)
    if most < 0:
        return f"asks for {' or '.join(job.types) or 'a node'} with room for it; there is none"
    if most < job.least:
        among = f" of {' or '.join(job.types)}" if job.types else ""
        return f"asks for {job.least} devices{among} together, the fleet has {most} at most"
    return ""


def _room(cluster: Cluster, job: Job, kinds: Iterable[str]) -> int:
    """Return the most devices that a job could get of some types; -1 if no node has room."""
    wanted = frozenset(kinds)
    shape = wanted, job.cpu_milli, job.memory_mib, job.max_nodes, job.max_leaves, job.max_pods
    if shape not in cluster.rooms:
        cluster.rooms[shape] = _most(cluster, job, wanted)
    return cluster.rooms[shape]


def _most(cluster: Cluster, job: Job, wanted: frozenset[str]) -> int:
    nodes = [n for n in cluster.nodes if n.type in wanted
             and n.cpu_milli >= job.cpu_milli and n.memory_mib >= job.memory_mib]  # fmt: skip
    if not nodes:
        return -1
    room = sum(n.devices for n in nodes)
    for most, parts in ((job.max_nodes, [(n.name, n.devices) for n in nodes]),
                        (job.max_leaves, [(n.leaf, n.devices) for n in nodes]),
                        (job.max_pods, [(n.pod, n.devices) for n in nodes])):  # fmt: skip
        if most:
            held: Counter[object] = Counter()
            for part, devices in parts:
                held[part] += devices
            room = min(room, sum(count for _, count in held.most_common(most)))
    return room
