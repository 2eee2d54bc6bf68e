"""NeMo Automodel: recipes in YAML."""

from __future__ import annotations

from collections.abc import Mapping

from ersatz.device_models.text.yamltext import YamlText
from ersatz.sim.importing.configs.environment import filled_in
from ersatz.sim.importing.configs.stages import split_evenly
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Flags, Given
from ersatz.sim.importing.flat import flat_yaml
from ersatz.sim.importing.known import flag_table, sort_rest
from ersatz.sim.importing.models import assume_targets, put_attention, put_model, put_targets
from ersatz.sim.workload.adapters import MODULES

D = "distributed."
DTYPES = {
    "auto": "bf16", "bf16": "bf16", "bfloat16": "bf16", "torch.bfloat16": "bf16", "float16": "fp16",
    "torch.float16": "fp16", "fp32": "fp32", "float32": "fp32", "torch.float32": "fp32",
}  # fmt: skip
_MODELS = ("model.config.pretrained_model_name_or_path", "model.pretrained_model_name_or_path")


def read_automodel(text: YamlText, defines: Mapping[str, str]) -> Draft:
    """Return the draft of a recipe; devices of a machine are not in it."""
    draft = Draft(text.file, "automodel-yaml", "nemo automodel, August 2026")
    leaves = {k: filled_in(v, defines, draft) for k, v in flat_yaml(text).items()}
    _refuse_others(draft, leaves)
    flags = Flags({_since(key): one for key, one in leaves.items()}, draft)
    draft.put("cluster.nodes", flags.whole("cluster.nodes", "benchmark.num_nodes", "num_nodes"))
    named = flags.find(*_MODELS)
    flags.used.update(name for name in _MODELS if name in leaves)
    put_model(draft, named)
    put_attention(flags, "model.attn_implementation")
    draft.put("model.lora_rank", flags.whole("model.lora_rank", "peft.dim"))
    _degrees(flags)
    _training(flags)
    _pipeline(flags)
    _sharding(flags)
    _targets(flags)
    if flags.on("memory.frozen_weights", "quantization.load_in_4bit"):
        draft.put("memory.frozen_weights", "4-bit")
    draft.put("stack", "automodel")
    draft.assume(
        "stack",
        "automodel",
        "fitted to published runs of it; the optimiser's state is taken as fp32",
    )
    sort_rest(flags, flag_table("automodel"))
    return draft


# Sections of what trains in another way than a language model by its next token, or beside another model.
OTHERS = {
    "flow_matching.": "trains a diffusion model, which is not simulated; language models are",
    "dllm.": "trains a language model by diffusion, where attention looks both ways: not simulated",
    "teacher_model.": "distils: the teacher's forward pass, and its memory, are not simulated",
    "kd_loss_fn.": "distils: the teacher's forward pass, and its memory, are not simulated",
}


# What stands in the name of a recipe that trains something else beside or in place of a language model.
RECIPES = {
    "Eagle": "a draft model", "DSpark": "a draft model", "DFlash": "a draft model", "Vispec": "a draft model",
    "BiEncoder": "an encoder", "CrossEncoder": "an encoder", "Diffusion": "a diffusion model",
    "KnowledgeDistillation": "a student beside its teacher", "ASR": "a model of speech",
}  # fmt: skip


def _refuse_others(draft: Draft, leaves: Mapping[str, Given]) -> None:
    recipe = leaves.get("recipe") or leaves.get("recipe._target_")
    for mark, what in RECIPES.items() if recipe else ():
        if recipe and mark in recipe.value:
            draft.refuse(
                recipe.line, f"recipe: {recipe.value}", f"trains {what}, which is not simulated"
            )
    for key, one in leaves.items():
        words = next((words for section, words in OTHERS.items() if key.startswith(section)), "")
        if words:
            draft.refuse(one.line, one.shown, words)


def _since(key: str) -> str:
    """Return a key as it is called now; until 2025 the pipeline had a section of its own."""
    name = key.removeprefix("autopipeline.")
    return f"{D}pipeline.{name}" if name != key else key


def _targets(flags: Flags) -> None:
    """Which modules have adapters: by name, all, or all but some."""
    draft, key = flags.draft, "model.lora_targets"
    if not draft.values.get("model.lora_rank"):
        return
    if flags.on(key, "peft.match_all_linear"):
        draft.put(key, " ".join(MODULES))
    put_targets(flags, "peft.target_modules")
    assume_targets(draft, "Automodel")


def _degrees(flags: Flags) -> None:
    draft = flags.draft
    for key in ("tp", "pp", "cp"):
        draft.put(f"parallel.{key}", flags.whole(f"parallel.{key}", f"{D}{key}_size") or 1)
    dp = flags.whole("cluster.devices", f"{D}dp_size")
    if dp:
        draft.devices = dp
        for key in ("tp", "pp", "cp"):
            draft.devices *= draft.values[f"parallel.{key}"]
    ep = flags.whole("parallel.ep", f"{D}ep_size") or 1
    if "model.experts.routed" in draft.values or (draft.asked("model") and ep > 1):
        draft.put("parallel.ep", ep)
        draft.put("parallel.etp", 1)
    sliced = flags.on("parallel.sequence_parallel", f"{D}sequence_parallel")
    draft.put("parallel.sequence_parallel", sliced and draft.values["parallel.tp"] > 1)
    if draft.values["parallel.cp"] > 1:
        draft.put("parallel.cp_comm", "all_gather")
        draft.assume("parallel.cp_comm", "all_gather", "keys and values are gathered, as in PyTorch's context"
                     " parallelism")  # fmt: skip


