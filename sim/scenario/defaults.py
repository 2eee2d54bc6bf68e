"""What a job and its money assume where a scenario is silent: `jobs.yaml` and `chances.yaml`."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.units import parse_quantity
from ersatz.device_models.text.yamltext import read_yaml

DIMENSIONS = {"software_rate": "rate", "switch_rate": "rate", "spare_share": "fraction",
              "node_bandwidth": "bandwidth",
              "joint_node_bandwidth": "bandwidth", "joint_copy_bandwidth": "bandwidth",
              "joint_latency": "time", "state_per_device": "bytes", "fleet_restart": "time",
              "device_repair": "time", "storage_bandwidth": "bandwidth", "memory_bandwidth": "bandwidth",
              "bytes_per_param": "factor", "detection": "time", "restart": "time",
              "server_network_share": "fraction", "interest": "fraction", "life": "time",
              "value_decay": "factor", "opex_share": "fraction", "sold_fraction": "fraction",
              "pue": "factor", "carbon_intensity": "carbon_intensity", "embodied_per_device": "mass",
              "device_life": "time", "leaf_repair": "time", "slow_repair": "time",
              "slow_factor": "factor"}  # fmt: skip
NAMES = {
    "network_share": "server_network_share",
    "repair": "device_repair",
}  # keys of a section that are called otherwise in the data


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
        name: JobDefault(_number(str(data[name]["value"]), dimension),
                         f"{data[name]['value']} ({data[name]['note']})")
        for name, dimension in DIMENSIONS.items()
    }  # fmt: skip


def _number(text: str, dimension: str) -> float:
    return float(text) if dimension == "factor" else parse_quantity(text, dimension)


def default_of(key: str) -> float:
    """Return what a key of a job, its money or its energy is where the scenario is silent."""
    return job_defaults()[NAMES.get(key, key)].value


def left_silent(place: str, given: Set[str], keys: Sequence[str]) -> list[str]:
    """Say which keys of a section are not given and what they are taken as: one line or none."""
    left = [key for key in keys if key not in given]
    words = [f"{key} {job_defaults()[NAMES.get(key, key)].words}" for key in left]
    return [f"{place} does not say: {', '.join(words)}"] if left else []


@lru_cache(maxsize=1)
def _chances() -> Any:
    return read_yaml(DATA / "chances.yaml").data


def chance_range(name: str) -> tuple[float, float]:
    """Return the factors, below and above one, between which 80 % of what may be lie.

    Of `catalogue_price` (one that was looked up), `power`, or `utilisation` of the machines' life.
    """
    row = _chances()[name]
    return float(row["low"]), float(row["high"])
