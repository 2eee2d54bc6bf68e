"""How fast fused attention runs: by kernel, architecture, direction, length and head size.

rate = peak x share / (1 + ramp / length): a short sequence leaves units idle, the causal mask more
so, and fixed times count for less on a bin of lower peak, whose ramp is shorter by as much. Small
heads multiply less per exponential: between 64 and 128 the time per score is linear in 1 / head.
Kernels that `data/attention.yaml` does not know on an architecture run at the device's own share
(`attention_forward`, `attention_backward`), with the ramp of `kernel_model.yaml`.

Not modelled: heads beyond 128, masks other than causal, sparse attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from ersatz.device_models.catalog.device import Device, family
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import parse_yaml


@dataclass(frozen=True, slots=True)
class AttentionKernel:
    """What one kernel reaches on one architecture."""

    forward: float  # share of the 16-bit peak at great length
    backward: float
    ramp_forward: float  # tokens at which half of it is reached
    ramp_backward: float
    head_64: float  # rate with heads of 64 / with heads of 128
    peak_tflops: float  # of the part that was measured

    def share(self, length: float, head: float, peak: float, *, backward: bool) -> float:
        """Return the share of a peak (FLOP/s) at a length in tokens with heads of a size."""
        whole = self.backward if backward else self.forward
        ramp = self.ramp_backward if backward else self.ramp_forward
        ramp *= peak / (1e12 * self.peak_tflops)
        small = max(min(128.0 / max(head, 1.0), 2.0) - 1.0, 0.0)
        slower = 1.0 + small * (1.0 / self.head_64 - 1.0)
        return whole / (1.0 + ramp / max(length, 1.0)) / slower


@lru_cache(maxsize=1)
def attention_kernels() -> Mapping[tuple[str, str], AttentionKernel]:
    """Return the known kernels by architecture and name."""
    rows = parse_yaml((DATA / "attention.yaml").read_text(), "attention.yaml").data["kernels"]
    keys = ("forward", "backward", "ramp_forward", "ramp_backward", "head_64", "peak_tflops")
    return {
        (row["architecture"], row["kernel"]): AttentionKernel(*(float(row[key]) for key in keys))
        for row in rows
    }


def attention_kernel(device: Device, names: Iterable[str]) -> AttentionKernel | None:
    """Return the first of the named kernels that runs on a device, if any is known there."""
    known = attention_kernels()
    return next((known[key] for name in names if (key := (family(device), name)) in known), None)
