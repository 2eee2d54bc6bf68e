"""Trainers of the Hugging Face kind: what their arguments, and DeepSpeed's settings, say of a training."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ersatz.device_models.text.digits import is_whole
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Flags, Given
from ersatz.sim.importing.known import flag_table, sort_rest
from ersatz.sim.importing.models import put_attention, put_model
from ersatz.sim.importing.shell.pieces import Value
from ersatz.sim.importing.trainers.deepspeed import (
    automatic,
    put_settings,
    settings_beside,
    stage_of_name,
)
from ersatz.sim.importing.trainers.keeping import read_keeping

REINFORCED = (
    "reinforcement learning and preference training are not simulated; what can be asked instead is"
    " the training step of the policy: its model, length and batch, as supervised fine-tuning"
)


# Sharding strategies of FSDP by their numbers in PyTorch.
STRATEGIES = {"1": "full_shard", "2": "shard_grad_op", "3": "no_shard", "4": "hybrid_shard",
              "5": "hybrid_shard_zero2"}  # fmt: skip
SHARDS = frozenset({*STRATEGIES.values(), "offload", "auto_wrap", "true"})
ADAPTERS = ("lora", "qlora", "longlora", "full", "freeze", "none")


@dataclass(frozen=True, slots=True)
class Names:
    """How a trainer calls things, and its defaults where they matter."""

    model: Sequence[str] = ("model_name_or_path", "model_name", "model")
    length: Sequence[str] = ("model_max_length", "max_seq_length", "max_length", "block_size")
    micro: Sequence[str] = ("per_device_train_batch_size", "per_gpu_train_batch_size")
    micro_default: int = 8
    length_default: int | None = None
    rank: Sequence[str] = ("lora_r", "lora_rank")
    rank_default: int | None = None  # where adapters are on without one
    recompute_default: bool = False
    defaults_of: str = "the trainer"
    packs: Sequence[str] = ("packing", "neat_packing")
    more: frozenset[str] = field(default_factory=frozenset)


def settings_of(flags: Flags, written: Mapping[str, Value]) -> Flags | None:
    """Return DeepSpeed's settings that the arguments name; None where there are none."""
    draft = flags.draft
    given = flags.take("parallel.zero", "deepspeed", "deepspeed_config")
    if given is None or given.unknown:
        return None
    found = settings_beside(draft, given, written)
    if found is not None:
        return Flags(
            {k: replace(v, file=v.file or Path(given.value).name) for k, v in found.items()}, draft
        )
    stage = stage_of_name(Path(given.value).name)
    if stage is None:
        draft.ask("parallel.zero", f"{given.shown} {given.value} cannot be read: which stage of ZeRO?",
                  ("0", "1", "2", "3"), given.line)  # fmt: skip
        stack = "deepspeed"
    else:
        draft.put("parallel.zero", stage)
        draft.assume("parallel.zero", stage, f"{given.value} cannot be read: by its name")
        away = "offload" in given.value.lower()
        stack = "deepspeed-offload" if away else "deepspeed"
        if away and stage == 3:
            draft.put("memory.weights_offload", 1.0)
            draft.assume(
                "memory.weights_offload", 1.0, f"{given.value} cannot be read: by its name"
            )
    draft.put("stack", stack)
    return None


