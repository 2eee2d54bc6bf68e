"""A network as a drawing: tiers as rows, cables as thick as they carry, broken parts in red.

What is too much for 1,000 pixels is folded: a few of a kind stand for all, with the number of those
left out. The drawing shows what `ersatz.device_models.networks.fabric` describes, not how a room is wired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ersatz.device_models.networks.facts import fabric_facts, physical_fabric
from ersatz.device_models.networks.graph import leaf_places
from ersatz.device_models.text.units import format_si
from ersatz.sim.plan.placement import node_positions
from ersatz.sim.report.fabric import bits, fault_words
from ersatz.sim.report.pictures.fabric_scene import (
    LEFT,
    RIGHT,
    Scene,
    leaves_per_place,
    make_scene,
    pod_spans,
)
from ersatz.sim.report.pictures.node_svg import NODE_HEIGHT, draw_node
from ersatz.sim.report.pictures.svg import (
    BROKEN,
    FAINT,
    IDLE,
    INK,
    JOB,
    MUTED,
    PAPER,
    PLANES,
    SLOW,
    STEEL,
    Canvas,
    Line,
    cable_width,
    fitting,
)
from ersatz.sim.scenario.fabric_file import FabricCase
from ersatz.sim.scenario.scenario import Pool

BOX = 24.0  # height of a switch


def drawings(cases: Sequence[FabricCase]) -> dict[str, str]:
    """Return the drawing of every case and pool, by name."""
    found = {}
    for case in cases:
        for pool in case.pools:
            label = case.name if len(cases) > 1 else ""
            of = "/".join(filter(None, [label, pool.name if len(case.pools) > 1 else ""]))
            found[f"fabric-{of}" if of else "fabric"] = draw(case, pool, label)
    return found


def draw(case: FabricCase, pool: Pool, label: str = "") -> str:
    """Return one pool's network, and one of its nodes inside, as SVG text; `label` names the case."""
    canvas, nodes = Canvas(), max(case.fabric.size, pool.nodes)
    facts = fabric_facts(pool.node, nodes, case.fabric.faults)
    places = node_positions(pool.nodes, pool.node.scale_out.leaf_nodes, case.fabric, case.seed)
    fabric, job = physical_fabric(pool.node, nodes), frozenset(places.tolist())
    bottom = draw_network(canvas, make_scene(fabric, facts, job, case.fabric.faults))
    canvas.words(RIGHT, 32, label, size=13, fill=MUTED, anchor="end")
    draw_node(canvas, pool.node, bottom)
    title = f"{case.question} {pool.node.scale_out.title}"
    return canvas.text(bottom + NODE_HEIGHT, title)


def draw_network(canvas: Canvas, scene: Scene) -> float:
    """Draw the rows of a network from the top; returns the y below them."""
    for paint in (_header, _row_names, _ground, _cables, _switches, _nodes, _legend):
        paint(canvas, scene)
    for x, y, text in scene.notes:
        canvas.words(x, y, text, size=11, fill=MUTED, anchor="middle")
    return scene.row("node") + 118


def _header(canvas: Canvas, scene: Scene) -> None:
    facts, c = scene.facts, scene.facts.counts
    canvas.words(20, 32, facts.title, size=fitting(facts.title, 19.0, 820.0), bold=True)
    ports = f"{facts.ports} × " if facts.ports > 1 else ""
    job = f"; the job on {len(scene.job):,} of them" if len(scene.job) < facts.nodes else ""
    canvas.words(20, 53, f"{facts.nodes:,} nodes × {facts.cards} cards of {ports}"
                 f"{bits(facts.port_bandwidth)}{job}", size=13, fill=MUTED)  # fmt: skip
    known = (f"{c.switches:,} switches, {c.cables:,} cables, {format_si(facts.bisection, 'B/s')}"
             f" bisection, {facts.leaf_oversubscription:.3g} : 1 at the leaves")  # fmt: skip
    if facts.core_oversubscription:
        known += f", {facts.core_oversubscription:.3g} : 1 above the spines"
    text = (
        known
        if facts.described
        else "topology not described: taken as one switch that never blocks"
    )
    canvas.words(20, 72, text, size=13, fill=MUTED)
    if scene.faults:
        told = [fault_words(fault) for fault in scene.faults]
        more = f" and {len(told) - 4} more" if len(told) > 4 else ""
        colour = BROKEN if any(f.left == 0 for f in scene.faults) else SLOW
        canvas.words(20, 91, ", ".join(told[:4]) + more, size=13, fill=colour, bold=True)


