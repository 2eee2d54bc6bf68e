"""What a piece of work costs on one kind of machine: rented, bought, smuggled, ported to.

An option is a set of named numbers in base units, so that any of them can be swept, drawn or solved
for. Hours follow from FLOP / (peak x MFU x goodput); an hour costs the rent, or the annuity of the
capital less what is left, running costs, repair and power. Not modelled: tax, queues, staff unless
given. The closed forms are those of `ersatz.sim.job.cost`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ersatz.sim.job.cost import HOURS_PER_YEAR, YEAR_S, capital_recovery_factor

# name: dimension, default (None: must be given for its use), meaning
FIELDS: Mapping[str, tuple[str, float | None, str]] = {
    "peak": ("flop_rate", None, "dense peak of a device"),
    "mfu": ("fraction", None, "share of the peak that the work reaches"),
    "goodput": ("fraction", 1.0, "share of the wall time that counts"),
    "devices": ("count", 1024.0, "devices at work, for the time"),
    "rent": ("money_rate", 0.0, "of a device"),
    "rent_drift": ("fraction", 0.0, "change of the rent per year"),
    "server": ("money", 0.0, "price of a node"),
    "per_node": ("count", 8.0, "devices of a node"),
    "network_share": ("fraction", 0.0, "of the price, added"),
    "premium": ("fraction", 0.0, "smuggler's, on the price"),
    "seizure": ("fraction", 0.0, "share of the bought that is seized"),
    "duty": ("fraction", 0.0, "fee and duty on the price"),
    "interest": ("fraction", 0.08, "per year"),
    "life": ("time", 4 * YEAR_S, "over which the capital is paid back"),
    "residual": ("fraction", 0.0, "of the price at the end of the life"),
    "opex_share": ("fraction", 0.0, "of the capital per year"),
    "sold": ("fraction", 1.0, "share of the life in use"),
    "failure_rate": ("rate", 0.0, "failed devices"),
    "repair_share": ("fraction", 0.1, "of a device's price, per failure"),
    "watts": ("power", 0.0, "of a device with its share of the host"),
    "pue": ("factor", 1.3, "meter / machines"),
    "energy_price": ("energy_price", 0.0, "of electricity; 0: in the rent"),
    "colo": ("money_rate", 0.0, "of a kilowatt of space with its power"),
    "porting": ("money", 0.0, "once, for the software"),
    "carbon": ("carbon_intensity", 0.548 / 3.6e6, "of the electricity"),
}


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be computed."""

    tokens: float
    flop_per_token: float

    @property
    def flop(self) -> float:
        """FLOPs of the whole work."""
        return self.tokens * self.flop_per_token


@dataclass(frozen=True, slots=True)
class Option:
    """One way to do the work; `values` by the names of FIELDS."""

    name: str
    title: str
    values: Mapping[str, float]
    device: str = ""  # of the catalogue, for the rules
    place: str = ""
    buyer: str = "company"

    def __getitem__(self, key: str) -> float:
        return self.values[key]

    def with_value(self, key: str, value: float) -> Option:
        """Return the option with one number changed."""
        return replace(self, values={**self.values, key: value})


@dataclass(frozen=True, slots=True)
class Costing:
    """What the work costs on an option."""

    device_hours: float
    days: float
    parts: Mapping[str, float]  # money
    total: float
    per_trillion: float  # per 1e12 tokens
    per_hour: float  # per device-hour
    kwh: float
    carbon_kg: float


def device_hours(option: Option, work: Work) -> float:
    """Return FLOP / (peak x MFU x goodput), in device-hours."""
    rate = option["peak"] * option["mfu"] * option["goodput"]
    return work.flop / (rate * 3600.0) if rate > 0 else math.inf


def hourly(option: Option) -> dict[str, float]:
    """Return the money per device-hour by part."""
    price = option["server"] / option["per_node"]
    paid = price * (1.0 + option["premium"]) * (1.0 + option["duty"]) / (1.0 - option["seizure"])
    network, years = price * option["network_share"], option["life"] / YEAR_S
    factor = capital_recovery_factor(option["interest"], years)
    back = (price + network) * option["residual"] * (1.0 + option["interest"]) ** -years
    used = HOURS_PER_YEAR * option["sold"]
    kw = option["watts"] / 1e3
    power = kw * option["pue"] * option["energy_price"] * 3.6e6
    space = kw * option["colo"] * YEAR_S / HOURS_PER_YEAR
    parts = {
        "rent": levelised_rent(option),
        "capital": (paid + network - back) * factor / used,
        "running": (price + network) * option["opex_share"] / used,
        "repair": price * option["repair_share"] * option["failure_rate"] * YEAR_S / used,
        "power": (power + space) / option["sold"],
    }
    return {name: amount for name, amount in parts.items() if amount}


def levelised_rent(option: Option) -> float:
    """Return the constant hourly rent worth as much as one that drifts over the life."""
    first = option["rent"] * 3600.0
    drift, interest, years = option["rent_drift"], option["interest"], option["life"] / YEAR_S
    if not drift:
        return first
    pull = math.log1p(interest)
    push = math.log1p(drift) - pull
    worth = math.expm1(push * years) / push if push else years
    return first * worth / (-math.expm1(-pull * years) / pull if pull else years)


def costing(option: Option, work: Work) -> Costing:
    """Return what the work costs on an option."""
    hours = device_hours(option, work)
    parts = {name: amount * hours for name, amount in hourly(option).items()}
    if option["porting"]:
        parts["porting"] = option["porting"]
    total = math.fsum(parts.values())
    kwh = option["watts"] / 1e3 * option["pue"] * hours
    return Costing(hours, hours / option["devices"] / 24.0, parts, total, total / work.tokens * 1e12,
                   total / hours, kwh, kwh * 3.6e6 * option["carbon"])  # fmt: skip
