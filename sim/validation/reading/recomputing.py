"""How much is computed again in the backward pass, in a cell's words or the notes'."""

from __future__ import annotations

import math
import re

from ersatz.device_models.catalog.stack import Stack, words_of
from ersatz.device_models.text.digits import DECIMAL
from ersatz.sim.validation.reading.rules import Filling, rules
from ersatz.sim.validation.reading.words import DENIES, affirmed, asserted, parts

HARDWARE = re.compile(rf"MFU/HFU=({DECIMAL})/({DECIMAL})")
DENIED = re.compile(
    r"^(none|false|no|not|off|disabled?|without|never|w/o)\b|^0$|: ?(none|off|no|false|disabled)$"
)
# The kinds that a cell names, in the order of their names in it; a bare yes is of whole layers.
NAMED = {
    "none": r"^(?:none|no|off)\b|\b(?:none|off)\b|\bno (?:re-?comp|check|ac\b)",
    "selective": r"selective|up-proj|norm|per-op|\bop\b|module",
    "full": r"\bfull\b|\buniform\b|every layer|(?:all|each) (?:layer|block)s?",
}
# A denial of some layers or cases alone.
RESTRICTED = re.compile(
    r"except|\bbut\b|other than|\bonly\b|\b(?:for|first|last|until|when|if|unless|above|below"
    r"|mostly)\b|[a-z].*\d"
)
YES = re.compile(r"^(full|true|other|yes|on|all)\b")
EITHER = re.compile(r"(?<!w)/|\bor\b|\bvs\b|→|->|\bthen\b")
NO_LAYERS = re.compile(r"num[-_ ]layers\W{0,3}0\b|\b0 layers")
BARE = re.compile(
    r"^(?:(?:gradient|activation)s?[ -])?(?:check-?point|re-?comput)\w*(?:[ :=]*(?:on|enabled|yes|true))?$"
)
# "full" of a few layers, or of something in them.
SHARE = re.compile(r"(?:^|[ =:])(?:(\d+(?:\.\d+)?) ?%|(0?\.\d+|1\.0+)(?![\d%]))")
BUT_LAYERS = re.compile(r"(?:all but|except|excluding)\D{0,20}(\d{1,6})(?: layers?)?")
EVERY = re.compile(
    r"every (?:(other|second|alternate)|(\d{1,6})(?:st|nd|rd|th)?) ?(?:layers?|blocks?)?\b"
)
SOME_LAYERS = re.compile(
    r"(\d{1,6})\s*(?:of|/|out of)\s*(?:the )?\d{1,6}\s*layers?|(?:first|last|only |method=block)\D*(\d{1,6})"
)
PARTLY = re.compile(
    r"\W\d+ layers?$|only|partial|every (?!layer)|some|first|last|half|mlp|ffn|attention|method=block"
)
NOT_LAYERS = re.compile(
    r"mlp|ffn|attention|\battn|swiglu|gelu|silu|\bmoe\b|expert|permut|router|embedding|softmax"
)
# A part of the notes that says how much is computed again, where the cell is blank.
RECOMPUTE_SAID = re.compile(
    r"\b(?:re-?comput(?:e|ation|ing)|(?:activation|gradient)s?[- _]check-?pointing|remat\w*"
    r"|(?:selective|full|no) AC)\b",
    re.I,
)
FULL_RATIO = 1.2  # HFU / MFU: 4/3 with all layers computed again


