"""What each communicator gets of the network, from where its ranks really sit.

Ranks fill nodes, nodes stand somewhere in the fabric, and all groups of one kind talk at once. The
fabric then says how much of a card each member can use; collectives are told so through the `node`
that their communicator sees. Communicators of different kinds at the same time are L3's subject
(`ersatz.sim.step.coupled`).

Not modelled: which ring a library would draw through scattered nodes (it takes them in rank order).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.networks.fabric import Fabric, build_fabric
from ersatz.device_models.networks.graph import link_name
from ersatz.device_models.networks.group import Group, Wiring, lanes_of, nic_share, wiring_of
from ersatz.device_models.networks.sharing import Routes
from ersatz.device_models.networks.traffic import Members, Share, exchange_share, ring_share
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.plan.layout import Communicator, communicators, group_extents
from ersatz.sim.plan.placement import node_positions, node_ranks
from ersatz.sim.scenario.scenario import FabricSpec, Parallel, Pool

EXCHANGES = frozenset({"ep"})  # communicators that do all-to-all


def placed_communicators(
    parallel: Parallel, pool: Pool, dp: int, spec: FabricSpec | None, seed: int
) -> Mapping[str, Communicator]:
    """Return the communicators of a pool, each with the node as its members find it.

    `dp` counts the replicas of the whole job. Raises `InfeasibleError` when a fault cuts off a rank.
    """
    node = _with_used_cards(pool)
    packed = communicators(parallel, node, dp)
    if not _matters(node, pool.nodes, spec):
        return packed
    spec = spec or FabricSpec()
    placed = {}
    for name, communicator in packed.items():
        stride, size = _extent(name, parallel, pool, communicator.group.size)
        found = communicator
        if size > 1 and name != "world":
            found = _placed(name, communicator, node, pool.nodes, stride, size, spec, seed)
        placed[name] = found
    return placed


@dataclass(frozen=True, slots=True)
class Served:
    """What the members of one kind of communicator get of the network; rates in bytes/s per member."""

    name: str
    size: int  # members
    per_domain: int  # of them inside one scale-up domain
    place: Literal["inside", "leaf", "pod", "core"]  # how far up the widest group reaches
    ring: float  # before what collectives lose; 0: a member is cut off
    exchange: float
    ideal: float  # the same in a healthy network that does not block
    ring_link: str  # what holds them, as "leaf 3 -> spine 7"; empty inside a domain
    exchange_link: str
    above: float  # use of the fullest link above the leaves when all groups talk


def served_communicators(
    parallel: Parallel, pool: Pool, dp: int, spec: FabricSpec | None, seed: int
) -> tuple[Served, ...]:
    """Return what each communicator of a pool with several members gets where its ranks sit.

    Like `placed_communicators`, but told in full, and a member that is cut off gets 0.
    """
    node, spec = _with_used_cards(pool), spec or FabricSpec()
    wiring, found = wiring_of(node), []
    for name, communicator in communicators(parallel, node, dp).items():
        stride, size = _extent(name, parallel, pool, communicator.group.size)
        if name == "world" or size == 1 or pool.devices % (stride * size):
            continue
        members = group_members(wiring, pool.nodes, stride, size, spec, seed)
        place = _place(members, wiring, pool.nodes, spec) if node.nics else "inside"
        if place == "inside":
            lanes = lanes_of(Group(size, size, 1), wiring)
            up = wiring.scale_up
            rate = lanes.inside / up.efficiency
            found.append(Served(name, size, size, place, rate, lanes.inside_exchange / up.all_to_all,
                                rate, "", "", 0.0))  # fmt: skip
            continue
        seen = _reached(wiring, pool.nodes, stride, size, spec, seed, name)
        ideal = nic_share(seen.group, wiring)
        fabric = _fabric(wiring, pool.nodes, spec)
        found.append(Served(name, size, members.per_domain, place, min(seen.ring.rate, ideal),
                            min(seen.exchange.rate, ideal), ideal,
                            link_name(fabric, seen.ring.link), link_name(fabric, seen.exchange.link),
                            max(seen.ring.above, seen.exchange.above)))  # fmt: skip
    return tuple(found)


def _place(
    members: Members, wiring: Wiring, nodes: int, spec: FabricSpec
) -> Literal["inside", "leaf", "pod", "core"]:
    """Return how far up the network the widest group reaches."""

    def same(array: Routes) -> bool:
        return bool((array == array[:, :1]).all())

    if same(members.domain):
        return "inside"
    fabric = _fabric(wiring, nodes, spec)
    if same(members.node // fabric.network.leaf_nodes):
        return "leaf"
    return "pod" if same(fabric.pod(members.node)) else "core"


def job_fabric(node: Node, nodes: int, spec: FabricSpec) -> Fabric:
    """Return the fabric that a job's nodes stand in, with its faults and its other traffic."""
    return _fabric(wiring_of(node), nodes, spec)


def _with_used_cards(pool: Pool) -> Node:
    """Return the pool's node with the network cards that its software uses."""
    used = int(pool.stack.nics_used)
    return replace(pool.node, nics=min(used, pool.node.nics)) if used else pool.node


