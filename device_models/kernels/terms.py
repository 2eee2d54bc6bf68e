"""What the time of a kernel is a sum of: calls, FLOPs, rows, elements, and bytes that miss a cache.

Each operation has its own few terms; a fit (`ersatz.sim.hil.fit`) finds the seconds of each, never
negative, and `OperationFit.seconds` adds them up. `bound` is the roofline's maximum of FLOPs and
bytes, in FLOPs, by the ridge of the device; `waves` the FLOPs of full tiles in full waves.

Not modelled: how one kernel's operands displace another's; a measurement finds the operands where a
training step would leave them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ersatz.device_models.catalog.device import DTYPE_BYTES, Device
from ersatz.device_models.kernels.kernel import Kernel, kernel_constants
from ersatz.device_models.kernels.operations import is_product, operation_of


@dataclass(frozen=True, slots=True)
class Machine:
    """What the terms need to know of a device."""

    cache_bytes: float
    tile: tuple[int, int]  # rows and columns of one unit's output tile
    units: int
    ridge: Mapping[str, float]  # FLOP per byte at which the roofline bends, by dtype


def machine_of(device: Device) -> Machine:
    """Return what the data sheet says of a device's shape."""
    ridge = {dtype: peak / device.memory_bandwidth for dtype, peak in device.matrix_peak.items()}
    return Machine(device.cache_bytes, device.matrix_tile[:2], device.compute_units, ridge)


@dataclass(frozen=True, slots=True)
class OperationFit:
    """Seconds per unit of each term of one operation in one dtype, and how well they fit."""

    operation: str
    dtype: str
    seconds_per: Mapping[str, float]  # by term
    points: int
    median_error: float  # |predicted / measured - 1| of held-out points
    mean_error: float
    p80_error: float

    def seconds(self, kernel: Kernel, machine: Machine) -> float:
        """Return the time of a kernel of this operation."""
        return math.fsum(
            cost * TERMS[name](kernel, machine) for name, cost in self.seconds_per.items()
        )


def _bytes(kernel: Kernel) -> float:
    """Bytes of the operands, once each."""
    size = DTYPE_BYTES[kernel.dtype]
    if kernel.kind == "matmul":
        m, n, k = kernel.m, kernel.n, kernel.k
        return kernel.groups * size * (m * k + k * n + m * n)
    if kernel.kind == "attention":
        return kernel.nbytes
    return size * kernel.m * kernel.n * max(kernel.k if "activation" in kernel.name else 1.0, 1.0)


def _beyond(kernel: Kernel, machine: Machine, divisor: float) -> float:
    """Return the operands' bytes beyond a cache that is so much smaller than the last one."""
    return max(_bytes(kernel) - machine.cache_bytes / divisor, 0.0)


def _waves(kernel: Kernel, machine: Machine) -> float:
    tile_m, tile_n = machine.tile
    tiles = math.ceil(kernel.m / tile_m) * math.ceil(kernel.n / tile_n) * kernel.groups
    full = math.ceil(tiles / machine.units) * machine.units
    return 2.0 * full * tile_m * tile_n * kernel.k


def _scores(kernel: Kernel, machine: Machine) -> float:
    """Elements of the causal half of the score matrices of all heads."""
    return kernel.m * kernel.sequence / 2 * max(kernel.n / max(kernel.k, 1.0), 1.0)


TERMS: dict[str, Callable[[Kernel, Machine], float]] = {
    "call": lambda kernel, machine: 1.0,
    "flop": lambda kernel, machine: kernel.flop,
    "waves": _waves,
    "bound": lambda kernel, machine: max(
        kernel.flop, machine.ridge.get(kernel.dtype, 0.0) * _bytes(kernel)
    ),
    "left": lambda kernel, machine: kernel.groups * kernel.m * kernel.k,
    "right": lambda kernel, machine: kernel.groups * kernel.k * kernel.n,
    "output": lambda kernel, machine: kernel.groups * kernel.m * kernel.n,
    "rows": lambda kernel, machine: kernel.m,
    "elements": lambda kernel, machine: kernel.m * kernel.n,
    "table": lambda kernel, machine: kernel.k * kernel.n,
    "scores": _scores,
    "bytes": lambda kernel, machine: _bytes(kernel),
    "missed": lambda kernel, machine: _beyond(kernel, machine, kernel_constants().small_cache),
    "spilled": lambda kernel, machine: _beyond(kernel, machine, kernel_constants().shared_cache),
}

_PRODUCT = ("call", "flop", "waves", "bound", "left", "right", "output", "spilled")
_ATTENTION = ("call", "rows", "flop", "scores", "bytes", "spilled")
_MOVE = ("call", "rows", "elements", "missed", "spilled")
_SPECIAL = {
    "embedding": ("call", "rows", "elements", "spilled"),
    "embedding back": ("call", "rows", "elements", "table"),
    "optimizer": ("call", "elements"),
}


def terms_of(operation: str) -> tuple[str, ...]:
    """Return the names of the terms of an operation."""
    if is_product(operation):
        return _PRODUCT
    if operation.startswith("attention"):
        return _ATTENTION
    return _SPECIAL.get(operation, _MOVE)


def term_values(kernel: Kernel, machine: Machine) -> list[float]:
    """Return the value of each term of a kernel's operation, in the order of `terms_of`."""
    return [TERMS[name](kernel, machine) for name in terms_of(operation_of(kernel))]
