"""One node, or the supernode that it belongs to, from the inside: devices and the links between."""

from __future__ import annotations

import math
from itertools import combinations

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.networks.group import wiring_of
from ersatz.device_models.text.units import format_si
from ersatz.sim.report.fabric import pair_bandwidth
from ersatz.sim.report.pictures.svg import (
    INK,
    JOB,
    MUTED,
    PAPER,
    PLANES,
    STEEL,
    WIDTH,
    Canvas,
    Point,
    cable_width,
    fitting,
    folded,
)

NODE_HEIGHT = 292.0
MIDDLE = 330.0  # of the picture; the words stand right of it
WORDS = 652.0
ROOM = WIDTH - 10 - WORDS
LINK = PLANES[0]


def draw_node(canvas: Canvas, node: Node, top: float) -> None:
    """Draw the links between devices below `top`, with their figures beside them."""
    up = node.scale_up
    if up.kind in ("mesh", "ring"):
        _circles(canvas, node, top)
    elif up.kind == "torus":
        _torus(canvas, node, top)
    elif up.kind == "supernode":
        _supernode(canvas, node, top)
    else:
        _switched(canvas, node, top)
    _words(canvas, node, top)


def _words(canvas: Canvas, node: Node, top: float) -> None:
    up, domain = node.scale_up, wiring_of(node).domain
    whole = up.kind == "supernode"
    x, y = WORDS, top + 40
    canvas.words(
        20, top + 26, "One supernode inside" if whole else "One node inside", size=15, bold=True
    )
    canvas.words(x, y, up.title, size=fitting(up.title, 13.0, ROOM), bold=True)
    pair = pair_bandwidth(up)
    lines = [
        f"{domain} devices joined; node of {node.devices} × {node.device.title if node.device else ''}",
        f"{up.links} links of {format_si(up.link_bandwidth, 'B/s')} per device:"
        f" {format_si(up.bandwidth, 'B/s')}",
        f"a pair: {format_si(pair, 'B/s')}" + (" (one link only)" if up.kind == "mesh" else ""),
        "per direction" + ("; the switch reduces" if up.in_switch else ""),
    ]
    if node.nics:
        lines.append(f"{node.nics} cards of {format_si(node.scale_out.nic_bandwidth, 'B/s')}:"
                     f" {format_si(node.nic_bandwidth_per_device, 'B/s')} per device")  # fmt: skip
    for i, line in enumerate(lines):
        canvas.words(
            x, y + 24 + 19 * i, line, size=fitting(line, 12.0, ROOM), fill=INK if i < 3 else MUTED
        )


