"""Facts about the memory model itself, from `device_models/data/memory.yaml`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ersatz.device_models.shipped import DATA
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
