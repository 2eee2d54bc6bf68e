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
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from itertools import pairwise
from typing import Any

from ersatz.device_models.catalog.device import Device
from ersatz.device_models.catalog.reading import load_device
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.hil.device.fused import fused_pieces
from ersatz.sim.hil.device.host_cache import flush_bytes, held_bytes
from ersatz.sim.hil.device.identity import Seen, recognise, seen_of, wrong_name
from ersatz.sim.hil.device.parts import PLAIN, Pieces, Tensor

BACKENDS = ("cpu", "cuda", "rocm", "npu")
LONGEST_QUEUE = 64  # fillers before a timed call
CLOCK_READINGS = 2001  # of which the cost of reading a clock is told
FLUSH_CACHES = 4.0  # caches of an accelerator that are written over
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp8": "float8_e4m3fn"}
EIGHT_BITS = ("float8_e4m3fn", "float8_e4m3fnuz")  # the second on CDNA3


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
    told_cache: float = 0.0  # bytes, of an accelerator
    queue: int = 1  # fillers that keep the device busy while the host issues what is timed
    pretended: str = ""  # why it is not what it is called, where somebody means it nevertheless
    pieces: Pieces = PLAIN  # of the stack's libraries where they are present

    @property
    def asynchronous(self) -> bool:
        """The device runs by itself while the host goes on."""
        return self.module is not None

    @property
    def clock(self) -> str:
        """How time is told."""
        return "device events" if self.asynchronous else "process time, one thread"

    def cache_holds(self) -> float:
        """Return how many bytes the device's cache holds: of a host measured, else as its driver tells."""
        return self.told_cache if self.asynchronous else held_bytes(import_torch())

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
        """Return (seconds, seconds of the host to issue) of one call to an idle device.

        What the host needs until the device may begin is part of it, as it is of a training step;
        `time_queued` tells a kernel's own time.
        """
        if self.module is None:
            return _process_seconds(run), 0.0
        start, end = self._events(2)
        start.record()
        before = time.perf_counter_ns()
        result = run()
        after = time.perf_counter_ns()
        end.record()
        end.synchronize()
        del result
        return start.elapsed_time(end) * 1e-3, (after - before) * 1e-9

    def time_queued(
        self, run: Callable[[], object], prelude: Callable[[], object]
    ) -> tuple[float, float]:
        """Return (device seconds, host seconds to issue) of a call that follows `prelude` at once.

        An asynchronous device is kept busy until the host has issued everything: the two events
        then stand around the device's work alone, however long the host (or autograd's start) took.
        Where even the longest queue is too short, because the call itself waits for the device, the
        host's time is in it, as it is in training. Nothing is ever subtracted.
        """
        if self.module is None:
            prelude()
            return _process_seconds(run), 0.0
        queue = self.queue
        while True:
            seconds, host, hidden = self._behind_queue(run, prelude, queue)
            if hidden:
                self.queue = queue
            if hidden or queue >= LONGEST_QUEUE:
                return seconds, host
            queue *= 2

    def _behind_queue(
        self, run: Callable[[], object], prelude: Callable[[], object], queue: int
    ) -> tuple[float, float, bool]:
        """Time one call behind `queue` fillers; the last value says whether the host was ahead."""
        self.synchronize()
        first, start, end = self._events(3)
        first.record()
        begun = time.perf_counter_ns()
        for _ in range(queue):
            self.flush.add_(1.0)
        prelude()
        start.record()
        before = time.perf_counter_ns()
        result = run()
        after = time.perf_counter_ns()
        end.record()
        issued = (time.perf_counter_ns() - begun) * 1e-9
        end.synchronize()
        del result
        busy = first.elapsed_time(start) * 1e-3
        return start.elapsed_time(end) * 1e-3, (after - before) * 1e-9, issued < busy

    def _events(self, count: int) -> list[Any]:
        return [self.module.Event(enable_timing=True) for _ in range(count)]

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


def _process_seconds(run: Callable[[], object]) -> float:
    """Time a call by the process's own clock, without what reading that clock takes."""
    before = time.process_time_ns()
    result = run()
    after = time.process_time_ns()
    del result
    return max(after - before - _clock_ns(), 1) * 1e-9


