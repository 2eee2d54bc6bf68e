"""Recipes of 8 and 4 bits: what their scales weigh, and which devices multiply them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ersatz.device_models.catalog.device import Device
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import read_yaml


@dataclass(frozen=True, slots=True)
class Recipe:
    """How tensors are scaled: for which format, bytes of scales per element, on which devices."""

    precision: str
    scale_bytes: float
    architectures: tuple[str, ...]  # whose matrix units apply the scales; none: any

    def runs_on(self, device: Device) -> bool:
        """Tell whether a device's matrix units apply the scales."""
        made = self.architectures
        return not made or device.architecture.startswith(made)


@lru_cache(maxsize=1)
def recipes() -> Mapping[str, Recipe]:
    """Return the recipes of `device_models/data/formats.yaml` by name."""
    rows: Any = read_yaml(DATA / "formats.yaml").data["recipes"]
    return {
        name: Recipe(row["precision"], float(row["scale_bytes"]), tuple(row["architectures"]))
        for name, row in rows.items()
    }
