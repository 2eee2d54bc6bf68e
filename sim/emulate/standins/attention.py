"""flash-attn and xformers: attention over rows of heads, packed sequences by their real lengths."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch

from ersatz.device_models.kernels.kernel import Kernel
from ersatz.sim.emulate.standins.fused import CrossEntropyLoss
from ersatz.sim.emulate.standins.pattern import RMS_NORM, ROPE, Rule
from ersatz.sim.emulate.virtual.costs import attention_kernel


def flash_attn_func(
    q: Any, k: Any, v: Any, dropout_p: float = 0.0, softmax_scale: float | None = None,
    causal: bool = False, **kwargs: Any,
) -> Any:  # fmt: skip
    """Attend over (batch, tokens, heads, size)."""
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    attend = torch.ops.aten._scaled_dot_product_flash_attention
    return attend(q, k, v, dropout_p, causal, False, scale=scale)[0].transpose(1, 2)


def flash_attn_qkvpacked_func(qkv: Any, *args: Any, **kwargs: Any) -> Any:
    """Attend over (batch, tokens, 3, heads, size)."""
    return flash_attn_func(*qkv.unbind(2), *args, **kwargs)


def flash_attn_kvpacked_func(q: Any, kv: Any, *args: Any, **kwargs: Any) -> Any:
    """Attend over (batch, tokens, heads, size) and (batch, tokens, 2, heads, size)."""
    return flash_attn_func(q, *kv.unbind(2), *args, **kwargs)


def flash_attn_varlen_func(
    q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, max_seqlen_q: int = 0,
    max_seqlen_k: int = 0, dropout_p: float = 0.0, softmax_scale: float | None = None,
    causal: bool = False, **kwargs: Any,
) -> Any:  # fmt: skip
    """Attend over (all tokens, heads, size), each sequence in itself."""
    queries, keys = _lengths(cu_seqlens_q), _lengths(cu_seqlens_k)
    pairs = sum(
        a * ((b + 1) / 2 if causal and a == b else b) for a, b in zip(queries, keys, strict=True)
    )
    return _packed(causal, pairs / max(sum(queries), 1))(q, k, v)


def _lengths(ends: Any) -> list[int]:
    found = ends.tolist()
    return [b - a for a, b in pairwise(found)]


def _packed(causal: bool, reach: float) -> Rule:
    """Return attention of packed sequences, a query of which sees so many keys on average."""

    def kernel(given: Sequence[Any], made: Any, backward: bool) -> Kernel:
        q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in given[:3])
        return attention_kernel(Rule.machine.stack, q, k, v, causal=causal, backward=backward,
                                mean_keys=reach)  # fmt: skip

    return Rule("packed attention", lambda q, k, v: torch.empty_like(q), kernel)


def apply_rotary_emb(x: Any, cos: Any, sin: Any, *args: Any, **kwargs: Any) -> Any:
    """Turn positions into angles."""
    return ROPE(x, cos, sin)


def rms_norm(x: Any, weight: Any, epsilon: float = 1e-6) -> Any:
    """Norm by the root of the mean square."""
    return RMS_NORM(x, weight)


class LowerTriangularMask:
    """The causal mask of xformers."""


def memory_efficient_attention(
    query: Any, key: Any, value: Any, attn_bias: Any = None, p: float = 0.0,
    scale: float | None = None, **kwargs: Any,
) -> Any:  # fmt: skip
    """Attend over (batch, tokens, heads, size); any mask is taken as causal, and said so."""
    if attn_bias is not None and not isinstance(attn_bias, LowerTriangularMask):
        Rule.machine.note(
            "xformers: a mask is taken to hide half of all keys, as a causal one does"
        )
    return flash_attn_func(query, key, value, p, scale, causal=attn_bias is not None)


FLASH = {f.__name__: f for f in (flash_attn_func, flash_attn_qkvpacked_func, flash_attn_kvpacked_func,
                                 flash_attn_varlen_func)}  # fmt: skip
PACKAGES: dict[str, dict[str, Any]] = {
    "flash_attn": {**FLASH, "__version__": "2.8.3"},
    "flash_attn.flash_attn_interface": FLASH,
    "flash_attn.layers": {},
    "flash_attn.layers.rotary": {"apply_rotary_emb": apply_rotary_emb},
    "flash_attn.losses": {},
    "flash_attn.losses.cross_entropy": {"CrossEntropyLoss": CrossEntropyLoss},
    "flash_attn.ops": {},
    "flash_attn.ops.rms_norm": {"rms_norm": rms_norm},
    "xformers": {"__version__": "0.0.35"},
    "xformers.ops": {"memory_efficient_attention": memory_efficient_attention,
                     "LowerTriangularMask": LowerTriangularMask,
                     "fmha": SimpleNamespace(LowerTriangularMask=LowerTriangularMask)},
}  # fmt: skip
