"""How far off transfers between relatives are: measured devices left out and predicted.

The best rate that a public benchmark found for matrix products on one device (measured/kernels.csv)
is carried to every relative in the same table by the ratio of peaks, as `device_models.calibration.transfer`
carries it, and held against that device's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ersatz.device_models.calibration.transfer import Relation, relation
from ersatz.device_models.catalog.device import Device
from ersatz.device_models.catalog.reading import load_device
from ersatz.device_models.text.problems import InputError
from ersatz.sim.validation.errors.microbenchmarks import benchmark_rows

TABLE = "torch matmul, best shape found"
NAMES = {
    "NVIDIA A100 SXM": "a100-80", "NVIDIA H100 SXM": "h100", "NVIDIA H200 SXM": "h200",
    "NVIDIA B200 SXM": "b200", "NVIDIA GB200 SXM": "gb200", "NVIDIA B300 SXM": "b300",
    "AMD MI300X": "mi300x", "AMD MI325X": "mi325x", "AMD MI355X": "mi355x",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Carried:
    """A rate carried from one measured device to another."""

    source: str
    target: str
    dtype: str
    relation: Relation
    predicted: float  # FLOP/s
    measured: float

    @property
    def log_error(self) -> float:
        """Logarithm of predicted / measured."""
        return math.log(self.predicted / self.measured)


def _rates() -> dict[tuple[str, str], float]:
    """Return the best measured rate of each device and dtype."""
    found = {}
    for row in benchmark_rows("kernels.csv"):
        if row["kernel"] == TABLE and row["device"] in NAMES:
            dtype = "fp8" if row["dtype"].startswith("fp8") else row["dtype"]
            found[NAMES[row["device"]], dtype] = float(row["tflops"]) * 1e12
    return found


def check_transfers() -> Iterator[Carried]:
    """Yield every pair of measured relatives, both ways."""
    rates = _rates()
    devices: dict[str, Device] = {name: load_device(name) for name, _ in rates}
    for (source, dtype), rate in rates.items():
        for (target, other), measured in rates.items():
            if other != dtype or source == target:
                continue
            try:
                kind = relation(devices[source], devices[target])
            except InputError:
                continue
            ratio = devices[target].matrix_peak[dtype] / devices[source].matrix_peak[dtype]
            yield Carried(source, target, dtype, kind, rate * ratio, measured)


def worst_by_relation() -> dict[str, tuple[float, int]]:
    """Return the largest |error| as a factor minus one, and the number of pairs, by relation."""
    found: dict[str, list[float]] = {}
    for carried in check_transfers():
        found.setdefault(carried.relation, []).append(abs(carried.log_error))
    return {kind: (math.expm1(max(errors)), len(errors)) for kind, errors in sorted(found.items())}
