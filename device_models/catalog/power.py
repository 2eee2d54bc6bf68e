"""Electrical power of a device and its host from how busy they are, and the clock of a power limit.

Power is linear between idle and maximum in the busy share of the step; measured training runs sit
within some 10 % of such a line. A host is rated for more than training asks of it: `host_busy_share`
of its rated power is drawn when the devices are busy all the time. The clock of a bin follows the power
that it has for its peak, against the usual part of its die: to the power of 1 / exponent, up to what a
part does that never throttles.
"""

from __future__ import annotations

from functools import lru_cache

from ersatz.device_models.catalog.device import Device, Node, sixteen_bit
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import parse_yaml


def device_power(device: Device, busy: float) -> float:
    """Return the mean power in W of a device that is busy for a share `busy` (0 to 1) of the time."""
    share = min(max(busy, 0.0), 1.0)
    return device.power_idle_w + (device.power_max_w - device.power_idle_w) * share


def host_power(node: Node, busy: float) -> float:
    """Return the mean power in W of a node without its devices, these being busy for a share `busy`."""
    share = min(max(busy, 0.0), 1.0)
    drawn = node.host_idle_share + (node.host_busy_share - node.host_idle_share) * share
    return node.host_power_w * drawn


def limited_clock(power_w: float, peak: float, usual: Device) -> float:
    """Return the sustained clock of a bin of `usual` with a power limit (W) and a 16-bit peak.

    Relative to the clock that the usual part's sustained rates belong to. Source: data/power.yaml.
    """
    exponent, most = _law()
    feed = (power_w / peak) / (usual.power_max_w / sixteen_bit(usual.matrix_peak))
    return float(min(usual.sustained_clock * feed ** (1.0 / exponent), most))


@lru_cache(maxsize=1)
def _law() -> tuple[float, float]:
    data = parse_yaml((DATA / "power.yaml").read_text(), "power.yaml").data
    return float(data["exponent"]["value"]), float(data["most"]["value"])
