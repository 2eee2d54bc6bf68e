"""The work of one layer for one micro-batch on one rank: kernels and collectives in order.

`layer_work`, `embedding_work`, `head_work` and `predict_work` give the forward pass, the input
gradient and the weight gradient of a part of the model. FLOPs and bytes follow from shapes alone;
element-wise bytes are those of fully fused kernels times the stack's `elementwise_traffic`.

Not modelled: dropout, biases, and the small tensors of the router's balance loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.kernels.kernel import Kernel, kernel_constants, matmul, memory_kernel
from ersatz.sim.workload.pieces import Comm, HostWork, Join, PartWork, Piece, Shard


@dataclass(frozen=True, slots=True)
class _Linear:
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

    def forward(self) -> Kernel:
        return self._product(self.name, self.tokens, self.n, self.k)

    def input_grad(self) -> Kernel:
        return self._product(f"{self.name} dgrad", self.tokens, self.k, self.n)

    def weight_grad(self) -> tuple[Kernel, ...]:
        product = self._product(f"{self.name} wgrad", self.n, self.k, self.tokens)
        extra = self.accumulate_bytes * self.groups * self.n * self.k
        return (replace(product, nbytes=product.nbytes + extra),)

    def _product(self, name: str, m: float, n: float, k: float) -> Kernel:
        output = max(2.0, DTYPE_BYTES[self.dtype])
        return matmul(name, m, n, k, self.dtype, groups=self.groups, category=self.category,
                      slowdown=self.slowdown, output_bytes=output)  # fmt: skip


def _linear(
    shard: Shard, name: str, tokens: float, n: float, k: float, *, dtype: str = "",
    category: str = "matrix", groups: int = 1, slowdown: float = 1.0,
) -> _Linear:  # fmt: skip
    """A weight matrix under the shard's stack, in its precision unless `dtype` is given."""
    dtype = dtype or shard.precision
    if DTYPE_BYTES[dtype] <= 1:
        slowdown /= shard.stack.narrow_matrix_factor
    extra = shard.stack.gradient_accumulate_bytes
    return _Linear(name, tokens, n, k, dtype, groups, category, slowdown, extra)


def _elementwise(
    shard: Shard, name: str, passes: float, rows: float, cols: float, k: float = 0.0,
    groups: float = 1.0,
) -> Kernel:  # fmt: skip
    """Elements read or written in `passes`, times what the stack moves beyond the minimum."""
    nbytes = shard.element_bytes * passes * rows * cols * shard.stack.elementwise_traffic
    return memory_kernel(name, nbytes, dtype=shard.wide, m=rows, n=cols, k=k,
                         groups=max(round(groups), 1))  # fmt: skip


def _norm(shard: Shard) -> Kernel:
    return _elementwise(shard, "norm", 2, shard.tokens / shard.spread, shard.model.hidden)


def _norm_back(shard: Shard) -> Kernel:
    """The norm's gradient and the sum with that of the residual branch."""
    return _elementwise(shard, "norm back", 6, shard.tokens / shard.spread, shard.model.hidden)


def _residual(shard: Shard) -> Kernel:
    return _elementwise(shard, "residual", 3, shard.tokens / shard.spread, shard.model.hidden)


def _activations(shard: Shard, rows: float, cols: float) -> tuple[Kernel, Kernel]:
    """The activation, forward and backward; k is 2 where a gate is multiplied."""
    ways = 2 if shard.model.gated else 1
    forward = _elementwise(shard, "activation", ways + 1, rows, cols, ways)
    return forward, _elementwise(shard, "activation back", 2 * ways + 1, rows, cols, ways)


def _casts(shard: Shard, name: str, elements: float) -> tuple[Kernel, ...]:
    """The passes that bring activations or gradients into 8 bits."""
    if DTYPE_BYTES[shard.precision] > 1:
        return ()
    return (memory_kernel(name, 4.0 * elements * shard.stack.cast_traffic, "cast"),)


def _gather(shard: Shard, partner: Kernel) -> tuple[Comm, ...]:
    return _tensor_comm(shard, "gather", "all_gather", partner) if shard.sequence_parallel else ()


def _scatter(shard: Shard, partner: Kernel) -> tuple[Comm, ...]:
    kind = "reduce_scatter" if shard.sequence_parallel else "all_reduce"
    return _tensor_comm(shard, kind.replace("_", "-"), kind, partner)


def _tensor_comm(shard: Shard, name: str, kind: str, partner: Kernel) -> tuple[Comm, ...]:
    if shard.tp == 1:
        return ()
    nbytes = 2.0 * shard.tokens * shard.model.hidden
    chunks = shard.stack.tp_overlap_chunks
    return (Comm(f"tensor {name}", "tensor parallel", kind, nbytes, "tp", partner, chunks),)


