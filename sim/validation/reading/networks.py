"""What a note on a cluster's network means: the rate of a node, or that it is not understood.

Notes name several networks side by side (links inside a node, storage, management); those are passed
over by their words (data/validation/reading.yaml, `network_words`). What is left is read as
`COUNT x RATE`, `RATE per device` or `RATE per node`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import load_scale_out
from ersatz.sim.validation.reading.rules import Filling, rules
from ersatz.sim.validation.reading.table import Run

GIGABIT = 1e9 / 8  # bytes
# Bits have a small b (or none: "400G"); a capital one means bytes, of memory mostly.
RATE = re.compile(r"(?:(?<=[x×*])|(?<![\w.]))(\d{2,4})\s?G(?:[Bb]ps|bits?|b[eE]|b)?(?!\w)")
# "8x400Gb/s", "4x ConnectX-7 IB NDR 400 Gb/s": a count of ports before the rate, or behind it.
COUNT = re.compile(r"(?<![\w.])(\d{1,3})\s?[x×*]|[x×*]\s?(\d{1,3})(?!\d|\s?G)")
PER_NODE = re.compile(r"(?:per|/)\s?(?:\d+-?\w* )?(?:node|server|host|machine)", re.I)
PER_DEVICE = re.compile(r"(?:per|/|each)\s?(?:gpu|npu|card|device|accelerator)", re.I)
INSIDE = re.compile(r"^(?:one|single) node", re.I)


def with_network(node: Node, fill: Filling, devices: int, *, oddities: bool) -> Node:
    """Return the node with the network that the row's note names; `oddities`: with its faults.

    A note that is not understood, and a blank one of a run over several nodes, is an assumption.
    """
    run = fill.run
    note = run.text("interconnect_note")
    known = _known(node, run, oddities=oddities)
    if known is not None:
        return known
    rate = node_rate(fill, node.devices)
    usual = f"{node.nics} x {node.scale_out.nic_bandwidth / GIGABIT:.0f} Gb/s a node are taken"
    if rate is None:
        if devices <= node.devices or INSIDE.match(note):
            return node  # nothing of it leaves the node
        words = f"network note {note!r} is not understood" if note else "network is not stated"
        fill.assumptions.append(f"{words}: {usual} (the node's usual network)")
        return node
    count, card = rate
    nics = count if count <= node.devices else node.devices
    card *= count / nics
    return replace(node, nics=nics, scale_out=replace(node.scale_out, nic_bandwidth=card))


def node_rate(fill: Filling, devices: int) -> tuple[int, float] | None:
    """Return how many cards a node has and bytes/s of each, or None where its note does not say.

    A rate per node is spread over as many cards as devices. A rate of nobody knows what is taken per
    card; that it is the node's is left open.
    """
    found: list[tuple[int, float]] = []
    bare = 0.0
    for part in re.split(r"[|;,，]", fill.run.text("interconnect_note")):
        if any(re.search(rule["pattern"], part, re.I) for rule in rules("network_words")):
            continue
        rate = _rate(part)
        counted = COUNT.search(part)
        if not rate:
            continue
        if counted:
            found.append((int(counted[1] or counted[2]), rate))
        elif PER_NODE.search(part):
            found.append((devices, rate / devices))
        elif PER_DEVICE.search(part):
            found.append((devices, rate))
        else:
            bare = max(bare, rate)
    if bare and not found:
        words = f"network of {bare / GIGABIT:.0f} Gb/s: {{}} (the note does not say of what)"
        whole = fill.note("network_rate", "a card", words, ["a node"]) == "a node"
        return devices, bare / devices if whole else bare
    return max(found, key=lambda pair: pair[0] * pair[1], default=None)


def _rate(part: str) -> float:
    """Return the rate of a port in bytes/s that a part of a note states or its standard implies."""
    if stated := RATE.search(part):
        return float(stated[1]) * GIGABIT
    for rule in rules("port_rates"):
        if re.search(rule["pattern"], part):
            return float(rule["gigabits"]) * GIGABIT
    return 0.0


def _known(node: Node, run: Run, *, oddities: bool) -> Node | None:
    """Return the node with a network that the rules know by name."""
    text = f"{run.text('interconnect_note')} | {run.text('framework')}"
    for rule in rules("networks"):
        if "oddity" in rule and not (oddities and _has_layout(run, rule["oddity"])):
            continue
        if re.search(rule["pattern"], text, re.I) and rule.get("device", "") in node.device.name:
            if "network" not in rule:
                return node
            nics = int(rule["nics"]) if "nics" in rule else node.nics
            return replace(node, scale_out=load_scale_out(rule["network"]), nics=nics)
    return None


def _has_layout(run: Run, layouts: Sequence[Mapping[str, Sequence[int]]]) -> bool:
    """Tell whether all cells that one of the layouts names lie between its least and its most."""
    return any(
        all(least <= run.count(cell, 1) <= most for cell, (least, most) in layout.items())
        for layout in layouts
    )