def _row_names(canvas: Canvas, scene: Scene) -> None:
    c = scene.facts.counts
    rows = [
        ("node", "nodes", f"{scene.facts.nodes:,}", ""),
        ("leaf", "leaves", f"{c.leaves:,}", ""),
    ]
    if scene.tiers > 1:
        boxes = f"in {c.spine_switches:,} boxes" if c.spine_switches < c.spines else ""
        rows.append(("spine", "spines", f"{c.spines:,}", boxes))
    if scene.tiers > 2 and c.core_switches:
        groups = scene.fabric.planes * scene.fabric.uplinks
        rows.append(("core", "core", f"{groups:,} groups", f"{c.core_switches:,} switches"))
    elif scene.tiers > 2:
        rows.append(("core", "lines", f"of {c.pods:,} sites", ""))
    for tier, word, count, more in rows:
        y = scene.row(tier)
        canvas.words(20, y + 8, word, size=13, bold=True)
        canvas.words(20, y + 24, count, size=12, fill=MUTED)
        canvas.words(20, y + 39, more, size=11, fill=MUTED)


def _ground(canvas: Canvas, scene: Scene) -> None:
    """Draw the ground on which each leaf group, and each pod, stands."""
    fabric = scene.fabric
    if fabric.pods > 1:
        for pod, (left, right) in pod_spans(scene).items():
            top = scene.row("spine") - 24
            canvas.box(
                left + 2, top, right - left - 4, scene.row("node") + 72 - top, "#f3f5f8", radius=8
            )
            canvas.words(left + 12, top + 14, f"pod {pod}", size=11, fill=MUTED)
    for place, x, room in scene.places:
        if place is None:
            continue
        top = scene.row("leaf") - 10
        canvas.box(x + 5, top, room - 10, scene.row("node") + 66 - top, "#e9edf2", radius=8)
        first = place * fabric.network.leaf_nodes
        last = min(first + fabric.network.leaf_nodes, fabric.nodes) - 1
        mine = sum(1 for node in range(first, last + 1) if node in scene.job)
        y = scene.row("node") + 48
        name = f"nodes {first:,}–{last:,}" if last > first else f"node {first:,}"
        fits = 6.8 * len(name) < room - 12
        canvas.words(
            x + room / 2, y, name if fits else name.split(" ")[1], size=11, anchor="middle"
        )
        if mine < last - first + 1:
            canvas.words(
                x + room / 2, y + 13, f"{mine:,} of the job", size=10, fill=MUTED, anchor="middle"
            )


def _cables(canvas: Canvas, scene: Scene) -> None:
    """Draw all cables: whole ones by plane and rate, then slow, then broken ones on top."""
    looks: dict[tuple[str, float, float], list[Line]] = {}
    for line, colour, rate, left in (
        *_node_cables(scene),
        *_leaf_cables(scene),
        *_core_cables(scene),
    ):
        state = BROKEN if left == 0 else SLOW if left < 1 else colour
        looks.setdefault((state, cable_width(rate), 0.0 if left == 0 else 1.0), []).append(line)
    order = sorted(looks.items(), key=lambda item: (item[0][0] == BROKEN, item[0][0] == SLOW))
    for (colour, width, whole), lines in order:
        opacity = 0.9 if colour in (BROKEN, SLOW) else 0.45
        canvas.lines(lines, colour, width, opacity=opacity, dashed=not whole)


