"""Which words of a cell no reader knows: cells of few words are read in full, or what is left is said.

The words that readers of a column know stand in data/validation/reading.yaml (`cell_words`); all else in
such a cell is listed, so that a remark in it is never passed over in silence.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ersatz.sim.validation.reading.machines import is_recognised
from ersatz.sim.validation.reading.metrics import MANY_STEPS, PEAK, SOME_STEPS
from ersatz.sim.validation.reading.rules import Filling, rules

COLUMNS = ("recompute", "sharding", "seq_parallel", "precision", "metric_unit", "framework")
WORD = re.compile(r"[^\W\d_][^\W_]*")
NUMBER = re.compile(r"(?<![\w.,])\d[\d.,^]*(?![\w%])|(?<![\w.,])\d[\d.,]*(?=[km]\b| ?x\b)")
FORMAT = re.compile(r"\b(?:bf|fp|mxfp|nvfp)\d+\b")
TURNS = re.compile(r"→|->|\bvs\b|\bthen\b|\bnot\b|\bno\b")
MARKED = re.compile(r"[?†‡§¶]|\w\*+(?=$|[\s,;)])|(?<=[a-z)])[¹²³⁴⁵⁶](?![⁰¹²³⁴⁵⁶⁻])")
DEGREE = re.compile(r"\b(?:[tcspe]p|ulysses|ring)\D{0,12}\d+")
NUMBERED = {
    "metric_unit": (MANY_STEPS, SOME_STEPS, PEAK),
    "seq_parallel": (DEGREE, re.compile(r"^[01]$")),
}
MOST_LETTERS = 60


def check_cells(fill: Filling) -> None:
    """Note the words and numbers of a row's cells that no reader of their column knows."""
    for column in COLUMNS:
        text = fill.run.text(column)
        if column == "framework" and not is_recognised(fill.run):
            continue  # which is said as a whole
        strange = unknown_words(column, text) + left_numbers(column, text)
        strange += tuple(TURNS.findall(text)) if column == "framework" else ()
        if strange:
            words = ", ".join(map(repr, strange))
            fill.assumptions.append(
                f"of {column} {text[:MOST_LETTERS]!r} nothing is made of {words}"
            )
    for column in (*COLUMNS, "mfu_definition_note", "attention_kind", "interconnect_note"):
        text = fill.run.text(column)
        if MARKED.search(text):
            words = f"{column} {text[:MOST_LETTERS]!r} has a mark of doubt or of a footnote"
            fill.assumptions.append(f"{words}: taken as it stands")


@lru_cache(maxsize=1024)
def unknown_words(column: str, text: str) -> tuple[str, ...]:
    """Return the words of a cell that are not known in its column, nor in all of them."""
    known = _known(column)
    words = WORD.findall(text.lower().replace("w/o", "without").replace("w/", "with "))
    return tuple(
        dict.fromkeys(
            word
            for word in words
            if (len(word) > 1 or not word.isascii()) and not known.fullmatch(word)
        )
    )


def left_numbers(column: str, text: str) -> tuple[str, ...]:
    """Return the numbers of a cell that no reader takes: in a unit neither of steps nor a peak, say."""
    rest = text.lower()
    for pattern in NUMBERED.get(column, ()):
        rest = pattern.sub(" ", rest)
    found = NUMBER.findall(rest) if column in NUMBERED else []
    if column == "metric_unit" and "peak" not in rest:
        found += FORMAT.findall(rest)
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=8)
def _known(column: str) -> re.Pattern[str]:
    found = (rule["pattern"] for rule in rules("cell_words") if rule["column"] in (column, "all"))
    return re.compile("|".join(f"(?:{pattern})" for pattern in found), re.I)
