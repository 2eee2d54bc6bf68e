"""What reading a row needs everywhere: the rules as data, and the record of what was assumed.

`data/validation/reading.yaml` holds the rules: which words of a table mean which stack, network or kind
of data. A blank that is filled leaves a sentence; a row that cannot be read is `Refused`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import parse_yaml
from ersatz.sim.validation.reading.table import Run
from ersatz.sim.validation.reading.words import affirmed, is_unstated, says

LORA = r"(?<![a-z])(?:q|rs|ada|qa|x|dy|long|multi|moe?|s)?[- ]?lora(?![a-z])|peft\b"
WHOLE = re.compile(r"finetuning sft|task=sft", re.I)  # a recipe for both says which in its title

MOST_NOTED = 10**9  # as much as a cell may have
SHORT = {"TP": "tp", "PP": "pp", "CP": "cp", "EP": "ep", "DP": "dp", "VPP": "vpp", "VP": "vpp",
         "MBS": "micro_batch", "GBS": "global_batch_seqs"}  # fmt: skip
_NAME = f"(?:{'|'.join(SHORT)})"
IN_A_ROW = re.compile(
    rf"(?<!\w)({_NAME}(?:\s?[/,x×-]\s?{_NAME})+)\)?\s*[=:]?\s*\(?(\d{{1,7}}(?:\s?[/,x×-]\s?\d{{1,7}})+)",
    re.I,
)

DENIED = re.compile(r"\b(?:no|not|without|instead of)\s+[\w-]+|\bnon-[\w-]+", re.I)

# Keys of a rule that are patterns, and the columns in which they are searched.
CELLS = {"framework": "framework", "source": "source", "vendor": "vendor", "device": "device",
         "model": "model_name", "attention": "attention_kind", "precision": "precision",
         "sharding": "sharding", "recompute": "recompute", "notes": "notes", "ref": "source_ref"}  # fmt: skip


TRANSLATED = ("device", "sharding", "seq_parallel", "recompute", "precision", "attention_kind",
              "interconnect_note", "metric_unit", "mfu_definition_note", "notes")  # fmt: skip


DEGREES = ("tp", "pp", "cp", "ep", "vpp")
DEGREES_IN = ("seq_parallel", "sharding", "framework")  # where a degree may stand beside its cell
# Cells of text that are blank where they say that nothing is known.
BLANKS = (*TRANSLATED[1:], "framework")
# "TP8-PP4", "TP8xPP4", "tp8pp4": each of them apart.
COMPOUND = re.compile(rf"(?<![\w/.])(?:{_NAME}\s?=?\s?\d+[-_x×*/+·]?){{2,}}(?![\w.])", re.I)


class Refused(Exception):
    """A row that is not predicted; the message says why."""


@dataclass(slots=True)
class Filling:
    """Collects what was assumed while a row is read.

    A blank that decides is `open`: it names its other readings, and a row is read once more for each
    of them (`choices` says which reading is asked for), so that an interval can span them.
    """

    run: Run
    choices: Mapping[str, object] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()  # stacks that are taken not to be known
    assumptions: list[str] = field(default_factory=list)
    open: dict[str, tuple[object, ...]] = field(default_factory=dict)

    def assume(self, key: str, value: object, why: str, others: Sequence[object] = ()) -> Any:
        """Note that a blank cell is taken to be `value`; `others` are readings as likely."""
        return self.note(key, value, f"{key} is blank: {{}} ({why})", others)

    def note(self, key: str, value: object, words: str, others: Sequence[object] = ()) -> Any:
        """Note an assumption in words (`{}` is the value taken), with its other readings if it decides."""
        others = tuple(dict.fromkeys(other for other in others if other != value))
        if key in self.choices:
            value = self.choices[key]
        elif others:
            self.open[key] = others
        self.assumptions.append(words.replace("{}", str(value)))
        return value

    def count(self, key: str, default: object, why: str, others: Sequence[object] = ()) -> int:
        """Return a whole number of the row, or the stated default."""
        value = self.run.number(key) or self.noted(key)
        if value and value != int(value):
            raise Refused(f"{key} is {value:g}; expected a whole number")
        return int(value if value else self.assume(key, default, why, others))

    def noted(self, key: str) -> float | None:
        """Return what the notes say of a blank cell, in short (EP=8, TP8) or in words."""
        said, where = said_of(self.run, key)
        if said is None:
            return None
        value, words = said
        self.assumptions.append(f"{key} is blank: {value} ({where} {words})")
        return float(value)


def said_of(run: Run, key: str) -> tuple[tuple[int, str] | None, str]:
    """Return what a row says of a number beside its cell, and who says it: the notes, or another cell."""
    said = stated_in(run.text("notes"), key)
    for column in DEGREES_IN if said is None and key in DEGREES else ():
        if found := stated_in(run.text(column), key):
            return found, f"{column} says"
    return said, "the notes say"


@lru_cache(maxsize=4096)
def stated_in(notes: str, key: str) -> tuple[int, str] | None:
    """Return the number that notes state of a degree or a batch and the words in which they do.

    Degrees may stand in a row: "TP/PP/DP: 8/4/2".
    """
    said_parts = affirmed(notes)
    for rule in rules("noted") if said_parts else ():
        if rule["key"] != key:
            continue
        for part in said_parts:
            if said := re.search(rule["pattern"], part):
                value = int(said[1].replace(",", ""))
                return (value, said[0].strip()) if value <= MOST_NOTED else None
    for row in IN_A_ROW.finditer(notes):
        names, numbers = (re.findall(r"[A-Za-z]+|\d+", part) for part in row.groups())
        found = dict(zip([SHORT[name.upper()] for name in names], numbers, strict=False))
        if len(names) == len(numbers) and key in found:
            return int(found[key]), row[0].strip()
    return None


def in_english(run: Run) -> Run:
    """Return the row with the usual words of other languages put into those that readers know.

    Cells that say that nothing is known are blank.
    """
    texts = dict(run.texts)
    for column in TRANSLATED:
        text = texts.get(column, "")
        if not text.isascii():
            for rule in rules("translated"):
                text = re.sub(rule["pattern"], rule["english"], text)
            texts[column] = text.strip()
    for column in BLANKS:
        if is_unstated(texts.get(column, "")):
            texts.pop(column, None)
        elif column in ("notes", "framework", "sharding", "seq_parallel"):
            texts[column] = COMPOUND.sub(_apart, texts.get(column, ""))
    return replace(run, texts=texts)


def _apart(compound: re.Match[str]) -> str:
    """Return degrees that are written as one word, each apart and in capitals."""
    said = re.findall(rf"({_NAME})\s?=?\s?(\d+)", compound[0], re.I)
    return ", ".join(f"{name.upper()}{number}" for name, number in said)


def rules(kind: str) -> list[dict[str, Any]]:
    """Return the rules of one kind for reading rows (data/validation/reading.yaml)."""
    return _rules()[kind]


@lru_cache(maxsize=1)
def _rules() -> dict[str, list[dict[str, Any]]]:
    source = DATA / "validation" / "reading.yaml"
    found: dict[str, list[dict[str, Any]]] = parse_yaml(source.read_text(), "reading.yaml").data
    return found


def fits(rule: Mapping[str, Any], run: Run) -> bool:
    """Tell whether all patterns of a rule are found in the row's cells, in any case of letters."""
    return all(
        re.search(rule[key], _cell(run, column), re.I)
        for key, column in CELLS.items()
        if key in rule
    )


def _cell(run: Run, column: str) -> str:
    """Return a cell as rules read it: without what it says is not used."""
    text = run.text(column)
    if column == "sharding" and "offload" in text.lower():
        return "; ".join(affirmed(text))
    return DENIED.sub("", text) if column == "framework" else text


def known_of(run: Run, key: str, default: Any) -> Any:
    """Return what is known of a row's model that no column states: the first rule that has `key`."""
    for rule in rules("models"):
        small = (run.number("hidden") or 0) <= rule.get("most_hidden", math.inf)
        if key in rule and small and fits(rule, run):
            return rule[key]
    return default


def is_lora(run: Run) -> bool:
    """Tell whether a row trains small adapters alone."""
    text = f"{run.text('model_name')} {run.text('notes')}"
    return bool(says(LORA, text)) and not WHOLE.search(text)
