"""Changes of inputs: of the parsed tree, of tables, of raw bytes. Every choice is the generator's."""

from __future__ import annotations

import copy
import json
import math
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import yaml

from ersatz.device_models.text.units import UNITS

from .words import NUMBERS, TEXTS, nested, odd_value, quantity

Path = tuple[Any, ...]
_QUANTITY = re.compile(r"\s*([-+.\deE_]+)\s*(.*?)\s*$")


@contextmanager
def deep() -> Iterator[None]:
    """Let Python recurse further for a while: to make what is nested deeper than the program takes."""
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(usual)


# -- trees -----------------------------------------------------------------------------------------


def places(tree: Any, path: Path = (), depth: int = 0) -> list[Path]:
    """Return the paths of everything below the root, outside first; not deeper than 40 levels."""
    if isinstance(tree, dict):
        inner = list(tree.items())
    else:
        inner = list(enumerate(tree)) if isinstance(tree, list) else []
    found = [(*path, key) for key, _ in inner]
    if depth < 40:
        for key, value in inner:
            found += places(value, (*path, key), depth + 1)
    return found


def get(tree: Any, path: Path) -> Any:
    """Return what stands at a path."""
    for part in path:
        tree = tree[part]
    return tree


def put(tree: Any, path: Path, value: Any) -> None:
    """Set what stands at a path; mappings on the way are made, anything else in the way replaced."""
    for part in path[:-1]:
        inner = tree[part] if isinstance(tree, list) and part in range(len(tree)) else None
        inner = tree.get(part) if isinstance(tree, dict) else inner
        if not isinstance(inner, dict | list):
            inner = {}
            if not _set(tree, part, inner):
                return
        tree = inner
    _set(tree, path[-1], value)


def _set(tree: Any, key: Any, value: Any) -> bool:
    if isinstance(tree, dict) or (isinstance(key, int) and 0 <= key < len(tree)):
        tree[key] = value
    else:
        tree.append(value)
        return False
    return True


def drop(tree: Any, path: Path) -> None:
    """Remove what stands at a path."""
    del get(tree, path[:-1])[path[-1]]


