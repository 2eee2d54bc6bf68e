"""The 80 % interval of a predicted step time, from the errors made on what is like it.

The half width is the error that leave-one-source-out tests showed for the vendor (times a factor
for mixtures of experts), wider for a device of which no training run was ever published.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from device_models.yamltext import parse_yaml
from sim.scenario import Pool, Scenario

MEASURED = ("a100", "a800", "h100", "h200", "h800", "b200", "b300", "gb200", "gb300", "ascend-910b",
            "mi300x", "mi355x", "cpu")  # fmt: skip


@lru_cache(maxsize=1)
def spreads() -> dict[str, float]:
    """Read the half widths once."""
    text = parse_yaml((files("device_models") / "data" / "intervals.yaml").read_text(), "intervals")
    return {key: float(leaf["value"]) for key, leaf in text.data.items() if key != "sources"}


def half_width(scenario: Scenario) -> float:
    """Return the relative half width for the least known pool of a scenario."""
    width = max(_pool_width(pool) for pool in scenario.pools)
    return width * (spreads()["moe_factor"] if scenario.model.experts else 1.0)


def is_measured(pool: Pool) -> bool:
    """Tell whether training runs on the pool's device were published."""
    return any(pool.node.device.name.startswith(name) for name in MEASURED)


def interval80(scenario: Scenario, seconds: float) -> tuple[float, float]:
    """Return the (low, high) ends of the 80 % interval of a step time."""
    factor = 1.0 + half_width(scenario)
    return seconds / factor, seconds * factor


def _pool_width(pool: Pool) -> float:
    known = spreads()
    vendor = pool.node.device.vendor.lower()
    if not is_measured(pool):
        return known["unmeasured"]
    return known.get(vendor, known["unmeasured"])
