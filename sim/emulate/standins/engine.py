"""Transformer Engine as Megatron-Core uses it: layers with their products, messages and formats.

A layer is a norm (one kernel), casts where a region asks for eight bits, and products with bias in the
same kernel. Split over ranks, a column layer gathers rows before and sums gradients after its first product
backward, beside the second; a row layer sums its result. Weight gradients are added to `main_grad` by the
product itself where that was asked for.

Source: the documentation of Transformer Engine's PyTorch layers. Not modelled: overlap by user buffers,
context parallelism, weights in eight bits; these are refused or said by name.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed as dist

from ersatz.device_models.kernels.kernel import matmul
from ersatz.sim.emulate.standins.narrow import (
    FP8GlobalStateManager,
    Recipe,
    cast,
    entered,
    reduce_maxima,
)
from ersatz.sim.emulate.standins.pattern import LAYER_NORM, RMS_NORM, Rule
from ersatz.sim.emulate.virtual.costs import dtype_name

ADDED_BYTES = 8.0  # of a weight gradient that is added in fp32: read and written
_spare: dict[tuple[Any, ...], torch.Tensor] = {}  # gradients that stand for one added elsewhere


class TransformerEngineBaseModule(torch.nn.Module):
    """What all layers are."""

    def _left_out(self, options: dict[str, Any]) -> None:
        asked = sorted(name for name, value in options.items() if value is True)
        if asked:
            kind = type(self).__name__
            Rule.machine.note(f"transformer_engine: {kind} does not model {', '.join(asked)}")


def product(
    name: str, rows: int, columns: int, inner: int, like: torch.Tensor, *, narrow: bool,
    made: torch.dtype | None = None, added: bool = False, groups: int = 1,
) -> torch.Tensor | None:  # fmt: skip
    """Launch one product, or `groups` alike; returns its result unless it is added to another."""
    dtype = made or like.dtype
    written = ADDED_BYTES if added else float(dtype.itemsize)
    kernel = matmul(name, float(rows), float(columns), float(inner),
                    "fp8" if narrow else dtype_name(dtype), groups=groups, output_bytes=written)  # fmt: skip
    Rule.machine.run_kernel(kernel, name, known=True)
    return None if added else torch.empty((rows, columns), dtype=dtype, device=like.device)


def weight_gradient(layer: Any, weight: Any, rows: int, like: torch.Tensor, narrow: bool) -> Any:
    """Launch the product that makes a weight's gradient, or adds it to `main_grad`."""
    added = layer.fuse_wgrad_accumulation and getattr(weight, "main_grad", None) is not None
    made = product("te weight gradient", weight.shape[0], weight.shape[1], rows, like, narrow=narrow,
                   made=weight.dtype, added=added)  # fmt: skip
    if not added:
        return made
    weight.grad_added_to_main_grad = True
    return get_dummy_wgrad(list(weight.shape), weight.dtype)


def get_dummy_wgrad(shape: list[int], dtype: torch.dtype, zero: bool = False) -> torch.Tensor:
    """Return the one tensor of a shape that stands for gradients that are elsewhere."""
    key = (*shape, dtype)
    if key not in _spare:
        _spare[key] = torch.zeros(shape, dtype=dtype, device=Rule.machine.shown.surface)
    return _spare[key]


