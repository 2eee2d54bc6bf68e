"""What is wrong with an input, said so that a person can mend it at once.

Every reader of user files (catalogue, scenario, tables) collects `Problem`s and raises them
together as one `InputError`; nothing here knows about the meaning of the files.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

MOST_PROBLEMS = 50  # told at once; nobody mends more before the next try
LONGEST_WORD = 60  # that may be another one mistyped


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of an input: where it is, what was found and what was expected.

    `line` and `column` count from 1; 0 means that the fault has no place in the text.
    """

    file: str
    line: int
    column: int
    key: str
    value: str
    expected: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        key = f"{self.key}: " if self.key else ""
        value = f"{self.value!r} " if self.value else ""
        return f"{place}: {key}{value}{'- ' if value else ''}{self.expected}"


class InputError(ValueError):
    """The input cannot be used; `problems` holds each fault once, the first `MOST_PROBLEMS` of them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        found = tuple(dict.fromkeys(problems))
        if len(found) > MOST_PROBLEMS:
            more = Problem(found[0].file, 0, 0, "", "", "has more faults than are listed here")
            found = (*found[:MOST_PROBLEMS], more)
        self.problems = found
        super().__init__("\n".join(str(problem) for problem in self.problems))


def in_words(error: Exception) -> str:
    """Return why something could not be read, for who wrote the file: no name of an exception.

    Of a missing key, an unknown one, a value of another kind, a text that is no JSON or no UTF-8.
    """
    text = str(error)
    if isinstance(error, json.JSONDecodeError):
        return f"is no JSON at line {error.lineno}, column {error.colno}: {error.msg}"
    if isinstance(error, UnicodeDecodeError):
        return f"is no UTF-8 at byte {error.start:,}"
    if isinstance(error, RecursionError | MemoryError):
        return "is nested too deeply"
    if isinstance(error, SyntaxError) or text.startswith("malformed node"):  # of ast.literal_eval
        return "holds a list that cannot be read"
    if isinstance(error, KeyError):
        return f"{str(error.args[0])[:60]!r} is missing or unknown" if error.args else "lacks a key"
    if isinstance(error, ArithmeticError):
        return "holds a number that is too large, or none"
    if isinstance(error, TypeError):
        return _of_call(text)
    if isinstance(error, AttributeError | IndexError | StopIteration | AssertionError):
        return "holds something of another kind, or of another length, than was expected"
    return text[:200]


def _of_call(text: str) -> str:
    """Return what a TypeError says of the keys of a row, where it says that."""
    if found := re.search(r"unexpected keyword argument '([^']{1,60})'", text):
        return f"unknown key {found[1]!r}"
    if found := re.search(
        r"missing \d+ required (?:positional|keyword-only) arguments?: (.{1,120})", text
    ):
        return f"lacks {found[1]}"
    return "holds something of another kind, or of another length, than was expected"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" for the known word nearest to `word`, or an empty text."""
    if len(word) > LONGEST_WORD:
        return ""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean {near[0]!r}?" if near else ""
