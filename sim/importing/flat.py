"""Configurations as flags: nested keys joined by dots, each with its line."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from ersatz.device_models.text.problems import InputError, Problem
from ersatz.device_models.text.yamltext import Key, YamlText, parse_yaml
from ersatz.sim.importing.flags import Given


def flat_yaml(text: YamlText, file: str = "") -> dict[str, Given]:
    """Return the leaves of a YAML document by dotted key; a list of single values is one leaf."""
    return {given.key: given for given in _leaves(text.data, (), text, file)}


def _leaves(data: Any, path: Key, text: YamlText, file: str) -> Iterator[Given]:
    if isinstance(data, Mapping) and data:
        for key, value in data.items():
            yield from _leaves(value, (*path, key), text, file)
    elif isinstance(data, list) and any(isinstance(item, dict | list) for item in data):
        for i, item in enumerate(data):
            yield from _leaves(item, (*path, i), text, file)
    elif path:
        name = ".".join(map(str, path))
        line = text.values.get(path, text.keys.get(path, (0, 0)))[0]
        if isinstance(data, float) and not math.isfinite(data):
            raise InputError(
                [Problem(file or text.file, line, 0, name, str(data), "expected a finite number")]
            )
        yield Given(name, name, words_of(data), line, file)


def words_of(value: Any) -> tuple[str, ...]:
    """Return a value as the words that a flag would have."""
    if isinstance(value, bool):
        return (str(value).lower(),)
    if value is None or value == {} or value == []:
        return ("null",)
    if isinstance(value, list):
        return (f"[{', '.join(map(str, value))}]",)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return (str(int(value)),)
    return (str(value),)


def flat_json(text: str, file: str, shown: str = "") -> dict[str, Given]:
    """Return the leaves of a JSON document; raises `InputError` with its line where it is none."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        words = f"is no valid JSON: {error.msg}"
        raise InputError([Problem(file, error.lineno, error.colno, "", "", words)]) from error
    except (ValueError, RecursionError) as error:
        words = "is no JSON that can be read: nested too deeply, or a number too large"
        raise InputError([Problem(file, 0, 0, "", "", words)]) from error
    return flat_yaml(parse_yaml(text.replace("\t", "  "), file), shown)


def flat_toml(text: str, file: str) -> dict[str, Given]:
    """Return the leaves of a TOML document; raises `InputError` where it is none."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+), column (\d+)", str(error))
        line, column = (int(found[1]), int(found[2])) if found else (0, 0)
        words = f"is no valid TOML: {str(error).partition(' (at')[0].lower()}"
        raise InputError([Problem(file, line, column, "", "", words)]) from error
    except (ValueError, RecursionError) as error:
        raise InputError([Problem(file, 0, 0, "", "", "is no TOML that can be read")]) from error
    lines = _toml_lines(text)
    places: dict[Key, tuple[int, int]] = {}
    _places(data, (), lines, places)
    return flat_yaml(YamlText(file, data, places, places))


def _places(
    data: Any, path: Key, lines: Mapping[str, int], places: dict[Key, tuple[int, int]]
) -> None:
    places[path] = (lines.get(".".join(map(str, path)), 0), 1)
    if isinstance(data, Mapping):
        for key, value in data.items():
            _places(value, (*path, key), lines, places)


def _toml_lines(text: str) -> dict[str, int]:
    """Return the line of each dotted key: tables and keys as they stand one to a line."""
    found: dict[str, int] = {}
    table = ""
    for number, row in enumerate(text.splitlines(), 1):
        if head := re.match(r"\s*\[\[?([^\[\]]+)\]\]?", row):
            table = ".".join(p.strip().strip("\"'") for p in head[1].split("."))
        elif key := re.match(r"\s*([\w.\"'-]+)\s*=", row):
            name = ".".join(p.strip().strip("\"'") for p in key[1].split("."))
            found.setdefault(f"{table}.{name}" if table else name, number)
    return found
