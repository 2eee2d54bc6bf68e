"""The graph of a fabric's switches: is it connected, what holds it together, what can it carry?

Leaves, spines and cores are vertices; below the leaves stand groups of cards that hang on the same
leaves in the same state, so that 100,000 endpoints are a few hundred vertices. What is down is not in
the graph. networkx is imported late.

Not modelled: servers that pass on what others send (a path leads over switches alone).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ersatz.device_models.networks.fabric import Fabric
from ersatz.device_models.networks.sharing import NO_LINK, Rates, Routes

if TYPE_CHECKING:
    import networkx as nx

Vertex = tuple[str, int]
UNITS = 2**29  # a cut is counted in whole parts of this many: max-flow works on 32-bit integers


def fabric_graph(fabric: Fabric) -> nx.Graph:
    """Return the graph of what is up: vertices ("leaf" | "spine" | "core" | "cards", number).

    Vertices carry `plane` and `pod`, groups of cards `count` (how many) and `first` (one of them, as
    (node, card)); edges carry `capacity` (bytes/s per direction) and `cables`. Spines of a fabric that
    spreads evenly are one vertex per plane and pod. Cores join the spines of one plane and number.
    """
    import networkx as nx

    graph = nx.Graph()
    groups = card_groups(fabric)
    _add_switches(graph, fabric)
    for number, (node, card, count) in enumerate(groups.kinds):
        graph.add_node(
            ("cards", number), count=count, first=(node, card), pod=int(node) // fabric.pod_nodes
        )
        for port in range(fabric.network.ports):
            speed = float(
                fabric.capacity[(node * fabric.cards + card) * fabric.network.ports + port]
            )
            if speed > 0:
                leaf = int(_leaf(fabric, node, card, port))
                graph.add_edge(
                    ("cards", number), ("leaf", leaf), capacity=speed * count, cables=count
                )
    return graph


class CardGroups(NamedTuple):
    """Cards that hang on the same leaves in the same state."""

    kinds: tuple[tuple[int, int, int], ...]  # node and card of the first, and how many
    of_card: Routes  # group of each card, shape (nodes, cards)


def card_groups(fabric: Fabric) -> CardGroups:
    """Return the groups of cards that stand in the graph, in order of their leaves."""
    nodes, cards, ports = fabric.nodes, fabric.cards, fabric.network.ports
    speed = fabric.capacity[: fabric.first[1]].reshape(nodes * cards, ports)
    node, card = np.divmod(np.arange(nodes * cards), cards)
    place = node // fabric.network.leaf_nodes * cards + (card if fabric.rails else 0)
    state = np.zeros_like(place)
    odd = (speed != fabric.port_bandwidth).any(axis=1)
    if odd.any():
        state[odd] = 1 + np.unique(speed[odd], axis=0, return_inverse=True)[1].ravel()
    key = place * (int(state.max()) + 1) + state
    _, first, of_card, count = np.unique(
        key, return_index=True, return_inverse=True, return_counts=True
    )
    kinds = zip(node[first].tolist(), card[first].tolist(), count.tolist(), strict=True)
    return CardGroups(tuple(kinds), of_card.reshape(nodes, cards))


def _leaf(fabric: Fabric, node: int, card: int, port: int) -> Routes:
    return fabric.leaf(*(np.array(x) for x in (node, card, port)))


def leaf_places(fabric: Fabric) -> tuple[Routes, Routes]:
    """Return plane and pod of each leaf."""
    leaves = np.arange(fabric.leaves)
    per_place = (fabric.cards if fabric.rails else 1) * fabric.network.ports
    return fabric.plane(leaves), fabric.pod(leaves // per_place * fabric.network.leaf_nodes)


def tiers(fabric: Fabric) -> int:
    """Return how many tiers of switches the fabric's traffic needs: 1, 2 or 3."""
    if fabric.nodes <= fabric.network.leaf_nodes:
        return 1
    return 3 if fabric.pods > 1 else 2


