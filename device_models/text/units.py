"""Quantities as people write them, and back: the only place where unit prefixes exist.

`parse_quantity("400 Gbit/s", "bandwidth")` gives 5e10 (bytes per second). Inside ersatz every
number is in the base unit of its dimension (`BASE_UNITS`). A missing or unknown unit is an error.
Not modelled: compound algebra of units; each dimension lists the units that it accepts.
"""

from __future__ import annotations

import math
import re
from datetime import date

_SI = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_IEC = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}


def _prefixed(unit: str, factor: float = 1.0, prefixes: dict[str, float] = _SI) -> dict[str, float]:
    return {prefix + unit: scale * factor for prefix, scale in prefixes.items()}


_BYTES = (
    _prefixed("B") | _prefixed("B", prefixes=_IEC) | _prefixed("byte") | _prefixed("bit", 1 / 8)
)
_TIME = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0, "week": 604800.0, "weeks": 604800.0,
    "month": 2_629_800.0, "months": 2_629_800.0, "a": 31_557_600.0, "year": 31_557_600.0,
    "years": 31_557_600.0,
}  # fmt: skip
CURRENCIES = ("CNY", "USD", "EUR", "GBP", "JPY", "INR", "MYR", "SGD", "KRW", "TWD", "AED", "SAR")
_COUNT = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}

_COUNT_WORDS = {"million": 1e6, "billion": 1e9, "trillion": 1e12}


def _tokens() -> dict[str, float]:
    """Units of token counts: '9 T tokens', '9T', '9 trillion tokens'."""
    letters = {letter: count for letter, count in _COUNT.items() if letter}
    counts = letters | _COUNT_WORDS
    spelt = {f"{name} tokens": count for name, count in counts.items()}
    return {"tokens": 1.0} | spelt | {f"{x}tokens": count for x, count in letters.items()} | counts


UNITS: dict[str, dict[str, float]] = {
    "time": _TIME,
    "bytes": _BYTES,
    "bandwidth": {f"{name}/s": scale for name, scale in _BYTES.items()}
    | {f"{prefix}bps": scale / 8 for prefix, scale in _SI.items()},
    "flop_rate": _prefixed("FLOP/s") | _prefixed("FLOPS") | _prefixed("OP/s") | _prefixed("OPS"),
    "frequency": _prefixed("Hz"),
    "power": _prefixed("W"),
    "energy": _prefixed("Wh", 3600.0) | _prefixed("J"),
    "area": {"mm2": 1e-6, "cm2": 1e-4, "m2": 1.0},
    "fraction": {"%": 0.01, "": 1.0},
    "rate": {f"/{name}": 1 / scale for name, scale in _TIME.items()}
    | {f"%/{name}": 0.01 / scale for name, scale in _TIME.items()},
    "tokens": _tokens(),
    "carbon_intensity": {"kg/kWh": 1 / 3.6e6, "g/kWh": 1e-3 / 3.6e6, "t/MWh": 1e3 / 3.6e9},
    "mass": {"g": 1e-3, "kg": 1.0, "t": 1e3, "kt": 1e6},
}
for _currency in CURRENCIES:
    _amounts = {
        f"{prefix}{' ' if prefix else ''}{_currency}": scale for prefix, scale in _COUNT.items()
    }
    UNITS.setdefault("money", {}).update(_amounts)
    UNITS.setdefault("money_rate", {}).update(
        {f"{name}/{time}": scale / _TIME[time]
         for name, scale in _amounts.items() for time in ("h", "day", "month", "year")}
    )  # fmt: skip
    UNITS.setdefault("energy_price", {}).update(
        {f"{_currency}/kWh": 1 / 3.6e6, f"{_currency}/MWh": 1 / 3.6e9}
    )

BASE_UNITS = {
    "time": "s", "bytes": "B", "bandwidth": "B/s", "flop_rate": "FLOP/s", "frequency": "Hz",
    "power": "W", "energy": "J", "area": "m2", "fraction": "", "rate": "/s", "tokens": "tokens",
    "carbon_intensity": "kg/J", "mass": "kg", "money": "currency", "money_rate": "currency/s",
    "energy_price": "currency/J",
}  # fmt: skip

# What a quantity may be at most and, where it is not zero, at least, in base units: far beyond
# whatever people mean, and close enough that no product of a few of them overflows.
BOUNDS: dict[str, tuple[float, float]] = {
    "time": (1e-15, 1000 * 31_557_600.0), "bytes": (1e-3, 1e24), "bandwidth": (1e-3, 1e21),
    "flop_rate": (1.0, 1e24), "frequency": (1e-3, 1e15), "power": (1e-6, 1e13),
    "energy": (1e-6, 1e24), "area": (1e-15, 1e6), "fraction": (1e-12, 1e4), "rate": (1e-18, 1e6),
    "tokens": (1e-3, 1e18), "carbon_intensity": (1e-15, 1e-3), "mass": (1e-9, 1e12),
    "money": (1e-9, 1e15), "money_rate": (1e-15, 1e9), "energy_price": (1e-15, 1e-1),
}  # fmt: skip

_EXAMPLES = {
    "time": "'90 s' or '54 days'", "bytes": "'80 GiB'", "bandwidth": "'400 Gbit/s' or '50 GB/s'",
    "flop_rate": "'989.4 TFLOP/s'", "frequency": "'1.8 GHz'", "power": "'700 W'",
    "energy": "'3 MWh'", "area": "'814 mm2'", "fraction": "'25 %' or 0.25",
    "rate": "'9 %/year'", "tokens": "'9 T tokens' or '9 T'", "carbon_intensity": "'0.548 kg/kWh'",
    "mass": "'150 kg'", "money": "'2.8 M CNY'", "money_rate": "'7 CNY/h'",
    "energy_price": "'0.6 CNY/kWh'",
}  # fmt: skip

