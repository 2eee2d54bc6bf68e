"""Placement: how ranks are laid on nodes, and nodes on leaves; the exact step says which is best.

Ranks fill node after node (`packed`) or are dealt over all nodes, and nodes stand side by side or are dealt
over the leaves: the keys of a scenario's `fabric` that are a choice of whoever starts the job. What it says
of them is not overruled. A place is taken where it is faster than the usual one with the same network, link
by link; other orders of the ranks are not tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ersatz.sim.scenario.checks import MOST_NODES
from ersatz.sim.scenario.scenario import FabricSpec, Scenario
from ersatz.sim.search.finer.stages import Exact
from ersatz.sim.search.pricing import Price
from ersatz.sim.step.step import shares_links, unshared

USUAL = "packed", "packed"
ORDERS = (("dealt", "packed"), ("packed", "striped"), ("dealt", "striped"))  # ranks, nodes


def best_place(
    scenario: Scenario, price: Price, exact: Exact, given: frozenset[str] = frozenset()
) -> tuple[Scenario, Price]:
    """Return a layout where it runs fastest, and its price; `given` are keys of `fabric` that stay."""
    spec = scenario.fabric or FabricSpec()
    pool = scenario.pools[0]
    if pool.nodes == 1 or max(spec.size, pool.nodes) > MOST_NODES:
        return scenario, price
    usual = exact(replace(scenario, fabric=spec))
    least = min(price.seconds, usual.seconds) if usual else price.seconds
    for other in _places(spec, given, bool(pool.node.scale_out.leaf_nodes)):
        there = replace(scenario, fabric=other)
        if shares_links(there):  # with links of its own it is no slower, and that is quickly told
            alone = exact(unshared(there))
            if alone is None or alone.seconds >= least:
                continue
        found = exact(there)
        if found is not None and found.seconds < least:
            scenario, price, least = there, found, found.seconds
    return scenario, price


def _places(spec: FabricSpec, given: frozenset[str], leaves: bool) -> Iterator[FabricSpec]:
    """Yield other places than that of `spec`."""
    for ranks, nodes in ORDERS:
        if "rank_order" in given and ranks != spec.rank_order:
            continue
        if nodes != spec.placement and ("placement" in given or not leaves):
            continue
        if (ranks, nodes) != (spec.rank_order, spec.placement):
            yield replace(spec, rank_order=ranks, placement=nodes)  # type: ignore[arg-type]


def place_keys(scenario: Scenario, before: FabricSpec | None) -> dict[str, str]:
    """Return what of a place is not as it was, as keys of a scenario's `fabric`."""
    old, now = before or FabricSpec(), scenario.fabric or FabricSpec()
    pairs = (
        ("rank_order", old.rank_order, now.rank_order),
        ("placement", old.placement, now.placement),
    )
    return {key: new for key, was, new in pairs if was != new}
