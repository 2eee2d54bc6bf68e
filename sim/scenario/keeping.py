"""How a scenario has tensors kept, in place of its stack's habits: the section `memory`.

Each key changes values of the stack, which memory and time both read: fewer bytes of state are also
fewer bytes that the optimiser moves, and what the host keeps the host updates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ersatz.device_models.catalog.stack import Stack
from ersatz.sim.plan.memory.facts import allocator_waste, host_copy, host_update, loss_bytes
from ersatz.sim.scenario.schema import MemorySection
from ersatz.sim.workload.model import Model

Blame = Callable[..., None]
MASTER = {"fp32": 4.0, "16-bit": 2.0, "none": 0.0}  # bytes per weight
MOMENTS = {"fp32": 8.0, "bf16": 4.0, "8-bit": 2.0}  # of both
FROZEN = {"bf16": 2.0, "fp8": 1.0, "4-bit": 0.5 + 4 / 64}  # with a scale per 64 weights
POOLS = {"graph_pool": "graph_pool_bytes", "communicator": "communicator_bytes",
         "expert_buffers": "expert_buffer_bytes"}  # fmt: skip


def kept(stack: Stack, section: MemorySection) -> Stack:
    """Return the stack as a scenario wants its tensors kept."""
    changes = dict(_changes(stack, section))
    return replace(stack, **changes) if changes else stack


def _changes(stack: Stack, section: MemorySection) -> Iterator[tuple[str, Any]]:
    """Yield the values of the stack that a section changes."""
    state = stack.optimizer_state_bytes
    if section.master_weights or section.moments:
        master = MASTER[section.master_weights or "fp32"]
        state = master + MOMENTS[section.moments or "fp32"]
        yield "optimizer_state_bytes", state
        saved = 2 * (stack.optimizer_state_bytes - state)  # read and written
        yield "optimizer_bytes_per_param", max(stack.optimizer_bytes_per_param - saved, 2 * state)
        yield "master_is_weight", stack.master_is_weight and master > 0
    if section.gradients:
        yield "gradient_dtype", section.gradients
    if section.frozen_weights:
        yield "frozen_weight_bytes", FROZEN[section.frozen_weights]
    if section.loss:
        yield "loss_memory_bytes", loss_bytes(section.loss)
    if section.loss_chunks is not None:
        yield "loss_chunks", float(section.loss_chunks)
    if section.allocator:
        yield "memory_fragmentation", allocator_waste(section.allocator)
    if section.overhead is not None:
        yield "memory_overhead_bytes", section.overhead
    if section.optimizer_offload is not None:
        yield "optimizer_offload", section.optimizer_offload
        if section.optimizer_offload and not stack.optimizer_bandwidth:
            yield "optimizer_bandwidth", host_update()
    if section.results:
        yield "keeps_results", section.results == "kept"
    if section.optimizer_update:
        yield "updates_on_device", section.optimizer_update == "device"
    for key in ("activation_offload", "weights_offload"):
        if getattr(section, key) is not None:
            yield key, getattr(section, key)
    yield "host_bandwidth", section.host_bandwidth or stack.host_bandwidth or host_copy()
    for key, name in POOLS.items():
        if getattr(section, key) is not None:
            yield name, getattr(section, key)


def check_keeping(section: MemorySection, model: Model, zero: int, blame: Blame) -> None:
    """Tell `blame` which keys have nothing to act upon."""
    if section.weights_offload and zero != 3:
        blame(("memory", "weights_offload"), section.weights_offload,
              f"whole weights (zero {zero}) stay on the device; expected zero: 3")  # fmt: skip
    if section.optimizer_update == "device" and not section.optimizer_offload:
        blame(("memory", "optimizer_update"), section.optimizer_update,
              "the host keeps nothing of the state; expected an optimizer_offload")  # fmt: skip
    if section.frozen_weights and not model.lora_rank:
        blame(("memory", "frozen_weights"), section.frozen_weights,
              f"{model.name} trains all of its weights; expected a model with lora_rank")  # fmt: skip


def keeping_assumptions(
    section: MemorySection, stack: Stack, *, pipeline: bool = False
) -> Iterator[str]:
    """Yield what is taken for granted about the keys that a scenario gives, or leaves out."""
    if pipeline and stack.keeps_results and not section.results:
        yield (f"memory.results is not given: kept; the last stage of {stack.name} joins the logits of all"
               " micro-batches unless it is told not to (return_outputs, PyTorch of late 2025)")  # fmt: skip
    copies = [key for key in ("activation_offload", "weights_offload") if getattr(section, key)]
    on_device = section.optimizer_update == "device"
    if section.optimizer_offload and on_device:
        copies.append("optimizer_offload")
    if copies and not section.host_bandwidth and not stack.host_bandwidth:
        yield (f"memory.{', memory.'.join(copies)}: copies at {host_copy() / 1e9:g} GB/s each way per"
               " device, all at once (memory.host_bandwidth says otherwise)")  # fmt: skip
    if section.optimizer_offload and not on_device and not stack.optimizer_bandwidth:
        yield (f"memory.optimizer_offload: the host updates weights at {host_update() / 1e9:g} GB/s per"
               " device, as 8 devices of one host share its memory; nothing of it is hidden")  # fmt: skip
    if section.frozen_weights == "4-bit":
        yield "memory.frozen_weights: unpacking 4-bit weights before each product is not timed"
    if section.moments == "8-bit":
        yield "memory.moments: packing 8-bit moments is not timed beyond their bytes"
    if section.loss or section.loss_chunks:
        yield "memory.loss: the loss takes the time of the stack's own"
