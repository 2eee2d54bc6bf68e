"""`torch_npu.contrib.transfer_to_npu`: a script that says `cuda` runs on `npu` once it has imported it."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ersatz.sim.emulate.virtual.machine import Machine

NAME = "torch_npu.contrib.transfer_to_npu"
_FACTORIES = ("tensor", "as_tensor", "empty", "zeros", "ones", "full", "rand", "randn", "randint", "randperm",
              "arange", "linspace", "eye", "empty_like", "zeros_like", "ones_like", "full_like", "rand_like",
              "randn_like", "randint_like", "empty_strided", "load", "autocast", "Generator", "scalar_tensor",
              "tril_indices", "triu_indices", "logspace")  # fmt: skip
_METHODS = ("to", "new_tensor", "new_empty", "new_zeros", "new_ones", "new_full", "type")


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the module when it is imported; that is when it takes effect."""

    def __init__(self, module: types.ModuleType) -> None:
        self.module = module

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where the module comes from: here."""
        return importlib.machinery.ModuleSpec(NAME, self) if name == NAME else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Return the module."""
        return self.module

    def exec_module(self, module: types.ModuleType) -> None:
        """Send everything that says `cuda` to `npu`."""
        module.transfer()


def module(machine: Machine, surface: types.ModuleType) -> types.ModuleType:
    """Return the module, which changes nothing before it is imported."""
    made = types.ModuleType(NAME)
    made.transfer = lambda: transfer(surface)  # type: ignore[attr-defined]
    return made


def transfer(surface: types.ModuleType) -> None:
    """Send `torch.cuda`, devices called `cuda`, `.cuda()` and back ends to `npu`."""
    for name, value in vars(surface).items():
        if not name.startswith("__"):
            setattr(torch.cuda, name, value)
    for name in _FACTORIES:
        if hasattr(torch, name) and name not in ("Generator", "autocast"):
            setattr(torch, name, _sent(getattr(torch, name)))
    for name in _METHODS:
        setattr(torch.Tensor, name, _sent(getattr(torch.Tensor, name)))
    torch.nn.Module.to = _sent(torch.nn.Module.to)
    torch.Tensor.cuda = lambda self, device=None, non_blocking=False, **k: self.to(
        _npu(device), non_blocking=non_blocking
    )
    torch.nn.Module.cuda = lambda self, device=None: self.to(_npu(device))
    torch.Tensor.is_cuda = property(lambda self: self.device.type == "npu")
    _autocast()
    _devices()
    surface.amp = getattr(surface, "amp", None)  # type: ignore[attr-defined]
    torch.cuda.amp = surface.amp


def _npu(device: Any) -> torch.device:
    if device is None:
        return torch.device("npu", 0)
    return (
        torch.device("npu", device) if isinstance(device, int) else torch.device(_renamed(device))
    )


def _renamed(value: Any) -> Any:
    """Return what a script gives as a device, `npu` in the place of `cuda`."""
    if isinstance(value, str) and (value == "cuda" or value.startswith("cuda:")):
        return f"npu{value[4:]}"
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("npu", value.index or 0)
    return value


def _sent(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if "device" in kwargs and isinstance(kwargs["device"], int):
            kwargs["device"] = torch.device("npu", kwargs["device"])
        return function(*map(_renamed, args), **{k: _renamed(v) for k, v in kwargs.items()})

    run.__name__ = getattr(function, "__name__", "run")
    return run


def _autocast() -> None:
    real, scaler = torch.autocast, torch.amp.GradScaler

    class autocast(real):  # type: ignore[valid-type, misc]
        """Automatic casts on the device that is there."""

        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__(_renamed(device_type), *args, **kwargs)

    def grad_scaler(device: str = "npu", *args: Any, **kwargs: Any) -> Any:
        return scaler(_renamed(device), *args, **kwargs)

    torch.autocast = torch.amp.autocast = autocast
    torch.amp.GradScaler = grad_scaler


def _devices() -> None:
    """Let `torch.device("cuda")` be an npu; the class stays, for scripts ask for it."""
    real = torch.device

    class Meta(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real)

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            return real(*map(_renamed, args), **{k: _renamed(v) for k, v in kwargs.items()})

    class device(metaclass=Meta):
        """A device, by name and number."""

    globals()["_real_device"] = real
    torch.device = device
