"""What prices are of, and where they hold: items, kinds of observation, regions and the wider ones.

Items and regions are data (`device_models/data/prices/market.yaml`), with how long an observation holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import parse_yaml
from ersatz.sim.law.places import load_places

FILE = "market.yaml"
KINDS = ("channel", "market", "direct", "tender", "list", "fair cost", "grey", "assumed", "on demand",
         "estimate")  # fmt: skip  # of several series the first of these is taken
CONFIDENCES = ("high", "medium", "low", "assumed")  # the last: of this project, in words
STARTS = ("subsidised",)  # kinds whose first observation is the day on which they begin


@dataclass(frozen=True, slots=True)
class Item:
    """What a series is about, and how many months its first and last observation are held."""

    meaning: str
    unit: str  # of the value returned; MONEY stands for the currency asked for
    back: int
    ahead: int
    elsewhere: str  # region that the world asks where it has no series of its own; empty: none


@dataclass(frozen=True, slots=True)
class Region:
    """Where a price holds."""

    wider: str  # region that is asked where this one has no series; empty: none
    members: tuple[str, ...]  # codes of countries that have no region of their own


@lru_cache(maxsize=1)
def items() -> Mapping[str, Item]:
    """Return what prices are of, by name."""
    return {
        name: Item(row["meaning"], row["unit"], int(row["back"]), int(row["ahead"]), row.get("elsewhere", ""))
        for name, row in _market()["items"].items()
    }  # fmt: skip


@lru_cache(maxsize=1)
def regions() -> Mapping[str, Region]:
    """Return the regions that prices are of, by name."""
    return {name: Region(row["wider"], tuple(row.get("members", ())))
            for name, row in _market()["regions"].items()}  # fmt: skip


@lru_cache(maxsize=1)
def _market() -> Mapping[str, Any]:
    found: Mapping[str, Any] = parse_yaml((DATA / "prices" / FILE).read_text("utf-8"), FILE).data
    return found


def price_region(code: str) -> str:
    """Return the region whose prices hold in a country, by its code.

    >>> price_region("DE"), price_region("QA"), price_region("BR")
    ('EU-DE', 'Gulf', 'global')
    """
    known = regions()
    for wider in ("EU", "Gulf"):
        if f"{wider}-{code}" in known:
            return f"{wider}-{code}"
    if code in load_places().groups["EU"]:
        return "EU"
    if code in known:
        return code
    return next((name for name, region in known.items() if code in region.members), "global")


def wider_regions(region: str, item: str = "") -> list[str]:
    """Return the regions that are asked for a price, the closest first."""
    chain = [region]
    while wider := regions()[chain[-1]].wider:
        chain.append(wider)
    elsewhere = items()[item].elsewhere if item else ""
    if elsewhere and chain[0] != elsewhere and "CN" not in chain:
        chain.append(elsewhere)
    return chain
