"""Read the sections `stockpile` and `ramp` of a file of `ersatz buy`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ersatz.device_models.text.problems import InputError
from ersatz.sim.job.cost import YEAR_S
from ersatz.sim.market.economics import load_defaults
from ersatz.sim.market.supply import Production, SupplyMonth, load_supply, ramp
from ersatz.sim.options.holds import check_ramp, check_stockpile
from ersatz.sim.options.stockpile import StockAnswer, Stockpile, answer_stockpile
from ersatz.sim.purchase.reading.schema import BuyFile, RampSection, StockpileSection
from ersatz.sim.scenario.case_file import Case, resolved_cases

HOLDING = {
    "interest": "holding_interest",
    "value_loss": "holding_loss",
    "storage": "holding_storage",
}


@dataclass(frozen=True, slots=True)
class Stocked:
    """One case of a stockpile question with its answer."""

    name: str
    question: str
    currency: str
    stock: Stockpile
    answer: StockAnswer
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ramped:
    """One case of a supply question with its months."""

    name: str
    question: str
    production: Production
    level: str
    months: tuple[SupplyMonth, ...]


def load_stockpiles(
    path: Path | str, overrides: Sequence[str], seed: int | None
) -> tuple[Stocked, ...]:
    """Return the answered cases of a file with a `stockpile` section; raises `InputError`."""
    return resolved_cases(path, BuyFile, _stockpile, overrides, seed)


def load_ramps(path: Path | str, overrides: Sequence[str], seed: int | None) -> tuple[Ramped, ...]:
    """Return the answered cases of a file with a `ramp` section; raises `InputError`."""
    return resolved_cases(path, BuyFile, _ramp, overrides, seed)


def _stockpile(case: Case, spec: BuyFile) -> Stocked | None:
    section = spec.stockpile
    if section is None:
        case.blame((), "stockpile", "key is missing")
        return None
    for key in ("price", "shortage"):
        _, currency = getattr(section, key)
        if currency != spec.currency:
            case.blame(
                ("stockpile", key), currency, f"expected the currency of the file, {spec.currency}"
            )
    holding, said = _holding(section)
    stock = Stockpile(section.need, section.months, section.price[0], holding, section.shortage[0],
                      section.hazard * YEAR_S)  # fmt: skip
    step = max(section.months // 6, 1)
    marks = range(0, section.months + 1, step)
    answer = answer_stockpile(stock, [m for m in marks if 0 < m < section.months], list(marks))
    check_stockpile(case.name, answer)
    return Stocked(case.name, spec.question, spec.currency, stock, answer, tuple(said))


def _holding(section: StockpileSection) -> tuple[float, list[str]]:
    """Return what it costs to hold a machine for a year, as a share of its price, and what is assumed."""
    total, said = 0.0, []
    for key, name in HOLDING.items():
        given, default = getattr(section, key), load_defaults()[name]
        total += default.value if given is None else given
        if given is None:
            said.append(f"stockpile.{key} is not given: {100 * default.value:g} % ({default.note})")
    return total, said


def _ramp(case: Case, spec: BuyFile) -> Ramped | None:
    section = spec.ramp
    if section is None:
        case.blame((), "ramp", "key is missing")
        return None
    return _ramped(case, spec, section)


def _ramped(case: Case, spec: BuyFile, section: RampSection) -> Ramped | None:
    try:
        known = load_supply(section.set)
        if section.production not in known:
            case.blame(
                ("ramp", "production"), section.production, f"expected one of {', '.join(known)}"
            )
            return None
        production = known[section.production]
        months = ramp(production, section.until, section.level)
    except InputError as error:
        for problem in error.problems:
            case.blame(("ramp", *_place(problem.key)), problem.value, problem.expected)
        return None
    check_ramp(case.name, months)
    return Ramped(case.name, spec.question, production, section.level, tuple(months))


def _place(key: str) -> tuple[Any, ...]:
    return ("set",) if key else ("until",)
