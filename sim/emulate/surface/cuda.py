"""`torch.cuda` of a virtual device, and what stands beside it: `torch.accelerator`, versions, back ends."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import torch

from ersatz.sim.emulate.surface import accelerator
from ersatz.sim.emulate.virtual.machine import Machine


def install(machine: Machine) -> None:
    """Put the virtual device behind `torch.cuda`."""
    accelerator.install(machine, torch.cuda)
    sys.modules["torch_npu"] = None  # type: ignore[assignment]  # a real one would take the device for its own
    torch.version.cuda = None if machine.shown.hip else (torch.version.cuda or "12.8")
    if machine.shown.hip:
        torch.version.hip = machine.shown.hip
    torch.cuda._initialized = True
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    _accelerator(machine)
    torch.backends.cuda.is_built = lambda: True
    for name in ("flash", "mem_efficient", "cudnn"):
        setattr(torch.backends.cuda, f"{name}_sdp_enabled", lambda: True)
    names = ("rangePushA", "rangePop", "rangeStartA", "rangeEnd", "markA", "deviceRangeStart",
             "deviceRangeEnd")  # fmt: skip
    torch.cuda.nvtx._nvtx = SimpleNamespace(**{name: lambda *args: 0 for name in names})
    torch._C._cuda_getDeviceCount = lambda: machine.seat.per_node


def _accelerator(machine: Machine) -> None:
    """Let `torch.accelerator` and the generic streams be those of the device."""
    surface = torch.cuda
    offered: dict[str, Any] = {
        "is_available": surface.is_available, "device_count": surface.device_count,
        "current_device_index": surface.current_device, "current_device_idx": surface.current_device,
        "set_device_index": surface.set_device, "set_device_idx": surface.set_device,
        "current_stream": surface.current_stream, "set_stream": surface.set_stream,
        "synchronize": surface.synchronize, "memory_allocated": surface.memory_allocated,
        "max_memory_allocated": surface.max_memory_allocated, "empty_cache": surface.empty_cache,
        "memory_reserved": surface.memory_reserved, "memory_stats": surface.memory_stats,
        "max_memory_reserved": surface.max_memory_reserved,
        "reset_peak_memory_stats": surface.reset_peak_memory_stats,
        "get_memory_info": surface.mem_get_info,
        "current_accelerator": lambda check_available=False: torch.device(machine.shown.surface),
    }  # fmt: skip
    for name, value in offered.items():
        if hasattr(torch.accelerator, name):
            setattr(torch.accelerator, name, value)
    torch.Stream, torch.Event = surface.Stream, surface.Event
