"""What is read of a network: devices, links and measured sizes; and the file that holds it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import list_nodes, load_node
from ersatz.device_models.text.problems import InputError
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.record import Imported
from ersatz.sim.scenario.case_file import apply_overrides


@dataclass(frozen=True, slots=True)
class Answers:
    """What the user says of a network file: the machine, how many devices, which collective."""

    node: str | None = None
    devices: int | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


def answers_of(overrides: Sequence[str], defines: Mapping[str, str]) -> Answers:
    """Return what overrides such as `cluster.node=h100-8` say; raises `InputError`."""
    given: dict[str, object] = {}
    apply_overrides(given, overrides)
    cluster = given.get("cluster")
    cluster = cluster if isinstance(cluster, dict) else {}
    node, devices = cluster.get("node"), cluster.get("devices")
    return Answers(node if isinstance(node, str) else None, devices if isinstance(devices, int) else None,
                   defines)  # fmt: skip


def machine(draft: Draft, answers: Answers, device: str, each: int | None) -> Node | None:
    """Return the machine that is meant, or ask for it. Raises `InputError` for one that is not known."""
    if answers.node:
        return load_node(answers.node)
    fitting = nodes_with(device, each) if device else []
    if len(fitting) == 1:
        draft.assume(
            "cluster.node", fitting[0], f"the machine of {each or 'some'} {device} in the catalogue"
        )
        return load_node(fitting[0])
    named = f" of {device}" if device else ""
    draft.ask(
        "cluster.node",
        f"which machine{named}: its file is the base for what was not measured",
        fitting,
    )
    return None


def nodes_with(device: str, each: int | None) -> list[str]:
    """Return the catalogue's machines whose device is called so by its driver."""
    words = plain(device)
    found = []
    for name in list_nodes():
        try:
            node = load_node(name)
        except InputError:
            continue
        if each and node.devices != each:
            continue
        if plain(node.device.name) in words or plain(node.device.title) in words:
            found.append((len(plain(node.device.name)), name))
    best = max((length for length, _ in found), default=0)
    return [name for length, name in found if length == best]


def plain(name: str) -> str:
    """Return a device's name without maker, memory and punctuation: NVIDIA H100 80GB HBM3 is h100hbm3."""
    short = re.sub(r"(?i)nvidia|amd|instinct|huawei|ascend[ _-]?(?=9)|\d+ ?gi?b|sxm\d?", "", name)
    return re.sub(r"[^a-z0-9]", "", short.lower())


def leaf(key: str, value: object, note: str, *, confidence: str = "medium") -> str:
    """Return a value of a catalogue file with its provenance."""
    return (f"{key}: {{value: {value}, source: MEASURED, date: measured, confidence: {confidence},"
            f' note: "{note}"}}')  # fmt: skip


def own_name(file: str) -> str:
    """Return a name for the file that is made: of letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", Path(file).stem.lower()).strip("-")[:40] or "own"


def made(draft: Draft, lines: Sequence[str]) -> Imported:
    """Return the import of a network: its file, if all that it needs is known."""
    return Imported(
        file=draft.file, format=draft.format, version=None, scenario={}, devices=draft.devices,
        devices_per_node=draft.devices_per_node, read=tuple(draft.read),
        assumed=tuple(draft.assumed.values()), not_modelled=tuple(draft.not_modelled),
        ignored=tuple(draft.ignored), questions=tuple(draft.questions.values()),
        wrong=tuple(draft.wrong), text="\n".join(lines) + "\n" if lines else "",
    )  # fmt: skip
