"""Collective times against arithmetic by hand, and what must hold of them all."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from links import GB, MESH, PLAIN, US, inside, make_node, scale_out, scale_up, seconds

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import load_node
from ersatz.device_models.networks.collectives import ALGORITHMS, Cost, collective_time, pipelined
from ersatz.device_models.networks.group import (
    Group,
    Lanes,
    group_of,
    lanes_of,
    nic_share,
    wiring_of,
)


def test_ring_all_reduce_moves_two_n_minus_1_nths() -> None:
    # 800 MB over 100 GB/s: 2 x 7/8 x 8 ms = 14 ms, and 2 x 7 hops of 1 us.
    result = collective_time("all_reduce", 800e6, inside(8), PLAIN, algorithm="ring")
    assert result.seconds == pytest.approx(14e-3 + 14 * US)
    assert (result.algorithm, result.network_bytes) == ("ring", 0.0)
    assert result.inside_bytes == pytest.approx(1400e6)


@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter"])
def test_ring_across_nodes_leaves_by_every_members_card(kind: str) -> None:
    # 2 nodes of 8, cards of 10 GB/s: rings at min(100, 8 x 10) = 80 GB/s. 15/16 of 1.6 GB is
    # 1.5 GB: 18.75 ms. 14 hops inside (14 us) and one across (10 us).
    result = collective_time(kind, 1.6e9, Group(16, 8, 1), PLAIN, algorithm="ring")
    assert result.seconds == pytest.approx(18.75e-3 + 24 * US)
    assert result.network_bytes == pytest.approx(1.5e9 / 8)


def test_a_ring_of_one_member_per_node_has_one_share_of_the_cards() -> None:
    # BLOOM's nodes: 4 cards of 12.5 GB/s for 8 devices are 6.25 GB/s each, and a tp=8 job's
    # data-parallel ring has one member per node. 3/4 of 1 GB takes 120 ms; 3 hops of 10 us.
    bloom = make_node(scale_up(), scale_out(12.5 * GB), nics=4)
    group = group_of(bloom, stride=8, size=4)
    assert seconds("all_gather", 1e9, group, bloom) == pytest.approx(0.120 + 30 * US)


def test_oversubscription_divides_the_network() -> None:
    thin = make_node(scale_up(), scale_out(oversubscription=4.0, latency_s=0.0))
    wide = make_node(scale_up(), scale_out(latency_s=0.0))
    group = Group(16, 1, 8)
    assert seconds("all_gather", 1e9, group, thin) == pytest.approx(
        4 * seconds("all_gather", 1e9, group, wide)
    )


def test_pipelined_message_by_hand() -> None:
    assert pipelined(1, 2.0, 1.0, 5.0) == 7.0  # one hop: nothing to overlap
    # Two hops of 1 s and 4 s of bytes: two pieces, each 1 + 2 s, three of them in a row.
    assert pipelined(2, 2.0, 1.0, 4.0) == pytest.approx(9.0)
    assert pipelined(9, 0.0, 0.0, 4.0) == 4.0  # free hops: endlessly many pieces
    # Two hops of 50 s, pieces that take 1 s to handle: 100 s in flight, 3 x 2 s, and one more piece.
    assert pipelined(2, 100.0, 1.0, 4.0) == pytest.approx(107.0)


@given(
    hops=st.integers(1, 50), latency=st.floats(1e-6, 10.0), piece=st.floats(0.0, 1.0),
    length=st.floats(0.0, 100.0), pieces=st.integers(1, 200),
)  # fmt: skip
def test_no_number_of_pieces_is_better(
    hops: int, latency: float, piece: float, length: float, pieces: int
) -> None:
    cut = latency + (hops - 1 + pieces) * length / pieces + (pieces - 1) * piece
    assert pipelined(hops, latency, piece, length) <= cut * (1 + 1e-12)


def test_small_messages_take_the_quick_protocol_and_large_ones_the_other() -> None:
    # Hops of 1 us at half the rate against hops of 4 us. An all-gather over 8: 7 us + S 7/8 / 50 GB/s
    # against 28 us + S 7/8 / 100 GB/s; equal at 21 us = S 7/8 / 100 GB/s, S = 2.4 MB.
    both = make_node(scale_up(bulk_latency_s=4 * US, quick_share=0.5))
    small = seconds("all_gather", 8e5, Group(8, 8, 1), both)
    assert small == pytest.approx(7 * US + 7e5 / 50e9)
    large = seconds("all_gather", 8e8, Group(8, 8, 1), both)
    assert large == pytest.approx(28 * US + 7e8 / 100e9)


def test_an_exchange_serves_its_peers_in_turn() -> None:
    # 8 members: one hop of 1 us, 7 messages of 2 us, 7/8 of 8 MB at 100 GB/s are 70 us.
    slow = make_node(scale_up(peer_s=2 * US))
    assert seconds("all_to_all", 8e6, Group(8, 8, 1), slow) == pytest.approx(85 * US)


def test_a_crowded_network_slows_with_its_nodes() -> None:
    # Exponent 1/2: eight nodes sustain half of what two do.
    crowded = make_node(scale_up(), scale_out(crowding=0.5, latency_s=0.0))
    two = seconds("all_gather", 1e9, Group(2, 1, 1), crowded)
    eight = seconds("all_gather", 1e9, Group(8, 1, 1), crowded)
    assert eight / two == pytest.approx((7 / 8) / (1 / 2) * 2)


@pytest.mark.parametrize(
    ("nbytes", "share"), [(1e6, 1.0), (2**0.5 * 1e6, 0.5), (2e6, 0.25), (1e9, 0.25)]
)
def test_buffers_beyond_the_knee_go_slower(nbytes: float, share: float) -> None:
    # a share of 1/4 from twice the knee on; half way in logarithms it is 1/2
    plain = make_node(scale_up(), scale_out(latency_s=0.0))
    bent = make_node(scale_up(), scale_out(latency_s=0.0, knee_bytes=1e6, beyond_knee=0.25))
    for kind in ("all_reduce", "all_gather", "all_to_all", "send"):
        slower = seconds(kind, nbytes, Group(4, 1, 1), bent)
        assert slower == pytest.approx(seconds(kind, nbytes, Group(4, 1, 1), plain) / share)
    assert seconds("all_reduce", nbytes, inside(8), bent) == seconds(
        "all_reduce", nbytes, inside(8), plain
    )


def test_tree_has_fewer_hops_and_twice_the_bytes() -> None:
    # 8 members in 2 nodes of 4: 2 levels inside and 1 across, up and down: 2 x (2 + 10) us.
    group = Group(8, 4, 2)
    tiny = seconds("all_reduce", 1e-6, group, PLAIN, algorithm="tree")
    assert tiny == pytest.approx(24 * US, rel=1e-4)
    free = make_node(scale_up(latency_s=0.0), scale_out(latency_s=0.0))
    # Rings of 4 x 10 GB/s: 2 x 2 GB take 100 ms.
    assert seconds("all_reduce", 2e9, group, free, algorithm="tree") == pytest.approx(0.1)


def test_switch_takes_all_and_gives_back_an_nth() -> None:
    # 1 GB x (1 + 1/8) into a switch that reduces at 90 of 100 GB/s: 12.5 ms.
    switch = make_node(scale_up(in_switch=0.9, latency_s=0.0))
    result = collective_time("all_reduce", 1e9, inside(8), switch)
    assert result.seconds == pytest.approx(12.5e-3)
    assert result.algorithm == "in_switch"
    # Across nodes no one switch sees all members.
    assert collective_time("all_reduce", 1e9, Group(16, 8, 1), switch).algorithm != "in_switch"


def test_mesh_uses_the_links_between_members_only() -> None:
    # Seven links of 10 GB/s. A pair has one: all of its 1 GB passes at 10 GB/s, twice half of it.
    # Eight have seven each: 2 x 7/8 GB at 70 GB/s. Direct exchange takes two hops.
    assert seconds("all_reduce", 1e9, inside(2), MESH) == pytest.approx(0.1 + 2 * US)
    eight = collective_time("all_reduce", 1e9, inside(8), MESH)
    assert eight.seconds == pytest.approx(0.025 + 2 * US)
    assert eight.algorithm == "mesh_direct"


def test_hierarchical_all_reduce_by_hand() -> None:
    # 2 nodes of 4, S = 800 MB. Scatter and gather inside: 2 x (3/4 x 8 ms + 3 us). Across, each
    # member reduces its 200 MB with one other: 2 x 1/2 x 20 ms, 2 hops of 10 us.
    group = Group(8, 4, 2)
    result = seconds("all_reduce", 800e6, group, PLAIN, algorithm="hierarchical")
    assert result == pytest.approx(12e-3 + 6 * US + 20e-3 + 20 * US)


def test_a_library_gathers_by_tiers_only_where_it_can() -> None:
    # NCCL has a flat ring: 7 hops across and 56 inside. HCCL doubles: 3 and 3.
    group = Group(64, 8, 1)
    flat = collective_time("all_gather", 1e3, group, PLAIN)
    assert flat.algorithm == "ring"
    assert flat.seconds == pytest.approx(7 * 10 * US + 56 * US, rel=0.01)
    levels = make_node(scale_up(), scale_out(level_gather=True))
    by_tiers = collective_time("all_gather", 1e3, group, levels)
    assert by_tiers.algorithm == "recursive"
    assert by_tiers.seconds == pytest.approx(3 * 10 * US + 3 * US, rel=0.01)
    assert collective_time("all_gather", 1e10, group, levels).algorithm == "ring"


def test_aggregated_trees_gather_in_log2_hops_where_a_node_has_one_member() -> None:
    # 1,024 nodes: a ring has 1,023 hops of 10 us, aggregated trees ten; the bytes are the same.
    with_trees = make_node(scale_up(), scale_out(pat_gather=True))
    group = Group(1024, 1, 8)
    ring = collective_time("all_gather", 200e6, group, PLAIN).seconds
    trees = collective_time("all_gather", 200e6, group, with_trees)
    assert ring == pytest.approx(1023 * 10 * US + 200e6 * 1023 / 1024 / 10e9)
    assert (trees.algorithm, ring - trees.seconds) == ("pat", pytest.approx(1013 * 10 * US))
    two = Group(2048, 2, 4)
    assert collective_time("all_gather", 1e6, two, with_trees).algorithm == "ring"


def test_a_collective_over_the_network_starts_once_and_hops_by_protocol() -> None:
    # Start 10 us, hop 14 us (simple) or 4 us at 92 % of the rate. 128 nodes, 214 MB (a layer of Llama 3
    # 70B over tp 8): 127 hops and 214 MB x 127/128 over 10 GB/s; small ones take the quick protocol.
    out = scale_out(start_s=10 * US, latency_s=14 * US, quick_latency_s=4 * US, quick_share=0.92)
    node, group = make_node(scale_up(), out), Group(128, 1, 8)
    bytes_s = 214e6 * 127 / 128 / 10e9
    assert seconds("all_gather", 214e6, group, node) == pytest.approx(
        10 * US + min(127 * 14 * US + bytes_s, 127 * 4 * US + bytes_s / 0.92)
    )
    assert seconds("all_gather", 1e3, group, node) == pytest.approx(
        10 * US + 127 * 4 * US, rel=0.01
    )
    inside_only = seconds("all_gather", 1e3, inside(8), node)
    assert inside_only == seconds("all_gather", 1e3, inside(8), PLAIN)


def test_borders_between_sites_are_passed_once_each() -> None:
    # A ring through two sites passes the line there and back, whatever its length; 1 ms each time.
    far = make_node(scale_up(), scale_out(core_latency_s=1e-3))
    group = Group(256, 1, 8, crossings=2)
    more = {kind: seconds(kind, 1e6, group, far) - seconds(kind, 1e6, Group(256, 1, 8), far)
            for kind in ("all_gather", "all_to_all")}  # fmt: skip
    assert more == {"all_gather": pytest.approx(2e-3), "all_to_all": pytest.approx(1e-3)}
    tree = [seconds("all_reduce", 1e3, g, far, algorithm="tree") for g in (group, Group(256, 1, 8))]
    assert tree[0] - tree[1] == pytest.approx(2e-3)


@given(
    st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"]),
    st.sampled_from([2, 4, 8, 64, 128]), st.floats(1e2, 1e10), st.sampled_from([1, 2, 4, 8]),
    st.sampled_from(["ascend-910c-8", "gb200-nvl72", "m890-128", "h100-8", "ascend-910b2-8",
                     "mi300x-8", "ppu-810e-16"]),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_splitting_a_domain_is_never_faster(
    kind: str, size: int, nbytes: float, parts: int, name: str
) -> None:
    node = load_node(name)
    domain = wiring_of(node).domain
    size = min(size, domain // 8 * 8)
    parts = min(parts, size // 2)
    whole = seconds(kind, nbytes, Group(size, size, 1), node)
    split = seconds(kind, nbytes, Group(size, size // parts, 1), node)
    assert split >= whole * (1 - 1e-9)


@given(st.floats(1e3, 1e10), st.sampled_from([2, 16, 128]), st.floats(1.0, 4.0),
       st.sampled_from(["all_reduce", "all_gather", "all_to_all", "send", "broadcast"]))  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_more_bandwidth_and_shorter_hops_never_slow(
    nbytes: float, nodes: int, factor: float, kind: str
) -> None:
    node, group = load_node("h100-8"), Group(nodes * 8, 8, 1)
    usual = seconds(kind, nbytes, group, node)
    out = node.scale_out
    for better in (
        replace(out, nic_bandwidth=out.nic_bandwidth * factor),
        replace(out, latency_s=out.latency_s / factor), replace(out, start_s=0.0),
        replace(out, quick_latency_s=out.quick_latency_s / factor), replace(out, peer_s=0.0),
    ):  # fmt: skip
        assert seconds(kind, nbytes, group, replace(node, scale_out=better)) <= usual * (1 + 1e-9)
    fewer = seconds(kind, nbytes, Group(nodes * 8, 8, 1, crossings=2), node)
    assert fewer >= usual


def test_a_mesh_uses_all_its_links() -> None:
    # Four devices with seven links each, spread over three others: a ring of four gets all seven.
    mesh = make_node(scale_up("mesh", links=7, link=10 * GB, domain=4), devices=4)
    assert lanes_of(Group(4, 4, 1), wiring_of(mesh)).inside == pytest.approx(70 * GB)
    assert lanes_of(Group(2, 2, 2), wiring_of(mesh)).pair == pytest.approx(70 / 3 * GB)


def test_recursive_gather_by_hand_and_on_request_only() -> None:
    # 4 nodes of 2: one level inside and two across, 21 us. Of 800 MB each member takes 3/8 over
    # its 10 GB/s card (30 ms) and 4/8 over 100 GB/s (4 ms).
    group = Group(8, 2, 4)
    result = seconds("all_gather", 800e6, group, PLAIN, algorithm="recursive")
    assert result == pytest.approx(34e-3 + 21 * US)
    assert collective_time("all_gather", 8.0, group, PLAIN).algorithm != "recursive"


def test_all_to_all_is_as_slow_as_its_slower_tier() -> None:
    # 2 nodes of 8, 1.6 GB each: 8/16 cross at 10 GB/s x 0.5 = 160 ms, beside which the 7/16
    # inside vanish.
    half = make_node(scale_up(), scale_out(all_to_all=0.5))
    result = collective_time("all_to_all", 1.6e9, Group(16, 8, 1), half)
    assert result.seconds == pytest.approx(0.160 + 10 * US)
    assert result.inside_bytes == pytest.approx(0.7e9)
    assert result.network_bytes == pytest.approx(0.8e9)
    # In one node 7/8 of 0.8 GB pass at 100 GB/s.
    assert seconds("all_to_all", 0.8e9, inside(8), half) == pytest.approx(7e-3 + 1 * US)


def test_node_limited_all_to_all_crosses_once_and_forwards_inside() -> None:
    # 1.6 GB of copies, of which a quarter cross at 10 GB/s: 40 ms and a hop to be handed on.
    result = collective_time(
        "node_limited_all_to_all", 1.6e9, Group(16, 8, 1), PLAIN, crossing=0.25
    )
    assert result.seconds == pytest.approx(0.040 + 11 * US)
    assert result.inside_bytes == pytest.approx(1.4e9)
    # With little crossing, the 7/8 of all copies that pass inside decide: 14 ms.
    inner = seconds("node_limited_all_to_all", 1.6e9, Group(16, 8, 1), PLAIN, crossing=0.01)
    assert inner == pytest.approx(0.014 + 2 * US)


def test_messages_between_two() -> None:
    # A switch gives a pair all links, a mesh one, the network one share of the cards.
    assert seconds("send", 1e9, inside(2), PLAIN) == pytest.approx(0.010 + 1 * US)
    assert seconds("send", 1e9, inside(2), MESH) == pytest.approx(0.100 + 1 * US)
    assert seconds("send", 1e9, Group(2, 1, 8), PLAIN) == pytest.approx(0.100 + 10 * US)


def test_broadcast_passes_the_buffer_once() -> None:
    free = make_node(scale_up(latency_s=0.0), scale_out(latency_s=0.0))
    assert seconds("broadcast", 1e9, inside(8), free) == pytest.approx(0.010)
    # A tiny one needs three levels of a tree.
    assert seconds("broadcast", 1e-6, inside(8), PLAIN) == pytest.approx(3 * US, rel=1e-4)


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_alone_or_with_nothing_to_say_costs_nothing(kind: str) -> None:
    crossing = 0.5 if kind == "node_limited_all_to_all" else None
    assert seconds(kind, 1e9, Group(1, 1, 8), PLAIN, crossing=crossing) == 0.0
    assert seconds(kind, 0.0, Group(16, 8, 1), PLAIN, crossing=crossing) == 0.0


def test_caller_may_bring_an_algorithm() -> None:
    def carrier_pigeon(nbytes: float, lanes: Lanes) -> Cost:
        return Cost(3600.0 * lanes.nodes, 0.0, nbytes)

    result = collective_time("all_reduce", 1e9, Group(16, 8, 1), PLAIN, algorithm=carrier_pigeon)
    assert (result.seconds, result.algorithm) == (7200.0, "carrier_pigeon")
    assert result.network_bytes == 1e9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "all_reduc"}, "unknown collective 'all_reduc', did you mean 'all_reduce'"),
        ({"algorithm": "rings"}, "no algorithm 'rings', did you mean 'ring'"),
        ({"algorithm": "mesh_direct"}, "cannot run as mesh_direct"),
        ({"nbytes": -1.0}, "expected a size of 0 or more"),
        ({"nbytes": math.nan}, "expected a size of 0 or more"),
        ({"kind": "node_limited_all_to_all"}, "crossing is None"),
        ({"kind": "node_limited_all_to_all", "crossing": 1.5}, "crossing is 1.5"),
        ({"node": make_node(scale_up(), nics=0)}, "has no network cards"),
    ],
)
def test_impossible_requests_are_named(arguments: dict[str, Any], message: str) -> None:
    request: dict[str, Any] = {
        "kind": "all_reduce",
        "nbytes": 1.0,
        "group": Group(16, 8, 1),
        "node": PLAIN,
    }
    with pytest.raises(ValueError, match=message):
        collective_time(**request | arguments)


shares = st.floats(0.2, 1.0)
ups = st.builds(
    lambda kind, in_switch, efficiency, exchange, latency: scale_up(
        kind, links=7, link=25 * GB, in_switch=in_switch if kind == "switched" else 0.0,
        efficiency=efficiency, all_to_all=exchange, latency_s=latency,
    ),
    st.sampled_from(["switched", "mesh"]), st.just(0.0) | shares, shares, shares,
    st.floats(0.0, 2e-5),
)  # fmt: skip
outs = st.builds(
    lambda card, efficiency, latency, thin: scale_out(
        card, efficiency=efficiency, latency_s=latency, oversubscription=thin
    ),
    st.floats(1 * GB, 100 * GB), shares, st.floats(0.0, 1e-3), st.floats(1.0, 8.0),
)  # fmt: skip
nodes = st.builds(lambda up, out, nics: make_node(up, out, nics=nics), ups, outs, st.integers(1, 8))
groups = st.builds(
    lambda per_node, count: Group(per_node * count, per_node, 8 // per_node),
    st.sampled_from([1, 2, 4, 8]), st.integers(1, 200),
).filter(lambda group: group.size > 1)  # fmt: skip
sizes = st.floats(1.0, 1e12)


@given(kind=st.sampled_from(list(ALGORITHMS)), node=nodes, group=groups, small=sizes, large=sizes)
def test_more_bytes_never_take_less_time(
    kind: str, node: Node, group: Group, small: float, large: float
) -> None:
    crossing = 0.3 if kind == "node_limited_all_to_all" else None
    small, large = sorted((small, large))
    less = seconds(kind, small, group, node, crossing=crossing)
    assert less <= seconds(kind, large, group, node, crossing=crossing) * (1 + 1e-12)


@given(
    kind=st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]),
    node=nodes, group=groups, nbytes=sizes,
)  # fmt: skip
def test_no_faster_than_the_raw_links(kind: str, node: Node, group: Group, nbytes: float) -> None:
    # Each member must get what it lacks over its links and its share of the cards, and each node
    # what it lacks over the shares of its members.
    up = node.scale_up
    links = min(group.per_node - 1, up.links) if up.kind == "mesh" else up.links
    share = nic_share(group, wiring_of(node))
    member = nbytes * (group.size - 1) / group.size / (links * up.link_bandwidth + share)
    away = nbytes * (group.size - group.per_node) / group.size / (group.per_node * share)
    measured = seconds(kind, nbytes, group, node)
    assert measured * (1 + 1e-12) >= max(member, away)


@given(node=nodes, group=groups, nbytes=sizes)
def test_all_reduce_is_no_slower_than_scatter_and_gather(
    node: Node, group: Group, nbytes: float
) -> None:
    parts = sum(seconds(kind, nbytes, group, node) for kind in ("reduce_scatter", "all_gather"))
    assert seconds("all_reduce", nbytes, group, node) <= parts * (1 + 1e-12)


@given(node=nodes, group=groups, nbytes=sizes, algorithm=st.sampled_from(["ring", "recursive"]))
def test_gather_sends_all_but_an_nth(
    node: Node, group: Group, nbytes: float, algorithm: str
) -> None:
    result = collective_time("all_gather", nbytes, group, node, algorithm=algorithm)
    sent = nbytes * (group.size - 1) / group.size
    assert result.inside_bytes + result.network_bytes == pytest.approx(sent)
    assert (result.network_bytes > 0) == (group.nodes > 1)
