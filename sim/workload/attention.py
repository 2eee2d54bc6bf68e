"""What lets tokens see one another: projections, core, and how they are spread over tp and cp.

Latent attention under tp runs its down-projections on the rank's own rows with whole weights and
gathers the latents, as Megatron-Core does. Over cp keys and values go round a ring (`p2p`), are
gathered at once (`all_gather`), or heads are exchanged for tokens (`a2a`, Ulysses; `a2a+p2p` does
that inside groups of `cp_inner` and rings between them).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ersatz.device_models.catalog.stack import words_of
from ersatz.device_models.kernels.kernel import Kernel, kernel_constants, memory_kernel
from ersatz.sim.workload.linear import (
    Edge,
    Linear,
    casts,
    elementwise,
    linear,
    norm,
    norm_back,
    residual,
    weight_grads,
)
from ersatz.sim.workload.pieces import Comm, PartWork, Piece, Shard
from ersatz.sim.workload.recurrence import Product
from ersatz.sim.workload.recurrent import recurrent_core
from ersatz.sim.workload.selection import index_core
from ersatz.sim.workload.unfused import unfused_core


@dataclass(frozen=True, slots=True)
class _Projections:
    """The products into and out of the core of a mixer."""

    whole: tuple[Linear, ...]  # on the rank's own rows, with whole weights
    split: tuple[Linear, ...]  # on gathered rows, this rank's columns
    gathered: float  # columns that are gathered for them
    again: float  # of these for the weight gradients: not the rotary keys, which no product takes
    out: tuple[Linear, ...]

    @property
    def widest(self) -> Linear:
        """The largest of the split products, beside which collectives run."""
        return max(self.split, key=lambda x: x.n * x.k)


def _projections(shard: Shard) -> _Projections:
    """Spread the products of a layer over the tensor group."""
    layer, products = shard.layer, tuple(shard.layer.products())
    before = [p for p in products if p.into]
    whole = tuple(_whole(shard, p) for p in before if p.whole)
    split = tuple(_split(shard, p) for p in before if not p.whole)
    gathered = sum(p.n for p in before if p.whole and p.name != "index q")
    gathered += shard.model.hidden * any(not (p.whole or p.latent) for p in before)
    rotary = layer.latent.rope_dim if layer.latent else 0
    out = tuple(_out(shard, p) for p in products if not p.into)
    return _Projections(whole, split, gathered, gathered - rotary, out)


def _whole(shard: Shard, p: Product) -> Linear:
    padding = 1.0 - shard.spread / shard.tp
    return linear(shard, p.name, shard.tokens / shard.spread, p.n, p.k, padding=padding)


def _split(shard: Shard, p: Product) -> Linear:
    """This rank's columns; keys and values fewer than ranks are repeated."""
    if p.name == "step down":  # takes what the ranks hold slices of: rows of it are split
        return linear(shard, p.name, shard.tokens, p.n, p.k / shard.tp)
    layer = shard.layer
    if p.name != "qkv" or not layer.heads or layer.latent or p.recurrent:
        return linear(shard, p.name, shard.tokens, p.n / shard.tp, p.k)
    keys = 0.0 if layer.shares_keys else sum(shard.key_value_width)
    width = shard.attention_width[0] + keys + layer.gate_width / shard.tp
    padding = (keys - layer.key_products / shard.tp) / width
    return linear(shard, p.name, shard.tokens, width, p.k, padding=padding)


def _out(shard: Shard, p: Product) -> Linear:
    if p.name == "out groups":
        return linear(shard, p.name, shard.tokens, p.n / shard.tp, p.k)
    return linear(shard, p.name, shard.tokens, p.n, p.k / shard.tp)


def mixer_block(shard: Shard) -> PartWork:
    """Return what lets tokens see one another, with its norm, collectives and residual.

    Attention and a recurrence of the same layer take the same input and are summed.
    """
    model, t = shard.model, shard.tokens
    made = _projections(shard)
    whole, split, out, widest = made.whole, made.split, made.out, made.widest
    into = Edge(shard, made.gathered, "latent" if whole else "tensor")
    out_of = Edge(shard, model.hidden)
    inputs = math.fsum(x.tokens * x.k for x in whole)
    inputs += math.fsum(shard.cast_rows * x.k for x in split)
    outputs = math.fsum(x.tokens * x.n for x in (*whole, *split))
    inner = math.fsum(t * x.k for x in out)
    forward: list[Piece] = [norm(shard), *casts(shard, "cast", inputs + inner)]
    forward += [x.forward() for x in whole]
    forward += into.gather(widest.forward())
    forward += [x.forward() for x in split]
    forward += _cores(shard, backward=False)
    last = out[-1]
    forward += [*(x.forward() for x in out), *out_of.sum(last.forward()), residual(shard)]
    backward: list[Piece] = [*casts(shard, "cast", outputs + shard.cast_rows * last.n)]
    backward += out_of.gather(last.input_grad())
    backward += [x.input_grad() for x in reversed(out)]
    backward += _cores(shard, backward=True)
    backward += replace(into, width=made.again).gather_again(widest.input_grad())
    backward += [x.input_grad() for x in reversed(split)]
    backward += into.sum_gradients(widest)
    backward += [x.input_grad() for x in whole]
    backward.append(norm_back(shard))
    grads = weight_grads(shard, *reversed(out), *reversed(split), *whole)
    return PartWork(tuple(forward), tuple(backward), grads)


