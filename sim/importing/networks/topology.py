"""Described machines: `nvidia-smi topo -m`, NCCL's topology in XML, InfraGraph."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from xml.parsers import expat

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.text.digits import is_whole
from ersatz.device_models.text.problems import InputError, Problem
from ersatz.device_models.text.yamltext import YamlText
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.logs.lines import plain_lines
from ersatz.sim.importing.networks.found import Answers, leaf, machine, made, own_name
from ersatz.sim.importing.record import Imported

TOPO_MARK = re.compile(r"^\s*GPU0\s+GPU1\b|^\s*GPU0\s.*CPU Affinity", re.M)
INFRAGRAPH_MARK = re.compile(
    r"^(?:devices|components):(?s:.*)^\s*(?:- |\[)?\{?\s*(?:type: xpu|name: xpu)", re.M
)
XML_MARK = re.compile(r"<system\b[^>]*\bversion=")
GENERATIONS = {"80": "Ampere", "90": "Hopper", "100": "Blackwell", "103": "Blackwell"}
DEVICES = {"0x2330": "h100", "0x2335": "h200", "0x20b": "a100"}  # PCI ids, as observed
MOST_DEPTH = 50
MOST_PARTS = 1_000_000  # of one kind that a file may count
MOST_RATE = 1e6  # of a link, in any unit that is read


def read_topo(text: str, file: str, answers: Answers) -> Imported:
    """Return the machine that `nvidia-smi topo -m` shows: devices, cards, links between devices."""
    draft = Draft(file, "nvidia-topo")
    names: list[str] = []
    rows: dict[str, dict[str, str]] = {}
    for _, line in plain_lines(text):
        words = line.split()
        if words[:1] == ["GPU0"] and not names and "X" not in words:
            names = [w for w in words if re.fullmatch(r"(?:GPU|NIC|mlx5_|bond_?)\w*\d+", w)]
        elif names and words and words[0] in names and len(words) > len(names):
            rows[words[0]] = dict(zip(names, words[1 : len(names) + 1], strict=True))
    devices = [n for n in names if n.startswith("GPU")]
    cards = [n for n in names if not n.startswith("GPU")]
    links = {rows[a][b] for a in devices for b in devices if a != b and a in rows}
    draft.devices = draft.devices_per_node = len(devices) or None
    if not devices or len(rows) < len(devices):
        draft.contradict("the matrix is not whole: every device needs a row")
        return made(draft, [])
    counts = {int(w[2:]) for w in links if re.fullmatch(r"NV\d+", w)}
    node = machine(draft, answers, "", len(devices))
    alike = len(links) == 1 and len(counts) == 1
    if not alike:
        draft.assume("links", ", ".join(sorted(links)), "devices are not joined alike: the catalogue's links"
                     " are kept (NV links, PIX, PXB, PHB one host, SYS between sockets)")  # fmt: skip
    if node is None:
        return made(draft, [])
    return made(draft, _node_file(draft, node, len(devices), len(cards) or node.nics,
                                  counts.pop() if alike else None))  # fmt: skip


def _node_file(
    draft: Draft, node: Node, devices: int, cards: int, links: int | None, card_rate: float = 0.0
) -> list[str]:
    """Return a node file, after holding links and devices against the machine that it is based on."""
    if links and links != node.scale_up.links:
        draft.contradict(f"{links} links between devices; {node.name} has {node.scale_up.links}: another"
                         " machine")  # fmt: skip
        return []
    if devices != node.devices:
        draft.contradict(f"{devices} devices; {node.name} has {node.devices}: another machine")
        return []
    if card_rate and abs(card_rate / node.scale_out.nic_bandwidth - 1) > 0.1:
        out = node.scale_out
        draft.assume("nic_bandwidth", f"{card_rate * 8 / 1e9:.0f} Gbit/s", f"as the file says; {out.name}"
                     f" has {out.nic_bandwidth * 8 / 1e9:.0f}: name another network")  # fmt: skip
    name = own_name(draft.file)
    source = f'  MEASURED: "{draft.format} of {name}"'
    lines = [f"name: {name}", f'title: "{node.title}, as described"', f"based_on: {node.name}", "sources:",
             source, leaf("devices", devices, "counted", confidence="high")]  # fmt: skip
    if cards:
        lines.append(leaf("nics", cards, "counted", confidence="high"))
    return lines


def read_xml(text: str, file: str, answers: Answers) -> Imported:
    """Return the machine that NCCL's topology file describes; entities are refused, not opened."""
    draft = Draft(file, "nccl-xml")
    found = list(_elements(text, file))
    devices = [a for name, a in found if name == "gpu"]
    links = Counter(a.get("_gpu", "") for name, a in found if name == "nvlink"
                    for _ in range(_count(a)))  # fmt: skip
    rates = [
        float(a["speed"]) * 1e6 / 8
        for name, a in found
        if name == "net" and _number(a.get("speed"))
    ]
    generation = GENERATIONS.get(next((a.get("sm", "") for a in devices), ""), "")
    ids = {a.get("_device", "") for a in devices}
    hint = next(
        (title for code, title in DEVICES.items() if any(i.startswith(code) for i in ids)), ""
    )
    draft.devices = draft.devices_per_node = len(devices) or None
    draft.device_hint = hint or generation
    if not devices:
        draft.contradict("the file describes no device (gpu)")
        return made(draft, [])
    node = machine(draft, answers, hint, len(devices))
    if node is None:
        return made(draft, [])
    counts = set(links.values())
    same = counts.pop() if len(counts) == 1 and len(links) == len(devices) else None
    return made(
        draft, _node_file(draft, node, len(devices), len(rates), same, max(rates, default=0.0))
    )


