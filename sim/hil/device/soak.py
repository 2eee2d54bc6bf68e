"""A soak: products without a pause for some seconds, as training runs them, beside clock and power.

A kernel that is measured alone meets a cool device at its highest clock; one in training meets what
the power limit leaves. The ratio of the last quarter's rate to the first moments' is a parameter of
the calibration (`sustained`), by which products and attention become slower.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from ersatz.sim.hil.device.attached import Attached
from ersatz.sim.hil.device.filling import normal_numbers

SIZES = {"cpu": 512}  # edge of the product; accelerators take LARGE_EDGE
LARGE_EDGE = 8192
BATCH_S = 0.05  # products between two looks at the clock
BURST_BATCHES = 5
NPU_LABELS = {
    "clock_mhz": r"Aicore(?: Curr)? Freq\s*\(MHZ\)\s*:\s*([\d.]+)",
    "power_w": r"Power Dissipation\s*\(W\)\s*:\s*([\d.]+)",
    "temperature_c": r"(?:NPU )?Temperature\s*\(C\)\s*:\s*([\d.]+)",
}
TORCH_READERS = {"clock_mhz": ("clock_rate", 1.0), "power_w": ("power_draw", 1e-3),
                 "temperature_c": ("temperature", 1.0)}  # fmt: skip

Telemetry = Callable[[], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Soak:
    """What a soak found; rates in FLOP/s."""

    seconds: float
    burst: float
    sustained: float
    telemetry: Mapping[str, float] = field(default_factory=dict)  # first and last of each reading

    @property
    def ratio(self) -> float:
        """Sustained / burst, at most 1: a device does not run faster for being hot."""
        return min(self.sustained / self.burst, 1.0)

    def figures(self) -> dict[str, float]:
        """Return what a calibration keeps."""
        return {"sustained": self.ratio, "seconds": self.seconds, "burst_flops": self.burst,
                "sustained_flops": self.sustained, **self.telemetry}  # fmt: skip


def telemetry_of(attached: Attached) -> Mapping[str, float]:
    """Return clock, power and temperature where the driver's library or tool is present.

    PyTorch asks NVML and amdsmi; Ascend is asked by npu-smi. What nobody tells is left out.
    """
    if attached.backend == "npu":
        return npu_readings(_npu_text(attached.device.index or 0))
    found: dict[str, float] = {}
    for name, (reader, scale) in TORCH_READERS.items():
        with suppress(Exception):  # a missing library raises what it likes
            found[name] = float(getattr(attached.module, reader)(attached.device)) * scale
    return found


def _npu_text(index: int) -> str:
    tool = shutil.which("npu-smi")
    if tool is None:
        return ""
    texts = []
    for kind in ("common", "power"):
        with suppress(OSError, subprocess.SubprocessError):
            command = [tool, "info", "-t", kind, "-i", str(index)]
            texts.append(subprocess.run(command, capture_output=True, text=True, timeout=5).stdout)
    return "\n".join(texts)


def npu_readings(text: str) -> dict[str, float]:
    """Return the readings that npu-smi prints."""
    found = {name: re.search(label, text, re.IGNORECASE) for name, label in NPU_LABELS.items()}
    return {name: float(match[1]) for name, match in found.items() if match}


def run_soak(
    attached: Attached, dtype: str, seconds: float, telemetry: Telemetry | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Soak:  # fmt: skip
    """Multiply for `seconds` and return burst and sustained rates; raises as PyTorch does."""
    run, flop = _products(attached, dtype)
    read = telemetry or (lambda: telemetry_of(attached))
    before = read()
    begun = time.monotonic()
    rates: list[float] = []
    while time.monotonic() - begun < seconds or len(rates) < 2 * BURST_BATCHES:
        rates.append(flop / attached.time_once(run)[0])
        if progress:
            progress(time.monotonic() - begun, "soak: products without a pause")
    after = read()
    last = rates[-max(len(rates) // 4, BURST_BATCHES) :]
    readings = {f"{k}_first": v for k, v in before.items()} | {
        f"{k}_last": v for k, v in after.items()
    }
    return Soak(time.monotonic() - begun, statistics.median(rates[:BURST_BATCHES]),
                statistics.median(last), readings)  # fmt: skip


def _products(attached: Attached, dtype: str) -> tuple[Callable[[], object], float]:
    """Return a batch of products of about `BATCH_S`, and its FLOPs."""
    import torch

    edge = SIZES.get(attached.backend, LARGE_EDGE)
    kind = attached.tensor_dtype(dtype)
    generator = torch.Generator().manual_seed(0)
    x, y = (normal_numbers((edge, edge), generator, attached.device, kind) for _ in range(2))
    out = torch.mm(x, y)
    one = attached.time_once(lambda: torch.mm(x, y, out=out))[0]
    count = max(round(BATCH_S / max(one, 1e-6)), 1)

    def batch() -> None:
        for _ in range(count):
            torch.mm(x, y, out=out)

    return batch, 2.0 * edge**3 * count
