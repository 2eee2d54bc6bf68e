"""The attached device: which one PyTorch reaches, how its time is told, how its cache is emptied.

| backend | PyTorch calls it | clock |
|---|---|---|
| cpu | cpu | CPU time of this process, one thread: other users of the machine do not count |
| cuda, rocm | cuda | device events |
| npu | npu, from torch_npu | device events |

Clocks and power limits are left as they are found.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ersatz.sim.errors import InputError, Problem
from ersatz.sim.hil.device.parts import Tensor

BACKENDS = ("cpu", "cuda", "rocm", "npu")
FLUSH_BYTES = {"cpu": 64 * 2**20}  # beyond the last cache of a host
FLUSH_CACHES = 4.0  # caches of an accelerator that are written over
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp8": "float8_e4m3fn"}
EIGHT_BITS = ("float8_e4m3fn", "float8_e4m3fnuz")  # the second on CDNA3

# Names of catalogue devices by what drivers call them, the longest match first.
HARDWARE = {
    "H100": "h100", "H800": "h800", "H20": "h20", "H200": "h200", "A100": "a100-80",
    "A800": "a800", "B200": "b200", "B300": "b300", "GB200": "gb200", "GB300": "gb300",
    "MI210": "mi210", "MI250X": "mi250x-gcd", "MI300X": "mi300x", "MI308X": "mi308x",
    "MI325X": "mi325x", "MI355X": "mi355x", "910A": "ascend-910a", "910B1": "ascend-910b1",
    "910B2": "ascend-910b2", "910B3": "ascend-910b3", "910B4": "ascend-910b4",
    "910_93": "ascend-910c-die", "910C": "ascend-910c-die",
}  # fmt: skip


def unusable(name: str, why: str) -> InputError:
    """Return the error of a device that cannot be used."""
    return InputError([Problem(f"device {name}", 0, 0, "", "", why)])


@dataclass(slots=True)
class Attached:
    """One device under PyTorch, ready to time kernels."""

    backend: str
    device: Any  # torch.device
    module: Any  # torch.cuda, torch.npu, or None for the CPU
    catalog_name: str  # the device of the catalogue that it is
    hardware: str
    driver: str
    framework: str
    flush: Tensor = field(default=None, repr=False)

    @property
    def asynchronous(self) -> bool:
        """The device runs by itself while the host goes on."""
        return self.module is not None

    @property
    def clock(self) -> str:
        """How time is told."""
        return "device events" if self.asynchronous else "process time, one thread"

    def synchronize(self) -> None:
        """Wait until the device has nothing to do."""
        if self.module is not None:
            self.module.synchronize()

    def empty_cache(self, fresh: Sequence[Tensor]) -> None:
        """Push everything out of the device's cache but what the kernel before has written."""
        self.flush.add_(1.0)
        for operand in fresh:
            operand.sum()

    def time_once(self, run: Callable[[], object]) -> tuple[float, float]:
        """Return (seconds on the device, seconds of the host to issue) of one call."""
        if self.module is None:
            before = time.process_time_ns()
            result = run()
            after = time.process_time_ns()
            del result
            return (after - before) * 1e-9, 0.0
        start, end = (self.module.Event(enable_timing=True) for _ in range(2))
        start.record()
        before = time.perf_counter_ns()
        result = run()
        after = time.perf_counter_ns()
        end.record()
        end.synchronize()
        del result
        return start.elapsed_time(end) * 1e-3, (after - before) * 1e-9

    def out_of_memory(self, error: BaseException) -> bool:
        """Tell whether an error means that the device's memory is full; frees what can be."""
        full = isinstance(error, MemoryError) or "memory" in str(error).lower()
        if full and self.module is not None:
            self.module.empty_cache()
        return full

    def native_dtypes(self) -> list[str]:
        """Return the formats in which the device multiplies matrices, by trying."""
        import torch

        found = []
        for name in ("fp32", "bf16", "fp16"):
            x = torch.ones(16, 16, device=self.device, dtype=dtype_of(name))
            with suppress(RuntimeError):
                torch.mm(x, x)
                found.append(name)
        if self.asynchronous and self.eight_bits:  # a CPU converts them first
            found.append("fp8")
        return found

    @property
    def eight_bits(self) -> str:
        """Name of the 8-bit format that the device multiplies; empty without one."""
        import torch

        for name in EIGHT_BITS:
            with suppress(RuntimeError, AttributeError, TypeError, ValueError):
                x = torch.ones(16, 16, device=self.device).to(getattr(torch, name))
                multiply_eight_bits(x, x)
                return name
        return ""

    def tensor_dtype(self, name: str) -> Any:
        """Return PyTorch's dtype of a kernel's dtype on this device."""
        import torch

        return getattr(torch, self.eight_bits or EIGHT_BITS[0]) if name == "fp8" else dtype_of(name)