def _training(flags: Flags) -> None:
    draft = flags.draft
    length = flags.whole("training.sequence_length", "dataset.seq_len", "dataset.seq_length",
                         "packed_sequence.packed_sequence_size")  # fmt: skip
    draft.put("training.sequence_length", length)
    if length is None:
        draft.ask(
            "training.sequence_length", "dataset.seq_len is not given: it comes from the data"
        )
    whole = flags.whole("training.global_batch", "step_scheduler.global_batch_size")
    local = flags.whole("training.micro_batch", "step_scheduler.local_batch_size")
    part = flags.whole("training.micro_batch", f"{D}pipeline.pp_microbatch_size")
    micro = (part or 1) if draft.values["parallel.pp"] > 1 else local
    draft.put("training.global_batch", whole)
    draft.put("training.micro_batch", micro)
    for key, value in (("global_batch", whole), ("micro_batch", micro)):
        if value is None:
            draft.ask(f"training.{key}", f"step_scheduler says no {key}")
    steps = flags.whole("training.steps", "step_scheduler.max_steps")
    draft.put("training.steps", steps)
    if steps is None:
        draft.ask("training.steps", "step_scheduler.max_steps is not given: the data decide")
    eight = flags.on("training.precision", "fp8.enabled")
    words = flags.choice("training.precision", "model.torch_dtype", DTYPES)
    whole_precision = DTYPES.get(words or "", "bf16")
    draft.put("training.precision", "fp8" if eight else whole_precision)
    if not eight and whole_precision == "bf16":
        draft.assume("training.precision", "bf16", "Automodel loads models in bf16")
    recompute = flags.on("parallel.recompute", f"{D}activation_checkpointing")
    draft.put("parallel.recompute", "full" if recompute else "none")


def _pipeline(flags: Flags) -> None:
    draft = flags.draft
    pp = draft.values["parallel.pp"]
    name = (flags.text("parallel.schedule", f"{D}pipeline.pp_schedule") or "1f1b").lower()
    each = flags.whole("parallel.vp", f"{D}pipeline.layers_per_stage")
    rounding = flags.text("parallel.vp", f"{D}pipeline.round_virtual_stages_to_pp_multiple")
    layers = draft.values.get("model.layers")
    if pp == 1:
        draft.put("parallel.vp", 1)
        return
    loops = "interleaved" in name or "zero" in name
    stages = pp * (2 if loops else 1)
    if each and layers:
        stages = _rounded(-(-layers // each), pp, rounding)
    if stages % pp:
        draft.contradict(f"{stages} stages of {each} layers are no multiple of pp_size {pp}")
        return
    draft.put("parallel.vp", stages // pp)
    draft.put("parallel.schedule", "interleaved" if loops and stages > pp else "1f1b")
    if loops and "interleaved1f1b" not in name:
        draft.assume("parallel.schedule", draft.values["parallel.schedule"], f"{name} is not modelled: the"
                     " nearest")  # fmt: skip
    if layers and layers % stages:
        draft.put("parallel.chunk_layers", split_evenly(layers, stages))


def _rounded(stages: int, pp: int, rounding: str | None) -> int:
    if rounding == "up":
        return -(-stages // pp) * pp
    return max(stages // pp, 1) * pp if rounding == "down" else stages


def _sharding(flags: Flags) -> None:
    draft, key = flags.draft, "parallel.zero"
    strategy = (flags.text(key, f"{D}strategy", f"{D}_target_") or "fsdp2").lower()
    if not any(word in strategy for word in ("ddp", "fsdp")):
        given = flags.find(f"{D}strategy", f"{D}_target_")
        draft.blame(key, given.line if given else 0, f"{D}strategy", strategy,
                    "expected ddp, fsdp2 or megatron_fsdp")  # fmt: skip
    stated = flags.given.get(f"{D}reshard_after_forward")
    reshard = flags.on(key, f"{D}reshard_after_forward")
    replicas = flags.whole("parallel.shard", f"{D}dp_replicate_size")
    if "ddp" in strategy:
        draft.put(key, 0)
        return
    if stated is None or stated.value == "null":
        reshard = draft.values["parallel.pp"] == 1
        draft.assume(key, 3 if reshard else 2, "reshard_after_forward is not given: not under pipeline"
                     " parallelism, else yes")  # fmt: skip
    draft.put(key, 3 if reshard else 2)
    if replicas and replicas > 1 and draft.devices:
        column = (
            draft.values["parallel.tp"] * draft.values["parallel.pp"] * draft.values["parallel.cp"]
        )
        draft.put("parallel.shard", draft.devices // column // replicas)
    elif replicas and replicas > 1:
        draft.ask(
            "parallel.shard",
            f"dp_replicate_size {replicas}: replicas that share one copy of the state",
        )
