"""How each kernel of the workload is run on a real device: operands of its shape, and the call.

A recipe takes a kernel and returns a `Trial`: `run` executes the kernel once, `fresh` are the
operands that the kernel before has just written (a training step finds them in the cache, the
others it does not). Backward kernels run through autograd on a graph that is kept.

Not run: grouped products in 8 bits, casts to 8 bits, unfused attention scores, ring merges; they
stay modelled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ersatz.device_models.kernels.kernel import Kernel
from ersatz.device_models.kernels.operations import operation_of
from ersatz.sim.hil.device.attached import multiply_eight_bits
from ersatz.sim.hil.device.filling import normal_numbers
from ersatz.sim.hil.device.parts import (
    PLAIN,
    Heads,
    Pieces,
    Tensor,
    even_routing,
    loss,
    permute,
    rotary_table,
    unpermute,
)

LARGEST_STATE = 2**20  # weights per tensor of the optimiser's recipe
USUAL_TENSORS = 20  # at least so many: a model of two or three layers has them


@dataclass(frozen=True, slots=True)
class Trial:
    """One kernel ready to run."""

    run: Callable[[], object]
    fresh: tuple[Tensor, ...] = ()
    backward: bool = False  # runs through autograd, whose own start is no part of the kernel


@dataclass(frozen=True, slots=True)
class Operands:
    """Makes random tensors on one device in one dtype."""

    device: Any
    dtype: Any
    generator: Any  # on the host, so that every device gets the same data
    pieces: Pieces = PLAIN

    def random(self, *shape: float, grad: bool = False) -> Tensor:
        """Return a normal tensor of these (rounded) sizes, scaled so that products stay near 1."""
        sizes = tuple(max(round(size), 1) for size in shape)
        value = normal_numbers(sizes, self.generator, self.device, self.dtype)
        return value.requires_grad_(grad)

    def whole(self, high: float, count: float) -> Tensor:
        """Return `count` random whole numbers below `high`."""
        import torch

        size = (max(round(count), 1),)
        return torch.randint(max(round(high), 1), size, generator=self.generator).to(self.device)


Recipe = Callable[[Kernel, Operands], Trial]


def prepare(kernel: Kernel, operands: Operands) -> Trial:
    """Return the trial of a kernel; raises `KeyError` for kernels that have no recipe."""
    operation = operation_of(kernel)
    recipes = EIGHT_BIT_RECIPES if kernel.dtype == "fp8" else RECIPES
    return recipes[operation](kernel, operands)


def _product(kernel: Kernel, make: Operands) -> Trial:
    """x W': a weight of shape (n, k), as `torch.nn.Linear` keeps it."""
    from torch.nn.functional import linear

    x, weight = (
        make.random(kernel.m, kernel.k, grad=True),
        make.random(kernel.n, kernel.k, grad=True),
    )
    return Trial(lambda: linear(x, weight), (x,))


def _product_dgrad(kernel: Kernel, make: Operands) -> Trial:
    import torch

    grad, weight = make.random(kernel.m, kernel.k), make.random(kernel.k, kernel.n)
    return Trial(lambda: torch.mm(grad, weight), (grad,))


def _product_wgrad(kernel: Kernel, make: Operands) -> Trial:
    import torch

    grad, x = make.random(kernel.k, kernel.m), make.random(kernel.k, kernel.n)
    return Trial(lambda: torch.mm(grad.t(), x), (grad,))


def _product_eight_bits(kernel: Kernel, make: Operands) -> Trial:
    """Operands in 8 bits with one scale each; sizes in whole sixteens, as the libraries ask."""
    m, n, k = (math.ceil(size / 16) * 16 for size in (kernel.m, kernel.n, kernel.k))
    x, weight = make.random(m, k), make.random(n, k)
    return Trial(lambda: multiply_eight_bits(x, weight), (x,) if x.element_size() > 1 else ())


def _grouped(kernel: Kernel, make: Operands) -> Trial:
    x = make.random(kernel.groups, kernel.m, kernel.k)
    weight = make.random(kernel.groups, kernel.k, kernel.n)
    return Trial(lambda: make.pieces.grouped(x, weight), (x,))


