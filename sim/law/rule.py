"""What a rule is: its dates, places, gates, thresholds, classes, and what each class means.

Descriptions only; `rulebook` reads them from files and `rules` puts them to a device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date

from ersatz.sim.law.expression import Expression, Kind

POLICIES: dict[str, str] = {  # from the mildest to the strictest
    "free": "no licence needed",
    "notify": "free after a notice to the authority",
    "licensed": "licences are granted to this buyer",
    "approval": "licence needed, presumed to be approved",
    "case_by_case": "licence needed, decided case by case",
    "licence": "licence needed by letter, none is being granted",
    "denied": "licence needed, presumed to be denied",
}
# what a policy means for an order: it leaves, after a notice, by a decision, or not
ORDER = {"free": "free", "licensed": "free", "notify": "notify", "approval": "case",
         "case_by_case": "case", "licence": "denied", "denied": "denied", "unknown": "denied"}  # fmt: skip
STRICTNESS = {name: rank for rank, name in enumerate(POLICIES)}
UNCHANGED = "unchanged"
GATES = ("export", "import", "foundry", "use", "duty", "power")
STATUSES = ("rule", "bill", "record")

# What criteria may read, with kind and meaning.
ATTRIBUTES: dict[str, tuple[Kind, str]] = {
    "TPP": ("number", "bits x dense tera-operations per second, the largest over formats"),
    "PD": ("number", "performance density: TPP per mm2 of logic dies; unknown without the area"),
    "memory_gb_s": ("number", "memory bandwidth in GB/s"),
    "io_gb_s": ("number", "all links and host bus in GB/s, both directions, without memory"),
    "stack_density": ("number", "GB/s per mm2 of a memory stack sold as such; else 0"),
    "process_nm": ("number", "process node in nm"),
    "transistors": ("number", "transistors in the package"),
    "data_centre": ("truth", "designed or marketed for data centres"),
    "sold_in_us": ("truth", "commercially available in the United States"),
    "device": ("text", "name in the catalogue"),
    "vendor": ("text", "vendor in the catalogue"),
    "designer": ("text", "country of the designer's headquarters"),
    "class_3A090": ("text", "class under the rule that defines it, whatever the date, or 'none'"),
    "destination": ("text", "where the goods go"),
    "origin": ("text", "where they are shipped from"),
    "headquarters": ("text", "country of the buyer's ultimate parent"),
    "buyer": ("text", "kind of buyer"),
    "party": ("text", "name of the buyer where the data know it, else empty"),
    "item": ("text", "accelerator, memory, or other"),
    "units": ("number", "devices that are asked for; unknown where nothing is said"),
    "order_tpp": ("number", "units x TPP; unknown without the units"),
    "listed": ("truth", "the buyer is on the US Entity List"),
    "owned_by_listed": ("number", "share of the buyer that listed parties own"),
    "state_funded": ("truth", "a data centre with state money"),
    "big_tech": ("truth", "ByteDance, Alibaba or Tencent"),
    "cleared_2026": ("truth", "among the buyers cleared in May 2026"),
    "research": ("truth", "a university or research institute"),
    "military": ("truth", "a military end user"),
}


@dataclass(frozen=True, slots=True)
class Term:
    """What one class of a rule means."""

    policy: str  # one of POLICIES, or "unchanged"
    alternative: str = ""  # the policy under another reading
    doubt: str = ""  # why there is another reading
    wait_days: float = 0.0  # of notice
    fee: float = 0.0  # share of the price
    duty: float = 0.0  # share of the customs value
    quota: str = ""
    units: float | None = None  # the quota of one buyer in devices
    total_tpp: float | None = None  # or in total processing performance
    per: str = "buyer"  # whose sum is counted: that of a buyer or of a country
    yearly: bool = False  # each calendar year anew
    power_discount: float = 0.0  # share of the electricity price
    note: str = ""

    def most(self, tpp: float) -> float | None:
        """Return the quota in devices of a TPP, or None without one.

        >>> Term("licensed", total_tpp=100.0).most(40.0), Term("free").most(40.0)
        (2.0, None)
        """
        quotas = [] if self.units is None else [self.units]
        if self.total_tpp is not None and tpp > 0:
            quotas.append(self.total_tpp // tpp)
        return min(quotas, default=None)

    def quotas(self, rule: str, tpp: float) -> tuple[Quota, ...]:
        """Return what a rule counts over all devices that leave on these terms.

        >>> Term("licensed", units=5.0).quotas("R", 40.0)
        (Quota(rule='R', most=5.0, counted='devices', weight=1.0, per='buyer', yearly=False),)
        """
        sums = (("devices", self.units, 1.0), ("TPP", self.total_tpp, tpp))
        return tuple(Quota(rule, most, what, weight, self.per, self.yearly)
                     for what, most, weight in sums if most is not None and weight > 0)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quota:
    """A sum that a rule counts over the devices of a buyer or a country."""

    rule: str
    most: float
    counted: str  # devices, or TPP
    weight: float  # of one device
    per: str = "buyer"
    yearly: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One dated rule; `classes` in the order in which they are tried."""

    id: str
    title: str
    issuer: str
    gates: tuple[str, ...]
    kind: str
    status: str
    announced: date
    binds: date | None  # None: does not bind (a bill)
    ends: date | None  # first day on which it no longer binds; None: open
    places: tuple[tuple[frozenset[str], date | None], ...]  # codes, and from when they belong
    not_places: frozenset[str]
    follows_headquarters: bool
    worldwide: bool  # applies to parts of any designer
    relaxes: tuple[str, ...]
    defines: str
    thresholds: Mapping[str, float] = field(hash=False)
    classes: Mapping[str, Expression] = field(hash=False)
    terms: Mapping[str, Term] = field(hash=False)
    source: str = ""
    confidence: str = ""
    exceptions: str = ""
    note: str = ""

    def in_force(self, day: date) -> bool:
        """Tell whether the rule binds on a day."""
        return (self.status == "rule" and self.binds is not None and self.binds <= day
                and (self.ends is None or day < self.ends))  # fmt: skip

    def covers(self, place: str, headquarters: str, day: date) -> bool:
        """Tell whether goods for a place, or for a buyer with its headquarters there, are covered."""
        named = {place, headquarters} if self.follows_headquarters else {place}
        within = any(
            named & codes and (start is None or start <= day) for codes, start in self.places
        )
        return within and not named & self.not_places


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules by id, the days for which they are known, and what was changed about them."""

    rules: Mapping[str, Rule]
    known_from: date
    known_until: date
    assumptions: tuple[str, ...] = ()
    checked_until: date = date.max  # the last day up to which the shipped rules were looked up

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules.values())
