"""What a job and its money assume where a scenario is silent: `jobs.yaml` and `chances.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.units import parse_quantity
from ersatz.device_models.text.yamltext import read_yaml

DIMENSIONS = {"software_rate": "rate", "switch_rate": "rate", "node_bandwidth": "bandwidth",
              "joint_node_bandwidth": "bandwidth", "joint_copy_bandwidth": "bandwidth",
              "joint_latency": "time"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class JobDefault:
    """A value in base units, and how it is said: the value as written, and why."""

    value: float
    words: str


@lru_cache(maxsize=1)
def job_defaults() -> dict[str, JobDefault]:
    """Return every default by name."""
    data: Any = read_yaml(DATA / "jobs.yaml").data
    return {
        name: JobDefault(parse_quantity(str(data[name]["value"]), dimension),
                         f"{data[name]['value']} ({data[name]['note']})")
        for name, dimension in DIMENSIONS.items()
    }  # fmt: skip


@lru_cache(maxsize=1)
def _chances() -> Any:
    return read_yaml(DATA / "chances.yaml").data


def chance_range(name: str) -> tuple[float, float]:
    """Return the factors, below and above one, between which 80 % of what may be lie.

    Of `catalogue_price` (one that was looked up), `power`, or `utilisation` of the machines' life.
    """
    row = _chances()[name]
    return float(row["low"]), float(row["high"])
