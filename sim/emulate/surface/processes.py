"""What a script starts beside itself: ranks of its own are refused, NVML is answered."""

from __future__ import annotations

import sys
import types
from types import SimpleNamespace
from typing import Any

from ersatz.sim.emulate.virtual.machine import Machine, place

MILLI = 1e3


class StartsProcesses(Exception):
    """The script starts its ranks itself."""


def install(machine: Machine) -> None:
    """Refuse ranks that a script starts, for they would find no device; answer `pynvml`."""
    import torch.multiprocessing as processes

    def spawn(fn: Any, args: Any = (), nprocs: int = 1, *rest: Any, **kwargs: Any) -> None:
        if nprocs == 1:
            fn(0, *args)
            return
        raise StartsProcesses(
            f"{place()} starts {nprocs} processes by itself, which would find no device: start it with"
            f" torchrun --nproc-per-node {nprocs}, and let it read LOCAL_RANK"
        )

    processes.spawn = processes.spawn.spawn = spawn
    processes.start_processes = spawn
    sys.modules["pynvml"] = _nvml(machine)


def _nvml(machine: Machine) -> types.ModuleType:
    """Return the calls of NVML that monitors of training make."""
    memory, device = machine.memory, machine.device

    def info(handle: Any, *args: Any) -> SimpleNamespace:
        total = int(device.memory_bytes)
        return SimpleNamespace(total=total, used=total - memory.capacity + memory.reserved,
                               free=memory.capacity - memory.reserved)  # fmt: skip

    found = types.ModuleType("pynvml")
    found.__dict__.update(
        nvmlInit=lambda: None, nvmlShutdown=lambda: None,
        NVMLError=type("NVMLError", (Exception,), {}), NVML_TEMPERATURE_GPU=0,
        nvmlDeviceGetCount=lambda: machine.seat.per_node,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: machine.shown.name,
        nvmlDeviceGetMemoryInfo=info,
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=100, memory=100),
        nvmlDeviceGetPowerUsage=lambda handle: int(MILLI * device.power_max_w),
        nvmlDeviceGetTemperature=lambda handle, kind: 60,
        nvmlDeviceGetUUID=lambda handle: f"GPU-ersatz-{handle:04d}",
        nvmlDeviceGetCudaComputeCapability=lambda handle: machine.shown.capability,
    )  # fmt: skip
    return found
