"""Where the members of a group sit, written out by hand and rank by rank."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations, product
from operator import itemgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from links import GB, PLAIN, make_node, scale_up

from ersatz.device_models.networks.group import (
    Group,
    group_of,
    lanes_of,
    nic_share,
    remote_copies,
    wiring_of,
)


@pytest.mark.parametrize(
    ("stride", "size", "expected"),
    [
        (1, 8, Group(8, 8, 1)),  # tensor parallel over a whole node
        (1, 4, Group(4, 4, 2)),  # two such groups in a node
        (8, 16, Group(16, 1, 8)),  # data parallel beside tp 8: eight rings leave each node
        (2, 8, Group(8, 4, 2)),  # ranks 0 2 4 6 | 8 10 12 14, and the odd ones beside them
        (1, 64, Group(64, 8, 1)),
        (
            3,
            4,
            Group(4, 1, 8, 2),
        ),  # ranks 0 3 6 | 9: the emptiest node holds one, and all use cards
        (1, 12, Group(12, 4, 2, 2)),  # ranks 0..7 | 8..11, 12..15 | 16..23
        (5, 1, Group(1, 1, 8)),
    ],
)
def test_members_are_packed_in_rank_order(stride: int, size: int, expected: Group) -> None:
    assert group_of(PLAIN, stride, size) == expected


def test_a_supernode_is_one_domain_and_a_split_node_is_two() -> None:
    supernode = make_node(scale_up("supernode", links=7, domain=384))
    assert group_of(supernode, 8, 96) == Group(96, 48, 8)
    two_meshes_of_four = make_node(scale_up("mesh", links=3, domain=4))
    assert group_of(two_meshes_of_four, 1, 8) == Group(8, 4, 1)


@given(domain=st.integers(1, 16), stride=st.integers(1, 20), size=st.integers(1, 20))
def test_groups_equal_those_written_out_rank_by_rank(domain: int, stride: int, size: int) -> None:
    # All groups until they sit in their domains as the first did: the emptiest place counts, and the
    # domain whose cards the most members of groups that leave it use.
    node = make_node(scale_up(domain=domain), devices=domain)
    ranks = math.lcm(domain, stride * size)
    all_groups = [
        Counter((start + offset + i * stride) // domain for i in range(size))
        for start in range(0, ranks, stride * size)
        for offset in range(stride)
    ]
    found = group_of(node, stride, size)
    assert found.per_node == min(min(group.values()) for group in all_groups)
    assert found.nodes == max(len(group) for group in all_groups)
    leaving: Counter[int] = sum((g for g in all_groups if len(g) > 1), Counter())
    if leaving:
        assert found.groups_per_node == -(-max(leaving.values()) // found.per_node)


def test_a_group_that_straddles_a_rack_is_counted_where_it_is_thinnest() -> None:
    # 576 ranks on racks of 72: groups of 64 fill the first rack with 8 to spare, and so on; pairs of
    # racks that share a group hold 8 and 56, 16 and 48, ... of it. Groups of 72 or 8 stay whole.
    rack = make_node(scale_up("supernode", domain=72), devices=72, nics=72)
    assert group_of(rack, 1, 64, 576) == Group(64, 8, 9, 2)
    assert group_of(rack, 1, 64, 64) == Group(64, 64, 1)
    assert group_of(rack, 1, 16, 144) == Group(16, 8, 1)
    assert group_of(rack, 1, 72, 576).nodes == group_of(rack, 1, 8, 576).nodes == 1


def test_members_share_the_cards_but_no_one_drives_two() -> None:
    # Four cards of 10 GB/s for eight devices: with all active each gets half a card, with two
    # active one card each, and a lone member still only its own.
    wiring = wiring_of(make_node(scale_up(), nics=4))
    assert nic_share(Group(16, 1, 8), wiring) == 5 * GB
    assert nic_share(Group(16, 1, 2), wiring) == 10 * GB
    assert nic_share(Group(16, 1, 1), wiring) == 10 * GB


def test_remote_copies_by_hand() -> None:
    assert remote_copies(1, 8) == 0.0
    assert remote_copies(4, 1) == pytest.approx(3 / 4)  # one expert, a quarter of them at home
    # Two experts over two nodes: half the tokens see one node, half two: 1.5, half of it remote.
    assert remote_copies(2, 2) == pytest.approx(0.75)
    # DeepSeek-V3, 8 of 8 nodes limited to 4: 4 (1 - 0.75^8) = 3.6 nodes, an eighth its own.
    assert remote_copies(8, 8, node_limit=4) == pytest.approx(3.15, abs=0.01)


@pytest.mark.parametrize("counts", [(8, 0, 1), (4, 8, 1), (0, 0, 1), (8, 8, 0)])
def test_impossible_groups_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected 1 <= per_node <= size"):
        Group(*counts)


@pytest.mark.parametrize(("stride", "size"), [(0, 8), (1, 0), (-1, 4)])
def test_impossible_strides_are_refused(stride: int, size: int) -> None:
    with pytest.raises(ValueError, match="positive whole numbers"):
        group_of(PLAIN, stride, size)


def exchange_over_links(size: int, whole: bool) -> float:
    """Bytes/s per member of an all-to-all on a ring of `size` (or a line), 1 byte/s per direction.

    Counted flow by flow: each goes the shorter way, one half each way where both are as long.
    """
    load: dict[tuple[int, int], float] = {}
    for a in range(size):
        for b in range(size):
            ahead, back = (b - a) % size, (a - b) % size
            if not whole:
                ahead, back = (b - a, size) if b > a else (size, a - b)
            ways = [(1, ahead)] if ahead < back else [(-1, back)]
            if ahead == back and a != b:
                ways = [(1, ahead), (-1, back)]
            for step, hops in ways if a != b else []:
                for hop in range(hops):
                    link = ((a + step * hop) % size, step)
                    load[link] = load.get(link, 0.0) + 1.0 / len(ways)
    return (size - 1) / max(load.values())


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8])
def test_exchanges_on_a_ring_load_its_fullest_link(size: int) -> None:
    """Two links of 1 byte/s, one to either neighbour; the fullest link tells the rate."""
    for domain in (size, 4 * size):
        up = scale_up("ring", links=2, link=1.0, domain=domain)
        node = make_node(up, devices=domain)
        lanes = lanes_of(group_of(node, 1, size), wiring_of(node))
        assert lanes.inside_exchange == pytest.approx(exchange_over_links(size, domain == size))
        assert lanes.inside == (2.0 if domain == size else 1.0)
        assert lanes.pair == 1.0


def exchange_over_torus(dims: tuple[int, int, int]) -> float:
    """The same over a torus with a link of 1 byte/s to each neighbour, dimension by dimension."""
    load: dict[tuple[object, int, int], float] = {}
    places = list(product(*(range(d) for d in dims)))
    for a, b in permutations(places, 2):
        at = list(a)
        for axis, d in enumerate(dims):
            ahead, back = (b[axis] - at[axis]) % d, (at[axis] - b[axis]) % d
            ways = (
                [(1, ahead), (-1, back)]
                if ahead == back
                else [min((1, ahead), (-1, back), key=itemgetter(1))]
            )
            for step, hops in ways:
                for hop in range(hops):
                    place = (*at[:axis], (at[axis] + step * hop) % d, *at[axis + 1 :])
                    link = (place, axis, step)
                    load[link] = load.get(link, 0.0) + 1.0 / len(ways)
            at[axis] = b[axis]
    return (len(places) - 1) / max(load.values())


@pytest.mark.parametrize("dims", [(4, 1, 1), (4, 4, 1), (2, 3, 4), (3, 5, 1)])
def test_exchanges_on_a_torus_load_its_fullest_link(dims: tuple[int, int, int]) -> None:
    """Rings use all links: two per dimension. A group along the first dimension uses only its own."""
    size, active = math.prod(dims), sum(d > 1 for d in dims)
    up = scale_up("torus", links=2 * active, link=1.0, domain=size, dims=dims)
    node = make_node(up, devices=size)
    lanes = lanes_of(group_of(node, 1, size), wiring_of(node))
    assert lanes.inside == 2.0 * active
    assert lanes.inside_exchange == pytest.approx(exchange_over_torus(dims))
    assert lanes.pair == pytest.approx(1.0)
    row = lanes_of(group_of(node, 1, dims[0]), wiring_of(node))
    assert row.inside == 2.0
    assert row.inside_exchange == pytest.approx(exchange_over_links(dims[0], True))
