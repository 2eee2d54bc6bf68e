"""What an import found: a scenario with the origin of every value, and all that it does not hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Read:
    """A flag that decided something, with the scenario key that it went to."""

    flag: str
    value: str
    line: int
    key: str
    file: str = ""


@dataclass(frozen=True, slots=True)
class Assumed:
    """A default that the file did not state and that matters."""

    key: str
    value: str
    why: str


@dataclass(frozen=True, slots=True)
class NotModelled:
    """A flag that changes time, memory or money, and for which there is no key; with its likely worth."""

    flag: str
    value: str
    line: int
    effect: str
    file: str = ""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A flag without effect on time, memory or money."""

    flag: str
    line: int
    file: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A scenario key that only the user can give."""

    key: str
    why: str
    choices: tuple[str, ...] = ()
    line: int = 0
    file: str = ""


@dataclass(frozen=True, slots=True)
class Imported:
    """A launch file as a scenario.

    `origins` says for each dotted key of `scenario` where it was written: (file, line, flag), line 0
    where it follows from a default. `wrong` holds what cannot be true together.
    """

    file: str
    format: str
    version: str | None
    scenario: Mapping[str, Any]
    origins: Mapping[str, tuple[str, int, str]] = field(default_factory=dict)
    devices: int | None = None
    devices_per_node: int | None = None
    measured_step_s: float | None = None
    measured_from: str | None = None
    read: tuple[Read, ...] = ()
    assumed: tuple[Assumed, ...] = ()
    not_modelled: tuple[NotModelled, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    questions: tuple[Question, ...] = ()
    wrong: tuple[str, ...] = ()
    text: str = ""  # of a network: the node or network file that holds it

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data: what `ersatz import --json` writes."""
        return {
            "format": self.format, "version": self.version, "scenario": dict(self.scenario),
            "devices": self.devices, "devices_per_node": self.devices_per_node,
            "measured_step_s": self.measured_step_s, "measured_from": self.measured_from,
            "read": [_row(r, "flag", "value", "line", "key") for r in self.read],
            "assumed": [_row(a, "key", "value", "why") for a in self.assumed],
            "not_modelled": [_row(n, "flag", "value", "line", "effect") for n in self.not_modelled],
            "ignored": [_row(i, "flag", "line") for i in self.ignored],
            "questions": [
                _row(q, "key", "why") | ({"choices": list(q.choices)} if q.choices else {})
                for q in self.questions
            ],
            "wrong": list(self.wrong),
            **({"text": self.text} if self.text else {}),
            "origins": {k: {"file": f, "line": n, "flag": w}
                        for k, (f, n, w) in self.origins.items()},
        }  # fmt: skip


def _row(record: Any, *names: str) -> dict[str, Any]:
    row = {name: getattr(record, name) for name in names}
    return row | ({"file": record.file} if getattr(record, "file", "") else {})