def _cores(shard: Shard, *, backward: bool) -> list[Piece]:
    """What runs between the products: of attention, of a recurrence, or of both."""
    found: list[Piece] = []
    if shard.layer.heads:
        query, _ = shard.attention_width
        keys, _ = shard.key_value_width
        head = query * shard.tp / shard.layer.heads
        rope = elementwise(shard, "rope back" if backward else "rope", 2.0, shard.tokens,
                           query + keys, head, keys / head)  # fmt: skip
        index = index_core(shard, backward=backward)
        core = _core(shard, backward=backward)
        found += [*core, *index, rope] if backward else [rope, *index, *core]
    if shard.layer.recurrence:
        found += recurrent_core(shard, backward=backward)
    return found


def _core(shard: Shard, *, backward: bool) -> tuple[Piece, ...]:
    """Scores, softmax and values, with what cp exchanges for them."""
    if is_fused(shard):
        pieces: tuple[Kernel, ...] = (_core_kernel(shard, backward=backward),)
    else:
        pieces = unfused_core(shard, backward=backward)
    core = pieces[0]
    before = _exchange_heads(shard, backward=backward, into=True)
    after = _exchange_heads(shard, backward=backward, into=False)
    return (*before, *pieces, *_keys_and_values(shard, core, backward=backward), *after)


def is_fused(shard: Shard) -> bool:
    """Tell whether attention runs as one kernel that keeps no score matrix."""
    return shard.stack.flash_attention and shard.layer.fused_attention


def _core_kernel(shard: Shard, *, backward: bool) -> Kernel:
    """One fused kernel: five products backward for two forward, since scores are computed again."""
    layer, stack, t = shard.layer, shard.stack, shard.tokens
    query, value = _core_width(shard)
    keys, values = _exchanged(shard)
    reach = layer.attended(shard.span)
    products = 3 * query + 2 * value if backward else query + value
    passes = 2.5 if backward else 1.0
    nbytes = shard.element_bytes * t * (query + keys + values + value) * passes
    head = query * shard.tp / layer.heads
    flop = 2.0 * t * reach * products
    return Kernel("attention back" if backward else "attention", "attention", "attention",
                  shard.wide, flop, nbytes, m=t, n=value, k=head,
                  groups=max(round(keys / head), 1), backward=backward,
                  sequence=round(2 * reach) // shard.ring,
                  versions=words_of(stack.attention_kernel),
                  slowdown=1.0 / stack.attention_factor, portable=stack.portable_attention,
                  repeated=flop * query / products if backward else 0.0)  # fmt: skip


def _core_width(shard: Shard) -> tuple[float, float]:
    """Width of queries and values in the core: of latents, where sparse attention reads these."""
    layer = shard.layer
    if not (layer.latent and layer.absorbs(shard.span)):
        return shard.attention_width
    heads, rank = layer.heads / shard.tp, layer.latent.kv_rank
    return heads * (rank + layer.latent.rope_dim), heads * rank


def _exchanged(shard: Shard) -> tuple[float, float]:
    """Width of the keys and of the values that other ranks need of a token."""
    layer = shard.layer
    if layer.latent and layer.absorbs(shard.span):
        return float(layer.latent.kv_rank + layer.latent.rope_dim), 0.0
    return shard.key_value_width


def _keys_and_values(shard: Shard, core: Kernel, *, backward: bool) -> tuple[Piece, ...]:
    """Keys and values (backward their gradients, too) of the other ranks of a ring, or of all."""
    steps = shard.ring - 1
    if not steps:
        return ()
    keys, values = _exchanged(shard)
    own = shard.element_bytes * shard.tokens * (keys + values)
    if shard.cp_comm == "all_gather":
        whole = own * shard.cp
        found = [Comm("context gather", "context parallel", "all_gather", whole, "cp")]
        if backward:
            found.append(Comm("context scatter", "context parallel", "reduce_scatter", whole, "cp"))
        return tuple(found)
    # each step reads and writes partial results in fp32 and their update in 16 bits
    constants = kernel_constants()
    merged = (constants.ring_merge_bytes_backward * (keys + values) if backward
              else constants.ring_merge_bytes_forward * shard.attention_width[1])  # fmt: skip
    merge = memory_kernel("ring merge", merged * shard.tokens * shard.ring, "attention")
    message = own * (2 if backward else 1)
    return merge, Comm("context ring", "context parallel", "ring_shift", message, "cp", core,
                       shard.ring, steps=steps)  # fmt: skip


def _exchange_heads(shard: Shard, *, backward: bool, into: bool) -> tuple[Comm, ...]:
    """Exchange tokens of all heads for all tokens of some: q, k, v before, the output after.

    Backward the same tensors' gradients return. Fewer key-value heads than ranks are repeated.
    """
    ranks = shard.heads_spread
    if ranks == 1:
        return ()
    query, value = shard.attention_width
    keys, values = shard.key_value_width
    heads = max(shard.layer.kv_heads / shard.tp, 1.0)
    repeated = 1.0 if shard.layer.latent else max(ranks / heads, 1.0)
    width = query + (keys + values) * repeated if into != backward else value
    nbytes = shard.element_bytes * shard.tokens * width
    group = "cp" if shard.cp_comm == "a2a" else "ulysses"
    return (Comm("context exchange", "context parallel", "all_to_all", nbytes, group),)
