"""Transformer Engine beyond its linear layers: experts, attention, rotation, loss, and the package itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint as recomputed

from ersatz.device_models.kernels.kernel import Kernel, memory_kernel
from ersatz.sim.emulate.standins import engine, narrow
from ersatz.sim.emulate.standins.attention import flash_attn_varlen_func
from ersatz.sim.emulate.standins.fused import FusedAdam, FusedSGD
from ersatz.sim.emulate.standins.pattern import Rule
from ersatz.sim.emulate.virtual.costs import attention_kernel

VERSION = "2.5.0"  # that the stand-in is like


class _Experts(torch.autograd.Function):
    """The products of a layer's experts, each by the rows that it was sent."""

    @staticmethod
    def forward(
        ctx: Any, layer: GroupedLinear, given: Any, counts: Any, fresh: Any, *weights: Any
    ) -> Any:
        recipe = narrow.FP8GlobalStateManager.recipe
        rows = given.reshape(-1, layer.in_features)
        kept = rows
        ctx.first, ctx.group = False, narrow.FP8GlobalStateManager.group
        if recipe is not None:
            ctx.first = narrow.entered()
            _, kept = narrow.cast(rows, recipe)
            for weight in weights:
                layer.cast_weight(weight, recipe, fresh)
        for count in filter(None, counts):
            engine.product("te grouped linear", count, layer.out_features, layer.in_features, rows,
                           narrow=recipe is not None)  # fmt: skip
        ctx.layers = narrow.FP8GlobalStateManager.layers
        ctx.layer, ctx.counts, ctx.recipe, ctx.shape = layer, counts, recipe, given.shape
        ctx.save_for_backward(kept, *weights)
        return rows.new_empty((rows.shape[0], layer.out_features)).view(
            *given.shape[:-1], layer.out_features
        )

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        layer, (_, *weights) = ctx.layer, ctx.saved_tensors
        rows = grad.reshape(-1, layer.out_features)
        is_narrow = ctx.recipe is not None
        if is_narrow:
            narrow.cast(rows, ctx.recipe)
        made = []
        for count, weight in zip(ctx.counts, weights, strict=True):
            if count:
                engine.product("te grouped back", count, layer.in_features, layer.out_features, rows,
                               narrow=is_narrow)  # fmt: skip
            made.append(engine.weight_gradient(layer, weight, max(count, 1), rows, is_narrow))
        if ctx.first:
            narrow.reduce_maxima(ctx.recipe, ctx.group, ctx.layers)
        back = rows.new_empty((rows.shape[0], layer.in_features)).view(ctx.shape)
        return None, back, None, None, *made


class GroupedLinear(engine.Linear):
    """As many products as there are experts, each of its own rows."""

    def __init__(self, num_gemms: int, in_features: int, out_features: int, **options: Any) -> None:
        self.num_gemms = num_gemms
        super().__init__(in_features, out_features, **options)

    def _weights(self, dtype: torch.dtype, device: Any, init_method: Any, bias: bool) -> None:
        if bias:
            raise NotImplementedError(
                "transformer_engine.GroupedLinear has no bias in the emulator"
            )
        self.bias = None
        for i in range(self.num_gemms):
            self.register_parameter(f"weight{i}", self._weight(dtype, device, init_method))

    def forward(  # type: ignore[override]
        self,
        given: Any,
        m_splits: Any = (),
        is_first_microbatch: bool | None = None,
        **options: Any,
    ) -> Any:
        """Return the rows of all experts, one after the other."""
        counts = [int(c) for c in m_splits]
        weights = [getattr(self, f"weight{i}") for i in range(self.num_gemms)]
        out = _Experts.apply(self, given, counts, is_first_microbatch, *weights)
        return (out, None) if self.return_bias else out