def _grouped_dgrad(kernel: Kernel, make: Operands) -> Trial:
    grad = make.random(kernel.groups, kernel.m, kernel.k)
    weight = make.random(kernel.groups, kernel.n, kernel.k).transpose(1, 2)
    return Trial(lambda: make.pieces.grouped(grad, weight), (grad,))


def _grouped_wgrad(kernel: Kernel, make: Operands) -> Trial:
    x = make.random(kernel.groups, kernel.k, kernel.n)
    grad = make.random(kernel.groups, kernel.k, kernel.m)
    return Trial(lambda: make.pieces.grouped_weights(x, grad), (grad,))


def _backward(output: Tensor, inputs: tuple[Tensor, ...], fresh: Tensor) -> Trial:
    import torch

    def run() -> object:
        return torch.autograd.grad(output, inputs, fresh, retain_graph=True)

    return Trial(run, (fresh,), backward=True)


def heads_of(kernel: Kernel) -> Heads:
    """Return how an attention kernel's width splits into heads."""
    dim = round(kernel.k)
    sequence = max(min(kernel.sequence, round(kernel.m)), 1)
    batch = max(round(kernel.m) // sequence, 1)
    return Heads(batch, sequence, max(round(kernel.n) // dim, 1), kernel.groups, dim)


def _attention(kernel: Kernel, make: Operands) -> Trial:
    heads = heads_of(kernel)
    shape = heads.batch, heads.sequence
    q = make.random(*shape, heads.count, heads.dim, grad=True)
    k, v = (make.random(*shape, heads.kv, heads.dim, grad=True) for _ in range(2))
    if not kernel.backward:
        return Trial(lambda: make.pieces.attend(q, k, v), (q, k))
    out = make.pieces.attend(q, k, v)
    return _backward(out, (q, k, v), make.random(*out.shape))


def _rope(kernel: Kernel, make: Operands) -> Trial:
    """Rotation of n columns (queries and keys) beside `groups` heads of values, of head size k."""
    dim, tokens = max(round(kernel.k), 2), max(round(kernel.m), 1)
    both = max(round(kernel.n) // dim, 2)
    kv = min(kernel.groups, both - 1)
    heads = Heads(1, tokens, both - kv, kv, dim)
    table = rotary_table(heads, make.device, make.dtype)
    packed = make.random(tokens, heads.packed, grad=True)
    if operation_of(kernel) == "rope":
        return Trial(lambda: make.pieces.rotate(packed, table, heads), (packed,))
    parts = make.pieces.rotate(packed, table, heads)
    grads = tuple(make.random(*part.shape) for part in parts)

    def run() -> object:
        import torch

        return torch.autograd.grad(parts, (packed,), grads, retain_graph=True)

    return Trial(run, grads, backward=True)


def _norm(kernel: Kernel, make: Operands) -> Trial:
    x, weight = make.random(kernel.m, kernel.n, grad=True), make.random(kernel.n, grad=True)
    return Trial(lambda: make.pieces.norm(x, weight), (x,))


def _norm_back(kernel: Kernel, make: Operands) -> Trial:
    """The norm's gradient, and its sum with the gradient of the residual branch."""
    import torch

    x, weight = make.random(kernel.m, kernel.n, grad=True), make.random(kernel.n, grad=True)
    out, beside, fresh = make.pieces.norm(x, weight), make.random(*x.shape), make.random(*x.shape)

    def run() -> object:
        grads = torch.autograd.grad(out, (x, weight), fresh, retain_graph=True)
        return grads[0] + beside, grads[1]

    return Trial(run, (fresh,), backward=True)


def _residual(kernel: Kernel, make: Operands) -> Trial:
    x, y = make.random(kernel.m, kernel.n, grad=True), make.random(kernel.m, kernel.n, grad=True)
    return Trial(lambda: x + y, (y,))


def _activation(kernel: Kernel, make: Operands) -> Trial:
    gated = kernel.k > 1
    x = make.random(kernel.m, (2 if gated else 1) * kernel.n, grad=True)
    if operation_of(kernel).startswith("activation back"):
        out = make.pieces.activate(x, gated)
        return _backward(out, (x,), make.random(*out.shape))
    return Trial(lambda: make.pieces.activate(x, gated), (x,))


def _embedding(kernel: Kernel, make: Operands) -> Trial:
    from torch.nn.functional import embedding

    table, tokens = make.random(kernel.k, kernel.n, grad=True), make.whole(kernel.k, kernel.m)
    if operation_of(kernel) == "embedding":
        return Trial(lambda: embedding(tokens, table))
    out = embedding(tokens, table)
    return _backward(out, (table,), make.random(*out.shape))


def _loss(kernel: Kernel, make: Operands) -> Trial:
    logits = make.random(kernel.m, kernel.n, grad=True)
    targets = make.whole(kernel.n, logits.shape[0])
    if operation_of(kernel) == "loss":
        return Trial(lambda: loss(logits, targets), (logits,))
    out = loss(logits, targets)
    return _backward(out, (logits,), make.random(1)[0].to(out.dtype))


def _permute(kernel: Kernel, make: Operands) -> Trial:
    """Copies of tokens into the order of the experts, or back; m rows, k copies of a token."""
    top_k = max(round(kernel.k), 1)
    tokens = max(round(kernel.m) // top_k, 1)
    routing = even_routing(tokens, min(8, tokens * top_k), top_k, make.device)
    operation = operation_of(kernel)
    if operation in ("permute", "permute back"):
        x = make.random(tokens, kernel.n, grad=True)
        if operation == "permute":
            return Trial(lambda: permute(x, routing), (x,))
        out = permute(x, routing)
        return _backward(out, (x,), make.random(*out.shape))
    y = make.random(tokens * top_k, kernel.n, grad=True)
    gates = make.random(tokens, top_k, grad=True)
    if operation == "unpermute":
        return Trial(lambda: unpermute(y, gates, routing), (y,))
    out = unpermute(y, gates, routing)
    return _backward(out, (y, gates), make.random(*out.shape))


def _optimizer(kernel: Kernel, make: Operands) -> Trial:
    """AdamW over m weights in tensors of a model's usual sizes."""
    import torch

    left, weights = max(int(kernel.m), 1), []
    most = min(LARGEST_STATE, math.ceil(left / USUAL_TENSORS))
    while left > 0:
        weights.append(make.random(min(left, most), grad=True))
        left -= most
    for value in weights:
        value.grad = make.random(*value.shape)
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)
    optimizer.step()
    return Trial(optimizer.step)


def _copy(kernel: Kernel, make: Operands) -> Trial:
    x = make.random(kernel.m, kernel.n)
    return Trial(x.clone)


def _transfer(kernel: Kernel, make: Operands) -> Trial:
    """Host memory to the device, k = 0, or back; on a CPU both are copies."""
    import torch

    shape = int(kernel.m), int(kernel.n)
    host, device = torch.zeros(shape, dtype=make.dtype), make.random(*shape)
    if make.device.type == "cuda":
        host = host.pin_memory()
    if operation_of(kernel) == "to device":
        return Trial(lambda: device.copy_(host, non_blocking=True))
    return Trial(lambda: host.copy_(device, non_blocking=True))


EIGHT_BIT_RECIPES: dict[str, Recipe] = {
    "product": _product_eight_bits, "product dgrad": _product_eight_bits,
    "product wgrad": _product_eight_bits,
}  # fmt: skip
RECIPES: dict[str, Recipe] = {
    "product": _product, "product dgrad": _product_dgrad, "product wgrad": _product_wgrad,
    "grouped": _grouped, "grouped dgrad": _grouped_dgrad, "grouped wgrad": _grouped_wgrad,
    "attention": _attention, "attention back": _attention, "rope": _rope, "rope back": _rope,
    "norm": _norm, "norm back": _norm_back, "residual": _residual,
    "activation gated": _activation, "activation plain": _activation,
    "activation back gated": _activation, "activation back plain": _activation,
    "embedding": _embedding, "embedding back": _embedding, "loss": _loss, "loss back": _loss,
    "permute": _permute, "permute back": _permute, "unpermute": _permute,
    "unpermute back": _permute, "optimizer": _optimizer, "copy": _copy, "to device": _transfer,
    "to host": _transfer,
}  # fmt: skip
