"""Tensors of the virtual device as scripts make and change them, where PyTorch would touch real memory."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from ersatz.sim.emulate.virtual.machine import Machine
from ersatz.sim.emulate.virtual.mode import Emulation

MOST_LISTED = 10_000  # elements of a nested list that are looked through for tensors


def install(machine: Machine, mode: Emulation) -> None:
    """Replace what reads or makes device memory behind the dispatcher's back."""
    _parameters()
    _made_from_data(machine, mode)
    _addresses(machine)
    _pinning()
    _generators(machine)


def _parameters() -> None:
    """Let parameters stay the objects they are when they move or change their format."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    swap = torch.utils.swap_tensors
    references = {n: getattr(weakref, n) for n in dir(weakref)}
    blind = SimpleNamespace(**{**references, "getweakrefs": lambda tensor: []})
    swap.__globals__["weakref"] = blind  # a virtual tensor is known to its mode by a weak reference

    def swap_keeping_attributes(one: torch.Tensor, other: torch.Tensor) -> None:
        kept = {k: v for k, v in one.__dict__.items() if k not in _of_fakes()}
        swap(one, other)
        for name, value in kept.items():
            one.__dict__.setdefault(name, value)

    torch.utils.swap_tensors = swap_keeping_attributes
    data = torch.Tensor.data

    def set_data(self: torch.Tensor, value: torch.Tensor) -> None:
        if self.device == value.device and type(self) is type(value):
            _set_twin(self, value)
            data.__set__(self, value)
            return
        if not isinstance(self, FakeTensor) and not isinstance(value, FakeTensor):
            data.__set__(self, value)
            return
        made = value.detach()
        if isinstance(self, torch.nn.Parameter):
            made = torch.nn.Parameter(made, requires_grad=self.requires_grad)
        elif self.requires_grad:
            made.requires_grad_()
        try:
            torch.utils.swap_tensors(self, made)
        except (
            RuntimeError
        ):  # others hold on to it; they keep what they have, as with `data` in life
            _swap_held(self, made)

    torch.Tensor.data = property(lambda self: data.__get__(self), set_data)


def _swap_held(one: torch.Tensor, other: torch.Tensor) -> None:
    """Swap two tensors of which C++ holds references."""
    one.__class__, other.__class__ = other.__class__, one.__class__
    one.__dict__, other.__dict__ = other.__dict__, one.__dict__
    torch._C._swap_tensor_impl(one, other)
    for name, value in other.__dict__.items():
        if name not in _of_fakes():
            one.__dict__.setdefault(name, value)


def _of_fakes() -> frozenset[str]:
    return frozenset(
        {"_twin", "fake_mode", "fake_device", "_constant", "nonzero_memo", "item_memo"}
    )


def _set_twin(tensor: torch.Tensor, value: torch.Tensor) -> None:
    if isinstance(tensor, FakeTensor):
        tensor._twin = getattr(value, "_twin", None)


def _made_from_data(machine: Machine, mode: Emulation) -> None:
    """Build tensors from data on the host, then move them."""
    build = torch.tensor
    new_tensor = torch.Tensor.new_tensor
    as_tensor = torch.as_tensor
    kind = machine.shown.surface

    def plain(data: Any) -> Any:
        if isinstance(data, FakeTensor):
            machine.read("tensor()")
            return mode.real(data, "tensor()").tolist()
        return [plain(x) for x in data] if isinstance(data, (list, tuple)) else data

    def tensor(
        data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
        pin_memory: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        target = torch.get_default_device() if device is None else _device(device, kind)
        values = plain(data) if _holds_virtual(data) else data
        made = build(values, dtype=dtype, device="cpu")
        if target.type != "cpu":
            made = made.to(target)
        return made.requires_grad_() if requires_grad else made

    def new(
        self: torch.Tensor, data: Any, *, dtype: Any = None, device: Any = None, **kwargs: Any
    ) -> Any:
        if not isinstance(self, FakeTensor):
            return new_tensor(self, data, dtype=dtype, device=device, **kwargs)
        return tensor(data, dtype=dtype or self.dtype, device=device or self.device, **kwargs)

    def as_virtual(data: Any, dtype: Any = None, device: Any = None) -> torch.Tensor:
        if isinstance(data, torch.Tensor):
            return data.to(device=device or data.device, dtype=dtype or data.dtype)
        target = torch.get_default_device() if device is None else _device(device, kind)
        if target.type == "cpu" and not _holds_virtual(data):
            return as_tensor(data, dtype=dtype)
        return tensor(data, dtype=dtype, device=target)

    torch.tensor, torch.Tensor.new_tensor, torch.as_tensor = tensor, new, as_virtual


def _device(device: Any, kind: str) -> torch.device:
    return torch.device(kind, device) if isinstance(device, int) else torch.device(device)


def _holds_virtual(data: Any) -> bool:
    if isinstance(data, FakeTensor):
        return True
    listed = isinstance(data, (list, tuple)) and len(data) < MOST_LISTED
    return listed and any(map(_holds_virtual, data))


def _addresses(machine: Machine) -> None:
    """Give every storage a place of its own: libraries take equal addresses for shared memory."""
    real_storage, real_tensor = torch.UntypedStorage.data_ptr, torch.Tensor.data_ptr
    resize = torch.UntypedStorage.resize_

    def of_storage(self: Any) -> int:
        if self.device.type in ("meta", machine.shown.surface):
            return machine.address(self)
        return int(real_storage(self))

    def of_tensor(self: torch.Tensor) -> int:
        if not isinstance(self, FakeTensor):
            return int(real_tensor(self))
        begin = machine.address(self.untyped_storage())
        return begin + self.storage_offset() * self.element_size()

    def resized(self: Any, size: int) -> Any:
        result = resize(self, size)
        if self._cdata in machine.storages:
            machine.retrack(self)
        return result

    torch.UntypedStorage.data_ptr, torch.Tensor.data_ptr = of_storage, of_tensor
    torch.UntypedStorage.resize_ = resized


def _pinning() -> None:
    torch.Tensor.pin_memory = lambda self, device=None: self
    torch.Tensor.is_pinned = lambda self, device=None: False
    torch.Tensor.record_stream = lambda self, stream: None


def _generators(machine: Machine) -> None:
    """Let generators of the virtual device be generators of the host."""
    real = torch.Generator

    class Generator(real):  # type: ignore[valid-type, misc]
        """A source of random numbers, wherever the script wants it."""

        def __new__(cls, device: Any = "cpu") -> Any:
            return real.__new__(cls, device="cpu")

    torch.Generator = Generator
