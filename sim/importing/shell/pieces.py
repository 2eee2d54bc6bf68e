"""Text that remembers the line it came from, and text that cannot be known without running.

A value of a shell variable is a tuple of pieces. A piece that is not known says why; where it can only
be one of a few texts (a branch that cannot be decided), these are its choices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ersatz.device_models.text.problems import InputError, Problem

MOST_LETTERS = 2**20  # of one value: a script that doubles a text is no launch script


class Unknown(NamedTuple):
    """Why a text is not known: an environment variable, a positional parameter, a command, a branch."""

    reason: str
    line: int
    choices: tuple[Value, ...] = ()


class Piece(NamedTuple):
    """A stretch of text from one line; `splits` where a shell splits it into words at blanks."""

    text: str
    line: int
    splits: bool = False
    unknown: Unknown | None = None


Value = tuple[Piece, ...]


def text_of(value: Iterable[Piece]) -> str:
    """Return the text of a value; what is not known is left out."""
    return "".join(piece.text for piece in value)


def shown(value: Iterable[Piece]) -> str:
    """Return the text of a value as a script again: what is not known stands as a command that is not run."""
    return "".join(
        f"$({piece.unknown.reason.translate(_PLAIN)})" if piece.unknown else piece.text
        for piece in value
    )


_PLAIN = str.maketrans("()'\"`\\", "      ")


def unknown_of(value: Iterable[Piece]) -> Unknown | None:
    """Return why a value is not known, or None where all of it is."""
    return next((piece.unknown for piece in value if piece.unknown), None)


def line_of(value: Sequence[Piece], otherwise: int = 0) -> int:
    """Return the line of a value: of its first piece that has text."""
    return next((p.line for p in value if p.text or p.unknown), otherwise)


def whole(value: Iterable[Piece]) -> Value:
    """Return a value that no blank splits."""
    return tuple(piece._replace(splits=False) for piece in value)


def split_words(pieces: Iterable[Piece]) -> Iterator[Value]:
    """Yield the words of an expansion: cut at the blanks of pieces that split."""
    word: list[Piece] = []
    for piece in pieces:
        if not piece.splits or piece.unknown:
            word.append(piece)
            continue
        if piece.text[:1].isspace() and word:
            yield tuple(word)
            word = []
        parts = piece.text.split()
        for i, part in enumerate(parts):
            if i and word:
                yield tuple(word)
                word = []
            word.append(Piece(part, piece.line))
        if parts and piece.text[-1].isspace():
            yield tuple(word)
            word = []
    if word:
        yield tuple(word)


def checked(value: Value, file: str) -> Value:
    """Return the value, or raise `InputError` where it grew beyond what a launch script holds."""
    if sum(len(piece.text) for piece in value) > MOST_LETTERS:
        raise broken(file, line_of(value), f"grows a text beyond {MOST_LETTERS:,} letters")
    return value


def broken(file: str, line: int, expected: str) -> InputError:
    """Return the error of a script that cannot be read at a line."""
    return InputError([Problem(file, line, 1, "", "", expected)])
