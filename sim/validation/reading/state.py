"""How the state of training is shared among ranks, in a cell's words."""

from __future__ import annotations

import re

from ersatz.device_models.catalog.stack import Stack
from ersatz.sim.validation.reading.rules import Filling, Refused
from ersatz.sim.validation.reading.words import DENIES, affirmed, asserted, parts

# The first that is found decides; `LEVEL` names a stage by its number, in any spelling.
LEVEL = re.compile(r"(?:zero|stage)(?:[ _-]*(?:stage|dp|level))?[ _=:-]*([0-3])(?!\d|\.\d)")
# What denies words that belong to it, searched in the whole cell.
KEPT = (
    (r"not resharded|shard_grad_op|reshard\w*\W*(false|never|no\b|0)", 2),
    (r"grad.*param\w*[^,;]* not ", 2),
)
# Searched in what the cell affirms.
SHARDINGS = (
    (LEVEL, None),
    (r"zero ?\+\+|zero-?infinity|\bos ?\+ ?g ?\+ ?p", 3),
    (r"zero-?offload|\bos ?\+ ?g\b|_\{?os\+g\b", 2),
    (r"dp_shard\w*[ =:]+1\b|shard_?degree[ =:]+1\b", 0),
    (r"dp_shard|data_parallel_shard|shard_?degree", 3),
    (r"\bno[_ -]?(\w+ )?shard|unsharded|^ddp\b", 0),
    (r"optimizer[_ ]parallel", 2),  # of MindSpore: gradients are scattered, too
    (r"fsdp|hsdp|full[_ -]shard|fully|hybrid[_ ]shard|\bmics\b", 3),
    (r"optim|dist", 1),
)
SPOKEN_OF = re.compile(r"zero|fsdp|hsdp|shard|optim|dist|\bddp\b|^\W*(?:none|no|off|false)\W*$")
ALSO = re.compile(
    r"(?:zero|stage)[ _-]*(?:stage)?[ _=:-]*[0-3]((?:\s?(?:/|,|\bor\b|\band\b|-|–|→|->|>|to\b"
    r"|then\b|later\b)\s?[0-3](?!\d|\.\d))+)"
)
ONE_OR_ANOTHER = re.compile(r"(?<![wn])/(?!a\b)|\bor\b|\bvs\b|→|->|\bthen\b|\blater\b|&")
BY_NAME = ((r"\bddp\b|\bdata[- ]parallel\b(?! shard)", 0), (r"fsdp|hsdp|full[_ -]shard", 3))
FLAG = re.compile(r"fsdp ?= ?1\b")  # a switch, or a degree
# Of one part of a cell that speaks of what is sharded, and not of how it is sent.
SENT = re.compile(r"overlap|reduc|accum|clip|comm|bucket|sync|fus|gather|dtype|fp32|bf16")
KINDS = ((r"grad.{0,80}(param|weight)", 3), (r"optim.{0,80}grad|grad.{0,80}optim", 2))
ELSEWHERE_SAID = re.compile(
    r"zero[ _-]?(?:stage|dp)?[ _=:-]?[0-3]\b|zero ?\+\+|\bfsdp|fully[_ -]?shard|\bhsdp"
    r"|distributed[- _]optimizer",
    re.I,
)
UNSHARDED = re.compile(
    r"\b(?:no|without|w/o) (?:zero|fsdp|distributed optimizer|optimizer (?:state )?sharding)$", re.I
)
# Over how many ranks state is sharded, where the cell says so; the name of an interface is no number.
GROUP = re.compile(
    r"(?:fsdp|mics,?)[ _=-]*(\d{1,7})|dp_shard\w*[ =:]+(\d{1,7})|group(?: size| of)?[= ]+(\d{1,7})"
    r"|shard\w*(?:[ _](?:size|degree|group|over|of|across))*[ _=:]+(\d{1,7})(?! ?[x×])|(\d{1,7})-way"
)
PAIR = re.compile(r"(\d{1,7}) ?[x×*] ?(\d{1,7})")
NODES = re.compile(r"(?:over|across|within|in|of|spans?) (\d{1,5}) (?:nodes|hosts|servers)")
INSIDE = re.compile(
    r"in(?:side)? (?:(?:a|an|each|the|one|every) )?(?:node|host|server)|intra-?node|per[- ]node|node-local"
)


def zero_of(fill: Filling, stack: Stack) -> int:
    """Return how much of the state is sharded; words that are not understood are an assumption."""
    text = _sharding(fill)
    if text and not fill.run.text("sharding"):
        fill.assumptions.append(f"sharding is blank: {text!r} is said elsewhere in the row")
    for part in affirmed(text) if not LEVEL.search(text) else ():
        for kinds, stage in KINDS:
            if re.search(kinds, part) and not SENT.search(part):
                return stage
    said = " ; ".join(asserted(text))
    levels = [int(found[1]) for found in LEVEL.finditer(said)]
    levels += [int(n) for found in ALSO.finditer(said) for n in re.findall(r"[0-3]", found[1])]
    if len(set(levels)) > 1:  # of experts and of the rest, or one run and another
        words = f"sharding {text!r} names several: zero {{}}"
        return int(fill.note("zero", levels[0], words, levels[1:]))
    stages = _kinds(said) if ONE_OR_ANOTHER.search(said) else []
    if len(stages) > 1:
        words = f"sharding {text!r} names several: zero {{}}"
        return int(fill.note("zero", stages[0], words, stages[1:]))
    if set(levels) & {0, 1} and re.search(r"fsdp|hsdp|full[_ -]shard|fully", said):
        words = f"sharding {text!r} names several: zero {{}}"
        return int(fill.note("zero", levels[0], words, [3]))
    if kept := next((level for pattern, level in KEPT if re.search(pattern, text)), 0):
        return kept
    if FLAG.search(said):
        words = f"sharding {text!r}: zero {{}} (1 may be a switch or a degree)"
        return int(fill.note("zero", 3, words, [0]))
    for pattern, level in SHARDINGS:
        if found := re.search(pattern, said):
            return int(found[1]) if level is None else level
    if DENIES.search(text) and SPOKEN_OF.search(text):
        return 0
    usual = int(stack.defaults.get("zero", "1"))
    words = f"sharding {text!r} is not understood" if text else "sharding is blank"
    fill.assumptions.append(f"{words}: zero {usual} (the stack's habit)")
    return usual


def _kinds(said: str) -> list[int]:
    """Return the stages that a cell names by any name, in the order of their names in it."""
    found = [(match.start(), int(match[1])) for match in LEVEL.finditer(said)]
    found += [
        (match.start(), level) for pattern, level in BY_NAME for match in re.finditer(pattern, said)
    ]
    return list(dict.fromkeys(level for _, level in sorted(found)))


def _sharding(fill: Filling) -> str:
    """Return what the row says of sharding: its cell, or a part of the framework's or the notes'."""
    run = fill.run
    if text := run.text("sharding"):
        return text.lower()
    said = (part for column in ("framework", "notes") for part in affirmed(run.text(column)))
    found = next((part.lower() for part in said if ELSEWHERE_SAID.search(part)), "")
    return found or next((p.lower() for p in parts(run.text("notes")) if UNSHARDED.search(p)), "")


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
    elif (several := NODES.search(text)) and node:
        ranks = int(several[1]) * node
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
