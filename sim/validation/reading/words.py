"""What the words of a cell affirm and what they deny, part by part.

A table's cells are written for people: "bf16 (not fp8)", "non-interleaved", "no optimizer sharding". A
word that is looked for counts where the part that holds it does not deny it.
"""

from __future__ import annotations

import re
from functools import lru_cache

PARTS = re.compile(r"[;|()，；。]|(?<!\d),|,(?!\d{3}(?!\d))|\s\+\s|\bbut\b")
DENIES = re.compile(
    r"\b(no|not|non|without|never|neither|nor|none|false|excl\w*|except|ignor\w*|disregard\w*|disabled?|off|unused)\b"
    r"|w/o\b|n't\b",
    re.I,
)


@lru_cache(maxsize=1024)
def _parts(text: str) -> tuple[tuple[str, bool], ...]:
    """Return the parts of a cell, each with whether it denies something."""
    found = (part.strip() for part in PARTS.split(text) if part.strip())
    return tuple((part, DENIES.search(part) is not None) for part in found)


def parts(text: str) -> list[str]:
    """Return the parts of a cell, cut at commas, semicolons, brackets and the like."""
    return [part for part, _ in _parts(text)]


def affirmed(text: str) -> list[str]:
    """Return the parts of a cell that deny nothing."""
    return [part for part, denies in _parts(text) if not denies]


def says(pattern: str, text: str) -> bool | None:
    """Tell whether a part of a cell says what a pattern looks for; None where no part speaks of it.

    False where all that speak of it deny it.
    """
    speaking = [denies for part, denies in _parts(text) if re.search(pattern, part, re.I)]
    return not all(speaking) if speaking else None
