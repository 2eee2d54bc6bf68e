"""The graph of a fabric and its facts: hand-counted networks, and networkx as the judge."""

from dataclasses import replace
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from factories import make_node, make_scale_out
from hypothesis import given, settings
from hypothesis import strategies as st

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import load_node, load_scale_out
from ersatz.device_models.networks.fabric import Fabric, Fault, bisection, build_fabric
from ersatz.device_models.networks.facts import fabric_facts
from ersatz.device_models.networks.graph import (
    cut_off,
    fabric_graph,
    half_flow,
    link_name,
    spans,
    weak_points,
)

GB = 1e9


def node(cards: int = 2, **network: object) -> Node:
    """A node with `cards` cards of 10 GB/s on a network of two nodes per leaf, two uplinks each."""
    values = {"leaf_nodes": 2, "uplinks": 2, **network}
    return make_node(nics=cards, devices=cards, scale_out=make_scale_out(**values))


def fabric_of(nodes: int, *faults: Fault, cards: int = 2, **network: object) -> Fabric:
    return build_fabric(node(cards, **network), nodes, hashed=True).damaged(faults)


@st.composite
def networks(draw: st.DrawFn, pods: bool = True) -> tuple[Node, int]:
    """A node on a small network of any kind, and an even number of full leaves (and pods) of it."""
    kind = draw(st.sampled_from(["rail", "fat-tree", "dual-plane", "multi-plane"]))
    cards = draw(st.integers(1, 3))
    ports = 2 if kind == "dual-plane" else 1
    planes = {"dual-plane": 2, "multi-plane": cards}.get(kind, 1)
    leaf_nodes = draw(st.integers(1, 3))
    places = 2 * draw(st.integers(1, 2))
    several = pods and draw(st.booleans())
    made = node(
        cards, kind=kind, ports=ports, planes=planes, leaf_nodes=leaf_nodes,
        uplinks=draw(st.integers(1, 3)), oversubscription=draw(st.sampled_from([1.0, 1.5, 3.0])),
        pod_nodes=places * leaf_nodes if several else 0,
        core_oversubscription=draw(st.sampled_from([1.0, 4.0])),
    )  # fmt: skip
    return made, places * leaf_nodes * (2 if several else 1)


@st.composite
def broken(draw: st.DrawFn) -> Fabric:
    """A small fabric with up to four faults."""
    made, nodes = draw(networks())
    fabric = build_fabric(made, nodes, hashed=True)
    faults = []
    for _ in range(draw(st.integers(0, 4))):
        part = draw(st.sampled_from(["card", "port", "leaf", "uplink", "spine"]))
        at = tuple(draw(st.integers(0, limit - 1)) for limit in fabric.counts[part])
        faults.append(Fault(part, at, draw(st.sampled_from([0.0, 0.5]))))
    return fabric.damaged(faults)


def max_flow(fabric: Fabric) -> float:
    """networkx's largest flow from the lower half of the nodes to the upper."""
    graph = fabric_graph(fabric)
    for vertex, first in list(graph.nodes(data="first")):
        if vertex[0] == "cards":
            side = "source" if first[0] < fabric.nodes // 2 else "sink"
            rate = sum(graph[vertex][leaf]["capacity"] for leaf in graph[vertex])
            graph.add_edge(side, vertex, capacity=rate)
    if "source" not in graph or "sink" not in graph:
        return 0.0
    return float(nx.maximum_flow_value(graph, "source", "sink"))


def test_a_graph_counted_by_hand() -> None:
    """Four nodes, two rails: a leaf per rail and pair of nodes, two spines that all leaves reach."""
    graph = fabric_graph(fabric_of(4))
    assert sum(1 for v in graph if v[0] == "leaf") == 4
    assert sum(1 for v in graph if v[0] == "spine") == 2
    assert sum(count for v, count in graph.nodes(data="count") if v[0] == "cards") == 8
    for leaf in range(4):
        tiers = sorted(v[0] for v in graph[("leaf", leaf)])
        assert tiers == ["cards", "spine", "spine"]
        below = next(d for v, d in graph[("leaf", leaf)].items() if v[0] == "cards")
        assert (below["cables"], below["capacity"]) == (2, 20 * GB)  # two nodes, a card of 10 each
    assert graph[("leaf", 0)][("spine", 1)]["capacity"] == 10 * GB  # 20 down over two uplinks


