"""Numbers as other programs print them: patterns that catch one, and words that are one.

Python takes for digits what `int` refuses (superscripts), and `int` and `float` refuse or overflow what
is thousands of digits long; none of these is a number here.
"""

from __future__ import annotations

import re

WHOLE = r"[0-9]{1,15}(?![0-9])"
DECIMAL = r"[0-9]{1,15}(?:\.[0-9]{1,20})?(?!\.?[0-9]|\.\.)"
_WHOLE = re.compile(r"[0-9]{1,15}")


def whole(text: str) -> int | None:
    """Return the whole number that a word is, else None."""
    return int(text) if _WHOLE.fullmatch(text) else None


def is_whole(text: str) -> bool:
    """Tell whether a word is a whole number."""
    return _WHOLE.fullmatch(text) is not None
