"""One file of the catalogue in the course of being read: values, provenance, and every fault.

A value stands as a leaf `{value, source, date, confidence, note}`; `based_on` names a file whose
values hold where the own file is silent. What the values mean is the business of `catalog`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ersatz.device_models.catalog.device import Fact, Price
from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.device_models.text.units import CURRENCIES, UnitError, parse_money, parse_quantity
from ersatz.device_models.text.yamltext import Key, YamlText, read_yaml

CONFIDENCES = ("high", "medium", "low", "assumed")
LEAF_KEYS = ("value", "source", "date", "confidence", "note")
PRICE_KEYS = ("kind", "value", "date", "region", "source", "confidence", "note")
NOT_INHERITED = ("name", "aliases", "prices", "based_on", "bin_of")
MOST_NUMBER, MOST_COUNT = 1e15, 10_000_000

# Kinds of a value that are no physical quantity, and what each looks like.
PLAIN = {
    "boolean": "expected true or false", "text": "expected a text",
    "integer": "expected a whole number of at least 1 and at most 10,000,000",
    "number": "expected a number from 0 to 1e15",
    "tile": "expected three whole numbers of at least 1, like [128, 128, 64]",
    "list": "expected a list", "mapping": "expected keys and values",
}  # fmt: skip

Find = Callable[[str, Path], Path]  # the path of a name that is said in a file of this folder


@dataclass(frozen=True, slots=True)
class Schema:
    """What one kind of file may hold.

    `header`: plain words by kind; `leaves`: values by kind or dimension; `maps`: groups of leaves
    with one dimension, by dtype; `optional`: leaves and maps that may be missing.
    """

    header: Mapping[str, str]
    leaves: Mapping[str, str]
    maps: Mapping[str, str] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()


@dataclass(slots=True)
class Sheet:
    """What has been read of one file, and what is wrong with it."""

    text: YamlText
    values: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    prices: tuple[Price, ...] = ()
    problems: list[Problem] = field(default_factory=list)

    def blame(self, path: Key, value: object, expected: str, *, at_key: bool = False) -> None:
        """Note a fault at a place of the file."""
        self.problems.append(self.text.problem(path, value, expected, at_key=at_key))

    def blame_for(self, path: Key, value: object, error: InputError) -> None:
        """Note the faults of a file that is named at `path`; those without a place get this one."""
        self.problems += [
            fault if fault.line else self.text.problem(path, value, fault.expected)
            for fault in error.problems
        ]

    def finish(self) -> None:
        """Raise `InputError` with all faults, if there are any."""
        if self.problems:
            raise InputError(self.problems)


def read_sheet(path: Path, schema: Schema, find: Find, seen: tuple[Path, ...] = ()) -> Sheet:
    """Read a file and what it is based on; missing, unknown and wrong keys become problems."""
    return read_text(read_yaml(path), path, schema, find, seen)


def read_text(
    text: YamlText, path: Path, schema: Schema, find: Find, seen: tuple[Path, ...] = ()
) -> Sheet:
    """Read what stands in a text as if it were the file at `path`; see `read_sheet`."""
    sheet = Sheet(text)
    data = sheet.text.data
    if not isinstance(data, dict):
        raise InputError([sheet.text.problem((), None, "expected keys and values")])
    if data.get("based_on"):
        _inherit(sheet, str(data["based_on"]), path, schema, find, (*seen, path))
    _read_header(sheet, data, schema)
    for key, node in data.items():
        if key not in schema.header:
            _read_key(sheet, key, node, schema)
    for key in (*schema.leaves, *schema.maps):
        if key not in sheet.values and key not in schema.optional:
            sheet.blame((), key, "key is missing")
    return sheet


def _inherit(
    sheet: Sheet, name: str, path: Path, schema: Schema, find: Find, seen: tuple[Path, ...]
) -> None:
    """Start from the values of another file; raises `InputError` when it cannot be used."""
    try:
        base_path = find(name, path.parent)
        if base_path in seen:
            raise InputError([Problem(name, 0, 0, "", "", "leads back to this file")])
        base = read_sheet(base_path, schema, find, seen)
        base.finish()
    except InputError as error:
        sheet.blame_for(("based_on",), name, error)
        raise InputError(sheet.problems) from error
    sheet.values, sheet.facts, sheet.sources = base.values, base.facts, base.sources
    sheet.header = {k: v for k, v in base.header.items() if k not in NOT_INHERITED}
    sheet.prices = base.prices


def _read_key(sheet: Sheet, key: str, node: Any, schema: Schema) -> None:
    """Read one leaf, or one group of leaves by dtype."""
    if key in schema.leaves:
        sheet.values[key] = _leaf(sheet, (key,), node, schema.leaves[key])
    elif key not in schema.maps:
        hint = did_you_mean(key, [*schema.leaves, *schema.maps, *schema.header])
        sheet.blame((key,), None, f"unknown key{hint}", at_key=True)
    elif not isinstance(node, dict) or not node:
        sheet.values.setdefault(key, {})
        sheet.blame((key,), node, "expected at least one dtype with its value")
    else:
        dimension = schema.maps[key]
        read = {dtype: _leaf(sheet, (key, dtype), leaf, dimension) for dtype, leaf in node.items()}
        sheet.values[key] = {**sheet.values.get(key, {}), **read}


def _read_header(sheet: Sheet, data: Mapping[str, Any], schema: Schema) -> None:
    """Read the plain words at the top, the sources and the prices."""
    for key, kind in schema.header.items():
        if key in data and (own := _plain(sheet, (key,), data[key], kind)) is not None:
            sheet.header[key] = own
    own_sources = {key: str(text) for key, text in sheet.header.get("sources", {}).items()}
    sheet.sources = sheet.sources | own_sources
    if "prices" in sheet.header:
        found = [_price(sheet, ("prices", i), row) for i, row in enumerate(sheet.header["prices"])]
        sheet.prices = tuple(price for price in found if price)


def _price(sheet: Sheet, path: Key, row: Any) -> Price | None:
    """Read one price with its provenance; a fault is noted and gives None."""
    if not isinstance(row, dict) or row.get("kind") not in ("rent", "purchase"):
        sheet.blame(path, None, "expected a price with kind rent or purchase")
        return None
    _check_provenance(sheet, path, row, PRICE_KEYS)
    if not row.get("region"):
        sheet.blame(path, None, "a price needs its region")
    dimension = "money_rate" if row["kind"] == "rent" else "money"
    try:
        amount, currency = parse_money(row.get("value"), dimension)
    except UnitError as error:
        sheet.blame((*path, "value"), row.get("value"), str(error))
        return None
    if amount <= 0 or currency not in CURRENCIES:
        expected = f"expected an amount above 0 in one of {', '.join(CURRENCIES)}"
        sheet.blame((*path, "value"), row.get("value"), expected)
    texts = {
        key: str(row.get(key, "")) for key in ("date", "region", "source", "confidence", "note")
    }
    return Price(row["kind"], amount, currency, **texts)


def _leaf(sheet: Sheet, path: Key, node: Any, kind: str) -> Any:
    """Read one value with its provenance; a fault is noted and gives None."""
    if not isinstance(node, dict) or "value" not in node:
        sheet.blame(path, node, "expected {value, source, date, confidence}")
        return None
    _check_provenance(sheet, path, node, LEAF_KEYS)
    raw = node["value"]
    value = _convert(sheet, (*path, "value"), raw, kind)
    name = ".".join(str(part) for part in path)
    shown = value if isinstance(value, int | float | str) else str(value)
    texts = {key: str(node.get(key, "")) for key in ("source", "date", "confidence", "note")}
    sheet.facts[name] = Fact(name, shown, str(raw), **texts)  # type: ignore[arg-type]
    return value


def _check_provenance(
    sheet: Sheet, path: Key, node: Mapping[str, Any], known: tuple[str, ...]
) -> None:
    """A value says where it comes from, from when, and how sure that is."""
    for key in node:
        if key not in known:
            hint = did_you_mean(key, known)
            sheet.blame((*path, key), None, f"unknown key of a value{hint}", at_key=True)
    source, confidence = str(node.get("source", "")), str(node.get("confidence", ""))
    if source not in sheet.sources:
        sheet.blame((*path, "source"), source, "expected a key of `sources`")
    if confidence not in CONFIDENCES:
        sheet.blame((*path, "confidence"), confidence, f"expected one of {', '.join(CONFIDENCES)}")
    if not node.get("date"):
        sheet.blame((*path, "date"), None, "a value needs its date")


def _convert(sheet: Sheet, path: Key, raw: Any, kind: str) -> Any:
    """Bring a raw value into base units; a fault is noted and gives None."""
    if kind in PLAIN:
        return _plain(sheet, path, raw, kind)
    try:
        value = parse_quantity(raw, kind)
    except UnitError as error:
        sheet.blame(path, raw, str(error))
        return None
    if value < 0:
        sheet.blame(path, raw, "expected a value that is not negative")
        return None
    return value


def _plain(sheet: Sheet, path: Key, raw: Any, kind: str) -> Any:
    """Read a value without a unit; a fault is noted and gives None."""
    if kind == "boolean" and isinstance(raw, bool):
        return raw
    if kind == "text" and (isinstance(raw, str) or _is_number(raw)):
        return str(raw)
    if kind == "integer" and _is_count(raw):
        return int(raw)
    if kind == "number" and _is_number(raw) and 0 <= raw <= MOST_NUMBER:
        return float(raw)
    if kind == "tile" and isinstance(raw, list) and len(raw) == 3 and all(map(_is_count, raw)):
        return tuple(int(size) for size in raw)
    if (kind == "list" and isinstance(raw, list)) or (kind == "mapping" and isinstance(raw, dict)):
        return raw
    sheet.blame(path, raw, PLAIN[kind])
    return None


def _is_number(raw: Any) -> bool:
    return isinstance(raw, int | float) and not isinstance(raw, bool)


def _is_count(raw: Any) -> bool:
    return _is_number(raw) and 1 <= raw <= MOST_COUNT and raw == int(raw)


def shown(value: float, key: str) -> str:
    """Return a value as the files keep it: three digits, times in microseconds or milliseconds."""
    if not key.endswith("_s"):
        return f"{value:.3g}"
    return f'"{value * 1e6:.3g} us"' if value < 1e-3 else f'"{value * 1e3:.3g} ms"'