def _matters(node: Node, nodes: int, spec: FabricSpec | None) -> bool:
    """Whether the fabric can change anything: it is described, or it may block."""
    out = node.scale_out
    if nodes == 1 or not node.nics:
        return False
    several_pods = bool(out.pod_nodes) and nodes > out.pod_nodes
    blocks = out.oversubscription > 1 and bool(out.leaf_nodes)
    return spec is not None or blocks or (several_pods and out.core_oversubscription > 1)


def _extent(name: str, parallel: Parallel, pool: Pool, size: int) -> tuple[int, int]:
    """Return stride and size of a communicator's groups among the ranks of one pool."""
    stage = parallel.tp * parallel.cp * parallel.dp
    stride, _, twins = group_extents(parallel, parallel.dp)[name]
    across = name in ("pp", "ends", "world")
    largest = (pool.devices if across else min(stage, pool.devices)) // stride
    return stride, max(min(size // twins, largest), 1)


def _placed(
    name: str, communicator: Communicator, node: Node, nodes: int, stride: int, size: int,
    spec: FabricSpec, seed: int,
) -> Communicator:  # fmt: skip
    wiring = wiring_of(node)
    if nodes * node.devices % (stride * size):
        return communicator
    seen = _reached(wiring, nodes, stride, size, spec, seed, name)
    group = seen.group
    if communicator.group.size != size or spec.rank_order == "packed":
        group = communicator.group  # the job's, where the group reaches into other pools
    if group.nodes == 1:
        return replace(communicator, group=group)
    if not (seen.ring.rate > 0 and seen.exchange.rate > 0):
        raise InfeasibleError(f"the network cuts off a rank of the {name} groups: {_reason(spec)}")
    ideal = nic_share(group, wiring)
    out = node.scale_out
    network = replace(
        out,
        efficiency=out.efficiency * min(seen.ring.rate / ideal, 1.0),
        all_to_all=out.all_to_all * min(seen.exchange.rate / ideal, 1.0),
        latency_s=out.latency_s + (out.core_latency_s if seen.spans_pods else 0.0),
        oversubscription=1.0,
    )
    above = seen.exchange.above if name in EXCHANGES else seen.ring.above
    return replace(communicator, group=group, node=replace(node, scale_out=network), above=above)


def _reason(spec: FabricSpec) -> str:
    broken = [f"{f.part} {list(f.at)} is down" for f in spec.faults if f.left == 0]
    return "; ".join(broken) or "other jobs use all of it"


@lru_cache(maxsize=64)
def _fabric(wiring: Wiring, nodes: int, spec: FabricSpec) -> Fabric:
    size = max(spec.size, nodes)
    fabric = build_fabric(_bare(wiring), size, hashed=spec.routing == "hashed")
    return fabric.damaged(spec.faults).busy(spec.background)


def _bare(wiring: Wiring) -> Node:
    """Return a node that has nothing but its wiring."""
    return Node("", "", None, wiring.devices, wiring.scale_up, wiring.scale_out, wiring.nics, 0, 0)  # type: ignore[arg-type]


class Reached(NamedTuple):
    """What groups of one kind find when all of them talk at once."""

    group: Group  # as it sits
    ring: Share
    exchange: Share
    spans_pods: bool


@lru_cache(maxsize=1024)
def _reached(
    wiring: Wiring, nodes: int, stride: int, size: int, spec: FabricSpec, seed: int, name: str
) -> Reached:
    members = group_members(wiring, nodes, stride, size, spec, seed)
    inside = members.per_domain
    group = Group(size, inside, members.groups_per_domain)
    fabric = _fabric(wiring, nodes, spec)
    per_card = max(wiring.nics // wiring.devices, 1)
    ways = {"connections": spec.connections, "seed": seed, "per_card": per_card}
    ring = ring_share(fabric, members, pairs=name == "pp", **ways)
    exchange = exchange_share(fabric, members, **ways) if name in EXCHANGES else ring
    pods = fabric.pod(members.node)
    return Reached(group, ring, exchange, bool((pods != pods[:, :1]).any()))


def group_members(
    wiring: Wiring, nodes: int, stride: int, size: int, spec: FabricSpec, seed: int
) -> Members:
    """Return where the members of groups of ranks 0, stride, 2 stride, ... sit in the fabric."""
    ranks = _groups(nodes * wiring.devices, stride, size)
    place, local = node_ranks(ranks, nodes, wiring.devices, spec.rank_order)
    position = node_positions(nodes, wiring.scale_out.leaf_nodes, spec, seed)
    per_domain = max(wiring.domain // wiring.devices, 1)
    parts = max(wiring.devices // wiring.domain, 1)  # links may join only a part of a node
    domain = place // per_domain * parts + local * parts // wiring.devices
    return Members(domain, position[place], local * wiring.nics // wiring.devices)


def _groups(ranks: int, stride: int, size: int) -> Routes:
    """Return the ranks of every group, shape (groups, size)."""
    blocks = np.arange(ranks).reshape(-1, size, stride)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1)).reshape(-1, size)
