"""Recipes of fine-tuners in YAML: LLaMA-Factory, Axolotl; and DeepSpeed's settings alone."""

from __future__ import annotations

from collections.abc import Mapping

from ersatz.device_models.text.problems import InputError, Problem
from ersatz.device_models.text.yamltext import YamlText
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Flags, Given
from ersatz.sim.importing.flat import flat_json, flat_yaml
from ersatz.sim.importing.megatron.layout import read_degrees
from ersatz.sim.importing.shell.pieces import Value
from ersatz.sim.importing.trainers.trainer import (
    REINFORCED,
    Names,
    settings_of,
    translate_trainer,
)

LLAMA_FACTORY = Names(
    length=("cutoff_len",), length_default=2048, micro_default=8, rank=("lora_rank",), rank_default=8,
    recompute_default=True, defaults_of="LLaMA-Factory",
)  # fmt: skip
AXOLOTL = Names(
    model=("base_model",), length=("sequence_len",), micro=("micro_batch_size",), micro_default=1,
    rank=("lora_r",), packs=("sample_packing",), defaults_of="Axolotl",
)  # fmt: skip
TRAINED = ("pt", "sft")  # stages of LLaMA-Factory that train by the next token


def read_llamafactory(text: YamlText, defines: Mapping[str, str]) -> Draft:
    """Return the draft of a LLaMA-Factory recipe."""
    draft = Draft(text.file, "llamafactory-yaml")
    put_llamafactory(Flags(flat_yaml(text), draft), {})
    return draft


def put_llamafactory(flags: Flags, written: Mapping[str, Value]) -> None:
    """Fill the draft from arguments of LLaMA-Factory; `written` are files that a script makes."""
    draft = flags.draft
    _refuse(flags, "stage")
    _refuse_others(flags)
    _by_megatron(flags)
    if flags.on("training.precision", "fp8"):
        draft.put("training.precision", "fp8")
        flags.take("training.recipe", "fp8_backend")
    full = flags.find("finetuning_type")
    names = LLAMA_FACTORY
    if full and full.value.lower() != "lora":
        names = Names(length=names.length, length_default=2048, recompute_default=True,
                      defaults_of="LLaMA-Factory")  # fmt: skip
    if flags.find("stage") and flags.find("stage").value == "pt" and "packing" not in flags.given:  # type: ignore[union-attr]
        draft.assume("training.sequence_length", "filled", "stage pt packs sequences by default")
    settings = settings_of(flags, written)
    translate_trainer(flags, settings, names)


def read_axolotl(text: YamlText, defines: Mapping[str, str]) -> Draft:
    """Return the draft of an Axolotl recipe."""
    draft = Draft(text.file, "axolotl-yaml")
    put_axolotl(Flags(flat_yaml(text), draft), {})
    return draft


def put_axolotl(flags: Flags, written: Mapping[str, Value]) -> None:
    """Fill the draft from arguments of Axolotl; `written` are files that a script makes."""
    draft, given = flags.draft, flags.given
    if learns := flags.find("rl"):
        draft.refuse(learns.line, f"rl: {learns.value}", REINFORCED)
    if given.get("reward_model") and not given["reward_model"].absent:
        one = given["reward_model"]
        draft.refuse(one.line, f"reward_model: {one.value}", REINFORCED)
    degrees = {"tp": ("tensor_parallel_size",),
               "cp": ("context_parallel_size", "sequence_parallel_degree")}  # fmt: skip
    for key, names in degrees.items():
        draft.put(f"parallel.{key}", flags.whole(f"parallel.{key}", *names) or 1)
    precision = flags.find("bf16")
    if precision and precision.value == "auto":
        flags.given["bf16"] = Given("bf16", "bf16", ("true",), precision.line)
        draft.assume("training.precision", "bf16", "bf16: auto, where the device can")
    settings = settings_of(flags, written)
    if settings is None and flags.take(
        "parallel.zero", "fsdp_version", "fsdp_config.reshard_after_forward"
    ):
        reshard = flags.find("fsdp_config.reshard_after_forward")
        draft.put("parallel.zero", 2 if reshard is None and
                  "fsdp_config.reshard_after_forward" in given else 3)  # fmt: skip
    translate_trainer(flags, settings, AXOLOTL)


