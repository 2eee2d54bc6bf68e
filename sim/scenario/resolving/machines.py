"""What a job runs on: nodes, networks and stacks, of the catalogue or of files beside the scenario."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ersatz.device_models.catalog.device import ScaleOut
from ersatz.device_models.catalog.reading import (
    load_node,
    load_scale_out,
    load_stack,
    make_scale_out,
)
from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.networks.fabric import Fault
from ersatz.device_models.text.problems import InputError
from ersatz.sim.scenario.scenario import (
    FabricSpec,
    Pool,
)
from ersatz.sim.scenario.sections.machines import (
    ClusterSection,
    FabricSection,
    FaultSection,
    PoolSection,
)

Blame = Callable[..., None]
DEFAULT_STACKS = {"huawei": "mindspeed", "amd": "primus"}


def resolve_pools(
    cluster: ClusterSection, common: str | None, folder: Path, blame: Blame, assumptions: list[str]
) -> list[Pool]:
    """Return the pools of a cluster, their stack being `common` unless they name one; none if faulty."""
    sections = cluster.pools or (
        PoolSection.model_construct(name="", node=cluster.node or "", nodes=cluster.nodes or 1,
                    network=cluster.network),
    )  # fmt: skip
    pools = []
    for i, section in enumerate(sections):
        path: tuple[Any, ...] = ("cluster", "pools", i) if cluster.pools else ("cluster",)
        node = load_named(load_node, _beside(folder, section.node), (*path, "node"), blame)
        if node and section.network:
            out = _network(section.network, folder, (*path, "network"), blame)
            node = replace(node, scale_out=out) if out else None
        stack = _stack(common, section, folder, path, node, blame, assumptions)
        nodes = _nodes(cluster, section, node, blame, assumptions)
        if node and stack and nodes:
            pools.append(Pool(section.name, node, nodes, stack))
    return pools if len(pools) == len(sections) else []


def _nodes(
    cluster: ClusterSection, section: PoolSection, node: Any, blame: Blame, assumptions: list[str]
) -> int | None:
    """Return how many nodes there are: as given, or those that hold `cluster.devices`."""
    if cluster.pools or cluster.devices is None or node is None:
        return section.nodes
    each: int = node.devices
    nodes, rest = divmod(cluster.devices, each)
    at = ("cluster", "devices")
    if rest:
        blame(at, cluster.devices, f"is no whole number of nodes of {node.devices} devices"
              f" ({node.name}); {nodes * node.devices or node.devices} would be")  # fmt: skip
        return None
    if cluster.nodes and cluster.nodes != nodes:
        blame(at, cluster.devices, f"is not what {cluster.nodes} nodes of {node.devices} hold; give one"
              " of nodes and devices")  # fmt: skip
        return None
    if not cluster.nodes:
        assumptions.append(
            f"cluster.nodes is not given: {nodes}, which hold {cluster.devices} devices"
        )
    return nodes


def _network(given: Any, folder: Path, path: tuple[Any, ...], blame: Blame) -> ScaleOut | None:
    """Return the network of a name, of a file beside the scenario, or of values written inline."""
    if isinstance(given, str):
        return load_named(load_scale_out, _beside(folder, given), path, blame)  # type: ignore[no-any-return]
    try:
        return make_scale_out(given, folder)
    except InputError as error:
        for problem in error.problems:
            place = f"{problem.file}:{problem.line}: " if problem.line else ""
            key = tuple(part for part in problem.key.split(".") if part and part != "value")
            blame((*path, *key), problem.value or None, f"{place}{problem.expected}")
        return None


def _stack(
    common: str | None, section: PoolSection, folder: Path, path: tuple[Any, ...], node: Any,
    blame: Blame, assumptions: list[str],
) -> Stack | None:  # fmt: skip
    name = section.stack or common
    if name:
        at = (*path, "stack") if section.stack else ("stack",)
        return load_named(load_stack, _beside(folder, name), at, blame)  # type: ignore[no-any-return]
    vendor = node.device.vendor if node else ""
    chosen = DEFAULT_STACKS.get(vendor, "megatron-core")
    assumptions.append(f"stack is not given: {chosen}, the usual one for {vendor or 'this vendor'}")
    return load_stack(chosen)


def load_named(
    loader: Callable[..., Any], name: Any, path: tuple[Any, ...], blame: Blame, **more: Any
) -> Any:
    """Call a loader; what it finds wrong in a file of its own is kept, the rest is placed here."""
    try:
        return loader(name, **more)
    except InputError as error:
        for problem in error.problems:
            where = f"{problem.file}:{problem.line}:{problem.column}: " if problem.line else ""
            key = f"{problem.key}: " if problem.key else ""
            value = f"{problem.value!r} - " if problem.value else ""
            blame(path, name if isinstance(name, str) else None,
                  f"{where}{key}{value}{problem.expected}")  # fmt: skip
        return None


def _beside(folder: Path, name: str) -> str:
    """Return the path of a user's file that stands beside the scenario, else the name itself."""
    is_path = name.endswith((".yaml", ".yml")) or "/" in name
    return str(folder / name) if is_path and os.path.exists(folder / name) else name


def resolve_fabric(section: FabricSection) -> FabricSpec:
    """Return where a job stands in its network, as a `fabric` section says."""
    own = isinstance(section.placement, tuple)
    return FabricSpec(
        size=section.size,
        placement="given" if own else str(section.placement),
        positions=tuple(section.placement) if own else (),  # type: ignore[arg-type]
        rank_order=section.rank_order, routing=section.routing, connections=section.connections,
        background=section.background, contention=section.contention,
        faults=resolve_faults(section.faults),
    )  # fmt: skip


def resolve_faults(sections: tuple[FaultSection, ...]) -> tuple[Fault, ...]:
    """Return what is broken in a network, as `faults` of a section say."""
    return tuple(Fault(f.part, f.at, f.left) for f in sections)
