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
from pathlib import Path
from typing import Any

import torch

REGISTRY = "_ZN3c104impl26device_guard_impl_registryE"
HOOKS = "_ZN2at6detail12getCUDAHooksEv"
CUDA, LAZY, SLOTS = 1, 17, 22
_DECLARED = re.compile(
    r"virtual\s+[^;{]*?\b(?P<name>\w+)\s*\([^{;]*?\)\s*(?:const)?\s*(?:noexcept)?\s*"
    r"(?P<again>override)?\s*(?:=\s*0\s*;|[{;])"
)
_kept: list[Any] = []  # what C++ points to must live as long as the process


class ShimError(Exception):
    """This PyTorch is built in a way that the emulator does not know."""


def virtual_methods() -> list[str]:
    """Return the virtual methods of the CUDA hooks in the order of their slots, two destructors first."""
    names = ["destructor", "deleting destructor"]
    for header in ("AcceleratorHooksInterface.h", "CUDAHooksInterface.h"):
        path = Path(torch.__path__[0], "include", "ATen", "detail", header)
        text = re.sub(r"//[^\n]*", "", path.read_text())
        _, found, body = text.partition("struct TORCH_API")
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
    _answer_hooks(ctypes.CDLL(str(library / "libtorch_cpu.so")), devices)
    if str(torch._C._get_accelerator()) not in ("cuda", "cuda:0"):
        raise ShimError(f"PyTorch {torch.__version__} does not take the virtual device")


def _answer_hooks(library: ctypes.CDLL, devices: int) -> None:
    get = library[HOOKS]
    get.restype = ctypes.c_void_p
    hooks = ctypes.cast(get(), ctypes.POINTER(ctypes.c_void_p))
    names = virtual_methods()
    old = ctypes.cast(hooks[0], ctypes.POINTER(ctypes.c_void_p))
    table = (ctypes.c_void_p * len(names))(*[old[i] for i in range(len(names))])
    for name, function in _answers(devices).items():
        if name not in names:
            raise ShimError(f"PyTorch {torch.__version__} has no hook {name}")
        table[names.index(name)] = ctypes.cast(function, ctypes.c_void_p).value
        _kept.append(function)
    _kept.append(table)
    hooks[0] = ctypes.addressof(table)


def _answers(devices: int) -> dict[str, Any]:
    """Return C functions for the hooks that say whether there is a device, and which is current."""
    this, number = ctypes.c_void_p, ctypes.c_int8
    current = [0]

    def exchange(_: object, index: int) -> int:
        before = current[0]
        if index >= 0:
            current[0] = index
        return before

    def choose(_: object, index: int) -> None:
        current[0] = index

    yes = ctypes.CFUNCTYPE(ctypes.c_bool, this)(lambda _: True)
    exchanged = ctypes.CFUNCTYPE(number, this, number)(exchange)
    return {
        "isBuilt": yes,
        "isAvailable": yes,
        "hasCUDA": yes,
        "hasPrimaryContext": ctypes.CFUNCTYPE(ctypes.c_bool, this, number)(lambda _, i: True),
        "init": ctypes.CFUNCTYPE(None, this)(lambda _: None),
        "deviceCount": ctypes.CFUNCTYPE(number, this)(lambda _: devices),
        "setCurrentDevice": ctypes.CFUNCTYPE(None, this, number)(choose),
        "getCurrentDevice": ctypes.CFUNCTYPE(number, this)(lambda _: current[0]),
        "exchangeDevice": exchanged,
        "maybeExchangeDevice": exchanged,
    }
