"""What must hold between a layout, a model and the machines before anything is simulated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ersatz.device_models.networks.fabric import Fabric, Fault, build_fabric
from ersatz.sim.plan.layout import even_split, on_pool, pipeline_length
from ersatz.sim.plan.orders import PIPELINE_SCHEDULES
from ersatz.sim.plan.placement import PLACEMENTS
from ersatz.sim.plan.schedules import MOST_SLOTS, make_schedule
from ersatz.sim.records import wrong_metric
from ersatz.sim.scenario.formats import recipes
from ersatz.sim.scenario.resolving.own import check_own, check_whole
from ersatz.sim.scenario.scenario import FabricSpec, Pool, Scenario
from ersatz.sim.scenario.schema import ScenarioFile
from ersatz.sim.workload.layer import Layer

Blame = Callable[..., None]
MOST_NODES = 100_000  # of a fabric that is followed link by link: some ten seconds


def check_scenario(scenario: Scenario, spec: ScenarioFile, blame: Blame) -> None:
    """Tell `blame` everything that cannot be run, each at the value that is wrong."""
    _check_devices(scenario, blame)
    check_layout(scenario, spec, blame)
    check_fabric(scenario.pools, scenario.fabric, blame)
    _check_contention(scenario, blame)
    _check_conditions(scenario, blame)
    for rank in scenario.stragglers.ranks:
        if not 0 <= rank < scenario.parallel.world:
            blame(
                ("stragglers", "ranks", str(rank)),
                rank,
                f"expected a rank below {scenario.parallel.world}",
            )
    _check_published(scenario, blame)


def check_layout(scenario: Scenario, spec: ScenarioFile, blame: Blame) -> None:
    """Degrees, schedule and batch must go with model and devices, unless they are open."""
    if scenario.open:
        return
    if scenario.parallel.pools:
        _check_own(scenario, spec, blame)
        return
    fine = _check_schedule_name(scenario, blame)
    _check_degrees(scenario, spec, blame)
    _check_model_split(scenario, blame)
    if fine:
        _check_layers(scenario, blame)
        if _check_batch(scenario, blame):
            _check_schedule(scenario, blame)
    _check_pools(scenario, blame)
    _check_recompute(scenario, blame)


def _check_own(scenario: Scenario, spec: ScenarioFile, blame: Blame) -> None:
    """Check the layout of each pool as that of a job of its own, and all of them together."""
    stages = scenario.parallel.mixed == "stages"
    check_own(scenario, blame)
    for pool in scenario.pools:
        own = replace(on_pool(scenario, pool), pools=(pool,))
        given = spec.parallel.pools.get(pool.name)
        said = given.model_fields_set if given else set()

        def told(
            path: tuple[Any, ...], value: object, words: str,
            said: set[str] = said, name: str = pool.name,
        ) -> None:  # fmt: skip
            """Place a fault where the pool says it, or where it was taken from."""
            here = path[0] == "parallel" and len(path) > 1 and path[1] in said
            blame(("parallel", "pools", name, *path[1:]) if here else path, value, words)

        fine = _check_schedule_name(own, told)
        _check_degrees(own, spec, told)
        _check_model_split(own, told)
        _check_recompute(own, told)
        if fine:
            _check_layers(own, told)
            if stages and _check_batch(own, told):
                _check_schedule(own, told)
    if stages:
        _check_pools(scenario, blame)
    elif not _divides(scenario):
        blame(("training", "global_batch"), scenario.training.global_batch,
              "cannot be split over replicas of these micro-batches in whole numbers")  # fmt: skip


def _divides(scenario: Scenario) -> bool:
    """Tell whether replicas can share the batch at all."""
    turns = [one.micro_batch * one.parallel.dp for one in scenario.parallel.pools]
    batch = scenario.training.global_batch
    return batch % math.gcd(*turns) == 0 and sum(turns) <= batch


def _check_recompute(scenario: Scenario, blame: Blame) -> None:
    """Only full recomputation keeps boundaries of groups; no part of nothing is computed again."""
    parallel = scenario.parallel
    if parallel.recompute_group > 1 and parallel.recompute != "full":
        blame(
            ("parallel", "recompute_group"), parallel.recompute_group, "belongs to recompute: full"
        )
    if parallel.recompute_layers and parallel.recompute == "none":
        blame(("parallel", "recompute_layers"), parallel.recompute_layers,
              "belongs to recompute: selective or full")  # fmt: skip


def _check_devices(scenario: Scenario, blame: Blame) -> None:
    precision = scenario.training.precision
    recipe = recipes().get(scenario.training.recipe)
    if recipe and recipe.precision != precision:
        blame(("training", "recipe"), scenario.training.recipe,
              f"belongs to precision: {recipe.precision}, not {precision}")  # fmt: skip
    for i, pool in enumerate(scenario.pools):
        at = ("cluster", "pools", i, "node") if pool.name else ("cluster", "node")
        device = pool.node.device
        if not device.trains:
            blame(at, pool.node.name, f"{device.title} cannot train: {device.why_not}")
        elif not device.supports(precision):
            known = ", ".join(sorted(device.matrix_peak))
            blame(("training", "precision"), precision, f"{device.title} multiplies {known} only")
        elif recipe and not recipe.runs_on(device):
            made = ", ".join(recipe.architectures)
            blame(("training", "recipe"), scenario.training.recipe,
                  f"{device.title} applies no scales of blocks; expected one of {made}")  # fmt: skip
        elif precision in ("fp8", "fp4") and not device.supports("bf16"):
            words = f"{device.title} has no bf16 for what is never in 8 bits"
            blame(("training", "precision"), precision, words)


def _check_schedule_name(scenario: Scenario, blame: Blame) -> bool:
    parallel = scenario.parallel
    name = parallel.schedule
    if name not in PIPELINE_SCHEDULES and not parallel.custom_schedule:
        known = ", ".join(PIPELINE_SCHEDULES)
        blame(("parallel", "schedule"), name, f"expected one of {known}, or orders of your own")
        return False
    if parallel.vp > 1 and name != "interleaved" and not parallel.custom_schedule:
        blame(("parallel", "vp"), parallel.vp, "several chunks per stage need schedule: interleaved"
              " (zb-v, dualpipe and dualpipev have two by nature: leave vp at 1)")  # fmt: skip
        return False
    return True


def _check_degrees(scenario: Scenario, spec: ScenarioFile, blame: Blame) -> None:
    parallel, devices = scenario.parallel, scenario.devices
    column = parallel.tp * parallel.pp * parallel.cp
    if parallel.world != devices and not parallel.own:
        at = ("parallel", "dp") if spec.parallel.dp else ("parallel",)
        fits = f"; dp {devices // column} would" if devices % column == 0 else ""
        blame(at, None, f"tp {parallel.tp} x pp {parallel.pp} x cp {parallel.cp} x dp {parallel.dp}"
              f" = {parallel.world} ranks do not make {devices} devices{fits}")  # fmt: skip
    ranks, spread = parallel.dp * parallel.cp * parallel.tp, parallel.ep * parallel.etp
    if ranks % spread:
        blame(("parallel", "ep"), parallel.ep, f"ep x etp = {spread} does not divide the"
              f" {ranks} ranks of a stage (tp x cp x dp)")  # fmt: skip
    strided = parallel.expert_layout == "strided"
    if strided and parallel.dp % parallel.ep:
        blame(("parallel", "ep"), parallel.ep, f"does not divide dp {parallel.dp}, over which"
              " strided expert groups lie")  # fmt: skip
    if strided and parallel.etp != parallel.tp:
        blame(("parallel", "etp"), parallel.etp, "strided expert groups slice experts over tp:"
              f" expected {parallel.tp}, or expert_layout: folded")  # fmt: skip
    if not strided and spread > 1 and math.gcd(spread, parallel.tp * parallel.cp) not in (
        spread, parallel.tp * parallel.cp,
    ):  # fmt: skip
        blame(("parallel", "ep"), parallel.ep, f"ep x etp = {spread} and tp x cp ="
              f" {parallel.tp * parallel.cp}: one must divide the other")  # fmt: skip
    if parallel.etp not in (1, parallel.tp):
        blame(("parallel", "etp"), parallel.etp, f"expected 1 or tp ({parallel.tp})")
    if scenario.training.sequence_length % parallel.cp:
        blame(("parallel", "cp"), parallel.cp, "does not divide the sequence length"
              f" {scenario.training.sequence_length}")  # fmt: skip
    _check_context(scenario, blame)
    _check_routing(scenario, blame)
    if parallel.shard and parallel.dp % parallel.shard:
        blame(("parallel", "shard"), parallel.shard, f"does not divide dp {parallel.dp}")


def _check_context(scenario: Scenario, blame: Blame) -> None:
    """Heads must go round where ranks exchange them."""
    parallel = scenario.parallel
    inner = {"a2a": parallel.cp, "a2a+p2p": parallel.cp_inner}.get(parallel.cp_comm, 1)
    if parallel.cp_comm != "a2a+p2p" and parallel.cp_inner > 1:
        blame(("parallel", "cp_inner"), parallel.cp_inner, "belongs to cp_comm: a2a+p2p")
    if parallel.cp_comm == "a2a+p2p" and (parallel.cp % inner or not 1 < inner < parallel.cp):
        blame(("parallel", "cp_inner"), parallel.cp_inner, "expected a divisor of cp"
              f" {parallel.cp} between 1 and it")  # fmt: skip
    counts = {kind.heads or (kind.recurrence.heads if kind.recurrence else inner)
              for kind in scenario.model.kinds}  # fmt: skip
    for heads in sorted(count // parallel.tp for count in counts):
        if heads % inner:
            blame(("parallel", "cp_comm"), parallel.cp_comm, f"{inner} ranks cannot share the"
                  f" {heads} heads of a tensor rank; expected p2p or all_gather")  # fmt: skip


def _check_routing(scenario: Scenario, blame: Blame) -> None:
    """Some software does not let tensor ranks route the same tokens."""
    parallel = scenario.parallel
    if not scenario.model.experts or parallel.tp == 1 or parallel.sequence_parallel:
        return
    for pool in scenario.pools:
        if not pool.stack.slices_expert_tokens:
            blame(("parallel", "sequence_parallel"), False, "experts under tensor parallelism need"
                  f" sequence parallelism in {pool.stack.name}")  # fmt: skip


def _check_model_split(scenario: Scenario, blame: Blame) -> None:
    for kind in scenario.model.kinds:
        _check_kind_split(scenario, kind, blame)
    parallel, model = scenario.parallel, scenario.model
    routed = {kind.experts.routed for kind in model.kinds if kind.experts}
    if parallel.ep > 1 and not routed:
        blame(("parallel", "ep"), parallel.ep, f"{model.name} has no experts; expected 1")
    for count in sorted(routed):
        if count % parallel.ep:
            blame(("parallel", "ep"), parallel.ep, f"does not divide the {count} experts")


def _check_kind_split(scenario: Scenario, kind: Layer, blame: Blame) -> None:
    """What every rank of a tensor group holds of a layer must be whole heads."""
    tp = scenario.parallel.tp
    if kind.heads % tp:
        blame(("parallel", "tp"), tp, f"does not divide the {kind.heads} heads")
    kv = kind.kv_heads
    if kind.heads and not kind.latent and kv % tp and tp % kv:
        blame(("parallel", "tp"), tp, f"does not fit the {kv} key-value heads")
    if kind.recurrence and kind.recurrence.heads % tp:
        heads = kind.recurrence.heads
        blame(
            ("parallel", "tp"), tp, f"does not divide the {heads} heads of {kind.recurrence.kind}"
        )


def _check_layers(scenario: Scenario, blame: Blame) -> None:
    parallel, layers = scenario.parallel, scenario.model.layers
    length = pipeline_length(parallel)
    given = parallel.chunk_layers
    example = list(even_split(layers, length)) if length <= layers else []
    if length > layers and not given:
        blame(("parallel", "pp"), parallel.pp, f"{length} chunks for {layers} layers")
    elif given and (len(given) != length or sum(given) != layers):
        blame(("parallel", "chunk_layers"), None, f"has {len(given)} entries that add up to"
              f" {sum(given)}; expected {length} that add up to {layers}, e.g. {example}")  # fmt: skip


def _check_batch(scenario: Scenario, blame: Blame) -> bool:
    parallel, training = scenario.parallel, scenario.training
    if len(scenario.pools) > 1 and parallel.mixed == "replicas":
        whole = training.micro_batch
        words = f"micro_batch {whole}"
    else:
        whole = training.micro_batch * parallel.dp
        words = f"micro_batch {training.micro_batch} x dp {parallel.dp} = {whole}"
    if training.global_batch % whole:
        blame(("training", "global_batch"), training.global_batch,
              f"is not a multiple of {words}")  # fmt: skip
        return False
    return True


def _check_schedule(scenario: Scenario, blame: Blame) -> None:
    """Try the schedule itself: it knows which shapes it accepts."""
    parallel, training = scenario.parallel, scenario.training
    replicas = len(scenario.pools) > 1 and parallel.mixed == "replicas"
    count = training.global_batch // (training.micro_batch * (1 if replicas else parallel.dp))
    slots = count * parallel.pp * parallel.vp  # of the fullest replica, where each has its share
    if replicas and slots > MOST_SLOTS:
        blame(("training", "global_batch"), training.global_batch,
              f"{count:,} micro-batches over {parallel.pp:,} stages are more than can be walked")  # fmt: skip
    try:
        if replicas:  # each pool's share is found by its pace, of twice and four times its stages
            for own in (on_pool(scenario, pool).parallel for pool in scenario.pools):
                for many in (2 * own.pp, 4 * own.pp):
                    make_schedule(own.schedule, own.pp, many, own.vp, own.custom_schedule)
        else:
            make_schedule(
                parallel.schedule, parallel.pp, count, parallel.vp, parallel.custom_schedule
            )
    except ValueError as error:
        blame(("parallel", "schedule"), parallel.schedule, f"expected another shape: {error}")


def _check_pools(scenario: Scenario, blame: Blame) -> None:
    parallel, pools = scenario.parallel, scenario.pools
    names = [pool.name for pool in pools]
    if len(set(names)) < len(names):
        blame(("cluster", "pools"), None, "two pools have the same name")
    if len(pools) == 1 and not parallel.stage_pools:
        return
    column = parallel.tp * parallel.cp * parallel.pp
    if parallel.mixed == "replicas" and len(pools) > 1:
        check_whole(parallel, blame)
        for i, pool in enumerate(pools):
            if pool.devices % column:
                blame(("cluster", "pools", i, "nodes"), pool.nodes, f"{pool.devices} devices hold no"
                      f" whole number of replicas of {column} devices")  # fmt: skip
        return
    if len(parallel.stage_pools) != parallel.pp:
        blame(("parallel", "stage_pools"), None, f"has {len(parallel.stage_pools)} entries; expected"
              f" the pool of each of the {parallel.pp} stages")  # fmt: skip
        return
    for i, name in enumerate(parallel.stage_pools):
        if name not in names:
            named = f"one of {', '.join(names)}" if any(names) else "none: all nodes are alike"
            blame(("parallel", "stage_pools", i), name, f"expected {named}")
    for i, pool in enumerate(pools):
        own = on_pool(scenario, pool).parallel
        needed = parallel.stage_pools.count(pool.name) * own.tp * own.cp * own.dp
        if needed != pool.devices:
            blame(("cluster", "pools", i, "nodes"), pool.nodes, f"{pool.devices} devices; its"
                  f" stages need {needed}")  # fmt: skip


def _check_contention(scenario: Scenario, blame: Blame) -> None:
    stragglers, spec = scenario.stragglers, scenario.fabric
    slow = bool(stragglers.ranks) or bool(stragglers.fraction and stragglers.slowdown)
    if spec and spec.contention and slow:
        blame(("fabric", "contention"), True, "the ranks of a stage must be alike: no stragglers")


def check_fabric(pools: Sequence[Pool], spec: FabricSpec | None, blame: Blame) -> None:
    """Tell `blame` which places and parts of a `fabric` section do not exist."""
    if spec is None:
        return
    nodes = max(pool.nodes for pool in pools)
    size = max(spec.size, nodes)
    if size > MOST_NODES:
        blame(("cluster",), nodes, f"expected at most {MOST_NODES:,} nodes, link by link")
        return
    if spec.size and spec.size < nodes:
        blame(("fabric", "size"), spec.size, f"the job has {nodes} nodes")
    if spec.positions:
        different = len(set(spec.positions))
        if len(pools) > 1 or not different == len(spec.positions) == nodes:
            blame(("fabric", "placement"), None, f"{len(set(spec.positions))} different positions;"
                  f" expected one for each of {nodes} nodes of one pool")  # fmt: skip
        elif max(spec.positions) >= size:
            blame(("fabric", "placement"), max(spec.positions), f"expected positions below {size}")
    elif spec.placement not in PLACEMENTS:
        known = ", ".join(PLACEMENTS)
        blame(("fabric", "placement"), spec.placement, f"expected {known}, or a list of positions")
    if len(pools) > 1 and spec.faults:
        blame(
            ("fabric", "faults"), None, "a job on several pools has a network each; one pool only"
        )
        return
    fabric = build_fabric(pools[0].node, size, hashed=True)
    _check_faults(fabric, spec.faults, ("fabric", "faults"), blame)


def _check_conditions(scenario: Scenario, blame: Blame) -> None:
    conditions = scenario.job.conditions
    if len({c.name for c in conditions}) < len(conditions):
        blame(("job", "conditions"), None, "two conditions have the same name")
    size = max([scenario.fabric.size if scenario.fabric else 0, *(p.nodes for p in scenario.pools)])
    if conditions and size > MOST_NODES:
        blame(("cluster",), size, f"expected at most {MOST_NODES:,} nodes, link by link")
        return
    for i, condition in enumerate(conditions):
        if condition.rate <= 0 or condition.duration_s <= 0:
            blame(("job", "conditions", i), None, "expected a rate and a duration above 0")
        if condition.faults and len(scenario.pools) > 1:
            blame(("job", "conditions", i, "faults"), None, "expected a job on one pool")
            continue
        fabric = build_fabric(scenario.pools[0].node, size, hashed=True)
        _check_faults(fabric, condition.faults, ("job", "conditions", i, "faults"), blame)


def _check_faults(
    fabric: Fabric, faults: Sequence[Fault], at: tuple[Any, ...], blame: Blame
) -> None:
    for i, fault in enumerate(faults):
        try:
            fabric.check(fault)
        except ValueError as error:
            blame((*at, i), None, str(error))


def _check_published(scenario: Scenario, blame: Blame) -> None:
    for i, row in enumerate(scenario.published):
        part, at = row.metric.partition(".")[0], ("published", i, "metric")
        if words := wrong_metric(row.metric):
            blame(at, row.metric, words)
        elif part in ("job", "cost", "energy") and not scenario.training.tokens:
            blame(at, row.metric, f"there is no {part} without training.tokens or steps")
        elif part == "cost" and scenario.cost is None:
            blame(at, row.metric, "there is no cost without a section cost")
