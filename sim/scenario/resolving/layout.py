"""How a job is laid out and what a step processes; what is not given is the default of the stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ersatz.sim.plan.layout import chunk_loads, even_or_by_load, pipeline_length, shown_split
from ersatz.sim.scenario.formats import cast_words
from ersatz.sim.scenario.scenario import (
    Parallel,
    Pool,
    Precision,
    Training,
)
from ersatz.sim.scenario.schema import ScenarioFile
from ersatz.sim.scenario.sections.layout import ParallelSection
from ersatz.sim.workload.model import Model

Blame = Callable[..., None]


def resolve_parallel(
    section: ParallelSection, pools: list[Pool], model: Model, assumptions: list[str]
) -> Parallel:
    """Return the layout; what is not given is said, with the stack's default or what devices leave."""
    stack = pools[0].stack
    devices = sum(pool.devices for pool in pools)
    column = section.tp * section.pp * section.cp
    dp = section.dp
    if dp is None:
        dp = max(devices // column, 1)
        if not section.pools:
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


def split_assumed(model: Model, parallel: Parallel) -> Iterator[str]:
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


def resolve_training(spec: ScenarioFile, pools: list[Pool], assumptions: list[str]) -> Training:
    """Return what one step processes; the format of its products is said where it is not given."""
    t = spec.training
    precision = _precision(spec, pools, assumptions)
    document = float(t.document_tokens or 0)
    recipe = t.recipe or ("nvfp4" if precision == "fp4" else "")
    if words := cast_words(recipe, pools[0].stack.name):
        assumptions.append(words)
    return Training(
        t.sequence_length, t.global_batch, t.micro_batch, precision, 0.0, document, recipe
    )


def left_open(spec: ScenarioFile, pools: list[Pool]) -> tuple[str, ...]:
    """Return what a case leaves open that several devices make a question."""
    if "parallel" in spec.model_fields_set or sum(pool.devices for pool in pools) == 1:
        return ()
    found = ["parallel"]
    if "micro_batch" not in spec.training.model_fields_set:
        found.append("micro_batch")
    if not any(name.endswith(("_offload", "_update")) for name in spec.memory.model_fields_set):
        found.append("offload")
    return tuple(found)
