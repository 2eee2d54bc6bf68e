"""Makes a failing input smaller while it still fails in the same way.

Words of the command line, then parts of each file are left out: of the tree where the file is YAML or
JSON, else lines, then pieces of lines. What cannot go is made short.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ersatz.device_models.text.problems import InputError
from ersatz.device_models.text.yamltext import parse_yaml

from .judge import Input
from .mutate import drop, get, places, put, to_json, to_yaml

Fails = Callable[[Input], bool]


def shrunk(given: Input, fails: Fails, budget_s: float = 30.0) -> Input:
    """Return the smallest input found in the time that still `fails`."""
    end = time.monotonic() + budget_s
    sys.setrecursionlimit(20_000)
    progress = True
    while progress and time.monotonic() < end:
        progress = False
        for smaller in _smaller(given):
            if time.monotonic() > end:
                break
            if fails(smaller):
                given, progress = smaller, True
                break
    return given


def _smaller(given: Input) -> Iterator[Input]:
    """Yield inputs each a little smaller than `given`, the boldest first."""
    for at in range(len(given.argv) - 1, 0, -1):
        if not given.argv[at].startswith("@/itself"):
            yield replace(given, argv=given.argv[:at] + given.argv[at + 1 :])
            if given.argv[at - 1].startswith("--") and at > 1:
                yield replace(given, argv=given.argv[: at - 1] + given.argv[at + 1 :])
    for name, raw in sorted(given.files.items(), key=lambda item: -len(item[1])):
        yield replace(given, files={k: v for k, v in given.files.items() if k != name})
        for less in _smaller_bytes(raw):
            if less != raw:
                yield replace(given, files={**given.files, name: less})


def _smaller_bytes(raw: bytes) -> Iterator[bytes]:
    tree = _tree(raw)
    if tree is not None:
        yield from _smaller_trees(tree, to_json if raw[:1] in b"{[" else to_yaml)
        return
    for separator in (b"\n", b",", b" "):
        parts = raw.split(separator)
        size = len(parts) // 2
        while size:
            for at in range(0, len(parts), size):
                yield separator.join(parts[:at] + parts[at + size :])
            size //= 2
    size = len(raw) // 2
    while size > len(raw) // 64:
        for at in range(0, len(raw), size):
            yield raw[:at] + raw[at + size :]
        size //= 2


def _tree(raw: bytes) -> Any:
    """Return what the bytes say as YAML or JSON, if that is a mapping or list."""
    try:
        text = raw.decode("utf-8")
        found = json.loads(text) if text[:1] in "{[" else parse_yaml(text, "").data
    except (InputError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None


def _smaller_trees(tree: Any, write: Callable[[Any], bytes]) -> Iterator[bytes]:
    for path in places(tree):
        less = copy.deepcopy(tree)
        drop(less, path)
        yield write(less)
    for path in places(tree):
        value = get(tree, path)
        for simple in _simpler(value):
            less = copy.deepcopy(tree)
            put(less, path, simple)
            yield write(less)


def _simpler(value: Any) -> list[Any]:
    if isinstance(value, str) and len(value) > 8:
        return [value[: len(value) // 2], value[len(value) // 2 :]]
    if isinstance(value, list) and len(value) > 3:
        return [value[: len(value) // 2], value[len(value) // 2 :]]
    if isinstance(value, dict) and len(value) == 1 and len(str(value)) > 40:
        return list(value.values())
    return []