@settings(max_examples=60, deadline=None)
@given(networks())
def test_bisection_is_the_largest_flow(case: tuple[Node, int]) -> None:
    fabric = build_fabric(*case, hashed=True)
    assert bisection(fabric) == pytest.approx(max_flow(fabric), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(broken())
def test_flow_between_halves_with_broken_parts(fabric: Fabric) -> None:
    assert half_flow(fabric, fabric_graph(fabric)) == pytest.approx(
        max_flow(fabric), rel=1e-6, abs=1
    )


@settings(max_examples=60, deadline=None)
@given(broken())
def test_weak_points_are_those_whose_loss_parts_cards(fabric: Fabric) -> None:
    """Against taking every switch away in turn."""
    graph = fabric_graph(fabric)

    def parted(whole: nx.Graph) -> int:
        """Pairs of cards without a path; cards of one group need a switch to meet."""
        cards = [v for v in whole if v[0] == "cards"]
        alone = sum(whole.nodes[v]["count"] > 1 for v in cards if not whole[v])
        apart = sum(not nx.has_path(whole, a, b) for i, a in enumerate(cards) for b in cards[:i])
        return alone + apart

    before = parted(graph)
    expected = set()
    for vertex in list(graph):
        if vertex[0] != "cards":
            without = graph.copy()
            without.remove_node(vertex)
            if parted(without) > before:
                expected.add(vertex)
    assert {(w.tier, w.number) for w in weak_points(graph)} == expected


def test_a_leaf_without_cards_still_passes_on_what_others_send() -> None:
    """Card 0 of node 0 is dead, leaf 3 has lost one of two uplinks: its way around core 1 is leaf 0."""
    wide = {"kind": "multi-plane", "planes": 3, "leaf_nodes": 1, "pod_nodes": 2}
    lost = Fault("card", (0, 0), 0.0), Fault("uplink", (3, 0), 0.0)
    weak = weak_points(fabric_graph(fabric_of(4, *lost, cards=3, **wide)))
    assert [(w.tier, w.number) for w in weak if w.tier != "leaf"] == [("spine", 1)]


def test_dual_tor_has_no_weak_switch_until_one_is_lost() -> None:
    """With leaf 3 down (card 1, port 1) its cards hang on leaf 2 alone; a single ToR always does."""
    dual = {"kind": "dual-plane", "ports": 2, "planes": 2}
    assert weak_points(fabric_graph(fabric_of(4, **dual))) == []
    weak = weak_points(fabric_graph(fabric_of(4, Fault("leaf", (3,)), **dual)))
    assert [(w.tier, w.number, w.cards) for w in weak] == [("leaf", 2, 2)]
    single = weak_points(fabric_graph(fabric_of(4)))
    assert [(w.tier, w.number, w.cards) for w in single] == [("leaf", n, 2) for n in range(4)]


def test_what_is_cut_off_is_named() -> None:
    def words(*faults: Fault, **more: object) -> list[str]:
        fabric = fabric_of(4, *faults, **more)  # type: ignore[arg-type]
        return cut_off(fabric, fabric_graph(fabric))

    assert words() == []
    assert words(Fault("leaf", (0,))) == []  # rail 1 is left
    assert words(Fault("leaf", (0,)), Fault("leaf", (1,))) == ["nodes 0-1: no card reaches a leaf"]
    assert words(Fault("spine", (0,))) == []
    assert words(Fault("spine", (0,)), Fault("spine", (1,))) == [
        "nodes 0-1 and nodes 2-3: no path between them"
    ]
    ends = [Fault("port", (0, card, 0)) for card in (0, 1)] + [
        Fault("port", (3, c, 1)) for c in (0, 1)
    ]
    apart = words(*ends, kind="dual-plane", ports=2, planes=2)
    assert apart == ["node 0 and node 3: no path between them"]  # both reach nodes 1 and 2


@settings(max_examples=60, deadline=None)
@given(networks(), st.data())
def test_names_of_a_route_lead_from_end_to_end(case: tuple[Node, int], data: st.DataObject) -> None:
    made, nodes = case
    fabric = build_fabric(made, nodes, hashed=data.draw(st.booleans()))
    limits = (nodes, nodes, fabric.cards, fabric.network.ports, fabric.uplinks)
    flow = [np.array([data.draw(st.integers(0, n - 1))]) for n in limits]
    names = [link_name(fabric, int(x)).split(" -> ") for x in fabric.routes(*flow)[0] if x >= 0]
    for (_, end), (start, _) in pairwise(names):
        assert end == start
    assert names[0][0].startswith(f"node {flow[0][0]} card {flow[2][0]}")
    assert names[-1][1].startswith(f"node {flow[1][0]} card {flow[2][0]}")


def test_hops_are_the_switches_on_shortest_paths() -> None:
    """One leaf, then leaf-spine-leaf, then leaf-spine-core-spine-leaf: as far as the graph is wide."""
    for nodes, pod_nodes, expected in ((2, 0, (1,)), (4, 0, (1, 3)), (8, 4, (1, 3, 5))):
        made = node(cards=1, pod_nodes=pod_nodes)
        assert fabric_facts(made, nodes).hops == expected
        graph = fabric_graph(build_fabric(made, nodes, hashed=True))
        cards = [v for v in graph if v[0] == "cards"]
        lengths = {nx.shortest_path_length(graph, cards[0], v) - 1 for v in cards[1:]}
        assert lengths == set(expected[1:])


def catalogue(name: str, network: str) -> Node:
    return replace(load_node(name), scale_out=load_scale_out(network))


def test_the_quote_for_1024_h100() -> None:
    """The prices come from a quote of 48 switches and 2,048 cables for 1,024 devices.

    32 leaves (8 rails, 4 groups of 32 nodes) with 32 cables up each: 1,024 cables into switches of
    64 ports are 16 spines.
    """
    facts = fabric_facts(catalogue("h100-8", "ib-ndr400-rail"), 128)
    assert (facts.counts.switches, facts.counts.cables) == (48, 2048)
    assert facts.price == pytest.approx(48 * 36000 + 2048 * 1280)
    assert facts.price_per_device == pytest.approx(facts.price / 1024)


def test_a_whole_pod_of_hpn7() -> None:
    """15 segments x 8 rails x 2 ports = 240 leaves; a spine has 120 ports down and 120/15 = 8 up."""
    facts = fabric_facts(catalogue("h800-8", "hpn7"), 2 * 1920)
    assert facts.counts.leaves == 2 * 240
    assert facts.counts.spine_ports == (120, 8)
    assert facts.counts.spines == 2 * 2 * 60
    assert facts.core_oversubscription == pytest.approx(15)
    assert facts.weak == ()


def test_a_tree_that_needs_a_third_tier_says_so() -> None:
    """5/4 k^2 switches per k^3/4 endpoints: 5 n/k = 7,680 of 64 ports for 98,304."""
    facts = fabric_facts(catalogue("h100-8", "ib-ndr400-rail"), 12288)
    assert facts.devices == 98304
    assert facts.counts.switches == 5 * 98304 // 64
    assert "third tier" in facts.findings[0]
    assert facts.hops == (1, 3, 5)


def test_a_fault_costs_what_it_takes() -> None:
    """A leaf of 4 below 8 cards: a quarter of the ports is gone, its two cards are cut off."""
    facts = fabric_facts(node(), 4, [Fault("leaf", (2,)), Fault("uplink", (0, 1), 0.5)])
    leaf, uplink = facts.faults
    assert (leaf.cards_cut, leaf.cards_slower, leaf.below, leaf.above) == (2, 0, 0.25, 0.0)
    assert (uplink.cards_cut, uplink.below) == (0, 0.0)
    assert uplink.above == pytest.approx(0.5 / 8)  # half of one of eight uplinks
    # Healthy: two leaves of 20 GB/s each way. Leaf 2 down leaves 20; leaf 0 is not the limit then.
    assert facts.half_flow == pytest.approx((40 * GB, 20 * GB), rel=1e-6)


def test_everything_down_carries_nothing() -> None:
    fabric = fabric_of(4, Fault("plane", (0,)))
    assert half_flow(fabric, fabric_graph(fabric)) == 0.0
    assert cut_off(fabric, fabric_graph(fabric)) == ["nodes 0-3: no card reaches a leaf"]


def test_spans() -> None:
    assert spans("node", [3]) == "node 3"
    assert spans("leaf", [0, 1, 2, 7]) == "leaves 0-2, 7"
    assert spans("node", [0, 2, 4, 6, 7]) == "nodes 0, 2, 4 and 2 more"
