"""Matrix products of a block with their tensor-parallel collectives, and element-wise kernels.

Tensor parallelism as Megatron does it: a block's first product takes the whole rows of its input
and its last one sums partial results. With sequence parallelism the input is gathered and the sum
scattered; backward the gradients are gathered, the input is gathered again for its weight gradient
(beside the input gradient) unless the stack has kept it, and the input's gradient is scattered
(beside the weight gradient where the stack overlaps them). Without, sums are all-reduced.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.kernels.kernel import Kernel, matmul, memory_kernel
from ersatz.sim.workload.pieces import Comm, Piece, Shard


@dataclass(frozen=True, slots=True)
class Linear:
    """One weight matrix of a block, this rank's slice: tokens x k -> tokens x n."""

    name: str
    tokens: float
    n: float
    k: float
    dtype: str
    groups: int = 1
    category: str = "matrix"
    slowdown: float = 1.0
    accumulate_bytes: float = 0.0  # traffic per weight to add its gradient to the sum
    padding: float = 0.0  # share of its products that the model does not ask for

    def forward(self) -> Kernel:
        """The product itself."""
        return self._product(self.name, self.tokens, self.n, self.k)

    def input_grad(self) -> Kernel:
        """The gradient of its input."""
        return self._product(f"{self.name} dgrad", self.tokens, self.k, self.n)

    def weight_grad(self) -> Kernel:
        """The gradient of its weights, added to the sum."""
        extra = self.accumulate_bytes * self.groups * self.n * self.k
        return self._product(f"{self.name} wgrad", self.n, self.k, self.tokens, extra)

    def _product(self, name: str, m: float, n: float, k: float, extra: float = 0.0) -> Kernel:
        output = max(2.0, DTYPE_BYTES[self.dtype])
        return matmul(name, m, n, k, self.dtype, groups=self.groups, category=self.category,
                      slowdown=self.slowdown, output_bytes=output, extra_bytes=extra,
                      padding=self.padding)  # fmt: skip


def linear(
    shard: Shard, name: str, tokens: float, n: float, k: float, *, dtype: str = "",
    category: str = "matrix", groups: int = 1, slowdown: float = 1.0, padding: float = 0.0,
) -> Linear:  # fmt: skip
    """A weight matrix under the shard's stack, in its precision unless `dtype` is given."""
    dtype = dtype or shard.precision
    slowdown /= shard.stack.matrix_factor
    if DTYPE_BYTES[dtype] <= 1:
        slowdown /= shard.stack.narrow_matrix_factor
    extra = 0.0 if shard.stack.accumulates_apart else _accumulated(shard)
    return Linear(name, tokens, n, k, dtype, groups, category, slowdown, extra, padding)


def weight_grads(shard: Shard, *linears: Linear) -> tuple[Piece, ...]:
    """The weight gradients of a block, if it is trained, and the casts that they alone need.

    They sum over tokens: where scales belong to pieces of rows, both operands are cast anew. A stack
    that does not fuse them with their sum adds each in a kernel of its own, which hides behind nothing.
    """
    if not shard.trains:
        return ()
    grads = tuple(kernel for x in linears for kernel in _summed(shard, x))
    narrow = [x for x in linears if DTYPE_BYTES[x.dtype] <= 1]
    elements = math.fsum(x.groups * x.tokens * (x.k + x.n) for x in narrow)
    traffic = 4.0 * elements * shard.stack.cast_weight_traffic * shard.cast_factor
    return (memory_kernel("weight operands", traffic, "cast"), *grads) if traffic else grads


def _summed(shard: Shard, x: Linear) -> Iterator[Kernel]:
    """Yield the weight gradient of a product, and what adds it to the sum where that is not fused."""
    yield x.weight_grad()
    each = _accumulated(shard)
    if shard.stack.accumulates_apart and each:
        moved = each * x.groups * x.n * x.k
        yield memory_kernel("gradient sum", moved, dtype=shard.wide, m=x.groups * x.n, n=x.k)


def _accumulated(shard: Shard) -> float:
    """Bytes per weight that adding a micro-batch's gradients to their sum moves."""
    stack = shard.stack
    half = stack.half_accumulate_bytes if shard.wide == "fp16" else 0.0
    return half or stack.gradient_accumulate_bytes


