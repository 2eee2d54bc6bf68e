"""Read YAML files of cases: overrides laid on, variants merged, every fault placed in the text.

What a file may say is a pydantic model (its schema); `ersatz.sim.scenario.file` and the files of other verbs
read with this module and resolve what they find themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from ersatz.device_models.text.problems import (
    MOST_PROBLEMS,
    InputError,
    Problem,
    did_you_mean,
)
from ersatz.device_models.text.yamltext import (
    UNPRINTABLE,
    Key,
    YamlText,
    dotted,
    parse_yaml,
    read_yaml,
)

T = TypeVar("T")
Schema = TypeVar("Schema", bound=BaseModel)
MOST_CASES = 1000
LONGEST_NAME = 100  # of a case


@dataclass(slots=True)
class Case:
    """One case of a file: its merged data, and where each value of it stands."""

    name: str
    text: YamlText
    data: dict[str, Any]
    overridden: set[Key]
    problems: list[Problem] = field(default_factory=list)

    def blame(self, path: Key, value: object, expected: str, *, at_key: bool = False) -> None:
        """Note a fault at a value of this case."""
        problem = self.place(path, value, expected, at_key=at_key)
        if len(self.problems) <= MOST_PROBLEMS and problem not in self.problems:
            self.problems.append(problem)

    def place(self, path: Key, value: object, expected: str, *, at_key: bool = False) -> Problem:
        """Return a problem placed at the override, the case's own value or the base's."""
        shown = "" if value is None else str(value)[:60]
        unwritten = path not in self.text.values
        if any(path[: len(o)] == o or (unwritten and o[: len(path)] == path)
               for o in self.overridden):  # fmt: skip
            return Problem("--set", 0, 0, dotted(path), shown, expected)
        own: Key = ("cases", self.name, *path)
        places = self.text.keys if at_key else self.text.values
        depth = len(own)
        while depth > 2 and own[:depth] not in places:
            depth -= 1
        if depth > 2 and (depth == len(own) or path[: depth - 2] not in places):
            return self.text.problem(own, value, expected, at_key=at_key)
        return self.text.problem(path, value, expected, at_key=at_key)


def read_cases(
    path: Path | str, overrides: Sequence[str] = (), seed: int | None = None
) -> list[Case]:
    """Return the cases of a file in order, with overrides such as `training.tokens=1 T tokens`.

    Raises `InputError` for a file that cannot be read and for overrides that have no place.
    """
    return cases_of(read_yaml(path), overrides, seed)


def cases_of(text: YamlText, overrides: Sequence[str] = (), seed: int | None = None) -> list[Case]:
    """Return the cases of a file that was read already; raises `InputError` as `read_cases` does."""
    if not isinstance(text.data, dict):
        raise InputError([text.problem((), None, "expected a scenario: keys and values")])
    _check_cases(text, text.data.get("cases"))
    data = dict(text.data)
    changed = apply_overrides(data, overrides)
    if seed is not None:
        data["seed"] = seed
    return _cases(text, data, changed)


def validated(case: Case, schema: type[Schema]) -> Schema | None:
    """Return the case as its schema, or None after noting every fault in the case."""
    try:
        return schema.model_validate(case.data)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_context=False)[: 2 * MOST_PROBLEMS]:
            _blame_schema(case, fault, schema)
        return None


def resolved_cases(
    path: Path | str, schema: type[Schema], resolve: Callable[[Case, Schema], T | None],
    overrides: Sequence[str] = (), seed: int | None = None,
) -> tuple[T, ...]:  # fmt: skip
    """Return what `resolve` makes of every case of a file; raises `InputError` with every fault."""
    found: list[T] = []
    problems: list[Problem] = []
    for case in read_cases(path, overrides, seed):
        spec = validated(case, schema)
        made = resolve(case, spec) if spec else None
        problems += case.problems
        if made is not None:
            found.append(made)
    if problems:
        raise InputError(problems)
    return tuple(found)


def _cases(text: YamlText, data: dict[str, Any], changed: set[Key]) -> list[Case]:
    variants = data.get("cases")
    base = {key: value for key, value in data.items() if key != "cases"}
    if not variants:
        return [Case(Path(text.file).stem, text, base, changed)]
    _check_cases(text, variants)
    return [
        Case(str(name), text, _merge(base, variant), changed) for name, variant in variants.items()
    ]


def _check_cases(text: YamlText, variants: Any) -> None:
    """Raise `InputError` unless the cases are names that can be shown, with changed keys each."""
    if variants is None:
        return
    if not isinstance(variants, dict):
        raise InputError([text.problem(("cases",), None, "expected a name and changed keys each")])
    if len(variants) > MOST_CASES:
        words = f"expected at most {MOST_CASES:,} cases"
        raise InputError([text.problem(("cases",), len(variants), words, at_key=True)])
    problems = []
    for name, variant in variants.items():
        if not isinstance(variant, dict):
            problems.append(text.problem(("cases", name), variant, "expected the keys that change"))
        if not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
            expected = f"expected a name of 1 to {LONGEST_NAME} printable characters"
            problems.append(text.problem(("cases", name), name[:20], expected, at_key=True))
    if problems:
        raise InputError(problems)


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another; mappings merge, everything else replaces."""
    merged = dict(base)
    if "pools" in change and "node" in base:
        merged = {key: value for key, value in merged.items() if key not in ("node", "nodes")}
    if "node" in change and "pools" in base:
        merged.pop("pools")
    for key, value in change.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merge(dict(old or {}), value) if both else value
    return merged


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> set[Key]:
    """Write the overrides into the data; returns the paths that they set."""
    changed: set[Key] = set()
    problems: list[Problem] = []
    for override in overrides:
        name, equals, raw = override.partition("=")
        parts = re.findall(r"[^.\[\]]+", name)
        if not equals or not parts or UNPRINTABLE.search(name):
            shown = override.encode("ascii", "backslashreplace").decode()[:60]
            problems.append(Problem("--set", 0, 0, "", shown, "expected key=value"))
            continue
        path: Key = tuple(int(p) if re.fullmatch("[0-9]{1,6}", p) else p for p in parts)
        try:
            value = parse_yaml(raw or "~", "--set").data
            _put(data, path, value)
        except InputError as error:
            problems += error.problems
            continue
        except (LookupError, TypeError, AttributeError):
            problems.append(Problem("--set", 0, 0, name, raw, "there is no such place"))
            continue
        changed.add(path)
    if problems:
        raise InputError(problems)
    return changed


