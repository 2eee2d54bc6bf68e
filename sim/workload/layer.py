"""One kind of layer: how tokens see one another, and what is done to each token alone.

A layer is data: attention (by heads, latent, over a window, over what an indexer picks, over
compressed tokens), a recurrence, or both side by side, and a dense MLP, experts, or neither.
Parameters, FLOPs and memory follow from the sizes; `ersatz.sim.workload.recurrent` has the
work of recurrences. Biases, norms of heads and attention sinks are left out: below 0.3 % of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ersatz.sim.workload.recurrence import Product, Recurrence, says


@dataclass(frozen=True, slots=True)
class Experts:
    """The mixture-of-experts part of a model's MLP layers."""

    routed: int = field(metadata=says("experts among which the router chooses"))
    top_k: int = field(metadata=says("experts that the router chooses for a token"))
    hidden: int = field(metadata=says("inner size of one expert"))
    shared: int = field(default=0, metadata=says("experts that every token visits"))
    dense_layers: int = field(default=0, metadata=says("leading layers with a dense MLP"))
    groups_limit: int = field(
        default=0, metadata=says("most nodes that one token may visit; 0 is no limit")
    )
    shared_hidden: int = field(
        default=0,
        metadata=says(
            "inner size of all that every token visits beside the routed experts; 0: `shared` x `hidden`"
        ),
    )
    latent: int = field(
        default=0,
        metadata=says("size to which a token is projected before routed experts; 0: none"),
    )
    zero: int = field(
        default=0, metadata=says("further experts among the choices that pass a token on unchanged")
    )

    @property
    def shared_inner(self) -> int:
        """Inner size of all that every token visits beside the routed experts."""
        return self.shared_hidden or self.shared * self.hidden

    @property
    def visited(self) -> float:
        """Routed experts that a token visits on average: choices fall on idle ones alike."""
        return self.top_k * self.routed / (self.routed + self.zero) if self.zero else self.top_k


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2): low-rank queries, keys and values."""

    q_rank: int = field(metadata=says("rank of the queries; 0: they are projected directly"))
    kv_rank: int = field(metadata=says("rank of keys and values"))
    rope_dim: int = field(metadata=says("dimensions of a head with rotary position"))
    nope_dim: int = field(metadata=says("dimensions of a head without position"))
    v_dim: int = field(metadata=says("dimensions of a value"))

    @property
    def down(self) -> int:
        """Width of the latents of one token."""
        return self.q_rank + self.kv_rank + self.rope_dim


@dataclass(frozen=True, slots=True)
class Indexer:
    """What picks the tokens that sparse attention looks at (DeepSeek-V3.2, MiniMax-M3)."""

    heads: int = field(metadata=says("index heads, over all earlier tokens"))
    dim: int = field(metadata=says("size of an index head"))
    top_k: int = field(metadata=says("tokens that attention then looks at"))
    shared: bool = field(
        default=False,
        metadata=says("the choice of an earlier layer is used again: no indexer here"),
    )
    weighted: bool = field(
        default=True, metadata=says("index heads are weighted by a product of their own")
    )


@dataclass(frozen=True, slots=True)
class Compressed:
    """Attention over a window and over runs of tokens compressed to one entry (DeepSeek-V4)."""

    q_rank: int = field(metadata=says("rank of the queries"))
    out_rank: int = field(metadata=says("rank of each group of the output"))
    out_groups: int = field(metadata=says("groups of the output"))
    ratio: int = field(default=0, metadata=says("tokens of one compressed entry; 0: window only"))

    def compressor(self, indexed: bool) -> int:
        """Columns of the product that compresses runs: entries that overlap take twice as many."""
        return 0 if not self.ratio else 4 if indexed else 2


class Reach(NamedTuple):
    """Tokens that a token of a causal sequence looks back at, on average."""

    own: float
    chosen: float = 0.0  # of these, entries that an indexer picked or a compressor made


@dataclass(frozen=True, slots=True)
class Layer:
    """One kind of layer; 0 heads are no attention, no inner size and no experts no MLP."""

    hidden: int
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    value_dim: int = 0  # 0: as head_dim
    ffn_hidden: int = 0
    gated: bool = True
    experts: Experts | None = None
    latent: LatentAttention | None = None
    recurrence: Recurrence | None = None
    indexer: Indexer | None = None
    compressed: Compressed | None = None
    window: int = 0
    chunked: bool = False
    gate: str = ""  # of the attention's result: by head or by element
    shares_keys: bool = False
    keys_are_values: bool = False
    fused_attention: bool = True
    fused_activation: bool = True
    streams: int = 1

    @property
    def has_mlp(self) -> bool:
        """Tell whether the layer has an MLP or experts."""
        return bool(self.ffn_hidden or self.experts)

    @property
    def has_mixer(self) -> bool:
        """Tell whether tokens see one another in this layer."""
        return bool(self.heads or self.recurrence)

    @property
    def blocks(self) -> int:
        """Residual branches of the layer, each with a norm."""
        return self.has_mixer + self.has_mlp

    @property
    def v_dim(self) -> int:
        """Size of a value of one head."""
        return self.latent.v_dim if self.latent else self.value_dim or self.head_dim

    @property
    def qk_dim(self) -> int:
        """Size of a query of one head."""
        return self.latent.nope_dim + self.latent.rope_dim if self.latent else self.head_dim

    @property
    def mlp_matrices(self) -> int:
        """Weight matrices of one MLP: three when gated, else two."""
        return 3 if self.gated else 2

    @property
    def key_products(self) -> int:
        """Columns of the keys' and values' projections."""
        if self.shares_keys:
            return 0
        values = 0 if self.keys_are_values else self.v_dim
        return self.kv_heads * (self.head_dim + values)

    @property
    def gate_width(self) -> int:
        """Columns of the gate of the attention's result."""
        return {"head": self.heads, "element": self.heads * self.v_dim}.get(self.gate, 0)

    def products(self) -> Iterator[Product]:
        """Yield the weight matrices of attention and recurrence, and how a tensor group holds them."""
        if self.heads:
            yield from self._attention_products()
            yield from self._index_products()
        if self.recurrence:
            yield from self.recurrence.products(self.hidden)

    def _attention_products(self) -> Iterator[Product]:
        h, a = self.hidden, self.heads
        if self.compressed:
            c = self.compressed
            yield Product("latent down", c.q_rank + self.head_dim, h, whole=True)
            if c.ratio:
                columns = c.compressor(self.indexer is not None) * self.head_dim
                yield Product("compress", columns, h, whole=True)
            yield Product("q up", a * self.head_dim, c.q_rank, latent=True)
            yield Product("out groups", c.out_groups * c.out_rank, a * self.head_dim // c.out_groups,
                          into=False)  # fmt: skip
            yield Product("out", h, c.out_groups * c.out_rank, into=False)
            return
        if self.latent:
            m = self.latent
            yield Product("latent down", m.down, h, whole=True)
            q = "q up" if m.q_rank else "q"
            yield Product(q, a * self.qk_dim, m.q_rank or h, latent=bool(m.q_rank))
            yield Product("kv up", a * (m.nope_dim + m.v_dim), m.kv_rank, latent=True)
            if self.gate:
                yield Product("gate", self.gate_width, h)
        else:
            yield Product("qkv", a * self.head_dim + self.key_products + self.gate_width, h)
        yield Product("out", h, a * self.v_dim, into=False)

    def _index_products(self) -> Iterator[Product]:
        x = self.indexer
        if not x or x.shared:
            return
        rank = (
            self.latent.q_rank if self.latent else self.compressed.q_rank if self.compressed else 0
        )
        keys = x.dim * (4 if self.compressed else 1)  # of entries that overlap: key and its weight
        yield Product("index down", keys + (x.heads if x.weighted else 0), self.hidden, whole=True)
        yield Product("index q", x.heads * x.dim, rank or self.hidden, whole=True)

    def mixer_params(self) -> int:
        """Weights of attention and recurrence."""
        more = self.recurrence.more_params if self.recurrence else 0
        if self.compressed and self.compressed.ratio:
            c = self.compressed
            more += c.ratio * c.compressor(self.indexer is not None) * self.head_dim // 2
        return sum(product.n * product.k for product in self.products()) + more

    def whole_mixer_params(self) -> int:
        """Weights of these that every rank of a tensor group holds whole."""
        return sum(product.n * product.k for product in self.products() if product.whole)

    def mlp_params(self, *, active: bool = False) -> int:
        """Weights of the MLP, or of the part of experts that a token visits."""
        matrices, h = self.mlp_matrices, self.hidden
        if not self.experts:
            return matrices * h * self.ffn_hidden
        e = self.experts
        visited = e.visited if active else e.routed
        routed = round(visited * self.expert_params())
        return routed + self.shared_params() + self.whole_mlp_params()

    def expert_params(self) -> int:
        """Weights of one routed expert."""
        assert self.experts is not None
        return self.mlp_matrices * (self.experts.latent or self.hidden) * self.experts.hidden

    def shared_params(self) -> int:
        """Weights of what every token visits beside the routed experts."""
        assert self.experts is not None
        return self.mlp_matrices * self.hidden * self.experts.shared_inner

    def whole_mlp_params(self) -> int:
        """Weights that every rank holds whole: the router, and the way into a latent and back."""
        e = self.experts
        return self.hidden * (e.routed + e.zero + 2 * e.latent) if e else 0

    def stream_params(self) -> int:
        """Weights that mix parallel residual streams (hyper-connections), in and out of a block."""
        n = self.streams
        return self.blocks * (n * n + 2 * n) * n * self.hidden if n > 1 else 0

    def params(self, *, active: bool = False) -> int:
        """Weights of the layer, norms included."""
        norms = self.blocks * self.hidden + self.stream_params()
        return self.mixer_params() + self.mlp_params(active=active) + norms

    def reach(self, span: float) -> Reach:
        """Return how many tokens a token of a causal sequence of `span` looks back at on average.

        A window of w tokens that slides: the first w see half of it on average, the others all of
        it, w - w^2 / (2 span). In chunks of w tokens each sees w / 2. An indexer's choice is a
        window for the mean: all while there are no more, then top-k.
        """
        own = _windowed(span, self.window, self.chunked)
        if self.compressed and self.compressed.ratio:
            entries = span / self.compressed.ratio
            top = self.indexer.top_k if self.indexer else 0
            made = _windowed(entries, top, False)
            return Reach(own + made, made)
        if self.indexer:
            chosen = _windowed(span, self.indexer.top_k, False)
            return Reach(min(own, chosen), chosen)
        return Reach(own)

    def index_reach(self, span: float) -> float:
        """Return how many entries the indexer scores for a token on average."""
        if not self.indexer or self.indexer.shared:
            return 0.0
        if self.compressed and not self.compressed.ratio:
            return 0.0  # a window alone holds no entries to choose from
        return span / 2 / (self.compressed.ratio if self.compressed else 1)

    def core_flop(self, span: float, *, causal: bool = True) -> float:
        """Return FLOPs of a token, forward, that no weights have: scores, values, states, indexes.

        Not causal is the convention of the whole square: all tokens, or twice what sparse attention
        looks at.
        """
        flop = self.recurrence.core_flop if self.recurrence else 0.0
        if self.heads:
            sparse = bool(self.indexer or self.compressed)
            reach = self.attended(span) * (1 if causal else 2) if causal or sparse else span
            flop += 2.0 * self.score_width(span) * reach
            if self.indexer:
                index = self.index_reach(span) * (1 if causal else 2)
                flop += 2.0 * self.indexer.heads * (self.indexer.dim + 1) * index
        return flop

    def score_width(self, span: float) -> float:
        """Columns of query and value of all heads: latent ones, where that is less work.

        Sparse attention reads the latents of the tokens picked (one head for all); over short
        sequences it is less work to expand them and look at all.
        """
        heads = self.heads * (self.qk_dim + self.v_dim)
        if not self.absorbs(span):
            return heads
        assert self.latent is not None
        return self.heads * (2 * self.latent.kv_rank + self.latent.rope_dim)

    def absorbs(self, span: float) -> bool:
        """Tell whether attention runs on latents: sparse, and less work than all of it expanded."""
        if not (self.latent and self.indexer):
            return False
        absorbed = 2 * self.latent.kv_rank + self.latent.rope_dim
        sparse = absorbed * self.reach(span).own
        return sparse < (self.qk_dim + self.v_dim) * span / 2

    def attended(self, span: float) -> float:
        """Tokens that attention works through for a token: all where it expands latents."""
        if self.latent and self.indexer and not self.absorbs(span):
            return _windowed(span, self.window, self.chunked)
        return self.reach(span).own


def _windowed(span: float, window: float, chunked: bool) -> float:
    if not window or window >= span:
        return span / 2
    return window / 2 if chunked else window - window * window / (2 * span)
