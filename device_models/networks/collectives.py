"""How long a group of devices takes to exchange data, by algorithm.

Each algorithm is a closed form in the Hockney model: hops cost a latency, bytes a rate
(`group.Lanes`). n members, p of them in each of m nodes, buffer S:

    ring            n-1 hops and S (n-1)/n bytes at the ring rate; an all-reduce takes two
    direct          the same bytes in one hop, over the links of a mesh
    recursive       the same bytes in log2(n) hops, tier by tier (HCCL's gathers; else on request)
    tree            pipelined, 2 log2 hops, 2 S bytes (two complementary binary trees)
    in-switch       pipelined, 2 hops, S (1 + 1/n) bytes (the switch adds and multicasts)
    pat             a ring's bytes in log2(n) hops, one member of each node (NCCL from 2.23 on)
    hierarchical    scatter inside, all-reduce across, gather inside, one after the other
    pairwise        all-to-all: both tiers at once, the slower one counts
    two-hop         all-to-all where a token crosses to a node once and is handed on there

A library picks the fastest that it has. Plug-ins are functions `(nbytes, lanes) -> Cost`.
Messages use the quicker of a library's protocols (`group.lanes_of`). Buffers that outgrow what hosts
move at the full rate go slower (`group.beyond_knee`). Contention with other traffic
and broken links are the fabric's (`fabric.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.networks.group import (
    Group,
    Lanes,
    Wiring,
    beyond_knee,
    lanes_of,
    wiring_of,
)
from ersatz.device_models.text.problems import did_you_mean


class Cost(NamedTuple):
    """What one algorithm takes: time, and bytes that the mean member sends over each tier."""

    seconds: float
    inside_bytes: float
    network_bytes: float

    def then(self, other: Cost) -> Cost:
        """Return the cost of this and `other`, one after the other."""
        return Cost(
            self.seconds + other.seconds,
            self.inside_bytes + other.inside_bytes,
            self.network_bytes + other.network_bytes,
        )

    def twice(self) -> Cost:
        """Return the cost of doing this two times."""
        return Cost(2 * self.seconds, 2 * self.inside_bytes, 2 * self.network_bytes)


Algorithm = Callable[[float, Lanes], Cost]
IMPOSSIBLE = Cost(math.inf, 0.0, 0.0)  # of an algorithm that the group's links do not allow


@dataclass(frozen=True, slots=True)
class Collective:
    """The time of one collective and how it was done."""

    seconds: float
    algorithm: str
    inside_bytes: float  # that the mean member sends over scale-up links
    network_bytes: float  # that the mean member sends over the network


def pipelined(hops: int, latency_s: float, piece_s: float, seconds: float) -> float:
    """Return the time to pass a message through `hops` stages in the best number of pieces.

    `seconds` is the whole message's time on one stage, `latency_s` the sum of the hops', which
    pieces in flight share; each further piece costs `piece_s` to handle. The least of
    latency + (h - 1 + pieces) seconds / pieces + (pieces - 1) piece_s over real pieces >= 1.
    """
    others = hops - 1
    if others * seconds <= piece_s:
        return latency_s + hops * seconds  # too short to be cut
    return latency_s - piece_s + seconds + 2.0 * math.sqrt(others * piece_s * seconds)


def ring_latency(lanes: Lanes) -> float:
    """Return the hops of one turn of the ring: one to each other node, the rest inside."""
    inside = (lanes.size - lanes.nodes) * lanes.inside_hop_s
    return inside + (lanes.nodes - 1) * lanes.network_hop_s + lanes.turn_core_s


def tree_depth(lanes: Lanes) -> tuple[int, float]:
    """Return the levels of a binary tree, inside the nodes and then across, and their latency."""
    inside, across = (lanes.per_node - 1).bit_length(), (lanes.nodes - 1).bit_length()
    latency_s = inside * lanes.inside_hop_s + across * lanes.network_hop_s
    return inside + across, latency_s + lanes.climb_core_s(across)


def along_ring(seconds: float, sent: float, lanes: Lanes) -> Cost:
    """Return the cost of `sent` bytes per member, of which each node's members share the exits."""
    network = sent / lanes.per_node if lanes.nodes > 1 else 0.0
    return Cost(seconds, sent - network, network)


def ring_gather(nbytes: float, lanes: Lanes) -> Cost:
    """Ring all-gather or reduce-scatter: n-1 of n pieces pass each member."""
    sent = nbytes * (lanes.size - 1) / lanes.size
    return along_ring(ring_latency(lanes) + sent / lanes.ring, sent, lanes)


