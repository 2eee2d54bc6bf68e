"""What happens to a build-out that no plan asked for: embargoes, gates, shocks, lost repair.

An event knows its day and what it changes; nothing here moves a clock. Embargoes are laid over the
rules as a gate of their own; all other events are applied by the replay when their day comes, or are
written into the problem when a planner knows of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import numpy as np

from ersatz.sim.purchase.buildout import DAY_S, MONTH_DAYS, Answer, BuildOut, Gate, Offer, Site

# kind: what its values mean, with their defaults; None must be given
KINDS: Mapping[str, Mapping[str, float | None]] = {
    "embargo": {"grace_days": 0.0, "months": float("inf")},
    "licence": {"approval": None, "delay_days": 0.0},
    "import": {"approval": None, "delay_days": 0.0},
    "price": {"change": None},
    "repair": {"repaired": None, "failures": 1.0},
    "stockpile": {"months": None},
    "smuggling": {"premium": None, "seizure": 0.0, "delay_days": 60.0},
    "supply": {"change": None},
    "power": {"change": None},
    "porting": {"delay_days": 0.0, "cost": 0.0},
}
# inputs that may be uncertain: what a value of each does
INPUTS: Mapping[str, str] = {
    "lead_time": "factor on every lead time",
    "price": "factor on every price",
    "rent": "factor on every rent",
    "failure_rate": "factor on every failure rate",
    "repaired": "share of failed devices that are repaired",
    "throughput": "factor on the speed of every job",
    "energy_price": "factor on every price of electricity",
    "supply": "share of the ordered nodes that are delivered",
    "approval": "probability that a licence is granted",
    "licence_delay": "days until a licence is answered",
    "import_approval": "probability that an import is approved",
    "import_delay": "days until an import is approved",
    "grace": "days between an embargo's date and its force",
    "embargo_shift": "days by which an embargo comes later",
    "premium": "smuggler's premium, share of the price",
    "seizure": "share of smuggled nodes that are seized",
    "porting_delay": "factor on the time of porting",
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens on a day; devices and sites are empty where all are meant."""

    kind: str
    day: float  # from the start of the build-out
    values: Mapping[str, float]
    devices: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    known: bool = False  # to the planner
    label: str = ""
    called_by: str = ""  # the rules that call for this licence: presumed or case; empty: all

    def asked_of(self, answer: Answer) -> bool:
        """Tell whether the rules' answer calls for this decision."""
        kind = "presumed" if answer.presumed else "case"
        return not self.called_by or (answer.policy == "case" and self.called_by == kind)

    def hits(self, device: str, site: str = "") -> bool:
        """Tell whether it concerns a device (and a site)."""
        return (not self.devices or device in self.devices) and (
            not site or not self.sites or site in self.sites
        )


@dataclass(frozen=True, slots=True)
class Draw:
    """One state of the world: drawn values of the inputs, and a stream of chance per cause.

    Without a seed nothing is left to chance: expected numbers, and the likelier answer of a gate.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None
    replica: int = 0

    def get(self, name: str, otherwise: float) -> float:
        """Return the drawn value of an input, or what holds without a draw."""
        return self.values.get(name, otherwise)

    def stream(self, cause: str) -> np.random.Generator:
        """Return the generator of one named cause; the same whatever other causes there are."""
        return named_stream(self.seed or 0, cause, self.replica)


def named_stream(seed: int, name: str, replica: int = 0) -> np.random.Generator:
    """Return a generator that depends on the seed, a name and a replica only."""
    key = (3, zlib.crc32(name.encode()), replica)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def with_embargoes(
    gate: Gate, events: Sequence[Event], start: date, draw: Draw | None = None
) -> Gate:
    """Return the gate with embargoes laid over it: denied from date + grace for their months."""
    draw = draw or Draw()
    spans = []
    for event in events:
        if event.kind == "embargo":
            first = event.day + draw.get("embargo_shift", 0.0)
            first += draw.get("grace", event.values["grace_days"])
            last = first + event.values["months"] * MONTH_DAYS
            end = date.max if last > 1e5 else start + timedelta(days=last)
            spans.append((event, start + timedelta(days=first), end))
    if not spans:
        return gate

    def asked(offer: Offer, site: Site, day: date) -> Answer:
        for event, first, end in spans:
            if event.hits(offer.name, site.name) and first <= day < end:
                words = f"{event.label or 'embargo'} in force since {first}"
                return Answer("denied", (event.label or "embargo",), words)
        return gate(offer, site, day)

    return asked


def foreseen(buildout: BuildOut, events: Sequence[Event]) -> BuildOut:
    """Return the build-out as a planner sees it who knows of the `known` events."""
    for event in events:
        if event.known:
            buildout = _written_in(buildout, event)
    return buildout


def _written_in(buildout: BuildOut, event: Event) -> BuildOut:
    values, first = event.values, event.day / MONTH_DAYS
    if event.kind == "power":
        sites = tuple(replace(s, energy_price=s.energy_price * (1 + values["change"]))
                      if not event.sites or s.name in event.sites else s for s in buildout.sites)  # fmt: skip
        return replace(buildout, sites=sites)

    def change(offer: Offer) -> Offer:
        if not event.hits(offer.name):
            return offer
        if event.kind in ("price", "supply"):
            old = getattr(offer, event.kind)
            new = tuple(v * (1 + values["change"]) if t >= first else v for t, v in enumerate(old))
            return (
                replace(offer, price=new) if event.kind == "price" else replace(offer, supply=new)
            )
        if event.kind == "repair":
            return replace(offer, repaired=values["repaired"],
                           failure_rate=offer.failure_rate * values["failures"])  # fmt: skip
        if event.kind == "porting":
            return replace(offer, porting_cost=offer.porting_cost + values["cost"],
                           porting_s=offer.porting_s + values["delay_days"] * DAY_S)  # fmt: skip
        if event.kind in ("licence", "import") and not event.called_by:
            extra = values["delay_days"] * DAY_S
            return replace(offer, lead_s=offer.lead_s + extra)
        return offer

    return replace(buildout, offers=tuple(change(offer) for offer in buildout.offers))
