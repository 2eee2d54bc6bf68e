"""How the state of training is shared among ranks, and how much is computed again, in a cell's words."""

from __future__ import annotations

import math
import re

from ersatz.device_models.catalog.stack import Stack, words_of
from ersatz.device_models.text.digits import DECIMAL
from ersatz.sim.validation.reading.rules import Filling, Refused, rules
from ersatz.sim.validation.reading.words import DENIES, affirmed, parts

HARDWARE = re.compile(rf"MFU/HFU=({DECIMAL})/({DECIMAL})")
# The first that is found decides; `LEVEL` names a stage by its number, in any spelling.
LEVEL = re.compile(r"(?:zero|stage)(?:[ _-]*(?:stage|dp|level))?[ _=:-]*([0-3])(?!\d|\.\d)")
SHARDINGS = (
    (r"not resharded|shard_grad_op|reshard\w*\W*(false|never|no\b|0)", 2),
    (r"grad.*param\w*[^,;]* not ", 2),
    (LEVEL, None),
    (r"zero ?\+\+|zero-?infinity|\bos ?\+ ?g ?\+ ?p", 3),
    (r"zero-?offload|\bos ?\+ ?g\b|_\{?os\+g\b", 2),
    (r"dp_shard\w*[ =:]+1\b|shard_?degree[ =:]+1\b", 0),
    (r"dp_shard|data_parallel_shard|shard_?degree", 3),
    (r"\bno[_ -]?(\w+ )?shard|not sharded|unsharded|\bno (zero|fsdp|dist)|\bnone\b|^ddp\b", 0),
    (
        r"without (zero|fsdp|\w* ?shard)|(zero|fsdp|shard\w*|optimi\w+) (off|disabled|not used|unused)",
        0,
    ),
    (r"optimizer[_ ]parallel", 2),  # of MindSpore: gradients are scattered, too
    (r"fsdp|hsdp|full[_ -]shard|fully|hybrid[_ ]shard|\bmics\b", 3),
    (r"optim|dist", 1),
)
# Of one part of a cell that speaks of what is sharded, and not of how it is sent.
SENT = re.compile(r"overlap|reduc|accum|clip|comm|bucket|sync|fus|gather|dtype|fp32|bf16")
KINDS = ((r"grad.{0,80}(param|weight)", 3), (r"optim.{0,80}grad|grad.{0,80}optim", 2))
ELSEWHERE_SAID = re.compile(
    r"zero[ _-]?(?:stage|dp)?[ _=:-]?[0-3]\b|zero ?\+\+|\bfsdp|fully[_ -]?shard|\bhsdp"
    r"|distributed[- _]optimizer",
    re.I,
)
# Over how many ranks state is sharded, where the cell says so; the name of an interface is no number.
GROUP = re.compile(
    r"(?:fsdp|mics,?)[ _=-]*(\d{1,7})|dp_shard\w*[ =:]+(\d{1,7})|group(?: size| of)?[= ]+(\d{1,7})"
    r"|shard\w*(?:[ _](?:size|degree|group|over|of|across))*[ _=:]+(\d{1,7})(?! ?[x×])|(\d{1,7})-way"
)
PAIR = re.compile(r"(\d{1,7}) ?[x×*] ?(\d{1,7})")
INSIDE = re.compile(
    r"in(?:side)? (?:(?:a|an|each|the|one|every) )?(?:node|host|server)|intra-?node|per[- ]node|node-local"
)
RECOMPUTES = (
    (
        r"^(none|false|no|not|off|disabled?|without|never|w/o)\b|^0$|^[-–—]$"
        r"|: ?(none|off|no|false|disabled)$",
        "none",
    ),
    (r"selective|up-proj|norm|per-op|\bop\b|module", "selective"),
    (
        r"^(full|true|other|yes|on|all)\b|\bfull\b|\buniform\b|every layer|(all|each) (layer|block)s?",
        "full",
    ),
)
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
NOT_LAYERS = re.compile(r"mlp|ffn|attention")
# A part of the notes that says how much is computed again, where the cell is blank.
RECOMPUTE_SAID = re.compile(
    r"\b(?:re-?comput(?:e|ation|ing)|(?:activation|gradient)s?[- ]check-?pointing|remat\w*"
    r"|(?:selective|full|no) AC)\b",
    re.I,
)
FULL_RATIO = 1.2  # HFU / MFU: 4/3 with all layers computed again


