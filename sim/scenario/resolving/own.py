"""Layouts that pools of one job have of their own: read from `parallel.pools`, completed and checked.

A job over several kinds of device either puts stages on them or whole replicas. With stages each pool
deals its ranks out as suits its devices, and passes on the same sequences: micro-batch x dp is the same
in all. With replicas everything but the model is a pool's own, and the batch is split by speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ersatz.sim.scenario.scenario import Parallel, Pool, PoolLayout, Scenario
from ersatz.sim.scenario.schema import ScenarioFile
from ersatz.sim.scenario.sections.layout import ParallelSection, PoolLayoutSection

Blame = Callable[..., None]
OF_THE_JOB = ("pp", "vp", "schedule", "chunk_layers")  # where pools hold stages


def own_layouts(
    parallel: Parallel, spec: ScenarioFile, pools: Sequence[Pool], blame: Blame
) -> Parallel:
    """Return a layout with that of each pool; what a pool leaves open is the job's, dp its devices'.

    What is wrong is told to `blame`.
    """
    section, found = spec.parallel, []
    if parallel.mixed == "replicas":
        check_whole(parallel, blame)
    names = [pool.name for pool in pools]
    for name in section.pools:
        if name not in names or len(pools) < 2:
            named = ", ".join(filter(None, names)) or "none: all nodes are alike"
            blame(("parallel", "pools", name), name, f"expected a pool: {named}")
    for pool in pools:
        given = section.pools.get(pool.name) or PoolLayoutSection.model_construct()
        own = _own(parallel, section, given, pool, blame)
        size = given.micro_batch or spec.training.micro_batch
        if own:
            found.append(PoolLayout(pool.name, own, size))
    return joined_layout(parallel, found) if found else parallel


def check_whole(parallel: Parallel, blame: Blame) -> None:
    """Tell `blame` that the stages of a replica, which stands on one pool, are given pools."""
    if parallel.stage_pools:
        blame(("parallel", "stage_pools"), ", ".join(parallel.stage_pools),
              "each replica stands on one pool; expected none, or mixed: stages")  # fmt: skip


def joined_layout(parallel: Parallel, own: Sequence[PoolLayout]) -> Parallel:
    """Return the layout of a job whose pools have these of their own; the first stands for all."""
    replicas = parallel.mixed == "replicas"
    dp = sum(one.parallel.dp for one in own) if replicas else own[0].parallel.dp
    return replace(own[0].parallel, own=False, pools=tuple(own), dp=dp)


def _own(
    parallel: Parallel, section: ParallelSection, given: PoolLayoutSection, pool: Pool, blame: Blame
) -> Parallel | None:
    """Return the layout of one pool."""
    said: dict[str, Any] = given.model_dump(exclude_none=True)
    said.pop("micro_batch", None)
    at = "parallel", "pools", pool.name
    stages = parallel.mixed == "stages"
    for key in OF_THE_JOB if stages else ():
        if key in said:
            blame((*at, key), said.pop(key), "is the job's where pools hold stages: give parallel."
                  f"{key}, or mixed: replicas")  # fmt: skip
    own = replace(parallel, pools=(), own=True, **said)
    if own.tp == 1:
        own = replace(own, sequence_parallel=False)
    elif "sequence_parallel" not in said and section.sequence_parallel is None:
        spread = pool.stack.defaults.get("sequence_parallel", "true")
        own = replace(own, sequence_parallel=str(spread).lower() == "true")
    own = with_ways(own, pool)
    many = parallel.stage_pools.count(pool.name) if stages else own.pp
    ranks = own.tp * own.cp * many
    if not ranks:
        blame(("parallel", "stage_pools"), None, f"holds no stage of pool {pool.name}")
        return None
    dp, rest = divmod(pool.devices, ranks)
    if rest or not dp:
        what = f"{many} stages" if stages else "a replica"
        blame(at, None, f"{pool.devices} devices are no multiple of the {ranks} of {what}"
              f" (tp {own.tp} x cp {own.cp} x {many})")  # fmt: skip
        return None
    return replace(own, dp=dp, stage_pools=parallel.stage_pools if stages else ())


def with_ways(own: Parallel, pool: Pool) -> Parallel:
    """Return a layout of a pool with contexts and experts spread as its software does."""
    said = pool.stack.defaults
    apart = own.ep > 1 and own.tp * own.cp > 1
    return replace(
        own, cp_comm=said.get("cp_comm", "p2p") if own.cp > 1 else "p2p",  # type: ignore[arg-type]
        expert_layout=said.get("expert_layout", "folded") if apart else "folded",  # type: ignore[arg-type]
    )  # fmt: skip


def check_own(scenario: Scenario, blame: Blame) -> None:
    """Tell `blame` what layouts of pools' own do not go with, as a whole."""
    p = scenario.parallel
    if p.mixed == "stages":
        each = {one.pool: one.micro_batch * one.parallel.dp for one in p.pools}
        if len(set(each.values())) > 1:
            words = ", ".join(
                f"{one.pool} {one.micro_batch} x {one.parallel.dp}" for one in p.pools
            )
            blame(("parallel", "pools"), None, "each stage must see the same sequences: micro_batch x"
                  f" dp differ ({words})")  # fmt: skip
    slow = scenario.stragglers
    if slow.ranks or (slow.fraction and slow.slowdown):
        blame(("stragglers",), None, "are not known for pools with layouts of their own")
    if scenario.fabric and scenario.fabric.contention:
        blame(("fabric", "contention"), True, "is not known for pools with layouts of their own")
    if scenario.job.on_loss == "shrink":
        blame(("job", "on_loss"), "shrink", "pools with layouts of their own wait for repairs")
    if p.custom_schedule:
        blame(("parallel", "schedule"), None, "pools with layouts of their own need one by name")
    if p.batch_split == "equal":
        blame(
            ("parallel", "batch_split"), "equal", "pools with layouts of their own share by speed"
        )
