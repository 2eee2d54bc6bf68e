"""Triton kernels that a script launches by hand: not compiled, taken by the bytes of what they are given."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from ersatz.device_models.kernels.kernel import memory_kernel
from ersatz.sim.emulate.virtual.costs import touched
from ersatz.sim.emulate.virtual.known import forget
from ersatz.sim.emulate.virtual.machine import Machine, on_device, place

LAUNCHERS = {"triton.runtime.jit": "JITFunction", "triton.runtime.autotuner": "Autotuner"}
DRIVER = "triton.runtime.driver"


def install(machine: Machine) -> None:
    """Replace how Triton launches, now or as soon as a script imports it."""

    def replace(name: str) -> None:
        module = sys.modules[name]
        if name == DRIVER:
            module.driver.set_active(_driver(machine))
        else:
            getattr(module, LAUNCHERS[name]).run = _launch(machine)

    for name in (*LAUNCHERS, DRIVER):
        if name in sys.modules:
            replace(name)
    sys.meta_path.insert(0, _Afterwards(replace))


def _launch(machine: Machine) -> Callable[..., None]:
    def run(self: Any, *args: Any, **kwargs: Any) -> None:
        function = getattr(self, "fn", self)
        name = getattr(getattr(function, "fn", function), "__name__", "a Triton kernel")
        if kwargs.get("warmup"):
            return
        tensors = on_device(tree_leaves((args, kwargs)), machine.shown.surface)
        for tensor in tensors:  # nobody knows which of them it writes
            forget(tensor)
        kernel = memory_kernel(f"triton {name}", float(sum(map(touched, tensors))))
        machine.run_kernel(kernel, f"triton {name}", known=False)
        machine.note(
            f"{place()} launches the Triton kernel {name} by hand: it is not run, its time is that of moving"
            " each tensor that it is given once, and what it writes is not known"
        )

    return run


def _driver(machine: Machine) -> Any:
    """Return what Triton asks about the device."""
    major, minor = machine.shown.capability
    backend = "hip" if machine.shown.hip else "cuda"
    warp = machine.shown.warp
    target = SimpleNamespace(backend=backend, arch=10 * major + minor, warp_size=warp)
    return SimpleNamespace(
        get_current_target=lambda: target, get_current_device=lambda: machine.device_index,
        get_current_stream=lambda index=0: machine.stream, get_device_interface=lambda: torch.cuda,
        get_active_torch_device=lambda: torch.device("cuda", machine.device_index),
        set_current_device=lambda index: None, get_benchmarker=lambda: lambda call, **k: [0.0, 0.0, 0.0],
        is_active=lambda: True,
    )  # fmt: skip


class _Afterwards(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module where others find it, and changes it once it is loaded."""

    def __init__(self, replace: Callable[[str], None]) -> None:
        self.replace = replace
        self.inside: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the real spec with this loader around its own."""
        if name not in (*LAUNCHERS, DRIVER) or name in self.inside:
            return None
        self.inside.add(name)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        loader, replace = spec.loader, self.replace
        load = loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            replace(name)

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
