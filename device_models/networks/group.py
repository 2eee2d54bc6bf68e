"""Where the members of a communicator sit, and what each may send with.

Ranks are packed over scale-up domains (nodes or supernodes) in rank order. A member has two
lanes: its scale-up links towards the members beside it, and its share of the network cards
towards all others. Everything that a collective needs to know of the hardware is in `Lanes`.

Not modelled: which leaf switch a node hangs on, traffic of other jobs, cards lent between devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ersatz.device_models.catalog.device import Node, ScaleOut, ScaleUp


@dataclass(frozen=True, slots=True)
class Group:
    """Where the members of one communicator sit.

    Where the members do not spread evenly, `per_node` counts those of the emptiest domain: a
    collective is as fast as its narrowest place. Raises `ValueError` for impossible counts.
    """

    size: int  # members
    per_node: int  # members inside one scale-up domain (node or supernode)
    groups_per_node: int  # groups of the same kind that share the domain's cards at the same time
    spans: int = 0  # domains that the group reaches; 0: as many as `per_node` members each fill
    crossings: int = 0  # of a border between pods (sites) on one turn of its ring

    def __post_init__(self) -> None:
        if not (1 <= self.per_node <= self.size and self.groups_per_node >= 1):
            raise ValueError(f"{self}: expected 1 <= per_node <= size and 1 <= groups_per_node")

    @property
    def nodes(self) -> int:
        """Scale-up domains that the group spans."""
        return self.spans or ceil_div(self.size, self.per_node)

    @property
    def even(self) -> bool:
        """Whether every domain holds as many members."""
        return self.nodes * self.per_node == self.size


class Wiring(NamedTuple):
    """The part of a node that collectives see; unlike `Node` it can be a cache key."""

    scale_up: ScaleUp
    scale_out: ScaleOut
    nics: int
    devices: int

    @property
    def domain(self) -> int:
        """Devices that reach each other without the network.

        A supernode is larger than its servers; links that join only part of a server (two
        meshes of four) leave the parts to the network.
        """
        if self.scale_up.kind == "supernode":
            return max(self.devices, self.scale_up.domain)
        return min(self.devices, self.scale_up.domain)


def wiring_of(node: Node) -> Wiring:
    """Return what collectives see of `node`."""
    return Wiring(node.scale_up, node.scale_out, node.nics, node.devices)


def group_of(node: Node, stride: int, size: int, ranks: int = 0) -> Group:
    """Return the group of ranks 0, stride, 2 stride, ... (`size` of them) on nodes like `node`.

    Every rank (of `ranks`; 0: of as many as there may be) is taken to belong to one such group, and
    all of them to communicate at once: the group in the emptiest domain counts for all.
    Raises `ValueError` unless `stride` and `size` are positive.
    """
    if stride < 1 or size < 1:
        raise ValueError(f"stride {stride}, size {size}: expected two positive whole numbers")
    return _group(wiring_of(node).domain, stride, size, ranks)


@lru_cache(maxsize=4096)
def _group(domain: int, stride: int, size: int, ranks: int) -> Group:
    block = stride * size  # ranks that this many interleaved groups fill together
    if domain % block == 0:
        return Group(size, size, domain // size)
    if block % domain == 0 and (domain % stride == 0 or stride % domain == 0):
        return Group(size, max(domain // stride, 1), min(stride, domain))
    pattern = math.lcm(domain, block)  # ranks until groups sit in their domains as before
    return _counted(
        domain, stride, size, min(pattern, max(ranks // block, 1) * block if ranks else pattern)
    )


def _counted(domain: int, stride: int, size: int, ranks: int) -> Group:
    """Return the group that counts, from where each of `ranks` ranks sits."""
    rank = np.arange(ranks)
    group = rank // (stride * size) * stride + rank % stride
    meetings, members = np.unique(
        group * (ranks // domain + 1) + rank // domain, return_counts=True
    )
    group, place = np.divmod(meetings, ranks // domain + 1)
    spans = np.bincount(group)
    fewest = int(members.min())
    leaving = spans[group] > 1  # a group that stays in its domain needs no cards
    if not leaving.any():
        return Group(size, size, int(np.bincount(place).max()))
    busiest = int(np.bincount(place[leaving], members[leaving]).max())
    most = int(spans.max())
    return Group(size, fewest, ceil_div(busiest, fewest), 0 if most * fewest == size else most)


def ceil_div(amount: int, part: int) -> int:
    """Return how many parts hold `amount`."""
    return -(-amount // part)


def remote_copies(nodes: int, top_k: int, node_limit: int | None = None) -> float:
    """Return the mean number of other nodes that a token visits, one copy each.

    `top_k` experts are drawn evenly and independently over `nodes`, of which the router first
    keeps `node_limit` at random: N (1 - (1 - 1/N)^k) distinct nodes, one in `nodes` its own.
    """
    kept = min(nodes, node_limit or nodes)
    distinct = kept * (1.0 - (1.0 - 1.0 / kept) ** top_k)
    return distinct * (nodes - 1) / nodes


def thin_copies(size: int, per_node: int, top_k: int) -> float:
    """Return the mean number of copies that a member of the emptiest domain receives per own token.

    `per_node` of `size` members sit there; each token of the others goes there once if one of its
    `top_k` experts does.
    """
    share = per_node / size
    return (size - per_node) / per_node * (1.0 - (1.0 - share) ** top_k)


@dataclass(frozen=True, slots=True)
class Lanes:
    """What each member of one group may send with; rates in bytes/s per direction."""

    size: int
    per_node: int
    nodes: int
    mesh: bool  # every pair of a node has its own link
    inside: float  # to the members beside it, in rings and direct exchanges; inf when alone
    pair: float  # to one member beside it
    inside_exchange: float  # to the members beside it, in an all-to-all; inf when alone
    in_switch: float  # into a switch that reduces; 0 where the group cannot use one
    inside_hop_s: float
    peer_s: float  # of an exchange per further member of the domain: a message each, served in turn
    network: float  # its share of the cards, in rings
    network_exchange: float  # its share of the cards, in an all-to-all
    network_hop_s: float
    network_start_s: float = 0.0  # of a collective that uses the network, once
    network_peer_s: float = 0.0  # of an exchange per further member that the network reaches
    crossings: int = 0  # of a border between pods on one turn of the ring
    core_s: float = 0.0  # of one such crossing, beside the hop
    card: float = math.inf  # into the network, for one member of its group in a node alone
    crossing: float = 0.0  # share of a node-limited all-to-all that goes over the network
    within: Lanes | None = None  # the members of one node, when the group spans several
    across: Lanes | None = None  # one member of each node, likewise
    quick: Lanes | None = None  # the same under the library's low-latency protocol

    @property
    def ring(self) -> float:
        """Rate of rings through all members: as many rings leave a node as it has members."""
        return min(self.inside, self.per_node * self.network)

    @property
    def turn_core_s(self) -> float:
        """Latency of the borders between pods that a piece passes on one turn of the ring."""
        return self.crossings * self.core_s

    def climb_core_s(self, levels: int) -> float:
        """Latency of those that it passes on `levels` levels of a tree across the nodes."""
        return min(levels, ceil_div(self.crossings, 2)) * self.core_s


def beyond_knee(wiring: Wiring, nbytes: float) -> Wiring:
    """Return the wiring as a collective of this many bytes finds it.

    Where hosts move the bytes themselves, a buffer that stays in their caches from pass to pass goes
    at the full rate, and one that does not is missed as a whole: between the knee and twice its size
    the rate falls to the share `beyond_knee`, evenly in logarithms, and stays there.
    """
    out = wiring.scale_out
    if not out.knee_bytes or nbytes <= out.knee_bytes:
        return wiring
    share = out.beyond_knee ** min(math.log2(nbytes / out.knee_bytes), 1.0)
    slower = replace(out, efficiency=out.efficiency * share, all_to_all=out.all_to_all * share)
    return wiring._replace(scale_out=slower)


@lru_cache(maxsize=4096)
def lanes_of(group: Group, wiring: Wiring) -> Lanes:
    """Return the lanes of each member of `group`, under both protocols where a library has two.

    The low-latency protocol sends a flag with every few bytes: shorter hops at a lower rate, inside
    the node and over the network alike.
    Raises `ValueError` when the group spans nodes that have no network cards.
    """
    up, out = wiring.scale_up, wiring.scale_out
    bulk = wiring
    if up.bulk_latency_s:
        bulk = wiring._replace(scale_up=replace(up, latency_s=up.bulk_latency_s))
    if not (up.bulk_latency_s or (out.quick_latency_s and group.nodes > 1)):
        return _lanes(group, wiring)
    quick_up = replace(up, efficiency=up.efficiency * up.quick_share, in_switch=0.0)
    quick_out = replace(out, efficiency=out.efficiency * out.quick_share,
                        latency_s=out.quick_latency_s or out.latency_s)  # fmt: skip
    made = _lanes(group, wiring._replace(scale_up=quick_up, scale_out=quick_out))
    return replace(_lanes(group, bulk), quick=made)


def _lanes(group: Group, wiring: Wiring) -> Lanes:
    if group.nodes == 1:
        return _inside_lanes(group.size, wiring)
    if not wiring.nics:
        raise ValueError(f"{group} spans {group.nodes} nodes, but the node has no network cards")
    out = wiring.scale_out
    share = nic_share(group, wiring) / out.oversubscription
    crowd = (2.0 / group.nodes) ** out.crowding
    network = share * out.efficiency * crowd
    within = _inside_lanes(group.per_node, wiring)
    lanes = replace(
        within, size=group.size, nodes=group.nodes, in_switch=0.0,
        network=network, network_exchange=share * out.all_to_all,
        network_hop_s=out.latency_s, network_start_s=out.start_s,
        network_peer_s=max(out.peer_s, within.peer_s), crossings=group.crossings,
        core_s=out.core_latency_s,
        card=network * nic_share(replace(group, per_node=1), wiring) / nic_share(group, wiring),
    )  # fmt: skip
    if group.per_node == 1 or not group.even:
        return lanes
    across = replace(lanes, size=group.nodes, per_node=1, inside=math.inf, inside_exchange=math.inf)
    return replace(lanes, within=within, across=across)


def nic_share(group: Group, wiring: Wiring) -> float:
    """Return the bytes/s per direction into the network that one member of `group` gets.

    All active members of a domain share its cards evenly, but none drives another's card.
    """
    per_device = wiring.nics * wiring.scale_out.nic_bandwidth / wiring.devices
    own_cards = max(per_device, wiring.scale_out.nic_bandwidth)
    active = group.per_node * group.groups_per_node
    return min(own_cards, per_device * wiring.domain / active)


def _inside_lanes(size: int, wiring: Wiring) -> Lanes:
    """Return the lanes of `size` members of one domain; a lone member waits for no link."""
    up = wiring.scale_up
    mesh = up.kind == "mesh"
    pair = up.bandwidth / max(up.domain - 1, 1) if mesh else up.bandwidth
    rate = exchange = (size - 1) * pair if mesh else up.bandwidth
    if size == 1:
        rate = exchange = math.inf
    if up.kind in ("ring", "torus") and size > 1:
        rate, exchange = _around(size, up)
        pair = up.bandwidth / ways(up)
    return Lanes(
        size=size, per_node=size, nodes=1, mesh=mesh,
        inside=rate * up.efficiency,
        pair=pair * up.efficiency,
        inside_exchange=exchange * up.all_to_all,
        in_switch=up.bandwidth * up.in_switch,
        inside_hop_s=up.latency_s, peer_s=up.peer_s,
        network=math.inf, network_exchange=math.inf, network_hop_s=0.0,
    )  # fmt: skip


def ways(up: ScaleUp) -> int:
    """Return how many neighbours a device of a ring or torus has."""
    return 2 * sum(d > 1 for d in up.dims) if up.kind == "torus" else 2


def _around(size: int, up: ScaleUp) -> tuple[float, float]:
    """Return the bytes/s of rings and of exchanges per member, neighbours on a ring or torus.

    A group fills whole dimensions, then a line of the next. All round a dimension rings turn both
    ways; on a line the way back takes the links of the other direction, so that one ring fits. An
    exchange goes dimension by dimension, and the fullest link tells its rate.
    """
    dims = [d for d in (up.dims if up.kind == "torus" else (up.domain,)) if d > 1]
    way = up.bandwidth / (2 * len(dims))  # to one neighbour
    ring, load, left = 0.0, 0.0, size
    for d in dims:
        if left % d == 0:
            ring += 2.0 * way
            load = max(load, size * (d * d - d % 2) / (8 * d))
            left //= d
        elif left > 1:
            k = min(left, d)
            ring += way
            load = max(load, size * (k // 2) * ceil_div(k, 2) / k)
            left = ceil_div(left, k)
    return ring, (size - 1) * way / load
