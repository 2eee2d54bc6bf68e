"""A scenario as YAML for people: each value with the line that it came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ersatz.sim.importing.record import Imported

_PLAIN = re.compile(r"[A-Za-z][\w./+ -]*$")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "~"})
COLUMN = 44  # where remarks begin


def scenario_yaml(found: Imported) -> str:
    """Return the scenario of an import as YAML, with the origin of each value as a remark."""
    if not found.scenario:
        return found.text
    lines: list[str] = []
    for key, value in found.scenario.items():
        lines += _entry((key,), value, found)
    for question in found.questions:
        if question.key not in ("model",):
            lines.append(f"# missing: {question.key}")
    return "\n".join(lines) + "\n"


def _entry(path: tuple[str, ...], value: Any, found: Imported) -> Iterator[str]:
    indent = "  " * (len(path) - 1)
    if isinstance(value, Mapping):
        yield f"{indent}{path[-1]}:"
        for key, inner in value.items():
            yield from _entry((*path, str(key)), inner, found)
        return
    line = f"{indent}{path[-1]}: {yaml_value(value)}"
    remark = _remark(".".join(path), found)
    yield f"{line:<{COLUMN}}  # {remark}" if remark else line


def _remark(key: str, found: Imported) -> str:
    file, line, flag = found.origins.get(key, ("", 0, ""))
    if line:
        return f"{Path(file).name}:{line} {flag}"
    return "taken: see what was assumed" if any(a.key == key for a in found.assumed) else ""


def yaml_value(value: Any) -> str:
    """Write a value in one line, as YAML reads it back."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {yaml_value(one)}' for key, one in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(yaml_value, value))}]"
    if isinstance(value, str):
        plain = _PLAIN.match(value) and value.lower() not in _WORDS and value == value.strip()
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return value if plain and ": " not in value else f'"{escaped}"'
    return str(value)
