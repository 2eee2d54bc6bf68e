"""What reading a row needs everywhere: the rules as data, and the record of what was assumed.

`data/validation/reading.yaml` holds the rules: which words of a table mean which stack, network or kind
of data. A blank that is filled leaves a sentence; a row that cannot be read is `Refused`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import parse_yaml
from ersatz.sim.validation.reading.table import Run

LORA = re.compile(r"(?<![a-z])lora(?![a-z])|peft", re.I)
WHOLE = re.compile(r"finetuning sft|task=sft", re.I)  # a recipe for both says which in its title

# Keys of a rule that are patterns, and the columns in which they are searched.
CELLS = {"framework": "framework", "source": "source", "vendor": "vendor", "device": "device",
         "model": "model_name", "attention": "attention_kind", "precision": "precision",
         "sharding": "sharding", "recompute": "recompute", "notes": "notes", "ref": "source_ref"}  # fmt: skip


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
        self.assumptions.append(words.format(value))
        return value

    def count(self, key: str, default: object, why: str, others: Sequence[object] = ()) -> int:
        """Return a whole number of the row, or the stated default."""
        value = self.run.number(key)
        if value and value != int(value):
            raise Refused(f"{key} is {value:g}; expected a whole number")
        return int(value if value else self.assume(key, default, why, others))


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
        re.search(rule[key], run.text(column), re.I) for key, column in CELLS.items() if key in rule
    )


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
    return bool(LORA.search(text)) and not WHOLE.search(text)