OF_DEEPSPEED = frozenset({
    "zero_optimization", "train_batch_size", "train_micro_batch_size_per_gpu", "bf16", "fp16", "optimizer",
    "gradient_accumulation_steps", "gradient_clipping", "activation_checkpointing", "tensor_parallel",
    "zero_allow_untested_optimizer", "steps_per_print", "wall_clock_breakdown", "amp", "scheduler",
})  # fmt: skip


def read_settings(text: str, file: str) -> Draft:
    """Return the draft of a trainer's arguments, or of DeepSpeed's settings alone, in JSON."""
    draft = Draft(file, "deepspeed-json")
    given = flat_json(text, file)
    if {"model_name_or_path", "per_device_train_batch_size"} & set(given):
        draft.format = "trainer-json"
        flags = Flags(given, draft)
        translate_trainer(flags, settings_of(flags, {}), Names())
        return draft
    if not {key.partition(".")[0] for key in given} & OF_DEEPSPEED:
        words = "is no configuration that is known: expected DeepSpeed's settings, or a trainer's arguments"
        raise InputError([Problem(file, 0, 0, "", "", words)])
    settings = Flags(given, draft)
    translate_trainer(Flags({}, draft), settings, Names())
    return draft


# What LLaMA-Factory does that is no training of a whole model or of LoRA's adapters.
OTHERS = {
    "use_kt": "experts are computed on the host's processors (KTransformers), which is not simulated",
    "infer_backend": "answers, and trains nothing: training alone is simulated",
    "export_dir": "exports, and trains nothing: training alone is simulated",
    "mixture_of_depths": "tokens skip layers (mixture of depths), which is not simulated",
    "use_badam": "trains blocks of layers in turn (BAdam), which is not simulated",
    "use_llama_pro": "trains added layers alone (LLaMA Pro), which is not simulated",
}


def _refuse_others(flags: Flags) -> None:
    """Refuse what would be priced as something else, each by its name."""
    for name, words in OTHERS.items():
        if given := flags.find(name):
            flags.draft.refuse(given.line, f"{given.shown}: {given.value}", words)
    kind = flags.find("finetuning_type")
    if kind and kind.value.lower() not in ("lora", "full"):
        flags.draft.refuse(kind.line, f"{kind.shown}: {kind.value}", "trains a part of the weights that"
                           " is not simulated; expected full or lora")  # fmt: skip


def _by_megatron(flags: Flags) -> None:
    """Megatron's keys among the arguments: LLaMA-Factory then trains with its adapter of Megatron-Core."""
    draft = flags.draft
    keys = [
        key
        for key in flags.given
        if key.endswith("_parallel_size") and not key.startswith("sequence")
    ]
    if not keys and "use_distributed_optimizer" not in flags.given:
        return
    draft.put("stack", "megatron-core")
    draft.assume("stack", "megatron-core", f"{(keys or ['use_distributed_optimizer'])[0]}: trained with"
                 " Megatron-Core")  # fmt: skip
    read_degrees(flags)
    for key, name in (("vp", "virtual_pipeline_model_parallel_size"), ("ep", "expert_model_parallel_size"),
                      ("etp", "expert_tensor_parallel_size")):  # fmt: skip
        draft.put(f"parallel.{key}", flags.whole(f"parallel.{key}", name))
    sliced = flags.on("parallel.sequence_parallel", "sequence_parallel")
    draft.put("parallel.sequence_parallel", sliced and draft.values.get("parallel.tp") != 1)
    draft.put("parallel.zero", 1 if flags.on("parallel.zero", "use_distributed_optimizer") else 0)
    granularity = flags.text("parallel.recompute", "recompute_granularity")
    if granularity:
        draft.put("parallel.recompute", granularity)


def _refuse(flags: Flags, name: str) -> None:
    stage = flags.find(name)
    if stage and stage.value.lower() not in TRAINED:
        flags.draft.refuse(stage.line, f"{stage.shown}: {stage.value}", REINFORCED)
