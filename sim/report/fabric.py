"""The report of a network: what it is made of, what is broken, what the job's groups get of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.device_models.catalog.device import Node, ScaleUp
from ersatz.device_models.networks.fabric import Fault
from ersatz.device_models.networks.facts import FabricFacts, fabric_facts
from ersatz.device_models.networks.graph import spans
from ersatz.device_models.networks.group import ways, wiring_of
from ersatz.device_models.text.units import format_money, format_si
from ersatz.sim.plan.layout import share_of
from ersatz.sim.plan.network import Served, served_communicators
from ersatz.sim.report.json_out import plain
from ersatz.sim.scenario.fabric_file import FabricCase
from ersatz.sim.scenario.scenario import Pool

NOTICE = "Rates are per direction. A model's description, no measurement; docs/models/fabric.md."
JOINS = {
    "switched": "a switch joins all", "mesh": "a link between every pair", "ring": "a ring",
    "torus": "rings in every dimension",
    "supernode": "switches across servers",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PoolView:
    """What the report says of one pool of a case."""

    pool: Pool
    network: FabricFacts
    served: tuple[Served, ...]


def view_pools(case: FabricCase) -> tuple[PoolView, ...]:
    """Return the facts of every pool, and what the job's groups get there."""
    views = []
    for pool in case.pools:
        facts = fabric_facts(pool.node, max(case.fabric.size, pool.nodes), case.fabric.faults)
        served: tuple[Served, ...] = ()
        if case.parallel:
            own = share_of(case.parallel, pool, case.pools)
            served = served_communicators(own, pool, case.parallel.dp, case.fabric, case.seed)
        views.append(PoolView(pool, facts, served))
    return tuple(views)


def infeasible(case: FabricCase, views: Sequence[PoolView]) -> list[str]:
    """Return in words what makes the network unusable: nodes apart, ranks cut off."""
    return [f"infeasible: {case.name}: {why}" for view in views for why in _reasons(case, view)]


def _reasons(case: FabricCase, view: PoolView) -> list[str]:
    down = ", ".join(fault_words(f) for f in case.fabric.faults if f.left == 0) or "other traffic"
    found = [f"{text} ({down})" for text in view.network.cut_off]
    cut = [served.name for served in view.served if not min(served.ring, served.exchange) > 0]
    if cut:
        found.append(f"the network cuts off ranks of the groups {', '.join(cut)} ({down})")
    return found


def fabric_record(
    cases: Sequence[FabricCase], views: Sequence[Sequence[PoolView]]
) -> dict[str, Any]:
    """Return everything as mappings: the baseline's keys at the top, all cases under `cases`."""
    records = {case.name: {"pools": [_pool_record(view) for view in seen]}
               for case, seen in zip(cases, views, strict=True)}  # fmt: skip
    top = {"question": cases[0].question, "name": cases[0].name, **records[cases[0].name]}
    return {**top, "cases": records} if len(cases) > 1 else top


def _pool_record(view: PoolView) -> dict[str, Any]:
    up, wiring = view.pool.node.scale_up, wiring_of(view.pool.node)
    return {
        "name": view.pool.name, "node": view.pool.node.name, "nodes": view.pool.nodes,
        "network": plain(view.network),
        "links": {
            "name": up.name, "kind": up.kind, "domain": wiring.domain, "links": up.links,
            "link_bandwidth": up.link_bandwidth, "bandwidth": up.bandwidth,
            "pair_bandwidth": pair_bandwidth(up), "reduces_in_switch": up.in_switch > 0,
        },
        "communicators": [plain(served) for served in view.served],
    }  # fmt: skip


def pair_bandwidth(up: ScaleUp) -> float:
    """Return the bytes/s per direction from a device to one other (on a ring or torus, a neighbour)."""
    parts = {"mesh": up.links, "ring": ways(up), "torus": ways(up)}  # others that links lead to
    return up.bandwidth / parts.get(up.kind, 1)


