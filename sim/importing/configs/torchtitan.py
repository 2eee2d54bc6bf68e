"""torchtitan: job files in TOML (until February 2026) and what newer ones write as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from ersatz.device_models.text.digits import is_whole
from ersatz.sim.importing.configs.stages import split_weighted
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Flags, Given
from ersatz.sim.importing.flat import flat_json, flat_toml
from ersatz.sim.importing.known import flag_table, sort_rest
from ersatz.sim.importing.models import put_model
from ersatz.sim.plan.orders import V_SHAPED
from ersatz.sim.scenario.scenario import Parallel

VERSION = "torchtitan 0.2.2"
P, T = "parallelism.", "training."
# Names of 2024, and what they are called since.
OLDER = {
    "training.batch_size": "training.local_batch_size",
    "training.data_parallel_shard_degree": "parallelism.data_parallel_shard_degree",
    "training.data_parallel_replicate_degree": "parallelism.data_parallel_replicate_degree",
    "training.data_parallel_degree": "parallelism.data_parallel_shard_degree",
    "training.tensor_parallel_degree": "parallelism.tensor_parallel_degree",
    "training.enable_float8_linear": "float8.enable_float8_linear",
    "training.compile": "compile.enable",
    "experimental.pipeline_parallel_degree": "parallelism.pipeline_parallel_degree",
    "experimental.context_parallel_degree": "parallelism.context_parallel_degree",
    "experimental.pipeline_parallel_schedule": "parallelism.pipeline_parallel_schedule",
    "experimental.pipeline_parallel_microbatches": "parallelism.pipeline_parallel_microbatches",
    "experimental.enable_async_tensor_parallel": "parallelism.enable_async_tensor_parallel",
    "model.flavour": "model.flavor",
}
SCHEDULES = {
    "1f1b": "1f1b",
    "gpipe": "gpipe",
    "interleaved1f1b": "interleaved",
    "zbvzerobubble": "zb-v",
    "dualpipev": "dualpipev",
}


def read_toml(text: str, file: str, overrides: Mapping[str, Given] | None = None) -> Draft:
    """Return the draft of a job file; `overrides` are arguments of a command line over it."""
    given = flat_toml(text, file)
    given |= {key: value for key, value in (overrides or {}).items() if "." in key}
    return _read(Draft(file, "torchtitan-toml", VERSION), given)


def read_dump(text: str, file: str) -> Draft:
    """Return the draft of a configuration that torchtitan wrote as JSON."""
    return _read(Draft(file, "torchtitan-json", "torchtitan, August 2026"), flat_json(text, file))


def is_dump(given: Mapping[str, Given]) -> bool:
    """Tell whether a JSON document is a configuration of torchtitan."""
    tops = {key.partition(".")[0] for key in given}
    return {"training", "parallelism"} <= tops


def read_given(
    draft: Draft, given: Mapping[str, Given], model: Given | None, stack: str | None = None
) -> Draft:
    """Return the draft of torchtitan's keys that stand in another file, which may name the model."""
    return _read(draft, dict(given), model, stack)


def _read(
    draft: Draft, given: dict[str, Given], model: Given | None = None, stack: str | None = None
) -> Draft:
    flags = Flags({OLDER.get(key, key): one for key, one in given.items()}, draft)
    if model is None:
        _model(flags)
    else:
        put_model(draft, model)
    _degrees(flags)
    _training(flags)
    _pipeline(flags)
    _sharding(flags)
    _recompute(flags)
    _keeping(flags)
    _stack(flags)
    if stack:
        draft.put("stack", stack)
    sort_rest(flags, flag_table("torchtitan"))
    return draft


def _model(flags: Flags) -> None:
    name = flags.find("model.name", "model_spec.name", "model.model_name")
    flavor = flags.find("model.flavor", "model_spec.flavor")
    flags.used.update({"model.name", "model.flavor", "model_spec.name", "model_spec.flavor"})
    if name is None or flavor is None:
        put_model(flags.draft, None)
        return
    put_model(flags.draft, replace(flavor, words=(f"{name.value}-{flavor.value}",)))
    flags.draft.note("model", name.shown, name.value, name.line, name.file)