def _node_cables(scene: Scene) -> Iterator[tuple[Line, str, float, float]]:
    fabric = scene.fabric
    top, bottom = scene.row("leaf") + BOX, scene.row("node")
    ports = fabric.network.ports
    for node, x in scene.nodes.items():
        start = node // fabric.network.leaf_nodes * leaves_per_place(fabric)
        for i in range(leaves_per_place(fabric)):
            card, port = divmod(i, ports)
            cards = [card] if fabric.rails else list(range(fabric.cards))
            lefts = [scene.left("card", node, c) * scene.left("port", node, c, port) for c in cards]
            left = min(lefts) * scene.leaf_left(start + i)
            rate = fabric.port_bandwidth * len(cards)
            tick = x + ((card + 0.5) / fabric.cards - 0.5) * 20 if fabric.rails else x
            yield ((scene.leaves[start + i][0], top), (tick, bottom)), STEEL, rate, left


def _leaf_cables(scene: Scene) -> Iterator[tuple[Line, str, float, float]]:
    fabric = scene.fabric
    if scene.tiers < 2:
        return
    planes, pods = (x.tolist() for x in leaf_places(fabric))
    rate = float(fabric.capacity[fabric.first[2]])
    for leaf, (x, _) in scene.leaves.items():
        for spine, at in scene.spines.items():
            pod, inside = divmod(spine, fabric.planes * fabric.uplinks)
            plane, uplink = divmod(inside, fabric.uplinks)
            if (pod, plane) == (pods[leaf], planes[leaf]):
                left = (
                    scene.leaf_left(leaf)
                    * scene.left("spine", spine)
                    * scene.left("uplink", leaf, uplink)
                )
                line = (at, scene.row("spine") + BOX), (x, scene.row("leaf"))
                yield line, PLANES[plane % len(PLANES)], rate, left


def _core_cables(scene: Scene) -> Iterator[tuple[Line, str, float, float]]:
    fabric = scene.fabric
    if scene.tiers < 3:
        return
    rate = float(fabric.capacity[fabric.first[4]])
    inner = fabric.planes * fabric.uplinks
    for spine, x in scene.spines.items():
        pod, inside = divmod(spine, inner)
        plane = inside // fabric.uplinks
        left = scene.left("core", pod) * scene.left("spine", spine) * scene.left("plane", plane)
        to = scene.cores.get(inside, min(max(x, LEFT + 100), RIGHT - 100))
        yield (
            ((to, scene.row("core") + BOX), (x, scene.row("spine"))),
            PLANES[plane % len(PLANES)],
            rate,
            left,
        )


