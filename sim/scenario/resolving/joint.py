"""What ties pools of several kinds together, where the scenario leaves it open: said, and worth a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ersatz.sim.scenario.defaults import job_defaults
from ersatz.sim.scenario.scenario import Joint, Pool
from ersatz.sim.scenario.sections.machines import JointSection


def resolve_joint(
    section: JointSection, pools: Sequence[Pool], assumptions: list[str]
) -> Joint | None:
    """Return the joint of several pools, None for one; what is not given is told to `assumptions`."""
    if len(pools) < 2:
        return None
    vendors = sorted({pool.node.device.vendor for pool in pools})
    path = section.path or ("host" if len(vendors) > 1 else "direct")
    if section.path is None:
        why = f"pools of {' and '.join(vendors)}"
        how = {
            "host": "messages are copied through the hosts",
            "direct": "their cards reach each other at the slower end's rate",
        }
        assumptions.append(f"cluster.joint.path is not given: {path}, {why}: {how[path]}")
    return Joint(
        path,
        _value(section.node_bandwidth, "node_bandwidth", path, math.inf, assumptions),
        math.inf if section.bandwidth is None else section.bandwidth,
        _value(section.latency, "latency", path, 0.0, assumptions),
        _value(section.copy_bandwidth, "copy_bandwidth", path, math.inf, assumptions),
        assumed=section.path is None,
    )


def _value(
    given: float | None, key: str, path: str, direct: float, assumptions: list[str]
) -> float:
    """Return a value as given; through the hosts the default of the data, which is said."""
    if given is not None:
        return given
    if path == "direct":
        return direct
    default = job_defaults()[f"joint_{key}"]
    assumptions.append(f"cluster.joint.{key} is not given: {default.words}")
    return default.value


def other_reading(joint: Joint) -> Joint:
    """Return the joint with the other path, its values those of the data."""
    known = job_defaults()
    if joint.path == "host":
        return Joint("direct", bandwidth=joint.bandwidth)
    return Joint(
        "host", known["joint_node_bandwidth"].value, joint.bandwidth,
        known["joint_latency"].value, known["joint_copy_bandwidth"].value,
    )  # fmt: skip