def _degree(flags: Flags, key: str, name: str, default: int = 1) -> int | None:
    value = flags.whole(key, P + name)
    return value if value is not None or flags.draft.asked(key) else default


def _degrees(flags: Flags) -> None:
    draft = flags.draft
    degrees = {}
    for key, name in (("tp", "tensor"), ("pp", "pipeline"), ("cp", "context")):
        degrees[key] = _degree(flags, f"parallel.{key}", f"{name}_parallel_degree")
        draft.put(f"parallel.{key}", degrees[key])
    sliced = _on_by_default(flags, "parallel.sequence_parallel", P + "enable_sequence_parallel")
    draft.put("parallel.sequence_parallel", sliced and (degrees["tp"] or 1) > 1)
    ep = _degree(flags, "parallel.ep", "expert_parallel_degree")
    etp = _degree(flags, "parallel.etp", "expert_tensor_parallel_degree")
    if "model.experts.routed" in draft.values or (draft.asked("model") and ep != 1):
        draft.put("parallel.ep", ep)
        draft.put("parallel.etp", etp)
    if (degrees["cp"] or 1) > 1:
        method = flags.choice(
            "parallel.cp_comm", P + "context_parallel_rotate_method", ("allgather", "alltoall")
        )
        draft.put("parallel.cp_comm", "p2p" if method == "alltoall" else "all_gather")
    replicate = _degree(flags, "parallel.shard", "data_parallel_replicate_degree") or 1
    shard = _degree(flags, "parallel.shard", "data_parallel_shard_degree", -1)
    if shard and shard > 0 and all(degrees.values()):
        column = 1
        for degree in degrees.values():
            column *= degree or 1
        draft.devices = replicate * shard * column
        draft.note("cluster.devices", "degrees", str(draft.devices), 0)
        if replicate > 1:
            draft.put("parallel.shard", shard)
    elif replicate > 1:
        draft.ask("parallel.shard", "data_parallel_shard_degree is what the devices leave")
    draft.values["_replicas"] = (replicate, shard)


def _on_by_default(flags: Flags, key: str, name: str) -> bool:
    return flags.on(key, name) if name in flags.given else True


