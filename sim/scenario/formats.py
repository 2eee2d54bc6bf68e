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
    cast_bytes: (
        float  # traffic to bring an element of 16 bits into it, for both directions of a product
    )
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
        name: Recipe(
            row["precision"],
            float(row["scale_bytes"]),
            float(row["cast_bytes"]),
            tuple(row["architectures"]),
        )
        for name, row in rows.items()
    }


@lru_cache(maxsize=1)
def _fitted() -> Mapping[str, str]:
    data: Any = read_yaml(DATA / "formats.yaml").data["fitted"]
    return data  # type: ignore[no-any-return]


def cast_factor(recipe: str, stack: str) -> float:
    """Return the traffic of a recipe's casts / that of the recipe on whose runs a stack was fitted.

    1 where no recipe is given, and for stacks of which nobody says which recipe their runs had.

    >>> cast_factor("tensorwise", "megatron-core"), cast_factor("tensorwise", "torchtitan")
    (1.5, 1.0)
    """
    own = _fitted().get(stack)
    if not recipe or own is None:
        return 1.0
    return recipes()[recipe].cast_bytes / recipes()[own].cast_bytes


def cast_words(recipe: str, stack: str) -> str:
    """Say what is taken for the casts of a recipe on a stack; nothing where it is the stack's own."""
    if not recipe or (own := _fitted().get(stack)) == recipe:
        return ""
    if own is None:
        return f"training.recipe {recipe}: its casts take the time of those of {stack}, whatever their recipe"
    factor = cast_factor(recipe, stack)
    return (f"training.recipe {recipe}: its casts move {factor:.2f} times the bytes of {own}, on whose runs"
            f" {stack} was fitted")  # fmt: skip
