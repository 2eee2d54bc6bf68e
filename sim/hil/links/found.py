"""From measured rows to files: one fit for the links inside a node, one for the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import list_nodes, load_node
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.hil.links.fit import LinkFit, fit_links
from ersatz.sim.hil.links.network_file import LinkOrigin, link_file, write_links
from ersatz.sim.hil.links.timing import Timing

TIERS = ("inside", "network")
SUFFIX = {"network": "", "inside": "-inside"}


@dataclass(frozen=True, slots=True)
class Found:
    """The links of one tier, fitted and written."""

    fit: LinkFit
    rows: tuple[Timing, ...]
    path: Path


def tier_of(row: Timing) -> str:
    """Return which links a row is about: inside where one node holds all, else the network.

    A group of several members on each of several nodes uses both, and decides neither.
    """
    if row.per_node == row.members:
        return "inside"
    return "network" if row.per_node == 1 else "both"


def node_with(device: str) -> Node:
    """Return a node of the catalogue with a device, or the CPU's."""
    nodes = (load_node(name) for name in list_nodes())
    return next((n for n in nodes if n.device.name == device), load_node("cpu-1"))


def fit_and_write(
    rows: Sequence[Timing], node: Node, origin: LinkOrigin, path: Path
) -> list[Found]:
    """Fit every tier that was measured and write its file; raises `InputError`, `OSError`."""
    found = []
    for tier in TIERS:
        mine = tuple(r for r in rows if tier_of(r) == tier)
        if not mine:
            continue
        target = path.with_name(f"{path.stem}{SUFFIX[tier]}.yaml")
        try:
            fit = fit_links(node, mine, tier)
        except ValueError as error:
            raise InputError([Problem("links", 0, 0, "", "", str(error))]) from error
        text = link_file(target.stem, fit, origin, max(r.members for r in mine))
        write_links(target, text, mine)
        found.append(Found(fit, mine, target))
    if not found:
        words = (
            "need one rank of every node, or one node alone: groups over both tell them not apart"
        )
        raise InputError([Problem("links", 0, 0, "", "", words)])
    return found
