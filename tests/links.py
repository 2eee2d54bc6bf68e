"""Links with round numbers, links as published, and short ways to ask for a collective's time."""

from __future__ import annotations

from typing import Any, cast

from ersatz.device_models.catalog.device import Device, Node, ScaleOut, ScaleUp, ScaleUpKind
from ersatz.device_models.networks.collectives import collective_time
from ersatz.device_models.networks.group import Group

US, GB, MIB, GIB = 1e-6, 1e9, 2.0**20, 2.0**30
NO_DEVICE = cast(Device, None)  # a collective reads nothing of the device itself


def scale_up(
    kind: ScaleUpKind = "switched", links: int = 1, link: float = 100 * GB, **more: Any
) -> ScaleUp:
    """Return links that reach their full rate, 1 us per hop, unless told otherwise."""
    values: dict[str, Any] = {
        "domain": 8, "efficiency": 1.0, "in_switch": 0.0, "all_to_all": 1.0, "latency_s": 1 * US,
    }  # fmt: skip
    return ScaleUp(kind, kind, kind, links=links, link_bandwidth=link, **values | more)


def scale_out(card: float = 10 * GB, **more: Any) -> ScaleOut:
    """Return a network at its full rate, 10 us per hop, unless told otherwise."""
    values: dict[str, Any] = {
        "efficiency": 1.0, "all_to_all": 1.0, "latency_s": 10 * US, "oversubscription": 1.0,
    }  # fmt: skip
    return ScaleOut("net", "net", "rail", 2, card, **values | more)


def make_node(up: ScaleUp, out: ScaleOut | None = None, *, nics: int = 8, devices: int = 8) -> Node:
    return Node("node", "node", NO_DEVICE, devices, up, out or scale_out(), nics, 0.0, 0.0)


PLAIN = make_node(scale_up())
MESH = make_node(scale_up("mesh", links=7, link=10 * GB))

# Published link rates. Ring efficiencies are the largest measured ring row over the link rate;
# 0.69 of the rate into a reducing switch fits H100, H200 and H800 alike, 0.605 B200. Hop
# latencies (2 us inside, 24 us across, 110 us on EFA) come from training steps, not from here.
HOPPER: dict[str, Any] = {"in_switch": 0.69, "all_to_all": 0.68, "latency_s": 2 * US}
INFINIBAND = scale_out(50 * GB, efficiency=0.95, all_to_all=0.88, latency_s=24 * US)
EFA = scale_out(50 * GB, efficiency=0.95, latency_s=110 * US)
A100 = make_node(
    scale_up(links=12, link=25 * GB, efficiency=0.783, latency_s=2 * US), scale_out(25 * GB)
)
H100 = make_node(scale_up(links=18, link=25 * GB, efficiency=0.82, **HOPPER), INFINIBAND)
H800 = make_node(scale_up(links=8, link=25 * GB, efficiency=0.8, **HOPPER), INFINIBAND)
B200 = make_node(
    scale_up(links=18, link=50 * GB, efficiency=0.758, in_switch=0.605, latency_s=2 * US), EFA
)
MI300X = make_node(
    scale_up("mesh", links=7, link=64 * GB, efficiency=0.72, latency_s=2 * US), INFINIBAND
)


def inside(size: int) -> Group:
    """Return a group of `size` members of one node."""
    return Group(size, size, 8 // size)


def seconds(kind: str, nbytes: float, group: Group, node: Node, **more: Any) -> float:
    return collective_time(kind, nbytes, group, node, **more).seconds
