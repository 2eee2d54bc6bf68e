"""Random numbers for large tensors: one block from the host's generator, tiled on the device.

A kernel of 180 million numbers would take the host's generator seconds, its measurement microseconds.
The block is the same on every device; its length is prime, so that rows of a matrix differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ersatz.sim.hil.device.parts import Tensor

BLOCK = 1_048_573  # numbers, the largest prime below 2^20


def normal_numbers(shape: Sequence[int], generator: Any, device: Any, dtype: Any) -> Tensor:
    """Return normal numbers of a shape; beyond `BLOCK` of them they repeat."""
    import torch

    count = math.prod(shape)
    scale = shape[-1] ** -0.5
    if count <= BLOCK:
        return (torch.randn(tuple(shape), generator=generator) * scale).to(device, dtype)
    block = (torch.randn(BLOCK, generator=generator) * scale).to(device, dtype)
    filled = torch.empty(count, device=device, dtype=dtype)
    whole = count // BLOCK * BLOCK
    filled[:whole].view(-1, BLOCK).copy_(block)
    filled[whole:].copy_(block[: count - whole])
    return filled.view(tuple(shape))
