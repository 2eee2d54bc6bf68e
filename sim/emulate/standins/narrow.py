"""Products in eight bits as Transformer Engine has them: recipes, the region they hold in, and casts.

A cast writes a tensor twice, by rows and by columns, since the products forward and backward read it
along different axes. What a recipe adds: a pass of its own to find the scale (current scaling), scales of
blocks beside the numbers (blocks of 128, MXFP8), or one reduction of all maxima a pass (delayed scaling).

Source: the documentation of Transformer Engine on FP8 recipes. Not modelled: attention in eight bits, and
weights that are held in eight bits between steps.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from ersatz.device_models.kernels.kernel import memory_kernel
from ersatz.sim.emulate.standins.pattern import Rule

AMAXES = 3  # that a layer keeps each way: input, weight, output


class Format(enum.Enum):
    """Which formats of eight bits: activations and weights, gradients."""

    E4M3 = "e4m3"
    E5M2 = "e5m2"
    HYBRID = "hybrid"


class Recipe:
    """How scales are found."""

    looks: ClassVar[float] = 0.0  # passes over a tensor before it can be cast
    scale_bytes: ClassVar[float] = 0.0  # beside each number

    def __init__(self, **options: Any) -> None:
        self.fp8_format = Format.HYBRID
        self.__dict__.update(options)

    def delayed(self) -> bool:
        """Tell whether scales come of the maxima of earlier steps."""
        return isinstance(self, DelayedScaling)


class DelayedScaling(Recipe):
    """A scale for each tensor, of what it was before."""


class Float8CurrentScaling(Recipe):
    """A scale for each tensor, of what it is now."""

    looks = 1.0


class Float8BlockScaling(Recipe):
    """A scale in fp32 for each 128 numbers."""

    scale_bytes = 4 / 128


class MXFP8BlockScaling(Recipe):
    """A scale of a byte for each 32 numbers."""

    scale_bytes = 1 / 32


class FP8GlobalStateManager:
    """Where eight bits are asked for, and what the region has run so far."""

    recipe: ClassVar[Recipe | None] = None
    group: ClassVar[Any] = None
    depth: ClassVar[int] = 0
    layers: ClassVar[int] = 0

    @classmethod
    def is_fp8_enabled(cls) -> bool:
        """Tell whether products run in eight bits here."""
        return cls.recipe is not None

    @classmethod
    def get_fp8_recipe(cls) -> Recipe | None:
        """Return the recipe that holds here."""
        return cls.recipe

    @classmethod
    def get_fp8_group(cls) -> Any:
        """Return the ranks over which maxima are reduced."""
        return cls.group

    @classmethod
    def reset(cls) -> None:
        """Forget the region."""
        cls.recipe, cls.group, cls.depth, cls.layers = None, None, 0, 0


_state = FP8GlobalStateManager


@contextmanager
def fp8_autocast(
    enabled: bool = True, calibrating: bool = False, fp8_recipe: Recipe | None = None,
    fp8_group: Any = None, _graph: bool = False,
) -> Iterator[None]:  # fmt: skip
    """Run the products of layers in eight bits, by a recipe (delayed scaling if none is named)."""
    before = _state.recipe, _state.group
    _state.recipe = (fp8_recipe or DelayedScaling()) if enabled else None
    _state.group = fp8_group
    _state.depth += 1
    try:
        yield
    finally:
        _state.depth -= 1
        if _state.depth == 0:
            if enabled and torch.is_grad_enabled():
                reduce_maxima(_state.recipe, _state.group, _state.layers)
            _state.layers = 0
        _state.recipe, _state.group = before


def entered() -> bool:
    """Count a layer of the region; tells whether it is the first, whose backward comes last."""
    _state.layers += 1
    return _state.layers == 1


def reduce_maxima(recipe: Recipe | None, group: Any, layers: int) -> None:
    """Let all ranks agree on the maxima of a pass, and on new scales: one kernel."""
    if recipe is None or not recipe.delayed() or not layers:
        return
    maxima = torch.empty(AMAXES * layers, device=Rule.machine.shown.surface)
    if torch.distributed.is_initialized() and torch.distributed.get_world_size(group) > 1:
        torch.distributed.all_reduce(maxima, torch.distributed.ReduceOp.MAX, group)
    kernel = memory_kernel("new scales", 4.0 * 2 * maxima.numel())
    Rule.machine.run_kernel(kernel, "new scales", known=True)


def cast(tensor: torch.Tensor, recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a tensor in eight bits, by rows and by columns: one kernel writes both."""
    by_rows, by_columns = (torch.empty_like(tensor, dtype=torch.float8_e4m3fn) for _ in range(2))
    read = tensor.element_size() * (1.0 + recipe.looks)
    written = 2 * (1.0 + recipe.scale_bytes)
    kernel = memory_kernel("cast to fp8", tensor.numel() * (read + written))
    Rule.machine.run_kernel(kernel, "cast to fp8", known=True)
    return by_rows, by_columns
