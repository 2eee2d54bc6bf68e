"""What a row's free text says beyond its cells: a step of another kind, or what is not simulated.

Nothing of it is dropped in silence: rules (data/validation/reading.yaml, `notes_refused`, `notes_unread`)
name what refuses a row and what is taken otherwise, in words. A cell that the notes contradict stands, and
that is said.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ersatz.sim.validation.reading.layouts import (
    ACCUMULATION,
    DROPPED,
    EXPERT_TP,
    INTERLEAVED,
    NO_EXPERT_GROUPS,
    PRODUCT,
    SEQUENCE_PARALLEL,
    STRIDED,
    TOKENS,
    ULYSSES,
)  # fmt: skip
from ersatz.sim.validation.reading.rules import IN_A_ROW, Filling, Refused, rules, stated_in
from ersatz.sim.validation.reading.shapes import (
    DENSE_FIRST,
    EVERY,
    HEADS_SAID,
    RANK,
    SHARED_COUNT,
    SHARED_WIDTH,
    TARGETS,
    VOCAB,
)  # fmt: skip
from ersatz.sim.validation.reading.state import ELSEWHERE_SAID, RECOMPUTE_SAID
from ersatz.sim.validation.reading.words import DENIES, parts, says

HEARD = ("notes_heard", "notes_unread", "noted", "schedules", "context_exchange", "packed_words")
# What the readers of layouts and shapes look for in notes.
READERS = (
    ACCUMULATION, TOKENS, PRODUCT, ULYSSES, EXPERT_TP, DROPPED, STRIDED, RANK, TARGETS, DENSE_FIRST, EVERY,
    SHARED_WIDTH, SHARED_COUNT, VOCAB, HEADS_SAID, RECOMPUTE_SAID, ELSEWHERE_SAID, IN_A_ROW,
    *(re.compile(words, re.I) for words in (INTERLEAVED, NO_EXPERT_GROUPS, SEQUENCE_PARALLEL)),
)  # fmt: skip
MOST_SAID, MOST_LETTERS = 3, 60
STATED = ("tp", "pp", "cp", "ep", "vpp", "micro_batch", "global_batch_seqs")
NODES = re.compile(
    r"\b(\d+) nodes? (?:x|×|of|with) (\d+) ?(?:GPU|NPU|device|card|chip|accelerator)", re.I
)


def check_notes(fill: Filling) -> None:
    """Note what the row's texts say that is not simulated; raises `Refused` for another kind of step."""
    notes = fill.run.text("notes")
    also = f"{notes} ; {fill.run.text('metric_unit')}"
    for rule in rules("notes_refused"):
        said = next((p for p in parts(also) if re.search(rule["pattern"], p, re.I)), "")
        if said and not re.search(rule.get("unless", "(?!)"), notes, re.I) and _affirms(rule, said):
            who = "the notes say" if said in notes else "the unit says"
            raise Refused(f"{who} {said!r}: {rule['why']}")
    where = " ; ".join(
        fill.run.text(column)
        for column in ("notes", "sharding", "recompute", "framework", "model_name")
    )
    for rule in rules("notes_unread"):
        found = re.search(rule["pattern"], where, re.I)
        denied = found and not DENIES.search(found[0]) and says(rule["pattern"], where) is False
        if found and not denied:
            fill.assumptions.append(f"the row says {found[0].strip()!r}: {rule['taken']}")
    metric = f"{fill.run.text('mfu_definition_note')} ; {fill.run.text('metric_unit')}"
    for rule in rules("metric_unread"):
        if found := re.search(rule["pattern"], metric, re.I):
            fill.assumptions.append(f"the metric's note says {found[0].strip()!r}: {rule['taken']}")
    _compare(fill)
    _list_unread(fill)


def _list_unread(fill: Filling) -> None:
    """Note the parts of the notes, and of the kind of attention, that no reader knows."""
    kind = fill.run.text("attention_kind")
    if strange := _unread(kind, "attention_heard"):
        words = ", ".join(map(repr, strange))
        fill.assumptions.append(f"of attention {kind!r} nothing is made of {words}")
    if unread := _unread(fill.run.text("notes"), *HEARD):
        more = f" and {len(unread) - MOST_SAID} more" if len(unread) > MOST_SAID else ""
        said = ", ".join(repr(part[:MOST_LETTERS]) for part in unread[:MOST_SAID])
        fill.assumptions.append(f"of the notes nothing is made of {said}{more}")


@lru_cache(maxsize=1024)
def _unread(text: str, *kinds: str) -> tuple[str, ...]:
    """Return the parts of a text that no rule of some kinds knows, nor a reader."""
    known = [re.compile(rule["pattern"], re.I) for kind in kinds for rule in rules(kind)]
    known += READERS if kinds == HEARD else ()
    return tuple(p for p in parts(text) if len(p) > 2 and not any(k.search(p) for k in known))


def _affirms(rule: dict[str, str], part: str) -> bool:
    """Tell whether a part means what a rule looks for: its own words may deny ("no backward")."""
    found = re.search(rule["pattern"], part, re.I)
    return found is not None and not DENIES.search(part[: found.start()])


def _compare(fill: Filling) -> None:
    """Note where the notes state another number than a cell; raises `Refused` for other devices."""
    run = fill.run
    for key in STATED:
        said = stated_in(run.text("notes"), key)
        if said and run.number(key) and said[0] != run.number(key):
            fill.assumptions.append(f"{key} is {run.numbers[key]:g} in its cell, which is taken;"
                                    f" the notes say {said[1]!r}")  # fmt: skip
    nodes = NODES.search(run.text("notes"))
    if nodes and run.count("n_devices") not in (0, int(nodes[1]) * int(nodes[2])):
        raise Refused(f"n_devices is {run.count('n_devices')} where the notes say {nodes[0]!r}")
