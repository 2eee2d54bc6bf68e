"""What a message from one stage of a pipeline to another finds on its way.

Stages that sit beside each other in one domain use its links. Over the network all replicas send in
step, and share what lies above the leaves; a border between sites adds the line's latency, during which
the sender is free. Between pools of two kinds the slower end counts, and the `joint` that ties them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ersatz.device_models.networks.group import Group, lanes_of, nic_share, wiring_of
from ersatz.device_models.networks.traffic import message_shares
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.plan.layout import Communicator, on_pool
from ersatz.sim.plan.network import (
    Seat,
    fabric_of,
    network_matters,
    ranks_of,
    reason,
    seated,
    traffic_options,
    used_node,
)
from ersatz.sim.plan.schedules import Place
from ersatz.sim.scenario.scenario import FabricSpec, Joint, Pool, Scenario

Step = tuple[int, int]  # two stages that send each other messages, the lower first


@dataclass(frozen=True, slots=True)
class Border:
    """The way between two stages for each rank, in bytes/s per direction."""

    latency_s: float  # while which the sender's stream is busy, too
    rate: float
    link_rate: float  # of the links that carry it, when nobody else uses them
    inside: bool = False  # over scale-up links
    flight_s: float = 0.0  # a further latency, during which the sender is free
    above: float = 0.0  # use of the links above the leaves while all replicas send


NOWHERE = Border(0.0, math.inf, math.inf, inside=True)  # a result stays on its stage


def schedule_steps(places: Sequence[Sequence[Place]]) -> tuple[Step, ...]:
    """Return the pairs of stages between which chunks that stand so send messages."""
    at = {place: stage for stage, row in enumerate(places) for place in row}
    found = set()
    for (line, position), stage in at.items():
        to = at.get(Place(line, position + 1))
        if to is not None:
            found.add((min(stage, to), max(stage, to)))
    return tuple(sorted(found))


def stage_borders(
    scenario: Scenario, pools: Sequence[Pool], steps: Sequence[Step]
) -> Mapping[Step, Border]:
    """Return the border of each step, given the pool of every stage.

    Raises `InfeasibleError` when a fault cuts off a rank.
    """
    found: dict[Step, Border] = {}
    ranks = {pool.name: stage_ranks(scenario, pool) for pool in pools}
    for pool in {id(pool): pool for pool in pools}.values():
        stages = [stage for stage, own in enumerate(pools) if own is pool]
        own_steps = [(a, b) for a, b in steps if a != b and pools[a] is pools[b] is pool]
        if own_steps:
            columns = [(stages.index(a), stages.index(b)) for a, b in own_steps]
            borders = _pool_borders(on_pool(scenario, pool), pool, len(stages), columns)
            found |= dict(zip(own_steps, borders, strict=True))
    for step in steps:
        if step[0] == step[1]:
            found[step] = NOWHERE
        elif step not in found:
            ends = [pools[stage] for stage in step]
            both = [ranks[pool.name] for pool in ends]
            found[step] = joint_border(ends, scenario.joint or Joint(), both)
    return found


def stage_ranks(scenario: Scenario, pool: Pool) -> int:
    """Return how many ranks of a pool hold the same stage."""
    own = on_pool(scenario, pool).parallel
    return own.tp * own.cp * own.dp


def seen_by(
    borders: Mapping[Step, Border], scenario: Scenario, pools: Sequence[Pool], pool: Pool
) -> Mapping[Step, Border]:
    """Return borders with rates per rank of a pool: those to a stage of more or fewer ranks change.

    A border's own rate is that of the end with the fewest ranks, so that the way as a whole carries the same.
    """
    if not scenario.parallel.pools:
        return borders
    ranks = [stage_ranks(scenario, each) for each in pools]
    own = stage_ranks(scenario, pool)
    found = {}
    for (a, b), border in borders.items():
        share = min(ranks[a], ranks[b]) / own
        crosses = pools[a] is not pools[b]
        found[a, b] = replace(border, rate=border.rate * share) if crosses else border
    return found


def _pool_borders(
    scenario: Scenario, pool: Pool, stages: int, steps: Sequence[Step]
) -> list[Border]:
    """Return the borders between columns of stages of one pool."""
    node, parallel = used_node(pool), scenario.parallel
    spec = scenario.fabric or FabricSpec()
    at = Seat(wiring_of(node), pool.nodes, ranks_of(parallel, pool), spec, scenario.seed)
    members = seated(at, parallel.tp * parallel.cp * parallel.dp, stages)
    inside = [bool((members.domain[:, a] == members.domain[:, b]).all()) for a, b in steps]
    borders = [_scale_up_border(pool)] * len(steps)
    if all(inside):
        return borders
    whole = network_border(pool)
    over = [place for place, within in enumerate(inside) if not within]
    if not network_matters(node, pool.nodes, scenario.fabric):
        return [whole if place in over else border for place, border in enumerate(borders)]
    fabric = fabric_of(at.wiring, pool.nodes, spec)
    shares = message_shares(fabric, members, [steps[n] for n in over], **traffic_options(at))
    own = whole.rate * node.scale_out.oversubscription  # the fabric tells what blocks
    for place, share in zip(over, shares, strict=True):
        if not share.rate > 0:
            raise InfeasibleError(f"the network cuts off a rank of the pp groups: {reason(spec)}")
        a, b = (fabric.pod(members.node[:, column]) for column in steps[place])
        rate = own * min(share.rate / nic_share(_everybody(pool), at.wiring), 1.0)
        core_s = node.scale_out.core_latency_s if (a != b).any() else 0.0
        borders[place] = replace(whole, rate=rate, flight_s=core_s, above=share.above)
    return borders


def _everybody(pool: Pool) -> Group:
    """Return a group of two domains, all of whose ranks use the network at once."""
    return Group(2, 1, wiring_of(pool.node).domain)


def _scale_up_border(pool: Pool) -> Border:
    up = pool.node.scale_up
    lanes = lanes_of(Group(2, 2, 1), wiring_of(pool.node))
    return Border(lanes.inside_hop_s, lanes.pair, up.bandwidth * up.efficiency, inside=True)


def network_border(pool: Pool) -> Border:
    """Return the way of a message between two nodes of a pool, all ranks sending."""
    node = used_node(pool)
    if not node.nics:
        raise InfeasibleError(f"{node.title} has no network cards for messages between nodes")
    out = node.scale_out
    rate = nic_share(_everybody(pool), wiring_of(node)) * out.efficiency / out.oversubscription
    cards = pool.node.nic_bandwidth_per_device * out.efficiency
    return Border(out.latency_s + out.start_s, rate, cards)


def joint_border(pools: Sequence[Pool], joint: Joint, ranks: Sequence[int]) -> Border:
    """Return the way of messages from one pool to another, `ranks` of each talking at once.

    Direct, they go from card to card at the slower end's rate. Through the hosts, they are copied
    down and up again beside the way itself. Either way they get no more than the joint carries. The
    rate is that of each rank of the pool that has the fewest: more of them share the same way.
    """
    ends = [network_border(pool) for pool in pools]
    fewest = min(ranks)
    rate = min(_end_rate(pools, joint, count) * (count / fewest) for count in set(ranks))
    latency_s = max(end.latency_s for end in ends) + joint.latency_s
    return Border(latency_s, rate, min(end.link_rate for end in ends))


def _end_rate(pools: Sequence[Pool], joint: Joint, ranks: int) -> float:
    """Return what each of `ranks` ranks at one end gets of the way, its copies included."""
    rate = joint_rate(pools, joint, ranks)
    return 1.0 / (1.0 / rate + 2.0 / joint.copy_bandwidth) if joint.path == "host" else rate


def joint_rate(pools: Sequence[Pool], joint: Joint, ranks: int) -> float:
    """Return the bytes/s per direction that each of `ranks` ranks gets of what ties pools together."""
    devices = max(pool.node.devices for pool in pools)
    rate = min(joint.node_bandwidth / devices, joint.bandwidth / ranks)
    if joint.path == "host":
        return rate if rate < math.inf else min(network_border(pool).rate for pool in pools)
    return min(rate, *(network_border(pool).rate for pool in pools))


def joined(
    communicator: Communicator, pools: Sequence[Pool], joint: Joint, rings: int
) -> Communicator:
    """Return a group that reaches over several pools: its ring passes the joint there and back.

    `rings` counts the groups of its kind; each passes with as many members as a domain has of it.
    """
    group, node = communicator.group, communicator.node
    if group.size == 1 or not node.nics:
        return communicator
    rate = joint_rate(pools, joint, rings * group.per_node)
    if joint.path == "host":
        rate = min(rate, joint.copy_bandwidth)  # pieces are copied while others travel
    own = lanes_of(group, wiring_of(node)).network if group.nodes > 1 else math.inf
    out = replace(
        node.scale_out, efficiency=node.scale_out.efficiency * min(rate / own, 1.0),
        core_latency_s=joint.latency_s + node.scale_out.core_latency_s,
    )  # fmt: skip
    return replace(communicator, group=replace(group, crossings=max(group.crossings, 2)),
                   node=replace(node, scale_out=out))  # fmt: skip
