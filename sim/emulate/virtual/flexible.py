"""Flexible attention of PyTorch (`flex_attention`): how many keys a query sees is in its block mask."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from ersatz.sim.emulate.virtual.costs import attention_kernel
from ersatz.sim.emulate.virtual.known import values_of
from ersatz.sim.emulate.virtual.machine import Machine, on_device


def higher_order(
    machine: Machine, shapes: FakeTensorMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:  # fmt: skip
    """Run flexible attention and its like on shapes, and charge them as attention."""
    with shapes:
        out = func(*args, **kwargs)
    for tensor in on_device(tree_leaves(out), machine.shown.surface):
        machine.track(tensor)
    name = func.name()
    if not name.startswith("flex_attention"):
        machine.note(f"the operator {name} is taken to cost nothing")
        return out
    q, k, v = args[:3]
    seen = mean_keys(args)
    kernel = attention_kernel(machine.stack, q, k, v, causal=True, backward="backward" in name,
                              mean_keys=seen)  # fmt: skip
    machine.run_kernel(kernel, name, known=True)
    if not seen:
        machine.note(f"{name} is taken to see half of all keys, as a causal mask does")
    return out


def mean_keys(args: tuple[Any, ...]) -> float:
    """Return how many keys a query sees on average, in whole blocks as the kernel takes them; 0: not known.

    A mask is given as (rows, keys, partly seen blocks and which, wholly seen blocks and which, ...,
    rows of a block, keys of a block, function), blocks by the rows' blocks.
    """
    mask = next((a for a in args if isinstance(a, tuple) and len(a) > 6), ())
    numbers = [x for x in mask if isinstance(x, int) and not isinstance(x, bool)]
    if len(numbers) < 4:
        return 0.0
    keys, of_a_block = numbers[1], numbers[-1]
    seen = 0.0
    for blocks in (mask[2], mask[4]):
        if blocks is None:
            continue
        values = values_of(blocks) if isinstance(blocks, torch.Tensor) else None
        if values is None:
            return 0.0
        seen += float(values.double().mean())
    return min(seen * of_a_block, float(keys))
