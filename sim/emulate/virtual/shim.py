"""Make PyTorch believe in an accelerator: a device guard and hooks without a compiler.

A build for CPUs has no guard for `cuda`: the registry of guards is an exported table, where the slot
of a device that counts no devices is lent to it until PyTorch itself puts a guard that does nothing.
The hooks are a C++ object; its table of functions is copied and those that say whether there is a
device are answered from Python. Which slot is which is read from the headers that every wheel ships.

`npu` needs neither: PyTorch has a way to name a private device from Python.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

REGISTRY = "_ZN3c104impl26device_guard_impl_registryE"
HOOKS = "_ZN2at6detail12getCUDAHooksEv"
CUDA, LAZY, SLOTS = 1, 17, 22
MOST_METHODS = 64  # that are copied of a table: more than it has
_DECLARED = re.compile(
    r"virtual\s+[^;{]*?\b(?P<name>\w+)\s*\([^{;]*?\)\s*(?:const)?\s*(?:noexcept)?\s*"
    r"(?P<again>override)?\s*(?:=\s*0\s*;|[{;])"
)
_kept: list[Any] = []  # what C++ points to must live as long as the process


class ShimError(Exception):
    """This PyTorch is built in a way that the emulator does not know."""


class Current:
    """The current device. Of all threads: those of the backward pass find the one that the script chose."""

    index = 0


current = Current()


def virtual_methods(folder: str, headers: Sequence[str], begin: str) -> list[str]:
    """Return the virtual methods of a class and its base in the order of their slots."""
    names: list[str] = []
    for header in headers:
        path = Path(torch.__path__[0], "include", *folder.split("/"), header)
        text = re.sub(r"//[^\n]*", "", path.read_text())
        _, found, body = text.partition(begin)
        if not found:
            raise ShimError(f"{header} declares no interface")
        for match in _DECLARED.finditer(body):
            destructor = "~" in match[0].partition("(")[0]
            if not match["again"] and not destructor and match["name"] not in names:
                names.append(match["name"])
    return names


def believe_in_cuda(devices: int) -> None:
    """Make `cuda` an accelerator with so many devices; raises `ShimError` where that fails."""
    library = Path(torch.__path__[0], "lib")
    guards = (ctypes.c_void_p * SLOTS).in_dll(ctypes.CDLL(str(library / "libc10.so")), REGISTRY)
    if not guards[CUDA]:
        guards[CUDA] = guards[LAZY]
    torch._C._ensureCUDADeviceGuardSet()
    _answer_guard(guards[CUDA] or 0)
    _answer_hooks(ctypes.CDLL(str(library / "libtorch_cpu.so")), devices)
    if str(torch._C._get_accelerator()) not in ("cuda", "cuda:0"):
        raise ShimError(f"PyTorch {torch.__version__} does not take the virtual device")


def _answer_hooks(library: ctypes.CDLL, devices: int) -> None:
    """Say that there is a device: the hooks' two destructors stand first."""
    get = library[HOOKS]
    get.restype = ctypes.c_void_p
    headers = ("AcceleratorHooksInterface.h", "CUDAHooksInterface.h")
    names = virtual_methods("ATen/detail", headers, "struct TORCH_API")
    _replace_methods(get(), ["destructor", "deleting", *names], _answers(devices))


def _answer_guard(guard: int) -> None:
    """Say which device is current: the guard that does nothing always says the first."""
    names = virtual_methods("c10/core/impl", ["DeviceGuardImplInterface.h"], "struct C10_API")
    _replace_methods(guard, names[: names.index("uncheckedSetDevice") + 1], _guarded())


def _replace_methods(thing: int, names: Sequence[str], answers: Mapping[str, Any]) -> None:
    """Point a C++ object at a copy of its table of functions in which some are answered here."""
    table = ctypes.cast(thing, ctypes.POINTER(ctypes.c_void_p))
    old = ctypes.cast(table[0], ctypes.POINTER(ctypes.c_void_p))
    new = (ctypes.c_void_p * MOST_METHODS)(*[old[i] for i in range(MOST_METHODS)])
    for name, function in answers.items():
        if name not in names:
            raise ShimError(f"PyTorch {torch.__version__} has no method {name}")
        new[names.index(name)] = ctypes.cast(function, ctypes.c_void_p).value
        _kept.append(function)
    _kept.append(new)
    table[0] = ctypes.addressof(new)


def _choose(_: object, index: int) -> None:
    current.index = index


def _exchange(_: object, index: int) -> int:
    before = current.index
    if index >= 0:
        current.index = index
    return before


def _guarded() -> dict[str, Any]:
    """Return C functions over `Device`, two bytes: the type below, the index above.

    What sets a device stays the guard's own, which does nothing: it is called on the way out of an error
    of Python's, where no Python may run, and each process has one current device.
    """
    this, device = ctypes.c_void_p, ctypes.c_int16
    return {
        "getDevice": ctypes.CFUNCTYPE(device, this)(lambda _: CUDA | current.index << 8),
        "exchangeDevice": ctypes.CFUNCTYPE(device, this, device)(
            lambda me, given: CUDA | current.index << 8
        ),
    }


def _answers(devices: int) -> dict[str, Any]:
    """Return C functions for the hooks that say whether there is a device, and which is current."""
    this, number = ctypes.c_void_p, ctypes.c_int8
    yes = ctypes.CFUNCTYPE(ctypes.c_bool, this)(lambda _: True)
    exchanged = ctypes.CFUNCTYPE(number, this, number)(_exchange)
    return {
        "isBuilt": yes,
        "isAvailable": yes,
        "hasCUDA": yes,
        "hasPrimaryContext": ctypes.CFUNCTYPE(ctypes.c_bool, this, number)(lambda _, i: True),
        "init": ctypes.CFUNCTYPE(None, this)(lambda _: None),
        "deviceCount": ctypes.CFUNCTYPE(number, this)(lambda _: devices),
        "setCurrentDevice": ctypes.CFUNCTYPE(None, this, number)(_choose),
        "getCurrentDevice": ctypes.CFUNCTYPE(number, this)(lambda _: current.index),
        "exchangeDevice": exchanged,
        "maybeExchangeDevice": exchanged,
    }
