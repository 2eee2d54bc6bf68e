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
from itertools import pairwise
from typing import NamedTuple

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

    def __post_init__(self) -> None:
        if not (1 <= self.per_node <= self.size and self.groups_per_node >= 1):
            raise ValueError(f"{self}: expected 1 <= per_node <= size and 1 <= groups_per_node")

    @property
    def nodes(self) -> int:
        """Scale-up domains that the group spans."""
        return ceil_div(self.size, self.per_node)


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


def group_of(node: Node, stride: int, size: int) -> Group:
    """Return the group of ranks 0, stride, 2 stride, ... (`size` of them) on nodes like `node`.

    Every rank is taken to belong to one such group, and all of them to communicate at once.
    Raises `ValueError` unless `stride` and `size` are positive.
    """
    if stride < 1 or size < 1:
        raise ValueError(f"stride {stride}, size {size}: expected two positive whole numbers")
    return _group(wiring_of(node).domain, stride, size)


@lru_cache(maxsize=4096)
def _group(domain: int, stride: int, size: int) -> Group:
    block = stride * size  # ranks that this many interleaved groups fill together
    groups = {(rank // block, rank % stride) for rank in range(domain)}
    return Group(size, _fewest_members(domain, stride, size), len(groups))


def _fewest_members(domain: int, stride: int, size: int) -> int:
    """Return how many of the ranks 0, stride, ... sit in the emptiest domain that holds any."""
    if stride >= domain:
        return 1
    last = (size - 1) * stride // domain
    members_before = [ceil_div(place * domain, stride) for place in range(min(last, stride) + 1)]
    in_full_domains = [after - before for before, after in pairwise(members_before)]
    in_last = size - ceil_div(last * domain, stride)
    return min([in_last, *in_full_domains])  # their filling repeats after `stride` domains


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
    peer_s: float  # of an exchange per further member of the domain
    network: float  # its share of the cards, in rings
    network_exchange: float  # its share of the cards, in an all-to-all
    network_hop_s: float
    card: float = math.inf  # into the network, for one member of its group in a node alone
    crossing: float = 0.0  # share of a node-limited all-to-all that goes over the network
    within: Lanes | None = None  # the members of one node, when the group spans several
    across: Lanes | None = None  # one member of each node, likewise
    quick: Lanes | None = None  # the same under the library's low-latency protocol

    @property
    def ring(self) -> float:
        """Rate of rings through all members: as many rings leave a node as it has members."""
        return min(self.inside, self.per_node * self.network)


@lru_cache(maxsize=4096)
def lanes_of(group: Group, wiring: Wiring) -> Lanes:
    """Return the lanes of each member of `group`, under both protocols where a library has two.

    The low-latency protocol sends a flag with every few bytes: shorter hops at a lower rate.
    Raises `ValueError` when the group spans nodes that have no network cards.
    """
    up = wiring.scale_up
    if not up.bulk_latency_s:
        return _lanes(group, wiring)
    quick = replace(up, efficiency=up.efficiency * up.quick_share, in_switch=0.0)
    bulk = replace(up, latency_s=up.bulk_latency_s)
    made = _lanes(group, wiring._replace(scale_up=quick))
    return replace(_lanes(group, wiring._replace(scale_up=bulk)), quick=made)


def _lanes(group: Group, wiring: Wiring) -> Lanes:
    if group.nodes == 1:
        return _inside_lanes(group.size, wiring)
    if not wiring.nics:
        raise ValueError(f"{group} spans {group.nodes} nodes, but the node has no network cards")
    share = nic_share(group, wiring) / wiring.scale_out.oversubscription
    crowd = (2.0 / group.nodes) ** wiring.scale_out.crowding
    network = share * wiring.scale_out.efficiency * crowd
    exchange = share * wiring.scale_out.all_to_all
    within = _inside_lanes(group.per_node, wiring)
    lanes = replace(
        within, size=group.size, nodes=group.nodes, in_switch=0.0,
        network=network, network_exchange=exchange, network_hop_s=wiring.scale_out.latency_s,
        card=network * nic_share(replace(group, per_node=1), wiring) / nic_share(group, wiring),
    )  # fmt: skip
    if group.per_node == 1:
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
    links = min(size - 1, up.links) if mesh else up.links
    rate = exchange = links * up.link_bandwidth if size > 1 else math.inf
    pair = up.link_bandwidth if mesh else up.bandwidth
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