def _number(text: str | None) -> bool:
    return bool(text and re.fullmatch(r"\d{1,9}(\.\d+)?", text))


def _count(attributes: Mapping[str, str]) -> int:
    text = attributes.get("count", "1")
    return int(text) if is_whole(text) and len(text) < 4 else 1


def _elements(text: str, file: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield name and attributes of every element; a link knows the device that it is of.

    Raises `InputError` for XML that is broken, nested too deeply, or declares entities.
    """
    found: list[tuple[str, dict[str, str]]] = []
    above: list[tuple[str, dict[str, str]]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(above) > MOST_DEPTH:
            raise _broken(file, parser, "is nested too deeply")
        device = next((a for n, a in reversed(above) if n == "gpu"), {})
        card = next((a for n, a in reversed(above) if n == "pci"), {})
        more = {"_gpu": device.get("dev", ""), "_device": card.get("device", "")}
        above.append((name, attributes))
        found.append((name, {**attributes, **more}))

    def refuse(*_: Any) -> None:
        raise _broken(file, parser, "declares a document type or an entity, which are never opened")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: above.pop()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        words = f"is no valid XML: {expat.errors.messages.get(error.code, 'broken')}"
        raise InputError([Problem(file, error.lineno, error.offset + 1, "", "", words)]) from error
    yield from found


def _broken(file: str, parser: Any, words: str) -> InputError:
    return InputError([Problem(file, parser.CurrentLineNumber, 1, "", "", words)])


def read_infragraph(text: YamlText, answers: Answers) -> Imported:
    """Return the machine of an InfraGraph file: what one device of it holds, and how many there are."""
    draft = Draft(text.file, "infragraph-yaml")
    data = text.data
    host = next((d for d in _entries(data, "devices") or [data] if _held(draft, d, "xpu")), None)
    if host is None:
        draft.contradict("no device holds components of type xpu")
        return made(draft, [])
    each, cards = _held(draft, host, "xpu"), _held(draft, host, "nic")
    named = [i for i in _entries(data, "instances") if i.get("device") == host.get("name")]
    hosts = sum(_counted(draft, i) for i in named)
    draft.devices_per_node, draft.devices = each, each * hosts if hosts else None
    rates = [rate for link in _entries(data, "links") if (rate := _rate(link))]
    if not rates:
        draft.ask(
            "nic_bandwidth", "no link says its bandwidth: name a network with cluster.network"
        )
    node = machine(draft, answers, "", each)
    if node is None:
        return made(draft, [])
    lines = _node_file(draft, node, each, cards, None, max(rates, default=0.0))
    if hosts and lines:
        lines.append(f"# {hosts} of them: cluster: {{node: ./THIS.yaml, nodes: {hosts}}}")
    return made(draft, lines)


def _entries(data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the entries of a list that have keys; whatever else stands there says nothing of links."""
    found = data.get(key)
    return [e for e in found if isinstance(e, dict)] if isinstance(found, list) else []


def _counted(draft: Draft, entry: Mapping[str, Any]) -> int:
    """Return how many of an entry there are; a count that is none is a complaint."""
    count = entry.get("count", 1)
    if isinstance(count, str) and count.isdecimal() and len(count) < 10:
        count = int(count)
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MOST_PARTS:
        draft.contradict(f"count {str(count)[:40]!r}: expected a whole number up to {MOST_PARTS:,}")
        return 0
    return count


def _held(draft: Draft, device: Mapping[str, Any], kind: str) -> int:
    """Return how many components of a type a device has."""
    parts = _entries(device, "components")
    of_kind = [c for c in parts if kind in (c.get("type"), c.get("name")) or
               (isinstance(c.get("choice"), str) and c["choice"] == kind)]  # fmt: skip
    return sum(_counted(draft, c) for c in of_kind)


def _rate(link: Mapping[str, Any]) -> float:
    """Return bytes/s of a link's bandwidth."""
    physical = link.get("physical")
    inner = physical.get("bandwidth") if isinstance(physical, dict) else None
    bandwidth = inner or link.get("bandwidth")
    if not isinstance(bandwidth, dict):
        return 0.0
    for key, factor in (("giga_bits_per_second", 1e9 / 8), ("gigabits_per_second", 1e9 / 8),
                        ("giga_bytes_per_second", 1e9), ("gigabytes_per_second", 1e9)):  # fmt: skip
        value = bandwidth.get(key)
        if isinstance(value, int | float) and 0 < value < MOST_RATE:
            return float(value) * factor
    return 0.0
