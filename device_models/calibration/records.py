"""Plain data as records: every field checked for its kind, every fault told with its place.

For files that ersatz writes itself and that a person, or a broken copy, may have changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from ersatz.device_models.text.problems import did_you_mean
from ersatz.device_models.text.yamltext import Key

T = TypeVar("T")
Blame = Callable[[Key, object, str], None]
LARGEST = 1e30  # of anything that is measured, in SI units
MOST = 10**12  # of anything that is counted


def made(kind: type[T], raw: Any, path: Key, blame: Blame) -> T | None:
    """Return a record of a dataclass from a mapping, or None after `blame` was told every fault."""
    if not isinstance(raw, dict):
        blame(path, None, "expected keys and values")
        return None
    known = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type]
    faults: list[bool] = []

    def note(place: Key, value: object, expected: str) -> None:
        faults.append(True)
        blame(place, value, expected)

    for key in raw:
        if key not in known:
            note((*path, key), None, f"unknown key{did_you_mean(key, known)}")
    for name in known:
        if name not in raw:
            note(path, name, "key is missing")
        elif words := _wrong(raw[name], known[name]):
            note((*path, name), raw[name], words)
    if faults:
        return None
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()}
    return kind(**values)


def numbers(raw: Any, path: Key, blame: Blame) -> dict[str, float]:
    """Return a mapping of numbers; faults are told to `blame`."""
    if words := _wrong(raw, "Mapping[str, float]"):
        blame(path, None, words)
        return {}
    return {key: float(value) for key, value in raw.items()}


def is_measure(raw: Any) -> bool:
    """Tell whether something is a number that a measurement may give."""
    known = isinstance(raw, int | float) and not isinstance(raw, bool)
    return known and abs(raw) <= LARGEST and math.isfinite(raw)


def _wrong(raw: Any, kind: str) -> str:
    """Say what is wrong with a value of a field's kind; empty when nothing is."""
    check, words = _KINDS[kind]
    return "" if check(raw) else f"expected {words}"


def _is_count(raw: Any) -> bool:
    return isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw <= MOST


_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "str": (lambda raw: isinstance(raw, str), "a text"),
    "int": (_is_count, f"a whole number from 0 to {MOST:,}"),
    "float": (is_measure, "a number"),
    "tuple[int, int]": (
        lambda raw: isinstance(raw, list) and len(raw) == 2 and all(map(_is_count, raw)) and all(raw),
        "two whole numbers above 0",
    ),
    "Mapping[str, float]": (
        lambda raw: isinstance(raw, dict) and all(map(is_measure, raw.values())),
        "names with a number each",
    ),
}  # fmt: skip