def _put(data: Any, path: Key, value: Any) -> None:
    """Set one value and drop what cases say of it, so that it holds in every case."""
    for variant in (data.get("cases") or {}).values() if path[0] != "cases" else ():
        _drop(variant, path)
    for part in path[:-1]:
        if isinstance(data, dict) and not isinstance(data.get(part), dict | list):
            data[part] = {}
        data = data[part]
    data[path[-1]] = value


def _drop(data: Any, path: Key) -> None:
    for part in path[:-1]:
        if not isinstance(data, dict) or part not in data:
            return
        data = data[part]
    if isinstance(data, dict):
        data.pop(path[-1], None)


def _blame_schema(case: Case, fault: Any, schema: type[BaseModel]) -> None:
    """Turn one finding of the schema into a placed problem in plain words."""
    location = _location(fault["loc"], case.data, missing=fault["type"] == "missing")
    kind, value = fault["type"], fault.get("input")
    shown = None if isinstance(value, dict | list | tuple) else value
    if kind == "extra_forbidden":
        known = _keys_at(location[:-1], schema)
        hint = did_you_mean(str(location[-1]), known)
        case.blame(location, None, f"unknown key{hint}", at_key=True)
    elif kind == "missing":
        case.blame(location[:-1], location[-1], "key is missing")
    else:
        words = str(fault["msg"]).removeprefix("Value error, ")
        words = words[0].lower() + words[1:]
        starts = ("expected", "has no unit", "unknown unit", "nodes is missing", "is not finite")
        case.blame(location, shown, words if words.startswith(starts) else f"expected: {words}")


def _location(parts: Key, data: Any, *, missing: bool) -> Key:
    """Return where a fault stands in the data, without pydantic's names of the branches of a union."""
    location: Key = ()
    for part in parts[: len(parts) - missing]:
        inside = isinstance(data, dict) and part in data
        if inside or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            location, data = (*location, part), data[part]
    return (*location, *parts[len(parts) - missing :])


def _keys_at(path: Key, schema: type[BaseModel]) -> list[str]:
    """Return the keys that the schema knows at a path."""
    model: Any = schema
    for part in path:
        if isinstance(part, int) or not hasattr(model, "model_fields"):
            continue
        found = model.model_fields.get(part)
        model = _section_of(found.annotation) if found else None
        if model is None:
            return []
    return list(model.model_fields) if hasattr(model, "model_fields") else []


def _section_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((s for a in get_args(annotation) if (s := _section_of(a))), None)
