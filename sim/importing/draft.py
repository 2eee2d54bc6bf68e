"""A scenario that is being put together, with everything that is told about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ersatz.device_models.text.problems import InputError, Problem
from ersatz.sim.importing.record import Assumed, Ignored, NotModelled, Question, Read

SECTIONS = ("question", "model", "stack", "cluster", "training", "parallel", "memory", "cost")


@dataclass(slots=True)
class Draft:
    """Values by dotted key, where each came from, and the lists that an import gives."""

    file: str
    format: str
    version: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    read: list[Read] = field(default_factory=list)
    assumed: dict[str, Assumed] = field(default_factory=dict)
    not_modelled: list[NotModelled] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)
    questions: dict[str, Question] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    devices: int | None = None
    devices_per_node: int | None = None
    measured_step_s: float | None = None
    measured_from: str | None = None
    device_hint: str = ""  # what a file says of its device: "h100"

    def put(self, key: str, value: Any) -> None:
        """Give a key its value, unless there is none; what was read for the key is its origin."""
        if value is None:
            return
        self.values[key] = value
        self.questions.pop(key, None)
        self.origins.setdefault(key, (self.file, 0, ""))

    def note(self, key: str, flag: str, value: str, line: int, file: str = "") -> None:
        """Note that a flag decided a key."""
        self.read.append(Read(flag, value, line, key, file))
        if key != "stack" and self.origins.get(key, ("", 0, ""))[1] == 0:  # many flags choose it
            self.origins[key] = (file or self.file, line, flag)

    def assume(self, key: str, value: object, why: str) -> None:
        """Note a default that the file does not state; the last word on a key counts."""
        self.assumed[key] = Assumed(key, shown(value), why)

    def ask(self, key: str, why: str, choices: Iterable[str] = (), line: int = 0) -> None:
        """Ask for a key, unless it is asked for already."""
        self.questions.setdefault(key, Question(key, why, tuple(choices), line))

    def leave_out(self, flag: str, value: str, line: int, effect: str, file: str = "") -> None:
        """Note a flag that is not modelled, with what it is likely worth."""
        self.not_modelled.append(NotModelled(flag, value, line, effect, file))

    def ignore(self, flag: str, line: int, file: str = "") -> None:
        """Note a flag without effect on time, memory or money."""
        self.ignored.append(Ignored(flag, line, file))

    def contradict(self, words: str) -> None:
        """Note what cannot be true together."""
        if words not in self.wrong:
            self.wrong.append(words)

    def blame(self, key: str, line: int, flag: str, value: str, expected: str) -> None:
        """Note a value that cannot be read."""
        self.problems.append(Problem(self.file, line, 1 if line else 0, flag, value[:60], expected))

    def refuse(self, line: int, flag: str, words: str) -> None:
        """Refuse the file for something that is not simulated, by name. Raises `InputError`."""
        raise InputError([Problem(self.file, line, 1 if line else 0, flag, "", words)])

    def asked(self, *keys: str) -> bool:
        """Tell whether one of several keys is still a question."""
        return any(key in self.questions for key in keys)

    def scenario(self) -> dict[str, Any]:
        """Return the values as a nested scenario, sections in their usual order."""
        nested: dict[str, Any] = {}
        for key, value in self.values.items():
            at = nested
            *path, last = key.split(".")
            for part in path:
                at = at.setdefault(part, {})
            at[last] = value
        order = {name: i for i, name in enumerate(SECTIONS)}
        return dict(sorted(nested.items(), key=lambda item: order.get(item[0], 99)))

    def drop(self, prefix: str) -> None:
        """Take back every value below a key."""
        for key in [k for k in self.values if k == prefix or k.startswith(f"{prefix}.")]:
            self.values.pop(key)

    def retitle(self, old: str, new: str, why: str) -> None:
        """Move what was asked for one key to another."""
        if question := self.questions.pop(old, None):
            self.questions[new] = replace(question, key=new, why=why or question.why)


def shown(value: object) -> str:
    """Return a value as a person writes it in a scenario."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(shown, value))}]"
    return str(value)
