"""What an export gives: the text to paste, and what the format cannot say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

WIDEST = 98  # columns of a remark


@dataclass(frozen=True, slots=True)
class Exported:
    """A scenario in another format."""

    case: str
    format: str
    text: str
    unsaid: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data: what `ersatz export --json` writes."""
        return {
            "case": self.case,
            "format": self.format,
            "text": self.text,
            "unsaid": list(self.unsaid),
        }


@dataclass(frozen=True, slots=True)
class Option:
    """A flag by key, with its value; None where it stands alone."""

    key: str
    value: str | int | float | None = None

    @property
    def flag(self) -> str:
        """The flag as a command line has it."""
        return f"--{self.key.replace('_', '-')}"


Options = Sequence[Option]


def remarks(unsaid: Iterable[str]) -> list[str]:
    """Return the lines of a text that say what it cannot."""
    return [line for words in unsaid
            for line in wrap(words, WIDEST, initial_indent="# not said: ", subsequent_indent="#   ",
                             break_on_hyphens=False)]  # fmt: skip