def ring_reduce(nbytes: float, lanes: Lanes) -> Cost:
    """Ring all-reduce: a reduce-scatter, then an all-gather."""
    return ring_gather(nbytes, lanes).twice()


def mesh_gather(nbytes: float, lanes: Lanes) -> Cost:
    """Direct all-gather or reduce-scatter: a piece over each link of a mesh, all at once."""
    if not lanes.mesh or lanes.nodes > 1:
        return IMPOSSIBLE
    sent = nbytes * (lanes.size - 1) / lanes.size
    return Cost(lanes.inside_hop_s + sent / lanes.inside, sent, 0.0)


def mesh_reduce(nbytes: float, lanes: Lanes) -> Cost:
    """Direct all-reduce over a mesh: scatter, then gather."""
    return mesh_gather(nbytes, lanes).twice()


def pat_gather(nbytes: float, lanes: Lanes) -> Cost:
    """Parallel aggregated trees: a ring's bytes in log2 hops; for one member of each node."""
    if lanes.per_node > 1 or lanes.nodes == 1:
        return IMPOSSIBLE
    sent = nbytes * (lanes.size - 1) / lanes.size
    _, latency_s = tree_depth(lanes)
    return along_ring(latency_s + sent / lanes.ring, sent, lanes)


def recursive_gather(nbytes: float, lanes: Lanes) -> Cost:
    """Recursive doubling or halving: log2 steps, the far and small pieces over the network."""
    network = nbytes * (lanes.nodes - 1) / lanes.size
    inside = nbytes * (lanes.size - lanes.nodes) / lanes.size
    _, latency_s = tree_depth(lanes)
    return Cost(latency_s + network / lanes.network + inside / lanes.inside, inside, network)


def recursive_reduce(nbytes: float, lanes: Lanes) -> Cost:
    """Recursive halving, then doubling (Rabenseifner's all-reduce)."""
    return recursive_gather(nbytes, lanes).twice()


def tree_reduce(nbytes: float, lanes: Lanes) -> Cost:
    """Double binary tree all-reduce: up and down in pieces; a member sends 2 S over its trees."""
    levels, latency_s = tree_depth(lanes)
    sent = 2.0 * nbytes
    return along_ring(
        pipelined(2 * levels, 2 * latency_s, lanes.inside_hop_s, sent / lanes.ring), sent, lanes
    )


def in_switch_reduce(nbytes: float, lanes: Lanes) -> Cost:
    """All-reduce by the switch: a member offers S, and multicasts its reduced nth part."""
    if not lanes.in_switch:
        return IMPOSSIBLE
    sent = nbytes * (1.0 + 1.0 / lanes.size)
    seconds = pipelined(2, 2 * lanes.inside_hop_s, lanes.inside_hop_s, sent / lanes.in_switch)
    return Cost(seconds, sent, 0.0)


def hierarchical_gather(nbytes: float, lanes: Lanes) -> Cost:
    """All-gather across nodes by all members at once, then inside (reduce-scatter: backwards)."""
    if lanes.within is None or lanes.across is None:
        return IMPOSSIBLE
    inside = quickest((ring_gather, mesh_gather), nbytes, lanes.within)
    return inside.then(ring_gather(nbytes / lanes.per_node, lanes.across))


def hierarchical_reduce(nbytes: float, lanes: Lanes) -> Cost:
    """Reduce-scatter inside, all-reduce of a pth part across by each member, gather inside."""
    if lanes.within is None or lanes.across is None:
        return IMPOSSIBLE
    inside = quickest((ring_gather, mesh_gather), nbytes, lanes.within).twice()
    across = quickest((ring_reduce, tree_reduce), nbytes / lanes.per_node, lanes.across)
    return inside.then(across)


def quickest(algorithms: Iterable[Algorithm], nbytes: float, lanes: Lanes) -> Cost:
    """Return the least cost among `algorithms`."""
    return min(algorithm(nbytes, lanes) for algorithm in algorithms)


def pairwise_exchange(nbytes: float, lanes: Lanes) -> Cost:
    """All-to-all straight to each member; an nth part stays, both tiers work at once."""
    inside = nbytes * (lanes.per_node - 1) / lanes.size
    network = nbytes * (lanes.size - lanes.per_node) / lanes.size
    return both_tiers(inside, network, lanes)


