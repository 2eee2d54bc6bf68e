"""Attention without a kernel of its own, as frameworks ran it before 2022: products and softmax apart.

Scores and values are batched products, one for each head of each sequence, of the full square; between
them a kernel scales, masks and exponentiates, another drops out. Every score goes through memory:
the products read and write it like any operand, the others in `score_passes` passes.
"""

from __future__ import annotations

from dataclasses import replace

from ersatz.device_models.kernels.kernel import Kernel, kernel_constants, matmul, memory_kernel
from ersatz.sim.workload.pieces import Shard


def unfused_core(shard: Shard, *, backward: bool) -> tuple[Kernel, ...]:
    """Return two products forward or four backward, with what is done to the scores between them."""
    layer, keys = shard.layer, float(shard.sequence)
    rows = keys / shard.ring  # of a sequence on this rank
    heads = layer.heads / shard.tp / shard.heads_spread
    query, value = (width / (layer.heads / shard.tp) for width in shard.attention_width)
    many = max(round(shard.tokens * shard.heads_spread / rows * heads), 1)

    def product(name: str, m: float, n: float, k: float) -> Kernel:
        made = matmul(name, m, n, k, shard.wide, groups=many, category="attention",
                      slowdown=1.0 / shard.stack.attention_factor)  # fmt: skip
        useless = 1.0 - layer.attended(shard.span) / keys
        aligned = min(query, value) * shard.element_bytes % 16 == 0
        return replace(made, padding=made.flop * useless, aligned=aligned, backward=backward)

    constants = kernel_constants()
    passes = constants.score_passes_backward if backward else constants.score_passes_forward
    moved = shard.element_bytes * passes * many * rows * keys
    softmax = memory_kernel("softmax back" if backward else "softmax", moved, "attention")
    if not backward:
        return (product("scores", rows, keys, query), softmax,
                product("attention", rows, value, keys))  # fmt: skip
    return (
        product("attention back", rows, keys, value),
        product("values back", keys, value, rows),
        softmax,
        product("scores back", rows, query, keys),
        product("keys back", keys, query, rows),
    )
