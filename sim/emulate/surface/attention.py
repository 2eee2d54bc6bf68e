"""Fused attention on the virtual device: a build for CPUs would fall back to plain products."""

from __future__ import annotations

from typing import Any

import torch

ALIGNED = 8  # elements of a head's rows
_kept: list[Any] = []


def install(keys: tuple[str, ...]) -> None:
    """Send `scaled_dot_product_attention` to fused kernels under dispatch keys."""
    library = torch.library.Library("aten", "IMPL")
    for key in keys:
        library.impl("scaled_dot_product_attention", fused_attention, key)
    _kept.append(library)


def fused_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """Run the kernel that PyTorch would choose: flash without a mask in 16 bits, else efficient."""
    head = query.shape[-1]
    scale = head**-0.5 if scale is None else scale
    pad = -head % ALIGNED
    if pad:
        query, key, value = (torch.nn.functional.pad(x, (0, pad)) for x in (query, key, value))
    if query.dtype == torch.float32 or attn_mask is not None:
        out = _efficient(query, key, value, attn_mask, dropout_p, is_causal, scale)
    else:
        out = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, False, scale=scale
        )[0]
    return out[..., :head] if pad else out


def _efficient(
    query: Any, key: Any, value: Any, mask: Any, dropout: float, causal: bool, scale: float
) -> Any:
    if key.shape[1] != query.shape[1]:
        times = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    if mask is not None:
        if mask.dtype == torch.bool:
            zeros = torch.zeros(mask.shape, dtype=query.dtype, device=query.device)
            mask = zeros.masked_fill(~mask, float("-inf"))
        mask = mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, mask, wanted, dropout, causal, scale=scale
    )[0]
