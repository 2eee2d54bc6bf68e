"""What is wrong with an input, said so that a person can mend it at once.

Every reader of user files (catalogue, scenario, tables) collects `Problem`s and raises them
together as one `InputError`; nothing here knows about the meaning of the files.
"""

from __future__ import annotations

import difflib
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


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" for the known word nearest to `word`, or an empty text."""
    if len(word) > LONGEST_WORD:
        return ""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean {near[0]!r}?" if near else ""
