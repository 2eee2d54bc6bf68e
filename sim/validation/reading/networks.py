"""What a note on a cluster's network means: the rate of a node, or that it is not understood.

Notes name several networks side by side (links inside a node, storage, management); those are passed
over by their words (data/validation/reading.yaml, `network_words`). What is left is read as
`COUNT x RATE`, `RATE per device` or `RATE per node`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import load_scale_out
from ersatz.sim.validation.reading.rules import Filling, rules
from ersatz.sim.validation.reading.table import Run

GIGABIT = 1e9 / 8  # bytes
# Bits have a small b (or none: "400G"); a capital one means bytes, of memory mostly.
RATE = re.compile(r"(?:(?<=[x×*X])|(?<![\w.]))(\d{2,4})\s?G(?:[Bb]ps|bits?|b[eE]|b)?(?!\w)")
BYTES = re.compile(r"(?<![\w.])(\d{1,4}(?:\.\d+)?)\s?GB/s")
TERABIT = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s?T(?:bps|bit|b/s)")
# "8x400Gb/s", "4x ConnectX-7 NDR 400 Gb/s", "four 100G NICs": a count of ports before the rate, or behind it.
COUNT = re.compile(
    r"(?<![\w.])(?P<before>\d{1,3})\s?[x×*]|(?<![A-Za-z])[x×*]\s?(?P<behind>\d{1,3})(?!\d|\s?G)"
    r"|(?<![\w.-])(?<!x )(?<!field )(?P<cards>\d{1,3}|one|single|two|dual|four|quad|eight)\s+"
    r"(?:[\w/-]+\s+){0,4}?(?:NIC|HCA|card|port|adapter|rail|uplink)s?\b"
    r"|\b(?P<word>one|single|two|dual|four|quad|eight)\s+\d{2,4}\s?G",
    re.I,
)
# Devices that have one card between them: "a NIC per 2 GPUs", "4 GPUs share one NIC".
_FEW, _DEVICES = (
    r"(\d{1,2}|two|four|eight)",
    r"(?:GPU|NPU|card|device|accelerator|GCD|die|chip)s?\b",
)
SHARED = re.compile(
    rf"(?:per|for(?: every| each)?|shared (?:by|among|between)|every|/) ?{_FEW}[ -]{_DEVICES}"
    r"|(?:per|/) ?(?:GPU|NPU|device|card)[ -](?P<pair>pair)\b"
    rf"|{_FEW} {_DEVICES} (?:share|per|on) (?:one|an?|each|the same|1)\b",
    re.I,
)
FASTEST = 800 * GIGABIT  # of one card
WORDS = {"pair": 2, "one": 1, "single": 1, "two": 2, "dual": 2, "four": 4, "quad": 4, "eight": 8}
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
    host = min(run.count("devices_per_node") or node.devices, node.devices)
    rate = node_rate(fill, host)
    if known is not None:
        if rate is None or rate[0] * rate[1] == known.nics * known.scale_out.nic_bandwidth:
            return known
        node = known  # its latencies, at the rate that the note states
    elif devices > node.devices:
        _say_unread(fill)
    usual = f"{node.nics} x {node.scale_out.nic_bandwidth / GIGABIT:.0f} Gb/s a node are taken"
    if rate is None:
        if devices <= node.devices or INSIDE.match(note):
            return node  # nothing of it leaves the node
        words = f"network note {note!r} is not understood" if note else "network is not stated"
        fill.assumptions.append(f"{words}: {usual} (the node's usual network)")
        return node
    count, card = rate
    cards = count * node.devices // host  # of a rack whose trays the row calls nodes: all of theirs
    nics = min(cards, node.devices)
    card *= cards / nics
    return replace(node, nics=nics, scale_out=replace(node.scale_out, nic_bandwidth=card))


def node_rate(fill: Filling, devices: int) -> tuple[int, float] | None:
    """Return how many cards a node has and bytes/s of each, or None where its note does not say.

    A rate per node is spread over as many cards as devices. A rate of nobody knows what is taken per
    card; that it is the node's is left open.
    """
    found: list[tuple[int, float]] = []
    bare = 0.0
    for part in _network_parts(fill.run.text("interconnect_note")):
        counted = COUNT.search(part)
        rate = _rate(part, counted)
        if not rate:
            continue
        few = SHARED.search(part)
        among = _cards(few) if few else devices
        if among < devices:
            own = (
                COUNT.search(part[: few.start()]) or COUNT.search(part[few.end() :])
                if few
                else None
            )
            each = _cards(own) if own else 1
            found.append((devices // among * each, rate))
        elif counted:
            cards = _cards(counted)
            each = cards < devices and PER_DEVICE.search(part) is not None
            found.append((cards * devices if each else cards, rate))
        elif PER_NODE.search(part):
            found.append((devices, rate / devices))
        elif PER_DEVICE.search(part):
            found.append((devices, rate))
        else:
            bare = max(bare, rate)
    if bare > FASTEST and not found:
        fill.assumptions.append(
            f"network of {bare / GIGABIT:.0f} Gb/s: a node's, as no card has it"
        )
        return devices, bare / devices
    if bare and not found:
        words = f"network of {bare / GIGABIT:.0f} Gb/s: {{}} (the note does not say of what)"
        whole = fill.note("network_rate", "a card", words, ["a node"]) == "a node"
        return devices, bare / devices if whole else bare
    return max(found, key=lambda pair: pair[0] * pair[1], default=None)


def _network_parts(note: str) -> Iterator[str]:
    """Yield the parts of a note that speak of the network between nodes.

    "8x NVLink, 900 GB/s" is one network: bytes after a comma are those of what stands before it.
    """
    for whole in re.split(r"[|;；]", note):
        other = False
        for part in re.split(r"[,，]", whole):
            named = any(re.search(rule["pattern"], part, re.I) for rule in rules("network_words"))
            other = named or (other and BYTES.search(part) is not None)
            if not other:
                yield part


def _cards(counted: re.Match[str]) -> int:
    word = next(found for found in counted.groups() if found).lower()
    return WORDS[word] if word in WORDS else max(int(word), 1)


def _say_unread(fill: Filling) -> None:
    """Note what a note says of its network beyond cards and rates, which is not simulated."""
    note = fill.run.text("interconnect_note")
    for rule in rules("network_unread"):
        if found := re.search(rule["pattern"], note, re.I):
            fill.assumptions.append(f"network note says {found[0]!r}: {rule['taken']}")


def _rate(part: str, counted: re.Match[str] | None) -> float:
    """Return the rate of a port in bytes/s that a part of a note states or its standard implies.

    Of several rates it is the one that its count stands before: 100 of "200 Gb/s (2x100G)".
    """
    after = counted and RATE.search(part, counted.start())
    if stated := after or RATE.search(part):
        return float(stated[1]) * GIGABIT
    if stated := BYTES.search(part):
        return float(stated[1]) * 8 * GIGABIT
    if stated := TERABIT.search(part):
        return float(stated[1]) * 1000 * GIGABIT
    for rule in rules("port_rates"):
        if named := re.search(rule["pattern"], part):
            return float(named[1] or rule["gigabits"]) * GIGABIT
    return 0.0


def _known(node: Node, run: Run, *, oddities: bool) -> Node | None:
    """Return the node with a network that the rules know by name."""
    text = f"{run.text('interconnect_note')} | {run.text('framework')}"
    for rule in rules("networks"):
        if "oddity" in rule and not (oddities and _has_layout(run, rule["oddity"])):
            continue
        if re.search(rule["pattern"], text, re.I) and re.search(
            rule.get("device", ""), node.device.name
        ):
            if "network" not in rule:
                return node
            nics = int(rule["nics"]) if "nics" in rule else node.nics
            return replace(node, scale_out=load_scale_out(rule["network"]), nics=nics)
    return None


def shows_oddity(run: Run) -> bool:
    """Tell whether a row's layout is one of those that mostly showed a known fault of their cluster."""
    text = f"{run.text('interconnect_note')} | {run.text('framework')}"
    return any(re.search(rule["pattern"], text, re.I) and _has_layout(run, rule["oddity"])
               for rule in rules("networks") if "oddity" in rule)  # fmt: skip


def _has_layout(run: Run, layouts: Sequence[Mapping[str, Sequence[int]]]) -> bool:
    """Tell whether all cells that one of the layouts names lie between its least and its most."""
    return any(
        all(least <= run.count(cell, 1) <= most for cell, (least, most) in layout.items())
        for layout in layouts
    )
