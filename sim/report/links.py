"""Report of measured links: what was fitted per tier, how well, and how to use the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.text.units import format_duration, format_si
from ersatz.sim.hil.links.fit import predicted_seconds
from ersatz.sim.hil.links.found import Found
from ersatz.sim.hil.links.network_file import LinkOrigin

MOST_ROWS = 60  # shown; the CSV beside the file holds all


def links_record(
    found: Sequence[Found], origin: LinkOrigin, missing: Sequence[str]
) -> dict[str, Any]:
    """Return what `--json` writes."""
    tiers = [{**asdict(f.fit), "file": str(f.path), "timings": [asdict(r) for r in f.rows]}
             for f in found]  # fmt: skip
    return {"origin": asdict(origin), "tiers": tiers, "missing": list(missing)}


def render_links(
    found: Sequence[Found], node: Node, origin: LinkOrigin, missing: Sequence[str]
) -> RenderableType:
    """Return the report: every tier's figures first, then the rows."""
    parts: list[RenderableType] = []
    for f in found:
        errors = ", ".join(f"{kind} {100 * e:.0f} %" for kind, e in f.fit.errors.items())
        name = "Network between nodes" if f.fit.tier == "network" else "Links inside a node"
        parts += [
            Text(f"{name}: {format_si(f.fit.ring, 'B/s')} in rings, {format_si(f.fit.exchange, 'B/s')} in"
                 f" exchanges, {format_duration(f.fit.latency_s)} per hop.", style="bold"),
            *_held_out(f),
            Text(f"Fitted to {f.fit.rows} measured collectives; mean error {errors}; worst"
                 f" {100 * f.fit.worst:.0f} %."),
        ]  # fmt: skip
    parts.append(Text(f"{origin.words}."))
    if any(f.fit.tier == "network" for f in found):
        parts.append(Text("In a scenario: cluster.network takes the file."))
    parts += [Text(f"not measured: {line}") for line in dict.fromkeys(missing)]
    return Group(*parts, Text(""), *(_rows(f, node) for f in found))


def _held_out(found: Found) -> Iterator[Text]:
    fit, held = found.fit, [r for r in found.rows if r.held_out]
    if fit.held_out is not None and fit.held_out_worst is not None:
        yield Text(f"{len(held)} all-reduces that no fit has seen are met within {100 * fit.held_out:.0f} %"
                   f" on average, {100 * fit.held_out_worst:.0f} % at worst.")  # fmt: skip
    if fit.knee_bytes:
        yield Text(f"Buffers beyond {format_si(fit.knee_bytes, 'B')} go slower: at"
                   f" {100 * fit.beyond_knee:.0f} % of the rate from twice that on.")  # fmt: skip


def _rows(found: Found, node: Node) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("collective", "ranks", "bytes", "measured", "spread", "fitted", "error"):
        table.add_column(name, justify="left" if name == "collective" else "right")
    for row in sorted(found.rows, key=lambda r: (r.kind, r.members, r.nbytes))[:MOST_ROWS]:
        fitted = predicted_seconds(found.fit, node, row)
        table.add_row(
            row.kind + (" (held out)" if row.held_out else ""), f"{row.members}", f"{row.nbytes:,}",
            format_duration(row.seconds), f"{100 * row.spread:.0f} %", format_duration(fitted),
            f"{100 * (fitted / row.seconds - 1):+.0f} %",
        )  # fmt: skip
    return table
