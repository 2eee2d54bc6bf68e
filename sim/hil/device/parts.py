"""The pieces of a transformer as PyTorch executes them, one function per kernel of the workload.

Both the benchmark's kernels (`ersatz.sim.hil.device.recipes`) and the network of the proof
(`ersatz.sim.hil.proof.transformer`) call these, or a library's in their place (`Pieces`), so that a
measured kernel is the work that a step does. Tensors are (tokens, width); `Heads` says how a width
splits. Nothing here knows a device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Tensor = Any  # torch.Tensor, which is imported late


@dataclass(frozen=True, slots=True)
class Heads:
    """How attention splits its width: `count` query heads and `kv` key heads of size `dim`."""

    batch: int
    sequence: int
    count: int
    kv: int
    dim: int

    @property
    def packed(self) -> int:
        """Width of queries, keys and values side by side."""
        return (self.count + 2 * self.kv) * self.dim


def norm(x: Tensor, weight: Tensor) -> Tensor:
    """Root mean square norm over the last axis."""
    from torch.nn.functional import rms_norm

    return rms_norm(x, (x.shape[-1],), weight, 1e-5)


def rotary_table(heads: Heads, device: Any, dtype: Any) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of shape (sequence, 1, dim)."""
    import torch

    place = torch.arange(heads.sequence, device=device, dtype=torch.float32)
    rate = 1e4 ** (-torch.arange(0, heads.dim, 2, device=device, dtype=torch.float32) / heads.dim)
    angle = torch.outer(place, rate).repeat(1, 2).unsqueeze(1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def split_heads(qkv: Tensor, heads: Heads) -> tuple[Tensor, Tensor]:
    """Return (queries and keys, values) of packed projections, each (batch, sequence, heads, dim)."""
    both = heads.count + heads.kv
    split = qkv.view(heads.batch, heads.sequence, both + heads.kv, heads.dim)
    x, v = split.split([both, heads.kv], dim=2)
    return x, v


def rotate(
    qkv: Tensor, table: tuple[Tensor, Tensor], heads: Heads
) -> tuple[Tensor, Tensor, Tensor]:
    """Split packed projections and rotate queries and keys by their place (rotary embedding)."""
    import torch

    x, v = split_heads(qkv, heads)
    low, high = x.chunk(2, dim=-1)
    turned = x * table[0] + torch.cat((-high, low), dim=-1) * table[1]
    q, k = turned.split([heads.count, heads.kv], dim=2)
    return q, k, v


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of (batch, sequence, heads, dim); returns (tokens, heads x dim)."""
    from torch.nn.functional import scaled_dot_product_attention

    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    out = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    batch, count, sequence, dim = out.shape
    return out.transpose(1, 2).reshape(batch * sequence, count * dim)


def activate(x: Tensor, gated: bool) -> Tensor:
    """SwiGLU of two halves side by side, or GELU."""
    from torch.nn.functional import gelu, silu

    if not gated:
        return gelu(x)
    gate, value = x.chunk(2, dim=-1)
    return silu(gate) * value


def grouped(x: Tensor, weight: Tensor) -> Tensor:
    """Products of (groups, m, k) with (groups, k, n)."""
    import torch

    return torch.bmm(x, weight)


def grouped_weights(x: Tensor, grad: Tensor) -> Tensor:
    """Gradients of the weights of grouped products: (groups, m, k)' times (groups, m, n)."""
    import torch

    return torch.bmm(x.transpose(1, 2), grad)


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of which libraries have fused kernels; PyTorch's own where nothing else is said."""

    norm: Callable[..., Tensor] = norm
    rotate: Callable[..., tuple[Tensor, Tensor, Tensor]] = rotate
    attend: Callable[..., Tensor] = attend
    activate: Callable[..., Tensor] = activate
    grouped: Callable[..., Tensor] = grouped
    grouped_weights: Callable[..., Tensor] = grouped_weights
    libraries: str = ""  # whose kernels they are, with versions


PLAIN = Pieces()


@dataclass(frozen=True, slots=True)
class Routing:
    """Which tokens every expert gets, evenly: `source` tokens in the order of the experts."""

    source: Tensor  # (copies,) token of each place
    place: Tensor  # (tokens x top_k,) place of each copy of a token
    expert: Tensor  # (tokens, top_k)


def even_routing(tokens: int, experts: int, top_k: int, device: Any) -> Routing:
    """Return a routing in which every expert gets as many tokens; tokens take experts in turn."""
    import torch

    copies = torch.arange(tokens * top_k)
    expert = copies % experts
    source = torch.argsort(expert, stable=True)
    place = torch.empty_like(source)
    place[source] = copies
    return Routing((source // top_k).to(device), place.to(device),
                   expert.view(tokens, top_k).to(device))  # fmt: skip


def permute(x: Tensor, routing: Routing) -> Tensor:
    """Copy tokens into the order of the experts."""
    return x.index_select(0, routing.source)


def unpermute(y: Tensor, gates: Tensor, routing: Routing) -> Tensor:
    """Bring the experts' results back to their tokens and add a token's copies, weighted."""
    tokens, top_k = gates.shape
    copies = y.index_select(0, routing.place).view(tokens, top_k, y.shape[-1])
    return (copies * gates.unsqueeze(-1)).sum(dim=1)


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over the tokens, in fp32."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits.float(), targets)
