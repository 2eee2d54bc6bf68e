"""Which parts of a row's free text no reader knows: they are listed, so that none is passed over in silence.

A part is known where it is one of the phrases that say where a row is from (`notes_heard`), or where
nothing but usual words is left of it without what readers look for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
)
from ersatz.sim.validation.reading.metrics import MODEL_ONLY, PEAK, PEAK_NAMED, RECOMPUTED, SPARSE
from ersatz.sim.validation.reading.networks import (
    BYTES,
    COUNT,
    PER_DEVICE,
    PER_NODE,
    RATE,
    SHARED,
    TERABIT,
)
from ersatz.sim.validation.reading.recomputing import RECOMPUTE_SAID
from ersatz.sim.validation.reading.rules import IN_A_ROW, LORA, Filling, rules
from ersatz.sim.validation.reading.shapes import (
    DENSE_FIRST,
    EVERY,
    HEADS_SAID,
    ON,
    PREDICTS,
    PREDICTS_COUNTED,
    RANK,
    SHARED_COUNT,
    SHARED_WIDTH,
    TARGETS,
    VOCAB,
)
from ersatz.sim.validation.reading.state import ELSEWHERE_SAID, UNSHARDED
from ersatz.sim.validation.reading.words import DENIES, parts

# What readers look for: constants of theirs, and kinds of rules.
READERS = {
    "notes": (
        (ACCUMULATION, TOKENS, PRODUCT, ULYSSES, EXPERT_TP, DROPPED, STRIDED, RANK, TARGETS, ON, DENSE_FIRST,
         EVERY, SHARED_WIDTH, SHARED_COUNT, VOCAB, HEADS_SAID, RECOMPUTE_SAID, ELSEWHERE_SAID, UNSHARDED,
         IN_A_ROW,
         INTERLEAVED, NO_EXPERT_GROUPS, SEQUENCE_PARALLEL, PREDICTS_COUNTED, PREDICTS, LORA),
        ("notes_unread", "noted", "schedules", "context_exchange", "packed_words"),
    ),
    "metric": (
        (PEAK, PEAK_NAMED, SPARSE, RECOMPUTED, MODEL_ONLY),
        ("attention_counted", "metric_unread"),
    ),
    "attention": ((HEADS_SAID,), ("attention_heard",)),
    "network": (
        (SHARED, RATE, BYTES, TERABIT, COUNT, PER_NODE, PER_DEVICE),
        ("networks", "network_words", "network_unread", "port_rates"),
    ),
}  # fmt: skip
ALSO = ("stacks", "keeping", "models", "packed")  # kinds of rules with patterns of notes
WORD = re.compile(r"[^\W\d_]{2,}")
MOST_SAID, MOST_LETTERS = 3, 60


def list_unread(fill: Filling) -> None:
    """Note the parts of a row's notes, kind of attention, network and metric that no reader knows."""
    kind = fill.run.text("attention_kind")
    if strange := unread(kind, "attention"):
        words = ", ".join(map(repr, strange))
        fill.assumptions.append(f"of attention {kind!r} nothing is made of {words}")
    _list(fill, "mfu_definition_note", "metric")
    _list(fill, "notes", "notes")


def list_network(fill: Filling) -> None:
    """Note the parts of a note on the network between nodes that no reader knows."""
    _list(fill, "interconnect_note", "network")


def _list(fill: Filling, column: str, what: str) -> None:
    found = unread(fill.run.text(column), what)
    if found:
        more = f" and {len(found) - MOST_SAID} more" if len(found) > MOST_SAID else ""
        said = ", ".join(repr(part[:MOST_LETTERS]) for part in found[:MOST_SAID])
        name = "the notes" if what == "notes" else f"the {what}'s note"
        fill.assumptions.append(f"of {name} nothing is made of {said}{more}")


@lru_cache(maxsize=2048)
def unread(text: str, what: str) -> tuple[str, ...]:
    """Return the parts of a text that no rule of its kind knows, nor a reader."""
    return tuple(part for part in parts(text) if len(part) > 2 and not _is_known(part, what))


def _is_known(part: str, what: str) -> bool:
    if any(phrase.fullmatch(part) for phrase in _phrases(what)):
        return True
    rest = part
    for pattern in _patterns(what):
        rest = pattern.sub(" ", rest)
    if rest == part or (what == "metric" and re.search(r"(?<![\w.])\d\d|[x×*/] ?\d", rest)):
        return False  # a number is left over
    if what == "network" and re.search(r"\d ?%", part):
        return False  # of a rate
    numbered = what == "notes" and any(re.search(rule["pattern"], part) for rule in rules("noted"))
    if numbered and DENIES.search(rest):
        return False  # a number that is denied is not read
    glue = _glue(what)
    return all(glue.fullmatch(word) for word in WORD.findall(rest))


@lru_cache(maxsize=8)
def _patterns(what: str) -> tuple[re.Pattern[str], ...]:
    constants, kinds = READERS[what]
    return tuple(dict.fromkeys((*map(_compiled, constants), *_of_rules(kinds, what))))


def _compiled(pattern: re.Pattern[str] | str) -> re.Pattern[str]:
    """Return a pattern that also takes the rest of the word in which its match ends."""
    text = pattern if isinstance(pattern, str) else pattern.pattern
    flags = re.I if isinstance(pattern, str) else pattern.flags
    if text.startswith("(?i)"):
        text, flags = text.removeprefix("(?i)"), flags | re.I
    return re.compile(rf"(?:{text})[^\W\d_]*", flags)


def _of_rules(kinds: tuple[str, ...], what: str) -> Iterator[re.Pattern[str]]:
    for rule in (rule for kind in kinds for rule in rules(kind)):
        short = "noted" in kinds and rule in rules("noted")  # in these letters alone
        yield _compiled(re.compile(rule["pattern"]) if short else rule["pattern"])
    for rule in (rule for kind in ALSO if what == "notes" for rule in rules(kind)):
        if "notes" in rule:
            yield _compiled(str(rule["notes"]))


@lru_cache(maxsize=8)
def _phrases(what: str) -> tuple[re.Pattern[str], ...]:
    found = (rule for rule in rules("heard") if rule["in"] == what)
    return tuple(re.compile(rule["pattern"], re.I) for rule in found)


@lru_cache(maxsize=8)
def _glue(what: str) -> re.Pattern[str]:
    found = (rule["pattern"] for rule in rules("glue") if rule["in"] in (what, "all"))
    return re.compile("|".join(f"(?:{pattern})" for pattern in found), re.I)