def mutated(tree: Any, donors: Sequence[Any], rng: random.Random) -> Any:
    """Return a tree with one to four changes; `donors` lend parts of themselves."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3, 4))):
        found = places(tree)
        if not found:
            return tree
        change = rng.choices(list(_CHANGES), list(_CHANGES.values()))[0]
        change(tree, rng.choice(found), donors, rng)
    return tree


def _odd(tree: Any, path: Path, donors: Sequence[Any], rng: random.Random) -> None:
    put(tree, path, odd_value(rng))


def _drop(tree: Any, path: Path, donors: Sequence[Any], rng: random.Random) -> None:
    drop(tree, path)


def _splice(tree: Any, path: Path, donors: Sequence[Any], rng: random.Random) -> None:
    """Take a part of a donor, mostly to where it stood there."""
    donor = rng.choice(donors)
    found = places(donor)
    if found:
        there = rng.choice(found)
        put(tree, there if rng.random() < 0.85 else path, copy.deepcopy(get(donor, there)))


def _tweak(tree: Any, path: Path, donors: Sequence[Any], rng: random.Random) -> None:
    put(tree, path, tweaked(get(tree, path), rng))


def _vary(tree: Any, path: Path, donors: Sequence[Any], rng: random.Random) -> None:
    """Change a figure by what may well be meant: this gets past the readers."""
    value = get(tree, path)
    match = _QUANTITY.match(value) if isinstance(value, str) else None
    factor = rng.choice((0.0, 0.01, 0.1, 0.5, 0.9, 1.1, 2.0, 4.0, 10.0, 100.0))
    if isinstance(value, bool):
        put(tree, path, not value)
    elif isinstance(value, int):
        near = (0, 1, 2, value + 1, max(value - 1, 0), value // 2, value * 2, value * 4)
        put(tree, path, rng.choice(near))
    elif isinstance(value, float):
        put(tree, path, value * factor)
    elif match and _is_number(match[1]):
        put(tree, path, f"{float(match[1]) * factor:.6g} {match[2]}".strip())


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _swap(tree: Any, path: Path, donors: Sequence[Any], rng: random.Random) -> None:
    other = rng.choice(places(tree))
    put(tree, path, copy.deepcopy(get(tree, other)))


def _rename(tree: Any, path: Path, donors: Sequence[Any], rng: random.Random) -> None:
    parent = get(tree, path[:-1])
    if isinstance(parent, dict):
        names = [str(p[-1]) for p in places(rng.choice(donors)) or [path]]
        name = rng.choice((rng.choice(names), rng.choice(TEXTS), f"{path[-1]}s"))
        parent[name] = parent.pop(path[-1])


def _repeat(tree: Any, path: Path, donors: Sequence[Any], rng: random.Random) -> None:
    """Double an item, or have very many alike."""
    value, parent = get(tree, path), get(tree, path[:-1])
    count = rng.choice((1, 1, 2, 30, 1000))
    if isinstance(parent, list):
        parent.extend(copy.deepcopy(value) for _ in range(count))
    else:
        parent.update({f"{path[-1]}{i}": copy.deepcopy(value) for i in range(count)})


def _wrap(tree: Any, path: Path, donors: Sequence[Any], rng: random.Random) -> None:
    value = get(tree, path)
    put(tree, path, rng.choice(([value], {"value": value}, [value, value], str(value)[:200])))


def _nest(tree: Any, path: Path, donors: Sequence[Any], rng: random.Random) -> None:
    put(tree, path, nested(rng))


_CHANGES: dict[Callable[[Any, Path, Sequence[Any], random.Random], None], float] = {
    _vary: 10, _tweak: 5, _splice: 6, _odd: 4, _drop: 3, _rename: 1.5, _swap: 1.5, _repeat: 1, _wrap: 1,
    _nest: 0.3,
}  # fmt: skip


def tweaked(value: Any, rng: random.Random) -> Any:
    """Return a value near another: a number scaled, a quantity in another unit, a word misspelt."""
    if isinstance(value, bool) or value is None:
        return rng.choice((not value, str(value), 1))
    if isinstance(value, int):
        if rng.random() < 0.15 or abs(value) > 1e300:
            return rng.choice(NUMBERS)
        return rng.choice((0, 1, value + 1, value - 1, value * 2, value // 2, value * 10, -value,
                           value * 1000, float(value), str(value)))  # fmt: skip
    if isinstance(value, float):
        factor = rng.choice((0.0, 0.5, 2.0, 10.0, 0.01, 100.0, 1e6, 1e-6, 1e300, -1.0, 1.01))
        return value * factor
    if isinstance(value, str):
        return _tweaked_text(value, rng)
    if isinstance(value, list):
        return rng.choice((value[::-1], value[:1], value * 2, [*value, odd_value(rng)], []))
    return {}


def _tweaked_text(text: str, rng: random.Random) -> str:
    match = _QUANTITY.match(text)
    known = {unit: dimension for dimension, units in UNITS.items() for unit in units if unit}
    if match and match[2] in known and rng.random() < 0.8:
        dimension = known[match[2]]
        number, unit = match[1], rng.choice(list(UNITS[dimension]))
        return rng.choice((
            f"{number} {unit}", f"{rng.choice(NUMBERS)} {match[2]}", quantity(rng, dimension, odd=True),
            quantity(rng, dimension), quantity(rng, rng.choice(list(UNITS))), number, f"-{text}",
        ))  # fmt: skip
    at = rng.randrange(len(text) + 1)
    odd = rng.choice(TEXTS)[:50]
    return rng.choice((text[:at] + text[at + 1 :], text[:at] + odd + text[at:], text * 2, text.upper(),
                       f"{text}{rng.choice('0123456789')}", odd))  # fmt: skip


# -- tables ----------------------------------------------------------------------------------------


def mutated_rows(text: str, rng: random.Random, separator: str = ",") -> str:
    """Return a table with some cells, rows and columns changed; quotes are not looked at."""
    rows = [line.split(separator) for line in text.splitlines()]
    for _ in range(rng.choice((1, 1, 2, 3))):
        if rows:
            _change_rows(rows, rng)
    return "\n".join(separator.join(row) for row in rows) + rng.choice(("\n", "\n", ""))


def _change_rows(rows: list[list[str]], rng: random.Random) -> None:
    at = rng.randrange(len(rows))
    row = rows[at]
    kind = rng.random()
    if kind < 0.55 and row:
        cell = rng.randrange(len(row))
        row[cell] = _cell(row[cell], rows, rng)
    elif kind < 0.65:
        rows.insert(rng.randrange(len(rows) + 1), list(row))
    elif kind < 0.75:
        del rows[at]
    elif kind < 0.85 and row:
        del row[rng.randrange(len(row))]
    elif kind < 0.93:
        row.insert(rng.randrange(len(row) + 1), str(odd_value(rng))[:200].replace("\n", " "))
    elif row:
        column = rng.randrange(len(row))
        for other in rows:
            if len(other) > column:
                other[column] = other[-1] if rng.random() < 0.5 else ""


def _cell(cell: str, rows: Sequence[Sequence[str]], rng: random.Random) -> str:
    other = rng.choice([c for row in rows for c in row] or [""])
    try:
        near: Any = tweaked(float(cell) if "." in cell else int(cell), rng)
    except ValueError:
        near = tweaked(cell, rng)
    return str(
        rng.choice((near, near, near, other, "", rng.choice(NUMBERS), rng.choice(TEXTS)[:300]))
    )


# -- bytes -----------------------------------------------------------------------------------------


def mutated_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Return bytes of which some were changed, dropped, doubled or put in."""
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at, length = rng.randrange(len(raw) + 1), rng.choice((1, 1, 2, 8, 64))
        odd = rng.choice((
            bytes([rng.randrange(256)]), b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\r", b"\n\n", b"\x1b[2J",
            b"{", b"]", b": ", b"- ", b"&a ", b"*a ", b"!!int ", b'"', b"'", b"|\n", b"9" * 400, b"\t", b",,",
            rng.choice(TEXTS)[:200].encode("utf-8", "surrogatepass"),
        ))  # fmt: skip
        raw = rng.choice((
            raw[:at] + raw[at + length :], raw[:at] + odd + raw[at:], raw[:at] + odd + raw[at + len(odd) :],
            raw[:at] + raw[at : at + length] * 2 + raw[at + length :], raw[:at],
        ))  # fmt: skip
    return raw


# -- writing ---------------------------------------------------------------------------------------


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes values out wherever they stand: the reader takes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(tree: Any) -> bytes:
    """Write a tree as YAML; what YAML cannot hold is written as JSON, which is YAML as well."""
    try:
        text = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)
    except (yaml.YAMLError, RecursionError, TypeError):
        text = to_json(tree).decode()
    return text.encode("utf-8", "replace")


def to_json(tree: Any) -> bytes:
    """Write a tree as JSON; nesting too deep for Python's writer becomes a text."""
    try:
        return json.dumps(tree).encode("utf-8", "replace")
    except (RecursionError, ValueError):
        return b"[" * 5000
