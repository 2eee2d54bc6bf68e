"""Resolve a checked scenario file: names to descriptions, defaults to stated assumptions.

Cross checks that need the hardware and the model stand in `ersatz.sim.scenario.checks`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ersatz.device_models.catalog.device import ScaleOut
from ersatz.device_models.catalog.reading import (
    EXPORT_ONLY,
    load_node,
    load_scale_out,
    load_stack,
    make_scale_out,
)
from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.networks.fabric import Fault
from ersatz.device_models.text.problems import InputError
from ersatz.device_models.text.units import UnitError, parse_quantity
from ersatz.sim.plan.layout import chunk_loads, even_or_by_load, pipeline_length, shown_split
from ersatz.sim.scenario.checks import check_layout, check_scenario
from ersatz.sim.scenario.defaults import job_defaults
from ersatz.sim.scenario.formats import cast_words
from ersatz.sim.scenario.joint import resolve_joint
from ersatz.sim.scenario.keeping import check_keeping, keeping_assumptions, kept
from ersatz.sim.scenario.money import resolve_cost
from ersatz.sim.scenario.phases import PhaseFile, phase_files
from ersatz.sim.scenario.scenario import (
    CheckpointSpec,
    Condition,
    EnergySpec,
    FabricSpec,
    FailureSpec,
    JobSpec,
    Parallel,
    PauseSpec,
    Phase,
    Pool,
    Precision,
    Published,
    Ramp,
    Scenario,
    Stragglers,
    Training,
    shared_out,
)
from ersatz.sim.scenario.schema import (
    ClusterSection,
    FabricSection,
    FailuresSection,
    FaultSection,
    JobSection,
    ParallelSection,
    PoolSection,
    RampSection,
    ScenarioFile,
)
from ersatz.sim.workload.adapters import with_usual_targets
from ersatz.sim.workload.model import Model
from ersatz.sim.workload.model_file import load_model

Blame = Callable[..., None]
DEFAULT_STACKS = {"huawei": "mindspeed", "amd": "primus"}
SPARE_SHARE = 0.02
METRIC_UNITS = {"_s": "time", "_bytes": "bytes", "_kg": "mass"}


def resolve(
    spec: ScenarioFile, name: str, folder: Path, blame: Blame, failed: Callable[[], bool],
    *, plans: bool = False,
) -> Scenario | None:  # fmt: skip
    """Return the scenario of one case; faults are told to `blame`, and None comes back then.

    Who `plans` is given a case without a layout as it is, with what is open noted; for others the
    layout is data parallel alone.
    """
    assumptions: list[str] = []
    model = _load(load_model, spec.model, ("model",), blame, beside=folder)
    pools = resolve_pools(spec.cluster, spec.stack, folder, blame, assumptions)
    if model is None or not pools or failed():
        return None
    model = with_usual_targets(model, pools[0].stack.name)
    assumptions += keeping_assumptions(spec.memory, pools[0].stack)
    pools = [replace(pool, stack=kept(pool.stack, spec.memory)) for pool in pools]
    if full := spec.training.expert_imbalance:
        pools = [replace(p, stack=replace(p.stack, expert_imbalance=full)) for p in pools]
        if model.experts is None and not any(kind.experts for kind in model.kinds):
            blame(("training", "expert_imbalance"), full, f"{model.name} has no experts")
    files = phase_files(spec, blame)
    phases = [_phase(file, pools, model, assumptions, plans) for file in files]
    if failed() or not phases:
        return None
    if spec.training.batch_ramp and not phases[0].training.tokens:
        assumptions.append(
            "training.batch_ramp: one step is of the full batch; without tokens there is no job"
        )
    training = phases[0].training
    scenario = Scenario(
        name=name,
        question=spec.question,
        seed=spec.seed,
        model=model,
        pools=tuple(pools),
        training=training,
        parallel=phases[0].parallel,
        fabric=resolve_fabric(spec.fabric) if spec.fabric else None,
        joint=resolve_joint(spec.cluster.joint, pools, assumptions),
        stragglers=Stragglers(
            spec.stragglers.fraction, spec.stragglers.slowdown, dict(spec.stragglers.ranks)
        ),
        job=resolve_job(spec.job, pools, bool(training.tokens), blame, assumptions),
        cost=resolve_cost(spec.cost, pools, blame, assumptions) if spec.cost else None,
        energy=EnergySpec(
            spec.energy.pue, spec.energy.carbon_intensity,
            spec.energy.embodied_per_device, spec.energy.device_life,
        ),
        published=tuple(_published(spec, blame)),
        assumptions=(*assumptions, *_catalogue_assumptions(pools)),
        open=phases[0].open,
    )  # fmt: skip
    if len(phases) > 1:
        scenario = _in_phases(scenario, phases, spec.training.batch_ramp)
    for i, (file, part) in enumerate(zip(files, scenario.parts, strict=True)):
        check_keeping(spec.memory, model, part.parallel.zero, file.blame)
        check = check_scenario if i == scenario.main_phase else check_layout
        check(part, file.spec, file.blame)
    return None if failed() else scenario


def _phase(
    file: PhaseFile, pools: list[Pool], model: Model, assumptions: list[str], plans: bool
) -> Phase:
    """Return one phase of a job; what is assumed of it is said with its name, once for all alike."""
    said: list[str] = []
    open_ = _open(file.spec, pools) if plans else ()
    parallel = _parallel(file.spec.parallel, pools, model, [] if open_ else said)
    said += [*model.notes, *(() if open_ else _split_assumed(model, parallel))]
    training = replace(_training(file.spec, pools, said), tokens=file.tokens)
    new = [words for words in said if words not in assumptions]
    if not file.ramp:
        assumptions += [f"{file.name}: {words}" if file.later else words for words in new]
    return Phase(file.name, training, parallel, open_, file.ramp)


def _in_phases(scenario: Scenario, phases: list[Phase], growth: RampSection | None) -> Scenario:
    """Return a job of several phases; what one step of it means is said."""
    whole = math.fsum(phase.training.tokens for phase in phases)
    ramp = Ramp(growth.start, growth.increment, growth.sequences) if growth else None
    scenario = replace(scenario, phases=tuple(phases), ramp=ramp)
    main = phases[scenario.main_phase]
    words = (f"the job has {len(phases)} phases; one step and what it sends are those of {main.name}, which"
             " has the most tokens; memory is that of the fullest phase")  # fmt: skip
    return replace(
        scenario, training=replace(main.training, tokens=whole), parallel=main.parallel,
        open=main.open, assumptions=(words, *scenario.assumptions),
    )  # fmt: skip


def _open(spec: ScenarioFile, pools: list[Pool]) -> tuple[str, ...]:
    """Return what a case leaves open that several devices make a question."""
    if "parallel" in spec.model_fields_set or sum(pool.devices for pool in pools) == 1:
        return ()
    given = "micro_batch" in spec.training.model_fields_set
    return ("parallel",) if given else ("parallel", "micro_batch")


def _load(
    loader: Callable[..., Any], name: Any, path: tuple[Any, ...], blame: Blame, **more: Any
) -> Any:
    """Call a loader; what it finds wrong in a file of its own is kept, the rest is placed here."""
    try:
        return loader(name, **more)
    except InputError as error:
        for problem in error.problems:
            where = f"{problem.file}:{problem.line}:{problem.column}: " if problem.line else ""
            key = f"{problem.key}: " if problem.key else ""
            value = f"{problem.value!r} - " if problem.value else ""
            blame(path, name if isinstance(name, str) else None,
                  f"{where}{key}{value}{problem.expected}")  # fmt: skip
        return None


def _beside(folder: Path, name: str) -> str:
    """Return the path of a user's file that stands beside the scenario, else the name itself."""
    is_path = name.endswith((".yaml", ".yml")) or "/" in name
    return str(folder / name) if is_path and os.path.exists(folder / name) else name


