"""The hardware and the software that a row means: node, stack, number format."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import list_nodes, load_device, load_node, load_stack
from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.text.problems import InputError
from ersatz.sim.scenario.keeping import keeping_assumptions, kept
from ersatz.sim.scenario.schema import MemorySection
from ersatz.sim.validation.reading.rules import Filling, Refused, fits, rules
from ersatz.sim.validation.reading.table import Run
from ersatz.sim.validation.reading.words import affirmed

HOST = 16  # devices at most that stand on one host: larger nodes are racks, whose trays rows count

FORMATS = (("fp4", "fp4|nvfp4|mxfp4"), ("fp8", "fp8|float8|e4m3"), ("fp16", "fp16|float16|half"),
           ("bf16", "bf16|bfloat16|bfp16|16-?bit|amp|mixed"))  # fmt: skip

THIRTY_TWO = re.compile(r"\b(fp32|tf32|fp64|float32|single)\b")
# Parts of a cell that name a format in which something is kept or sent, not multiplied.
ELSEWHERE = re.compile(
    r"gather|comm|master|optim|state|moment|accum|grad|cache|weight|param|storage|reduc|router|logit|loss"
    r"|attention|head|norm|embed|layers?\b|dispatch|combine|all-?to-?all|a2a"
)
SIXTEEN = re.compile(r"(?:^|;)[^;48]*\b(?:bf16|bfloat16|fp16|float16)\b[^;48]*(?:;|$)")  # apart
OTHER_FORMATS = re.compile(
    r"\bint ?[48]\b|w\da\d(?!.*fp8)|\bbfp8\b|\bfp6\b|\bint8\b|ternary|bf16 ?[x×] ?\d|1\.58|\bposit"
)
EXCEPT = re.compile(r"\b(?:except|excluding|other than|all but)\b.*")  # what is kept in another one
EITHER = re.compile(r"(?:fp|bf|float)\w*\s*(?:/|\bor\b)\s*\w*(?:fp|bf|float)\w*")  # "bf16/fp8"
PARTLY = re.compile(
    r"only (?:for|in|the)|\b(?:forward|fwd|fprop|backward|bwd|dgrad|wgrad)\b|\d ?%|\b(?:most|some"
    r"|part|many)\b|emulat\w*|simulat\w*"
    r"|fake\b|\bpartly\b|→|->|\bthen\b|\bafter\b"
)  # of the products, or of the run
DOUBT = re.compile(
    r"\?\s*\)|\((see|\?|unnamed|unknown|unreleased|not stated)", re.I
)  # which one is not told


def node_of(fill: Filling) -> Node:
    """Return the usual node of a row's device; raises `Refused`.

    Words that the catalogue does not know around a name that it does are an assumption. Where the
    row states how many devices a node has, a node of that size is preferred.
    """
    name = fill.run.text("device")
    size = fill.run.count("devices_per_node")
    known = _device(name)
    if known is None:
        known = _meant(name)
        if known is None or DOUBT.search(name):
            raise Refused(f"device {name!r} is not modelled")
        fill.assumptions.append(f"device {name!r} is taken to be {known}")
    for rule in rules("dies"):
        if (known, size) == (rule["device"], rule["devices_per_node"]):
            fill.assumptions.append(f"{size} {known} a node: dies are counted, {rule['die']}")
            known = str(rule["die"])
    nodes = _nodes(known)
    exact = next((node for node in nodes if node.devices == size), None)
    return exact or _sized(fill, nodes[0], size)


def _meant(name: str) -> str | None:
    """Return the device of a name with its count, its maker or a remark around it, or None."""
    bare = re.sub(r"^\d+\s?[x×]\s?|\b[DH]GX\b[- ]?", "", name.strip(), flags=re.I).strip(" -")
    joined = re.sub(r"[()]", " ", bare)
    short = re.sub(r"\s*\([^)]*\)", "", bare).strip()
    for text in (" ".join(joined.split()), short):
        named = (rule["device"] for rule in rules("device_names")
                 if re.fullmatch(rule["pattern"], text, re.I))  # fmt: skip
        if known := _device(text) or next(named, None):
            return known
    return None


def _sized(fill: Filling, node: Node, size: int) -> Node:
    """Return the usual node of a device as a row states its size: one of half as many devices, say."""
    if not size or node.devices > HOST:
        return node
    usual = f"no node of {size} {node.device.title} is modelled"
    if node.devices % size:
        fill.assumptions.append(f"{usual}: nodes of {node.devices} are taken")
        return node
    if size < fill.run.count("n_devices"):
        fill.assumptions.append(
            f"{usual}: part of one of {node.devices} is taken, its links likewise"
        )
    return trimmed(node, size)


@lru_cache(maxsize=256)
def _device(name: str) -> str | None:
    """Return the catalogue's name of a device named as in a table, or None."""
    try:
        return load_device(name).name
    except InputError:
        return None


