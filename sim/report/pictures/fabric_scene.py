"""Where everything of a drawn network stands: which parts are shown, and the centres of their boxes.

What is too much for the width is folded: a few of a kind stand for all. Broken parts come before others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ersatz.device_models.networks.fabric import Fabric, Fault
from ersatz.device_models.networks.facts import FabricFacts
from ersatz.device_models.networks.graph import tiers
from ersatz.sim.report.pictures.svg import WIDTH, folded

LEFT, RIGHT, HEADER = 104.0, WIDTH - 20.0, 92.0
GAP = 40.0  # room of "x 96" between drawn places
CLIMB = 118.0  # from row to row


@dataclass(slots=True)
class Scene:
    """What is drawn of one fabric, and where: centres (x, y) and widths of boxes."""

    fabric: Fabric
    facts: FabricFacts
    job: frozenset[int]  # positions of the job's nodes
    faults: tuple[Fault, ...]
    places: list[tuple[int | None, float, float]] = field(default_factory=list)  # left edge, width
    leaves: dict[int, tuple[float, float]] = field(default_factory=dict)  # centre, width
    spines: dict[int, float] = field(default_factory=dict)
    cores: dict[int, float] = field(default_factory=dict)
    nodes: dict[int, float] = field(default_factory=dict)
    spine_width: float = 28.0
    notes: list[tuple[float, float, str]] = field(default_factory=list)  # of what is left out

    @property
    def tiers(self) -> int:
        """Rows of switches."""
        return tiers(self.fabric)

    def row(self, tier: str) -> float:
        """Return the y of the upper edge of a row."""
        order = {"core": 3, "spine": 2, "leaf": 1, "node": 0}
        return HEADER + 28 + CLIMB * (self.tiers - order[tier])

    def left(self, part: str, *at: int) -> float:
        """Return the share of a part that its faults leave."""
        share = 1.0
        for fault in self.faults:
            if (fault.part, fault.at) == (part, at):
                share *= fault.left
        return share

    def leaf_left(self, leaf: int) -> float:
        """Return what is left of a leaf, its plane counted."""
        return self.left("leaf", leaf) * self.left("plane", int(leaf % self.fabric.planes))


def make_scene(
    fabric: Fabric, facts: FabricFacts, job: frozenset[int], faults: tuple[Fault, ...]
) -> Scene:
    """Return a healthy fabric laid out, with the faults that are to be marked."""
    scene = Scene(fabric, facts, job, faults)
    _place_columns(scene)
    _place_leaves_and_nodes(scene)
    if scene.tiers > 1:
        _place_spines(scene)
    return scene


def leaves_per_place(fabric: Fabric) -> int:
    """Return how many leaves the nodes of one place share."""
    return (fabric.cards if fabric.rails else 1) * fabric.network.ports


def _place_columns(scene: Scene) -> None:
    """Choose the leaf groups that are drawn, and share the width among them."""
    fabric = scene.fabric
    total = -(-fabric.nodes // fabric.network.leaf_nodes)
    leaves = leaves_per_place(fabric)
    most = max(2, min(9, int((RIGHT - LEFT) // (leaves * 11.0 + 22.0))))
    pod_places = max(fabric.pod_nodes // fabric.network.leaf_nodes, 1)
    keep = [place for fault in scene.faults for place in _places_of(fabric, fault)]
    if fabric.pods > 1:
        start = (fabric.pods - 1) * pod_places
        keep += [start, pod_places - 1, *range(start + 1, min(start + most // 2 - 1, total - 1))]
    row = folded(total, most, keep[: most - 2])
    gaps = sum(1 for place in row if place is None)
    width = (RIGHT - LEFT - gaps * GAP) / (len(row) - gaps)
    width = min(width, 420.0)
    x = (LEFT + RIGHT - width * (len(row) - gaps) - gaps * GAP) / 2
    for i, place in enumerate(row):
        room = GAP if place is None else width
        if place is None:
            before, after = row[i - 1], row[i + 1]
            missing = (after or 0) - (before or 0) - 1
            scene.notes.append((x + room / 2, scene.row("leaf") + 16, f"× {missing:,}"))
        scene.places.append((place, x, room))
        x += room


def _places_of(fabric: Fabric, fault: Fault) -> list[int]:
    """Return the leaf group in which a fault is seen."""
    if fault.part in ("card", "port"):
        return [fault.at[0] // fabric.network.leaf_nodes]
    if fault.part in ("leaf", "uplink"):
        return [fault.at[0] // leaves_per_place(fabric)]
    return []


def _place_leaves_and_nodes(scene: Scene) -> None:
    fabric = scene.fabric
    count, per_leaf = leaves_per_place(fabric), fabric.network.leaf_nodes
    odd = {f.at[0] for f in scene.faults if f.part in ("card", "port")}
    for place, x, room in scene.places:
        if place is None:
            continue
        inner, start = min(room - 16.0, count * 64.0), place * count
        step = inner / count
        for i in range(count):
            centre = x + room / 2 - inner / 2 + step * (i + 0.5)
            scene.leaves[start + i] = (centre, min(step - 2.0, 58.0))
        first = place * per_leaf
        total = min(per_leaf, fabric.nodes - first)
        most = max(int((room - 20.0) // 32.0) - 1, 2)
        shown = folded(total, most, [n - first for n in sorted(odd) if 0 <= n - first < total])
        pitch = min(32.0, (room - 42.0) / max(len(shown) - 1, 1))
        for i, node in enumerate(shown):
            centre = x + room / 2 + (i - (len(shown) - 1) / 2) * pitch
            if node is None:
                missing = (shown[i + 1] or 0) - (shown[i - 1] or 0) - 1
                scene.notes.append((centre, scene.row("node") + 21, f"× {missing:,}"))
            else:
                scene.nodes[first + node] = centre


def _place_spines(scene: Scene) -> None:
    """Place a few spines of every plane over the pods in sight, the same of each pod, and cores."""
    fabric = scene.fabric
    uplinks, planes = fabric.uplinks, fabric.planes
    odd = [f.at[0] % uplinks for f in scene.faults if f.part == "spine"]
    odd += [f.at[1] for f in scene.faults if f.part == "uplink"]
    spans = pod_spans(scene)
    narrow = min(right - left for left, right in spans.values()) / planes
    shown = folded(uplinks, max(2, min(8, int(narrow // 36.0) - 1)), odd)
    scene.spine_width = min(narrow / len(shown) - 4.0, 28.0)
    bands = {("spine", pod): span for pod, span in spans.items()}
    if scene.tiers == 3 and not fabric.network.core_bandwidth:
        bands["core", -1] = (LEFT + 60, RIGHT - 60)
    for (tier, pod), (left, right) in bands.items():
        for plane in range(planes):
            step = (right - left) / planes
            room = min(step / len(shown), 70.0)
            middle = left + step * (plane + 0.5)
            for i, uplink in enumerate(shown):
                centre = middle + (i - (len(shown) - 1) / 2) * room
                if uplink is None:
                    missing = (shown[i + 1] or 0) - (shown[i - 1] or 0) - 1
                    scene.notes.append((centre, scene.row(tier) + 16, f"× {missing:,}"))
                elif tier == "spine":
                    scene.spines[(pod * planes + plane) * uplinks + uplink] = centre
                else:
                    scene.cores[plane * uplinks + uplink] = centre


def pod_spans(scene: Scene) -> dict[int, tuple[float, float]]:
    """Return from where to where the drawn places of each pod reach."""
    spans: dict[int, tuple[float, float]] = {}
    for place, x, room in scene.places:
        if place is not None:
            pod = place * scene.fabric.network.leaf_nodes // scene.fabric.pod_nodes
            left, right = spans.get(pod, (x, x + room))
            spans[pod] = (min(left, x), max(right, x + room))
    return spans
