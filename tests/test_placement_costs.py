"""What it costs to move a group across nodes or supernodes, on all four vendors, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from factories import make_scenario, make_stack

from ersatz.device_models.catalog.reading import load_node, load_scale_out
from ersatz.device_models.networks.collectives import collective_time
from ersatz.device_models.networks.fabric import Fault
from ersatz.device_models.networks.group import Group
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.plan.layout import Communicator
from ersatz.sim.plan.network import placed_communicators
from ersatz.sim.scenario.scenario import FabricSpec, Parallel, Pool
from ersatz.sim.step.step import step_seconds

S = 1e9  # bytes of each rank's buffer


def communicator(name: str, kind: str, parallel: Parallel, nodes: int, spec: FabricSpec,
                 network: str | None = None) -> Communicator:  # fmt: skip
    """Return a communicator of a catalogue node's pool."""
    node = load_node(name)
    if network:
        node = replace(node, scale_out=load_scale_out(network))
    pool = Pool("", node, nodes, make_stack())
    return placed_communicators(parallel, pool, parallel.dp, spec, 0)[kind]


@pytest.mark.parametrize(
    ("name", "inside_rate", "inside_hops", "card_rate"),
    [
        # Nvidia: 8 links of 25 GB/s and NVSwitch's sum; a card of 50 GB/s each.
        ("h800-8", None, None, 50e9),
        # Huawei: a mesh of 7 x 28 GB/s, direct; a card of 25 GB/s each.
        ("ascend-910b2-8", 7 * 28e9, 1, 25e9),
        # Alibaba: 7 links of 50 GB/s to a switch, a ring of 7 hops; nic cards over sixteen devices.
        ("ppu-810e-16", 7 * 50e9, 7, None),
        # AMD: a mesh of 7 x 64 GB/s, direct; a card of 50 GB/s each.
        ("mi300x-8", 7 * 64e9, 1, 50e9),
    ],
)
def test_a_tensor_parallel_group_across_nodes(
    name: str, inside_rate: float | None, inside_hops: int | None, card_rate: float | None
) -> None:
    node = load_node(name)
    up, out = node.scale_up, node.scale_out
    parallel = Parallel(tp=8, dp=node.devices)  # as many nodes as tensor ranks
    near = communicator(name, "tp", parallel, 8, FabricSpec())
    far = communicator(name, "tp", parallel, 8, FabricSpec(rank_order="dealt"))
    assert near.group.nodes == 1
    assert (far.group.per_node, far.group.groups_per_node) == (1, node.devices)
    # Across: a start, 7 hops twice, 7/8 of S twice, over a device's share of the cards.
    if card_rate is None:
        card_rate = node.nics * out.nic_bandwidth / node.devices
    ring = out.start_s + 2 * (7 * out.latency_s + S * 7 / 8 / (card_rate * out.efficiency))
    assert collective_time("all_reduce", S, far.group, far.node).seconds == pytest.approx(ring)
    took = collective_time("all_reduce", S, near.group, near.node).seconds
    if inside_rate and inside_hops:
        direct = 2 * (inside_hops * up.latency_s + S * 7 / 8 / (inside_rate * up.efficiency))
        assert took == pytest.approx(direct)
    else:
        # The switch adds: S (1 + 1/8) over 200 GB/s at its share, two hops of 3.4 us, pieces.
        least = S * 9 / 8 / (8 * 25e9 * up.in_switch)
        assert least < took < least * 1.05 + 2 * up.bulk_latency_s
    assert ring > 3 * took


def test_an_expert_group_across_supernodes() -> None:
    node = load_node("ascend-910c-8")
    domain = node.scale_up.domain
    one, two = Group(domain, domain, 1), Group(2 * domain, domain, 1)
    up, out = node.scale_up, node.scale_out
    inside = collective_time("all_to_all", S, one, node).seconds
    by_hand = up.latency_s + (domain - 1) * up.peer_s + S * (domain - 1) / domain / (
        up.bandwidth * up.all_to_all
    )  # fmt: skip
    assert inside == pytest.approx(by_hand)
    # Half of the bytes now cross: over a device's card at its share, more than the other half takes.
    # All others are served in turn, those behind the network for no less than those inside.
    cards = node.nics * out.nic_bandwidth / node.devices * out.all_to_all
    across = collective_time("all_to_all", S, two, node).seconds
    served = (2 * domain - 1) * max(up.peer_s, out.peer_s)
    assert across == pytest.approx(served + out.latency_s + S / 2 / cards)
    assert across > inside


def test_a_blocking_tree_slows_rings_between_leaves_only() -> None:
    # tp inside the node; dp rings of 12 nodes. Leaves of 6 nodes at 3:1. Side by side a ring crosses
    # between leaves twice in 12 hops, 8 rings over 800 GB/s of uplinks: nothing is lost. Dealt over
    # the leaves every hop crosses: 48 members' 2,400 GB/s over 800: a third.
    parallel = Parallel(tp=8, dp=12)
    spec = FabricSpec(size=12)
    packed = communicator("h800-8", "dp", parallel, 12, spec, "oversubscribed-3to1")
    striped = communicator("h800-8", "dp", parallel, 12, replace(spec, placement="striped"),
                           "oversubscribed-3to1")  # fmt: skip
    whole = load_scale_out("oversubscribed-3to1").efficiency
    assert packed.node.scale_out.efficiency == pytest.approx(whole)
    assert striped.node.scale_out.efficiency == pytest.approx(whole / 3)
    assert (packed.node.scale_out.oversubscription, packed.above) == (1.0, pytest.approx(0.5))


def test_a_leaf_down_halves_the_rate_of_its_rail_with_one_leaf_or_two() -> None:
    # Two leaves for each card: half of its ports is left. One leaf: the card is dead, and after a restart
    # its device shares the next card, as NCCL passes over ports that are not active.
    parallel = Parallel(tp=8, dp=32)
    broken = FabricSpec(faults=(Fault("leaf", (0,)),))
    for network in ("hpn7", "hpn7-single-tor"):
        found = communicator("h800-8", "dp", parallel, 32, broken, network)
        half = load_scale_out(network).efficiency / 2
        assert found.node.scale_out.efficiency == pytest.approx(half)


def test_a_node_without_a_card_is_cut_off() -> None:
    gone = tuple(Fault("card", (0, number)) for number in range(8))
    with pytest.raises(InfeasibleError, match=r"cuts off a rank of the dp groups: card \[0, 0\]"):
        communicator("h800-8", "dp", Parallel(tp=8, dp=32), 32, FabricSpec(faults=gone))


def test_the_step_pays_for_a_group_that_was_moved() -> None:
    node = replace(load_node("h800-8"), scale_out=load_scale_out("ib-ndr400-rail"))
    case = make_scenario(pools=(Pool("", node, 2, make_stack()),), parallel=Parallel(tp=2, dp=8))
    assert step_seconds(replace(case, fabric=FabricSpec())) == step_seconds(case)
    dealt = replace(case, fabric=FabricSpec(rank_order="dealt"))
    assert step_seconds(dealt) > 1.05 * step_seconds(case)


def test_a_group_of_one_talks_to_nobody() -> None:
    alone = make_scenario(parallel=Parallel(dp=8), fabric=FabricSpec(rank_order="dealt"))
    assert (
        placed_communicators(alone.parallel, alone.pools[0], 8, alone.fabric, 0)["tp"].group.size
        == 1
    )
