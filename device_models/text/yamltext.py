"""Read YAML with the line and column of every value, safely and strictly.

YAML 1.2 scalars (no `no` as False, no `12:30` as 750, `1e9` is a number), no duplicate keys,
no anchors (an alias bomb cannot be written), a limit of size and of nesting, printable text only.
A scalar of more than 64 characters is text, whatever it looks like.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from ersatz.device_models.text.files import read_text_file
from ersatz.device_models.text.problems import MOST_PROBLEMS, InputError, Problem

MAX_DEPTH = 40  # of keys within keys
MAX_WHOLE = 10**64
# Control characters (of terminals, too) and those that turn the direction of writing.
UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
Key = tuple[str | int, ...]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^(?!.{65})[-+]?[0-9][0-9_]*$", list("-+0123456789")),
    (
        "float",
        r"^(?!.{65})(?:[-+]?(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+0123456789."),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


_TAGS = frozenset({"map", "seq", "str", "int", "float", "bool", "null"})


@dataclass(frozen=True, slots=True)
class YamlText:
    """A read document: plain `data`, and for each path the (line, column) of key and value."""

    file: str
    data: Any
    values: dict[Key, tuple[int, int]]
    keys: dict[Key, tuple[int, int]]

    def problem(self, path: Key, value: object, expected: str, *, at_key: bool = False) -> Problem:
        """Return a `Problem` placed at `path`, or at its nearest parent that stands in the text."""
        places = self.keys if at_key else self.values
        place = path
        while place and place not in places:
            place = place[:-1]
            places = self.values
        line, column = places.get(place, (0, 0))
        shown = "" if value is None else str(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return Problem(self.file, line, column, dotted(path), shown, expected)


def dotted(path: Key) -> str:
    """Write a path as people do: ('stages', 0, 'layers') is 'stages[0].layers'."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def read_yaml(path: Path | str) -> YamlText:
    """Read a YAML file; raises `InputError` when it is missing, binary, huge or malformed."""
    return parse_yaml(read_text_file(path, "YAML"), str(path))


def parse_yaml(text: str, file: str) -> YamlText:
    """Parse YAML text that came from `file`; raises `InputError` with line and column."""
    if bad := UNPRINTABLE.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        column = bad.start() - text.rfind("\n", 0, bad.start())
        words = f"holds the character {_code(bad[0])}: a binary file? expected YAML text"
        raise _fault(file, words, line, column)
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise _fault(file, f"is no valid YAML: {error.problem}", line, column) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise _fault(file, "is no valid YAML: nested too deeply or unreadable") from error
    if root is None:
        raise _fault(file, "is empty; expected keys and values")
    reader = _Reader(file)
    data = reader.build(root, ())
    if reader.problems:
        raise InputError(reader.problems)
    return YamlText(file, data, reader.values, reader.keys)


def _fault(file: str, expected: str, line: int = 0, column: int = 0) -> InputError:
    return InputError([Problem(file, line, column, "", "", expected)])


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"


class _Reader:
    """Turns the node tree into plain data and notes where each key and value stands."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.values: dict[Key, tuple[int, int]] = {}
        self.keys: dict[Key, tuple[int, int]] = {}
        self.problems: list[Problem] = []
        self.seen: set[int] = set()
        self.scalars = _Loader("")

    def build(self, node: yaml.Node, path: Key) -> Any:
        mark = (node.start_mark.line + 1, node.start_mark.column + 1)
        self.values[path] = mark
        if len(path) > MAX_DEPTH:
            self._note(path[:3], mark, f"is nested too deeply; expected at most {MAX_DEPTH} levels")
            return None
        if id(node) in self.seen:
            self._note(path, mark, "anchors and aliases are not accepted; write the value out")
            return None
        self.seen.add(id(node))
        if node.tag.removeprefix("tag:yaml.org,2002:") not in _TAGS:
            self._note(path, mark, f"has the tag {node.tag}; expected text or a number")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._scalar(node, path, mark)

    def _mapping(self, node: yaml.MappingNode, path: Key) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            mark = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                self._note(path, mark, "a key must be a single word")
                continue
            key = str(key_node.value)
            if bad := UNPRINTABLE.search(key):
                self._note(path, mark, f"a key holds the character {_code(bad[0])}")
                continue
            if key in result:
                self._note((*path, key), mark, "the key stands twice; keep one")
            self.keys[(*path, key)] = mark
            result[key] = self.build(value_node, (*path, key))
        return result

    def _scalar(self, node: yaml.Node, path: Key, mark: tuple[int, int]) -> Any:
        try:
            value = self.scalars.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, LookupError, ArithmeticError):
            self._note(path, mark, f"has the tag {node.tag}; expected text or a number")
            return None
        if isinstance(value, str) and (bad := UNPRINTABLE.search(value)):
            self._note(path, mark, f"holds the character {_code(bad[0])}; expected printable text")
        if isinstance(value, int) and abs(value) >= MAX_WHOLE:
            self._note(path, mark, "is too large a number")
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self._note(path, mark, f"{node.value} is not a finite number")
        return value

    def _note(self, path: Key, mark: tuple[int, int], expected: str) -> None:
        if len(self.problems) <= MOST_PROBLEMS:
            self.problems.append(Problem(self.file, *mark, dotted(path), "", expected))