@lru_cache(maxsize=1)
def _clock_ns() -> int:
    """Return the nanoseconds between two readings of the clock with nothing between: the median.

    Half a microsecond where the kernel is asked: a tenth of the kernels of launch-bound training.
    """
    readings = [time.process_time_ns() for _ in range(CLOCK_READINGS)]
    return round(statistics.median(b - a for a, b in pairwise(readings)))


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


def attach(
    name: str = "auto", *, catalog_name: str = "", pretend: bool = False, plain: bool = False
) -> Attached:
    """Return the device of a backend, the first accelerator for `auto`, with an index if given.

    `catalog_name` says which device of the catalogue it is, where the driver's name does not tell;
    it has to agree with what the driver says, unless `pretend`. `plain` leaves fused kernels of
    libraries aside. Raises `InputError` when PyTorch or the device is missing, when nobody knows what
    it is, or when it is not what it is called.
    """
    torch = import_torch()
    backend, _, index = name.partition(":")
    if backend == "auto":
        backend = next((b for b in ("cuda", "npu") if _present(torch, b)), "cpu")
    if backend not in BACKENDS:
        raise unusable(name, f"is unknown; expected auto or one of {', '.join(BACKENDS)}")
    if index and not index.isdecimal():
        raise unusable(name, f"expected a whole number after {backend}:, the place of the device")
    if backend == "cpu":
        return _host(torch, catalog_name or "cpu", pretend)
    return _accelerator(torch, backend, int(index or 0), catalog_name, pretend, plain)


def _identified(seen: Seen, catalog_name: str, pretend: bool) -> tuple[Device, str]:
    """Return the catalogue's device and, where it only pretends, what speaks against it."""
    if not catalog_name:
        name, why = ("cpu", "") if seen.backend == "cpu" else recognise(seen)
        if not name:
            raise unusable(seen.backend, f"{why}; name one by --as (it is checked)")
        return load_device(name), ""
    device = load_device(catalog_name)
    against = "; ".join(wrong_name(seen, device))
    if against and not pretend:
        raise unusable(
            seen.backend, f"is not {device.name}: {against}; --pretend is for those who mean it"
        )
    return device, against


def _present(torch: Any, backend: str) -> bool:
    if backend == "npu":
        with suppress(ImportError):
            import_module("torch_npu")  # adds torch.npu
    module = getattr(torch, backend, None)
    return bool(module is not None and module.is_available())


def _host(torch: Any, catalog_name: str, pretend: bool) -> Attached:
    from platform import machine, processor

    name = _processor_name() or processor() or machine()
    catalogued, against = _identified(Seen("cpu", name), catalog_name, pretend)
    torch.set_num_threads(1)
    keep_freed_memory()
    capability = torch.backends.cpu.get_cpu_capability()
    made = Attached("cpu", torch.device("cpu"), None, catalogued.name, name, capability,
                    f"torch {torch.__version__}", pretended=against)  # fmt: skip
    made.flush = torch.zeros(flush_bytes() // 4)
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


def _accelerator(
    torch: Any, backend: str, index: int, catalog_name: str, pretend: bool, plain: bool
) -> Attached:
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
    shown = "rocm" if hip and kind == "cuda" else backend
    properties = module.get_device_properties(index)
    seen = seen_of(shown, module.get_device_name(index), properties)
    catalogued, against = _identified(seen, catalog_name, pretend)
    driver = str(hip or getattr(torch.version, "cuda", "") or getattr(torch.version, "cann", ""))
    device = torch.device(kind, index)
    made = Attached(shown, device, module, catalogued.name, seen.hardware, driver,
                    f"torch {torch.__version__}", pretended=against)  # fmt: skip
    # A driver may tell one chiplet's cache (MI300X: an XCD's 4 MB beside 256 MB behind them).
    cache = max(seen.cache_bytes, catalogued.cache_bytes)
    made.flush = torch.zeros(int(FLUSH_CACHES * cache) // 4, device=device)
    made.told_cache = cache
    made.pieces = PLAIN if plain else fused_pieces(torch, shown, device)
    return made