def both_tiers(inside: float, network: float, lanes: Lanes, peers: int | None = None) -> Cost:
    """Return the cost of bytes over both tiers at once, each with a hop where it is used.

    A member serves one message after another: those inside, and one to each of `peers` (all others)
    over the network, which costs it no less than one inside.
    """
    peers = lanes.size - lanes.per_node if peers is None else peers
    inside_served_s = (lanes.per_node - 1) * lanes.peer_s
    inside_s = lanes.inside_hop_s + inside / lanes.inside_exchange if inside else 0.0
    network_s = 0.0
    if network:
        core_s = lanes.core_s if lanes.crossings else 0.0
        network_s = lanes.network_hop_s + core_s + network / lanes.network_exchange
    served_s = inside_served_s + (peers * lanes.network_peer_s if network else 0.0)
    return Cost(served_s + max(inside_s, network_s), inside, network)


def two_hop_exchange(nbytes: float, lanes: Lanes) -> Cost:
    """All-to-all whose `lanes.crossing` share of the bytes goes over the network.

    Copies for several experts of one node travel as one and are handed on inside it: all bytes
    but those that stay with a member then pass the scale-up links, as the network delivers.
    """
    network = nbytes * lanes.crossing if lanes.nodes > 1 else 0.0
    inside = nbytes * (lanes.per_node - 1) / lanes.per_node
    cost = both_tiers(inside, network, lanes, lanes.nodes - 1)
    forward_s = lanes.inside_hop_s if inside and network else 0.0
    return cost._replace(seconds=cost.seconds + forward_s)


def point_to_point(nbytes: float, lanes: Lanes) -> Cost:
    """One message between neighbours of the group; where any pair is split, across nodes."""
    if lanes.nodes > 1:
        core_s = lanes.core_s if lanes.crossings else 0.0
        return Cost(lanes.network_hop_s + core_s + nbytes / lanes.network, 0.0, nbytes)
    return Cost(lanes.inside_hop_s + nbytes / lanes.pair, nbytes, 0.0)


def ring_shift(nbytes: float, lanes: Lanes) -> Cost:
    """Send a message to the next member of the ring, as all do at once.

    Where the ring leaves a node one member's message goes out by its own card, and all wait for it.
    """
    if lanes.nodes > 1:
        crossing = nbytes / lanes.per_node
        seconds = lanes.network_hop_s + nbytes / lanes.card
        return Cost(max(seconds, nbytes / lanes.pair), nbytes - crossing, crossing)
    return Cost(lanes.inside_hop_s + nbytes / lanes.pair, nbytes, 0.0)


def ring_broadcast(nbytes: float, lanes: Lanes) -> Cost:
    """Broadcast in pieces around the ring; the last member sends nothing."""
    hops, sent = lanes.size - 1, nbytes * (lanes.size - 1) / lanes.size
    return along_ring(
        pipelined(hops, ring_latency(lanes), lanes.inside_hop_s, nbytes / lanes.ring), sent, lanes
    )


def tree_broadcast(nbytes: float, lanes: Lanes) -> Cost:
    """Broadcast in pieces down two complementary trees."""
    levels, latency_s = tree_depth(lanes)
    sent = nbytes * (lanes.size - 1) / lanes.size
    return along_ring(
        pipelined(levels, latency_s, lanes.inside_hop_s, nbytes / lanes.ring), sent, lanes
    )


GATHERS: Mapping[str, Algorithm] = {
    "ring": ring_gather,
    "mesh_direct": mesh_gather,
    "hierarchical": hierarchical_gather,
    "pat": pat_gather,
    "recursive": recursive_gather,
}
ALGORITHMS: Mapping[str, Mapping[str, Algorithm]] = {
    "all_reduce": {
        "ring": ring_reduce,
        "tree": tree_reduce,
        "in_switch": in_switch_reduce,
        "mesh_direct": mesh_reduce,
        "hierarchical": hierarchical_reduce,
        "recursive": recursive_reduce,
    },
    "all_gather": GATHERS,
    "reduce_scatter": GATHERS,
    "all_to_all": {"pairwise": pairwise_exchange},
    "node_limited_all_to_all": {"two_hop": two_hop_exchange},
    "send": {"point_to_point": point_to_point},
    "ring_shift": {"ring": ring_shift},
    "broadcast": {"ring": ring_broadcast, "tree": tree_broadcast},
}
TWO_PROTOCOLS = frozenset({"all_reduce", "all_gather", "reduce_scatter", "broadcast"})
ON_REQUEST = frozenset({"recursive"})  # rings are what the libraries pick across many nodes
OF_LIBRARY = {  # gathers that only some libraries have: the attribute of the network that says so
    "pat": "pat_gather", "hierarchical": "level_gather", "recursive": "level_gather",
}  # fmt: skip
BUS_FACTOR = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "all_to_all": 1.0}