def translate_trainer(flags: Flags, settings: Flags | None, names: Names) -> None:
    """Fill the draft from a trainer's arguments; machines must stand in it already."""
    draft = flags.draft
    if (given := flags.find("use_cpu", "no_cuda")) and flags.on("training.precision", given.key):
        draft.refuse(
            given.line, given.shown, "trains on the host's processors, which is not simulated"
        )
    trains = flags.given.get("do_train")
    if trains and trains.absent:
        draft.refuse(trains.line, f"{trains.shown}: {trains.value}", "trains nothing: training alone is"
                     " simulated")  # fmt: skip
    _beside(flags)
    shared = flags.whole("parallel.cp", "sequence_parallel_size")
    if shared and shared > 1:  # Ulysses: ranks that share a sequence
        draft.put("parallel.cp", shared)
    for key in ("tp", "pp", "cp"):
        draft.put(f"parallel.{key}", draft.values.get(f"parallel.{key}", 1))
    draft.values.setdefault("parallel.sequence_parallel", False)
    named = flags.find(*names.model)
    flags.used.update(n for n in names.model if n in flags.given)
    put_model(draft, named)
    put_attention(flags, "attn_implementation", "flash_attn")
    _adapters(flags, names)
    _length(flags, names)
    if settings is not None:
        if sharded := flags.find("fsdp", "fsdp_sharding_strategy"):
            draft.contradict(
                f"{sharded.shown} and DeepSpeed are both given: state is shared by one of them"
            )
        put_settings(settings)
    else:
        _fully_sharded(flags)
    _precision(flags, settings)
    _recompute(flags, names)
    _batch(flags, settings, names)
    _steps(flags)
    read_keeping(flags, settings, names.defaults_of)
    table = flag_table("trainers")
    sort_rest(flags, table)
    if settings is not None:
        sort_rest(settings, table)


def _beside(flags: Flags) -> None:
    """FSDP's own settings: a JSON beside the file, or keys below fsdp_config."""
    draft = flags.draft
    named = flags.find("fsdp_config")
    found: dict[str, Given] = {}
    if named and named.value.endswith(".json"):
        settings = settings_beside(draft, named, {})
        if settings is None:
            words = f"{named.shown} {named.value} cannot be read: is anything computed again?"
            draft.ask("parallel.recompute", words, ("none", "full"), named.line)
        found = {key: replace(one, file=one.file or Path(named.value).name)
                 for key, one in (settings or {}).items()}  # fmt: skip
        flags.used.add("fsdp_config")
    for key in [
        key for key in flags.given if key.startswith("fsdp_config.") and key not in flags.used
    ]:
        found[key.removeprefix("fsdp_config.")] = flags.given.pop(key)
    for key, one in found.items():
        whole = f"fsdp_{key.removeprefix('fsdp_')}"
        flags.given.setdefault(whole, replace(one, key=whole))


def _adapters(flags: Flags, names: Names) -> None:
    draft, key = flags.draft, "model.lora_rank"
    kind = flags.text(key, "finetuning_type", "adapter", "tuner_type", "train_type")
    peft = flags.on(key, "use_peft", "use_lora")
    rank = flags.whole(key, *names.rank)
    default = names.rank_default
    if kind is not None and kind.lower() not in ADAPTERS:
        given = flags.find("finetuning_type", "adapter", "tuner_type", "train_type")
        draft.refuse(given.line if given else 0, kind, "trains in a way that is not simulated; expected one"
                     f" of {', '.join(ADAPTERS)}")  # fmt: skip
    off = kind is not None and kind.lower() in ("full", "freeze", "none")
    if off or not (kind or peft or rank or default):
        return
    if rank is None and not draft.asked(key):
        rank = default or 8
        draft.assume(
            key, rank, f"the rank of adapters is not given: the default of {names.defaults_of}"
        )
    draft.put(key, rank)


def _length(flags: Flags, names: Names) -> None:
    draft, key = flags.draft, "training.sequence_length"
    length = flags.whole(key, *names.length)
    packs = [flags.find(name) for name in names.packs]
    flags.take(key, *names.packs)
    if length is None and not draft.asked(key):
        length = names.length_default
        if length is None:
            draft.ask(key, f"{names.length[0]} is not given: it comes from the model")
        else:
            draft.assume(
                key, length, f"{names.length[0]} is not given: the default of {names.defaults_of}"
            )
    draft.put(key, length)
    neat = flags.find("neat_packing")
    if neat:
        draft.ask("training.document_tokens", f"{neat.shown}: attention ends with each document, whose mean"
                  " length is in the data", line=neat.line)  # fmt: skip
    if length and not any(packs):
        draft.assume(key, length, "sequences are not packed: they are as long as the longest of a batch, so"
                     " this is an upper bound of time and memory")  # fmt: skip


