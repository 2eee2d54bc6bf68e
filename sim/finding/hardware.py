"""Devices, parts that only rules know, nodes, networks and software stacks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ersatz.device_models.catalog.device import Device, ScaleOut, ScaleUp
from ersatz.device_models.catalog.export import load_part, own_parts
from ersatz.device_models.catalog.identities import device_tpp
from ersatz.device_models.catalog.reading import (
    aliases,
    list_devices,
    list_fabrics,
    list_nodes,
    list_stacks,
    load_device,
    load_node,
    load_scale_out,
    load_scale_up,
    load_stack,
)
from ersatz.device_models.kernels.kernel import sixteen_bit_peak
from ersatz.device_models.text.problems import InputError
from ersatz.device_models.text.units import format_bytes, format_si
from ersatz.sim.finding.entry import Entry, Shelf, stated, used_sources


def month(released: str) -> str:
    """Shorten a date to its month, or to its year when only that is known."""
    found = re.match(r"\d{4}(-Q\d|-\d\d(?=-|$))?", released)
    return found[0] if found else released[:7]


def device_line(name: str) -> str:
    """Return one line on a device."""
    d = load_device(name)
    untrained = "" if d.trains else "; cannot train"
    return (f"{d.title}: {format_si(sixteen_bit_peak(d), 'FLOP/s')} in 16 bits,"
            f" {format_bytes(d.memory_bytes)}, {month(d.released)}{untrained}")  # fmt: skip


def device_entry(name: str) -> Entry:
    """Return everything that is known of a device; raises `InputError`."""
    device = load_device(name)
    facts = tuple(device.facts.values())
    used = {f.source for f in facts} | {p.source for p in device.prices}
    return Entry(
        "devices", device.name,
        f"{device.title} ({device.name}), {device.vendor}, {device.architecture}, {device.released}",
        facts, "" if device.trains else f"Cannot train: {device.why_not}",
        tuple(_device_notes(device)), {k: t for k, t in device.sources.items() if k in used},
    )  # fmt: skip


def _device_notes(device: Device) -> Iterator[str]:
    yield f"TPP from the data sheet's peaks: {device_tpp(device):,.0f}"
    nodes = [n for n in list_nodes() if load_node(n).device.name == device.name]
    yield f"nodes: {', '.join(nodes) or 'none'}"
    for price in device.prices:
        amount = price.amount * 3600 if price.kind == "rent" else price.amount
        unit = f"{price.currency}/h" if price.kind == "rent" else price.currency
        note = f"; {price.note}" if price.note else ""
        yield (f"{price.kind}: {amount:,.6g} {unit} ({price.region}, {price.date},"
               f" {price.source}, {price.confidence}{note})")  # fmt: skip


def _part_line(name: str) -> str:
    part = load_part(name)
    dated = part.released[:1].isdigit()
    when = month(part.released) if dated else part.released or "release unknown"
    return f"{part.title}: TPP {part.tpp:,.0f}, {when}"


def _part_entry(name: str) -> Entry:
    part = load_part(name)
    facts = tuple(part.facts.values())
    notes = (f"TPP: {part.tpp:,.0f} (by {part.tpp_format or 'no format'})",
             f"ersatz legal {part.name} says what rules make of it; no run can use it")  # fmt: skip
    title = f"{part.title} ({part.name}), {part.vendor}, {part.released or 'release unknown'}"
    return Entry("parts", part.name, title, facts, "", notes, used_sources(facts, part.sources))


def _node_line(name: str) -> str:
    n = load_node(name)
    return f"{n.title}: {n.devices} x {n.device.name}, {n.scale_up.name}, {n.scale_out.name}"


def _node_entry(name: str) -> Entry:
    node = load_node(name)
    facts = tuple(node.facts.values())
    made = (("device", node.device.name), ("scale_up", node.scale_up.name),
            ("scale_out", node.scale_out.name))  # fmt: skip
    parts = tuple(stated(key, value, "file") for key, value in made)
    prices = tuple(f"{p.kind}: {p.amount:,.6g} {p.currency} ({p.region}, {p.date}, {p.source},"
                   f" {p.confidence}{f'; {p.note}' if p.note else ''})"
                   for p in node.prices if p.kind != "rent")  # fmt: skip
    used = {f.source for f in facts} | {p.source for p in node.prices}
    sources = {k: t for k, t in node.sources.items() if k in used}
    return Entry(
        "nodes", node.name, f"{node.title} ({node.name})", (*parts, *facts), "", prices, sources
    )


def _network(name: str) -> ScaleUp | ScaleOut:
    """Load a fabric of either kind; the faults are those of a network between nodes."""
    try:
        return load_scale_out(name)
    except InputError as error:
        try:
            return load_scale_up(name)
        except InputError:
            raise error from None


def _network_line(name: str) -> str:
    n = _network(name)
    rate = n.bandwidth if isinstance(n, ScaleUp) else n.nic_bandwidth
    place = "inside a node" if isinstance(n, ScaleUp) else "between nodes"
    per = "device" if isinstance(n, ScaleUp) else "card"
    return f"{place}, {n.kind}, {format_si(rate, 'B/s')} per {per}: {n.title}"


def _network_entry(name: str) -> Entry:
    network = _network(name)
    facts = (stated("kind", network.kind, "file"), *network.facts.values())
    title = f"{network.title} ({network.name})"
    sources = used_sources(facts, network.sources)
    return Entry("networks", network.name, title, facts, "", (), sources)


def _stack_entry(name: str) -> Entry:
    stack = load_stack(name)
    defaults = tuple(stated(f"defaults.{k}", v, "file") for k, v in stack.defaults.items())
    facts = (*stack.facts.values(), *defaults)
    title = f"{stack.title} ({stack.name})"
    return Entry("stacks", stack.name, title, facts, "", (), used_sources(facts, stack.sources))


HARDWARE = (
    Shelf("devices", "accelerators", list_devices, device_line, device_entry,
          lambda: aliases("devices"), by_path=True),
    Shelf("parts", "devices that only rules know", lambda: sorted(set(own_parts().values())),
          _part_line, _part_entry, own_parts, by_path=True),
    Shelf("nodes", "servers of devices with their links", list_nodes, _node_line, _node_entry,
          lambda: aliases("nodes"), by_path=True),
    Shelf("networks", "links inside and between nodes", list_fabrics, _network_line, _network_entry,
          lambda: aliases("fabrics"), by_path=True),
    Shelf("stacks", "training software", list_stacks, lambda name: load_stack(name).title,
          _stack_entry, lambda: aliases("stacks"), by_path=True),
)  # fmt: skip