def _switches(canvas: Canvas, scene: Scene) -> None:
    fabric = scene.fabric
    planes = leaf_places(fabric)[0].tolist()
    labels = all(width >= 7.0 * len(str(leaf)) for leaf, (_, width) in scene.leaves.items())
    for leaf, (x, width) in scene.leaves.items():
        _switch(
            canvas,
            x,
            scene.row("leaf"),
            width,
            planes[leaf],
            leaf,
            "leaf",
            scene.leaf_left(leaf),
            labels,
        )
    for spine, x in scene.spines.items():
        plane = spine // fabric.uplinks % fabric.planes
        left = scene.left("spine", spine) * scene.left("plane", plane)
        _switch(canvas, x, scene.row("spine"), scene.spine_width, plane, spine, "spine", left)
    for core, x in scene.cores.items():
        _switch(canvas, x, scene.row("core"), 28.0, core // fabric.uplinks, core, "core", 1.0)
    if scene.tiers == 3 and not scene.cores:
        y = scene.row("core")
        canvas.box(LEFT + 80, y, RIGHT - LEFT - 160, BOX, STEEL, radius=12)
        text = f"{bits(scene.facts.core_bandwidth)} between each pod and the others"
        canvas.words((LEFT + RIGHT) / 2, y + 16, text, size=12, fill=PAPER, anchor="middle")


def _switch(
    canvas: Canvas, x: float, y: float, width: float, plane: int, number: int, word: str, left: float,
    label: bool = True,
) -> None:  # fmt: skip
    fill = BROKEN if left == 0 else SLOW if left < 1 else PLANES[plane % len(PLANES)]
    canvas.box(x - width / 2, y, width, BOX, fill, title=f"{word} {number}, plane {plane}")
    if label and width >= 6.6 * len(str(number)):
        canvas.words(x, y + 16, str(number), size=11, fill=PAPER, anchor="middle")
    if left == 0:
        r = min(width / 2, 6.0)
        canvas.lines([((x - r, y - 8 - r), (x + r, y - 8 + r)), ((x - r, y - 8 + r), (x + r, y - 8 - r))],
                     BROKEN, 2.2)  # fmt: skip


def _nodes(canvas: Canvas, scene: Scene) -> None:
    """Draw nodes with a tick for each card."""
    fabric, y = scene.fabric, scene.row("node")
    for node, x in scene.nodes.items():
        fill = JOB if node in scene.job else IDLE
        canvas.box(x - 13, y + 4, 26, 26, fill, title=f"node {node}")
        canvas.words(
            x, y + 22, str(node), size=10, fill=PAPER if node in scene.job else INK, anchor="middle"
        )
        for card in range(fabric.cards):
            left = scene.left("card", node, card)
            for port in range(fabric.network.ports):
                left = min(left, scene.left("port", node, card, port))
            colour = BROKEN if left == 0 else SLOW if left < 1 else STEEL
            canvas.box(
                x - 10 + 20 * card / fabric.cards, y, 20 / fabric.cards * 0.7, 4, colour, radius=0
            )


def _legend(canvas: Canvas, scene: Scene) -> None:
    fabric, facts = scene.fabric, scene.facts
    x, y = 20.0, scene.row("node") + 92
    marks: Mapping[str, str] = {"node of the job": JOB} if scene.job else {}
    if len(scene.job) < facts.nodes:
        marks = {**marks, "other node": IDLE}
    if any(f.left == 0 for f in scene.faults):
        marks = {**marks, "down": BROKEN}
    if any(0 < f.left < 1 for f in scene.faults):
        marks = {**marks, "slow": SLOW}
    if 1 < fabric.planes <= 2:
        marks = {**marks, **{f"plane {p}": PLANES[p] for p in range(fabric.planes)}}
    for word, colour in marks.items():
        canvas.box(x, y - 10, 12, 12, colour)
        canvas.words(x + 17, y, word, size=12)
        x += 30 + 6.4 * len(word)
    if fabric.planes > 2:
        for plane in range(fabric.planes):
            canvas.box(x + plane * 13, y - 10, 12, 12, PLANES[plane % len(PLANES)])
        canvas.words(x + fabric.planes * 13 + 5, y, f"planes 0–{fabric.planes - 1}", size=12)
        x += fabric.planes * 13 + 95
    port = fabric.port_bandwidth * (1 if fabric.rails else fabric.cards)
    cables = {"node to leaf" if not fabric.rails else "port": (port, STEEL)}
    if scene.tiers > 1:
        cables["leaf to spine"] = (facts.uplink_bandwidth, PLANES[0])
    if scene.tiers > 2:
        cables["above a spine"] = (float(fabric.capacity[fabric.first[4]]), PLANES[0])
    for word, (rate, colour) in cables.items():
        text = f"{word}, {bits(rate)}"
        canvas.lines([((x, y - 4), (x + 26, y - 4))], colour, cable_width(rate), opacity=0.6)
        canvas.words(x + 32, y, text, size=12)
        x += 48 + 6.2 * len(text)
    canvas.lines([((20, y + 14), (RIGHT, y + 14))], FAINT, 1)