def fsdp_words(text: str) -> list[str]:
    """Return the words of FSDP's switch, in a list or not; numbers by their names."""
    return [STRATEGIES.get(word, word) for word in re.findall(r"\w+", text.lower())]


def _fully_sharded(flags: Flags) -> None:
    """PyTorch's FSDP, or plain data parallelism."""
    draft, key = flags.draft, "parallel.zero"
    words = fsdp_words(flags.text(key, "fsdp", "fsdp_sharding_strategy") or "")
    draft.put("stack", draft.values.get("stack", "deepspeed"))
    if lost := [word for word in words if word not in SHARDS]:
        given = flags.find("fsdp") or flags.find("fsdp_sharding_strategy")
        if given:
            expected = f"expected words of FSDP: {', '.join(sorted(SHARDS))}"
            draft.blame(key, given.line, given.shown, " ".join(lost), expected)
    if draft.asked(key) or key in draft.values:
        return
    if "hybrid_shard" in words or "hybrid_shard_zero2" in words:
        draft.put(key, 3 if "hybrid_shard" in words else 2)
        if draft.devices_per_node:
            draft.put("parallel.shard", draft.devices_per_node)
    elif words:
        kept = "fsdp_reshard_after_forward" in flags.given
        kept = flags.take(key, "fsdp_reshard_after_forward") is None and kept
        draft.put(key, 2 if kept or "shard_grad_op" in words else 0 if "no_shard" in words else 3)
    else:
        draft.put(key, 0)
        draft.assume(
            key, 0, "neither DeepSpeed nor FSDP is named: every device holds all of the state"
        )
    if "offload" in words:
        draft.put("stack", "deepspeed-offload")


def _precision(flags: Flags, settings: Flags | None) -> None:
    key = "training.precision"
    draft = flags.draft
    if key in draft.values:
        flags.take(key, "bf16", "fp16")
        return
    if settings and all(_enabled(settings, kind) for kind in ("bf16", "fp16")):
        draft.contradict(
            "DeepSpeed's bf16 and fp16 are both enabled: it starts with one of them alone"
        )
    for kind in ("bf16", "fp16"):
        own = flags.find(kind)
        on = flags.on(key, kind, *(["pure_bf16"] if kind == "bf16" else []))
        given = settings.find(f"{kind}.enabled") if settings else None
        if settings:
            settings.take(key, f"{kind}.enabled")
        if on or (own is None and given and given.value == "true"):
            draft.put(key, kind)
            flags.take(key, "mixed_precision")  # the trainer's own word wins over its launcher's
            return
    if settings and settings.on(key, "amp.enabled"):
        draft.put(key, "fp16")
        draft.assume(key, "fp16", "amp is enabled: most products in 16 bits, weights in 32")
        return
    words = flags.text(key, "mixed_precision", "torch_dtype", "dtype")
    named = (words or "").lower().replace("bfloat16", "bf16").replace("float16", "fp16")
    if named in ("bf16", "fp16", "fp8"):
        draft.put(key, named)
        return
    if draft.asked(key):
        return
    if named not in ("", "no", "auto", "fp32", "float32"):
        draft.ask(key, f"{words!r} is no number format that is known", ("bf16", "fp16", "fp8"))
        return
    draft.put(key, "fp32")
    draft.assume(key, "fp32", "neither bf16 nor fp16 is on")


def _enabled(settings: Flags, kind: str) -> bool:
    given = settings.find(f"{kind}.enabled")
    return given is not None and given.value == "true"