def layer_work(shard: Shard, *, moe: bool) -> PartWork:
    """Return the work of one transformer layer: an attention block and an MLP block."""
    attention = _attention_block(shard)
    mlp = _expert_block(shard) if moe else _mlp_block(shard)
    return PartWork(
        attention.forward + mlp.forward,
        mlp.input_grad + attention.input_grad,
        mlp.weight_grad + attention.weight_grad,
    )


def _attention_linears(shard: Shard) -> tuple[list[_Linear], _Linear]:
    """Projections into and out of the attention core."""
    model, t = shard.model, shard.tokens
    query, value = shard.attention_width
    out = _linear(shard, "out", t, model.hidden, value)
    if not model.latent:
        width = query + 2 * shard.kv_width
        return [_linear(shard, "qkv", t, width, model.hidden)], out
    m, heads = model.latent, model.heads / shard.tp
    down = (m.q_rank or query) + m.kv_rank + m.rope_dim
    linears = [_linear(shard, "latent down", t, down, model.hidden)]
    if m.q_rank:
        linears.append(_linear(shard, "q up", t, query, m.q_rank))
    linears.append(_linear(shard, "kv up", t, heads * (m.nope_dim + m.v_dim), m.kv_rank))
    return linears, out


def _attention_block(shard: Shard) -> PartWork:
    model, t = shard.model, shard.tokens
    linears, out = _attention_linears(shard)
    query, _ = shard.attention_width
    head = query * shard.tp / model.heads
    rope = 2.0, t, query + shard.kv_width, head, shard.kv_width / head
    inputs = math.fsum(x.tokens * x.k for x in linears) + t * out.k
    outputs = math.fsum(x.tokens * x.n for x in linears) + t * out.n
    forward: list[Piece] = [_norm(shard), *_casts(shard, "cast", inputs)]
    forward += _gather(shard, linears[0].forward())
    forward += [x.forward() for x in linears]
    forward += [_elementwise(shard, "rope", *rope), *_attention_core(shard, backward=False)]
    forward += [out.forward(), *_scatter(shard, out.forward())]
    forward.append(_residual(shard))
    backward: list[Piece] = [*_casts(shard, "cast", outputs), *_gather(shard, out.input_grad())]
    backward += [out.input_grad(), *_attention_core(shard, backward=True)]
    backward.append(_elementwise(shard, "rope back", *rope))
    backward += [x.input_grad() for x in reversed(linears)]
    backward += _scatter(shard, linears[0].input_grad())
    backward.append(_norm_back(shard))
    weight = [k for x in (out, *reversed(linears)) for k in x.weight_grad()]
    return PartWork(tuple(forward), tuple(backward), _trained(shard, weight))


def _trained(shard: Shard, weight: list[Kernel]) -> tuple[Piece, ...]:
    """Weight gradients, of which LoRA keeps only its small matrices (not counted)."""
    return () if shard.model.lora_rank else tuple(weight)


def _attention_core(shard: Shard, *, backward: bool) -> tuple[Piece, ...]:
    """Scores, softmax and values; five products backward for two forward (recomputed scores)."""
    model, stack, t = shard.model, shard.stack, shard.tokens
    query, value = shard.attention_width
    fused = stack.flash_attention and model.fused_attention
    span = (min(shard.document, shard.sequence) if shard.document else shard.sequence) / 2
    windowed = min(span, model.window) if model.window else span
    reach = (span + windowed) / 2 if fused else float(shard.sequence)
    products = (
        (3 * query + 2 * value)
        if backward and fused
        else 2 * (query + value)
        if backward
        else query + value
    )
    flop = 2.0 * t * reach * products
    passes = 2.5 if backward else 1.0
    nbytes = shard.element_bytes * t * (query + 2 * shard.kv_width + value) * passes
    name = "attention back" if backward else "attention"
    head = query * shard.tp / model.heads
    core = Kernel(name, "attention", "attention", shard.wide, flop, nbytes, m=t, n=value, k=head,
                  groups=max(round(shard.kv_width / head), 1), backward=backward,
                  sequence=shard.sequence // shard.cp, slowdown=1.0 / stack.attention_factor,
                  portable=stack.portable_attention,
                  aligned=fused or head * shard.element_bytes % 16 == 0)  # fmt: skip
    pieces: list[Piece] = [core]
    if not fused:
        scores = t * shard.sequence * model.heads / shard.tp
        constants = kernel_constants()
        passes = constants.score_passes_backward if backward else constants.score_passes_forward
        pieces.append(memory_kernel("scores", 2.0 * passes * scores, "attention"))
    if shard.cp > 1:
        # each ring step reads and writes partial results in fp32 and their update in 16 bits
        constants = kernel_constants()
        merged = t * (constants.ring_merge_bytes_backward * 2 * shard.kv_width if backward
                      else constants.ring_merge_bytes_forward * value)  # fmt: skip
        pieces.append(memory_kernel("ring merge", merged * shard.cp, "attention"))
        share = 2.0 * t * 2 * shard.kv_width * shard.cp
        kind = "all_gather"
        pieces.append(Comm("context gather", "context parallel", kind, share * (2 if backward else 1),
                           "cp", core, shard.cp))  # fmt: skip
    return tuple(pieces)