class DotProductAttention(engine.TransformerEngineBaseModule):
    """Fused attention over (tokens, batch, heads, size), or of packed sequences."""

    def __init__(
        self, num_attention_heads: int, kv_channels: Any, num_gqa_groups: int | None = None,
        attn_mask_type: str = "causal", qkv_format: str = "sbhd", cp_group: Any = None, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attn_mask_type, self.qkv_format = attn_mask_type, qkv_format
        if cp_group is not None and torch.distributed.get_world_size(cp_group) > 1:
            raise NotImplementedError(
                "transformer_engine.DotProductAttention has no context parallelism in the emulator"
            )

    def forward(
        self, query: Any, key: Any, value: Any, attention_mask: Any = None, qkv_format: str | None = None,
        cu_seqlens_q: Any = None, cu_seqlens_kv: Any = None, attn_mask_type: str | None = None,
        window_size: Any = None, **options: Any,
    ) -> Any:  # fmt: skip
        """Return what the heads saw, side by side."""
        kind, form = attn_mask_type or self.attn_mask_type, qkv_format or self.qkv_format
        recipe = narrow.FP8GlobalStateManager.recipe
        if recipe is not None and getattr(recipe, "fp8_dpa", False):
            Rule.machine.note("transformer_engine: attention in eight bits is taken in sixteen")
        if kind == "arbitrary" or (
            window_size is not None and tuple(window_size) not in ((-1, -1), (-1, 0))
        ):
            Rule.machine.note("transformer_engine: a mask or window is taken as the causal mask")
            kind = "causal"
        if form == "thd":
            out = flash_attn_varlen_func(query, key, value, cu_seqlens_q, cu_seqlens_kv,
                                         causal="causal" in kind)  # fmt: skip
            return out.reshape(query.shape[0], -1)
        out = (_CAUSAL if "causal" in kind else _WHOLE)[form](query, key, value)
        return out.flatten(-2)


def _attention(causal: bool, form: str) -> Rule:
    order = (1, 2, 0, 3) if form == "sbhd" else (0, 2, 1, 3)

    def kernel(given: Sequence[Any], made: Any, backward: bool) -> Kernel:
        q, k, v = (x.permute(order) for x in given[:3])
        return attention_kernel(Rule.machine.stack, q, k, v, causal=causal, backward=backward)

    return Rule("te attention", lambda q, k, v: q.new_empty((*q.shape[:-1], v.shape[-1])), kernel)


_CAUSAL = {form: _attention(True, form) for form in ("sbhd", "bshd")}
_WHOLE = {form: _attention(False, form) for form in ("sbhd", "bshd")}
TURN = Rule("te rope", lambda x, angles: torch.empty_like(x))
LOSS = Rule(
    "te cross entropy", lambda logits, target: logits.new_empty(target.shape, dtype=torch.float32)
)
SWIGLU = Rule("te swiglu", lambda x: x.new_empty((*x.shape[:-1], x.shape[-1] // 2)))


def apply_rotary_pos_emb(t: Any, freqs: Any, *args: Any, **options: Any) -> Any:
    """Turn positions into angles: one kernel."""
    return TURN(t, freqs)


def parallel_cross_entropy(
    logits: Any,
    target: Any,
    smoothing: float = 0.0,
    reduce_loss: bool = False,
    group: Any = None,
    *rest: Any,
) -> Any:
    """Return the loss of each token over words that are split over ranks: they tell maxima and sums."""
    if group is not None and torch.distributed.get_world_size(group) > 1:
        sums = torch.empty((*target.shape, 2), device=logits.device)
        torch.distributed.all_reduce(sums, group=group)
    found = LOSS(logits, target)
    return found.mean() if reduce_loss else found


class CudaRNGStatesTracker:
    """Seeds by name; what is drawn is drawn from the script's own generator."""

    def __init__(self) -> None:
        self.states_: dict[str, Any] = {}

    def reset(self) -> None:
        """Forget all seeds."""
        self.states_ = {}

    def get_states(self) -> dict[str, Any]:
        """Return what is known by name."""
        return dict(self.states_)

    def set_states(self, states: dict[str, Any]) -> None:
        """Know what was known elsewhere."""
        self.states_ = states

    def add(self, name: str, seed: int) -> None:
        """Know a seed."""
        self.states_[name] = seed

    @contextmanager
    def fork(self, name: str = "model-parallel-rng") -> Iterator[None]:
        """Draw by a seed's name."""
        yield


@contextmanager
def activation_recompute_forward(*args: Any, **options: Any) -> Iterator[None]:
    """Run a pass that is computed again."""
    yield


def checkpoint(function: Any, *args: Any, use_reentrant: bool = False, **options: Any) -> Any:
    """Compute a function again in the backward pass instead of keeping what it made."""
    left = ("distribute_saved_activations", "get_rng_state_tracker", "tp_group")
    named = {k: v for k, v in options.items() if k not in left}
    return recomputed(function, *args, use_reentrant=False, **named)


def multi_tensor_applier(operation: Any, flag: Any, lists: Any, *args: Any) -> Any:
    """Run an operation on lists of tensors."""
    return operation(2048 * 32, flag, lists, *args)


def multi_tensor_l2norm(
    chunk: int, flag: Any, lists: Any, per_tensor: bool = False
) -> tuple[Any, Any]:
    """Return the norm of all tensors together."""
    _moves("te norm of gradients", lists[0], 1.0)
    device = Rule.machine.shown.surface
    return torch.empty(1, device=device), torch.empty(
        len(lists[0]) if per_tensor else 0, device=device
    )


def multi_tensor_scale(chunk: int, flag: Any, lists: Any, scale: Any) -> None:
    """Write scaled tensors."""
    _moves("te scale", [*lists[0], *lists[1]], 1.0)


def _moves(name: str, tensors: Sequence[Any], times: float) -> None:
    nbytes = times * sum(t.numel() * t.element_size() for t in tensors)
    Rule.machine.run_kernel(memory_kernel(name, nbytes), name, known=True)


def wgrad_gemm_accum(rows: Any, grad: Any, main_grad: Any) -> None:
    """Add a weight's gradient to what is there: apex's kernel for Megatron's own layers."""
    size = rows.reshape(-1, rows.shape[-1]).shape[0]
    engine.product("added weight gradient", main_grad.shape[0], main_grad.shape[1], size, rows,
                   narrow=False, added=True)  # fmt: skip


def _refused(name: str) -> type:
    def refuse(*args: Any, **options: Any) -> Any:
        raise NotImplementedError(
            f"transformer_engine.pytorch.ops.{name} has no stand-in in the emulator"
        )

    return type(name, (torch.nn.Module,), {"__init__": refuse})


class SwiGLU(torch.nn.Module):
    """A gate in one kernel."""

    def __init__(self, **options: Any) -> None:
        super().__init__()

    def forward(self, x: Any) -> Any:
        """Return the gated half."""
        return SWIGLU(x)


class QuantizedTensor(torch.Tensor):
    """A weight in eight bits; there are none."""


_RECIPES = {r.__name__: r for r in (narrow.Recipe, narrow.DelayedScaling, narrow.Float8CurrentScaling,
                                    narrow.Float8BlockScaling, narrow.MXFP8BlockScaling,
                                    narrow.Format)}  # fmt: skip
_LAYERS: dict[str, Any] = {
    c.__name__: c for c in (engine.Linear, engine.LayerNormLinear, engine.LayerNorm, engine.RMSNorm,
                            GroupedLinear, DotProductAttention)
}  # fmt: skip
_FP8 = {"fp8_autocast": narrow.fp8_autocast, "FP8GlobalStateManager": narrow.FP8GlobalStateManager}
_DISTRIBUTED = {"checkpoint": checkpoint, "CudaRNGStatesTracker": CudaRNGStatesTracker,
                "activation_recompute_forward": activation_recompute_forward}  # fmt: skip
PACKAGES: dict[str, dict[str, Any]] = {
    "fused_weight_gradient_mlp_cuda": {
        "wgrad_gemm_accum_fp32": wgrad_gemm_accum, "wgrad_gemm_accum_fp16": wgrad_gemm_accum,
    },
    "transformer_engine": {"__version__": VERSION},
    "transformer_engine.common": {},
    "transformer_engine.common.recipe": _RECIPES,
    "transformer_engine.pytorch": {**_LAYERS, **_DISTRIBUTED, "fp8_autocast": narrow.fp8_autocast},
    "transformer_engine.pytorch.fp8": _FP8,
    "transformer_engine.pytorch.distributed": _DISTRIBUTED,
    "transformer_engine.pytorch.module": {},
    "transformer_engine.pytorch.module.base": {
        "TransformerEngineBaseModule": engine.TransformerEngineBaseModule,
        "get_dummy_wgrad": engine.get_dummy_wgrad,
    },
    "transformer_engine.pytorch.attention": {"DotProductAttention": DotProductAttention},
    "transformer_engine.pytorch.attention.rope": {"apply_rotary_pos_emb": apply_rotary_pos_emb},
    "transformer_engine.pytorch.cross_entropy": {"parallel_cross_entropy": parallel_cross_entropy},
    "transformer_engine.pytorch.optimizers": {
        "FusedAdam": FusedAdam, "FusedSGD": FusedSGD, "multi_tensor_applier": multi_tensor_applier,
        "multi_tensor_l2norm": multi_tensor_l2norm, "multi_tensor_scale": multi_tensor_scale,
    },
    "transformer_engine.pytorch.tensor": {"QuantizedTensor": QuantizedTensor},
    "transformer_engine.pytorch.ops": {
        "SwiGLU": SwiGLU, **{n: _refused(n) for n in ("Sequential", "FusibleOperation")},
    },
}  # fmt: skip