def collective_time(
    kind: str, nbytes: float, group: Group, node: Node, *,
    algorithm: str | Algorithm | None = None, crossing: float | None = None,
) -> Collective:  # fmt: skip
    """Return the time of one collective of `group` on nodes like `node`.

    `nbytes`: all_reduce and broadcast, the buffer of each rank; all_gather, the gathered result;
    reduce_scatter, the input of each rank; all-to-all, the send buffer of each rank with its own
    part; send, the message. `crossing` (node_limited_all_to_all only, where it must be given):
    bytes over the network / `nbytes`, see `group.remote_copies`. `algorithm`: a name of
    `ALGORITHMS[kind]` or a pure function; without one, the fastest that a library would pick.
    Raises `ValueError` for an unknown kind or name, an algorithm that the links do not allow,
    a negative size, or a group over nodes without network cards.
    """
    return _time(kind, nbytes, group, wiring_of(node), algorithm, crossing)


@lru_cache(maxsize=65536)
def _time(
    kind: str, nbytes: float, group: Group, wiring: Wiring,
    algorithm: str | Algorithm | None, crossing: float | None,
) -> Collective:  # fmt: skip
    candidates = _candidates(kind, algorithm, wiring)
    if not 0.0 <= nbytes < math.inf:
        raise ValueError(f"{kind} of {nbytes} bytes: expected a size of 0 or more")
    lanes = lanes_of(group, beyond_knee(wiring, nbytes) if group.nodes > 1 else wiring)
    if kind == "node_limited_all_to_all":
        lanes = _crossing_lanes(lanes, crossing)
    if group.size == 1 or nbytes == 0:
        return Collective(0.0, "none", 0.0, 0.0)
    protocols = [lanes, lanes.quick] if lanes.quick and kind in TWO_PROTOCOLS else [lanes]
    cost, name = min((run(nbytes, p), name) for name, run in candidates.items() for p in protocols)
    if cost.seconds == math.inf:
        raise ValueError(f"{kind} cannot run as {name} on {group} over {wiring.scale_up.name}")
    seconds = cost.seconds + (lanes.network_start_s if kind in TWO_PROTOCOLS else 0.0)
    return Collective(seconds, name, cost.inside_bytes, cost.network_bytes)


def _candidates(
    kind: str, algorithm: str | Algorithm | None, wiring: Wiring
) -> Mapping[str, Algorithm]:
    """Return the algorithms to choose from, by name."""
    if kind not in ALGORITHMS:
        raise ValueError(f"unknown collective {kind!r}{did_you_mean(kind, ALGORITHMS)}")
    if callable(algorithm):
        return {getattr(algorithm, "__name__", "custom"): algorithm}
    known = ALGORITHMS[kind]
    if algorithm is None:
        left_out: Set[str] = ON_REQUEST
        if known is GATHERS:
            out = wiring.scale_out
            left_out = {name for name, key in OF_LIBRARY.items() if not getattr(out, key)}
        return {name: run for name, run in known.items() if name not in left_out}
    if algorithm not in known:
        hint = did_you_mean(algorithm, known)
        raise ValueError(f"{kind} has no algorithm {algorithm!r}{hint} (known: {', '.join(known)})")
    return {algorithm: known[algorithm]}


def _crossing_lanes(lanes: Lanes, crossing: float | None) -> Lanes:
    """Return `lanes` with the share of an all-to-all that crosses to other nodes."""
    if crossing is None or not 0.0 <= crossing <= 1.0:
        raise ValueError(f"crossing is {crossing}: expected the network's share of the bytes, 0..1")
    return replace(lanes, crossing=crossing)


def bus_bandwidth(kind: str, nbytes: float, size: int, seconds: float) -> float:
    """Return bytes/s as nccl-tests report them: the rate that a ring's links would need."""
    factor = BUS_FACTOR[kind] * (size - 1) / size if kind in BUS_FACTOR else 1.0
    return nbytes / seconds * factor
