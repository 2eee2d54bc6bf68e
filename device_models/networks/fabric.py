"""The network between nodes as links: what is there, who crosses what, and what is broken.

A Clos fabric of two or three tiers. A leaf serves `leaf_nodes` nodes: one card of each where rails or
planes are kept apart, else all cards. A card may have several ports, each to a leaf of its own (dual
ToR). Every uplink of a leaf goes to another spine of its pod; pods meet in a core. Traffic between
rails changes its rail inside the node, so both ends of a flow use the same card.

Endpoints and links are arrays and routes closed forms, so that 100,000 endpoints take milliseconds;
`fabric_graph` makes the graph of the switches for checks and pictures.

Not modelled: queues, and where in a building things stand. Adaptive routing and packet spraying are
taken as perfect: uplinks of a leaf that nothing tells apart act as one bundle. Broken uplinks and spines
tell them apart: a bundle then holds those in the same state everywhere, and a flow uses the bundles that
lead from its leaf to the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

from ersatz.device_models.catalog.device import Node, ScaleOut
from ersatz.device_models.networks.sharing import NO_LINK, Rates, Routes
from ersatz.device_models.text.problems import did_you_mean

Part = Literal["card", "port", "leaf", "uplink", "spine", "plane", "core"]
PARTS: tuple[str, ...] = get_args(Part)
COORDINATES = {
    "card": "node, card", "port": "node, card, port", "leaf": "leaf", "uplink": "leaf, uplink",
    "spine": "spine", "plane": "plane", "core": "pod",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """A part that is broken or slow: `left` of its capacity remains, 0 when it is down.

    A part that flaps keeps the share of the time that it is up.
    """

    part: Part
    at: tuple[int, ...]  # see COORDINATES
    left: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Fabric:
    """A Clos fabric; all capacities in bytes/s per direction. Made by `build_fabric`."""

    network: ScaleOut
    nodes: int
    cards: int  # per node
    leaves: int
    uplinks: int  # bundles of uplinks per leaf
    bundle: tuple[int, ...]  # the bundle of each uplink of a leaf
    spread: bool  # a flow uses all bundles at once, as much of each as it carries
    pods: int
    capacity: Rates  # of every link, in the order of `first`
    first: tuple[int, ...]  # first link of: port up, port down, leaf up, leaf down, core up, down

    @property
    def rails(self) -> bool:
        """Whether a leaf serves only one card of each node."""
        return self.network.kind != "fat-tree"

    @property
    def planes(self) -> int:
        """Sets of spines that share nothing."""
        return self.network.planes

    @property
    def port_bandwidth(self) -> float:
        """Bytes/s per direction of one port of a card."""
        return self.network.nic_bandwidth / self.network.ports

    @property
    def pod_nodes(self) -> int:
        """Nodes of a pod."""
        return self.network.pod_nodes or self.nodes

    def port(self, node: Routes, card: Routes, port: Routes) -> Routes:
        """Return the index of a card's port, which is the link up; the link down has first[1] more."""
        return (node * self.cards + card) * self.network.ports + port

    def leaf(self, node: Routes, card: Routes, port: Routes) -> Routes:
        """Return the leaf that a port hangs on."""
        place = node // self.network.leaf_nodes
        if self.rails:
            place = place * self.cards + card
        return place * self.network.ports + port

    def plane(self, leaf: Routes) -> Routes:
        """Return the plane of a leaf: that of its port (dual-plane) or of its card (multi-plane)."""
        return leaf % self.planes

    def pod(self, node: Routes) -> Routes:
        """Return the pod of a node."""
        return node // self.pod_nodes

    def spine(self, pod: Routes, leaf: Routes, uplink: Routes) -> Routes:
        """Return the spine at the end of a leaf's uplink."""
        return (pod * self.planes + self.plane(leaf)) * self.uplinks + uplink

    def routes(
        self, source: Routes, target: Routes, card: Routes, port: Routes, uplink: Routes
    ) -> Routes:
        """Return the links of flows between cards of nodes, shape (flows, 6); all given per flow."""
        ends = [self.leaf(node, card, port) for node in (source, target)]
        pods = [self.pod(node) for node in (source, target)]
        up, down = (self.port(node, card, port) for node in (source, target))
        crosses, climbs = ends[0] != ends[1], pods[0] != pods[1]
        spines = [self.spine(p, e, uplink) for p, e in zip(pods, ends, strict=True)]
        hops = (
            up,
            np.where(crosses, self.first[2] + ends[0] * self.uplinks + uplink, NO_LINK),
            np.where(climbs, self.first[4] + spines[0], NO_LINK),
            np.where(climbs, self.first[5] + spines[1], NO_LINK),
            np.where(crosses, self.first[3] + ends[1] * self.uplinks + uplink, NO_LINK),
            self.first[1] + down,
        )
        return np.stack(hops, axis=1)

    def choose_uplinks(
        self, source: Routes, target: Routes, card: Routes, port: Routes, draw: Routes
    ) -> Routes:
        """Return the uplink that hashing (`draw`, any whole numbers) gives flows, among live ones.

        Where no uplink of one leaf reaches the other, the flow keeps a dead one and its rate is 0.
        """
        if self.uplinks == 1:
            return np.zeros_like(source)
        alive = self.capacity > 0
        up = alive[self.first[2] : self.first[3]].reshape(-1, self.uplinks)
        down = alive[self.first[3] : self.first[4]].reshape(-1, self.uplinks)
        if up.all() and down.all():
            return draw % self.uplinks
        both = up[self.leaf(source, card, port)] & down[self.leaf(target, card, port)]
        count = both.sum(axis=1)
        wanted = draw % np.maximum(count, 1)
        return np.where(count > 0, np.argmax(np.cumsum(both, axis=1) > wanted[:, None], axis=1), 0)

    def damaged(self, faults: Iterable[Fault]) -> Fabric:
        """Return the fabric with parts broken; raises `ValueError` for parts that it lacks."""
        faults = tuple(faults)
        for fault in faults:
            self.check(fault)
        fabric = self._told_apart(faults)
        capacity = fabric.capacity.copy()
        for fault in faults:
            if fault.part not in ("uplink", "spine") or fabric._leads_its_bundle(fault):
                capacity[fabric._links_of(fault)] *= fault.left
        return replace(fabric, capacity=capacity)

    def _leads_its_bundle(self, fault: Fault) -> bool:
        """Whether an uplink is the first of a bundle: the others of it are hit by the same faults."""
        uplink = fault.at[-1] % self.network.uplinks
        return self.bundle.index(self.bundle[uplink]) == uplink

    def _told_apart(self, faults: Sequence[Fault]) -> Fabric:
        """Return the fabric with a bundle for all uplinks that the same faults hit."""
        marks: list[list[tuple[str, int, float]]] = [[] for _ in self.bundle]
        for fault in faults:
            if fault.part in ("uplink", "spine"):
                place, uplink = fault.at[0], fault.at[-1] % len(self.bundle)
                place = place // len(self.bundle) if fault.part == "spine" else place
                marks[uplink].append((fault.part, place, fault.left))
        keys = [(old, sorted(mark)) for old, mark in zip(self.bundle, marks, strict=True)]
        kinds = [list(key) for key in sorted({(old, tuple(mark)) for old, mark in keys})]
        if len(kinds) == self.uplinks:
            return self
        bundle = tuple(kinds.index([old, tuple(mark)]) for old, mark in keys)
        parents = np.array([old for old, _ in kinds])
        share = np.bincount(bundle) / np.bincount(self.bundle)[parents]
        parts = [self.capacity[a:b] for a, b in pairwise(self.first)]
        parts[2:] = [(p.reshape(-1, self.uplinks)[:, parents] * share).ravel() for p in parts[2:]]
        first = tuple(int(n) for n in np.cumsum([0, *(part.size for part in parts)]))
        return replace(self, uplinks=len(kinds), bundle=bundle, first=first,
                       capacity=np.concatenate(parts))  # fmt: skip

    def busy(self, share: float) -> Fabric:
        """Return what other jobs leave of the links above the leaves; they use `share` of them."""
        capacity = self.capacity.copy()
        capacity[self.first[2] :] *= 1.0 - share
        return replace(self, capacity=capacity)

    def _links_of(self, fault: Fault) -> Routes:
        """Return the links of a part, both directions."""
        ports, uplinks = self.network.ports, self.uplinks
        at = fault.at
        if fault.part in ("card", "port"):
            chosen = range(ports) if fault.part == "card" else (at[2],)
            links = [(at[0] * self.cards + at[1]) * ports + port for port in chosen]
            return _both(np.array(links), self.first[0], self.first[1])
        if fault.part in ("leaf", "plane"):
            every = np.arange(self.nodes * self.cards * ports)
            leaf = self.leaf(
                every // (self.cards * ports), every // ports % self.cards, every % ports
            )
            hit = leaf == at[0] if fault.part == "leaf" else self.plane(leaf) == at[0]
            return _both(every[hit], self.first[0], self.first[1])
        if fault.part == "core":
            each = self.planes * uplinks
            return _both(np.arange(at[0] * each, (at[0] + 1) * each), self.first[4], self.first[5])
        leaves = np.arange(self.leaves)
        number = self.bundle[at[-1] % self.network.uplinks]
        if fault.part == "uplink":
            return _both(np.array([at[0] * uplinks + number]), self.first[2], self.first[3])
        first_node = leaves // (self.leaves // self._leaf_groups) * self.network.leaf_nodes
        below = self.pod(first_node) * self.planes + self.plane(leaves)
        hit = leaves[below == at[0] // self.network.uplinks]
        return _both(hit * uplinks + number, self.first[2], self.first[3])

    @property
    def _leaf_groups(self) -> int:
        return -(-self.nodes // self.network.leaf_nodes)

    @property
    def counts(self) -> dict[str, tuple[int, ...]]:
        """How many there are of each part, by coordinate."""
        spines = self.pods * self.planes * self.network.uplinks
        return {
            "card": (self.nodes, self.cards), "port": (self.nodes, self.cards, self.network.ports),
            "leaf": (self.leaves,), "uplink": (self.leaves, self.network.uplinks),
            "spine": (spines,), "plane": (self.planes,), "core": (self.pods,),
        }  # fmt: skip

    def check(self, fault: Fault) -> None:
        """Raise `ValueError` unless the fabric has the part of a fault."""
        if fault.part not in PARTS:
            raise ValueError(f"no part {fault.part!r}{did_you_mean(fault.part, PARTS)}")
        limits = self.counts[fault.part]
        if len(fault.at) != len(limits):
            raise ValueError(f"{fault.part} {fault.at}: expected [{COORDINATES[fault.part]}]")
        for place, limit in zip(fault.at, limits, strict=True):
            if not 0 <= place < limit:
                raise ValueError(f"{fault.part} {list(fault.at)}: the fabric has {limits}, from 0")
        if not 0.0 <= fault.left <= 1.0:
            raise ValueError(f"{fault.part}: {fault.left} of its capacity left; expected 0 to 1")


def _both(places: Routes, first: int, second: int) -> Routes:
    return np.concatenate([places + first, places + second])


def build_fabric(node: Node, nodes: int, *, hashed: bool = False) -> Fabric:
    """Return the fabric of `nodes` nodes like `node`.

    `hashed`: every connection stays on the uplink that a hash gives it (ECMP); else routing spreads
    evenly. A network whose topology is not described is one switch that never blocks.
    Raises `ValueError` when there are no nodes or no network cards.
    """
    network = described(node.scale_out, nodes)
    if nodes < 1 or node.nics < 1:
        raise ValueError(f"{nodes} nodes with {node.nics} network cards: expected one of each")
    groups = -(-nodes // network.leaf_nodes)
    rails = network.kind != "fat-tree"
    leaves = groups * (node.nics if rails else 1) * network.ports
    uplinks = network.uplinks if hashed else 1
    pods = -(-nodes // (network.pod_nodes or nodes))
    port = network.nic_bandwidth / network.ports
    leaf_down = port * network.leaf_nodes * (1 if rails else node.nics)
    uplink = leaf_down / network.oversubscription / uplinks
    pod_groups = -(-(network.pod_nodes or nodes) // network.leaf_nodes)
    pod_leaves = pod_groups * (node.nics if rails else 1) * network.ports // network.planes
    core = uplink * pod_leaves / network.core_oversubscription
    if network.core_bandwidth:
        core = network.core_bandwidth / (network.planes * uplinks)
    sizes = (nodes * node.nics * network.ports, leaves * uplinks, pods * network.planes * uplinks)
    counts = [size for size in sizes for _ in (0, 1)]
    first = tuple(int(n) for n in np.concatenate([[0], np.cumsum(counts)]))
    rates = [port, port, uplink, uplink, core, core]
    bundle = tuple(range(uplinks)) if hashed else (0,) * network.uplinks
    return Fabric(network, nodes, node.nics, leaves, uplinks, bundle, not hashed, pods,
                  np.repeat(rates, counts), first)  # fmt: skip


def described(network: ScaleOut, nodes: int) -> ScaleOut:
    """Return the network with a topology: one leaf for all where none is given."""
    if network.leaf_nodes:
        return network
    return replace(network, kind="fat-tree", leaf_nodes=nodes, uplinks=1, ports=1, planes=1)


def bisection(fabric: Fabric) -> float:
    """Return the bytes/s that one half of the nodes can send to the other, without faults.

    The halves are split where it is cheapest: between pods, or between leaves.
    """
    endpoints = fabric.nodes * fabric.cards * fabric.network.nic_bandwidth / 2.0
    if fabric._leaf_groups < 2:
        return endpoints
    uplinks = float(fabric.capacity[fabric.first[2] : fabric.first[3]].sum()) / 2.0
    core = float(fabric.capacity[fabric.first[4] : fabric.first[5]].sum()) / 2.0
    return min(endpoints, uplinks, core) if fabric.pods > 1 else min(endpoints, uplinks)


def mixed_hash(*columns: Routes) -> Routes:
    """Return a well-mixed non-negative whole number for each row of the columns (splitmix64)."""
    state = np.full(columns[0].shape, 0x9E3779B97F4A7C15, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in columns:
            state = state + column.astype(np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(2)).astype(np.int64)
