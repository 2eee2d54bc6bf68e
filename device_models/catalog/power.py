"""Electrical power of a device from how busy it is.

Linear between idle and maximum in the busy share of the step; measured training runs sit within
some 10 % of such a line. Not modelled: clocks and voltage under a power limit.
"""

from __future__ import annotations

from ersatz.device_models.catalog.device import Device


def device_power(device: Device, busy: float) -> float:
    """Return the mean power in W of a device that is busy for a share `busy` (0 to 1) of the time."""
    share = min(max(busy, 0.0), 1.0)
    return device.power_idle_w + (device.power_max_w - device.power_idle_w) * share
