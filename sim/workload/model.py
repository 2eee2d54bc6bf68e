"""The model to be trained: its layers, its parameters and the FLOPs that MFU is defined by.

Decoder-only language models: a stack of layers of one kind or of several (see
`ersatz.sim.workload.layer`), multi-token prediction, tied or untied vocabulary, LoRA.
Not covered: encoders, vision and audio towers, layers that several places share.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal

from ersatz.sim.workload.layer import Compressed, Experts, Indexer, LatentAttention, Layer
from ersatz.sim.workload.recurrence import Recurrence, says

__all__ = ["Experts", "LatentAttention", "Model", "Runs", "says"]

Runs = tuple[tuple[Layer, int], ...]  # kinds of layer in the order of the model, with counts


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder-only language model."""

    name: str = field(metadata=says("by which reports call it"))
    layers: int = field(metadata=says("transformer layers"))
    hidden: int = field(metadata=says("size of the residual stream"))
    heads: int = field(metadata=says("attention heads"))
    kv_heads: int = field(metadata=says("heads of keys and values (grouped-query attention)"))
    head_dim: int = field(metadata=says("size of one head"))
    ffn_hidden: int = field(metadata=says("inner size of a dense MLP"))
    vocab: int = field(metadata=says("rows of the embedding"))
    gated: bool = field(default=True, metadata=says("the MLP has a gate: three matrices, not two"))
    tied: bool = field(default=False, metadata=says("embedding and head share their weights"))
    experts: Experts | None = field(
        default=None, metadata=says("see below; without it all layers are dense")
    )
    latent: LatentAttention | None = field(
        default=None, metadata=says("see below; without it attention is by heads")
    )
    window: int = field(
        default=0,
        metadata=says("tokens that attention looks back at in windowed layers; 0 is all"),
    )
    window_layers: int = field(
        default=0, metadata=says("layers with the window, spread evenly; 0 is half of them")
    )
    chunked: bool = field(
        default=False, metadata=says("the window is a chunk of its own, not one that slides")
    )
    value_dim: int = field(default=0, metadata=says("size of a value; 0: as `head_dim`"))
    gate: str = field(
        default="", metadata=says("gate of the attention's result: none, by `head` or by `element`")
    )
    shares_keys: bool = field(
        default=False, metadata=says("keys and values are those of an earlier layer")
    )
    keys_are_values: bool = field(
        default=False, metadata=says("values are the keys: no projection")
    )
    indexer: Indexer | None = field(
        default=None, metadata=says("see below; what picks the tokens of sparse attention")
    )
    compressed: Compressed | None = field(
        default=None, metadata=says("see below; attention over a window and compressed tokens")
    )
    recurrence: Recurrence | None = field(
        default=None,
        metadata=says("see below; a mixer with a state, beside attention where there are heads"),
    )
    streams: int = field(default=1, metadata=says("parallel residual streams (hyper-connections)"))
    tables: int = field(
        default=0, metadata=says("weights of further look-ups: positions, embeddings of layers")
    )
    predict_layers: int = field(default=0, metadata=says("multi-token prediction modules"))
    fused_attention: bool = field(
        default=True, metadata=says("false where biases (ALiBi) keep attention from being fused")
    )
    fused_activation: bool = field(
        default=True, metadata=says("false where biases and clamps keep it from being fused")
    )
    lora_rank: int = field(
        default=0,
        metadata=says("rank of LoRA adapters, which alone are trained; 0: all weights are"),
    )
    lora_targets: str = field(
        default="",
        metadata=says("modules with adapters among q, k, v, o, gate, up, down; by default those"
                      " that the stack's framework takes"),
    )  # fmt: skip
    blocks: Runs = field(
        default=(),
        metadata=says("kinds of layer that differ from these sizes, by letter; see below"),
    )
    predicts: Layer | None = field(
        default=None, metadata=says("layer of a prediction module; the last with attention and MLP")
    )
    notes: tuple[str, ...] = field(
        default=(), metadata=says("what is assumed or left out, in words")
    )
    source: str = field(default="", metadata=says("where the sizes were published"))

    @property
    def runs(self) -> Runs:
        """Kinds of layer in the order of the model, with how many of each follow one another."""
        if self.blocks:
            return self.blocks
        dense = self.experts.dense_layers if self.experts else self.layers
        if not self.window:
            found = [(self.layer(moe=False), dense), (self.layer(moe=True), self.layers - dense)]
            return tuple(run for run in found if run[1])
        kinds = [self.layer(moe=place >= dense, windowed=self._windowed(place))
                 for place in range(self.layers)]  # fmt: skip
        return tuple((kind, len(list(same))) for kind, same in groupby(kinds))

    def _windowed(self, place: int) -> bool:
        """Spread the layers with a window evenly, the first of them first."""
        count = self.window_layers or self.layers // 2
        return -(-(place + 1) * count // self.layers) > -(-place * count // self.layers)

    def layer(self, *, moe: bool, windowed: bool = True) -> Layer:
        """Return the layer of the model's own sizes, with experts or a dense MLP."""
        experts = replace(self.experts, dense_layers=0) if moe and self.experts else None
        return Layer(
            self.hidden, self.heads, self.kv_heads, self.head_dim, self.value_dim,
            0 if experts else self.ffn_hidden, self.gated, experts, self.latent, self.recurrence,
            self.indexer, self.compressed, self.window if windowed else 0, self.chunked, self.gate,
            self.shares_keys, self.keys_are_values, self.fused_attention, self.fused_activation,
            self.streams,
        )  # fmt: skip

    @property
    def kinds(self) -> tuple[Layer, ...]:
        """The distinct kinds of layer, in the order in which they first appear."""
        return tuple(dict.fromkeys(kind for kind, _ in self.runs))

    @property
    def predict_layer(self) -> Layer:
        """The layer of a prediction module: the last attention with the last MLP."""
        if self.predicts:
            return self.predicts
        kinds = [kind for kind, _ in reversed(self.runs)]
        mixer = next((kind for kind in kinds if kind.heads), kinds[0])
        mlp = next((kind for kind in kinds if kind.has_mlp), kinds[0])
        if mixer.has_mlp:
            return replace(mixer, ffn_hidden=mlp.ffn_hidden, experts=mlp.experts)
        return replace(mlp, heads=mixer.heads, kv_heads=mixer.kv_heads, head_dim=mixer.head_dim,
                       latent=mixer.latent, recurrence=mixer.recurrence)  # fmt: skip

    def layer_params(self, *, moe: bool, active: bool = False) -> int:
        """Weights of one layer of the model's own sizes, norms included."""
        return self.layer(moe=moe).params(active=active)

    def body_params(self, *, active: bool = False) -> int:
        """Weights of all layers without embedding, head and prediction modules."""
        return sum(count * kind.params(active=active) for kind, count in self.runs)

    def predict_params(self, *, active: bool = False) -> int:
        """Weights of the multi-token prediction modules (a layer and a 2h x h projection each)."""
        layer = self.predict_layer.params(active=active)
        return self.predict_layers * (layer + 2 * self.hidden * self.hidden)

    def params(self, *, active: bool = False, embedding: bool = True) -> int:
        """Weights of the main model (prediction modules apart), all or active per token.

        All of a further look-up table counts, of which a token reads a row: none as active.
        """
        head = self.hidden * self.vocab
        vocabulary = (head if self.tied else 2 * head) if embedding else head
        tables = 0 if active else self.tables
        return self.body_params(active=active) + vocabulary + tables + self.hidden

    def attention_flop_per_token(self, seq_len: float, *, causal: bool) -> float:
        """FLOPs of all layers that no weights have, forward, per token: scores, values, states."""
        return sum(count * kind.core_flop(seq_len, causal=causal) for kind, count in self.runs)

    def mean_reach(self, span: float) -> float:
        """Mean number of tokens that a token of a causal sequence looks back at, over attention."""
        found = [(count, kind.reach(span).own) for kind, count in self.runs if kind.heads]
        layers = sum(count for count, _ in found)
        return sum(count * reach for count, reach in found) / layers if layers else 0.0

    def flop_per_token(
        self, seq_len: float, *, causal: bool, rule: Literal["6n", "6n+attention"] = "6n+attention"
    ) -> float:
        """Training FLOPs per token without recomputation (the numerator of MFU).

        Six per active weight that multiplies (the input embedding is a look-up and does not), plus
        three times the forward attention FLOPs: over the causal half or the full square. Prediction
        modules are left out, as published figures do. LoRA has no gradients of the weights: four
        per weight, and all of attention, which has none.
        """
        each = 4.0 if self.lora_rank else 6.0
        matrix = each * (self.body_params(active=True) + self.hidden * self.vocab)
        if rule == "6n":
            return matrix
        return matrix + 3.0 * self.attention_flop_per_token(seq_len, causal=causal)
