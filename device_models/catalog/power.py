"""Electrical power of a device and of its host from how busy they are.

Linear between idle and maximum in the busy share of the step; measured training runs sit within
some 10 % of such a line. A host is rated for more than training asks of it: `host_busy_share` of its
rated power is drawn when the devices are busy all the time. Not modelled: clocks and voltage under a
power limit.
"""

from __future__ import annotations

from ersatz.device_models.catalog.device import Device, Node


def device_power(device: Device, busy: float) -> float:
    """Return the mean power in W of a device that is busy for a share `busy` (0 to 1) of the time."""
    share = min(max(busy, 0.0), 1.0)
    return device.power_idle_w + (device.power_max_w - device.power_idle_w) * share


def host_power(node: Node, busy: float) -> float:
    """Return the mean power in W of a node without its devices, these being busy for a share `busy`."""
    share = min(max(busy, 0.0), 1.0)
    drawn = node.host_idle_share + (node.host_busy_share - node.host_idle_share) * share
    return node.host_power_w * drawn
