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
from ersatz.device_models.networks.traffic import (
    Members,
    Share,
    exchange_share,
    message_shares,
    ring_share,
)
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.plan.layout import Communicator, communicators, group_extents
from ersatz.sim.plan.placement import node_positions, node_ranks
from ersatz.sim.scenario.scenario import FabricSpec, Parallel, Pool, Scenario


def placed_communicators(
    parallel: Parallel, pool: Pool, dp: int, spec: FabricSpec | None, seed: int
) -> Mapping[str, Communicator]:
    """Return the communicators of a pool, each with the node as its members find it.

    `parallel.dp` counts the pool's own replicas (`share_of`), `dp` those of the whole job. Raises
    `InfeasibleError` when a fault cuts off a rank.
    """
    node = used_node(pool)
    packed = communicators(parallel, node, dp)
    if not network_matters(node, pool.nodes, spec):
        return packed
    spec = spec or FabricSpec()
    placed = {}
    for name, communicator in packed.items():
        stride, size = _extent(name, parallel, pool, communicator.group.size)
        found = communicator
        if name in ("world", "ends"):
            found = replace(communicator, group=_crossing(communicator.group, node, pool, spec))
        elif name == "pp" and size > 1:  # what its messages get is told border by border
            at = Seat(wiring_of(node), pool.nodes, ranks_of(parallel, pool), spec, seed)
            found = replace(communicator, group=_sitting(at, stride, size))
        elif size > 1:
            at = Seat(wiring_of(node), pool.nodes, ranks_of(parallel, pool), spec, seed)
            found = _placed(name, communicator, node, at, stride, size)
        placed[name] = found
    return placed


def _crossing(group: Group, node: Node, pool: Pool, spec: FabricSpec) -> Group:
    """Return a group of all ranks or of both ends: its ring passes every border between pods once."""
    pods = job_fabric(node, pool.nodes, spec).pods if group.nodes > 1 else 1
    return replace(group, crossings=pods if pods > 1 else 0)


class Seat(NamedTuple):
    """Where the ranks of a pool sit."""

    wiring: Wiring
    nodes: int
    ranks: int
    spec: FabricSpec
    seed: int