def recompute_of(fill: Filling, stack: Stack) -> str:
    """Return how much is computed again; what is not clear is left open."""
    run = fill.run
    text = run.text("recompute").lower()
    stated = HARDWARE.search(run.text("notes"))
    if stated and float(stated[2]) > FULL_RATIO * float(stated[1]):
        return "full"  # the row's own rates count a third more than the model's products
    text = text or _noted(fill)
    if not text:
        usual = stack.defaults.get("recompute", "none")
        return str(fill.assume("recompute", usual, "the stack's habit", ["none", "full"]))
    if NO_LAYERS.search(text):
        fill.assumptions.append(f"recompute {text!r}: of no layer")
        return "none"
    if several := _several(text):
        words = f"recompute {text!r} names several: {{}}"
        return str(fill.note("recompute", several[0], words, several[1:]))
    said = " ; ".join(asserted(text))
    kind = next((name for name in ("selective", "full") if re.search(NAMED[name], said)), "")
    kind = kind or ("full" if YES.search(said) else "")
    if BUT_LAYERS.search(text):
        return "full"
    if not kind and DENIED.search(text):
        if RESTRICTED.search(text):
            words = f"recompute {text!r}: {{}} (with an exception)"
            return str(fill.note("recompute", "none", words, ["selective", "full"]))
        one = next((name for name in ("selective", "full") if re.search(NAMED[name], text)), "")
        if not one:
            return "none"
        other = "full" if one == "selective" else "selective"
        words = f"recompute {text!r} denies one kind alone: {{}}"
        return str(fill.note("recompute", "none", words, [other]))
    if kind and _share(text):
        return "full"  # of some layers
    if not kind and _share(text) and not DENIED.search(text):
        return "full"
    if kind == "selective" and EVERY.search(text):  # torchtitan's: whole layers, every so many
        words = f"recompute {text!r}: {{}} (of every so many layers)"
        return str(fill.note("recompute", "full", words, ["selective"]))
    if not kind and BARE.search(text):
        words = f"recompute {text!r} does not say of how much: {{}}"
        return str(fill.note("recompute", "full", words, ["selective"]))
    if kind == "full" and NOT_LAYERS.search(text):
        return str(fill.note("recompute", "selective", f"recompute {text!r}: {{}}", ["full"]))
    if kind == "full" and PARTLY.search(text) and not _layers_said(text):
        return str(
            fill.note(
                "recompute", "full", f"recompute {text!r}, of how many is not clear: {{}}", ["none"]
            )
        )
    if kind:
        return kind
    words = f"recompute {text!r} is not understood: {{}}"
    return str(fill.note("recompute", "selective", words, ["none", "full"]))


def _several(text: str) -> list[str]:
    """Return the kinds that a cell names side by side, as one or another or of different layers."""
    said = " ; ".join(asserted(text))
    searched = text if EITHER.search(text) or BUT_LAYERS.search(text) else said
    places = {kind: re.search(pattern, searched) for kind, pattern in NAMED.items()}
    found = sorted((place.start(), kind) for kind, place in places.items() if place)
    if "selective" not in text and not EITHER.search(text):
        return []  # the name of a module is none of a kind beside "full"
    return [kind for _, kind in found] if len(found) > 1 else []


def _noted(fill: Filling) -> str:
    """Return what the notes say of recomputation, as a cell would; empty where they do not."""
    said = (p for p in parts(fill.run.text("notes")) if RECOMPUTE_SAID.search(p))
    part = next(said, "").lower()
    if DENIES.search(part):
        return "none"
    bare = part and not re.search(r"full|selective|layer|\d|true|false|recipe|config", part)
    return "recompute" if bare else part


def _layers_said(text: str) -> re.Match[str] | None:
    return BUT_LAYERS.search(text) or SOME_LAYERS.search(text) or EVERY.search(text)


def _share(text: str) -> float:
    """Return the share of layers that a cell states: 0.5 of "50 %"; 0: none."""
    said = SHARE.search(text)
    if said is None or "budget" in text:
        return 0.0
    share = float(said[1]) / 100 if said[1] else float(said[2])
    return share if share <= 1 else 0.0


def recompute_layers(fill: Filling, layers: int, chunks: int) -> int:
    """Return how many layers of a chunk are computed again where the row says so; 0: all."""
    text = fill.run.text("recompute").lower()
    per_chunk = layers // chunks
    if share := _share(text):
        fill.assumptions.append(f"recompute {text!r}: of that share of the layers, each whole")
        count = round(share * per_chunk)
    elif every := EVERY.search(text):
        count = per_chunk // (int(every[2]) if every[2] else 2)
    elif said := BUT_LAYERS.search(text):
        count = per_chunk - math.ceil(int(said[1]) / chunks)
    elif said := SOME_LAYERS.search(text):
        count = int(said[2]) if said[2] else math.ceil(int(said[1]) / chunks)
    else:
        return 0
    return max(count, 1) if count < per_chunk else 0


def modules_of(fill: Filling, stack: Stack) -> tuple[str, ...]:
    """Return the modules that a selective recomputation names; empty: the stack's list.

    The stack's list is also taken where it has all that are named: a row may name some of them.
    """
    text = fill.run.text("recompute").lower()
    said = [part.replace("_", " ") for part in affirmed(text) if "offload" not in part]
    found = tuple(
        rule["module"]
        for rule in rules("recomputed_modules")
        if any(re.search(rule["pattern"], part) for part in said)
    )
    if re.search(r"all but|except|excluding|other than", text):
        fill.assumptions.append(f"recompute {text!r}: which modules are left out is not read")
        return ()
    if not found or set(found) <= set(words_of(stack.selective_recompute)):
        return ()
    fill.assumptions.append(f"recompute {text!r}: {', '.join(found)}, as it names them")
    return found
