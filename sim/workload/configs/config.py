"""A configuration file as its readers see it: its language part, its keys, and which were read.

A wrapper's language model stands under `text_config` (or another name), several deep at times; keys
that it lacks are looked up in the wrapper. Absent keys have the defaults of the family's class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ersatz.device_models.text.problems import Problem
from ersatz.device_models.text.yamltext import UNPRINTABLE
from ersatz.sim.workload.configs.families import Family, family_of

PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
MAX_SIZE = 10**9
MAX_LAYERS = 2000  # each is simulated
MAX_NAME = 100


@dataclass(slots=True)
class Config:
    """The language part of a configuration, as layer `layer` sees it (none: as a whole)."""

    file: str
    text: str
    own: Mapping[str, Any]
    outer: Mapping[str, Any]  # the wrappers' keys, the nearest first
    family: Family
    problems: list[Problem] = field(default_factory=list)
    read: set[str] = field(default_factory=set)
    assumed: dict[str, Any] = field(default_factory=dict)  # keys that have a default of the class
    notes: list[str] = field(default_factory=list)
    layers: int = 0
    layer: int | None = None

    def at(self, layer: int) -> Config:
        """Return the configuration as one layer sees it: lists and overrides resolved."""
        return Config(self.file, self.text, self.own, self.outer, self.family, self.problems,
                      self.read, self.assumed, self.notes, self.layers, layer)  # fmt: skip

    def get(self, *names: str, default: Any = None) -> Any:
        """Return the first of the keys that has a value, else the family's default, else `default`."""
        self.read.update(name.partition(".")[0] for name in names)
        self.read.update(names)
        over = self._override()
        for values in (over, self.own, self.outer):
            for name in names:
                if (found := _value(values, name)) is not None:
                    return found
            if values is self.own and any(_holds(self.own, name) for name in names):
                return default  # null is said: it is not absent
        for name in names:
            if (found := self.family.defaults.get(name)) is not None:
                self.assumed[name] = found
                return found
        return default

    def of_layer(self, name: str) -> Any:
        """Return what overrides a key in this layer, None where nothing does."""
        return self._override().get(name)

    def given(self, name: str) -> bool:
        """Tell whether the file itself has a value for a key."""
        return any(_value(values, name) is not None for values in (self.own, self.outer))

    def _override(self) -> Mapping[str, Any]:
        per_layer = self.own.get("per_layer_config") or self.family.defaults.get("per_layer_config")
        if self.layer is None or not isinstance(per_layer, Mapping):
            return {}
        self.read.add("per_layer_config")
        number = str(self.layer)
        found = next(
            (v for k, v in per_layer.items() if str(k).lstrip("0") == number.lstrip("0")), None
        )
        return found if isinstance(found, Mapping) else {}

    def whole(self, *names: str, default: int = 0, least: int = 0) -> int:
        """Return a whole number; a list has one for every layer. What is none is a fault."""
        value = self.get(*names, default=default)
        if isinstance(value, list) and self.layer is not None:
            if len(value) != self.layers:
                self.blame(
                    names,
                    f"[{len(value)} values]",
                    f"expected one for each of {self.layers} layers",
                )
                return max(default, least, 1)
            value = value[self.layer]
        if isinstance(value, float) and value.is_integer() and abs(value) < MAX_SIZE:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.blame(names, value, "expected a whole number")
            return max(default, least, 1)
        if not least <= value <= MAX_SIZE:
            expected = (
                "expected a number above 0" if value == 0 else f"expected {least} to {MAX_SIZE}"
            )
            self.blame(names, value, expected)
            return max(default, least, 1)
        return value

    def needed(self, what: str, *names: str) -> int:
        """Return a whole number above 0 that no model can do without."""
        if self.get(*names) is None:
            shown = ", ".join(names)
            self.blame((), "", f"lacks what gives {what}; looked for {shown}")
            return 1
        return self.whole(*names, least=1)

    def flag(self, *names: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self.get(*names, default=default)
        if isinstance(value, bool) or value in (0, 1):
            return bool(value)
        self.blame(names, value, "expected true or false")
        return default

    def row(self, name: str) -> list[Any] | None:
        """Return a list of one entry for each layer, None where there is none."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not value:
            self.blame((name,), value, "expected a list")
            return None
        if self.layers and len(value) != self.layers:
            expected = f"expected one for each of {self.layers} layers"
            self.blame((name,), f"[{len(value)} values]", expected)
            return None
        return value

    def blame(self, names: tuple[str, ...], value: object, expected: str) -> None:
        """Note a fault of the first of the keys that the file has."""
        name = next((n for n in names if _holds(self.own, n) or _holds(self.outer, n)),
                    names[0] if names else "")  # fmt: skip
        line = self.line(name)
        shown = "" if value is None or value == "" else str(value)[:60]
        self.problems.append(Problem(self.file, line, 1 if line else 0, name, shown, expected))

    def line(self, name: str) -> int:
        """Return the line of a key, 0 where the file does not have it."""
        key = name.rsplit(".", 1)[-1]
        found = re.search(rf'"{re.escape(key)}"\s*:', self.text) if key else None
        return self.text.count("\n", 0, found.start()) + 1 if found else 0

    def left(self) -> Iterator[tuple[str, Any]]:
        """Yield the keys of the language part that nobody read and that are not known as harmless.

        Of a section of which a key was read by its dotted name, the others are looked at, too.
        """
        sections = {name.partition(".")[0] for name in self.read if "." in name}
        for key, value in self.own.items():
            if key in sections and isinstance(value, Mapping):
                yield from ((f"{key}.{inner}", one) for inner, one in value.items()
                            if f"{key}.{inner}" not in self.read and not _is_off(one)
                            and not self.family.is_harmless(str(inner)))  # fmt: skip
            elif key not in self.read and not self.family.is_harmless(key) and not _is_off(value):
                yield key, value


def language_part(values: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the innermost language configuration and what its wrappers say."""
    outer: dict[str, Any] = {}
    for _ in range(5):
        inner = next(
            (
                values[name]
                for name in PARTS
                if isinstance(values.get(name), Mapping) and values[name]
            ),
            None,
        )
        if inner is None:
            break
        outer = {**outer, **{k: v for k, v in values.items() if k not in PARTS}}
        values = inner
    return values, outer


def make_config(file: str, text: str, values: Mapping[str, Any]) -> Config:
    """Return the view of a whole configuration file."""
    own, outer = language_part(values)
    name = own.get("model_type") or outer.get("model_type") or ""
    printable = isinstance(name, str) and not UNPRINTABLE.search(name) and len(name) < MAX_NAME
    config = Config(file, text, own, outer, family_of(str(name) if printable else ""))
    if not printable:
        config.blame(("model_type",), None, "expected a printable text")
    return config


def _value(values: Mapping[str, Any], name: str) -> Any:
    """Return the value of a key, or of a key in a section ('attn_config.kv_n_heads')."""
    first, _, rest = name.partition(".")
    found = values.get(first)
    return _value(found, rest) if rest and isinstance(found, Mapping) else None if rest else found


def _holds(values: Mapping[str, Any], name: str) -> bool:
    first, _, rest = name.partition(".")
    if not rest:
        return first in values
    return isinstance(values.get(first), Mapping) and _holds(values[first], rest)


def _is_off(value: object) -> bool:
    """Tell whether a value switches a thing off or says nothing."""
    return value is None or value is False or value in (0, "", "none") or value in ([], {})