def ranks_of(parallel: Parallel, pool: Pool) -> int:
    """Return how many ranks sit on a pool."""
    return min(parallel.world, pool.devices)


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
    node, spec = used_node(pool), spec or FabricSpec()
    wiring, found = wiring_of(node), []
    ranks = ranks_of(parallel, pool)
    at = Seat(wiring, pool.nodes, ranks, spec, seed)
    for name, communicator in communicators(parallel, node, dp).items():
        stride, size = _extent(name, parallel, pool, communicator.group.size)
        if name in ("world", "ends") or size == 1:
            continue
        members = seated(at, stride, size)
        place = _place(members, wiring, pool.nodes, spec) if node.nics else "inside"
        if place == "inside":
            lanes = lanes_of(Group(size, size, 1), wiring)
            up = wiring.scale_up
            rate = lanes.inside / up.efficiency
            found.append(Served(name, size, size, place, rate, lanes.inside_exchange / up.all_to_all,
                                rate, "", "", 0.0))  # fmt: skip
            continue
        seen = _reached(at, stride, size, name)
        ideal = nic_share(seen.group, wiring)
        fabric = fabric_of(wiring, pool.nodes, spec)
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
    fabric = fabric_of(wiring, nodes, spec)
    if same(members.node // fabric.network.leaf_nodes):
        return "leaf"
    return "pod" if same(fabric.pod(members.node)) else "core"


def job_fabric(node: Node, nodes: int, spec: FabricSpec) -> Fabric:
    """Return the fabric that a job's nodes stand in, with its faults and its other traffic."""
    return fabric_of(wiring_of(node), nodes, spec)


def dead_cards(scenario: Scenario) -> int:
    """Return how many network cards of the job's nodes have no live port."""
    spec = scenario.fabric
    if not spec or not spec.faults:
        return 0
    (pool,) = scenario.pools  # a job on several has no faults
    node = used_node(pool)
    fabric = job_fabric(node, pool.nodes, spec)
    at = node_positions(pool.nodes, node.scale_out.leaf_nodes, spec, scenario.seed)
    ports = fabric.capacity[: fabric.first[1]].reshape(fabric.nodes, fabric.cards, -1)
    return int((ports[at] <= 0).all(axis=2).sum())


def used_node(pool: Pool) -> Node:
    """Return the pool's node with the network cards and the gathers that its software uses."""
    used, node = int(pool.stack.nics_used), pool.node
    out = node.scale_out
    if pool.stack.pat_gather != out.pat_gather:
        node = replace(node, scale_out=replace(out, pat_gather=pool.stack.pat_gather))
    if pool.stack.collective_factor != 1.0:
        node = _slowed(node, pool.stack.collective_factor)
    return replace(node, nics=min(used, node.nics)) if used else node


def _slowed(node: Node, factor: float) -> Node:
    """Return a node whose collectives reach other shares of its links' bandwidth, at most all."""
    up, out = node.scale_up, node.scale_out
    return replace(
        node, scale_up=replace(up, efficiency=min(up.efficiency * factor, 1.0)),
        scale_out=replace(out, efficiency=min(out.efficiency * factor, 1.0)),
    )  # fmt: skip


def network_matters(node: Node, nodes: int, spec: FabricSpec | None) -> bool:
    """Whether the fabric can change anything: it is described, it may block, or there are sites."""
    out = node.scale_out
    if nodes == 1 or not node.nics:
        return False
    several_pods = bool(out.pod_nodes) and nodes > out.pod_nodes
    blocks = out.oversubscription > 1 and bool(out.leaf_nodes)
    core = out.core_oversubscription > 1 or out.core_bandwidth > 0 or out.core_latency_s > 0
    return spec is not None or blocks or (several_pods and core)


def _extent(name: str, parallel: Parallel, pool: Pool, size: int) -> tuple[int, int]:
    """Return stride and size of a communicator's groups among the ranks of one pool."""
    stage = parallel.tp * parallel.cp * parallel.dp
    stride, _, twins = group_extents(parallel, parallel.dp)[name]
    across = name in ("pp", "ends", "world")
    largest = (pool.devices if across else min(stage, pool.devices)) // stride
    return stride, max(min(size // twins, largest), 1)


def _placed(
    name: str, communicator: Communicator, node: Node, at: Seat, stride: int, size: int
) -> Communicator:
    seen = _reached(at, stride, size, name)
    group = seen.group
    if communicator.group.size != size:  # the job's, where the group reaches into other pools
        group = replace(communicator.group, crossings=group.crossings)
    if group.nodes == 1:
        return replace(communicator, group=group)
    if not (seen.ring.rate > 0 and seen.exchange.rate > 0):
        raise InfeasibleError(
            f"the network cuts off a rank of the {name} groups: {reason(at.spec)}"
        )
    ideal = nic_share(group, at.wiring)
    out = node.scale_out
    network = replace(
        out,
        efficiency=out.efficiency * min(seen.ring.rate / ideal, 1.0),
        all_to_all=out.all_to_all * min(seen.exchange.rate / ideal, 1.0),
        oversubscription=1.0,
    )
    above = seen.exchange.above if communicator.exchanges else seen.ring.above
    return replace(communicator, group=group, node=replace(node, scale_out=network), above=above)


def reason(spec: FabricSpec) -> str:
    """Say what cuts a rank off."""
    broken = [f"{f.part} {list(f.at)} is down" for f in spec.faults if f.left == 0]
    return "; ".join(broken) or "other jobs use all of it"


@lru_cache(maxsize=64)
def fabric_of(wiring: Wiring, nodes: int, spec: FabricSpec) -> Fabric:
    """Return the fabric that so many nodes of a job stand in."""
    size = max(spec.size, nodes)
    fabric = build_fabric(_bare(wiring), size, hashed=spec.routing == "hashed")
    return fabric.damaged(spec.faults).busy(spec.background)


def _bare(wiring: Wiring) -> Node:
    """Return a node that has nothing but its wiring."""
    return Node("", "", None, wiring.devices, wiring.scale_up, wiring.scale_out, wiring.nics, 0, 0)  # type: ignore[arg-type]


class Reached(NamedTuple):
    """What groups of one kind find when all of them talk at once."""

    group: Group  # as it sits
    ring: Share  # of the neighbours' messages where the group is a pipeline
    exchange: Share


@lru_cache(maxsize=1024)
def _sitting(at: Seat, stride: int, size: int) -> Group:
    return _group_of(fabric_of(at.wiring, at.nodes, at.spec), seated(at, stride, size), size)


@lru_cache(maxsize=1024)
def _reached(at: Seat, stride: int, size: int, name: str) -> Reached:
    members = seated(at, stride, size)
    fabric = fabric_of(at.wiring, at.nodes, at.spec)
    group = _group_of(fabric, members, size)
    ways = traffic_options(at)
    if name == "pp":
        steps = [(stage, stage + 1) for stage in range(size - 1)]
        ring = min(message_shares(fabric, members, steps, **ways), key=lambda share: share.rate)
    else:
        ring = ring_share(fabric, members, **ways)
    exchange = exchange_share(fabric, members, **ways) if name in ("ep", "ulysses") else ring
    return Reached(group, ring, exchange)


def _group_of(fabric: Fabric, members: Members, size: int) -> Group:
    """Return the group that counts for all of its kind, as they sit."""
    inside, spans = members.per_domain, members.spans
    return Group(
        size, inside, members.groups_per_domain, 0 if spans * inside == size else spans,
        crossings=_pod_borders(fabric, members),
    )  # fmt: skip


def traffic_options(at: Seat) -> dict[str, int]:
    """Return how each member uses its cards and the network."""
    per_card = max(at.wiring.nics // at.wiring.devices, 1)
    return {"connections": at.spec.connections, "seed": at.seed, "per_card": per_card}


def _pod_borders(fabric: Fabric, members: Members) -> int:
    """Return how often the ring of a group, of the worst one, passes from pod to pod."""
    pods = fabric.pod(members.sorted_by_domain().node)
    return int((pods != np.roll(pods, -1, axis=1)).sum(axis=1).max())


def seated(at: Seat, stride: int, size: int) -> Members:
    """Return where the members of groups of ranks 0, stride, 2 stride, ... sit."""
    return group_members(at.wiring, at.nodes, stride, size, at.spec, at.seed, at.ranks)


def group_members(
    wiring: Wiring, nodes: int, stride: int, size: int, spec: FabricSpec, seed: int, ranks: int = 0
) -> Members:
    """Return where the members of groups of ranks 0, stride, 2 stride, ... sit in the fabric.

    `ranks` counts those that the nodes hold; 0: one on every device. Raises `InfeasibleError` where
    they do not fill whole groups.
    """
    ranks = ranks or nodes * wiring.devices
    if ranks % (stride * size):
        raise InfeasibleError(
            f"groups of {size} (stride {stride}) do not fill {ranks} ranks: degrees must divide them"
        )
    rank = _groups(ranks, stride, size)
    place, local = node_ranks(rank, nodes, wiring.devices, spec.rank_order)
    position = node_positions(nodes, wiring.scale_out.leaf_nodes, spec, seed)
    per_domain = max(wiring.domain // wiring.devices, 1)  # nodes of a supernode stand side by side
    parts = max(wiring.devices // wiring.domain, 1)  # links may join only a part of a node
    domain = _in_order_of_appearance(position // per_domain)[place] * parts
    domain += local * parts // wiring.devices
    return Members(domain, position[place], local * wiring.nics // wiring.devices)


def _in_order_of_appearance(names: Routes) -> Routes:
    """Number domains as ranks meet them: rings lead through them in this order."""
    _, first, number = np.unique(names, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number.ravel()]


def _groups(ranks: int, stride: int, size: int) -> Routes:
    """Return the ranks of every group, shape (groups, size)."""
    blocks = np.arange(ranks).reshape(-1, size, stride)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1)).reshape(-1, size)
