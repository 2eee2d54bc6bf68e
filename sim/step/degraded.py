"""The job on fewer nodes: what is left of it when nodes are lost and no spare is there.

Devices that are left are dealt out anew, as a restart does: replicas live as long as there are devices
for them, whatever node they sat on. Replicas come in wholes: of a group that holds every expert, and
of a group that shares one copy of the sharded state. Their micro-batches take over what the lost ones did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario
from ersatz.sim.step.step import replica_speeds, step_seconds
from ersatz.sim.step.stragglers import kept_stragglers, named_stragglers, stragglers_between

ROUNDED = 1e-9  # by which a quotient may be above what it stands for


def replicas_left(scenario: Scenario, lost: Sequence[int]) -> tuple[int, ...]:
    """Return the replicas that `lost` nodes (of each pool) leave: in all, or of each pool of replicas."""
    parallel, pools = scenario.parallel, scenario.pools
    if parallel.pools:  # layouts of pools' own are not dealt out anew
        return (0 if any(lost) else parallel.dp,)
    if len(pools) > 1 and parallel.mixed == "replicas":
        return tuple(_filling(p, p.nodes - n, parallel) for p, n in zip(pools, lost, strict=True))
    devices = [(p.nodes - n) * p.node.devices for p, n in zip(pools, lost, strict=True)]
    slice_ = parallel.tp * parallel.cp
    stages = [parallel.stage_pools.count(p.name) or parallel.pp for p in pools]
    counts = [left // (slice_ * own) for left, own in zip(devices, stages, strict=True)]
    return (_wholes(min(*counts, parallel.dp), parallel),)


def _filling(pool: Pool, nodes: int, parallel: Parallel) -> int:
    """Return the replicas of a pool that holds whole ones: all devices of a node that goes on train.

    Nodes that whole groups of replicas do not fill stand still, so that more nodes are never slower.
    """
    column = parallel.tp * parallel.cp * parallel.pp
    group = column * _group(parallel)
    together = group // math.gcd(group, pool.node.devices)
    return nodes // together * together * pool.node.devices // column


def _wholes(replicas: int, parallel: Parallel) -> int:
    """Round replicas down to whole groups of experts and of sharded state."""
    return replicas // _group(parallel) * _group(parallel)


def _group(parallel: Parallel) -> int:
    """Return the replicas that hold every expert and a whole copy of the sharded state."""
    spread = max(parallel.ep * parallel.etp // (parallel.tp * parallel.cp), 1)
    return math.lcm(spread, parallel.shard or 1)


def degraded_step_seconds(
    scenario: Scenario, lost: Sequence[int], timer: Timer = calibrated_time
) -> float:
    """Return the seconds of a step with so many nodes of each pool lost; infinite when none is left."""
    smaller = without_nodes(scenario, lost, timer)
    if smaller is None:
        return math.inf
    try:
        return step_seconds(smaller, timer)
    except InfeasibleError:
        return math.inf


def without_nodes(
    scenario: Scenario, lost: Sequence[int], timer: Timer = calibrated_time
) -> Scenario | None:
    """Return the job that goes on without so many nodes of each pool; None when it cannot.

    Micro-batches are rounded up to what the schedule accepts; a custom schedule holds for its own
    number of them alone.
    """
    left = replicas_left(scenario, lost)
    if not any(left) or (scenario.parallel.custom_schedule and sum(left) < scenario.parallel.dp):
        return None
    scenario = named_stragglers(scenario)
    if scenario.fabric:
        size = max(scenario.fabric.size, *(pool.nodes for pool in scenario.pools))
        scenario = replace(scenario, fabric=replace(scenario.fabric, size=size))
    smaller = _fewer_of_each(scenario, left, timer) if len(left) > 1 else _fewer(scenario, left[0])
    if smaller.fabric and smaller.fabric.positions:
        kept = smaller.fabric.positions[: smaller.pools[0].nodes]
        smaller = replace(smaller, fabric=replace(smaller.fabric, positions=kept))
    return smaller


def _fewer(scenario: Scenario, dp: int) -> Scenario:
    """Return the job with `dp` replicas, each on the same pools as before."""
    parallel, training = scenario.parallel, scenario.training
    after = replace(parallel, dp=dp)
    whole = {"interleaved": parallel.pp, "dualpipe": 2}.get(parallel.schedule, 1)
    each = -(-training.global_batch // (training.micro_batch * dp * whole)) * whole
    stages = {p.name: parallel.stage_pools.count(p.name) or parallel.pp for p in scenario.pools}
    pools = [
        _fitting(pool, stages[pool.name] * parallel.tp * parallel.cp * dp)
        for pool in scenario.pools
    ]
    return replace(
        scenario, pools=tuple(pools), parallel=after,
        training=replace(training, global_batch=each * training.micro_batch * dp),
        stragglers=kept_stragglers(scenario.stragglers.ranks, parallel, after),
    )  # fmt: skip


def _fewer_of_each(scenario: Scenario, left: Sequence[int], timer: Timer) -> Scenario:
    """Return the job with so many replicas on each of its pools."""
    parallel, training = scenario.parallel, scenario.training
    column = parallel.tp * parallel.cp * parallel.pp
    pools: list[Pool] = []
    slow: dict[int, float] = {}
    first = moved = 0
    for pool, replicas in zip(scenario.pools, left, strict=True):
        own = stragglers_between(scenario.stragglers.ranks, first, pool.devices).ranks
        first += pool.devices
        if not replicas:
            continue
        before, after = (replace(parallel, dp=n) for n in (pool.devices // column, replicas))
        kept = kept_stragglers(own, before, after).ranks
        fitted = _fitting(pool, replicas * column)
        slow |= {moved + rank: slowdown for rank, slowdown in kept.items()}
        moved += fitted.devices
        pools.append(fitted)
    smaller = replace(
        scenario, pools=tuple(pools), parallel=replace(parallel, dp=sum(left)),
        stragglers=replace(scenario.stragglers, ranks=slow),
    )  # fmt: skip
    counts = [n for n in left if n]
    speeds = replica_speeds(smaller, timer) if len(counts) > 1 else [1.0]
    wanted = _splittable(training.global_batch // training.micro_batch, counts, speeds)
    return replace(smaller, training=replace(training, global_batch=wanted * training.micro_batch))


def _fitting(pool: Pool, ranks: int) -> Pool:
    """Return the pool with the nodes that so many ranks need."""
    return replace(pool, nodes=-(-ranks // pool.node.devices))


def _splittable(microbatches: int, replicas: Sequence[int], speeds: Sequence[float]) -> int:
    """Return the number of micro-batches, no fewer than given, that replicas share soonest.

    Each replica of a pool does as many as the others of it. Of numbers that take as long it is the least
    where there are two pools, and one that no pool could do with fewer where there are more.
    """
    counts = [1] * len(replicas)
    ideal = microbatches / math.fsum(n * v for n, v in zip(replicas, speeds, strict=True))
    if ideal > max(1 / v for v in speeds):
        counts = [max(math.floor(ideal * v * (1 - ROUNDED)), 1) for v in speeds]
    soonest = max(n / v for n, v in zip(counts, speeds, strict=True))
    while _total(counts, replicas) < microbatches:
        soonest = max(soonest, min((n + 1) / v for n, v in zip(counts, speeds, strict=True)))
        counts = [_done_by(soonest, v, n) for n, v in zip(counts, speeds, strict=True)]
    first, *others = sorted(zip(replicas, counts, strict=True), reverse=True)
    if len(others) == 1:
        (size, most), (other, many) = first, others[0]
        return min(one * size + rest * other for one in range(1, most + 1)
                   if (rest := max(-(-(microbatches - one * size) // other), 1)) <= many)  # fmt: skip
    total = _total(counts, replicas)
    for size, count in (first, *others):
        total -= size * max(min((total - microbatches) // size, count - 1), 0)
    return total


def _total(counts: Sequence[int], replicas: Sequence[int]) -> int:
    return sum(n * count for n, count in zip(replicas, counts, strict=True))


def _done_by(seconds: float, speed: float, count: int) -> int:
    """Return how many micro-batches are done by a time, of which `count` are for sure."""
    while (count + 1) / speed <= seconds:
        count += 1
    return count
