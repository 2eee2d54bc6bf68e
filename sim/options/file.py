"""Read a `compare` section: options with their numbers, and the questions, or all problems."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ersatz.device_models.catalog.export import load_part
from ersatz.device_models.text.problems import InputError, did_you_mean
from ersatz.device_models.text.units import UnitError, parse_money, parse_quantity
from ersatz.sim.law.places import find_buyer, find_date, find_place
from ersatz.sim.law.rules import Rules, load_rules
from ersatz.sim.options.option import FIELDS, Option, Work
from ersatz.sim.options.questions import Setting, input_dimension
from ersatz.sim.purchase.life.chance import Uncertain
from ersatz.sim.purchase.reading.options_schema import AskSection
from ersatz.sim.purchase.reading.schema import BuyFile
from ersatz.sim.scenario.case_file import Case, resolved_cases
from ersatz.sim.scenario.sections.quantities import DAY_S, YEAR_S

WORDS = ("title", "device", "place", "buyer")
# What a field may be, in base units, and what is expected; the rest is not negative.
_SHARE = (0.0, 1.0, "a share from 0 to 100 %")
_PART = (1e-6, 1.0, "a share above 0 and at most 100 %")
LIMITS: dict[str, tuple[float, float, str]] = {
    "mfu": _PART, "goodput": _PART, "sold": _PART, "network_share": _SHARE, "interest": _SHARE,
    "residual": _SHARE, "opex_share": _SHARE, "seizure": (0.0, 0.99, "a share from 0 to 99 %"),
    "rent_drift": (-0.99, 10.0, "a change from -99 % to 1,000 %"),
    "failure_rate": (0.0, 1 / 60, "0 to 1 per minute"), "pue": (1.0, 10.0, "1 to 10"),
    "life": (DAY_S, 100 * YEAR_S, "1 day to 100 years"),
    "peak": (1.0, math.inf, "a value above 0"), "tokens": (1.0, math.inf, "at least 1 tokens"),
    "flop_per_token": (1.0, 1e18, "1 to 1e18"), "devices": (1e-6, 1e9, "more than 0, at most 1e9"),
    "per_node": (1e-6, 1e6, "more than 0, at most 1e6"), "jitter": (0.0, 100.0, "0 to 10,000 %"),
}  # fmt: skip
NOT_NEGATIVE = (0.0, math.inf, "a value that is not negative")
MOST = 1e18  # of a plain number
MONEY = ("money", "money_rate", "energy_price")


@dataclass(frozen=True, slots=True)
class Ask:
    """One question with its values in base units; `section` keeps the rest."""

    kind: str
    section: AskSection
    values: tuple[float, ...] = ()
    row_values: tuple[float, ...] = ()
    ends: tuple[float, float] | None = None
    inputs: tuple[Uncertain, ...] = ()
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """One case of a file that compares."""

    name: str
    question: str
    seed: int
    currency: str
    setting: Setting
    asks: tuple[Ask, ...]
    rules: Rules


def load_comparisons(
    path: Path | str, overrides: Sequence[str] = (), seed: int | None = None
) -> tuple[Comparison, ...]:
    """Return the cases of a file with a `compare` section; raises `InputError` with every fault."""
    folder = Path(path).parent
    return resolved_cases(path, BuyFile, partial(_comparison, folder=folder), overrides, seed)


def _comparison(case: Case, spec: BuyFile, folder: Path) -> Comparison | None:
    section = spec.compare
    if section is None:
        case.blame((), "compare", "key is missing")
        return None
    reader = _Reader(case, spec.currency)
    options = {name: reader.option(name, values) for name, values in section.options.items()}
    setting = Setting(Work(section.work.tokens, section.work.flop_per_token), options)
    asks = tuple(reader.ask(i, ask, setting) for i, ask in enumerate(section.ask))
    rules = load_rules(folder / spec.rules.file if spec.rules.file else None, spec.rules.set)
    if case.problems:
        return None
    return Comparison(case.name, spec.question, spec.seed, spec.currency, setting, asks, rules)


@dataclass(slots=True)
class _Reader:
    """Reads numbers by the dimension of their field and notes faults at their place."""

    case: Case
    currency: str

    def number(self, path: tuple[Any, ...], given: Any, dimension: str) -> float:
        """Return a value in base units; not a number after noting a fault."""
        if dimension in ("count", "factor"):
            if isinstance(given, int | float) and 0 <= given <= MOST:
                return float(given)
            self.case.blame(path, given, f"expected a number from 0 to {MOST:g}")
            return math.nan
        try:
            if dimension not in MONEY:
                return parse_quantity(given, dimension)
            amount, currency = parse_money(given, dimension)
        except UnitError as error:
            self.case.blame(path, given, str(error))
            return math.nan
        if currency != self.currency:
            self.case.blame(path, currency, f"expected the currency of the file, {self.currency}")
        return amount

    def checked(self, path: tuple[Any, ...], given: Any, key: str, dimension: str) -> float:
        """Return the value of a field within what it may be."""
        value = self.number(path, given, dimension)
        least, most, expected = LIMITS.get(key, NOT_NEGATIVE)
        if value < least or value > most:
            self.case.blame(path, given, f"expected {expected}")
        return value

    def option(self, name: str, values: dict[str, Any]) -> Option:
        """Return one option; what it leaves open has the default of FIELDS."""
        at = ("compare", "options", name)
        numbers = {key: default for key, (_, default, _) in FIELDS.items() if default is not None}
        for key, given in values.items():
            if key in WORDS:
                continue
            if key not in FIELDS:
                hint = did_you_mean(key, [*FIELDS, *WORDS])
                self.case.blame((*at, key), None, f"unknown key{hint}")
                continue
            numbers[key] = self.checked((*at, key), given, key, FIELDS[key][0])
        for key, (dimension, default, _) in FIELDS.items():
            if default is None and key not in numbers:
                self.case.blame(at, key, f"key is missing ({dimension.replace('_', ' ')})")
                numbers[key] = 1.0
        words = {key: str(values.get(key, "")) for key in WORDS}
        for key, find in (("device", load_part), ("place", find_place), ("buyer", find_buyer)):
            if words[key]:
                self._found((*at, key), words[key], find)
        return Option(name, words["title"] or name, numbers, words["device"], words["place"],
                      words["buyer"] or "company")  # fmt: skip

    def _found(self, path: tuple[Any, ...], word: str, find: Callable[[str], Any]) -> None:
        """Note that a word is unknown, before any work is done with it."""
        try:
            find(word)
        except InputError as error:
            for problem in error.problems:
                self.case.blame(path, word, problem.expected)

    def ask(self, i: int, section: AskSection, setting: Setting) -> Ask:
        """Return one question with all numbers in base units."""
        at: tuple[Any, ...] = ("compare", "ask", i)
        for key in ("option", "against"):
            named = getattr(section, key)
            if named is not None and named not in setting.options:
                self.case.blame((*at, key), named, f"expected one of {', '.join(setting.options)}")
        if section.against is not None and section.against == section.option:
            words = "expected another option: it is compared with itself"
            self.case.blame((*at, "against"), section.against, words)
        for named in (*section.targets, *section.fleet):
            if named not in setting.options:
                self.case.blame(at, named, f"expected options: {', '.join(setting.options)}")
        needs = {"sweep": ("input", "values"), "break_even": ("input", "option", "against"),
                 "tornado": ("option", "against", "inputs"), "map": ("input", "values", "rows", "row_values"),
                 "mixed": ("fleet",), "fan": ("option", "against", "inputs"), "legal": ("date",)}  # fmt: skip
        for key in needs.get(section.kind, ()):
            if not getattr(section, key):
                self.case.blame(at, key, f"key is missing: {section.kind} needs it")
        if section.kind == "legal" and section.date:
            self._found((*at, "date"), section.date, find_date)
        main = self._dimension((*at, "input"), section.input, setting)
        rows = self._dimension((*at, "rows"), section.rows, setting)
        key, row_key = (str(n).rpartition(".")[2] for n in (section.input, section.rows))
        return Ask(
            section.kind, section,
            tuple(self.checked((*at, "values", k), v, key, main) for k, v in enumerate(section.values)),
            tuple(self.checked((*at, "row_values", k), v, row_key, rows)
                  for k, v in enumerate(section.row_values)),
            self._ends(at, section, key, main),
            tuple(self._uncertain((*at, "inputs", n), n, v, setting) for n, v in section.inputs.items()),
            self.checked((*at, "jitter"), section.jitter, "jitter", "fraction"),
        )  # fmt: skip

    def _ends(
        self, at: tuple[Any, ...], section: AskSection, field: str, dimension: str
    ) -> tuple[float, float] | None:
        if section.low is None or section.high is None:
            if section.low is not section.high:
                alone = "high" if section.low is None else "low"
                self.case.blame((*at, alone), getattr(section, alone), "expected both low and high")
            return None
        low, high = (
            self.number((*at, key), getattr(section, key), dimension) for key in ("low", "high")
        )
        least, _, expected = LIMITS.get(field, NOT_NEGATIVE)  # beyond 100 % tells how far off it is
        if low < least:
            self.case.blame((*at, "low"), section.low, f"expected {expected}")
        if low >= high:
            self.case.blame((*at, "low"), section.low, "expected less than high")
        return low, high

    def _dimension(self, at: tuple[Any, ...], name: str | None, setting: Setting) -> str:
        if name is None:
            return "fraction"
        owner, dimension = name.partition(".")[0], input_dimension(name)
        if dimension is None or owner not in ("*", "work", *setting.options):
            self.case.blame(at, name, "expected option.field, *.field or work.tokens")
            return "fraction"
        return dimension

    def _uncertain(self, at: tuple[Any, ...], name: str, given: Any, setting: Setting) -> Uncertain:
        dimension = self._dimension(at, name, setting)
        field = name.rpartition(".")[2]
        low, middle, high = (self.checked(at, value, field, dimension) for value in given)
        if low > middle or middle > high:
            self.case.blame(at, None, "expected low, middle and high in this order")
        return Uncertain(name, low, middle, high)
