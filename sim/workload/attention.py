"""The attention block of a layer: projections, core, and how it is spread over tp and cp.

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


@dataclass(frozen=True, slots=True)
class _Projections:
    """The products into and out of the attention core."""

    whole: tuple[Linear, ...]  # on the rank's own rows, with whole weights
    split: tuple[Linear, ...]  # on gathered rows, this rank's columns
    gathered: float  # columns that are gathered for them
    again: float  # of these for the weight gradients: not the rotary keys, which no product takes
    out: Linear

    @property
    def widest(self) -> Linear:
        """The largest of the split products, beside which collectives run."""
        return max(self.split, key=lambda x: x.n * x.k)


def _projections(shard: Shard) -> _Projections:
    model, t = shard.model, shard.tokens
    query, value = shard.attention_width
    out = linear(shard, "out", t, model.hidden, value)
    if not model.latent:
        width = query + sum(shard.key_value_width)
        copies = sum(shard.key_value_width) - 2 * model.kv_heads * model.head_dim / shard.tp
        qkv = linear(shard, "qkv", t, width, model.hidden, padding=copies / width)
        return _Projections((), (qkv,), model.hidden, model.hidden, out)
    m, heads = model.latent, model.heads / shard.tp
    latents = m.q_rank + m.kv_rank + m.rope_dim
    down = linear(shard, "latent down", t / shard.spread, latents, model.hidden,
                  padding=1.0 - shard.spread / shard.tp)  # fmt: skip
    up = linear(shard, "kv up", t, heads * (m.nope_dim + m.v_dim), m.kv_rank)
    q = linear(shard, "q up" if m.q_rank else "q", t, query, m.q_rank or model.hidden)
    gathered = latents + (0 if m.q_rank else model.hidden)
    return _Projections((down,), (q, up), gathered, gathered - m.rope_dim, out)


def attention_block(shard: Shard) -> PartWork:
    """Return the attention block with its norm, collectives and residual."""
    model, t = shard.model, shard.tokens
    made = _projections(shard)
    whole, split, out, widest = made.whole, made.split, made.out, made.widest
    query, _ = shard.attention_width
    keys, _ = shard.key_value_width
    head = query * shard.tp / model.heads
    rope = 2.0, t, query + keys, head, keys / head
    into = Edge(shard, made.gathered, "latent" if whole else "tensor")
    out_of = Edge(shard, model.hidden)
    inputs = math.fsum(x.tokens * x.k for x in whole)
    inputs += math.fsum(shard.cast_rows * x.k for x in split)
    outputs = math.fsum(x.tokens * x.n for x in (*whole, *split))
    forward: list[Piece] = [norm(shard), *casts(shard, "cast", inputs + t * out.k)]
    forward += [x.forward() for x in whole]
    forward += into.gather(widest.forward())
    forward += [x.forward() for x in split]
    forward += [elementwise(shard, "rope", *rope), *_core(shard, backward=False)]
    forward += [out.forward(), *out_of.sum(out.forward()), residual(shard)]
    backward: list[Piece] = [*casts(shard, "cast", outputs + shard.cast_rows * out.n)]
    backward += [*out_of.gather(out.input_grad()), out.input_grad(), *_core(shard, backward=True)]
    backward.append(elementwise(shard, "rope back", *rope))
    backward += replace(into, width=made.again).gather_again(widest.input_grad())
    backward += [x.input_grad() for x in reversed(split)]
    backward += into.sum_gradients(widest)
    backward += [x.input_grad() for x in whole]
    backward.append(norm_back(shard))
    grads = weight_grads(shard, out, *reversed(split), *whole)
    return PartWork(tuple(forward), tuple(backward), grads)


def _core(shard: Shard, *, backward: bool) -> tuple[Piece, ...]:
    """Scores, softmax and values, with what cp exchanges for them."""
    core = _core_kernel(shard, backward=backward)
    pieces: list[Piece] = [core]
    if not is_fused(shard):
        scores = shard.tokens * shard.sequence * shard.model.heads / shard.tp
        constants = kernel_constants()
        passes = constants.score_passes_backward if backward else constants.score_passes_forward
        pieces.append(memory_kernel("scores", 2.0 * passes * scores, "attention"))
    before = _exchange_heads(shard, backward=backward, into=True)
    after = _exchange_heads(shard, backward=backward, into=False)
    return (*before, *pieces, *_keys_and_values(shard, core, backward=backward), *after)


def is_fused(shard: Shard) -> bool:
    """Tell whether attention runs as one kernel that keeps no score matrix."""
    return shard.stack.flash_attention and shard.model.fused_attention


def _core_kernel(shard: Shard, *, backward: bool) -> Kernel:
    """Five products backward for two forward, since scores are computed again."""
    model, stack, t = shard.model, shard.stack, shard.tokens
    query, value = shard.attention_width
    keys, values = shard.key_value_width
    fused = is_fused(shard)
    span = min(shard.document, shard.sequence) if shard.document else shard.sequence
    causal = model.mean_reach(span)
    reach = causal if fused else float(shard.sequence)
    length = 2 * reach if fused else reach
    products = (
        (3 * query + 2 * value)
        if backward and fused
        else 2 * (query + value)
        if backward
        else query + value
    )
    passes = 2.5 if backward else 1.0
    nbytes = shard.element_bytes * t * (query + keys + values + value) * passes
    head = query * shard.tp / model.heads
    flop = 2.0 * t * reach * products
    return Kernel("attention back" if backward else "attention", "attention", "attention",
                  shard.wide, flop, nbytes, m=t, n=value, k=head,
                  groups=max(round(keys / head), 1), backward=backward,
                  sequence=round(length) // shard.ring, versions=words_of(stack.attention_kernel),
                  slowdown=1.0 / stack.attention_factor,
                  portable=stack.portable_attention,
                  aligned=fused or head * shard.element_bytes % 16 == 0,
                  repeated=flop * query / products if backward and fused else 0.0,
                  padding=flop * (1.0 - causal / reach))  # fmt: skip


def _keys_and_values(shard: Shard, core: Kernel, *, backward: bool) -> tuple[Piece, ...]:
    """Keys and values (backward their gradients, too) of the other ranks of a ring, or of all."""
    steps = shard.ring - 1
    if not steps:
        return ()
    keys, values = shard.key_value_width
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
    heads = max(shard.model.kv_heads / shard.tp, 1.0)
    repeated = 1.0 if shard.model.latent else max(ranks / heads, 1.0)
    width = query + (keys + values) * repeated if into != backward else value
    nbytes = shard.element_bytes * shard.tokens * width
    group = "cp" if shard.cp_comm == "a2a" else "ulysses"
    return (Comm("context exchange", "context parallel", "all_to_all", nbytes, group),)
