"""apex and Liger: norms, gates, rotations, losses and optimizers that are one kernel each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ersatz.device_models.kernels.kernel import Kernel, matmul
from ersatz.sim.emulate.standins.pattern import (
    CROSS_ENTROPY,
    GEGLU,
    LAYER_NORM,
    RMS_NORM,
    ROPE,
    SWIGLU,
    Rule,
)
from ersatz.sim.emulate.virtual.costs import dtype_name


class FusedRMSNorm(torch.nn.Module):
    """Norm by the root of the mean square, with a weight."""

    def __init__(self, shape: Any, eps: float = 1e-6, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(shape))
        self.eps = self.variance_epsilon = eps

    def forward(self, x: Any) -> Any:
        """Return the normed rows."""
        return RMS_NORM(x, self.weight)


class FusedLayerNorm(torch.nn.Module):
    """Norm by mean and variance, with weight and bias."""

    def __init__(
        self, shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, **kwargs: Any
    ) -> None:
        super().__init__()
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.ones(shape)) if elementwise_affine else None
        self.bias = torch.nn.Parameter(torch.zeros(shape)) if elementwise_affine else None

    def forward(self, x: Any) -> Any:
        """Return the normed rows."""
        return LAYER_NORM(x, *(w for w in (self.weight, self.bias) if w is not None))


class FusedAdam(torch.optim.AdamW):
    """AdamW in one kernel per list of parameters."""

    def __init__(
        self, params: Any, lr: float = 1e-3, bias_correction: bool = True,
        betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, adam_w_mode: bool = True,
        weight_decay: float = 0.0, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)


class FusedSGD(torch.optim.SGD):
    """SGD in one kernel per list of parameters."""

    def __init__(self, params: Any, lr: float = 1e-3, momentum: float = 0.0, **kwargs: Any) -> None:
        super().__init__(params, lr=lr, momentum=momentum, fused=True)


class LigerSwiGLUMLP(torch.nn.Module):
    """A gated layer of Llama whose gate is one kernel."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = torch.nn.Linear(hidden, inner, bias=False)
        self.up_proj = torch.nn.Linear(hidden, inner, bias=False)
        self.down_proj = torch.nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Any) -> Any:
        """Return what the layer adds."""
        return self.down_proj(SWIGLU(self.gate_proj(x), self.up_proj(x)))


class CrossEntropyLoss(torch.nn.Module):
    """Cross entropy in one kernel."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, logits: Any, target: Any) -> Any:
        """Return the mean loss."""
        return CROSS_ENTROPY(logits, target)


class LigerFusedLinearCrossEntropyLoss(torch.nn.Module):
    """The head and its loss in pieces: no logits are held, and gradients are made on the way forward."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, weight: Any, hidden: Any, target: Any, bias: Any = None) -> Any:
        """Return the mean loss of (tokens, width) under a head of (words, width)."""
        return HEAD(hidden, weight, target)


def _head(given: Sequence[Any], made: Any, backward: bool) -> Kernel:
    hidden, weight = given[:2]
    rows, words, width = hidden.numel() // hidden.shape[-1], weight.shape[0], weight.shape[1]
    one = matmul(
        "linear cross entropy", float(rows), float(words), float(width), dtype_name(hidden.dtype)
    )
    share = 0.0 if backward else 3.0  # logits, and both gradients; backward only scales them
    moved = 2.0 * (hidden.numel() + weight.numel()) * hidden.element_size()
    return replace(one, flop=one.flop * share, nbytes=moved if backward else one.nbytes * share)


HEAD = Rule("linear cross entropy", lambda x, *rest: x.new_empty((), dtype=torch.float32), _head)


def liger_rotary_pos_emb(
    q: Any, k: Any, cos: Any, sin: Any, *args: Any, **kwargs: Any
) -> tuple[Any, Any]:
    """Turn queries and keys."""
    return ROPE(q, cos, sin), ROPE(k, cos, sin)


def _applier(family: str) -> Any:
    """Return what puts Liger's kernels into a model family of transformers."""

    def apply(rope: bool = True, rms_norm: bool = True, swiglu: bool = True, **kwargs: Any) -> None:
        from importlib import import_module

        module = import_module(f"transformers.models.{family}.modeling_{family}")
        title = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}[family]
        if rope:
            module.apply_rotary_pos_emb = liger_rotary_pos_emb  # type: ignore[attr-defined]
        if rms_norm:
            setattr(module, f"{title}RMSNorm", FusedRMSNorm)
        if swiglu:
            setattr(module, f"{title}MLP", LigerSwiGLUMLP)

    return apply


_NORMS = {"FusedRMSNorm": FusedRMSNorm, "FusedLayerNorm": FusedLayerNorm,
          "MixedFusedRMSNorm": FusedRMSNorm, "MixedFusedLayerNorm": FusedLayerNorm}  # fmt: skip
_LIGER = {
    "LigerRMSNorm": FusedRMSNorm, "LigerLayerNorm": FusedLayerNorm, "LigerSwiGLUMLP": LigerSwiGLUMLP,
    "LigerCrossEntropyLoss": CrossEntropyLoss, "liger_rotary_pos_emb": liger_rotary_pos_emb,
    "LigerFusedLinearCrossEntropyLoss": LigerFusedLinearCrossEntropyLoss,
    **{f"apply_liger_kernel_to_{f}": _applier(f) for f in ("llama", "mistral", "qwen2", "qwen3")},
}  # fmt: skip
PACKAGES: dict[str, dict[str, Any]] = {
    "apex": {},
    "apex.normalization": _NORMS,
    "apex.normalization.fused_layer_norm": _NORMS,
    "apex.optimizers": {"FusedAdam": FusedAdam, "FusedSGD": FusedSGD},
    "liger_kernel": {"__version__": "0.6.4"},
    "liger_kernel.transformers": _LIGER,
    "liger_kernel.transformers.functional": {
        "liger_rms_norm": lambda x, w, *a, **k: RMS_NORM(x, w),
        "liger_swiglu": lambda a, b, *rest: SWIGLU(a, b),
        "liger_geglu": lambda a, b, *rest: GEGLU(a, b),
        "liger_cross_entropy": lambda logits, target, *a, **k: CROSS_ENTROPY(logits, target),
    },
}  # fmt: skip