@lru_cache(maxsize=64)
def _nodes(device: str) -> tuple[Node, ...]:
    """Return all nodes with a device, the usual one first; raises `Refused` when it cannot train."""
    known = load_device(device)
    if not known.trains:
        raise Refused(f"{known.title} cannot train: {known.why_not}")
    found = tuple(n for n in map(load_node, list_nodes()) if n.device.name == device)
    if not found:
        raise Refused(f"no node with {known.title} is modelled")
    return found


def trimmed(node: Node, devices: int) -> Node:
    """Return the node with as many of its devices as fill whole nodes: 64 of a rack of 72."""
    used = max(d for d in range(1, node.devices + 1) if devices % d == 0)
    if used == node.devices:
        return node
    nics = max(node.nics * used // node.devices, 1)
    domain = min(node.scale_up.domain, used) if used < node.scale_up.domain else used
    return replace(node, devices=used, nics=nics, scale_up=replace(node.scale_up, domain=domain))


def stack_of(fill: Filling) -> Stack:
    """Return the software stack that the row's framework means.

    One that no rule recognises is `generic`, plain PyTorch with nothing hidden, and that is said; a
    rule with `guess` says what it went by instead of the framework's name.
    """
    run = fill.run
    rule = next(
        rule for rule in rules("stacks") if rule["stack"] not in fill.unknown and fits(rule, run)
    )
    if "guess" in rule:
        name = run.text("framework")
        words = f"framework {name!r} is not recognised" if name else "framework is not stated"
        fill.assumptions.append(f"{words}: stack {rule['stack']} ({rule['guess']})")
    return _kept(fill, load_stack(rule["stack"]))


def _kept(fill: Filling, stack: Stack) -> Stack:
    """Return the stack as the row says that tensors are kept: optimizer states on the host, say."""
    rule = next((rule for rule in rules("keeping") if fits(rule, fill.run)), None)
    if rule is None:
        return stack
    section = MemorySection(**{key: rule[key] for key in rule if key in MemorySection.model_fields})
    fill.assumptions += keeping_assumptions(section, stack)
    return kept(stack, section)


def is_recognised(run: Run) -> bool:
    """Tell whether a rule knows the row's framework by name."""
    return "guess" not in next(rule for rule in rules("stacks") if fits(rule, run))


def precision_of(fill: Filling, node: Node) -> str:
    """Return the number format of a row's products; raises `Refused` where the device lacks it.

    A blank is 16 bits, with 8 bits left open where the device has them; a format that is not
    understood likewise.
    """
    run, device = fill.run, node.device
    text = run.text("precision").lower()
    sixteen = "bf16" if device.supports("bf16") else "fp16"
    said = affirmed(EXCEPT.sub("", text) or text)
    if not [part for part in said if not ELSEWHERE.search(part)]:
        said = [piece for part in said for piece in re.split(r"\bw/|\bwith\b|\band\b|&", part)]
    products = " ; ".join([part for part in said if not ELSEWHERE.search(part)] or said)
    if other := OTHER_FORMATS.search(products):
        raise Refused(f"precision {text!r}: products in {other[0]} are not modelled")
    named = [name for name, words in FORMATS if re.search(words, products)]
    if not named and THIRTY_TWO.search(products):
        raise Refused(f"precision {text!r}: products in 32 bits are not modelled")
    apart = re.search(r"weight", text) and re.search(r"activation", text)  # in formats of their own
    if apart:
        named = [name for name, words in FORMATS if re.search(words, " ; ".join(said))]
    stated = named[0] if named else ""
    if stated == "fp16" and "bf" in products:
        stated = "bf16"
    some = [part for part in said if re.search(r"\bonly\b", part) and not re.search(r"\d", part)]
    partly = PARTLY.search(products) or some
    if partly and len(named) == 1:
        named = [named[0], sixteen]
    several = apart or partly or EITHER.search(products) or SIXTEEN.search(products)
    if several and stated in ("fp8", "fp4") and len(named) > 1:
        others = [sixteen if f.endswith("16") else f for f in named[1:]]
        stated = fill.note("precision", stated, f"precision {text!r} names several: {{}}", others)
    if stated and THIRTY_TWO.search(products):
        fill.assumptions.append(
            f"precision {text!r} names 32 bits as well: products in {stated} are taken"
        )
    if stated == "bf16" and "bf" not in products:  # "mixed", "amp", "16-bit"
        fill.assumptions.append(f"precision {text!r} does not say which 16 bits: {sixteen}")
    if stated:
        wanted = sixteen if stated in ("bf16", "fp16") and not device.supports(stated) else stated
        if wanted != stated:
            fill.assumptions.append(f"{device.title} has no {stated}: {wanted} is taken")
    else:
        usual = [rule["format"] for rule in rules("precisions") if fits(rule, run)]
        taken = next((f for f in usual if device.supports(f)), usual[-1] if usual else sixteen)
        why = "the submissions' habit" if usual else "the usual format"
        eight = [f for f in (sixteen, "fp8") if device.supports(f)]
        words = f"precision {text!r} is not understood: {{}}" if text else "precision is blank: {}"
        wanted = fill.note("precision", taken, f"{words} ({why})", eight)
    if not device.supports(wanted):
        raise Refused(f"{device.title} has no {wanted} matrix units")
    return wanted
