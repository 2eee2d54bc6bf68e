"""What may be a name: it ends up in file names, command lines and other programs' configuration."""

from __future__ import annotations

import re

LONGEST = 60
LONGEST_STEM = 50  # of a name from which numbered ones are made
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", re.ASCII)
EXPECTED = (
    f"expected a name of letters, digits, '.', '-' and '_', at most {LONGEST} long, that begins"
    " with a letter or digit"
)


def is_name(text: object) -> bool:
    """Tell whether a text may be a name."""
    return isinstance(text, str) and NAME.fullmatch(text) is not None


def checked_name(text: str) -> str:
    """Return a name as it is; raises `ValueError` for a text that may not be one."""
    if not is_name(text):
        raise ValueError(EXPECTED)
    return text


def checked_stem(text: str) -> str:
    """Return a name from which numbered ones are made; raises `ValueError` for one that may not be one."""
    if len(checked_name(text)) > LONGEST_STEM:
        raise ValueError(f"expected at most {LONGEST_STEM} letters: a number is set behind it")
    return text
