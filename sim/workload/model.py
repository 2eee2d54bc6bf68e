"""The model to be trained: its shape, its parameters and the FLOPs that MFU is defined by.

Covers decoder-only transformers: dense and mixture-of-experts, MHA / GQA / MLA, gated or plain
MLP, shared and routed experts, multi-token prediction, tied or untied vocabulary, LoRA.
Not covered: encoders, state-space layers, vision towers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


def says(meaning: str) -> dict[str, str]:
    """Return the meaning of a key of a model file, for `docs/model-file.md`."""
    return {"meaning": meaning}


@dataclass(frozen=True, slots=True)
class Experts:
    """The mixture-of-experts part of a model's MLP layers."""

    routed: int = field(metadata=says("experts among which the router chooses"))
    top_k: int = field(metadata=says("routed experts that a token visits"))
    hidden: int = field(metadata=says("inner size of one expert"))
    shared: int = field(default=0, metadata=says("experts that every token visits"))
    dense_layers: int = field(default=0, metadata=says("leading layers with a dense MLP"))
    groups_limit: int = field(
        default=0, metadata=says("most nodes that one token may visit; 0 is no limit")
    )


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2): low-rank queries, keys and values."""

    q_rank: int = field(metadata=says("rank of the queries; 0: they are projected directly"))
    kv_rank: int = field(metadata=says("rank of keys and values"))
    rope_dim: int = field(metadata=says("dimensions of a head with rotary position"))
    nope_dim: int = field(metadata=says("dimensions of a head without position"))
    v_dim: int = field(metadata=says("dimensions of a value"))


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder-only transformer."""

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
        default=0, metadata=says("layers with the window; 0 is half of them")
    )
    chunked: bool = field(
        default=False, metadata=says("the window is a chunk of its own, not one that slides")
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
    source: str = field(default="", metadata=says("where the sizes were published"))

    @property
    def moe_layers(self) -> int:
        """Number of layers whose MLP is a mixture of experts."""
        return self.layers - self.experts.dense_layers if self.experts else 0

    @property
    def mlp_matrices(self) -> int:
        """Weight matrices of one MLP: three when gated, else two."""
        return 3 if self.gated else 2

    def attention_params(self) -> int:
        """Weights of one attention block."""
        h, a = self.hidden, self.heads
        if self.latent:
            m = self.latent
            q_dim = a * (m.nope_dim + m.rope_dim)
            q = h * m.q_rank + m.q_rank * q_dim if m.q_rank else h * q_dim
            kv = h * (m.kv_rank + m.rope_dim) + m.kv_rank * a * (m.nope_dim + m.v_dim)
            return q + kv + a * m.v_dim * h
        return h * self.head_dim * (2 * a + 2 * self.kv_heads)

    def mlp_params(self, *, moe: bool, active: bool = False) -> int:
        """Weights of one MLP, or of its active part when it is a mixture of experts."""
        matrices, h = self.mlp_matrices, self.hidden
        if not (moe and self.experts):
            return matrices * h * self.ffn_hidden
        e = self.experts
        visited = e.top_k if active else e.routed
        return matrices * h * e.hidden * (visited + e.shared) + h * e.routed

    def layer_params(self, *, moe: bool, active: bool = False) -> int:
        """Weights of one layer, norms included."""
        return self.attention_params() + self.mlp_params(moe=moe, active=active) + 2 * self.hidden

    def body_params(self, *, active: bool = False) -> int:
        """Weights of all layers without embedding, head and prediction modules."""
        dense = self.layers - self.moe_layers
        total = dense * self.layer_params(moe=False)
        return total + self.moe_layers * self.layer_params(moe=True, active=active)

    def predict_params(self, *, active: bool = False) -> int:
        """Weights of the multi-token prediction modules (a layer and a 2h x h projection each)."""
        layer = self.layer_params(moe=self.experts is not None, active=active)
        return self.predict_layers * (layer + 2 * self.hidden * self.hidden)

    def params(self, *, active: bool = False, embedding: bool = True) -> int:
        """Weights of the main model (prediction modules apart), all or active per token."""
        head = self.hidden * self.vocab
        vocabulary = (head if self.tied else 2 * head) if embedding else head
        return self.body_params(active=active) + vocabulary + self.hidden

    def attention_flop_per_token(self, seq_len: int, *, causal: bool) -> float:
        """Score and value FLOPs of all layers, forward, per token."""
        score_dim = self.head_dim + self.head_dim
        if self.latent:
            score_dim = self.latent.nope_dim + self.latent.rope_dim + self.latent.v_dim
        reach = self.mean_reach(seq_len) if causal else seq_len
        return 2.0 * self.heads * score_dim * reach * self.layers

    def mean_reach(self, span: float) -> float:
        """Mean number of tokens that a token of a causal sequence looks back at, over all layers.

        A window of w tokens that slides over `span`: the first w see half of it on average, the
        others all of it, w - w^2 / (2 span). In chunks of w tokens each sees w / 2.
        """
        whole, window = span / 2, self.window
        if not window or window >= span:
            return whole
        windowed = window / 2 if self.chunked else window - window * window / (2 * span)
        share = (self.window_layers or self.layers / 2) / self.layers
        return whole + share * (windowed - whole)

    def flop_per_token(
        self, seq_len: int, *, causal: bool, rule: Literal["6n", "6n+attention"] = "6n+attention"
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
