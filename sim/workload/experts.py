"""The expert part of a layer: routing, exchange, grouped products, and experts that all tokens visit.

A rank routes its own rows. Without sequence parallelism every rank of a tensor group has all rows:
they share them out before routing and gather the results after it, unless experts are sliced over
the same ranks (`etp`), which then all need all rows. With sequence parallelism sliced experts
gather the rows of their group and scatter the sums. Imbalance counts for rows and for bytes: the
fullest rank receives more, and all wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.kernels.kernel import Kernel, memory_kernel
from ersatz.sim.workload.layer import Experts
from ersatz.sim.workload.linear import (
    Linear,
    activations,
    casts,
    linear,
    norm,
    norm_back,
    residual,
    weight_grads,
)
from ersatz.sim.workload.mlp import gated_mlp
from ersatz.sim.workload.pieces import Comm, HostWork, Join, PartWork, Piece, Shard


@dataclass(frozen=True, slots=True)
class Routing:
    """Tokens and sizes of the expert part on one rank."""

    own: float  # tokens that this rank routes
    routed: float  # token copies that its experts receive
    local: int  # experts that it holds
    inner: float  # inner size of its slice of an expert
    shares_rows: bool  # the tensor group shares out rows that all of its ranks hold
    etp: int  # ranks that hold slices of the same experts
    gathers: bool  # they gather their rows, and scatter the sums; else sums are all-reduced


def experts_of(shard: Shard) -> Experts:
    """Return the experts of a layer that has some."""
    assert shard.layer.experts is not None
    return shard.layer.experts


def routed_width(shard: Shard) -> int:
    """Return the columns of a token as it travels to routed experts: of its latent, if any."""
    return experts_of(shard).latent or shard.model.hidden


def routing(shard: Shard) -> Routing:
    """Return what one rank routes and receives."""
    experts = experts_of(shard)
    spread = shard.tp // shard.etp if not shard.sequence_parallel else shard.tp
    own = shard.tokens / spread
    gathered = own * (shard.etp if shard.sequence_parallel else 1)
    routed = gathered * experts.visited * shard.stack.expert_imbalance
    return Routing(
        own, routed, max(experts.routed // shard.ep, 1), experts.hidden / shard.etp,
        shares_rows=not shard.sequence_parallel and spread > 1,
        etp=shard.etp, gathers=shard.sequence_parallel,
    )  # fmt: skip


def _expert_linears(shard: Shard, r: Routing) -> tuple[Linear, Linear]:
    rows = r.routed / r.local
    slow = 1.0 / shard.stack.expert_efficiency
    ways = 2 if shard.layer.gated else 1
    h = routed_width(shard)
    needed = shard.tokens * experts_of(shard).visited * shard.etp / shard.tp
    padding = 1.0 - needed / r.routed

    def grouped(name: str, n: float, k: float) -> Linear:
        return linear(shard, name, rows, n, k, category="experts", groups=r.local, slowdown=slow,
                      padding=padding)  # fmt: skip

    return grouped("experts up", ways * r.inner, h), grouped("experts down", h, r.inner)


def _exchange(
    shard: Shard, r: Routing, name: str, dtype: str, partner: Kernel
) -> tuple[Piece, ...]:
    """All-to-all of the routed tokens over the expert group; software may cut it into chunks."""
    if shard.ep == 1:
        return ()
    experts, stack = experts_of(shard), shard.stack
    copies = r.own * experts.visited * stack.expert_imbalance
    nbytes = copies * routed_width(shard) * DTYPE_BYTES[dtype]
    return (Comm(name, "expert parallel", "all_to_all", nbytes, "ep", partner,
                 stack.expert_overlap_chunks, top_k=experts.top_k,
                 node_limit=experts.groups_limit),)  # fmt: skip


def _slices(shard: Shard, r: Routing, name: str, *, sums: bool, dtype: str) -> tuple[Comm, ...]:
    """What the slices of an expert tell each other: rows gathered before it, sums after it."""
    if r.etp == 1 or not (sums or r.gathers):
        return ()
    kind = ("reduce_scatter" if r.gathers else "all_reduce") if sums else "all_gather"
    nbytes = r.routed * routed_width(shard) * DTYPE_BYTES[dtype]
    return (Comm(name, "expert tensor parallel", kind, nbytes, "etp"),)


def _shared_rows(shard: Shard, r: Routing, name: str) -> tuple[Comm, ...]:
    """Gather over the tensor group what each of its ranks has of rows that it shared out."""
    if not r.shares_rows:
        return ()
    nbytes = shard.element_bytes * shard.tokens * shard.model.hidden
    return (Comm(name, "tensor parallel", "all_gather", nbytes, "tp"),)


def _permutation(shard: Shard, r: Routing, name: str) -> Kernel:
    """Bring routed tokens into the order of the experts, or back; k is the copies of a token."""
    width = routed_width(shard)
    nbytes = shard.element_bytes * shard.stack.expert_permute_passes * r.routed * width
    return memory_kernel(name, nbytes, "permute", dtype=shard.wide, m=r.routed,
                         n=width, k=experts_of(shard).top_k)  # fmt: skip


def _expert_activations(shard: Shard, r: Routing) -> tuple[Kernel, Kernel]:
    apart = 1.0 if shard.layer.fused_activation else shard.stack.unfused_activation
    forward, back = activations(shard, r.routed, r.inner)
    return replace(forward, nbytes=apart * forward.nbytes), replace(
        back, nbytes=apart * back.nbytes
    )


def expert_block(shard: Shard) -> PartWork:
    """Router, dispatch, experts, combine; shared experts run while tokens travel."""
    model, stack = shard.model, shard.stack
    r = routing(shard)
    up, down = _expert_linears(shard, r)
    experts = experts_of(shard)
    router = linear(shard, "router", r.own, experts.routed + experts.zero, model.hidden,
                    dtype=shard.wide, padding=1.0 - shard.tokens / shard.tp / r.own)  # fmt: skip
    permute, unpermute, unpermute_back, permute_back = (
        _permutation(shard, r, name)
        for name in ("permute", "unpermute", "unpermute back", "permute back")
    )
    activation, activation_back = _expert_activations(shard, r)
    shared = _shared_experts(shard)
    sent = stack.expert_dispatch_dtype
    host = HostWork(reads=stack.moe_host_sync, local=r.local)
    into, out_of = _latent_linears(shard, r)
    width = routed_width(shard)
    forward: list[Piece] = [
        norm(shard),
        router.forward(),
        *(x.forward() for x in into),
        host,
        permute,
    ]
    forward += [*_exchange(shard, r, "dispatch", sent, up.forward()), *shared.forward, Join()]
    forward += _slices(shard, r, "expert gather", sums=False, dtype=sent)
    forward += [*casts(shard, "cast", r.routed * (width + r.inner)), up.forward()]
    forward += [activation, down.forward()]
    forward += _slices(shard, r, "expert sum", sums=True, dtype="bf16")
    forward += [*_exchange(shard, r, "combine", "bf16", down.forward()), Join(), unpermute]
    forward += [x.forward() for x in out_of]
    forward += [*_shared_rows(shard, r, "expert rows"), residual(shard)]
    backward: list[Piece] = [x.input_grad() for x in out_of]
    backward += [replace(host, reads=False), unpermute_back]
    backward += _exchange(shard, r, "combine back", sent, down.input_grad())
    backward += [*shared.input_grad, Join()]
    backward += _slices(shard, r, "expert gather back", sums=False, dtype=sent)
    backward += casts(shard, "cast", r.routed * (width + 2 * r.inner))
    backward += [down.input_grad(), activation_back, up.input_grad()]
    backward += _slices(shard, r, "expert sum back", sums=True, dtype="bf16")
    backward += [*_exchange(shard, r, "dispatch back", "bf16", up.input_grad()), Join()]
    backward += [permute_back, *(x.input_grad() for x in into), router.input_grad()]
    backward += [*_shared_rows(shard, r, "expert rows back"), norm_back(shard)]
    grads = weight_grads(shard, *out_of, down, up, *into, router)
    return PartWork(tuple(forward), tuple(backward), grads + shared.weight_grad)


def _latent_linears(shard: Shard, r: Routing) -> tuple[tuple[Linear, ...], tuple[Linear, ...]]:
    """The products into the latent that routed experts work on, and back; none without one."""
    size, h = experts_of(shard).latent, shard.model.hidden
    if not size:
        return (), ()
    padding = 1.0 - shard.tokens / shard.tp / r.own
    into = linear(shard, "expert latent", r.own, size, h, padding=padding)
    return (into,), (linear(shard, "expert latent out", r.own, h, size, padding=padding),)


def _shared_experts(shard: Shard) -> PartWork:
    experts = experts_of(shard)
    if not experts.shared_inner:
        return PartWork((), (), ())
    whole = gated_mlp(shard, shard.tokens, experts.shared_inner / shard.tp, "shared ")
    keep = {"norm", "residual", "norm back"}  # the routed experts' block has them already

    def strip(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
        return tuple(p for p in pieces if not (isinstance(p, Kernel) and p.name in keep))

    return PartWork(strip(whole.forward), strip(whole.input_grad), whole.weight_grad)