def zero_of(fill: Filling, stack: Stack) -> int:
    """Return how much of the state is sharded; words that are not understood are an assumption."""
    text = _sharding(fill)
    if text and not fill.run.text("sharding"):
        fill.assumptions.append(f"sharding is blank: {text!r} is said elsewhere in the row")
    for part in affirmed(text) if not LEVEL.search(text) else ():
        for kinds, stage in KINDS:
            if re.search(kinds, part) and not SENT.search(part):
                return stage
    levels = [int(found[1]) for found in LEVEL.finditer(" ; ".join(affirmed(text)))]
    if len(set(levels)) > 1 and " for " in text:  # of experts and of the rest, say
        words = f"sharding {text!r} names several: zero {{}}"
        return int(fill.note("zero", levels[0], words, levels[1:]))
    for pattern, level in SHARDINGS:
        if found := re.search(pattern, text):
            return int(found[1]) if level is None else level
    usual = int(stack.defaults.get("zero", "1"))
    words = f"sharding {text!r} is not understood" if text else "sharding is blank"
    fill.assumptions.append(f"{words}: zero {usual} (the stack's habit)")
    return usual


def _sharding(fill: Filling) -> str:
    """Return what the row says of sharding: its cell, or a part of the framework's or the notes'."""
    run = fill.run
    if text := run.text("sharding"):
        return text.lower()
    said = (part for column in ("framework", "notes") for part in affirmed(run.text(column)))
    return next((part.lower() for part in said if ELSEWHERE_SAID.search(part)), "")


def pipeline_zero(fill: Filling, stack: Stack, zero: int, pp: int) -> int:
    """Return the ZeRO stage under a pipeline, where some frameworks do not reshard weights."""
    usual = stack.defaults.get("pipeline_zero")
    if not usual or zero != 3 or pp == 1:
        return zero
    fill.assumptions.append(f"zero {usual} for 3: {stack.name} does not reshard under a pipeline")
    return int(usual)


def shard_of(fill: Filling, dp: int) -> int:
    """Return over how many ranks state is sharded; 0: over all of dp. Raises `Refused` for no part of it."""
    text = _sharding(fill)
    hybrid = "hsdp" in text or "hybrid" in text
    node = fill.run.count("devices_per_node")
    pair = PAIR.search(text)
    if hybrid and pair and int(pair[1]) * int(pair[2]) == dp:
        words = "hybrid sharding of " + pair[0] + ": over {} (which of the two is not stated)"
        ranks = int(fill.note("shard", int(pair[2]), words, [int(pair[1])]))
    elif copies := re.search(r"dp_replicate\w*[ =:]+(\d+)", text):
        ranks = _shard_of_copies(fill, dp, int(copies[1]), GROUP.search(text))
    elif match := GROUP.search(text):
        ranks = next(int(group) for group in match.groups() if group)
    elif INSIDE.search(text) and node:
        ranks = node
    elif hybrid and node and node < dp:
        words = "hybrid sharding, over how many is not stated: {} (0 is all)"
        ranks = int(fill.note("shard", node, words, [0]))
    else:
        ranks = 0
    if not 2 < ranks < dp:
        return 0
    if dp % ranks:
        raise Refused(f"state sharded over {ranks} ranks does not fit dp {dp}")
    return ranks


def _shard_of_copies(fill: Filling, dp: int, copies: int, group: re.Match[str] | None) -> int:
    """Return the ranks of one copy of the state where the row says how many copies there are."""
    stated = next((int(g) for g in group.groups() if g), 0) if group else 0
    if copies < 1 or dp % copies or (stated > 2 and stated != dp // copies):
        raise Refused(
            f"{copies} copies of state sharded over {stated or '?'} ranks do not make dp {dp}"
        )
    return dp // copies


def recompute_of(fill: Filling, stack: Stack) -> str:
    run = fill.run
    text = run.text("recompute").lower()
    stated = HARDWARE.search(run.text("notes"))
    if stated and float(stated[2]) > FULL_RATIO * float(stated[1]):
        return "full"  # the row's own rates count a third more than the model's products
    text = text or _noted(fill)
    if not text:
        usual = stack.defaults.get("recompute", "none")
        return str(fill.assume("recompute", usual, "the stack's habit", ["none", "full"]))
    kind = next((kind for pattern, kind in RECOMPUTES if re.search(pattern, text)), "")
    if BUT_LAYERS.search(text):
        return "full"
    if kind != "none" and _share(text):
        return "full"  # of some layers
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
    said = [part for part in affirmed(text) if "offload" not in part]
    found = tuple(
        rule["module"]
        for rule in rules("recomputed_modules")
        if any(re.search(rule["pattern"], part) for part in said)
    )
    if not found or set(found) <= set(words_of(stack.selective_recompute)):
        return ()
    fill.assumptions.append(f"recompute {text!r}: {', '.join(found)}, as it names them")
    return found