def resolve_pools(
    cluster: ClusterSection, common: str | None, folder: Path, blame: Blame, assumptions: list[str]
) -> list[Pool]:
    """Return the pools of a cluster, their stack being `common` unless they name one; none if faulty."""
    sections = cluster.pools or (
        PoolSection.model_construct(name="", node=cluster.node or "", nodes=cluster.nodes or 1,
                    network=cluster.network),
    )  # fmt: skip
    pools = []
    for i, section in enumerate(sections):
        path: tuple[Any, ...] = ("cluster", "pools", i) if cluster.pools else ("cluster",)
        node = _load(load_node, _beside(folder, section.node), (*path, "node"), blame)
        if node and section.network:
            out = _network(section.network, folder, (*path, "network"), blame)
            node = replace(node, scale_out=out) if out else None
        stack = _stack(common, section, folder, path, node, blame, assumptions)
        nodes = _nodes(cluster, section, node, blame, assumptions)
        if node and stack and nodes:
            pools.append(Pool(section.name, node, nodes, stack))
    return pools if len(pools) == len(sections) else []


def _nodes(
    cluster: ClusterSection, section: PoolSection, node: Any, blame: Blame, assumptions: list[str]
) -> int | None:
    """Return how many nodes there are: as given, or those that hold `cluster.devices`."""
    if cluster.pools or cluster.devices is None or node is None:
        return section.nodes
    each: int = node.devices
    nodes, rest = divmod(cluster.devices, each)
    at = ("cluster", "devices")
    if rest:
        blame(at, cluster.devices, f"is no whole number of nodes of {node.devices} devices"
              f" ({node.name}); {nodes * node.devices or node.devices} would be")  # fmt: skip
        return None
    if cluster.nodes and cluster.nodes != nodes:
        blame(at, cluster.devices, f"is not what {cluster.nodes} nodes of {node.devices} hold; give one"
              " of nodes and devices")  # fmt: skip
        return None
    if not cluster.nodes:
        assumptions.append(
            f"cluster.nodes is not given: {nodes}, which hold {cluster.devices} devices"
        )
    return nodes