def _circles(canvas: Canvas, node: Node, top: float) -> None:
    """Draw meshes or rings, side by side where links join only a part of the node."""
    up, domain = node.scale_up, wiring_of(node).domain
    parts = max(node.devices // domain, 1)
    shown = folded(parts, 4)
    room = 600.0 / len(shown)
    radius = min(98.0, room / 2 - 26)
    for i, part in enumerate(shown):
        x, y = MIDDLE - 300 + room * (i + 0.5), top + 156
        if part is None:
            canvas.words(x, y, f"× {parts - len(shown) + 1}", size=13, fill=MUTED, anchor="middle")
            continue
        points = [_on_circle(x, y, radius, n / domain) for n in range(domain)]
        pairs = (
            combinations(points, 2)
            if up.kind == "mesh"
            else zip(points, [*points[1:], points[0]], strict=True)
        )
        canvas.lines(pairs, LINK, cable_width(pair_bandwidth(up)), opacity=0.5)
        for n, point in enumerate(points):
            _device(canvas, point, part * domain + n, domain)


def _on_circle(x: float, y: float, radius: float, turn: float) -> Point:
    angle = 2 * math.pi * turn - math.pi / 2
    return x + radius * math.cos(angle), y + radius * math.sin(angle)


def _device(canvas: Canvas, point: Point, number: int, domain: int) -> None:
    radius = 14.0 if domain <= 16 else 9.0
    canvas.dot(*point, radius, JOB)
    canvas.words(
        point[0],
        point[1] + 4,
        str(number),
        size=11 if domain <= 16 else 8,
        fill=PAPER,
        anchor="middle",
    )


def _torus(canvas: Canvas, node: Node, top: float) -> None:
    """Draw one layer of a torus, with stubs where its rings close."""
    up = node.scale_up
    width, height, layers = (up.dims[0], up.dims[1], up.dims[2])
    columns, rows = min(width, 16), min(height, 8)
    pitch = min(560.0 / columns, 190.0 / rows, 46.0)
    x0, y0 = MIDDLE - pitch * (columns - 1) / 2, top + 150 - pitch * (rows - 1) / 2
    spots = [(x0 + i * pitch, y0 + j * pitch) for j in range(rows) for i in range(columns)]
    lines = [((x0 - pitch / 2, y0 + j * pitch), (x0 + (columns - 0.5) * pitch, y0 + j * pitch))
             for j in range(rows) if width > 1]  # fmt: skip
    lines += [((x0 + i * pitch, y0 - pitch / 2), (x0 + i * pitch, y0 + (rows - 0.5) * pitch))
              for i in range(columns) if height > 1]  # fmt: skip
    canvas.lines(lines, LINK, cable_width(pair_bandwidth(up)), opacity=0.5)
    for spot in spots:
        canvas.dot(*spot, min(pitch * 0.3, 13.0), JOB)
    text = " × ".join(str(d) for d in up.dims if d > 1) + ", every ring closed"
    if layers > 1:
        text += f"; one of {layers} layers"
    canvas.words(MIDDLE, top + 278, text, size=11, fill=MUTED, anchor="middle")


def _switched(canvas: Canvas, node: Node, top: float) -> None:
    """Draw devices below the switch that joins them, with their cards below."""
    up = node.scale_up
    shown = folded(node.devices, 16)
    step = min(560.0 / len(shown), 66.0)
    left = MIDDLE - step * len(shown) / 2
    bar, row = top + 66, top + 168
    xs = [left + step * (i + 0.5) for i in range(len(shown))]
    real = [(x, n) for x, n in zip(xs, shown, strict=True) if n is not None]
    canvas.lines(
        [((x, bar + 26), (x, row)) for x, _ in real], LINK, cable_width(up.bandwidth), opacity=0.6
    )
    canvas.box(left, bar, step * len(shown), 26, LINK, radius=6)
    word = "switch that reduces" if up.in_switch else "switch"
    canvas.words(MIDDLE, bar + 17, word, size=12, fill=PAPER, anchor="middle")
    for x, n in real:
        canvas.box(x - 14, row, 28, 28, JOB)
        canvas.words(x, row + 18, str(n), size=11, fill=PAPER, anchor="middle")
    _cards(canvas, node, left, step * len(shown), row + 28)


def _cards(canvas: Canvas, node: Node, left: float, width: float, y: float) -> None:
    """Draw the network cards below a row of devices."""
    if not node.nics:
        return
    shown = folded(node.nics, 16)
    step = width / len(shown)
    rate = node.scale_out.nic_bandwidth
    for i, card in enumerate(shown):
        x = left + step * (i + 0.5)
        if card is not None:
            canvas.lines([((x, y), (x, y + 22))], STEEL, 0.8, opacity=0.7)
            canvas.box(x - 11, y + 22, 22, 11, STEEL, radius=2)
            canvas.lines([((x, y + 33), (x, y + 54))], STEEL, cable_width(rate), opacity=0.6)
    canvas.words(left + width / 2, y + 70, "network cards", size=11, fill=MUTED, anchor="middle")


def _supernode(canvas: Canvas, node: Node, top: float) -> None:
    """Draw servers below the switches that join their devices into one domain."""
    up, domain = node.scale_up, wiring_of(node).domain
    servers = max(domain // node.devices, 1)
    shown = folded(servers, 6)
    step = 600.0 / max(len(shown), 3)
    left = MIDDLE - step * len(shown) / 2
    bar, row = top + 62, top + 152
    columns = (
        4 if node.devices % 4 == 0 and node.devices <= 16 else max(math.ceil(node.devices**0.5), 1)
    )
    if servers == 1:
        columns = max(min(node.devices, 24), 1)
    deep = math.ceil(node.devices / columns)
    pitch = min((step * (1 if servers > 1 else len(shown)) - 22) / columns, 22.0)
    for i, server in enumerate(shown):
        x = left + step * (i + 0.5)
        if server is None:
            gap = (shown[i + 1] or 0) - (shown[i - 1] or 0) - 1
            canvas.words(x, row + 30, f"× {gap}", size=13, fill=MUTED, anchor="middle")
            continue
        spots = [(x + (n % columns - (columns - 1) / 2) * pitch, row + 16 + n // columns * pitch)
                 for n in range(node.devices)]  # fmt: skip
        rate = up.bandwidth * (1 if deep == 1 else deep)
        first = spots[: min(columns, node.devices)]
        canvas.lines(
            [((px, bar + 30), (px, row)) for px, _ in first],
            LINK,
            min(cable_width(rate), 5),
            opacity=0.5,
        )
        canvas.box(
            x - columns * pitch / 2 - 6,
            row,
            columns * pitch + 12,
            deep * pitch + 12,
            "#e9edf2",
            radius=6,
        )
        for px, py in spots:
            canvas.dot(px, py + 1, pitch * 0.36, JOB)
        canvas.words(
            x, row + deep * pitch + 30, f"node {server}", size=11, fill=MUTED, anchor="middle"
        )
    canvas.box(left, bar, step * len(shown), 30, LINK, radius=6)
    canvas.words(
        MIDDLE,
        bar + 19,
        f"switches that join {domain} devices",
        size=12,
        fill=PAPER,
        anchor="middle",
    )
