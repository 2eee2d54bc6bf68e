"""Who buys and where: places with their country groups, kinds of buyers, and how far rules reach.

Data: `device_models/data/policy/places.yaml` and `buyers.yaml`. Names are accepted as codes ("CN")
or in words ("China"). Not modelled: ports, transit, persons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from functools import lru_cache
from typing import Any

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.units import UnitError, parse_day
from ersatz.device_models.text.yamltext import read_yaml
from ersatz.sim.errors import InputError, Problem, did_you_mean

POLICY = DATA / "policy"
EVERYWHERE = "all"


@dataclass(frozen=True, slots=True)
class Buyer:
    """What rules read of a buyer."""

    kind: str
    title: str
    headquarters: str  # of the ultimate parent; "destination": where the goods go
    listed: bool  # on the US Entity List
    owned_by_listed: float  # share owned by listed parties
    state_funded: bool
    big_tech: bool  # ByteDance, Alibaba, Tencent
    cleared_2026: bool  # among the buyers cleared in May 2026
    research: bool
    military: bool


@dataclass(frozen=True, slots=True)
class Places:
    """Places, their groups, and the days for which rules are known."""

    names: Mapping[str, str]  # code -> name
    groups: Mapping[str, frozenset[str]]  # group -> codes
    known_from: date
    known_until: date

    def members(self, code: str) -> frozenset[str]:
        """Return the codes that a code, a group or 'all' stands for."""
        if code == EVERYWHERE:
            return frozenset(self.names)
        return self.groups.get(code, frozenset({code}))


@lru_cache(maxsize=1)
def load_places() -> Places:
    """Return the places of the catalogue."""
    data: Any = read_yaml(POLICY / "places.yaml").data
    groups = {name: frozenset(entry["members"]) for name, entry in data["groups"].items()}
    known = data["knowledge"]
    return Places(data["places"], groups, date.fromisoformat(known["from"]),
                  date.fromisoformat(known["until"]))  # fmt: skip


@lru_cache(maxsize=1)
def load_buyers() -> Mapping[str, Buyer]:
    """Return the kinds of buyers by name; what a kind leaves open is as for `company`."""
    kinds: Any = read_yaml(POLICY / "buyers.yaml").data["kinds"]
    known = {f.name for f in fields(Buyer)} - {"kind"}
    base = kinds["company"]
    return {kind: Buyer(kind=kind, **{k: v for k, v in {**base, **own}.items() if k in known})
            for kind, own in kinds.items()}  # fmt: skip


def find_place(name: str) -> str:
    """Return the code of a place by code or name; raises `InputError` for an unknown one."""
    places = load_places()
    if name.upper() in places.names:
        return name.upper()
    by_name = {words.lower(): code for code, words in places.names.items()}
    if name.strip().lower() in by_name:
        return by_name[name.strip().lower()]
    hint = did_you_mean(name.lower(), by_name) or did_you_mean(name.upper(), places.names)
    expected = f"no such place{hint or '; expected a code like CN or a name like China'}"
    raise InputError([Problem("destination", 0, 0, "", name, expected)])


def find_buyer(kind: str | Buyer) -> Buyer:
    """Return a kind of buyer by name; raises `InputError` for an unknown one."""
    if isinstance(kind, Buyer):
        return kind
    buyers = load_buyers()
    if kind in buyers:
        return buyers[kind]
    hint = did_you_mean(kind, buyers)
    expected = f"no such kind of buyer{hint}; known: {', '.join(buyers)}"
    raise InputError([Problem("buyer", 0, 0, "", kind, expected)])


def find_date(day: str | date, what: str = "date") -> date:
    """Return a day from ISO text (2025-03-24); raises `InputError` for anything else."""
    try:
        return parse_day(day)
    except UnitError as error:
        raise InputError([Problem(what, 0, 0, "", str(day)[:60], str(error))]) from error
