"""What this process has read: nothing that a run was made from is overwritten by its answer.

Scenarios name nodes, traces, tables and rules, which name further files; one place sees them all,
the interpreter's own report of each file that it opens.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ersatz.device_models.text.visible import is_plain, visible

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_read: set[str] = set()


def note_inputs() -> None:
    """Begin anew to note which files are opened to be read."""
    _read.clear()
    _listen()


@cache
def _listen() -> None:
    """Ask the interpreter to report; once, for it cannot be undone and every report costs time."""
    sys.addaudithook(_note)


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | Path) and not arguments[2] & _WRITES:
        _read.add(str(arguments[0]))


def was_read(path: Path) -> bool:
    """Tell whether the file at `path` was read, under whatever name."""
    target = os.path.realpath(path)
    return any(os.path.realpath(name) == target for name in _read
               if os.path.basename(name) == os.path.basename(target) or os.path.islink(name))  # fmt: skip


def unusable_words(words: Sequence[str]) -> list[str]:
    """Return what is wrong with the words of a command line, before any of them is understood."""
    faults = []
    for number, word in enumerate(words, 1):
        if not word or re.fullmatch(r"--[a-z-]+=", word):
            before = words[number - 2] if number > 1 and not word else word.rstrip("=")
            faults.append(f"{before or 'ersatz'}: word {number} is empty; expected a value")
        elif not is_plain(word) and re.search("[\ud800-\udfff\0]", word):
            faults.append(f"word {number}: '{visible(word)}' is no UTF-8 text")
    return faults
