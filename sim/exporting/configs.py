"""Configurations: Primus, torchtitan, NeMo Automodel, DeepSpeed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ersatz.sim.exporting.megatron import (
    layout_options,
    model_options,
    training_options,
    unsaid,
)
from ersatz.sim.exporting.phases import grows, phases_unsaid, tokens_said
from ersatz.sim.exporting.record import Exported, remarks
from ersatz.sim.importing.models import name_of_model
from ersatz.sim.plan.layout import even_split, pipeline_length
from ersatz.sim.scenario.scenario import Scenario

SCHEDULES = {
    "1f1b": "1F1B",
    "gpipe": "GPipe",
    "interleaved": "Interleaved1F1B",
    "zb-v": "ZBVZeroBubble",
    "dualpipev": "DualPipeV",
}


def to_primus(scenario: Scenario) -> Exported:
    """Return an experiment of Primus; machines come from its surroundings."""
    rows = [*model_options(scenario.model, scenario.parallel.tp), *training_options(scenario),
            *layout_options(scenario)]  # fmt: skip
    given = {row.key: "true" if row.value is None else _quoted(row.value) for row in rows}
    for switch in (
        "use_distributed_optimizer",
        "bf16",
        "untie_embeddings_and_output_weights",
        "swiglu",
    ):
        given.setdefault(switch, "false")  # on by Primus's defaults
    if ramp := grows(scenario):
        given["rampup_batch_size"] = f"[{ramp.start}, {ramp.increment}, {ramp.sequences}]"
        given["train_iters"] = "null"
    given.setdefault("train_iters", "1000")
    lost = [*unsaid(scenario), "cluster: nodes are given where Primus is started"]
    lines = ["modules:", "  pre_trainer:", "    framework: megatron", "    config: pre_trainer.yaml",
             "    model: language_model.yaml", "    overrides:"]  # fmt: skip
    lines += [f"      {key}: {value}" for key, value in given.items()]
    return _exported(scenario, "primus", lines, lost)


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text) if isinstance(value, str) and not text.isalnum() else text


def to_torchtitan(scenario: Scenario) -> Exported:
    """Return a job file of torchtitan (until February 2026); models by the name of their flavor."""
    parallel, training = scenario.parallel, scenario.training
    name = name_of_model(scenario.model)
    sharded = parallel.shard or parallel.dp
    schedule = SCHEDULES.get(parallel.schedule, "1F1B")
    local = training.micro_batch if parallel.pp == 1 else training.global_batch // parallel.dp
    sections: dict[str, Mapping[str, Any]] = {
        "model": _flavor(name),
        "training": {"local_batch_size": local, "global_batch_size": training.global_batch,
                     "seq_len": training.sequence_length} | _steps(scenario, "steps"),
        "parallelism": {
            "data_parallel_replicate_degree": parallel.dp // sharded if parallel.zero else parallel.dp,
            "data_parallel_shard_degree": sharded if parallel.zero else 1,
            "tensor_parallel_degree": parallel.tp, "pipeline_parallel_degree": parallel.pp,
            "context_parallel_degree": parallel.cp,
        } | _pipeline(scenario, schedule) | _experts(scenario),
        "activation_checkpoint": {"mode": parallel.recompute, "selective_ac_option": "op"},
        "compile": {"enable": True},
    }  # fmt: skip
    if training.precision == "fp8":
        sections["model"] = {**sections["model"], "converters": ["float8"]}
    if _all_away(scenario):
        sections["training"] = {**sections["training"], "enable_cpu_offload": True}
    lines = []
    for section, values in sections.items():
        lines += [f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in values.items()), ""]
    return _exported(scenario, "torchtitan", lines, _titan_unsaid(scenario, name))


def _flavor(name: str) -> dict[str, str]:
    family, _, size = name.rpartition("-")
    return {"name": family, "flavor": size.upper()} if name else {}


def _pipeline(scenario: Scenario, schedule: str) -> dict[str, Any]:
    parallel = scenario.parallel
    if parallel.pp == 1:
        return {}
    length = pipeline_length(parallel)
    chunks = list(parallel.chunk_layers or even_split(scenario.model.layers, length))
    return {"pipeline_parallel_schedule": schedule, "pipeline_parallel_microbatch_size":
            scenario.training.micro_batch, "pipeline_parallel_layers_per_stage": max(chunks),
            "pipeline_parallel_first_stage_less_layers": max(chunks) - chunks[0],
            "pipeline_parallel_last_stage_less_layers": max(chunks) - chunks[-1],
            "fsdp_reshard_after_forward": "always" if parallel.zero == 3 else "never"}  # fmt: skip


def _experts(scenario: Scenario) -> dict[str, Any]:
    parallel = scenario.parallel
    return {"expert_parallel_degree": parallel.ep, "expert_tensor_parallel_degree": parallel.etp} if (
        scenario.model.experts) else {}  # fmt: skip


def _steps(scenario: Scenario, key: str) -> dict[str, int]:
    training = scenario.training
    steps = tokens_said(scenario) / training.sequence_length / training.global_batch
    return {key: round(steps)} if steps >= 1 else {}


def _toml(value: object) -> str:
    return json.dumps(value)


def _all_away(scenario: Scenario) -> bool:
    """Tell whether FSDP's one switch says it: shards of weights and their state are the host's."""
    stack = scenario.pools[0].stack
    return stack.optimizer_offload == stack.weights_offload == 1 and not stack.updates_on_device


def _away_unsaid(scenario: Scenario, *, switch: bool) -> Iterator[str]:
    """Yield what is on the host and cannot be said; `switch` says that all of weights and state is."""
    stack = scenario.pools[0].stack
    if not (switch and _all_away(scenario)):
        for key in ("optimizer_offload", "weights_offload"):
            if share := getattr(stack, key):
                yield f"memory.{key} {share:g}: no key says it"
    if stack.activation_offload:
        yield f"memory.activation_offload {stack.activation_offload:g}: no key says it"


def _titan_unsaid(scenario: Scenario, name: str) -> Iterator[str]:
    parallel = scenario.parallel
    yield from phases_unsaid(scenario)
    yield from _away_unsaid(scenario, switch=True)
    if len(set(parallel.chunk_layers[1:-1])) > 1:
        yield "parallel.chunk_layers: but for the ends layers are dealt out evenly"
    if scenario.fabric:
        yield "fabric: where ranks and nodes stand in the network"
    if not name:
        yield "model: no flavor of these sizes is known; add one"
    if parallel.schedule not in SCHEDULES:
        yield f"parallel.schedule {parallel.schedule}"
    if parallel.zero == 1:
        yield "parallel.zero 1: FSDP shards weights or gradients, too (taken as 2 or 3)"
    if parallel.tp > 1 and not parallel.sequence_parallel:
        yield "parallel.sequence_parallel false: tensor parallelism implies it"
    if parallel.recompute == "selective":
        yield "parallel.recompute_modules: every second product is what selective means"
    if scenario.training.precision in ("fp16", "fp32", "fp4"):
        yield f"training.precision {scenario.training.precision}"
    yield "cluster: nodes are given where the job is started"


def to_automodel(scenario: Scenario) -> Exported:
    """Return a recipe of NeMo Automodel; models by name."""
    parallel, training = scenario.parallel, scenario.training
    name = name_of_model(scenario.model)
    pipeline = {"pp_schedule": "interleaved1f1b" if parallel.vp > 1 else "1f1b",
                "pp_microbatch_size": training.micro_batch,
                "layers_per_stage": -(-scenario.model.layers // (parallel.pp * parallel.vp))}  # fmt: skip
    local = training.micro_batch if parallel.pp == 1 else training.global_batch // parallel.dp
    steps = _steps(scenario, "max_steps")
    lines = [
        "recipe: TrainFinetuneRecipeForNextTokenPrediction",
        f"benchmark: {{num_nodes: {scenario.pools[0].nodes}}}",
        "step_scheduler:", f"  global_batch_size: {training.global_batch}", f"  local_batch_size: {local}",
        *(f"  {key}: {value}" for key, value in steps.items()),
        "distributed:", "  strategy: fsdp2",
        *(f"  {key}_size: {getattr(parallel, key)}" for key in ("dp", "tp", "cp", "pp", "ep")),
        f"  sequence_parallel: {str(parallel.sequence_parallel and parallel.tp > 1).lower()}",
        f"  activation_checkpointing: {str(parallel.recompute == 'full').lower()}",
        f"  reshard_after_forward: {str(parallel.zero == 3).lower()}",
        *(["  pipeline:", *(f"    {k}: {v}" for k, v in pipeline.items())] if parallel.pp > 1 else []),
        "model:", f"  pretrained_model_name_or_path: {name or 'YOUR-MODEL'}",
        "dataset:", f"  seq_len: {training.sequence_length}",
    ]  # fmt: skip
    if training.precision == "fp8":
        lines += ["fp8: {enabled: true}"]
    return _exported(scenario, "automodel", lines, _automodel_unsaid(scenario, name))


def _automodel_unsaid(scenario: Scenario, name: str) -> Iterator[str]:
    parallel = scenario.parallel
    yield from phases_unsaid(scenario)
    yield from _away_unsaid(scenario, switch=False)
    if scenario.fabric:
        yield "fabric: where ranks and nodes stand in the network"
    if not name:
        yield "model: no name of these sizes is known"
    if parallel.zero < 2:
        yield f"parallel.zero {parallel.zero}: FSDP2 shards gradients, too (2)"
    if parallel.recompute == "selective":
        yield "parallel.recompute selective: all of a layer, or nothing"
    if parallel.etp > 1:
        yield f"parallel.etp {parallel.etp}"
    if parallel.chunk_layers:
        yield "parallel.chunk_layers: layers are dealt out evenly"
    if scenario.training.precision in ("fp16", "fp32", "fp4"):
        yield f"training.precision {scenario.training.precision}"


def to_deepspeed(scenario: Scenario) -> Exported:
    """Return DeepSpeed's settings."""
    parallel, training = scenario.parallel, scenario.training
    rounds = training.global_batch // (training.micro_batch * parallel.dp)
    settings: dict[str, Any] = {
        "train_batch_size": training.global_batch,
        "train_micro_batch_size_per_gpu": training.micro_batch,
        "gradient_accumulation_steps": rounds,
        "bf16": {"enabled": training.precision == "bf16"},
        "fp16": {"enabled": training.precision == "fp16"},
        "zero_optimization": {"stage": parallel.zero, "overlap_comm": True},
    }
    stack = scenario.pools[0].stack
    if stack.optimizer_offload:
        settings["zero_optimization"]["offload_optimizer"] = _host(stack.optimizer_offload)
    if stack.weights_offload:
        settings["zero_optimization"]["offload_param"] = _host(stack.weights_offload)
    if stack.activation_offload == 1:
        settings["activation_checkpointing"] = {"cpu_checkpointing": True}
    lost = ["model, training.sequence_length and cluster: they stand in the command"]
    lost += phases_unsaid(scenario)
    lost += [f"parallel.{key} {getattr(parallel, key)}" for key in ("tp", "pp", "cp", "ep")
             if getattr(parallel, key) > 1]  # fmt: skip
    lost += [f"parallel.recompute {parallel.recompute}: the model's own business"] * (
        parallel.recompute != "none")  # fmt: skip
    return Exported(scenario.name, "deepspeed", json.dumps(settings, indent=2) + "\n", tuple(lost))


def _host(share: float) -> dict[str, Any]:
    return {"device": "cpu"} | ({"ratio": share} if share < 1 else {})


def _exported(scenario: Scenario, name: str, lines: list[str], lost: Any) -> Exported:
    said = tuple(lost)
    return Exported(scenario.name, name, "\n".join([*lines, *remarks(said)]) + "\n", said)