def _add_switches(graph: nx.Graph, fabric: Fabric) -> None:
    """Add leaves, spines, cores and the live cables between them."""
    plane, pod = leaf_places(fabric)
    for leaf, (p, q) in enumerate(zip(plane.tolist(), pod.tolist(), strict=True)):
        graph.add_node(("leaf", leaf), plane=p, pod=q)
    if tiers(fabric) == 1:
        return
    uplinks, planes = fabric.uplinks, fabric.planes
    for spine in range(fabric.pods * planes * uplinks):
        pod_number, inside = divmod(spine, planes * uplinks)
        graph.add_node(("spine", spine), plane=inside // uplinks, pod=pod_number)
    leaves, uplink = (x.ravel() for x in np.indices((fabric.leaves, uplinks)))
    spines = fabric.spine(pod[leaves], leaves, uplink)
    rates = fabric.capacity[fabric.first[2] : fabric.first[3]]
    _add_cables(
        graph, ("leaf", leaves), ("spine", spines), rates, fabric.network.uplinks // uplinks
    )
    if tiers(fabric) == 2:
        return
    every = np.arange(fabric.pods * planes * uplinks)
    core = every % (planes * uplinks)
    for number in range(planes * uplinks):
        graph.add_node(("core", number), plane=number // uplinks, pod=-1)
    rates = fabric.capacity[fabric.first[4] : fabric.first[5]]
    _add_cables(graph, ("spine", every), ("core", core), rates, 1)


def _add_cables(
    graph: nx.Graph, lower: tuple[str, Routes], upper: tuple[str, Routes], rates: Rates, cables: int
) -> None:
    ends = zip(lower[1].tolist(), upper[1].tolist(), rates.tolist(), strict=True)
    graph.add_edges_from(
        ((lower[0], low), (upper[0], high), {"capacity": rate, "cables": cables})
        for low, high, rate in ends if rate > 0
    )  # fmt: skip


def cut_off(fabric: Fabric, graph: nx.Graph) -> list[str]:
    """Say in words which nodes cannot reach which others over live switches; empty: all can."""
    import networkx as nx

    switches = graph.subgraph([v for v in graph if v[0] != "cards"])
    island = {v: i for i, part in enumerate(nx.connected_components(switches)) for v in part}
    groups = card_groups(fabric)
    reach = [{island[leaf] for leaf in graph[("cards", g)]} for g in range(len(groups.kinds))]
    rows, of_node = np.unique(groups.of_card, axis=0, return_inverse=True)
    seen: dict[frozenset[int], list[int]] = {}
    for row, kinds in enumerate(rows.tolist()):
        seen.setdefault(frozenset().union(*(reach[kind] for kind in kinds)), []).append(row)
    nodes = {s: np.flatnonzero(np.isin(of_node.ravel(), found)) for s, found in seen.items()}
    alone = nodes.pop(frozenset(), None)
    found = [] if alone is None else [f"{spans('node', alone)}: no card reaches a leaf"]
    several = sorted(nodes.items(), key=lambda item: -item[1].size)
    for i, (islands, members) in enumerate(several):
        apart = [m for other, m in several[i + 1 :] if not islands & other]
        if apart:
            others = np.sort(np.concatenate(apart))
            found.append(
                f"{spans('node', members)} and {spans('node', others)}: no path between them"
            )
    return found


def spans(word: str, numbers: Sequence[int] | npt.NDArray[np.int64], most: int = 3) -> str:
    """Return "nodes 0-31, 64 and 2 more": numbers (ascending) as spans, with their name."""
    array = np.asarray(numbers)
    runs = np.split(array, np.flatnonzero(np.diff(array) > 1) + 1)
    texts = [f"{r[0]}-{r[-1]}" if r.size > 1 else f"{r[0]}" for r in runs[:most]]
    more = f" and {sum(r.size for r in runs[most:])} more" if len(runs) > most else ""
    plural = {"leaf": "leaves"}.get(word, f"{word}s") if array.size > 1 else word
    return f"{plural} {', '.join(texts)}{more}"


class WeakPoint(NamedTuple):
    """A switch whose loss alone cuts cards off from others."""

    tier: str
    number: int
    cards: int  # that hang on it alone


def weak_points(graph: nx.Graph) -> list[WeakPoint]:
    """Return the single switches of failure: those that part cards, and the only leaf of some cards."""
    found = _separators(graph)
    hanging: dict[Vertex, int] = {}
    for vertex, count in graph.nodes(data="count"):
        if vertex[0] == "cards" and graph.degree(vertex) == 1:
            leaf = next(iter(graph[vertex]))
            hanging[leaf] = hanging.get(leaf, 0) + count
            if count > 1:
                found.add(leaf)
    return [WeakPoint(v[0], v[1], hanging.get(v, 0)) for v in sorted(found)]


def _separators(graph: nx.Graph) -> set[Vertex]:
    """Return the switches without which some cards that can meet could not.

    In the tree of blocks and of the vertices that join them, branches without cards are cut away: a
    switch that stays has cards on two sides.
    """
    import networkx as nx

    blocks = list(nx.biconnected_components(graph))
    joins = Counter(vertex for block in blocks for vertex in block)
    tree = nx.Graph()
    for number, block in enumerate(blocks):
        tree.add_edges_from(
            (("block", number), v) for v in block if joins[v] > 1 or v[0] == "cards"
        )
    while ends := [v for v in tree if v[0] != "cards" and tree.degree(v) <= 1]:
        tree.remove_nodes_from(ends)
    return {v for v in tree if v[0] not in ("block", "cards")}


def half_flow(fabric: Fabric, graph: nx.Graph) -> float:
    """Return the bytes/s that the lower half of the nodes can send to the upper, faults counted.

    The largest flow through the graph. Nodes are halved between pods, or between leaves.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    if tiers(fabric) == 1:
        return float(fabric.capacity[: fabric.first[1]].sum()) / 2.0
    ends, rates = [], []
    number = {vertex: i + 2 for i, vertex in enumerate(graph)}  # 0 sends, 1 receives
    for a, b, rate in graph.edges(data="capacity"):
        ends += [(number[a], number[b]), (number[b], number[a])]
        rates += [rate, rate]
    for vertex, upper in _halves(fabric, graph):
        ends.append((number[vertex], 1) if upper else (0, number[vertex]))
        rates.append(math.fsum(graph[vertex][leaf]["capacity"] for leaf in graph[vertex]))
    if not any(rates):
        return 0.0
    unit = max(math.fsum(rates[2 * graph.number_of_edges() :]), max(rates, default=1.0)) / UNITS
    whole = np.rint(np.array(rates) / unit).astype(np.int32)
    rows, columns = np.array(ends, dtype=np.int32).T
    size = len(number) + 2
    flow: Any = maximum_flow(csr_array((whole, (rows, columns)), shape=(size, size)), 0, 1)
    return float(unit * flow.flow_value)


def _halves(fabric: Fabric, graph: nx.Graph) -> Iterator[tuple[Vertex, bool]]:
    """Give each group of cards with whether its nodes are of the upper half."""
    part = fabric.pod_nodes if fabric.pods > 1 else fabric.network.leaf_nodes
    middle = -(-fabric.nodes // part) // 2 * part
    for vertex, first in graph.nodes(data="first"):
        if vertex[0] == "cards":
            yield vertex, first[0] >= middle


def link_name(fabric: Fabric, link: int) -> str:
    """Return the two ends of a link in words: "leaf 3 -> spine 7"."""
    if link == NO_LINK:
        return "none"
    kind = int(np.searchsorted(fabric.first, link, side="right")) - 1
    at = link - fabric.first[kind]
    if kind < 2:
        card, port = divmod(at, fabric.network.ports)
        ends = (_card_name(fabric, card, port),
                f"leaf {int(_leaf(fabric, card // fabric.cards, card % fabric.cards, port))}")  # fmt: skip
    elif kind < 4:
        leaf, uplink = divmod(at, fabric.uplinks)
        spine = int(
            fabric.spine(leaf_places(fabric)[1], np.arange(fabric.leaves), np.array(uplink))[leaf]
        )
        ends = (f"leaf {leaf}", _spine_name(fabric, spine))
    else:
        ends = (_spine_name(fabric, at), "core")
    return " -> ".join(ends if kind % 2 == 0 else ends[::-1])


def _card_name(fabric: Fabric, card: int, port: int) -> str:
    node, number = divmod(card, fabric.cards)
    return f"node {node} card {number}" + (f" port {port}" if fabric.network.ports > 1 else "")


def _spine_name(fabric: Fabric, spine: int) -> str:
    """Name a spine, or all spines of a plane and pod where traffic spreads over them evenly."""
    if not fabric.spread or fabric.uplinks == fabric.network.uplinks:
        return f"spine {spine}"
    pod, plane = divmod(spine // fabric.uplinks, fabric.planes)
    where = [f"of pod {pod}"] if fabric.pods > 1 else []
    where += [f"of plane {plane}"] if fabric.planes > 1 else []
    return " ".join(["spines", *where])
