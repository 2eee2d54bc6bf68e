"""Braces in words: `a{1,2}b` is two words, `{1..9..4}` three; text in quotes is none of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from ersatz.sim.importing.shell.scan import Part, Word

_RANGE = re.compile(
    r"(-?\d{1,6})\.\.(-?\d{1,6})(?:\.\.(-?\d{1,6}))?|([A-Za-z])\.\.([A-Za-z])(?:\.\.(-?\d{1,6}))?"
)
MOST_WORDS = 1000


def opened_braces(word: Word) -> list[Word]:
    """Return the words that a word with braces stands for: itself where it has none, or too many."""
    plain = "".join(part.text for part in word if part.kind == "text" and not part.quoted)
    if "{" not in plain or "}" not in plain:
        return [word]
    atoms: list[Part] = []
    for part in word:
        splits = part.kind == "text" and not part.quoted
        atoms += [part._replace(text=char) for char in part.text] if splits else [part]
    found: list[Word] = []
    for one in _opened(tuple(atoms)):
        found.append(_joined(one))
        if len(found) > MOST_WORDS:
            return [word]
    return found


def _opened(atoms: Word) -> Iterator[Word]:
    for begin, atom in enumerate(atoms):
        if not _is(atom, "{"):
            continue
        end, commas = _end(atoms, begin)
        if end is None:
            continue
        inside = atoms[begin + 1 : end]
        parts = (
            _cut(atoms, [begin, *commas, end])
            if commas
            else _range("".join(a.text for a in inside), inside)
        )
        if not parts:
            continue
        rest = [*_opened(atoms[end + 1 :])]
        for part in parts:
            for middle in _opened(part):
                yield from ((*atoms[:begin], *middle, *after) for after in rest)
        return
    yield atoms


def _is(atom: Part, char: str) -> bool:
    return atom.kind == "text" and not atom.quoted and atom.text == char


def _end(atoms: Word, begin: int) -> tuple[int | None, list[int]]:
    """Return where the brace closes, and the commas on its own level."""
    depth = 0
    commas: list[int] = []
    for at in range(begin, len(atoms)):
        if _is(atoms[at], "{"):
            depth += 1
        elif _is(atoms[at], "}"):
            depth -= 1
            if not depth:
                return at, commas
        elif _is(atoms[at], ",") and depth == 1:
            commas.append(at)
    return None, []


def _cut(atoms: Word, at: list[int]) -> list[Word]:
    return [atoms[a + 1 : b] for a, b in pairwise(at)]


def _range(text: str, inside: Word) -> list[Word]:
    found = _RANGE.fullmatch(text)
    if not found or any(atom.kind != "text" or atom.quoted for atom in inside):
        return []
    if found[4]:
        first, last, width = ord(found[4]), ord(found[5]), 0
        step = abs(int(found[6] or 1)) or 1
    else:
        first, last, step = int(found[1]), int(found[2]), abs(int(found[3] or 1)) or 1
        padded = any(re.match(r"-?0\d", end) for end in (found[1], found[2]))
        width = max(len(found[1]), len(found[2])) if padded else 0
    if abs(last - first) // step >= MOST_WORDS:
        return []
    numbers = range(first, last + 1, step) if last >= first else range(first, last - 1, -step)
    return [
        (inside[0]._replace(text=chr(i) if found[4] else str(i).zfill(width)),) for i in numbers
    ]


def _joined(atoms: Word) -> Word:
    """Join letters of a line that stood apart."""
    joined: list[Part] = []
    for atom in atoms:
        last = joined[-1] if joined else None
        if (last and last.kind == atom.kind == "text" and not last.quoted and not atom.quoted
                and last.line == atom.line):  # fmt: skip
            joined[-1] = last._replace(text=last.text + atom.text)
        else:
            joined.append(atom)
    return tuple(joined)
