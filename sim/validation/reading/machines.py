"""The hardware and the software that a row means: node, network, stack, number format."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import (
    list_nodes,
    load_device,
    load_node,
    load_scale_out,
    load_stack,
)
from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.text.problems import InputError
from ersatz.sim.validation.reading.rules import Refused, fits, rules
from ersatz.sim.validation.reading.table import Run

PER_NODE = re.compile(r"(?<![\dx])(\d+) ?Gb(?:ps|/s) ?(?:per |/)node", re.I)
GIGABIT = 1e9 / 8  # bytes


@lru_cache(maxsize=256)
def node_of(device: str) -> Node:
    """Return the usual node of a device named as in the table; raises `Refused`."""
    try:
        wanted = load_device(device).name
    except InputError as error:
        raise Refused(f"device {device!r} is not modelled") from error
    known = load_device(device)
    if not known.trains:
        raise Refused(f"{known.title} cannot train: {known.why_not}")
    for name in list_nodes():
        node = load_node(name)
        if node.device.name == wanted:
            return node
    raise Refused(f"no node with {known.title} is modelled")


def _has_layout(run: Run, layouts: Sequence[Mapping[str, Sequence[int]]]) -> bool:
    """Tell whether all cells that one of the layouts names lie between its least and its most."""
    return any(
        all(least <= run.count(cell, 1) <= most for cell, (least, most) in layout.items())
        for layout in layouts
    )


def with_network(node: Node, run: Run, *, oddities: bool) -> Node:
    """Return the node with the network that the row's note names; `oddities`: with its faults."""
    text = f"{run.text('interconnect_note')} | {run.text('framework')}"
    for rule in rules("networks"):
        if "oddity" in rule and not (oddities and _has_layout(run, rule["oddity"])):
            continue
        if re.search(rule["pattern"], text, re.I) and rule.get("device", "") in node.device.name:
            nics = int(rule["nics"]) if "nics" in rule else node.nics
            return replace(node, scale_out=load_scale_out(rule["network"]), nics=nics)
    stated = PER_NODE.search(text)
    if stated is None:
        return node
    card = float(stated[1]) * GIGABIT / node.nics
    return replace(node, scale_out=replace(node.scale_out, nic_bandwidth=card))


def trimmed(node: Node, devices: int) -> Node:
    """Return the node with as many of its devices as fill whole nodes: 64 of a rack of 72."""
    used = max(d for d in range(1, node.devices + 1) if devices % d == 0)
    if used == node.devices:
        return node
    nics = max(node.nics * used // node.devices, 1)
    domain = min(node.scale_up.domain, used) if used < node.scale_up.domain else used
    return replace(node, devices=used, nics=nics, scale_up=replace(node.scale_up, domain=domain))


def stack_of(run: Run) -> Stack:
    """Return the software stack that the row's framework means."""
    return load_stack(next(rule["stack"] for rule in rules("stacks") if fits(rule, run)))


def _usual_precisions(run: Run) -> list[str]:
    """Return the number formats that a source is known for, the preferred one first."""
    return [rule["format"] for rule in rules("precisions") if fits(rule, run)]


def precision_of(run: Run, node: Node) -> str:
    """Return the number format of a row's products; raises `Refused` where the device lacks it."""
    text = run.text("precision").lower()
    wanted = "bf16"
    if re.search(r"fp4", text):
        wanted = "fp4"
    elif re.search(r"fp8", text):
        wanted = "fp8"
    elif re.search(r"fp16|float16", text) and "bf" not in text:
        wanted = "fp16"
    device = node.device
    usual = [] if text else _usual_precisions(run)
    if usual:
        wanted = next((name for name in usual if device.supports(name)), usual[-1])
    if wanted in ("bf16", "fp16") and not device.supports(wanted):
        wanted = "fp16" if wanted == "bf16" else "bf16"
    if not device.supports(wanted):
        raise Refused(f"{device.title} has no {wanted} matrix units")
    return wanted
