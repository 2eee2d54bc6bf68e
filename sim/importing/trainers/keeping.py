"""How trainers keep tensors: optimisers of fewer bytes, frozen weights, what the host has, the loss."""

from __future__ import annotations

import re

from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Flags
from ersatz.sim.importing.models import assume_targets, put_targets

TARGETS = ("lora_target", "lora_target_modules", "target_modules")
EIGHT = re.compile(r"adam.*8bit|8bit.*adam|adam8bit")
ADAM = (
    "adamw_torch",
    "adamw_torch_fused",
    "adamw",
    "adam",
    "adamw_hf",
    "adamw_apex_fused",
    "fused_adam",
)
_GRADIENTS = {"fp32": "fp32", "float32": "fp32", "bf16": "bf16", "bfloat16": "bf16", "fp16": "bf16"}
AWAY = ("cpu", "nvme")
Z = "zero_optimization."


def read_keeping(flags: Flags, settings: Flags | None, defaults_of: str) -> None:
    """Put what arguments and DeepSpeed's settings say of how tensors are kept into the draft."""
    _optimizer(flags)
    _adapters(flags, defaults_of)
    _frozen(flags)
    _loss(flags)
    _host(flags)
    if settings is not None:
        _settings(settings)


def _optimizer(flags: Flags) -> None:
    draft = flags.draft
    given = flags.find("optim", "optimizer")
    if given and not given.unknown and EIGHT.search(given.value.lower()):
        flags.take("memory.moments", "optim", "optimizer")
        draft.put("memory.moments", "8-bit")
        if "paged" in given.value.lower():
            draft.assume("memory.moments", "8-bit", f"{given.value}: pages move to the host only where memory"
                         " runs out, which is not counted")  # fmt: skip
    if flags.on("memory.master_weights", "pure_bf16"):
        draft.put("memory.master_weights", "none")
        draft.values.setdefault("memory.moments", "bf16")


def _adapters(flags: Flags, defaults_of: str) -> None:
    draft = flags.draft
    if not draft.values.get("model.lora_rank"):
        return
    if flags.find("lora_target_linear"):
        flags.take("model.lora_targets", "lora_target_linear")
        draft.put("model.lora_targets", "q k v o gate up down")
    put_targets(flags, *TARGETS)
    assume_targets(draft, defaults_of)


def _frozen(flags: Flags) -> None:
    """Weights that adapters leave alone, in 4 or 8 bits (QLoRA)."""
    draft, key = flags.draft, "memory.frozen_weights"
    if not draft.values.get("model.lora_rank"):
        return
    kind = flags.find("adapter")
    bits = flags.whole(key, "quantization_bit", "quant_bits")
    four = flags.on(key, "load_in_4bit", "use_4bit") or bits == 4
    eight = flags.on(key, "load_in_8bit") or bits == 8
    if kind and kind.value.lower() == "qlora":
        four = True
    if four or eight:
        draft.put(key, "4-bit" if four else "fp8")
    if bits and bits not in (4, 8):
        draft.ask(
            key, f"quantization_bit {bits}: weights of so many bits", ("4-bit", "fp8", "bf16")
        )


def _loss(flags: Flags) -> None:
    """Liger and its kin never hold all logits: the loss goes over them in pieces."""
    key = "memory.loss"
    if flags.on(
        key,
        "use_liger_kernel",
        "enable_liger_kernel",
        "liger_fused_linear_cross_entropy",
        "use_liger",
    ):
        flags.draft.put(key, "fused")
        flags.draft.put("memory.loss_chunks", 16)
        flags.draft.assume("memory.loss_chunks", 16, "Liger's fused loss goes over a micro-batch in pieces:"
                           " about vocabulary / hidden of them")  # fmt: skip


def _host(flags: Flags) -> None:
    """FSDP's offload has weights, gradients and state on the host; activations go there apart."""
    draft = flags.draft
    sharded = flags.find("fsdp")
    words = re.findall(r"\w+", sharded.value.lower()) if sharded else []
    away = flags.on("memory.weights_offload", "fsdp_offload_params")
    if away or "offload" in words:
        everything_away(draft)
    given = flags.find("gradient_checkpointing")
    if flags.on(
        "memory.activation_offload", "activation_offloading", "fsdp_activation_offload"
    ) or (given and given.value.lower().startswith("offload")):
        draft.put("memory.activation_offload", 1.0)


def everything_away(draft: Draft) -> None:
    """PyTorch's FSDP keeps shards of weights and state on the host, which updates them."""
    if draft.values.get("parallel.zero") == 3:
        draft.put("memory.weights_offload", 1.0)
    draft.put("memory.optimizer_offload", 1.0)


def _settings(settings: Flags) -> None:
    """DeepSpeed's settings: shards of weights and state on the host, activations there."""
    draft = settings.draft
    for key, part in (
        ("memory.weights_offload", "offload_param"),
        ("memory.optimizer_offload", "offload_optimizer"),
    ):
        device = settings.find(f"{Z}{part}.device")
        if device is None or device.value.lower() not in AWAY:
            continue
        share = _share(settings, f"{Z}{part}.ratio", key)
        if part == "offload_param" and draft.values.get("parallel.zero") != 3:
            draft.assume(key, 0, "offload_param belongs to stage 3: without effect")
            continue
        draft.put(key, share)
        if device.value.lower() == "nvme":
            words = ("state on a disk: taken as in the host's memory; disks of a few GB/s make the step"
                     " several times longer")  # fmt: skip
            draft.leave_out(device.shown, device.value, device.line, words, device.file)
    kept = settings.find("data_types.grad_accum_dtype")
    if kept and (word := _GRADIENTS.get(kept.value.lower())):
        settings.take("memory.gradients", "data_types.grad_accum_dtype")
        draft.put("memory.gradients", word)
    if settings.on("memory.activation_offload", "activation_checkpointing.cpu_checkpointing"):
        draft.put("memory.activation_offload", 1.0)


def _share(settings: Flags, name: str, key: str) -> float:
    given = settings.take(key, name)
    try:
        value = float(given.value) if given and not given.unknown else 1.0
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1 and given:
        settings.draft.blame(
            key, given.line, given.shown, given.value, "expected a share from 0 to 1"
        )
    return min(max(value, 0.0), 1.0)
