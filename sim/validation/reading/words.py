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

# A cell that says that nothing is known of it: as good as blank.
_NOTHING = r"[-–—?.…/\s\"*()\[\]]{0,9}"
UNSTATED = re.compile(
    rf"{_NOTHING}(?:n\W?/?\W?a\W?|k\.\s?a\.|unknown|unspecified|unstated|undisclosed|unclear|unbekannt|tb[cda]|null|nan|xx+"
    r"|(?:it |was |is )?(?:not|never|none|nothing|un)[- ]?(?:stated|given|said|reported|specified"
    r"|disclosed|mentioned"
    r"|known|published|available|provided|documented|clear|recorded|sure|listed|applicable|disclosed)"
    r"|no (?:info\w*|data|details?|mention|statement|value|idea|record|entry|answer)(?: given"
    r"| available| found)?"
    r"|same as (?:above|before)|ditto|idem|see (?:text|paper|notes?|above|below)|未知|不明|未说明|未提及|不详"
    r"|未公开)?" + _NOTHING,
    re.I,
)
# Words that deny what follows them, and those that deny what stands before them.
_FORWARD = re.compile(
    r"\b(?:no|not|non|without|never|neither|nor|excl\w*|except|instead of|rather than|unlike"
    r"|ignor\w*|disregard\w*)\b|w/o\b",
    re.I,
)
_BACKWARD = re.compile(
    r"\b(?:off|false|none|disabled?|unused)\b|n't\b|\bnot? ?$|[:=]\s?(?:no|not|0)\b"
    r"|\b(?:is|are|was|were) not\b|\bnot (?:used|enabled|applied|on|set|active|needed|supported"
    r"|possible|in use)\b",
    re.I,
)


def is_unstated(text: str) -> bool:
    """Tell whether a cell says that nothing is known: "n/a", "not stated", "?", a dash."""
    return UNSTATED.fullmatch(text) is not None


def asserted(text: str) -> list[str]:
    """Return what the parts of a cell affirm: of "zero3 without offload" what stands before the denial."""
    said = []
    for part in parts(text):
        denied = _FORWARD.search(part)
        kept = "" if _BACKWARD.search(part) else part[: denied.start()] if denied else part
        said += [kept.strip()] if kept.strip() else []
    return said


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