def _network(given: Any, folder: Path, path: tuple[Any, ...], blame: Blame) -> ScaleOut | None:
    """Return the network of a name, of a file beside the scenario, or of values written inline."""
    if isinstance(given, str):
        return _load(load_scale_out, _beside(folder, given), path, blame)  # type: ignore[no-any-return]
    try:
        return make_scale_out(given, folder)
    except InputError as error:
        for problem in error.problems:
            place = f"{problem.file}:{problem.line}: " if problem.line else ""
            key = tuple(part for part in problem.key.split(".") if part and part != "value")
            blame((*path, *key), problem.value or None, f"{place}{problem.expected}")
        return None


def _stack(
    common: str | None, section: PoolSection, folder: Path, path: tuple[Any, ...], node: Any,
    blame: Blame, assumptions: list[str],
) -> Stack | None:  # fmt: skip
    name = section.stack or common
    if name:
        at = (*path, "stack") if section.stack else ("stack",)
        return _load(load_stack, _beside(folder, name), at, blame)  # type: ignore[no-any-return]
    vendor = node.device.vendor if node else ""
    chosen = DEFAULT_STACKS.get(vendor, "megatron-core")
    assumptions.append(f"stack is not given: {chosen}, the usual one for {vendor or 'this vendor'}")
    return load_stack(chosen)


