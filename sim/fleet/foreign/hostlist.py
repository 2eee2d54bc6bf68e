"""Slurm's way to write many names in short: n[0-3,7],m1 is n0 n1 n2 n3 n7 m1."""

from __future__ import annotations

import re
from collections.abc import Iterator

MOST_NAMES = 200_000
_PART = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])+")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?$")


def expand(text: str) -> list[str]:
    """Return the names of a host list; raises `ValueError` for what is none."""
    found: list[str] = []
    rest = _PART.sub("", text).strip(", ")
    if rest:
        raise ValueError(f"{text[:60]!r} is no list of nodes, like n[0-3,7],m1")
    for part in _PART.findall(text):
        for name in _names(part.strip()):
            found.append(name)
            if len(found) > MOST_NAMES:
                raise ValueError(f"{text[:60]!r} names more than {MOST_NAMES:,} nodes")
    return found


def _names(text: str) -> Iterator[str]:
    head, bracket, tail = text.partition("[")
    if not bracket:
        yield text
        return
    inside, _, after = tail.partition("]")
    for number in _numbers(inside, text):
        for end in _names(after) if after else ("",):
            yield f"{head}{number}{end}"


def _numbers(text: str, whole: str) -> Iterator[str]:
    for part in text.split(","):
        match = _RANGE.match(part.strip())
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f"{whole[:60]!r} is no list of nodes, like n[0-3,7]")
        last = int(match[2] or match[1])
        if last - int(match[1]) > MOST_NAMES:
            raise ValueError(f"{whole[:60]!r} names more than {MOST_NAMES:,} nodes")
        for number in range(int(match[1]), last + 1):
            yield f"{number:0{len(match[1])}d}"
