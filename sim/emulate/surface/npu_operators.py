"""Stand-ins for operators of `torch_npu` that training scripts use most, each with shape, FLOPs and bytes.

They are written in PyTorch's own operators where these have the same cost, so that the backward pass
comes of itself, and are charged as one kernel where the real one is fused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ersatz.sim.emulate.standins.pattern import Rule
from ersatz.sim.emulate.virtual.machine import Machine


def missing(name: str) -> Any:
    """Say which operator has no stand-in."""
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(
        f"torch_npu.{name} has no stand-in in the emulator; it has {', '.join(sorted(NAMES))}"
    )


NAMES = ("npu_fusion_attention", "npu_rms_norm", "npu_swiglu", "npu_rotary_mul", "npu_format_cast",
         "npu_grouped_matmul")  # fmt: skip


def operators(machine: Machine) -> dict[str, Callable[..., Any]]:
    """Return the stand-ins by name."""
    Rule.machine = machine
    norm, gate, turn = (Rule(n, lambda x, *rest: torch.empty_like(x))
                        for n in ("npu_rms_norm", "npu_swiglu", "npu_rotary_mul"))  # fmt: skip

    def npu_fusion_attention(
        query: Any, key: Any, value: Any, head_num: int, input_layout: str = "BSH", **kwargs: Any
    ) -> tuple[Any, ...]:
        q, k, v = (_heads(x, head_num, input_layout, query) for x in (query, key, value))
        causal = kwargs.get("sparse_mode", 0) in (2, 3) or kwargs.get("atten_mask") is not None
        scale = kwargs.get("scale", q.shape[-1] ** -0.5)
        out = torch.ops.aten._scaled_dot_product_flash_attention(
            q, k, v, 1.0 - kwargs.get("keep_prob", 1.0), causal, False, scale=scale
        )[0]
        return _unheads(out, input_layout), None, None, None, 0, 0, 0

    return {
        "npu_fusion_attention": npu_fusion_attention,
        "npu_rms_norm": lambda x, gamma, epsilon=1e-6: (norm(x, gamma), x[..., :1]),
        "npu_swiglu": lambda x, dim=-1: gate(*x.chunk(2, dim)),
        "npu_rotary_mul": lambda x, r1, r2, *more: turn(x, r1, r2),
        "npu_format_cast": lambda x, acl_format=2: x,
        "npu_grouped_matmul": _grouped,
    }


def _heads(x: Any, heads: int, layout: str, query: Any) -> Any:
    """Return a tensor as (batch, heads, tokens, size)."""
    if layout == "BNSD":
        return x
    if layout == "BSND":
        return x.transpose(1, 2)
    if layout not in ("BSH", "SBH"):
        raise NotImplementedError(f"npu_fusion_attention in layout {layout} is not emulated")
    size = query.shape[-1] // heads
    x = x if layout == "BSH" else x.transpose(0, 1)
    return x.reshape(x.shape[0], x.shape[1], -1, size).transpose(1, 2)


def _unheads(out: Any, layout: str) -> Any:
    if layout == "BNSD":
        return out
    out = out.transpose(1, 2)
    if layout == "BSND":
        return out
    flat = out.flatten(2)
    return flat if layout == "BSH" else flat.transpose(0, 1)


def _grouped(x: Any, weight: Any, *, group_list: Any = None, **kwargs: Any) -> list[Any]:
    if len(x) == 1 and len(weight) == 1 and weight[0].dim() == 3:
        rows = x[0].shape[0] // weight[0].shape[0]
        return [torch.bmm(x[0][: rows * weight[0].shape[0]].reshape(weight[0].shape[0], rows, -1),
                          weight[0]).flatten(0, 1)]  # fmt: skip
    return [torch.mm(a, b) for a, b in zip(x, weight, strict=True)]
