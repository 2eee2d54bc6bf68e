"""What a fuzzer puts in place of a value: extreme numbers, odd texts, quantities of any dimension."""

from __future__ import annotations

import random
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from ersatz.device_models.text.units import UNITS

NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 7, 100, 0.5, -0.0, 1e-320, 1e-300, 1e-9, 1e9, 1e15, 1e300, 1e308, -1e308,
    2**31, 2**53, 2**63, 2**64, 10**19, 10**400, -(10**30), 10_000_000, True, False, None,
)  # fmt: skip
FOREIGN = "\"'><x-mark onx='1'>"  # a tag that no page of ours has: `judge` looks for it
TEXTS = (
    "", " ", "\t", "\n", "x", "X", "\x1b[31mred", "\x1b]0;title\x07", "\x00", "\x7f", "\x85", "\u009b31m",
    "\u202etxt", "\u2066", "\ufeff", "\u00e9", "e\u0301", "\u0663 days", "\u4e2d\u56fd", "\U0001f600",
    "\u00b2", "\u2028", "a" * 61, "a" * 5000, "9" * 4000 + "x", "../x", "../../x", "a/b", "a\\b", ".", "..",
    "~", "/", "-", "--", "-1", "+1", "0x10", "1_000", "1e5", "1e999", "nan", "inf", "-inf", "none", "None",
    "null", "true", "no", "all", "*", "**", "?", "[", "]", "{}", "{0}", "%s", "%", "$HOME", "$(id)", "`id`",
    "a.b[0]", "a: b", "# x", "'", '"', "&a", "*a", "!!python/object:os.system", "<b>&amp;</b>",
    "[bold]x[/bold]", ":smile:", FOREIGN, "2025-02-30", "0000-00-00", "9999-12-31", "2025-13", "10000-01-01",
    "h800", "h800-8", "ling", "mean", "str", "float", "tuple", "dict", "nodes(8)", "cases", "__class__",
    "/dev/zero", "/dev/null", "/nonexistent/x.yaml", "itself.yaml", "data.yaml", "folder", "pipe",
)  # fmt: skip
# Where an escape from the output folder would land; `judge` looks there.
OUTSIDE = Path(gettempdir()) / "ersatz-fuzz-escape"  # where nothing may ever be written
ESCAPES = ("../ESCAPE", "../../ESCAPE", str(OUTSIDE / "x"), "a/../../ESCAPE")
MAGNITUDES = (
    0.0,
    1.0,
    1e-320,
    1e-30,
    1e-9,
    1e-3,
    0.01,
    2.0,
    3.5,
    10.0,
    100.0,
    1e4,
    1e9,
    1e30,
    1e300,
    1e308,
)


def odd_value(rng: random.Random) -> Any:
    """Return something that hardly anybody expects."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(NUMBERS)
    if kind < 0.75:
        return rng.choice(TEXTS + ESCAPES)
    if kind < 0.9:
        return quantity(rng, rng.choice(list(UNITS)), odd=True)
    return rng.choice(
        ([], {}, [[]], [1], [None], {"": 1}, {"a": {"a": {}}}, ["x"] * 300, nested(rng))
    )


def nested(rng: random.Random) -> Any:
    """Return a list or mapping of up to a thousand levels."""
    value: Any = 1
    for _ in range(rng.choice((3, 30, 200, 480, 700, 1000))):
        value = [value] if rng.random() < 0.5 else {"k": value}
    return value


def quantity(rng: random.Random, dimension: str, *, odd: bool = False) -> str:
    """Return a text with a unit of the dimension; plausible unless `odd`."""
    if dimension not in UNITS:  # a share of something
        return f"{rng.randrange(1, 101)} %"
    unit = rng.choice(list(UNITS[dimension]))
    number = rng.choice(MAGNITUDES) * rng.choice((1, 1, 1, -1)) if odd else _plausible(rng)
    return f"{number:.6g}{rng.choice(('', ' ')) if odd else ' '}{unit}".strip()


def _plausible(rng: random.Random) -> float:
    return float(f"{10 ** rng.uniform(-1, 3):.3g}")