_NUMBER = re.compile(
    r"\s*([-+]?(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*(.*)", re.DOTALL
)
_LONGEST = 200  # characters of a quantity


class UnitError(ValueError):
    """A text is no quantity of the wanted dimension; the message says what was expected."""


def example_text(dimension: str) -> str:
    """Return what a quantity of `dimension` looks like, in quotes."""
    return _EXAMPLES[dimension]


def expected_text(dimension: str) -> str:
    """Say in words what a quantity of `dimension` looks like, for error messages."""
    name = "token count" if dimension == "tokens" else dimension.replace("_", " ")
    article = "an" if name[0] in "aeiou" else "a"
    return f"expected {article} {name} with its unit, like {_EXAMPLES[dimension]}"


def parse_quantity(text: object, dimension: str) -> float:
    """Return the value of `text` in the base unit of `dimension`.

    Plain numbers are accepted for fractions only; every other dimension needs its unit.
    Raises `UnitError` for a missing or unknown unit, a wrong dimension, NaN, infinity, and for
    what is outside of `BOUNDS`.
    """
    units = UNITS[dimension]
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise UnitError(expected_text(dimension))
    if isinstance(text, int | float):
        if "" in units:
            return _bounded(text, dimension)
        raise UnitError(f"has no unit; {expected_text(dimension)}")
    match = _NUMBER.match(text) if len(text) <= _LONGEST else None
    if not match:
        raise UnitError(expected_text(dimension))
    number, unit = float(match[1].replace("_", "")), " ".join(match[2].split())
    if unit not in units:
        if not unit:
            raise UnitError(f"has no unit; {expected_text(dimension)}")
        raise UnitError(f"unknown unit {unit!r}; {expected_text(dimension)}")
    return _bounded(number * units[unit], dimension)


def _bounded(value: float | int, dimension: str) -> float:
    """Return a value in base units that a real thing could have; raises `UnitError`."""
    least, most = BOUNDS[dimension]
    unit = f" {BASE_UNITS[dimension]}".rstrip()
    if isinstance(value, float) and not math.isfinite(value):
        raise UnitError(f"is not finite; {expected_text(dimension)}")
    if abs(value) > most:
        raise UnitError(f"is too large: expected at most {most:.4g}{unit}")
    if value and abs(value) < least:
        raise UnitError(f"is too small: expected at least {least:.4g}{unit}, or 0")
    return float(value)


def parse_money(text: object, dimension: str) -> tuple[float, str]:
    """Return (amount in base units, currency) of a money, money-rate or energy-price text."""
    value = parse_quantity(text, dimension)
    currency = next((name for name in CURRENCIES if name in str(text)), "")
    return value, currency


def parse_day(text: object) -> date:
    """Return the day of a text like 2025-03-24, of the years 1990 to 2100; raises `UnitError`."""
    if isinstance(text, date):
        return text
    expected = "expected a day like 2025-03-24"
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", str(text)):
        raise UnitError(expected)
    try:
        day = date.fromisoformat(str(text))
    except ValueError as error:
        raise UnitError(f"{expected}: {error}") from error
    if not 1990 <= day.year <= 2100:
        raise UnitError(f"{expected}, of the years 1990 to 2100")
    return day


def format_bytes(nbytes: float) -> str:
    """Write bytes in binary units, as memory sizes are read: '61.3 GiB'."""
    for unit, scale in (("TiB", 2.0**40), ("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10)):
        if abs(nbytes) >= scale:
            return f"{nbytes / scale:.1f} {unit}"
    return f"{nbytes:.0f} B"


def format_duration(seconds: float) -> str:
    """Write a duration in the unit in which people read it: '54.2 days', '3.1 h', '19.93 s'."""
    size = abs(seconds)
    if size >= 2 * 86400:
        return f"{seconds / 86400:,.1f} days"
    if size >= 2 * 3600:
        return f"{seconds / 3600:.1f} h"
    if size >= 180:
        return f"{seconds / 60:.1f} min"
    if size >= 1:
        return f"{seconds:.2f} s"
    if size >= 1e-3:
        return f"{seconds * 1e3:.2f} ms"
    return f"{seconds * 1e6:.1f} us" if size else "0 s"


def format_si(value: float, unit: str, digits: int = 3) -> str:
    """Write a value with a decimal prefix: format_si(9.894e14, 'FLOP/s') is '989 TFLOP/s'."""
    size = abs(value)
    for prefix, scale in (
        ("E", 1e18),
        ("P", 1e15),
        ("T", 1e12),
        ("G", 1e9),
        ("M", 1e6),
        ("k", 1e3),
    ):
        if size >= scale:
            return f"{value / scale:.{digits}g} {prefix}{unit}"
    return f"{value:.{digits}g} {unit}"


def format_count(number: float) -> str:
    """Write how many parameters or tokens there are: '671.0 B', '12.4 M', '960'."""
    for suffix, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= scale:
            return f"{number / scale:,.1f} {suffix}"
    return f"{number:,.0f}"


def format_share(part: float, whole: float) -> str:
    """Write a part of a whole: '12.5 %'; of nothing it is 0.0 %."""
    return f"{100 * part / whole if whole else 0.0:.1f} %"


def format_money(amount: float, currency: str) -> str:
    """Write money with thousands or millions: '6.35 M CNY'."""
    size = abs(amount)
    for prefix, scale in (("B ", 1e9), ("M ", 1e6), ("k ", 1e3)):
        if size >= scale:
            return f"{amount / scale:.2f} {prefix}{currency}"
    return f"{amount:.2f} {currency}"
