"""Planning defaults of the market, each with its source: `device_models/data/economics.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from device_models.catalog import DATA
from device_models.units import parse_quantity
from device_models.yamltext import read_yaml

DIMENSIONS = {
    "lead_time": "time", "lead_time_domestic": "time", "transit": "time", "repaired": "fraction",
    "repair_time": "time", "repair_share": "fraction", "failure_rate": "rate",
    "failure_rate_domestic": "rate", "network_share": "fraction",
    "network_share_domestic": "fraction", "pue": "fraction", "energy_price": "energy_price",
    "carbon_intensity": "carbon_intensity", "licence_approval": "fraction", "licence_delay": "time",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Default:
    """A value in base units, as it is written, and where it comes from."""

    value: float
    text: str
    source: str
    confidence: str
    note: str


@lru_cache(maxsize=1)
def load_defaults() -> dict[str, Default]:
    """Return every planning default by name; prices are in CNY."""
    data: Any = read_yaml(DATA / "economics.yaml").data
    found = {}
    for name, dimension in DIMENSIONS.items():
        row = data[name]
        source, note = data["sources"][row["source"]], row.get("note", "")
        value = parse_quantity(row["value"], dimension)
        found[name] = Default(value, str(row["value"]), source, row["confidence"], note)
    return found