class _Products(torch.autograd.Function):
    """The products of a layer with their casts and messages."""

    @staticmethod
    def forward(
        ctx: Any, layer: Linear, given: Any, weight: Any, bias: Any, fresh: bool | None
    ) -> Any:
        recipe = FP8GlobalStateManager.recipe
        ctx.layer, ctx.recipe, ctx.shape, ctx.kind = layer, recipe, given.shape, given.dtype
        ctx.group, ctx.first, ctx.layers = FP8GlobalStateManager.group, False, 0
        rows = given.reshape(-1, weight.shape[1])
        used = kept = rows
        if recipe is not None:
            ctx.first = entered()
            used, kept = cast(rows, recipe)
            layer.cast_weight(weight, recipe, fresh)
        total = layer.gathered(used) if layer.gathers else used
        out = product("te linear", total.shape[0], weight.shape[0], weight.shape[1], total,
                      narrow=recipe is not None, made=ctx.kind)  # fmt: skip
        ctx.layers = FP8GlobalStateManager.layers
        ctx.save_for_backward(kept, weight)
        ctx.has_bias = bias is not None and bias.requires_grad
        return layer.summed(out).view(-1, *given.shape[1:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        layer, (kept, weight) = ctx.layer, ctx.saved_tensors
        narrow = ctx.recipe is not None
        rows = grad.reshape(-1, weight.shape[0])
        bias = rows.new_empty(weight.shape[0]) if ctx.has_bias else None
        if narrow:
            rows, _ = cast(rows, ctx.recipe)
        if layer.scatters:
            rows = layer.gathered(rows)
        wait = None
        if layer.gathers:
            kept, wait = layer.gather_beside(kept)
        back = product("te input gradient", rows.shape[0], weight.shape[1], weight.shape[0], rows,
                       narrow=narrow, made=ctx.kind)  # fmt: skip
        if wait is not None:
            wait.wait()
        back, wait = layer.sum_beside(back)
        made = (
            weight_gradient(layer, weight, rows.shape[0], rows, narrow)
            if weight.requires_grad
            else None
        )
        if wait is not None:
            wait.wait()
        if ctx.first:
            reduce_maxima(ctx.recipe, ctx.group, ctx.layers)
        return None, back.view(ctx.shape), made, bias, None


class Linear(TransformerEngineBaseModule):
    """A product with a weight of (out, in), split over ranks or whole."""

    def __init__(
        self, in_features: int, out_features: int, sequence_parallel: bool = False,
        fuse_wgrad_accumulation: bool = False, tp_group: Any = None, tp_size: int = 1,
        get_rng_state_tracker: Any = None, init_method: Any = None, bias: bool = True,
        return_bias: bool = False, params_dtype: torch.dtype | None = None,
        parallel_mode: str | None = None, device: Any = "cuda", **options: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self._left_out(options)
        self.tp_group, self.tp_size, self.parallel_mode = tp_group, tp_size, parallel_mode
        self.sequence_parallel = sequence_parallel and tp_size > 1
        self.fuse_wgrad_accumulation, self.return_bias = fuse_wgrad_accumulation, return_bias
        self.narrow_weights: dict[int, Any] = {}
        column, row = parallel_mode == "column", parallel_mode == "row"
        self.gathers, self.scatters = (
            column and self.sequence_parallel,
            row and self.sequence_parallel,
        )
        self.in_features = in_features // tp_size if row else in_features
        self.out_features = out_features // tp_size if column else out_features
        self._weights(params_dtype or torch.get_default_dtype(), device, init_method, bias)

    def _weights(self, dtype: torch.dtype, device: Any, init_method: Any, bias: bool) -> None:
        self.weight = self._weight(dtype, device, init_method)
        self.bias = self._bias(dtype, device) if bias else None

    def _weight(self, dtype: torch.dtype, device: Any, init_method: Any) -> Any:
        shape = (self.out_features, self.in_features)
        made = torch.nn.Parameter(torch.empty(shape, dtype=dtype, device=device))
        if init_method is not None:
            init_method(made)
        axis = {"column": 0, "row": 1}.get(self.parallel_mode or "", -1)
        made.tensor_model_parallel = axis >= 0
        made.partition_dim, made.partition_stride = axis, 1
        return made

    def _bias(self, dtype: torch.dtype, device: Any) -> Any:
        made = torch.nn.Parameter(torch.zeros(self.out_features, dtype=dtype, device=device))
        if self.parallel_mode == "row":
            made.sequence_parallel = self.sequence_parallel
        elif self.parallel_mode == "column":
            made.tensor_model_parallel, made.partition_dim = True, 0
            made.partition_stride = 1
        return made

    def set_tensor_parallel_group(self, group: Any) -> None:
        """Say over which ranks the weight is split."""
        self.tp_group = group

    def forward(self, given: Any, is_first_microbatch: bool | None = None, **options: Any) -> Any:
        """Return the product; with its bias apart, where that was asked for."""
        if given.shape[-1] != self.in_features:
            raise ValueError(f"te.Linear: {given.shape[-1]} features, expected {self.in_features}")
        bias = None if self.return_bias else self.bias
        out = _Products.apply(self, given, self.weight, bias, is_first_microbatch)
        return (out, self.bias) if self.return_bias else out

    def cast_weight(self, weight: Any, recipe: Recipe, fresh: bool | None) -> None:
        """Cast a weight: for every micro-batch (None), or once a step, and then it is kept."""
        if fresh is False and id(weight) in self.narrow_weights:
            return
        made = cast(weight, recipe)
        if fresh is not None:
            self.narrow_weights[id(weight)] = made

    def gathered(self, rows: Any) -> Any:
        """Return the rows of all ranks."""
        made, wait = self.gather_beside(rows)
        wait.wait()
        return made

    def gather_beside(self, rows: Any) -> tuple[Any, Any]:
        """Begin to gather the rows of all ranks."""
        made = rows.new_empty((rows.shape[0] * self.tp_size, *rows.shape[1:]))
        return made, dist.all_gather_into_tensor(made, rows, group=self.tp_group, async_op=True)

    def summed(self, rows: Any) -> Any:
        """Return the result of a row layer, summed over ranks."""
        if self.scatters:
            made = rows.new_empty((rows.shape[0] // self.tp_size, *rows.shape[1:]))
            dist.reduce_scatter_tensor(made, rows, group=self.tp_group)
            return made
        if self.parallel_mode == "row" and self.tp_size > 1:
            dist.all_reduce(rows, group=self.tp_group)
        return rows

    def sum_beside(self, grad: Any) -> tuple[Any, Any]:
        """Begin to sum the input's gradient of a column layer over ranks."""
        if self.gathers:
            made = grad.new_empty((grad.shape[0] // self.tp_size, *grad.shape[1:]))
            return made, dist.reduce_scatter_tensor(made, grad, group=self.tp_group, async_op=True)
        if self.parallel_mode == "column" and self.tp_size > 1:
            return grad, dist.all_reduce(grad, group=self.tp_group, async_op=True)
        return grad, None


class _Norm(TransformerEngineBaseModule):
    rule = RMS_NORM
    has_bias = False

    def __init__(
        self, hidden_size: int, eps: float = 1e-5, sequence_parallel: bool = False,
        params_dtype: torch.dtype | None = None, zero_centered_gamma: bool = False,
        device: Any = "cuda", **options: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.eps = eps
        self.weight, self.bias = norm_weights(hidden_size, params_dtype, device, sequence_parallel,
                                              bias=self.has_bias)  # fmt: skip

    def forward(self, rows: Any) -> Any:
        """Return the normed rows."""
        return self.rule(rows, *(w for w in (self.weight, self.bias) if w is not None))


class RMSNorm(_Norm):
    """Norm by the root of the mean square."""


class LayerNorm(_Norm):
    """Norm by mean and variance."""

    rule = LAYER_NORM
    has_bias = True


def norm_weights(
    size: int, dtype: torch.dtype | None, device: Any, sequence_parallel: bool, *, bias: bool
) -> tuple[Any, Any]:
    """Return weight and bias of a norm, whose gradients are summed where sequences are split."""
    found = [
        torch.nn.Parameter(torch.ones(size, dtype=dtype, device=device)) for _ in range(1 + bias)
    ]
    for made in found:
        made.sequence_parallel = sequence_parallel
    return found[0], found[1] if bias else None


class LayerNormLinear(Linear):
    """A norm and a product: what the norm makes is not kept beside what the product keeps."""

    def __init__(
        self, in_features: int, out_features: int, eps: float = 1e-5, *,
        normalization: str = "LayerNorm", zero_centered_gamma: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(in_features, out_features, **options)
        self.normalization, self.eps = normalization, eps
        self.layer_norm_weight, self.layer_norm_bias = norm_weights(
            in_features, options.get("params_dtype"), options.get("device", "cuda"),
            self.sequence_parallel, bias=normalization == "LayerNorm",
        )  # fmt: skip

    def forward(self, given: Any, is_first_microbatch: bool | None = None, **options: Any) -> Any:
        """Return the product of the normed rows."""
        rule = LAYER_NORM if self.normalization == "LayerNorm" else RMS_NORM
        weights = (w for w in (self.layer_norm_weight, self.layer_norm_bias) if w is not None)
        return super().forward(rule(given, *weights), is_first_microbatch)