def _mlp_block(shard: Shard) -> PartWork:
    model, t = shard.model, shard.tokens
    return _gated_mlp(shard, t, model.ffn_hidden / shard.tp, "")


def _gated_mlp(shard: Shard, t: float, inner: float, prefix: str) -> PartWork:
    """A whole dense MLP block with its norm, collectives and residual."""
    model = shard.model
    ways = 2 if model.gated else 1
    up = _linear(shard, f"{prefix}up", t, ways * inner, model.hidden)
    down = _linear(shard, f"{prefix}down", t, model.hidden, inner)
    activation, activation_back = _activations(shard, t, inner)
    forward: list[Piece] = [
        _norm(shard),
        *_casts(shard, "cast", t * (up.k + down.k)),
        *_gather(shard, up.forward()),
        up.forward(),
        activation,
        down.forward(),
        *_scatter(shard, down.forward()),
        _residual(shard),
    ]
    backward: list[Piece] = [
        *_casts(shard, "cast", t * (up.n + down.n)),
        *_gather(shard, down.input_grad()),
        down.input_grad(),
        activation_back,
        up.input_grad(),
        *_scatter(shard, up.input_grad()),
        _norm_back(shard),
    ]
    weight = [*down.weight_grad(), *up.weight_grad()]
    return PartWork(tuple(forward), tuple(backward), _trained(shard, weight))


@dataclass(frozen=True, slots=True)
class _Routing:
    """Tokens and sizes of the expert part on one rank."""

    own: float  # tokens that this rank routes
    routed: float  # token copies that its experts receive
    local: int  # experts that it holds
    inner: float  # inner size of its slice of an expert


