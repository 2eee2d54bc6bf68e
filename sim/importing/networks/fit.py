"""Fit a network to a measured table with the product's own collectives.

The rate comes from the large sizes, latencies from the small ones: each is scaled until the model gives
back what was measured there. What lies between is not touched, and its error is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from ersatz.device_models.catalog.device import Node, ScaleOut, ScaleUp
from ersatz.device_models.networks.collectives import collective_time
from ersatz.device_models.networks.group import Group, group_of, wiring_of
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.networks.found import leaf, own_name

LARGE = 0.25  # of the largest size: where the rate decides
SMALL = 64 * 1024.0  # bytes: where latency decides
ROUNDS = 6
LATENCIES = {
    "up": ("latency_s", "bulk_latency_s"),
    "out": ("latency_s", "quick_latency_s", "start_s"),
}

Points = Sequence[tuple[float, float]]


def fitted(draft: Draft, node: Node, kind: str, devices: int, points: Points) -> list[str]:
    """Return a network file whose values give back a table of (bytes, seconds); says how well it does."""
    group = group_of(node, 1, devices)
    inside = devices <= wiring_of(node).domain
    if devices < 2 or (not inside and not node.nics):
        draft.contradict(f"{devices} devices of {node.name} have no network between them")
        return []
    side = "up" if inside else "out"
    large = [p for p in points if p[0] >= LARGE * max(size for size, _ in points)]
    small = [p for p in points if p[0] <= SMALL]
    start, rate, slow = node, 1.0, 1.0
    for _ in range(ROUNDS):
        rate *= _ratio(node, group, kind, large)
        node = _changed(start, side, kind, group, rate, slow)
        if small:
            slow /= _ratio(node, group, kind, small)
            node = _changed(start, side, kind, group, rate, slow)
    key = _rate_key(start, side, kind, group)
    part = node.scale_up if inside else node.scale_out
    value = getattr(part, key)
    if value > 1.0:
        draft.contradict(f"the table needs {value:.2f} of the rate of {part.name}:"
                         f" another machine than {start.name}")  # fmt: skip
        return []
    return _file(draft, start, node, side, key, kind, devices, group, points, bool(small))


def _ratio(node: Node, group: Group, kind: str, points: Points) -> float:
    """Return predicted / measured time, the middle one of several sizes."""
    return median(collective_time(kind, size, group, node).seconds / took for size, took in points)


def _rate_key(node: Node, side: str, kind: str, group: Group) -> str:
    """Return which share of the links' rate a collective is bound by."""
    if kind == "all_to_all":
        return "all_to_all"
    chosen = collective_time(kind, 2**32, group, node).algorithm
    return "in_switch" if side == "up" and chosen == "in_switch" else "efficiency"


def _changed(node: Node, side: str, kind: str, group: Group, rate: float, slow: float) -> Node:
    """Return a node whose links are `rate` times as fast and `slow` times as late."""
    part: ScaleUp | ScaleOut = node.scale_up if side == "up" else node.scale_out
    key = _rate_key(node, side, kind, group)
    changes = {key: getattr(part, key) * rate}
    if key == "in_switch":  # rings must not overtake what was measured
        changes["efficiency"] = min(part.efficiency, part.efficiency * rate)
    changes |= {name: getattr(part, name) * slow for name in LATENCIES[side]}
    if side == "up":
        return replace(node, scale_up=replace(node.scale_up, **changes))
    return replace(node, scale_out=replace(node.scale_out, **changes))


def _file(
    draft: Draft, before: Node, after: Node, side: str, key: str, kind: str, devices: int,
    group: Group, points: Points, latency: bool,
) -> list[str]:  # fmt: skip
    old: ScaleUp | ScaleOut = before.scale_up if side == "up" else before.scale_out
    new: ScaleUp | ScaleOut = after.scale_up if side == "up" else after.scale_out
    name = own_name(draft.file)
    errors = [
        abs(collective_time(kind, size, group, after).seconds / took - 1) for size, took in points
    ]
    span = f"{kind} on {devices} devices, {_bytes(points[0][0])} to {_bytes(points[-1][0])}"
    draft.assume(name, f"within {median(errors):.1%}", f"median error of the fitted network over the"
                 f" {len(points)} sizes of the table; {max(errors):.0%} at most")  # fmt: skip
    lines = [f"name: {name}", f'title: "{old.title}, as measured"', f"based_on: {old.name}", "sources:",
             f'  MEASURED: "{draft.format} table {own_name(draft.file)}: {span}"',
             leaf(key, f"{getattr(new, key):.4g}", "from the largest sizes")]  # fmt: skip
    if key == "in_switch" and new.efficiency < old.efficiency:
        lines.append(
            leaf("efficiency", f"{new.efficiency:.4g}", "of rings: at most what was measured")
        )
    if latency:
        lines += [leaf(k, f"{getattr(new, k) * 1e6:.4g} us", "from the smallest sizes")
                  for k in LATENCIES[side] if getattr(new, k)]  # fmt: skip
    else:
        draft.assume(
            "latency_s",
            f"{old.latency_s * 1e6:.3g} us",
            f"the table has no small sizes: as {old.name}",
        )
    used = f"cluster: {{node: {before.name}, network: ./THIS.yaml}}" if side == "out" else (
        f"in a node file: {{name: mine, based_on: {before.name}, scale_up: ./THIS.yaml}}")  # fmt: skip
    return [*lines, f"# Use it so, with this file's name: {used}"]


def _bytes(size: float) -> str:
    for unit, word in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.3g} {word}"
    return f"{size:.0f} B"
