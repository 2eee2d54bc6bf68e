"""What is shown of one thing that has a name: its values, each with where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ersatz.device_models.catalog.device import Fact
from ersatz.device_models.text.yamltext import Key, YamlText, dotted


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing: a heading, values with their sources, what follows from them, and the sources."""

    kind: str
    name: str
    title: str
    facts: tuple[Fact, ...]
    warning: str = ""
    notes: tuple[str, ...] = ()  # what follows from the values, and where to go on
    sources: Mapping[str, str] = field(default_factory=dict)  # what the short names stand for


@dataclass(frozen=True, slots=True)
class Shelf:
    """All things of one kind."""

    kind: str
    meaning: str
    names: Callable[[], list[str]]
    line: Callable[[str], str]  # one line on a thing
    entry: Callable[[str], Entry]  # of a name, or of a path where `by_path`; raises `InputError`
    aliases: Callable[[], Mapping[str, str]] = dict  # other names, in small letters
    by_path: bool = False


def used_sources(facts: tuple[Fact, ...], sources: Mapping[str, str]) -> dict[str, str]:
    """Return the sources that facts name, in the order of the file."""
    used = {fact.source for fact in facts}
    return {key: text for key, text in sources.items() if key in used}


def stated(key: str, value: object, source: str, **more: str) -> Fact:
    """Return a value that stands somewhere without a leaf of its own."""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    date, note = more.get("date", ""), more.get("note", "")
    confidence: Any = more.get("confidence", "")
    return Fact(key, text, text, source, date, confidence, note)


def facts_of_text(text: YamlText) -> Iterator[Fact]:
    """Yield every value of a plain YAML file; its source is the line where it stands."""
    for path, value in _leaves((), text.data):
        line, _ = text.values.get(path) or text.values.get(path[:-1]) or (0, 0)
        yield stated(dotted(path), _written(value), f"line {line}")


def _leaves(path: Key, value: Any) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves((*path, key), inner)
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for i, inner in enumerate(value):
            yield from _leaves((*path, i), inner)
    else:
        yield path, value


def _written(value: Any) -> Any:
    return {True: "true", False: "false"}.get(value) if isinstance(value, bool) else value