def elementwise(
    shard: Shard, name: str, passes: float, rows: float, cols: float, k: float = 0.0,
    groups: float = 1.0,
) -> Kernel:  # fmt: skip
    """Elements read or written in `passes`, times what the stack moves beyond the minimum."""
    nbytes = shard.element_bytes * passes * rows * cols * shard.stack.elementwise_traffic
    return memory_kernel(name, nbytes, dtype=shard.wide, m=rows, n=cols, k=k,
                         groups=max(round(groups), 1))  # fmt: skip


def norm(shard: Shard) -> Kernel:
    """A block's norm; of parallel residual streams a block reads the sum."""
    passes = 1 + shard.model.streams
    return elementwise(shard, "norm", passes, shard.tokens / shard.spread, shard.model.hidden)


def norm_back(shard: Shard) -> Kernel:
    """The norm's gradient and the sum with that of the residual branch."""
    passes = 3 + 3 * shard.model.streams
    return elementwise(shard, "norm back", passes, shard.tokens / shard.spread, shard.model.hidden)


def last_norm_back(shard: Shard) -> Kernel:
    """The gradient of the norm before the head, beside which no residual branch goes back."""
    return elementwise(shard, "norm back", 3.0, shard.tokens / shard.spread, shard.model.hidden)


def residual(shard: Shard) -> Kernel:
    """The sum of a block's result and its input."""
    passes = 1 + 2 * shard.model.streams
    return elementwise(shard, "residual", passes, shard.tokens / shard.spread, shard.model.hidden)


def activations(shard: Shard, rows: float, cols: float) -> tuple[Kernel, Kernel]:
    """The activation, forward and backward; k is 2 where a gate is multiplied."""
    ways = 2 if shard.layer.gated else 1
    forward = elementwise(shard, "activation", ways + 1, rows, cols, ways)
    return forward, elementwise(shard, "activation back", 2 * ways + 1, rows, cols, ways)


def casts(shard: Shard, name: str, elements: float) -> tuple[Kernel, ...]:
    """The passes that bring activations or gradients into 8 bits."""
    if not shard.narrow:
        return ()
    traffic = 4.0 * elements * shard.stack.cast_traffic * shard.cast_factor
    return (memory_kernel(name, traffic, "cast"),)


@dataclass(frozen=True, slots=True)
class Edge:
    """The tensor-parallel collectives at the edge of a block, where rows of `width` are spread."""

    shard: Shard
    width: float  # columns of what is gathered or summed
    name: str = "tensor"
    narrow: bool = True  # may travel in 8 bits, where products are and the stack does so

    def gather(self, partner: Kernel) -> tuple[Comm, ...]:
        """Gather the input of a product, or the gradient of its result, beside the product."""
        if not self.shard.sequence_parallel:
            return ()
        return self._comm("gather", "all_gather", partner, self.shard.stack.tp_overlap_chunks)

    def gather_again(self, partner: Kernel) -> tuple[Comm, ...]:
        """Gather the input once more for the weight gradient, beside the input gradient."""
        shard = self.shard
        if not (shard.sequence_parallel and shard.trains and shard.stack.regather_inputs):
            return ()
        whole = math.inf if shard.stack.tp_overlap_backward else 1
        return self._comm("gather again", "all_gather", partner, whole)

    def sum(self, partner: Kernel) -> tuple[Comm, ...]:
        """Sum partial results, and keep this rank's rows of them with sequence parallelism."""
        return self._sum(partner, self.shard.stack.tp_overlap_chunks)

    def sum_gradients(self, product: Linear) -> tuple[Comm, ...]:
        """Sum the gradients of the input of `product`, beside its weight gradient if it has one."""
        if not (self.shard.stack.tp_overlap_backward and self.shard.trains):
            return self._sum(product.input_grad(), self.shard.stack.tp_overlap_chunks)
        sums = self._sum(product.weight_grad(), math.inf)
        return tuple(replace(comm, beside_weight=True) for comm in sums)

    def _sum(self, partner: Kernel, chunks: float) -> tuple[Comm, ...]:
        kind = "reduce_scatter" if self.shard.sequence_parallel else "all_reduce"
        return self._comm(kind.replace("_", "-"), kind, partner, chunks)

    def _comm(self, name: str, kind: str, partner: Kernel, chunks: float) -> tuple[Comm, ...]:
        if self.shard.tp == 1:
            return ()
        each = self.shard.element_bytes
        if kind == "all_gather" and self.narrow and self.shard.narrow_gathers:
            each = self.shard.operand_bytes or DTYPE_BYTES[self.shard.precision]
        nbytes = each * self.shard.tokens * self.width
        return (
            Comm(f"{self.name} {name}", "tensor parallel", kind, nbytes, "tp", partner, chunks),
        )
