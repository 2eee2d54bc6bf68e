"""What a scenario says of money: prices as given, or the newest of the catalogue, and how far off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ersatz.device_models.catalog.device import Price
from ersatz.device_models.text.units import format_money
from ersatz.sim.scenario.defaults import chance_range
from ersatz.sim.scenario.scenario import CostSpec, Pool
from ersatz.sim.scenario.sections.job import CostSection

Blame = Callable[..., None]


def resolve_cost(
    section: CostSection, pools: list[Pool], blame: Blame, assumptions: list[str]
) -> CostSpec:
    """Return how money is counted, with a price for every pool; faults are blamed by their place."""
    currency = section.currency
    rent: Mapping[str, float] = {}
    server: Mapping[str, float] = {}
    if section.model == "rent":
        rent = _prices("rent", section.rent, pools, currency, blame, assumptions)
    else:
        server = _prices("server_price", section.server_price, pools, currency, blame, assumptions)
    energy = 0.0
    if section.energy_price:
        energy, given = section.energy_price
        if given != currency:
            blame(
                ("cost", "energy_price"), given, f"expected the currency of the section, {currency}"
            )
    return CostSpec(
        section.model, currency, rent, server, section.network_share, section.interest,
        section.life, section.value_decay, section.opex_share, section.sold_fraction, energy,
        section.machine_age, *_price_range(section, pools, {**rent, **server}, assumptions),
    )  # fmt: skip


def _price_range(
    section: CostSection, pools: list[Pool], prices: Mapping[str, float], said: list[str]
) -> tuple[float, float]:
    """Return by which factors prices may be low and high: as given, or as looked-up ones are."""
    stated = section.rent or section.server_price
    given = {"": None} if stated and not isinstance(stated, dict) else stated or {}
    looked_up = any("" not in given and pool.name not in given for pool in pools)
    low, high = chance_range("catalogue_price") if looked_up and prices else (1.0, 1.0)
    low, high = section.price_low or low, section.price_high or high
    if section.price_low is None and section.price_high is None:
        words = f"{low:g} to {high:g} of a looked-up one" if looked_up else "exactly as given"
        said.append(f"cost.price_low and price_high are not given: the price is {words}")
    return low, high


def _prices(
    key: str, given: Any, pools: list[Pool], currency: str, blame: Blame, assumptions: list[str]
) -> Mapping[str, float]:
    """Return the price of each pool: as given, or the newest of the catalogue."""
    rows = given if isinstance(given, dict) else {"": given} if given else {}
    names = {pool.name for pool in pools}
    prices = {}
    for name, (amount, unit) in rows.items():
        at = ("cost", key, name) if isinstance(given, dict) else ("cost", key)
        if unit != currency:
            blame(at, unit, f"expected the currency of the section, {currency}")
        if name and name not in names:
            blame(at, name, f"expected a pool: {', '.join(sorted(names))}")
        prices[name] = amount
    for pool in pools:
        if "" in prices or pool.name in prices:
            continue
        newest = _newest_price(key, pool, currency)
        if newest is None:
            blame(("cost",), key, f"is not given, and the catalogue has none in {currency} for"
                  f" {pool.node.device.title}")  # fmt: skip
            continue
        prices[pool.name] = newest.amount
        per_hour = newest.amount * 3600 if key == "rent" else newest.amount
        assumptions.append(
            f"cost.{key} is not given: {format_money(per_hour, currency)}"
            f"{'/h' if key == 'rent' else ''} for {pool.node.device.title}"
            f" ({newest.region}, {newest.date}; {newest.note or newest.confidence})"
        )
    return prices


def _newest_price(key: str, pool: Pool, currency: str) -> Price | None:
    kind = "rent" if key == "rent" else "purchase"
    known = pool.node.device.prices if kind == "rent" else pool.node.prices
    fitting = [p for p in known if p.kind == kind and p.currency == currency]
    return max(fitting, key=lambda price: price.date, default=None)
