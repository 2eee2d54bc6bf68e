"""The `live` timer: ask the attached device for each distinct kernel as the simulation meets it.

Every kernel is run once, with repeats, and its time kept with its spread. Kernels of devices that
are not attached are modelled, so are element-wise kernels of a stack that fuses them, and kernels that
a device cannot run; `missing` names those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ersatz.device_models.calibration.measured import OWN_STACK, Point, holds_for
from ersatz.device_models.catalog.device import Device
from ersatz.device_models.kernels.kernel import Kernel, Timer, calibrated_time
from ersatz.sim.hil.device.attached import Attached
from ersatz.sim.hil.device.measure import Unmeasurable, engine_start, measure


class Source(Protocol):
    """Something that times kernels on one device: here, or on another host."""

    def measure(self, kernel: Kernel) -> Point:
        """Return the measured kernel; raises `Unmeasurable`."""
        ...


@dataclass(slots=True)
class LocalSource:
    """The device attached to this process."""

    attached: Attached
    engine_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.engine_s = engine_start(self.attached)

    def measure(self, kernel: Kernel) -> Point:
        """Time one kernel here and now; raises `Unmeasurable`."""
        return measure(self.attached, kernel, engine_s=self.engine_s)


@dataclass(slots=True)
class LiveTimer:
    """A kernel timer that measures; `sources` by the catalogue's name of their device."""

    sources: Mapping[str, Source]
    otherwise: Timer = calibrated_time
    tell: Callable[[str], None] | None = None  # what is measured now
    stacks: Mapping[str, str] = field(default_factory=dict)  # software by device; PyTorch's own
    points: dict[tuple[str, Kernel], Point] = field(default_factory=dict)
    missing: dict[tuple[str, Kernel], str] = field(default_factory=dict)

    def __call__(self, device: Device, kernel: Kernel) -> float:
        """Return the seconds of a kernel on a device."""
        key = device.name, kernel
        fits = holds_for(kernel, self.stacks.get(device.name, OWN_STACK))
        if device.name not in self.sources or not fits or key in self.missing:
            return self.otherwise(device, kernel)
        if key not in self.points:
            if self.tell:
                self.tell(f"{device.name}: {kernel.name}")
            try:
                self.points[key] = self.sources[device.name].measure(kernel)
            except Unmeasurable as reason:
                self.missing[key] = str(reason)
                return self.otherwise(device, kernel)
        return self.points[key].seconds

    @property
    def spread(self) -> float:
        """Median relative spread of the measured kernels."""
        return float(np.median([p.spread for p in self.points.values()])) if self.points else 0.0

    def summary(self) -> str:
        """Say in one sentence what was measured and what was not."""
        names = ", ".join(sorted({name for name, _ in self.points}) or sorted(self.sources))
        spread = f"median spread {100 * self.spread:.0f} %"
        text = f"{len(self.points)} distinct kernels were run on {names} ({spread})"
        if not self.missing:
            return text
        reason = min(self.missing.values())
        return f"{text}; {len(self.missing)} could not be run and are modelled: {reason}"
