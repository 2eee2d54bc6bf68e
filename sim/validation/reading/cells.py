"""Which words of a cell no reader knows: cells of few words are read in full, or what is left is said.

The words that readers of a column know stand in data/validation/reading.yaml (`cell_words`); all else in
such a cell is listed, so that a remark in it is never passed over in silence.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ersatz.sim.validation.reading.metrics import MANY_STEPS, PEAK, SOME_STEPS
from ersatz.sim.validation.reading.rules import Filling, rules

COLUMNS = ("recompute", "sharding", "seq_parallel", "precision", "metric_unit")
WORD = re.compile(r"[^\W\d_][^\W_]*")
NUMBER = re.compile(r"(?<![\w.,])\d[\d.,^]*(?![\w%])|(?<![\w.,])\d[\d.,]*(?=[km]\b| ?x\b)")
MOST_LETTERS = 60


def check_cells(fill: Filling) -> None:
    """Note the words of a row's cells that no reader of their column knows."""
    for column in COLUMNS:
        text = fill.run.text(column)
        strange = unknown_words(column, text)
        if column == "metric_unit":
            strange += left_numbers(text)
        if strange:
            words = ", ".join(map(repr, strange))
            fill.assumptions.append(
                f"of {column} {text[:MOST_LETTERS]!r} nothing is made of {words}"
            )


@lru_cache(maxsize=1024)
def unknown_words(column: str, text: str) -> tuple[str, ...]:
    """Return the words of a cell that are not known in its column, nor in all of them."""
    known = _known(column)
    words = WORD.findall(text.lower().replace("w/o", "without").replace("w/", "with "))
    return tuple(
        dict.fromkeys(word for word in words if len(word) > 1 and not known.fullmatch(word))
    )


def left_numbers(unit: str) -> tuple[str, ...]:
    """Return the numbers of a unit that are neither of steps nor a peak."""
    rest = unit.lower()
    for pattern in (MANY_STEPS, SOME_STEPS, PEAK):
        rest = pattern.sub(" ", rest)
    return tuple(dict.fromkeys(NUMBER.findall(rest)))


@lru_cache(maxsize=8)
def _known(column: str) -> re.Pattern[str]:
    found = (rule["pattern"] for rule in rules("cell_words") if rule["column"] in (column, "all"))
    return re.compile("|".join(f"(?:{pattern})" for pattern in found), re.I)
