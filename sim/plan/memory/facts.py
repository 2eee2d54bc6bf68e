"""Facts about the memory model itself, and what keys of `memory` mean: `device_models/data/memory.yaml`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.units import parse_quantity
from ersatz.device_models.text.yamltext import read_yaml


@lru_cache(maxsize=1)
def _facts() -> Any:
    return read_yaml(DATA / "memory.yaml").data


def spread() -> float:
    """Return the standard deviation of ln(measured / predicted) of stated peaks."""
    return float(_facts()["peak_spread"]["value"])


def block_waste() -> float:
    """Return the share of moving tensors that the allocator loses to rounding and splitting."""
    return float(_facts()["block_waste"]["value"])


def host_update() -> float:
    """Return the bytes/s of traffic per device at which a host updates weights."""
    return parse_quantity(_facts()["host_update"]["value"], "bandwidth")


def host_copy() -> float:
    """Return the bytes/s each way at which a device and its host copy."""
    return parse_quantity(_facts()["host_copy"]["value"], "bandwidth")


def allocator_waste(allocator: str) -> float:
    """Return the share of what is freed before the peak that an allocator cannot hand out again."""
    return float(_facts()["allocators"][allocator]["value"])


def loss_bytes(loss: str) -> float:
    """Return the bytes per logit at the peak of a loss: eager, compiled or fused."""
    return float(_facts()["losses"][loss]["value"])
