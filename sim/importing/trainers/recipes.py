"""Recipes of fine-tuners in YAML: LLaMA-Factory, Axolotl, Accelerate; and DeepSpeed's settings alone."""

from __future__ import annotations

from collections.abc import Mapping

from ersatz.device_models.text.yamltext import YamlText
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Flags, Given
from ersatz.sim.importing.flat import flat_json, flat_yaml
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
_STAGES = ("rm", "ppo", "dpo", "kto", "grpo", "orpo", "simpo")


def read_llamafactory(text: YamlText, defines: Mapping[str, str]) -> Draft:
    """Return the draft of a LLaMA-Factory recipe."""
    draft = Draft(text.file, "llamafactory-yaml")
    flags = Flags(flat_yaml(text), draft)
    _refuse(flags, "stage")
    full = flags.find("finetuning_type")
    names = LLAMA_FACTORY
    if full and full.value.lower() != "lora":
        names = Names(length=names.length, length_default=2048, recompute_default=True,
                      defaults_of="LLaMA-Factory")  # fmt: skip
    if flags.find("stage") and flags.find("stage").value == "pt" and "packing" not in flags.given:  # type: ignore[union-attr]
        draft.assume("training.sequence_length", "filled", "stage pt packs sequences by default")
    settings = settings_of(flags, {})
    translate_trainer(flags, settings, names)
    return draft


def read_axolotl(text: YamlText, defines: Mapping[str, str]) -> Draft:
    """Return the draft of an Axolotl recipe."""
    draft = Draft(text.file, "axolotl-yaml")
    given = {("fsdp_sharding_strategy" if k == "fsdp_config.fsdp_sharding_strategy" else k): v
             for k, v in flat_yaml(text).items()}  # fmt: skip
    flags = Flags(given, draft)
    _refuse(flags, "rl")
    degrees = {"tp": "tensor_parallel_size", "cp": "context_parallel_size"}
    for key, name in degrees.items():
        draft.put(f"parallel.{key}", flags.whole(f"parallel.{key}", name) or 1)
    precision = flags.find("bf16")
    if precision and precision.value == "auto":
        flags.given["bf16"] = Given("bf16", "bf16", ("true",), precision.line)
        draft.assume("training.precision", "bf16", "bf16: auto, where the device can")
    settings = settings_of(flags, {})
    if settings is None and flags.take(
        "parallel.zero", "fsdp_version", "fsdp_config.reshard_after_forward"
    ):
        reshard = flags.find("fsdp_config.reshard_after_forward")
        draft.put("parallel.zero", 2 if reshard is None and
                  "fsdp_config.reshard_after_forward" in given else 3)  # fmt: skip
    translate_trainer(flags, settings, AXOLOTL)
    return draft


def read_accelerate(text: YamlText, defines: Mapping[str, str]) -> Draft:
    """Return the draft of an Accelerate configuration: machines and sharding; the rest is asked for."""
    draft = Draft(text.file, "accelerate-yaml")
    given = {_short(key): value for key, value in flat_yaml(text).items()}
    flags = Flags(given, draft)
    total = flags.whole("cluster.nodes", "num_processes")
    machines = flags.whole("cluster.nodes", "num_machines") or 1
    draft.devices = total
    draft.devices_per_node = total // machines if total and total % machines == 0 else None
    draft.put("cluster.nodes", machines)
    for key in ("tp", "cp"):
        draft.put(
            f"parallel.{key}", flags.whole(f"parallel.{key}", f"parallelism_config_{key}_size") or 1
        )
    kind = flags.text("parallel.zero", "distributed_type")
    stage = flags.whole("parallel.zero", "zero_stage")
    if stage is not None:
        draft.put("parallel.zero", stage)
    elif kind == "FSDP" and "fsdp_sharding_strategy" not in given:
        reshard = flags.take("parallel.zero", "fsdp_reshard_after_forward")
        off = "fsdp_reshard_after_forward" in given and reshard is None
        draft.put("parallel.zero", 2 if off else 3)
    translate_trainer(flags, None, Names())
    return draft


def _short(key: str) -> str:
    for section in (
        "fsdp_config.",
        "deepspeed_config.",
        "parallelism_config.",
        "megatron_lm_config.",
    ):
        key = key.removeprefix(section)
    return key


def read_settings(text: str, file: str) -> Draft:
    """Return the draft of DeepSpeed's settings alone: model, length and machines are asked for."""
    draft = Draft(file, "deepspeed-json")
    settings = Flags(flat_json(text, file), draft)
    translate_trainer(Flags({}, draft), settings, Names())
    return draft


def _refuse(flags: Flags, name: str) -> None:
    stage = flags.find(name)
    if stage and stage.value.lower() in _STAGES:
        flags.draft.refuse(stage.line, f"{stage.shown}: {stage.value}", REINFORCED)
