"""Small languages of Megatron's flags: lists of numbers, and layouts of a pipeline. Never evaluated."""

from __future__ import annotations

import re

MOST = 20_000  # entries
_LIST = re.compile(r"\[([^\[\]]*)\](?:\s*\*\s*(\d+))?|(?<![\d\]])(\d+)\s*\*\s*\[([^\[\]]*)\]")


class PatternError(ValueError):
    """The text is no pattern that is known."""


def number_list(text: str) -> tuple[int, ...]:
    """Return the numbers of `1,2`, `(1, 2)`, `1 2`, `[0]*3+[1]*58` or `([0]*3 + [1]*58)`."""
    plain = text.replace("\\", "").strip().strip("'\"").strip()
    if "[" not in plain:
        return _numbers(plain.strip("()"))
    plain = _outer(plain)
    found: list[int] = []
    at = 0
    while at < len(plain):
        part = _LIST.match(plain, at)
        if not part:
            raise PatternError(f"expected lists like [0]*3+[1]*58, not {text[:60]!r}")
        inside = part[1] if part[1] is not None else part[4]
        times = int(part[2] or part[3] or 1)
        numbers = _numbers(inside)
        if len(found) + times * len(numbers) > MOST:
            raise PatternError(f"has more than {MOST:,} entries")
        found += numbers * times
        at = part.end()
        joint = re.match(r"\s*\+\s*", plain[at:])
        at += joint.end() if joint else len(plain[at:]) - len(plain[at:].lstrip())
    return tuple(found)


def _outer(text: str) -> str:
    while text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    return text


def _numbers(text: str) -> tuple[int, ...]:
    words = [word for word in re.split(r"[,\s]+", text.strip()) if word]
    if not all(re.fullmatch(r"-?\d{1,9}", word) for word in words):
        raise PatternError(f"expected whole numbers, not {text[:60]!r}")
    return tuple(map(int, words))


def pipeline_layout(text: str) -> list[str]:
    """Return the stages of `Et*3|(tt|)*29,m|L`, each as letters: E embedding, t layer, m MTP, L loss."""
    plain = re.sub(r"[\\'\", ]", "", text)  # scripts that evaluate a text escape its bars
    stages = _repeat(plain).split("|")
    if any(set(stage) - set("EtmL") for stage in stages):
        raise PatternError(f"expected the letters E, t, m, L in a layout, not {text[:60]!r}")
    return stages


def _repeat(text: str) -> str:
    """Write repetitions out: `x*n` and `(..)*n`, innermost first."""
    for _ in range(20):
        grown = re.sub(r"\(([^()]*)\)(?:\*(\d+))?", lambda m: _times(m[1], m[2]), text)
        grown = (
            grown
            if "(" in grown
            else re.sub(r"([EtmL|])\*(\d+)", lambda m: _times(m[1], m[2]), grown)
        )
        if grown == text:
            return text
        text = grown
    raise PatternError("is nested too deeply")


def _times(text: str, count: str | None) -> str:
    times = int(count or 1)
    if len(text) * times > MOST:
        raise PatternError(f"has more than {MOST:,} entries")
    inner = re.sub(r"([EtmL|])\*(\d+)", lambda m: m[1] * min(int(m[2]), MOST), text)
    return inner * times
