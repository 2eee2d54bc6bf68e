"""Fabrics: how many parts, who crosses what, what is broken, and what groups get, worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from links import GB, make_node, scale_out, scale_up, seconds

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import list_nodes, load_node, load_scale_out
from ersatz.device_models.networks.fabric import Fabric, Fault, bisection, build_fabric
from ersatz.device_models.networks.group import Group, group_of, nic_share, wiring_of
from ersatz.device_models.networks.traffic import (
    Members,
    exchange_share,
    message_shares,
    ring_share,
)
from ersatz.sim.plan.network import group_members
from ersatz.sim.plan.placement import node_positions, node_ranks
from ersatz.sim.scenario.scenario import FabricSpec


def tree(kind: str = "fat-tree", **more: Any) -> Node:
    """Return nodes of 8 devices and 8 cards of 10 GB/s, leaves of 4 nodes, 16 uplinks."""
    network = replace(scale_out(10 * GB), kind=kind, leaf_nodes=4, uplinks=16, **more)  # type: ignore[arg-type]
    return make_node(scale_up(), network)


def one_group(fabric: Fabric, nodes: list[int]) -> Members:
    """Return one group with a member on the first card of each of some nodes."""
    place = np.array([nodes])
    return Members(place, place, np.zeros_like(place))


def test_parts_of_a_plain_fat_tree() -> None:
    # 8 nodes on 2 leaves; a leaf carries 4 x 8 x 10 GB/s down and, at 2:1, 160 GB/s up on 16 uplinks.
    fabric = build_fabric(tree(oversubscription=2.0), 8, hashed=True)
    assert (fabric.leaves, fabric.uplinks, fabric.pods) == (2, 16, 1)
    assert fabric.capacity[fabric.first[2]] == pytest.approx(10 * GB)
    # Half of the nodes to the other half: one leaf's uplinks.
    assert bisection(fabric) == pytest.approx(160 * GB)


def test_rails_have_a_leaf_for_each_card_and_planes_spines_of_their_own() -> None:
    rails = build_fabric(tree("rail"), 8)
    assert rails.leaves == 16
    place = np.array([0, 4, 7])
    assert rails.leaf(place, np.array([0, 0, 3]), np.zeros(3, int)).tolist() == [0, 8, 11]
    planes = build_fabric(tree("multi-plane", planes=8), 8, hashed=True)
    leaves = np.arange(16)
    spines = planes.spine(np.zeros(16, int), leaves, np.zeros(16, int))
    assert spines.tolist() == [16 * (leaf % 8) for leaf in leaves]


def test_routes_climb_no_higher_than_they_must() -> None:
    fabric = build_fabric(tree(pod_nodes=8, core_oversubscription=4.0), 16)
    zero = np.zeros(3, int)
    routes = fabric.routes(np.array([0, 0, 0]), np.array([1, 5, 9]), zero, zero, zero)
    # Nodes 0 and 1 share a leaf: up and down. 5 is on the next leaf: a spine too. 9 is in pod 1.
    assert (routes >= 0).sum(axis=1).tolist() == [2, 4, 6]
    # Pod: 2 leaves of 320 GB/s up; the core carries a quarter.
    assert fabric.capacity[fabric.first[4]] == pytest.approx(160 * GB)


def test_hpn_7_as_published() -> None:
    # 15 segments of 1,024 devices: 15,360 devices, 8 rails x 2 ports = 16 leaves per segment.
    node = replace(load_node("h800-8"), scale_out=load_scale_out("hpn7"))
    fabric = build_fabric(node, 1920, hashed=True)
    assert (fabric.leaves, fabric.pods, fabric.planes) == (240, 1, 2)
    assert fabric.capacity[fabric.first[2]] == pytest.approx(50 * GB, rel=0.001)  # 400 Gbit/s


def test_ring_share_on_a_blocking_tree() -> None:
    # One member below each leaf: nothing is shared.
    fabric = build_fabric(tree(oversubscription=2.0), 8)
    assert ring_share(fabric, one_group(fabric, [0, 4])).rate == pytest.approx(10 * GB)
    # All 32 devices of each leaf talk to the other leaf: 320 GB/s over 160 GB/s of uplinks.
    nodes = np.array([[n, n + 4] for n in range(4) for _ in range(8)])
    cards = np.array([[c, c] for _ in range(4) for c in range(8)])
    everybody = ring_share(fabric, Members(nodes, nodes, cards))
    assert everybody.rate == pytest.approx(5 * GB)
    assert everybody.above == pytest.approx(1.0)
    # The same pairs beside each other, below one leaf, never meet.
    near = np.array([[2 * n, 2 * n + 1] for n in range(4) for _ in range(8)])
    assert ring_share(fabric, Members(near, near, cards)).rate == pytest.approx(10 * GB)


def test_exchange_share_counts_what_leaves_a_leaf() -> None:
    # 8 nodes all to all at 2:1. Of a member's bytes 4/7 cross to the other leaf: 32 members x 4/7
    # over 160 GB/s of uplinks give 8.75 GB/s, less than the card's 10.
    fabric = build_fabric(tree(oversubscription=2.0), 8)
    nodes = np.array([list(range(8)) for _ in range(8)])
    cards = np.array([[c] * 8 for c in range(8)])
    assert exchange_share(fabric, Members(nodes, nodes, cards)).rate == pytest.approx(8.75 * GB)


def test_messages_of_all_replicas_share_the_uplinks() -> None:
    # 32 devices of each leaf send to the other: 320 GB/s over 160 GB/s of uplinks, in both directions.
    # A step back from the last stage to the first would double that.
    fabric = build_fabric(tree(oversubscription=2.0), 8)
    nodes = np.array([[n, n + 4] for n in range(4) for _ in range(8)])
    cards = np.array([[c, c] for _ in range(4) for c in range(8)])
    members = Members(nodes, nodes, cards)
    (share,) = message_shares(fabric, members, [(0, 1)])
    assert (share.rate, share.above) == (pytest.approx(5 * GB), pytest.approx(1.0))
    round_trip = np.concatenate([nodes, nodes], axis=1)[:, [0, 1, 2, 3]]
    turned = Members(round_trip, round_trip, np.concatenate([cards, cards], axis=1))
    shares = message_shares(fabric, turned, [(0, 1), (1, 2), (2, 3), (0, 3)])
    assert all(share.rate <= 2.5 * GB for share in shares)


def test_messages_of_the_slowest_group_count_step_by_step() -> None:
    # Node 1's card is at half: 0 -> 1 and 1 -> 2 go at 5 GB/s, 2 -> 3 at 10. The other group, on other
    # cards, has 10.
    fabric = build_fabric(tree(), 8).damaged([Fault("card", (1, 0), 0.5)])
    nodes = np.array([[0, 1, 2, 3], [0, 1, 2, 3]])
    members = Members(nodes, nodes, np.array([[0] * 4, [1] * 4]))
    shares = message_shares(fabric, members, [(0, 1), (1, 2), (2, 3)])
    assert [share.rate / GB for share in shares] == pytest.approx([5, 5, 10])
    assert ring_share(fabric, members).rate == pytest.approx(5 * GB)


def test_hashing_collides_and_more_connections_help() -> None:
    fabric = build_fabric(tree(), 32, hashed=True)
    rng = np.random.default_rng(1)
    nodes = np.stack([rng.permutation(32) for _ in range(8)])
    cards = np.array([[c] * 32 for c in range(8)])
    members = Members(nodes, nodes, cards)
    even = ring_share(build_fabric(tree(), 32), members).rate
    one = ring_share(fabric, members, seed=3).rate
    many = ring_share(fabric, members, connections=16, seed=3).rate
    assert even == pytest.approx(10 * GB)
    assert one <= many <= even
    assert one < 0.7 * even  # some uplink of 20 GB/s carries three flows or more
    assert ring_share(fabric, members, seed=3).rate == one  # the same seed, the same collisions


def test_one_of_two_leaves_down_halves_its_nodes_and_the_only_one_cuts_them_off() -> None:
    dual = build_fabric(tree("dual-plane", ports=2, planes=2), 8)
    pair = one_group(dual, [0, 1])
    assert ring_share(dual, pair).rate == pytest.approx(10 * GB)
    assert ring_share(dual.damaged([Fault("leaf", (0,))]), pair).rate == pytest.approx(5 * GB)
    assert ring_share(dual.damaged([Fault("plane", (1,))]), pair).rate == pytest.approx(5 * GB)
    # Both leaves of card 0 down: its devices use card 1, which their neighbours share with them.
    both = dual.damaged([Fault("leaf", (0,)), Fault("leaf", (1,))])
    assert ring_share(both, pair).rate == pytest.approx(10 * GB)
    two = Members(np.array([[0, 1]] * 2), np.array([[0, 1]] * 2), np.array([[0, 0], [1, 1]]))
    assert ring_share(both, two).rate == pytest.approx(5 * GB)
    assert exchange_share(both, two).rate == pytest.approx(5 * GB)
    # A tree has all cards of a node on one leaf: without it they are cut off.
    single = build_fabric(tree(), 8)
    assert ring_share(single.damaged([Fault("leaf", (0,))]), pair).rate == 0.0
    assert ring_share(single.damaged([Fault("leaf", (1,))]), pair).rate == pytest.approx(10 * GB)


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize(("down", "left"), [(4, 0.75), (8, 0.5), (12, 0.25), (16, 0.0)])
def test_uplinks_that_are_down_are_missing(hashed: bool, down: int, left: float) -> None:
    # Two leaves of four nodes, 32 cards each of 10 GB/s, 16 uplinks of 20: every card sends to the other
    # leaf. What is left of the uplinks is left of the rate, and nothing of none; a hash gives no more.
    nodes = np.array([[n, n + 4] for n in range(4) for _ in range(8)])
    cards = np.array([[c, c] for _ in range(4) for c in range(8)])
    fabric = build_fabric(tree(), 8, hashed=hashed)
    broken = fabric.damaged([Fault("uplink", (0, number)) for number in range(down)])
    members = Members(nodes, nodes, cards)
    for rate in (ring_share(broken, members).rate, exchange_share(broken, members).rate,
                 message_shares(broken, members, [(0, 1)])[0].rate):  # fmt: skip
        assert rate <= left * 10 * GB * (1 + 1e-9)
        assert hashed or rate == pytest.approx(left * 10 * GB)


@pytest.mark.parametrize("hashed", [False, True])
def test_leaves_without_a_common_spine_are_parted(hashed: bool) -> None:
    # Two uplinks: leaf 0 has lost the first, leaf 1 the second. Half of each is left, and no way.
    node = replace(tree(), scale_out=replace(tree().scale_out, uplinks=2))
    fabric = build_fabric(node, 8, hashed=hashed)
    pair = one_group(fabric, [0, 4])
    broken = fabric.damaged([Fault("uplink", (0, 0)), Fault("uplink", (1, 1))])
    assert ring_share(broken, pair).rate == exchange_share(broken, pair).rate == 0.0
    spines = fabric.damaged([Fault("spine", (0,)), Fault("spine", (1,))])
    assert ring_share(spines, pair).rate == 0.0
    half = fabric.damaged([Fault("spine", (0,)), Fault("spine", (1,), 0.5)])
    assert ring_share(half, pair).rate == pytest.approx(10 * GB)


def test_flows_avoid_a_dead_uplink() -> None:
    # 16 uplinks of 20 GB/s (32 cards x 10 / 16); fifteen are left.
    fabric = build_fabric(tree(), 8, hashed=True).damaged([Fault("uplink", (0, 5))])
    source, target = np.zeros(200, int), np.full(200, 4)
    zero = np.zeros(200, int)
    chosen = fabric.choose_uplinks(source, target, zero, zero, np.arange(200))
    assert sorted(set(chosen.tolist())) == [n for n in range(16) if n != 5]
    spine = build_fabric(tree(), 8, hashed=True).damaged([Fault("spine", (5,))])
    # Where traffic spreads evenly the sixteen act as one, and fifteen sixteenths are left.
    for fault in (Fault("uplink", (0, 5)), Fault("spine", (5,))):
        even = build_fabric(tree(), 8).damaged([fault])
        of_leaf = even.capacity[even.first[2] : even.first[2] + even.uplinks]
        assert of_leaf.tolist() == pytest.approx([15 / 16 * 320 * GB, 0.0])
    assert 5 not in spine.choose_uplinks(source, target, zero, zero, np.arange(200))


def test_a_slow_card_and_other_jobs() -> None:
    fabric = build_fabric(tree(), 8)
    far = one_group(fabric, [0, 4])
    slow = fabric.damaged([Fault("card", (4, 0), 0.25)])
    assert ring_share(slow, far).rate == pytest.approx(2.5 * GB)
    # Other jobs use 99 % of 320 GB/s of uplinks.
    assert ring_share(fabric.busy(0.99), far).rate == pytest.approx(3.2 * GB)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("leaf", (99,)), "the fabric has"),
        (Fault("card", (0,)), "expected \\[node, card\\]"),
        (Fault("tor", (0,)), "no part 'tor'"),  # type: ignore[arg-type]
        (Fault("leaf", (0,), 1.5), "expected 0 to 1"),
    ],
)
def test_impossible_faults_are_named(fault: Fault, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_fabric(tree(), 8).damaged([fault])


def test_fabrics_need_nodes_and_cards() -> None:
    with pytest.raises(ValueError, match="0 nodes with 8 network cards"):
        build_fabric(tree(), 0)
    with pytest.raises(ValueError, match="4 nodes with 0 network cards"):
        build_fabric(replace(tree(), nics=0), 4)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list_nodes()), st.integers(0, 6), st.integers(0, 5), st.integers(1, 3))
def test_packed_placement_gives_the_groups_of_the_closed_form(
    name: str, stride_log: int, size_log: int, more: int
) -> None:
    node = load_node(name)
    stride, size = 2**stride_log, 2**size_log
    wiring = wiring_of(node)
    block = int(np.lcm(stride * size, np.lcm(node.devices, wiring.domain)))
    members = group_members(wiring, more * block // node.devices, stride, size, FabricSpec(), 0)
    assert members.domain.shape == (more * block // size, size)
    expected = group_of(node, stride, size)
    aligned = wiring.domain % (stride * size) == 0 or stride * size % wiring.domain == 0
    if not aligned:  # the closed form looks at the first group only
        assert members.per_domain <= expected.per_node
        return
    assert members.per_domain == expected.per_node
    if size > expected.per_node:
        assert members.groups_per_domain == expected.groups_per_node


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 8), st.integers(0, 2**31),
       st.sampled_from(["packed", "striped", "scattered"]))  # fmt: skip
def test_every_node_gets_a_position_of_its_own(
    nodes: int, more: int, leaf_nodes: int, seed: int, placement: str
) -> None:
    spec = FabricSpec(size=nodes + more, placement=placement)
    places = node_positions(nodes, leaf_nodes, spec, seed)
    assert len(set(places.tolist())) == nodes
    assert places.max() < nodes + more
    assert (places == node_positions(nodes, leaf_nodes, spec, seed)).all()


def test_striped_neighbours_are_on_different_leaves_and_dealt_ranks_on_different_nodes() -> None:
    places = node_positions(4, 4, FabricSpec(size=16, placement="striped"), 0)
    assert (places // 4).tolist() == [0, 1, 2, 3]
    place, local = node_ranks(np.arange(16), 4, 4, "dealt")
    assert place[:5].tolist() == [0, 1, 2, 3, 0]
    assert local[:5].tolist() == [0, 0, 0, 0, 1]


def test_a_healthy_fabric_that_does_not_block_gives_every_member_its_cards() -> None:
    for name in ("h800-8", "ascend-910b2-8", "mi300x-8", "ppu-810e-16"):
        node = replace(load_node(name), scale_out=load_scale_out("multiplane-8"))
        wiring = wiring_of(node)
        members = group_members(wiring, 64, node.devices, 64, FabricSpec(), 0)
        share = nic_share(group_of(node, node.devices, 64), wiring)
        assert ring_share(build_fabric(node, 64), members).rate == pytest.approx(share)


def test_a_switch_on_the_way_costs_no_bandwidth() -> None:
    # ASTRA-sim's congestion-aware switch stores and forwards: a message of S over two links of B takes
    # 2 S / B. Here a ring whose members sit below different leaves, four links apart, gets B all the same.
    fabric = build_fabric(tree(), 32)
    near, far = one_group(fabric, [0, 1, 2, 3]), one_group(fabric, [0, 8, 16, 24])
    assert ring_share(fabric, far).rate == ring_share(fabric, near).rate == pytest.approx(10 * GB)
    node = make_node(scale_up(), scale_out(10 * GB, latency_s=0.0))
    took = seconds("all_reduce", 1e9, Group(4, 1, 1), node, algorithm="ring")
    assert took == pytest.approx(2 * 3 / 4 * 1e9 / (10 * GB))
