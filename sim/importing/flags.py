"""The flags of a launch file, whatever its format: who said what, where, and what became of it.

A flag is known by its key: underscores for dashes, dots between sections. The last one of a name wins.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ersatz.sim.importing.draft import Draft
from ersatz.sim.workload.configs.config import MAX_LAYERS

MOST_PARTS = 1_000_000  # ranks, stages or chunks of a layout
OFF = frozenset({"false", "none", "null", "off", "no", ""})
ON = frozenset({"true", "on", "yes", "1"})
_SCALE = {"k": 10**3, "m": 10**6, "b": 10**9}


@dataclass(frozen=True, slots=True)
class Given:
    """A flag as a file gives it: `shown` is its name there, `unknown` says why its value is not known."""

    key: str
    shown: str
    words: tuple[str, ...]
    line: int
    file: str = ""
    unknown: str = ""
    choices: tuple[str, ...] = ()

    @property
    def value(self) -> str:
        """The words as one text."""
        return " ".join(self.words)

    @property
    def absent(self) -> bool:
        """Tell whether it says that there is none: `None`, `null`, `false`."""
        return bool(self.words) and self.value.lower() in OFF and not self.unknown


@dataclass(slots=True)
class Flags:
    """All flags of a file by key, and which of them were read.

    `defaults` are values of the framework that hold where a flag is absent and that its own table
    names: (value, why). They are told as assumed when they decide something.
    """

    given: dict[str, Given]
    draft: Draft
    defaults: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    wanted: dict[str, str] = field(default_factory=dict)  # scenario key by every name looked for

    def find(self, *names: str) -> Given | None:
        """Return the first of several flags that is given and not switched off, unread."""
        for name in names:
            given = self.given.get(name)
            if given and not given.absent:
                return given
        return None

    def take(self, key: str, *names: str) -> Given | None:
        """Return the first of several flags that is given, noted as what decided `key`."""
        found = None
        for name in names:
            self.wanted.setdefault(name, key)
            given = self.given.get(name)
            if given is None:
                continue
            if name not in self.used:
                self.used.add(name)
                self.draft.note(key, given.shown, given.value, given.line, given.file)
            if found is None and not given.absent:
                found = given
        if found and found.unknown:
            self.draft.ask(key, f"{found.shown}: {found.unknown}", found.choices, found.line)
        return found

    def whole(self, key: str, *names: str) -> int | None:
        """Return the whole number of a flag; None where it is absent or not known."""
        found = self.take(key, *names)
        if found is None or found.unknown:
            return self._default(key, names) if found is None else None
        number = whole_number(found.value)
        if not found.value.strip():
            self.draft.ask(key, f"{found.shown}: it has no value here", (), found.line)
        elif number is None:
            self.draft.blame(key, found.line, found.shown, found.value, "expected a whole number")
        elif number > (most := _most(key)):
            self.draft.blame(
                key, found.line, found.shown, found.value, f"expected at most {most:,}"
            )
            return None
        return number

    def _default(self, key: str, names: Iterable[str]) -> int | None:
        for name in names:
            if name in self.defaults:
                value, why = self.defaults[name]
                self.draft.assume(key, value, why)
                return whole_number(value)
        return None

    def text(self, key: str, *names: str) -> str | None:
        """Return the text of a flag; None where it is absent or not known."""
        found = self.take(key, *names)
        if found is None:
            for name in names:
                if name in self.defaults:
                    value, why = self.defaults[name]
                    self.draft.assume(key, value, why)
                    return value
            return None
        return None if found.unknown else found.value

    def choice(self, key: str, name: str, known: Collection[str]) -> str | None:
        """Return the word of a flag that takes one of a few; another one is a fault of the file."""
        found = self.text(key, name)
        if found is not None and found not in known:
            given = self.given[name]
            self.draft.blame(
                key, given.line, given.shown, found, f"expected one of {', '.join(sorted(known))}"
            )
            return None
        return found

    def on(self, key: str, *names: str) -> bool:
        """Tell whether a switch is on: given bare, or with a word that says so."""
        found = self.take(key, *names)
        if found is None:
            for name in names:
                if name in self.defaults and name not in self.given:
                    value, why = self.defaults[name]
                    self.draft.assume(key, value, why)
                    return value.lower() not in OFF
            return False
        word = found.value.lower()
        if word not in {*ON, *OFF, "0"} and not found.unknown:
            self.draft.assume(
                key, "on", f"{found.shown} is {found.value[:40]!r}, neither true nor false"
            )
        return not found.unknown and (not found.words or word not in {*OFF, "0"})

    def unread(self) -> Iterator[Given]:
        """Yield the flags that nothing has read."""
        return (given for key, given in self.given.items() if key not in self.used)


def key_of(name: str) -> str:
    """Return the key of a flag: `--seq-length` and `seq_length` are one."""
    return name.lstrip("-").replace("-", "_")


def _most(key: str) -> float:
    """Return the most that a number may be of which lists are made: layers, ranks and parts of a layout."""
    if key == "model.layers":
        return MAX_LAYERS
    return MOST_PARTS if key.startswith("parallel.") else math.inf


def whole_number(text: str) -> int | None:
    """Return the whole number that a text is, also as `1_000`, `1e9` or `8.0`; else None."""
    plain = text.strip().replace("_", "").replace(",", "")
    if len(plain) > 30:
        return None
    try:
        return int(plain)
    except ValueError:
        pass
    try:
        value = float(plain)
    except ValueError:
        return None
    return int(value) if value.is_integer() and abs(value) < 1e18 else None


def scaled_number(text: str) -> float | None:
    """Return a number with the ending K, M or B of powers of ten, as nanotron prints it."""
    plain = text.strip().lower()
    factor = _SCALE.get(plain[-1:], 1)
    try:
        return float(plain.rstrip("kmb").replace(",", "")) * factor
    except ValueError:
        return None
