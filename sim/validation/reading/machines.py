"""The hardware and the software that a row means: node, stack, number format."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import list_nodes, load_device, load_node, load_stack
from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.text.problems import InputError
from ersatz.sim.validation.reading.rules import Filling, Refused, fits, rules
from ersatz.sim.validation.reading.table import Run

FORMATS = (("fp4", "fp4|nvfp4|mxfp4"), ("fp8", "fp8|float8|e4m3"), ("fp16", "fp16|float16|half"),
           ("bf16", "bf16|bfloat16|bfp16|16-?bit|amp|mixed"))  # fmt: skip

DOUBT = re.compile(
    r"\((see|\?|unnamed|unknown|unreleased|not stated)", re.I
)  # which one is not told


def node_of(fill: Filling) -> Node:
    """Return the usual node of a row's device; raises `Refused`.

    Words that the catalogue does not know around a name that it does are an assumption. Where the
    row states how many devices a node has, a node of that size is preferred.
    """
    name = fill.run.text("device")
    known = _device(name)
    if known is None:
        short = re.sub(r"\s*\([^)]*\)", "", name).strip()
        known = _device(short)
        if known is None or DOUBT.search(name):
            raise Refused(f"device {name!r} is not modelled")
        fill.assumptions.append(f"device {name!r} is taken to be {known}")
    size = fill.run.count("devices_per_node")
    nodes = _nodes(known)
    return next((node for node in nodes if node.devices == size), nodes[0])


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
    return load_stack(rule["stack"])


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
    if re.search(r"\b(fp32|tf32|fp64)\b", text) and not re.search(
        "16|8|4", text.split("32")[0][:-2]
    ):
        raise Refused(f"precision {text!r}: products in 32 bits are not modelled")
    stated = next((name for name, words in FORMATS if re.search(words, text)), "")
    if stated == "fp16" and "bf" in text:
        stated = "bf16"
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
