"""A calibration: kernels measured on one device, what was fitted to them, and where it comes from.

`calibrated_timer` makes a kernel timer of it, for the device that it names only. How it is kept in a file
says `ersatz.device_models.calibration.file`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ersatz.device_models.catalog.device import Device
from ersatz.device_models.kernels.kernel import Kernel, Timer, calibrated_time
from ersatz.device_models.kernels.operations import COMPUTE, operation_of
from ersatz.device_models.kernels.terms import Machine, OperationFit

IN_CACHE = "steps that stay in the cache"  # scope of their kernels
OWN_STACK = "torch-eager"  # the software whose kernels are measured


@dataclass(frozen=True, slots=True)
class Origin:
    """What was measured, with what, and when."""

    device: str  # name in the catalogue
    backend: str  # cpu, cuda, rocm, npu
    hardware: str  # as the driver calls it
    driver: str
    framework: str
    clock: str
    date: str
    seed: int
    measured_s: float  # time spent measuring
    pretended: str = ""  # why the hardware is not the device that it was told to be
    source: str = ""  # of a transfer: the device that was measured
    scope: str = ""  # of own ops: whose kernels they are
    libraries: str = ""  # kernels of the stack that were timed in PyTorch's place, with versions


@dataclass(frozen=True, slots=True)
class Point:
    """One measured kernel; `seconds` with its operands where a training step finds them."""

    kernel: Kernel
    seconds: float  # median
    warm_s: float  # median with all operands in the cache
    spread: float  # (80th - 20th percentile) / median
    samples: int
    host_s: float = 0.0  # host time to issue it, where the device runs by itself


@dataclass(frozen=True, slots=True)
class Calibration:
    """Everything that `ersatz calibrate` finds out about one device."""

    origin: Origin
    machine: Machine
    parameters: Mapping[str, float]  # of the catalogue's device: what the fit puts in their place
    fits: Mapping[tuple[str, str], OperationFit]  # by operation and dtype
    points: tuple[Point, ...]
    missing: tuple[str, ...] = ()  # kernels that the device could not run, and why
    proof: Mapping[str, float] = field(default_factory=dict)  # figures of `--prove`
    soak: Mapping[str, float] = field(default_factory=dict)  # burst and sustained rates of products
    sentinels: Mapping[str, float] = field(default_factory=dict)  # seconds, by kernel, all along
    launches: Mapping[str, float] = field(default_factory=dict)  # host seconds, by operation
    operators: Mapping[str, float] = field(default_factory=dict)  # seconds, by a script's operators
    together: Mapping[str, float] = field(
        default_factory=dict
    )  # of small: parts of steps / kernels
    small: Calibration | None = None  # kernels of steps that stay in the cache, in their order
    file: str = ""

    def slowdown(self, kernel: Kernel) -> float:
        """Return how much longer a kernel takes in training than alone on a cool device."""
        computes = operation_of(kernel).startswith(COMPUTE)
        return 1.0 / self.soak.get("sustained", 1.0) if computes else 1.0

    @property
    def step_error(self) -> float:
        """Relative half width of the 80 % interval of a step on this device.

        From the proof where there is one, else from the held-out kernels, which is wider.
        """
        if "half_width" in self.proof:
            return self.proof["half_width"]
        errors = [fit.p80_error for fit in self.fits.values()]
        return math.fsum(errors) / len(errors) if errors else 1.0


def calibrated_device(device: Device, calibration: Calibration) -> Device:
    """Return the device with the fitted parameters; another device is returned unchanged."""
    if device.name != calibration.origin.device:
        return device
    changes: dict[str, Any] = {"launches": calibration.launches}
    for key, value in calibration.parameters.items():
        name, _, dtype = key.partition(".")
        if dtype:
            changes[name] = {**changes.get(name, getattr(device, name)), dtype: value}
        else:
            changes[name] = value
    return replace(device, **changes)


def calibrated_timer(calibration: Calibration, stack: str = OWN_STACK) -> Timer:
    """Return the timer of a calibrated device; other devices and kernels are modelled as ever.

    Under another stack than plain PyTorch only products and attention are taken from the
    measurements: what else it fuses is its own.
    """

    own = own_seconds(calibration) if calibration.origin.scope else {}

    def timer(device: Device, kernel: Kernel) -> float:
        fit = _fit_for(calibration, device, kernel, stack)
        if own and is_measured(calibration, device, kernel, stack):
            exact = own.get(kernel_key(kernel))
            if exact is not None:
                return exact * calibration.slowdown(kernel)
        if fit is None:
            return calibrated_time(calibrated_device(device, calibration), kernel)
        return fit.seconds(kernel, calibration.machine) * calibration.slowdown(kernel)

    return timer


def kernel_key(kernel: Kernel) -> str:
    """Return a text that tells measured kernels apart: the operation and its sizes, to six digits."""
    sizes = (kernel.m, kernel.n, kernel.k, kernel.groups, kernel.sequence)
    return f"{operation_of(kernel)} {kernel.dtype} " + " ".join(f"{size:g}" for size in sizes)


def own_seconds(calibration: Calibration) -> dict[str, float]:
    """Return the measured seconds of each kernel by its key."""
    return {kernel_key(point.kernel): point.seconds for point in calibration.points}


def is_measured(calibration: Calibration, device: Device, kernel: Kernel, stack: str) -> bool:
    """Tell whether the calibration's measurements of a kernel hold for this device and software."""
    return device.name == calibration.origin.device and holds_for(kernel, stack)


def holds_for(kernel: Kernel, stack: str) -> bool:
    """Tell whether what PyTorch takes for a kernel holds for a software stack.

    Products and attention are much the same everywhere; element-wise kernels are fused differently.
    """
    return stack == OWN_STACK or operation_of(kernel).startswith(COMPUTE)


def _fit_for(
    calibration: Calibration, device: Device, kernel: Kernel, stack: str
) -> OperationFit | None:
    if not is_measured(calibration, device, kernel, stack):
        return None
    return calibration.fits.get((operation_of(kernel), kernel.dtype))


def with_small(
    calibration: Calibration, fits: Mapping[tuple[str, str], OperationFit], points: Sequence[Point],
    together: Mapping[str, float] | None = None,
) -> Calibration:  # fmt: skip
    """Return a calibration that knows kernels of steps that stay in the cache, too.

    `together` is what the parts of such a step take, over the sum of their kernels.
    """
    origin = replace(calibration.origin, scope=IN_CACHE)
    small = replace(calibration, origin=origin, fits=fits, points=tuple(points), sentinels={},
                    together=together or {}, small=None)  # fmt: skip
    return replace(calibration, small=small)