def _routing(shard: Shard) -> _Routing:
    experts = shard.model.experts
    assert experts is not None
    own = shard.tokens / (shard.tp / shard.etp if shard.sequence_parallel else 1)
    local = max(experts.routed // shard.ep, 1)
    routed = own * experts.top_k * shard.stack.expert_imbalance
    return _Routing(own, routed, local, experts.hidden / shard.etp)


def _expert_linears(shard: Shard, r: _Routing) -> tuple[_Linear, _Linear]:
    rows = r.routed / r.local
    slow = (1.0 + kernel_constants().expert_rows_half / rows) / shard.stack.expert_efficiency
    ways = 2 if shard.model.gated else 1
    h = shard.model.hidden

    def grouped(name: str, n: float, k: float) -> _Linear:
        return _linear(shard, name, rows, n, k, category="experts", groups=r.local, slowdown=slow)

    return grouped("experts up", ways * r.inner, h), grouped("experts down", h, r.inner)


def _exchange(
    shard: Shard, r: _Routing, name: str, dtype: str, partner: Kernel
) -> tuple[Piece, ...]:
    """All-to-all of the routed tokens over the expert group; software may cut it into chunks."""
    if shard.ep == 1:
        return ()
    experts = shard.model.experts
    assert experts is not None
    nbytes = r.own * experts.top_k * shard.model.hidden * DTYPE_BYTES[dtype] / shard.etp
    return (Comm(name, "expert parallel", "all_to_all", nbytes, "ep", partner,
                 shard.stack.expert_overlap_chunks, top_k=experts.top_k,
                 node_limit=experts.groups_limit),)  # fmt: skip


def _permutation(shard: Shard, r: _Routing, name: str) -> Kernel:
    """Bring routed tokens into the order of the experts, or back; k is the copies of a token."""
    experts, passes = shard.model.experts, shard.stack.expert_permute_passes
    assert experts is not None
    nbytes = shard.element_bytes * passes * r.routed * shard.model.hidden
    return memory_kernel(name, nbytes, "permute", dtype=shard.wide, m=r.routed,
                         n=shard.model.hidden, k=experts.top_k)  # fmt: skip


def _expert_block(shard: Shard) -> PartWork:
    """Router, dispatch, experts, combine; shared experts run while tokens travel."""
    model, stack = shard.model, shard.stack
    experts = model.experts
    assert experts is not None
    r = _routing(shard)
    up, down = _expert_linears(shard, r)
    router = _linear(shard, "router", r.own, experts.routed, model.hidden, dtype=shard.wide)
    permute, unpermute, unpermute_back, permute_back = (
        _permutation(shard, r, name)
        for name in ("permute", "unpermute", "unpermute back", "permute back")
    )
    apart = 1.0 if model.fused_activation else stack.unfused_activation
    activation, activation_back = (
        replace(kernel, nbytes=apart * kernel.nbytes)
        for kernel in _activations(shard, r.routed, r.inner)
    )
    shared = _shared_experts(shard)
    dispatch = stack.expert_dispatch_dtype
    forward: list[Piece] = [_norm(shard), router.forward()]
    forward.append(HostWork(reads=stack.moe_host_sync))
    forward += [
        permute,
        *_exchange(shard, r, "dispatch", dispatch, up.forward()),
        *shared.forward,
        Join(),
    ]
    forward += [*_casts(shard, "cast", r.routed * (model.hidden + r.inner)), up.forward()]
    forward += [activation, down.forward()]
    forward += [*_exchange(shard, r, "combine", "bf16", down.forward()), Join()]
    forward += [unpermute, _residual(shard)]
    backward: list[Piece] = [HostWork(), unpermute_back]
    backward += _exchange(shard, r, "combine back", dispatch, down.input_grad())
    backward += [*shared.input_grad, Join()]
    backward += _casts(shard, "cast", r.routed * (model.hidden + 2 * r.inner))
    backward += [down.input_grad(), activation_back, up.input_grad()]
    backward += [*_exchange(shard, r, "dispatch back", "bf16", up.input_grad()), Join()]
    backward.append(permute_back)
    backward += [router.input_grad(), _norm_back(shard)]
    weight = [*down.weight_grad(), *up.weight_grad(), *router.weight_grad()]
    return PartWork(tuple(forward), tuple(backward), _trained(shard, weight) + shared.weight_grad)


def _shared_experts(shard: Shard) -> PartWork:
    experts = shard.model.experts
    assert experts is not None
    if not experts.shared:
        return PartWork((), (), ())
    whole = _gated_mlp(shard, shard.tokens, experts.shared * experts.hidden / shard.tp, "shared ")
    keep = {"norm", "residual", "norm back"}  # the routed experts' block has them already

    def strip(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
        return tuple(p for p in pieces if not (isinstance(p, Kernel) and p.name in keep))

    return PartWork(strip(whole.forward), strip(whole.input_grad), whole.weight_grad)


def embedding_work(shard: Shard) -> PartWork:
    """Look tokens up, and add their gradients into the table."""
    model, t = shard.model, shard.tokens
    moved = shard.element_bytes * t * model.hidden
    sizes = {"dtype": shard.wide, "m": t, "n": float(model.hidden), "k": model.vocab / shard.tp}
    look_up = memory_kernel("embedding", 2 * moved, **sizes)  # type: ignore[arg-type]
    scatter = memory_kernel("embedding back", 4 * moved, **sizes)  # type: ignore[arg-type]
    comm = _scatter(shard, look_up) if shard.tp > 1 else ()
    return PartWork((look_up, *(replace(c, chunks=1) for c in comm)), (), (scatter,))


def head_work(shard: Shard) -> PartWork:
    """Final norm, vocabulary projection and loss, never in 8 bits."""
    model, t = shard.model, shard.tokens
    head = _linear(shard, "head", t, model.vocab / shard.tp, model.hidden, dtype=shard.wide,
                   category="vocabulary")  # fmt: skip
    traffic = shard.stack.loss_bytes_per_logit * t * model.vocab / shard.tp
    forward: list[Piece] = [_norm(shard), *_gather(shard, head.forward()), head.forward()]
    loss, loss_back = (
        memory_kernel(name, share * traffic, "vocabulary", dtype=shard.wide, m=t, n=head.n)
        for name, share in (("loss", 0.4), ("loss back", 0.6))
    )
    forward.append(loss)
    if shard.tp > 1:
        forward.append(Comm("loss reduce", "tensor parallel", "all_reduce", 8.0 * t, "tp"))
    backward: list[Piece] = [loss_back]
    backward += [head.input_grad(), *_scatter(shard, head.input_grad())]
    weight = [] if model.lora_rank else list(head.weight_grad())
    return PartWork(tuple(forward), tuple(backward), tuple(weight))


def predict_work(shard: Shard) -> PartWork:
    """One multi-token prediction module: a projection, a layer and the shared head."""
    project = _linear(shard, "predict", shard.tokens, shard.model.hidden / shard.tp,
                      2 * shard.model.hidden)  # fmt: skip
    layer = layer_work(shard, moe=shard.model.experts is not None)
    head = head_work(shard)
    return PartWork(
        (project.forward(), *layer.forward, *head.forward),
        (*head.input_grad, *layer.input_grad, project.input_grad()),
        (*head.weight_grad, *layer.weight_grad, *project.weight_grad()),
    )