def render_fabric(
    cases: Sequence[FabricCase], views: Sequence[Sequence[PoolView]]
) -> RenderableType:
    """Return the report of all cases."""
    parts: list[RenderableType] = [Text(cases[0].question, style="bold"), Text("")]
    if len(cases) > 1:
        parts += [_overview(cases, views), Text("")]
    told: dict[object, str] = {}
    for case, seen in zip(cases, views, strict=True):
        if len(cases) > 1:
            parts += [Text(f"== {case.name} ==", style="bold"), Text("")]
        for view in seen:
            key = view.pool.node.name, view.network
            parts += _pool(case, view, told.get(key, ""))
            told.setdefault(key, case.name)
    return Group(*parts, Text(NOTICE, style="dim"))


def _overview(cases: Sequence[FabricCase], views: Sequence[Sequence[PoolView]]) -> Table:
    """Return a line for each case and pool: what the network carries, and whether it holds."""
    table = Table(box=None, pad_edge=False)
    for column in (
        "",
        "bisection",
        "per device",
        "with faults",
        "weak switches",
        "cards cut off",
        "nodes meet",
    ):
        table.add_column(column, justify="right" if column else "left")
    for case, seen in zip(cases, views, strict=True):
        for view in seen:
            facts, name = view.network, " ".join(filter(None, (case.name, view.pool.name)))
            healthy, left = facts.half_flow or (0.0, 0.0)
            change = f"{100 * (left / healthy - 1):+.1f} %" if healthy else ""
            table.add_row(name, format_si(facts.bisection, "B/s"),
                          format_si(facts.bisection_per_device, "B/s"), change,
                          f"{len(facts.weak):,}", f"{facts.cards_cut:,}",
                          "no" if _reasons(case, view) else "yes")  # fmt: skip
    return table


def _pool(case: FabricCase, view: PoolView, known: str) -> Iterator[RenderableType]:
    """Give the report of a pool; what was told of an equal one in the case `known` is left out."""
    facts, node = view.network, view.pool.node
    name = f"{view.pool.name}: " if view.pool.name else ""
    yield Text(f"{name}{view.pool.nodes:,} x {node.title}", style="bold")
    yield Text(_verdict(case, view))
    if known:
        yield Text(f"network and links as in {known}")
    else:
        yield from _parts(facts, node)
    if view.served:
        yield Text("")
        yield _served_table(view.served)
        yield Text("reach: how far up the widest group goes; of: against a healthy network that does not"
                   " block", style="dim")  # fmt: skip
    if not known:
        yield from _assumptions(node)
    yield Text("")


def _parts(facts: FabricFacts, node: Node) -> Iterator[RenderableType]:
    """Give the tables of a network and of the links inside."""
    yield Text("")
    yield _rows(facts.title, _network_rows(facts))
    if facts.faults:
        yield Text("")
        yield _fault_table(facts)
        yield Text(_flow_line(facts))
    yield Text("")
    yield _rows(node.scale_up.title, _link_rows(node))


def _verdict(case: FabricCase, view: PoolView) -> str:
    """Return the answer in a line or two."""
    facts = view.network
    reasons = _reasons(case, view)
    if reasons:
        return "INFEASIBLE: " + "; ".join(reasons)
    weak = len(facts.weak)
    several = "switches are single points" if weak > 1 else "switch is a single point"
    holds = f"{weak:,} {several} of failure" if weak else "no single switch cuts a card off"
    cut = (
        f"connected, but {facts.cards_cut:,} cards are cut off" if facts.cards_cut else "connected"
    )
    return (f"{cut}; bisection {format_si(facts.bisection, 'B/s')}"
            f" ({format_si(facts.bisection_per_device, 'B/s')} per device); {holds}")  # fmt: skip