def _training(flags: Flags) -> None:
    draft = flags.draft
    length = _with_default(flags, "training.sequence_length",
                           (T + "seq_len", T + "max_context_length"), 2048)  # fmt: skip
    tokens = flags.whole("training.micro_batch", T + "num_tokens_per_microbatch_per_dp_rank")
    if tokens and length:
        local: int | None = tokens // length
    elif draft.format == "torchtitan-json" and length:
        local = 16384 // length
        draft.assume(
            "training.micro_batch",
            local,
            "num_tokens_per_microbatch_per_dp_rank is not given: 16384",
        )
    else:
        local = _with_default(flags, "training.micro_batch", (T + "local_batch_size",), 8)
    draft.values["_local"] = local
    pp = draft.values.get("parallel.pp") or 1
    if pp > 1 and draft.format == "torchtitan-toml":
        micro = _with_default(
            flags, "training.micro_batch", (P + "pipeline_parallel_microbatch_size",), 1
        )
        parts = flags.whole("training.micro_batch", P + "pipeline_parallel_microbatches")
        draft.put("training.micro_batch", local // parts if parts and local else micro)
    else:
        draft.put("training.micro_batch", local)
    _global_batch(flags, local, length)
    steps = _with_default(flags, "training.steps", (T + "steps",), 10_000)
    draft.put("training.steps", steps)
    _precision(flags)


def _with_default(flags: Flags, key: str, names: tuple[str, ...], default: int) -> int | None:
    value = flags.whole(key, *names)
    if value is None and not flags.draft.asked(key):
        flags.draft.assume(key, default, f"{names[0]} is not given: torchtitan's default")
        value = default
    if value is not None:
        flags.draft.put(key, value)
    return value


def _global_batch(flags: Flags, local: int | None, length: int | None) -> None:
    draft, key = flags.draft, "training.global_batch"
    whole = flags.whole(key, T + "global_batch_size")
    tokens = flags.whole(key, T + "num_tokens_per_train_step")
    rounds = flags.whole(key, P + "num_pp_microbatches") or 1
    if tokens and tokens > 0 and length:
        whole = tokens // length
    if whole and whole > 0:
        draft.put(key, whole)
        return
    replicate, shard = draft.values["_replicas"]
    if local and shard and shard > 0:
        draft.put(key, local * replicate * shard * rounds)
        draft.assume(
            key, draft.values[key], "global_batch_size is not given: local_batch_size x replicas"
        )
    else:
        draft.ask(key, f"global_batch_size is not given: local_batch_size {local} x the replicas that the"
                  " devices make")  # fmt: skip


def _precision(flags: Flags) -> None:
    draft, key = flags.draft, "training.precision"
    converters = flags.text(key, "model.converters", "model_converters") or ""
    _other_converters(flags, converters)
    older = flags.on(key, "float8.enable_float8_linear")
    linear = [name for name in re.split(r"[\[\],\s'\"]+", converters) if "grouped" not in name]
    if "grouped" in converters:
        draft.leave_out("converters", converters, 0, "time: experts' products in 8 bits, here in 16: their"
                        " part of the step up to half (an estimate)")  # fmt: skip
    if older or any("float8" in name for name in linear):
        draft.put(key, "fp8")
    elif any("mx" in name for name in linear):
        flags.take("training.recipe", "quantize.linear.mx.recipe_name")
        draft.put(key, "fp8")
        draft.put("training.recipe", "mxfp8")
    else:
        draft.put(key, "bf16")
        words = flags.text(key, T + "mixed_precision_param", T + "dtype")
        if words == "float32" and flags.find(T + "mixed_precision_param"):
            draft.put(key, "fp32")
        _say_idle_section(flags, key)


def _other_converters(flags: Flags, converters: str) -> None:
    """Converters that make no narrower products of linear layers: adapters, and what is not known."""
    given = flags.find("model.converters", "model_converters")
    for name in re.split(r"[\[\],\s'\"]+", converters):
        if given is None or not name or "float8" in name or "mx" in name:
            continue
        words = "a converter that is not known: what it makes of the model is not counted"
        if "lora" in name:
            words = "adapters: the whole model is taken to be trained; say model.lora_rank"
        flags.draft.leave_out(given.shown, name, given.line, words, given.file)


def _say_idle_section(flags: Flags, key: str) -> None:
    """Say that a section of quantisation without its converter does nothing."""
    section = next((name for name in flags.given if name.startswith("quantize.linear")), None)
    if section is not None:
        words = f"{section.rpartition('.')[0]} stands without its converter in model.converters: nothing is"
        flags.draft.assume(key, flags.draft.values[key], f"{words} quantised")


def _pipeline(flags: Flags) -> None:
    draft, key = flags.draft, "parallel.schedule"
    pp = draft.values.get("parallel.pp") or 1
    given = flags.take(key, P + "pipeline_parallel_schedule")
    each = flags.whole("parallel.vp", P + "pipeline_parallel_layers_per_stage")
    less = [flags.whole("parallel.chunk_layers", f"{P}pipeline_parallel_{end}_stage_less_layers")
            for end in ("first", "last")]  # fmt: skip
    first, last = (1 if n is None else n for n in less)
    if pp <= 1:  # below 1 the degree itself is refused
        draft.put("parallel.vp", 1)
        return
    name = (given.value if given else "1F1B").lower()
    if name not in SCHEDULES and given:
        draft.leave_out(given.shown, given.value, given.line, "a schedule that is not modelled: taken as the"
                        " nearest, 0 to 10 % of a step (an estimate)", given.file)  # fmt: skip
    schedule = SCHEDULES.get(name, "interleaved" if "interleaved" in name else "1f1b")
    draft.put(key, schedule)
    layers = draft.values.get("model.layers")
    loops = schedule in ("interleaved", *V_SHAPED)
    stages = pp * (2 if loops else 1)
    if each and layers:
        stages = -(-(layers + first + last) // each)
        if stages % pp:
            draft.contradict(f"{stages} stages of {each} layers are no multiple of pipeline_parallel_degree"
                             f" {pp}")  # fmt: skip
            return
    draft.put("parallel.vp", 1 if schedule in V_SHAPED else stages // pp)
    if layers:
        draft.put("parallel.chunk_layers", split_weighted(layers, stages, first, last))


def _sharding(flags: Flags) -> None:
    draft, key = flags.draft, "parallel.zero"
    _, shard = draft.values.pop("_replicas")
    draft.values.pop("_local", None)
    policies = ("default", "always", "never")
    policy = flags.choice(key, P + "fsdp_reshard_after_forward", policies) or "default"
    pp = draft.values.get("parallel.pp") or 1
    if shard == 1 and (draft.values.get("parallel.cp") or 1) == 1:
        draft.put(key, 0)
        return
    kept = policy == "never" or (policy == "default" and pp > 1)
    draft.put(key, 2 if kept else 3)


def _recompute(flags: Flags) -> None:
    draft, key = flags.draft, "parallel.recompute"
    mode = flags.text(key, "activation_checkpoint.mode")
    option = flags.text(key, "activation_checkpoint.selective_ac_option") or "2"
    if mode is None:
        mode = "selective"
        draft.assume(
            key, "selective", "activation_checkpoint.mode is not given: torchtitan's default"
        )
    if mode in ("none", "full"):
        draft.put(key, mode)
        return
    if mode == "selective" and is_whole(option):
        _every_layer(flags, int(option))
        return
    draft.put(key, "selective")
    if mode != "selective":
        draft.assume(
            key, "selective", f"activation_checkpoint.mode {mode}: taken as every second product"
        )


def _every_layer(flags: Flags, step: int) -> None:
    """Every n-th layer is computed again as a whole."""
    draft, key = flags.draft, "parallel.recompute"
    layers, pp = draft.values.get("model.layers"), draft.values.get("parallel.pp") or 1
    draft.put(key, "full")
    if step > 1 and layers and "recompute_layers" in Parallel.__dataclass_fields__:
        stages = pp * (draft.values.get("parallel.vp") or 1)
        draft.put("parallel.recompute_layers", max(-(-layers // stages) // step, 1))
    elif step > 1:
        given = flags.find("activation_checkpoint.selective_ac_option")
        draft.leave_out("activation_checkpoint.selective_ac_option", str(step), given.line if given else 0,
                        f"every {step}. layer is computed again, here all: less time and more memory than"
                        " predicted")  # fmt: skip


def _keeping(flags: Flags) -> None:
    """State on the host; all of it in 16 bits where the training's dtype is that."""
    draft = flags.draft
    if flags.on("memory.weights_offload", T + "enable_cpu_offload"):
        if draft.values.get("parallel.zero") == 3:
            draft.put("memory.weights_offload", 1.0)
        draft.put("memory.optimizer_offload", 1.0)
    words = flags.find(T + "dtype")
    if words and words.value in ("bfloat16", "bf16"):
        flags.take("memory.master_weights", T + "dtype")
        draft.put("memory.master_weights", "none")
        draft.put("memory.moments", "bf16")


def _stack(flags: Flags) -> None:
    draft, key = flags.draft, "stack"
    rowwise = (
        flags.text(key, "float8.recipe_name", "quantize.linear.float8.recipe_name") or ""
    ) == "rowwise"
    enabled = flags.on(key, P + "enable_async_tensor_parallel")
    compiled = flags.on(key, "compile.enable")
    parts = flags.text(key, "compile.components")
    if compiled and parts is not None and "model" not in re.split(r"[\[\],\s'\"]+", parts):
        compiled = False
    draft.put(key, f"torchtitan{'-rowwise' if rowwise else ''}{'-async' if enabled else ''}")
    if not compiled:
        draft.assume("stack (compile.enable)", "on", "compile.enable is off, and the stack compiles: the step"
                     " is 5 to 15 % longer than predicted (an estimate)")  # fmt: skip