def _recompute(flags: Flags, names: Names) -> None:
    draft, key = flags.draft, "parallel.recompute"
    if key in draft.values:
        return
    stated = {"gradient_checkpointing", "fsdp_activation_checkpointing"} & set(flags.given)
    if draft.asked(key) and not stated:
        return
    off = flags.on(key, "disable_gradient_checkpointing")
    given = flags.find("gradient_checkpointing", "fsdp_activation_checkpointing")
    on = flags.on(key, "gradient_checkpointing", "fsdp_activation_checkpointing")
    if (
        "gradient_checkpointing" not in stated
        and given is None
        and names.recompute_default
        and not off
    ):
        on = True
        draft.assume(
            key, "full", f"gradient checkpointing is on in {names.defaults_of} unless switched off"
        )
    draft.put(key, "full" if on and not off else "none")


def _batch(flags: Flags, settings: Flags | None, names: Names) -> None:
    draft, key = flags.draft, "training.global_batch"
    micro = flags.whole("training.micro_batch", *names.micro)
    rounds = flags.whole(key, "gradient_accumulation_steps")
    if settings is not None:
        fixed = {name: settings.take(key if name != "train_micro_batch_size_per_gpu" else
                                     "training.micro_batch", name)
                 for name in ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps",
                              "train_batch_size")}  # fmt: skip
        for name, own, asked in (
            ("train_micro_batch_size_per_gpu", names.micro[0], micro),
            ("gradient_accumulation_steps", "gradient_accumulation_steps", rounds),
        ):
            set_ = _fixed(fixed[name], asked)
            if asked and set_ != asked:
                draft.contradict(
                    f"{own} is {asked}, and DeepSpeed's {name} {set_}: its trainer stops there"
                )
        micro = _fixed(fixed["train_micro_batch_size_per_gpu"], micro)
        rounds = _fixed(fixed["gradient_accumulation_steps"], rounds)
        whole = _fixed(fixed["train_batch_size"], None)
    else:
        whole = None
    dp = _replicas(draft)
    if whole and dp and not micro and rounds:
        micro = whole // (dp * rounds)
    if micro is None and not draft.asked("training.micro_batch"):
        micro = names.micro_default
        draft.assume("training.micro_batch", micro, f"{names.micro[0]} is not given: the default of"
                     f" {names.defaults_of}")  # fmt: skip
    draft.put("training.micro_batch", micro)
    if whole:
        draft.put(key, whole)
        if dp and micro and rounds and whole != micro * rounds * dp:
            draft.contradict(f"train_batch_size {whole} is not micro-batch {micro} x {rounds} rounds of"
                             f" accumulation x {dp} replicas = {micro * rounds * dp}")  # fmt: skip
        return
    if rounds is None and not draft.asked(key):
        rounds = 1
    if dp is None or micro is None or rounds is None:
        draft.ask(
            key,
            f"micro-batch x {rounds or '?'} rounds of accumulation x devices, which are not known",
        )
        return
    draft.put(key, micro * rounds * dp)


def _fixed(given: Given | None, otherwise: int | None) -> int | None:
    if given is None or automatic(given) or not is_whole(given.value):
        return otherwise
    return int(given.value)


def _replicas(draft: Draft) -> int | None:
    column = 1
    for key in ("tp", "pp", "cp"):
        column *= int(draft.values.get(f"parallel.{key}", 1))
    return draft.devices // column if draft.devices and draft.devices % column == 0 else None


def _steps(flags: Flags) -> None:
    draft, key = flags.draft, "training.steps"
    steps = flags.whole(key, "max_steps")
    if steps and steps > 0:
        draft.put(key, steps)
        flags.take(key, "num_train_epochs", "num_epochs")  # steps win over them
        return
    epochs = flags.take(key, "num_train_epochs", "num_epochs")
    words = f"{epochs.value} passes over the data" if epochs else "the data once"
    draft.ask(key, f"max_steps is not given: {words}, whose size is not in the file",
              line=epochs.line if epochs else 0)  # fmt: skip
