"""Who buys and where: places with their groups, buyers by kind or name, and what the data cover.

Data: `places.yaml`, `buyers.yaml` and `parties.yaml` of `device_models/data/policy`.
Names are accepted as codes ("CN") or in words ("China"). Not modelled: ports, transit, persons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
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
    party: str = ""  # its name in `parties.yaml`; empty: a kind of buyer, not a party


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the data cover of one issuer's export rules, or of the import rules of some places."""

    places: frozenset[str]
    items: frozenset[str]  # classes of goods; empty: all
    assumed: bool  # asked for in reports only, without finding a rule
    note: str


@dataclass(frozen=True, slots=True)
class Places:
    """Places, their groups, and the days for which rules are known."""

    names: Mapping[str, str]  # code -> name
    groups: Mapping[str, frozenset[str]]  # group -> codes
    also: Mapping[str, str]  # other name -> code
    exports: Mapping[str, Coverage]  # issuer of export rules -> what is covered
    imports: tuple[Coverage, ...]
    known_from: date
    known_until: date

    def members(self, code: str) -> frozenset[str]:
        """Return the codes that a code, a group or 'all' stands for."""
        if code == EVERYWHERE:
            return frozenset(self.names)
        return self.groups.get(code, frozenset({code}))

    def export_coverage(self, issuer: str, place: str, item: str) -> Coverage | None:
        """Return what is known of an issuer's export rules on a class of goods for a place."""
        found = self.exports.get(issuer)
        return found if found and place in found.places and item in found.items else None

    def import_coverage(self, place: str) -> Coverage | None:
        """Return what is known of a place's own import rules."""
        return next((c for c in self.imports if place in c.places), None)


@lru_cache(maxsize=1)
def load_places() -> Places:
    """Return the places of the catalogue."""
    data: Any = read_yaml(POLICY / "places.yaml").data
    groups = {name: frozenset(entry["members"]) for name, entry in data["groups"].items()}
    known, names, coverage = data["knowledge"], data["places"], data["coverage"]

    def read(row: Mapping[str, Any]) -> Coverage:
        codes = row["destinations"]
        covered = frozenset(names) if EVERYWHERE in codes else frozenset(codes)
        items = frozenset(row.get("items", ()))
        return Coverage(covered, items, bool(row.get("assumed")), row["note"])

    return Places(names, groups, data["also"],
                  {issuer: read(row) for issuer, row in coverage["export"].items()},
                  tuple(read(row) for row in coverage["import"]),
                  date.fromisoformat(known["from"]), date.fromisoformat(known["until"]))  # fmt: skip


@lru_cache(maxsize=1)
def load_buyers() -> Mapping[str, Buyer]:
    """Return the kinds of buyers by name; what a kind leaves open is as for `company`."""
    kinds: Any = read_yaml(POLICY / "buyers.yaml").data["kinds"]
    known = {f.name for f in fields(Buyer)} - {"kind", "party"}
    base = kinds["company"]
    return {kind: Buyer(kind=kind, **{k: v for k, v in {**base, **own}.items() if k in known})
            for kind, own in kinds.items()}  # fmt: skip


def find_place(name: str) -> str:
    """Return the code of a place by code or name; raises `InputError` for an unknown one."""
    places = load_places()
    if name.upper() in places.names:
        return name.upper()
    by_name = {words.lower(): code for code, words in places.names.items()}
    by_name |= {words.lower(): code for words, code in places.also.items()}
    if name.strip().lower() in by_name:
        return by_name[name.strip().lower()]
    hint = did_you_mean(name.lower(), by_name) or did_you_mean(name.upper(), places.names)
    expected = f"no such place{hint or '; expected a code like CN or a name like China'}"
    raise InputError([Problem("destination", 0, 0, "", name, expected)])


@dataclass(frozen=True, slots=True)
class Party:
    """A party that is known by name, with the days on which the US listed it and where that stands."""

    name: str
    names: tuple[str, ...]
    buyer: Buyer
    listed: tuple[date, date | None] | None  # from, and until (None: still); None: never listed
    review: str  # the policy by which applications for it are reviewed
    source: str
    note: str


@lru_cache(maxsize=1)
def load_parties() -> Mapping[str, Party]:
    """Return the parties of `device_models/data/policy/parties.yaml` by name."""
    data: Any = read_yaml(POLICY / "parties.yaml").data
    return {name: _party(name, row) for name, row in data["parties"].items()}


def _party(name: str, row: Mapping[str, Any]) -> Party:
    base = load_buyers()[row.get("kind", "company")]
    buyer = replace(base, title=row["names"][0], headquarters=row["headquarters"], party=name,
                    owned_by_listed=float(row.get("owned_by_listed", base.owned_by_listed)))  # fmt: skip
    start, end = row.get("listed"), row.get("delisted")
    listed = (parse_day(start), parse_day(end) if end else None) if start else None
    return Party(name, (name, *row["names"]), buyer, listed, row.get("review", "denied"), row["source"],
                 row.get("note", ""))  # fmt: skip


def find_buyer(kind: str | Buyer) -> Buyer:
    """Return a kind of buyer, or a party by any of its names; raises `InputError` for an unknown one."""
    if isinstance(kind, Buyer):
        return kind
    buyers, parties = load_buyers(), load_parties()
    wanted = kind.strip().casefold()
    if wanted in buyers:
        return buyers[wanted]
    named = {name.casefold(): party for party in parties.values() for name in party.names}
    if wanted in named:
        return named[wanted].buyer
    hint = did_you_mean(wanted, [*buyers, *named])
    expected = (f"no such kind of buyer and no party that the data know{hint}; kinds: "
                f"{', '.join(buyers)}; parties: {', '.join(parties)}")  # fmt: skip
    raise InputError([Problem("buyer", 0, 0, "", kind, expected)])


def find_date(day: str | date, what: str = "date") -> date:
    """Return a day from ISO text (2025-03-24); raises `InputError` for anything else."""
    try:
        return parse_day(day)
    except UnitError as error:
        raise InputError([Problem(what, 0, 0, "", str(day)[:60], str(error))]) from error
