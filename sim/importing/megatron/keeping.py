"""How Megatron's flags keep tensors: bytes of the optimiser's state, what the host has, parts of the loss."""

from __future__ import annotations

import math

from ersatz.sim.importing.flags import Flags, Given
from ersatz.sim.importing.models import assume_targets, put_targets

WIDTHS = {"fp32": "fp32", "float32": "fp32", "bf16": "bf16", "bfloat16": "bf16", "fp16": "bf16",
          "float16": "bf16", "fp8": "8-bit", "uint8": "8-bit", "int8": "8-bit"}  # fmt: skip


def read_keeping(flags: Flags) -> None:
    """Put what the flags say of how tensors are kept into the draft."""
    _state(flags)
    _gradients(flags)
    _host(flags)
    _activations_away(flags)
    _loss(flags)
    put_targets(flags, "lora_target_modules", "target_modules", "lora_modules")
    assume_targets(flags.draft, "ms-swift" if flags.draft.format == "swift-sh" else "Megatron")
    _frozen(flags)


def _word(flags: Flags, name: str) -> str:
    """Return the width that a flag says, in a scenario's word; none where it is absent or strange."""
    given = flags.find(name)
    plain = given.value.lower().removeprefix("torch.") if given and not given.unknown else ""
    return WIDTHS.get(plain, "")


def _state(flags: Flags) -> None:
    """Bytes of moments and master copy; they count only with the optimiser that knows of them."""
    draft = flags.draft
    narrow = flags.find("use_precision_aware_optimizer")
    words = {name: _word(flags, name)
             for name in ("exp_avg_dtype", "exp_avg_sq_dtype", "main_params_dtype")}  # fmt: skip
    both = {words["exp_avg_dtype"] or "fp32", words["exp_avg_sq_dtype"] or "fp32"}
    if narrow and len(both) == 1:
        flags.take(
            "memory.moments", "use_precision_aware_optimizer", "exp_avg_dtype", "exp_avg_sq_dtype"
        )
        draft.put("memory.moments", both.pop())
    if narrow and words["main_params_dtype"]:
        flags.take("memory.master_weights", "main_params_dtype")
        sixteen = words["main_params_dtype"] == "bf16"
        draft.put("memory.master_weights", "16-bit" if sixteen else words["main_params_dtype"])
    if flags.on("memory.master_weights", "reuse_fp32_param"):
        draft.put("memory.master_weights", "16-bit")
        draft.assume("memory.master_weights", "16-bit", "reuse_fp32_param: a 16-bit weight is half of the"
                     " 32-bit one, of which 2 bytes stand beside it")  # fmt: skip


def _gradients(flags: Flags) -> None:
    key = "memory.gradients"
    half = flags.on(key, "grad_reduce_in_bf16")
    full = flags.on(key, "accumulate_allreduce_grads_in_fp32", "grad_reduce_in_fp32")
    word = _word(flags, "main_grads_dtype")
    if word in ("fp32", "bf16"):
        flags.take(key, "main_grads_dtype")
        half = word == "bf16"
    if half or full:
        flags.draft.put(key, "bf16" if half else "fp32")


def _host(flags: Flags) -> None:
    """The optimiser's state on the host, which updates it, or from where it comes back for the update."""
    draft, key = flags.draft, "memory.optimizer_offload"
    if flags.on(key, "optimizer_cpu_offload"):
        given = flags.take(key, "optimizer_offload_fraction")
        share = _share(flags, given, key) if given and not given.unknown else 1.0
        draft.put(key, share)
    if flags.on(key, "cpu_optimizer"):
        draft.put(key, 1.0)
    if flags.on(key, "swap_optimizer"):
        draft.put(key, 1.0)
        draft.put("memory.optimizer_update", "device")
        draft.assume("memory.optimizer_update", "device", "swap_optimizer: the state comes back in pieces,"
                     " and the device updates")  # fmt: skip


def _share(flags: Flags, given: Given, key: str) -> float | None:
    try:
        value = float(given.value)
    except ValueError:
        value = math.nan
    if 0 <= value <= 1:
        return value
    flags.draft.blame(key, given.line, given.shown, given.value, "expected a share from 0 to 1")
    return None


def _activations_away(flags: Flags) -> None:
    """Transformer Engine sends what the first n layers of a rank keep to the host."""
    draft, key = flags.draft, "memory.activation_offload"
    count = flags.whole(key, "cpu_offloading_num_layers")
    layers, pp = (draft.values.get(name) for name in ("model.layers", "parallel.pp"))
    if not flags.on(key, "cpu_offloading") and not count:
        return
    if not count or not layers or not pp:
        draft.ask(key, "cpu_offloading: of how many of a rank's layers")
        return
    share = min(count * pp / layers, 1.0)
    draft.put(key, round(share, 4))
    draft.assume(key, round(share, 4), f"{count} of the {layers / pp:g} layers of a rank: so much of what"
                 " they keep")  # fmt: skip


def _loss(flags: Flags) -> None:
    """MindSpeed computes the loss in chunks of tokens."""
    key = "memory.loss_chunks"
    mode = flags.find("loss_compute_mode")
    if mode is None or mode.value.lower() != "chunk":
        return
    size = flags.whole(key, "loss_chunk_size") or 1024
    flags.take(key, "loss_compute_mode")
    values = flags.draft.values
    length, micro = values.get("training.sequence_length"), values.get("training.micro_batch")
    if isinstance(length, int) and isinstance(micro, int):
        flags.draft.put(key, min(max(math.ceil(length * micro / size), 1), 4096))


def _frozen(flags: Flags) -> None:
    if "model.lora_rank" in flags.draft.values and flags.on(
        "memory.frozen_weights", "qlora", "load_in_4bit"
    ):
        flags.draft.put("memory.frozen_weights", "4-bit")