def multiply_eight_bits(x: Tensor, weight: Tensor) -> Tensor:
    """Return x W' of 8-bit operands with one scale each, in bf16."""
    import torch

    one = torch.ones((), device=x.device)
    return torch._scaled_mm(x, weight.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


def dtype_of(name: str) -> Any:
    """Return PyTorch's dtype of a name of ours."""
    import torch

    return getattr(torch, DTYPES[name])


def import_torch() -> Any:
    """Import PyTorch; raises `InputError` that says how to install it."""
    try:
        import torch
    except ImportError as error:
        raise unusable(
            "PyTorch", "is not installed; pip install 'ersatz[hil]' (or the PyTorch of your device)"
        ) from error
    return torch


def attach(name: str = "auto", *, catalog_name: str = "") -> Attached:
    """Return the device of a backend, the first accelerator for `auto`, with an index if given.

    `catalog_name` says which device of the catalogue it is, where the driver's name does not tell.
    Raises `InputError` when PyTorch or the device is missing, or when nobody knows what it is.
    """
    torch = import_torch()
    backend, _, index = name.partition(":")
    if backend == "auto":
        backend = next((b for b in ("cuda", "npu") if _present(torch, b)), "cpu")
    if backend not in BACKENDS:
        raise unusable(name, f"is unknown; expected auto or one of {', '.join(BACKENDS)}")
    if backend == "cpu":
        return _host(torch, catalog_name or "cpu")
    return _accelerator(torch, backend, int(index or 0), catalog_name)


def _present(torch: Any, backend: str) -> bool:
    if backend == "npu":
        with suppress(ImportError):
            import_module("torch_npu")  # adds torch.npu
    module = getattr(torch, backend, None)
    return bool(module is not None and module.is_available())


def _host(torch: Any, catalog_name: str) -> Attached:
    from platform import machine, processor

    torch.set_num_threads(1)
    keep_freed_memory()
    name = _processor_name() or processor() or machine()
    capability = torch.backends.cpu.get_cpu_capability()
    made = Attached("cpu", torch.device("cpu"), None, catalog_name, name, capability,
                    f"torch {torch.__version__}")  # fmt: skip
    made.flush = torch.zeros(FLUSH_BYTES["cpu"] // 4)
    return made


def _processor_name() -> str:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return ""


def keep_freed_memory() -> None:
    """Make the C library keep freed memory, as allocators of accelerators do.

    Otherwise every large result is mapped anew and its pages are touched for the first time, which
    costs more than many kernels and differs from call to call. Does nothing outside glibc.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**26)):  # mmap, trim, top pad
            library.mallopt(option, value)


def _accelerator(torch: Any, backend: str, index: int, catalog_name: str) -> Attached:
    kind = "npu" if backend == "npu" else "cuda"
    if not _present(torch, kind):
        raise unusable(backend, "is not attached, or this PyTorch was built without it")
    hip = getattr(torch.version, "hip", None)
    if backend == "rocm" and not hip:
        raise unusable(backend, "is not what this PyTorch was built for: it speaks CUDA")
    module = getattr(torch, kind)
    if index >= module.device_count():
        raise unusable(f"{backend}:{index}", f"does not exist: {module.device_count()} attached")
    module.set_device(index)
    properties = module.get_device_properties(index)
    hardware = module.get_device_name(index)
    name = catalog_name or catalog_device(hardware)
    if not name:
        raise unusable(backend, f"{hardware!r} is no device of the catalogue; name one by --as")
    driver = str(hip or getattr(torch.version, "cuda", "") or getattr(torch.version, "cann", ""))
    shown = "rocm" if hip and kind == "cuda" else backend
    device = torch.device(kind, index)
    made = Attached(shown, device, module, name, hardware, driver, f"torch {torch.__version__}")
    cache = float(getattr(properties, "L2_cache_size", 0) or 64 * 2**20)
    made.flush = torch.zeros(int(FLUSH_CACHES * cache) // 4, device=device)
    return made


def catalog_device(hardware: str) -> str:
    """Return the catalogue's name of what a driver calls a device, or an empty text."""
    plain = hardware.upper().replace(" ", "").replace("ASCEND", "")
    known = sorted(HARDWARE, key=len, reverse=True)
    return next((HARDWARE[word] for word in known if word in plain), "")