def _parallel(
    section: ParallelSection, pools: list[Pool], model: Model, assumptions: list[str]
) -> Parallel:
    stack = pools[0].stack
    devices = sum(pool.devices for pool in pools)
    column = section.tp * section.pp * section.cp
    dp = section.dp
    if dp is None:
        dp = max(devices // column, 1)
        assumptions.append(f"parallel.dp is not given: {dp}, what {devices} devices leave")

    def default(key: str, given: Any, fallback: str) -> str:
        if given is not None:
            return str(given).lower()
        value = stack.defaults.get(key, fallback)
        assumptions.append(f"parallel.{key} is not given: {value}, the default of {stack.name}")
        return value

    spread = (
        default("sequence_parallel", section.sequence_parallel, "true")
        if section.tp > 1
        else "false"
    )
    cp_comm = default("cp_comm", section.cp_comm, "p2p") if section.cp > 1 else "p2p"
    apart = section.ep > 1 and section.tp * section.cp > 1  # else both layouts are one
    folded = default("expert_layout", section.expert_layout, "folded") if apart else "folded"
    schedule, custom = section.schedule, ()
    if isinstance(schedule, dict):
        custom, schedule = tuple(schedule.get("orders", ())), "custom"  # type: ignore[assignment]
    if section.pp == 1:
        schedule = schedule or "1f1b"
    if section.vp > 1 and not section.schedule:
        schedule = "interleaved"
        assumptions.append(
            "parallel.schedule is not given: interleaved, for a stage has several chunks"
        )
    return Parallel(
        tp=section.tp, pp=section.pp, vp=section.vp, cp=section.cp, ep=section.ep,
        etp=section.etp, dp=dp, sequence_parallel=spread == "true",
        zero=int(default("zero", section.zero, "1")), shard=section.shard,  # type: ignore[arg-type]
        schedule=default("schedule", schedule, "1f1b"), custom_schedule=custom,
        recompute=default("recompute", section.recompute, "none"),  # type: ignore[arg-type]
        chunk_layers=section.chunk_layers, mixed=section.mixed, stage_pools=section.stage_pools,
        batch_split=section.batch_split, recompute_modules=section.recompute_modules,
        recompute_layers=section.recompute_layers, recompute_group=section.recompute_group,
        cp_comm=cp_comm, cp_inner=section.cp_inner or 1, expert_layout=folded,  # type: ignore[arg-type]
    )  # fmt: skip


def _split_assumed(model: Model, parallel: Parallel) -> Iterator[str]:
    """Say how layers are dealt out where nothing is said and as many in each do not go, or weigh alike."""
    if parallel.chunk_layers or parallel.pp * parallel.vp > model.layers:
        return
    length = pipeline_length(parallel)
    if not 1 < length <= model.layers:
        return
    counts = even_or_by_load(model, length)
    heaviest = max(chunk_loads(model, counts)) / (sum(chunk_loads(model, counts)) / length) - 1.0
    if model.layers % length:
        yield (f"parallel.chunk_layers is not given: {model.layers} layers do not divide over {length}"
               f" chunks and are dealt out by load: {shown_split(counts)};"
               f" the heaviest has {heaviest:.0%} more than the mean")  # fmt: skip
    elif len(model.kinds) > 1 and heaviest > 0.02:
        yield (f"parallel.chunk_layers is not given: {counts[0]} layers in each of {length} chunks,"
               f" as frameworks deal them; their kinds differ, and the heaviest chunk has"
               f" {heaviest:.0%} more weights at work than the mean")  # fmt: skip


def resolve_fabric(section: FabricSection) -> FabricSpec:
    """Return where a job stands in its network, as a `fabric` section says."""
    own = isinstance(section.placement, tuple)
    return FabricSpec(
        size=section.size,
        placement="given" if own else str(section.placement),
        positions=tuple(section.placement) if own else (),  # type: ignore[arg-type]
        rank_order=section.rank_order, routing=section.routing, connections=section.connections,
        background=section.background, contention=section.contention,
        faults=_faults(section.faults),
    )  # fmt: skip


def _faults(sections: tuple[FaultSection, ...]) -> tuple[Fault, ...]:
    return tuple(Fault(f.part, f.at, f.left) for f in sections)


def _precision(spec: ScenarioFile, pools: list[Pool], assumptions: list[str]) -> Precision:
    """Return the format of the products: as given, or the 16 bits that all devices multiply."""
    devices = [pool.node.device for pool in pools]
    lacking = list(dict.fromkeys(d.title for d in devices if not d.supports("bf16")))
    given = "precision" in spec.training.model_fields_set
    fp16 = bool(lacking) and all(d.supports("fp16") for d in devices)
    precision: Precision = spec.training.precision if given or not fp16 else "fp16"
    if not given:
        assumptions.append(f"training.precision is not given: {precision}")
    if lacking and precision == "fp16":
        assumptions.append(f"{', '.join(lacking)} multiplies no bf16: in fp16 the loss is scaled, and"
                           " steps that overflow are skipped; neither costs time here")  # fmt: skip
    return precision


def _training(spec: ScenarioFile, pools: list[Pool], assumptions: list[str]) -> Training:
    t = spec.training
    precision = _precision(spec, pools, assumptions)
    document = float(t.document_tokens or 0)
    recipe = t.recipe or ("nvfp4" if precision == "fp4" else "")
    if words := cast_words(recipe, pools[0].stack.name):
        assumptions.append(words)
    return Training(
        t.sequence_length, t.global_batch, t.micro_batch, precision, 0.0, document, recipe
    )


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
            Condition(c.name, c.rate, c.duration, _faults(c.faults), c.background)
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
    """Return the nodes kept ready for so many: 2 %, at least two, but no more than one for eight.

    >>> [default_spares(n) for n in (1, 7, 8, 16, 128, 1024)]
    [0, 0, 1, 2, 3, 21]
    """
    return min(max(math.ceil(nodes * SPARE_SHARE), 2), nodes // 8)


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
        said.append(
            f"job.spare_nodes is not given: {dealt} (2 %, at least 2, at most one for eight)"
        )
        return sum(each.values()), each if len(pools) > 1 else {}
    if len(pools) > 1 and spares:
        shares = shared_out(spares, [pool.nodes for pool in pools])
        dealt = ", ".join(f"{n} of {p.name}" for n, p in zip(shares, pools, strict=True))
        said.append(f"job.spare_nodes is not given by pool: {dealt}, in proportion to their nodes")
    return spares, {}


def _published(spec: ScenarioFile, blame: Blame) -> Iterator[Published]:
    for i, row in enumerate(spec.published):
        value = row.value
        if isinstance(value, str):
            last = row.metric.rsplit(".", 1)[-1]
            unit = next((u for end, u in METRIC_UNITS.items() if last.endswith(end)), "fraction")
            try:
                value = parse_quantity(value, unit)
            except UnitError as error:
                blame(("published", i, "value"), row.value, str(error))
                continue
        if value <= 0:
            blame(("published", i, "value"), row.value, "expected a value above 0")
            continue
        yield Published(row.metric, value, row.source)


def _catalogue_assumptions(pools: list[Pool]) -> Iterator[str]:
    """Name the values of the catalogue that are assumptions themselves."""
    seen = set()
    for pool in pools:
        for part in (
            pool.node.device,
            pool.node.scale_up,
            pool.node.scale_out,
            pool.node,
            pool.stack,
        ):
            for fact in part.facts.values():
                used = fact.key not in EXPORT_ONLY
                if used and fact.confidence == "assumed" and (part.name, fact.key) not in seen:
                    seen.add((part.name, fact.key))
                    why = f" ({fact.note})" if fact.note else ""
                    yield f"{part.name}: {fact.key} is taken as {fact.text}{why}"
