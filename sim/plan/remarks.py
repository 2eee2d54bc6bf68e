"""What a reader should know of where the groups of a job sit: said in words beside the answer."""

from __future__ import annotations

from collections.abc import Iterator

from ersatz.device_models.networks.group import Group, wiring_of
from ersatz.device_models.text.units import format_bytes, format_si
from ersatz.sim.plan.layout import communicators, share_of
from ersatz.sim.plan.network import (
    dead_cards,
    job_fabric,
    network_matters,
    placed_communicators,
    used_node,
)
from ersatz.sim.scenario.scenario import FabricSpec, Pool, Scenario


def network_remarks(scenario: Scenario) -> Iterator[str]:
    """Say which groups straddle domains, which pass between sites, and which cards are dead."""
    for pool in scenario.pools:
        own = share_of(scenario.parallel, pool, scenario.pools)
        replicas = own.dp if own.own else scenario.parallel.dp
        groups = placed_communicators(own, pool, replicas, scenario.fabric, scenario.seed)
        found = {name: c.group for name, c in groups.items() if name not in ("world", "pp")}
        yield from _straddling(scenario, pool, found)
        yield from _sites(scenario, pool, found)
    dead = dead_cards(scenario)
    if dead:
        yield (
            f"{dead} network card{'s' * (dead > 1)} without a live port: the job is taken to have"
            " started again without them, their devices share the next card of their node"
        )


def _straddling(scenario: Scenario, pool: Pool, groups: dict[str, Group]) -> Iterator[str]:
    """Name groups that would fit into a domain but lie across two."""
    domain = wiring_of(pool.node).domain
    parallel = share_of(scenario.parallel, pool, scenario.pools)
    strides = {"tp": 1, "cp": parallel.tp, "ep": parallel.etp}
    packed = communicators(parallel, used_node(pool), parallel.dp)
    for name, stride in strides.items():
        group, block = groups[name], stride * groups[name].size
        if group.nodes == 1 or block > domain or packed[name].group.nodes == 1:
            continue
        yield (
            f"{name} groups of {group.size} lie across domains of {domain} devices, with"
            f" {group.per_node} inside where they are thinnest: {domain // block * block} of"
            f" {domain} devices in use would keep them whole"
        )


def _sites(scenario: Scenario, pool: Pool, groups: dict[str, Group]) -> Iterator[str]:
    """Say that a job spans pods, and what the way between them is taken to be."""
    node, spec = used_node(pool), scenario.fabric or FabricSpec()
    out = node.scale_out
    if not node.nics or not network_matters(node, pool.nodes, scenario.fabric):
        return
    pods = job_fabric(node, pool.nodes, spec).pods
    if pods == 1 or not (out.core_latency_s or out.core_bandwidth):
        return
    passing = [name for name, group in groups.items() if group.crossings]
    line = format_si(8 * out.core_bandwidth, "bit/s") if out.core_bandwidth else "the spines"
    window = 2 * out.core_latency_s * out.nic_bandwidth
    yield (
        f"the job spans {pods} sites of {out.name} ({pool.nodes} nodes, {out.pod_nodes} a site), joined"
        f" by {line} and {format_si(out.core_latency_s, 's')} each way; groups between them:"
        f" {', '.join(passing) or 'none but the pipeline'}; a full rate needs"
        f" {format_bytes(window)} in flight per card, which is taken as given"
    )
