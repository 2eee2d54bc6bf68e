"""Where nodes stand in the fabric, and which ranks they hold.

A placement is a function `(nodes, leaf_nodes, size, rng) -> positions` in `PLACEMENTS`; positions of the
caller's own are taken as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ersatz.device_models.networks.sharing import Routes
from ersatz.sim.scenario.scenario import FabricSpec

Placement = Callable[[int, int, int, np.random.Generator], Routes]


def packed(nodes: int, leaf_nodes: int, size: int, rng: np.random.Generator) -> Routes:
    """Side by side from the first position: neighbours share leaves."""
    return np.arange(nodes)


def striped(nodes: int, leaf_nodes: int, size: int, rng: np.random.Generator) -> Routes:
    """Dealt over the leaves in turn: neighbours are on different leaves."""
    leaf_nodes = leaf_nodes or size
    order = np.argsort(np.arange(size) % leaf_nodes, kind="stable")
    return order[:nodes]


def scattered(nodes: int, leaf_nodes: int, size: int, rng: np.random.Generator) -> Routes:
    """Wherever there was room: positions drawn at random, ranks in the order drawn."""
    return rng.permutation(size)[:nodes]


PLACEMENTS: Mapping[str, Placement] = {
    "packed": packed, "striped": striped, "scattered": scattered,
}  # fmt: skip


def node_positions(nodes: int, leaf_nodes: int, spec: FabricSpec, seed: int) -> Routes:
    """Return the fabric position of each of a job's nodes, in rank order."""
    if spec.positions:
        return np.array(spec.positions)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(4,)))
    return PLACEMENTS[spec.placement](nodes, leaf_nodes, max(spec.size, nodes), rng)


def node_ranks(ranks: Routes, nodes: int, devices: int, order: str) -> tuple[Routes, Routes]:
    """Return the node and the device in it of each rank.

    `packed`: ranks fill node after node; `dealt`: neighbouring ranks are on different nodes.
    """
    if order == "dealt":
        return ranks % nodes, ranks // nodes
    return ranks // devices, ranks % devices
