"""What a script starts beside itself: ranks of its own are refused, NVML is answered."""

from __future__ import annotations

import multiprocessing.process
import os
import re
import subprocess
import sys
import types
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import Any

from ersatz.sim.emulate.virtual.machine import Machine, place

MILLI = 1e3
PYTHON = re.compile(r"(python[\d.]*|torchrun|accelerate|deepspeed)$")


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
    _counted(machine)
    sys.modules["pynvml"] = _nvml(machine)


def _counted(machine: Machine) -> None:
    """Note where a script starts processes, whose work on the device nobody sees."""
    begin, call = multiprocessing.process.BaseProcess.start, subprocess.Popen.__init__

    def start(self: Any) -> None:
        module = getattr(getattr(self, "_target", None), "__module__", "")
        if not module.startswith("torch.utils.data"):  # loaders' workers see no device in life
            machine.started[place()] += 1
        begin(self)

    def popen(self: Any, args: Any, *rest: Any, **kwargs: Any) -> None:
        words = args.split() if isinstance(args, str) else [os.fsdecode(a) for a in args]
        own = any(word.startswith("ersatz.") for word in words)
        if words and not own and PYTHON.match(os.path.basename(words[0])):
            machine.started[place()] += 1
        call(self, args, *rest, **kwargs)

    multiprocessing.process.BaseProcess.start = start  # type: ignore[method-assign]
    subprocess.Popen.__init__ = popen  # type: ignore[method-assign]


def _nvml(machine: Machine) -> types.ModuleType:
    """Return the calls of NVML that monitors of training make."""
    memory, device = machine.memory, machine.device

    def info(handle: Any, *args: Any) -> SimpleNamespace:
        total = int(device.memory_bytes)
        return SimpleNamespace(total=total, used=total - memory.capacity + memory.reserved,
                               free=memory.capacity - memory.reserved)  # fmt: skip

    found = types.ModuleType("pynvml")
    found.__spec__ = ModuleSpec("pynvml", None)
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
