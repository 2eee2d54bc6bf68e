"""Planning defaults of the market, each with its source: `device_models/data/economics.yaml`.

What the prices know has no second value here: its row names the observation whose middle is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.units import parse_quantity
from ersatz.device_models.text.yamltext import read_yaml
from ersatz.sim.market.prices import market_prices

DIMENSIONS = {
    "lead_time": "time", "lead_time_domestic": "time", "transit": "time", "repaired": "fraction",
    "repair_time": "time", "repair_share": "fraction", "failure_rate": "rate",
    "failure_rate_domestic": "rate", "network_share": "fraction",
    "network_share_domestic": "fraction", "pue": "factor", "energy_price": "energy_price",
    "carbon_intensity": "carbon_intensity", "licence_approval": "fraction",
    "licence_approval_presumed": "fraction", "licence_delay": "time",
    "holding_interest": "fraction", "holding_loss": "fraction", "holding_storage": "fraction",
}  # fmt: skip
WRITTEN = {  # how the number of an observation is written: its factor and unit
    "fraction": (100.0, " %"), "rate": (100.0, " %/year"), "factor": (1.0, ""),
    "energy_price": (1.0, " CNY/kWh"), "carbon_intensity": (1.0, " kg/kWh"),
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
        if "price" in row:
            text, source = _observed(dimension, *map(str, row["price"]))
        else:
            text, source = str(row["value"]), data["sources"][row["source"]]
        value = float(text) if dimension == "factor" else parse_quantity(text, dimension)
        found[name] = Default(value, text, source, row["confidence"], row.get("note", ""))
    return found


def _observed(dimension: str, item: str, device: str, region: str, day: str) -> tuple[str, str]:
    """Return an observation's middle as it is written, and its source."""
    quote = market_prices().quote(item, device, region, day, "CNY")
    factor, unit = WRITTEN[dimension]
    return f"{quote.mid * factor:g}{unit}", quote.source