def _rows(title: str, rows: Iterator[tuple[str, str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(min_width=26, no_wrap=True)
    table.add_column(justify="right", min_width=16)
    table.add_column()
    table.title, table.title_justify, table.title_style = title, "left", "italic"
    for row in rows:
        table.add_row(*row)
    return table


def bits(rate: float) -> str:
    """Write a rate of bytes/s as network people read it: '400 Gbit/s'."""
    return format_si(rate * 8, "bit/s")


def _network_rows(facts: FabricFacts) -> Iterator[tuple[str, str, str]]:
    c = facts.counts
    yield "nodes", f"{facts.nodes:,}", f"{facts.devices:,} devices"
    ports = f"{facts.ports} ports" if facts.ports > 1 else "one port"
    yield "cards", f"{facts.cards} per node", f"{ports} of {bits(facts.port_bandwidth)}"
    if not facts.described:
        yield "topology", "not described", "taken as one switch that never blocks"
        return
    yield "tiers", f"{c.tiers}", _several(("plane", c.planes), ("pod", c.pods))
    yield (
        "leaves",
        f"{c.leaves:,}",
        _ports(c.leaf_ports, facts.port_bandwidth, facts.uplink_bandwidth),
    )
    if c.spines:
        inside = "" if c.spine_switches >= c.spines else f", {c.spine_switches:,} switches"
        yield "spines", f"{c.spines:,}{inside}", _ports(c.spine_ports, facts.uplink_bandwidth)
    if c.core_switches or facts.core_bandwidth:
        out = f"{bits(facts.core_bandwidth)} out of a pod" if facts.core_bandwidth else ""
        yield "core", f"{c.core_switches:,}" if c.core_switches else "lines", out
    yield "switches", f"{c.switches:,}", ""
    yield "cables", f"{c.cables:,}", _cable_parts(facts)
    blocking = [f"{facts.leaf_oversubscription:.3g} : 1 at leaves"]
    if facts.core_oversubscription:
        blocking.append(f"{facts.core_oversubscription:.3g} : 1 at spines")
    yield "oversubscription", blocking[0], ", ".join(blocking[1:])
    per_device = f"{format_si(facts.bisection_per_device, 'B/s')} per device"
    yield "bisection", format_si(facts.bisection, "B/s"), per_device
    words = (
        "below one leaf",
        "in a pod" if c.pods > 1 else "beyond",
        "across pods" if c.pods > 1 else "",
    )
    ways = [f"{n} {word}".strip() for n, word in zip(facts.hops, words, strict=False)]
    yield "switches on the way", ways[0], ", ".join(ways[1:])
    yield from _weak_rows(facts)
    if facts.price is None:
        yield "price", "not known", "of switches and cables"
    else:
        each = f"{facts.price_per_device:,.0f} USD per device, for switches and cables as quoted"
        yield "price", format_money(facts.price, "USD"), each
    for text in facts.findings:
        yield "note", "", text


def _several(*counts: tuple[str, int]) -> str:
    return ", ".join(f"{n} {word}{'s' if n > 1 else ''}" for word, n in counts)


def _ports(ports: tuple[int, int], down: float, up: float | None = None) -> str:
    """Return "32 ports of 400 Gbit/s down, 32 up"."""
    below, above = ports
    if not above:
        return f"{below:,} ports of {bits(down)} down"
    other = f" of {bits(up)}" if up and up != down else ""
    return f"{below:,} ports of {bits(down)} down, {above:,}{other} up"


def _cable_parts(facts: FabricFacts) -> str:
    c = facts.counts
    parts = [
        f"{c.node_cables:,} to nodes",
        f"{c.leaf_cables:,} leaf to spine",
        f"{c.core_cables:,} above",
    ]
    kept = [
        p for p, n in zip(parts, (c.node_cables, c.leaf_cables, c.core_cables), strict=True) if n
    ]
    return ", ".join(kept)


def _weak_rows(facts: FabricFacts) -> Iterator[tuple[str, str, str]]:
    """Say which single parts cut cards off."""
    weak = facts.weak
    if not weak:
        yield "single points of failure", "no switch", ""
    for i, tier in enumerate(
        t for t in ("leaf", "spine", "core") if any(w.tier == t for w in weak)
    ):
        found = [w for w in weak if w.tier == tier]
        cards = max(w.cards for w in found)
        plural = {"leaf": "leaves"}.get(tier, f"{tier}s") if len(found) > 1 else tier
        several = "each cuts off up to" if len(found) > 1 else "cuts off"
        holds = f"{several} {cards:,} cards" if cards else spans(tier, [w.number for w in found])
        yield "" if i else "single points of failure", f"{len(found):,} {plural}", holds
    if facts.ports == 1:
        yield "", f"{facts.counts.node_cables:,} cables", "a card has no second one"


def fault_words(fault: Fault) -> str:
    """Say what is the matter with a part: "leaf 3 is down"."""
    place = " ".join(str(n) for n in fault.at)
    return f"{fault.part} {place}" + (
        " is down" if fault.left == 0 else f" has {fault.left:.0%} left"
    )


def _fault_table(facts: FabricFacts) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in (
        "broken or slow",
        "left",
        "cards cut off",
        "cards slower",
        "lost below leaves",
        "lost above",
    ):
        table.add_column(column, justify="left" if column == "broken or slow" else "right")
    for f in facts.faults:
        table.add_row(f"{f.part} {' '.join(map(str, f.at))}", f"{100 * f.left:.0f} %", f"{f.cards_cut:,}",
                      f"{f.cards_slower:,}", _lost(f.below), _lost(f.above))  # fmt: skip
    return table


def _lost(share: float) -> str:
    return f"-{100 * share:.2f} %" if share else "none"


def _flow_line(facts: FabricFacts) -> str:
    healthy, left = facts.half_flow or (0.0, 0.0)
    change = f" ({100 * (left / healthy - 1):+.1f} %)" if healthy else ""
    return (f"between the halves of the nodes: {format_si(healthy, 'B/s')} healthy,"
            f" {format_si(left, 'B/s')} as it is{change}")  # fmt: skip


def _link_rows(node: Node) -> Iterator[tuple[str, str, str]]:
    up, domain = node.scale_up, wiring_of(node).domain
    reduces = ", and reduces by itself" if up.in_switch else ""
    yield "devices that it joins", f"{domain}", JOINS[up.kind] + reduces
    yield "links per device", f"{up.links}", f"of {format_si(up.link_bandwidth, 'B/s')}"
    yield "bandwidth per device", format_si(up.bandwidth, "B/s"), "all links together"
    words = {"mesh": "one link only", "ring": "to a neighbour", "torus": "to a neighbour"}
    word = words.get(up.kind, "any two devices")
    yield "bandwidth of a pair", format_si(pair_bandwidth(up), "B/s"), word
    if node.nic_bandwidth_per_device:
        share = up.bandwidth / node.nic_bandwidth_per_device
        yield (
            "against the network",
            f"{share:.1f} x",
            f"{format_si(node.nic_bandwidth_per_device, 'B/s')} of cards per device",
        )


def _served_table(served: Sequence[Served]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("groups", no_wrap=True)
    for column in ("members", "beside", "reach", "rings get", "of", "all-to-all", "of", "held by"):
        left = column in ("reach", "held by")
        table.add_column(column, justify="left" if left else "right", no_wrap=column != "held by")
    for s in served:
        exchange = s.name == "ep"
        table.add_row(
            s.name, f"{s.size:,}", f"{s.per_domain}", s.place, *_share(s.ring, s),
            *(_share(s.exchange, s) if exchange else ("", "")),
            s.exchange_link if exchange else s.ring_link,
        )  # fmt: skip
    return table


def _share(rate: float, served: Served) -> tuple[str, str]:
    if not rate > 0:
        return "cut off", ""
    share = "" if served.place == "inside" else f"{rate / served.ideal:.0%}"
    return format_si(rate, "B/s"), share


def _assumptions(node: Node) -> Iterator[RenderableType]:
    """Name the values of the network and the links that are assumptions themselves."""
    found: dict[tuple[str, str], list[str]] = {}
    for part in (node.scale_out, node.scale_up):
        for fact in part.facts.values():
            if fact.confidence == "assumed":
                found.setdefault((part.name, fact.note), []).append(f"{fact.key} {fact.text}")
    if found:
        yield Text("")
        yield Text("assumed, because the public record is silent:")
    for (name, note), values in found.items():
        yield Text(f"  {name}: {', '.join(values)}" + (f" ({note})" if note else ""))
