"""A file of `ersatz buy` in the course of being read: where faults, defaults and prices go."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from ersatz.device_models.text.problems import InputError
from ersatz.device_models.text.units import UnitError, parse_day
from ersatz.sim.law.places import find_place
from ersatz.sim.market.economics import load_defaults
from ersatz.sim.market.items import price_region
from ersatz.sim.market.prices import Prices, Quote
from ersatz.sim.scenario.case_file import Case

STALE_MONTHS = 6.0  # from where the age of a price is said


@dataclass(slots=True)
class Reading:
    """A case in the course of being resolved: where faults and assumptions go."""

    case: Case
    currency: str
    start: date
    months: int
    region: str  # of prices: CN, US or global
    prices: Prices
    family_cost: float = 0.0  # of each family of devices that is used
    silent: dict[str, list[str]] = field(
        default_factory=dict
    )  # defaults and what they are used for
    assumptions: list[str] = field(default_factory=list)

    def blame(self, path: tuple[Any, ...], value: object, expected: str) -> None:
        """Note a fault at a place of the file."""
        self.case.blame(path, value, expected)

    def load(self, loader: Callable[[str], Any], name: str, path: tuple[Any, ...]) -> Any:
        """Load something of the catalogue, or note why it cannot be."""
        try:
            return loader(name)
        except InputError as error:
            for problem in error.problems:
                self.blame(path, name, problem.expected)
            return None

    def default(self, key: str, given: float | None, of: str, *, domestic: bool = False) -> float:
        """Return what is given, or a planning default that is then listed."""
        if given is not None:
            return given
        defaults = load_defaults()
        chosen = f"{key}_domestic" if domestic and f"{key}_domestic" in defaults else key
        value = defaults[chosen]
        note = f"; {value.note}" if value.note else ""
        words = f"{key.replace('_', ' ')} is not given: {value.text} ({value.confidence}{note})"
        self.silent.setdefault(words, []).append(of)
        return value.value

    def quote(self, item: str, device: str = "", region: str = "") -> Quote | None:
        """Return what the prices knew of an item on the day of planning, or None."""
        try:
            return self.prices.quote(item, device or "*", region or self.region, self.start, self.currency,
                                     seen=self.start)  # fmt: skip
        except InputError:
            return None

    def regional(self, item: str, given: float | None, of: str, region: str) -> float | None:
        """Return what is given, or what the prices say of a region, which is then listed; None without."""
        if given is not None:
            return given
        found = self.quote(item, "", region)
        if found is None:
            return None
        what = {"power": "energy price", "pue": "pue", "carbon": "carbon intensity"}[item]
        unit = "" if found.unit == "1" else f" {found.unit}"
        words = f"{what} is not given: {found.mid:.3g}{unit} ({dated(found)})"
        self.silent.setdefault(words, []).append(of)
        return found.mid

    def listed(self) -> tuple[str, ...]:
        """Return all assumptions, each default with what it was used for."""
        silent = (f"{', '.join(dict.fromkeys(of))}: {words}" for words, of in self.silent.items())
        return (*self.assumptions, *silent)

    def money(self, given: tuple[float, str] | None, path: tuple[Any, ...]) -> float | None:
        """Return an amount in the file's currency; another one is a fault."""
        if given is None:
            return None
        amount, currency = given
        try:
            rate = self.prices.rate(currency, self.currency, self.start)
        except InputError as error:
            self.blame(path, currency, error.problems[0].expected)
            return None
        if rate != 1.0:
            self.assume(f"{currency} are taken as {rate:.4g} {self.currency} on {self.start}")
        return amount * rate

    def assume(self, words: str) -> None:
        """List an assumption once."""
        if words not in self.assumptions:
            self.assumptions.append(words)

    def day(self, text: str | None, path: tuple[Any, ...]) -> float | None:
        """Return days from the start to a date of the file."""
        if text is None:
            return None
        try:
            return float((parse_day(_whole_day(str(text))) - self.start).days)
        except UnitError as error:
            self.blame(path, text, str(error))
            return None


def dated(quote: Quote) -> str:
    """Say where a quote is from: range, kind, region, day of observation and how far to trust it."""
    ends = f"{quote.low:.3g} to {quote.high:.3g}"
    if quote.high >= 1e5:
        ends = f"{quote.low / 1e6:.2f} to {quote.high / 1e6:.2f} M"
    age = quote.age_months
    old = f", {age:.0f} months old" if age > STALE_MONTHS else ""
    old = ", only after the day of planning" if quote.late else old
    return f"{ends}; {quote.kind}, {quote.region}, {quote.observed:%Y-%m}{old}; {quote.confidence}"


def unobserved(assumptions: Iterable[str]) -> int:
    """Count the assumptions whose value nobody published: of this project, as their text says.

    >>> unobserved(["3 M CNY (2 to 4 M; list, CN, 2025-03; high)", "4 years (3 to 6; books; assumed)"])
    1
    """
    return sum(bool(re.search(r"[(;] ?assumed\b", words)) for words in assumptions)


def region_of(country: str) -> str:
    """Return the region whose prices hold in a country, by its name or code."""
    return price_region(find_place(country))


def _whole_day(text: str) -> str:
    return f"{text}-01" if len(text) == len("2025-03") else text
