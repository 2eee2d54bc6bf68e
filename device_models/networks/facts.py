"""What a network between nodes is made of, what it costs, and what broken parts take from it.

Counts follow from the description alone; the graph says what hangs together. Switches above the leaves
are taken to have as many ports as the leaves, of the speed of an uplink; where a spine of a single pod
would need more, a third tier that does not block is counted.

Not modelled: the space of switches, spare ports, the length of cables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.networks.fabric import Fabric, Fault, bisection, build_fabric
from ersatz.device_models.networks.graph import (
    WeakPoint,
    cut_off,
    fabric_graph,
    half_flow,
    leaf_places,
    tiers,
    weak_points,
)
from ersatz.device_models.networks.group import ceil_div
from ersatz.device_models.networks.sharing import Rates


@dataclass(frozen=True, slots=True)
class Counts:
    """Switches, ports and cables."""

    tiers: int
    pods: int
    planes: int
    leaves: int
    spines: int  # told apart by routing
    spine_switches: int  # boxes: where few leaves hang on a spine, one box is several spines
    core_switches: int
    switches: int  # boxes in all
    node_cables: int
    leaf_cables: int  # leaf to spine
    core_cables: int
    cables: int
    leaf_ports: tuple[int, int]  # down, up
    spine_ports: tuple[int, int]


@dataclass(frozen=True, slots=True)
class FaultCost:
    """What one broken part takes, as shares of the bytes/s of the healthy fabric."""

    part: str
    at: tuple[int, ...]
    left: float
    cards_cut: int  # cards that lose their last port
    cards_slower: int  # cards that lose a part of their rate
    below: float  # share lost between nodes and leaves
    above: float  # share lost above the leaves


@dataclass(frozen=True, slots=True)
class FabricFacts:
    """The network of one kind of node; bandwidths in bytes/s per direction, prices in USD."""

    name: str
    title: str
    kind: str
    described: bool  # false: one switch that never blocks is assumed
    nodes: int
    devices: int
    cards: int  # per node
    ports: int  # per card
    port_bandwidth: float
    uplink_bandwidth: float
    core_bandwidth: float  # of a pod; 0: there is one pod
    leaf_oversubscription: float
    core_oversubscription: float  # at the spines of a whole pod; 0: there is one pod
    counts: Counts
    bisection: float  # healthy
    bisection_per_device: float
    hops: tuple[int, ...]  # switches between two nodes of a leaf, of a pod, of two pods
    weak: tuple[WeakPoint, ...]
    price: float | None  # of switches and cables; None: not known
    price_per_device: float | None
    findings: tuple[str, ...]  # what does not fit together
    cut_off: tuple[str, ...]  # nodes that cannot reach each other, faults counted
    cards_cut: int  # cards without a live port
    faults: tuple[FaultCost, ...]
    half_flow: tuple[float, float] | None  # between halves of the nodes: healthy, and as it is


def physical_fabric(node: Node, nodes: int, faults: Sequence[Fault] = ()) -> Fabric:
    """Return the fabric with every uplink by itself, broken parts included."""
    return build_fabric(node, nodes, hashed=True).damaged(faults)


def fabric_facts(node: Node, nodes: int, faults: Sequence[Fault] = ()) -> FabricFacts:
    """Return the facts of the network of `nodes` nodes like `node`; see `build_fabric` for errors."""
    healthy = physical_fabric(node, nodes)
    fabric = healthy.damaged(faults)
    graph = fabric_graph(fabric)
    flows = None
    if faults:
        flows = half_flow(healthy, fabric_graph(healthy)), half_flow(fabric, graph)
    network, devices = node.scale_out, nodes * node.devices
    counts, findings = _counts(healthy)
    price = None
    if network.switch_price and network.cable_price:
        price = counts.switches * network.switch_price + counts.cables * network.cable_price
    core = _core_bandwidth(healthy)
    return FabricFacts(
        network.name, network.title, network.kind, bool(network.leaf_nodes), nodes, devices,
        healthy.cards, healthy.network.ports, healthy.port_bandwidth, _uplink(healthy), core,
        network.oversubscription, _core_oversubscription(healthy), counts, bisection(healthy),
        bisection(healthy) / devices, (1, 3, 5)[: counts.tiers], tuple(weak_points(graph)),
        price, None if price is None else price / devices, findings,
        tuple(cut_off(fabric, graph)), int((_card_rates(fabric) <= 0).sum()),
        tuple(_cost(healthy, fault) for fault in faults), flows,
    )  # fmt: skip


def network_power(node: Node, nodes: int) -> float:
    """Return the W of switches and optics of `nodes` nodes like `node`; 0 where not known."""
    network = node.scale_out
    if not (network.leaf_nodes and network.switch_power_w):
        return 0.0
    counts, _ = _counts(physical_fabric(node, nodes))
    return counts.switches * network.switch_power_w + counts.cables * network.cable_power_w


def _uplink(fabric: Fabric) -> float:
    return float(fabric.capacity[fabric.first[2]])


def _core_bandwidth(fabric: Fabric) -> float:
    """Return the bytes/s between a pod and the rest; 0 where all nodes are one pod."""
    if fabric.pods == 1:
        return 0.0
    return float(fabric.capacity[fabric.first[4]]) * fabric.planes * fabric.uplinks


def _core_oversubscription(fabric: Fabric) -> float:
    """Return bytes/s from the leaves of a whole pod over bytes/s out of it; 0 for one pod."""
    if fabric.pods == 1:
        return 0.0
    return _leaves_per_spine(fabric) * _uplink(fabric) / float(fabric.capacity[fabric.first[4]])


def _leaves_per_spine(fabric: Fabric) -> int:
    """Return the leaves of one plane in a whole pod."""
    if fabric.pods == 1:
        return int(np.bincount(leaf_places(fabric)[0]).max())
    places = ceil_div(fabric.pod_nodes, fabric.network.leaf_nodes)
    per_place = (fabric.cards if fabric.rails else 1) * fabric.network.ports
    return places * per_place // fabric.planes


def _counts(fabric: Fabric) -> tuple[Counts, tuple[str, ...]]:
    """Return the counts of a healthy fabric, and what does not fit together in words."""
    network, needed = fabric.network, tiers(fabric)
    down = min(network.leaf_nodes, fabric.nodes) * (1 if fabric.rails else fabric.cards)
    node_cables = fabric.nodes * fabric.cards * network.ports
    if needed == 1:
        counts = Counts(1, 1, fabric.planes, fabric.leaves, 0, 0, 0, fabric.leaves, node_cables, 0,
                        0, node_cables, (down, 0), (0, 0))  # fmt: skip
        return counts, ()
    spines = fabric.pods * fabric.planes * fabric.uplinks
    leaf_cables = fabric.leaves * fabric.uplinks
    below = _leaves_per_spine(fabric)
    radix = round(down * fabric.port_bandwidth / _uplink(fabric)) + fabric.uplinks
    findings: list[str] = []
    boxes, core_boxes, core_cables, above = spines, 0, 0, 0
    if needed == 3 and not network.core_bandwidth:
        above = round(float(fabric.capacity[fabric.first[4]]) / _uplink(fabric))
        core_cables = spines * above
        core_boxes = ceil_div(core_cables, max(below + above, radix))
    elif needed == 2 and below > radix:
        each = below * fabric.uplinks  # cables of a plane
        boxes, core_boxes = (
            fabric.planes * ceil_div(2 * each, radix),
            fabric.planes * ceil_div(each, radix),
        )
        core_cables, needed = leaf_cables, 3
        findings.append(f"a spine would need {below} ports where the leaves have {radix}: a third"
                        " tier that does not block is counted")  # fmt: skip
    elif needed == 2:
        boxes = fabric.planes * ceil_div(below * fabric.uplinks, radix)
    cables = node_cables + leaf_cables + core_cables
    counts = Counts(
        needed, fabric.pods, fabric.planes, fabric.leaves, spines, boxes, core_boxes,
        fabric.leaves + boxes + core_boxes, node_cables, leaf_cables, core_cables, cables,
        (down, fabric.uplinks), (below, above),
    )  # fmt: skip
    return counts, tuple(findings)


def _card_rates(fabric: Fabric) -> Rates:
    """Return the bytes/s per direction that all ports of each card have, shape (nodes x cards,)."""
    ports = fabric.capacity[: fabric.first[1]].reshape(-1, fabric.network.ports)
    return np.asarray(ports.sum(axis=1))


def _cost(healthy: Fabric, fault: Fault) -> FaultCost:
    """Return what one fault takes from the healthy fabric."""
    damaged = healthy.damaged([fault])
    left, ports = damaged.capacity, _card_rates(damaged)
    middle = healthy.first[2]
    whole = healthy.port_bandwidth * healthy.network.ports
    last = healthy.first[2 * tiers(healthy)]  # links that no traffic needs do not count
    shares = [
        1.0 - float(left[part].sum()) / float(healthy.capacity[part].sum())
        if part.stop > part.start
        else 0.0
        for part in (slice(0, middle), slice(middle, last))
    ]
    return FaultCost(
        fault.part, fault.at, fault.left, int((ports <= 0).sum()),
        int(((ports > 0) & (ports < whole * (1 - 1e-9))).sum()), *shares,
    )  # fmt: skip
