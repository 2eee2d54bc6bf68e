"""What the work of a model is made of: kernels, collectives, waits; and a rank's share of it.

`PartWork` holds the pieces of a part of the model in the order of execution; `Shard` says what one
rank holds of a micro-batch and of every layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.kernels.kernel import Kernel
from ersatz.sim.workload.layer import Layer
from ersatz.sim.workload.model import Model


@dataclass(frozen=True, slots=True)
class Comm:
    """One collective of the rank's group `group`; it may overlap the matrix product `partner`."""

    name: str
    category: str
    kind: str  # a kind of ersatz.device_models.networks.collectives
    nbytes: float
    group: str  # tp, cp, ulysses, ep, etp
    partner: Kernel | None = None
    chunks: float = (
        1  # pieces in which it is pipelined with the partner; inf: it is beside it whole
    )
    beside_weight: bool = False  # the partner is a weight gradient: none where that is put off
    steps: int = 1  # messages that follow one another, each beside its share of the partner
    top_k: int = 0  # experts that a token visits, for an expert exchange
    node_limit: int = 0  # most nodes that it visits; 0 is no limit


@dataclass(frozen=True, slots=True)
class Join:
    """The next kernel needs the result of the collective before."""


@dataclass(frozen=True, slots=True)
class HostWork:
    """What routing costs the host in a layer of experts; it may wait to read token counts back."""

    reads: bool = False
    local: int = 0  # experts of this rank, each of which costs a host that waits


Piece = Kernel | Comm | Join | HostWork


@dataclass(frozen=True, slots=True)
class PartWork:
    """Work of one part of the model in the order of execution."""

    forward: tuple[Piece, ...]
    input_grad: tuple[Piece, ...]
    weight_grad: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Shard:
    """What one rank holds of a micro-batch and of every layer."""

    model: Model
    stack: Stack
    tokens: float  # of the micro-batch on this rank (sequence / cp x micro-batch)
    sequence: int  # full sequence length
    precision: str
    tp: int
    cp: int
    ep: int
    etp: int
    sequence_parallel: bool
    document: float = 0.0  # mean tokens of the documents packed into a sequence; 0: one fills it
    cp_comm: str = "p2p"  # how attention is spread over cp: see `Parallel`
    cp_inner: int = 1  # ranks of cp that exchange heads, where it is a2a+p2p
    operand_bytes: float = 0.0  # of the products, scales included; 0: those of the precision alone
    cast_factor: float = 1.0  # traffic of the recipe's casts / that of the stack's own
    kind: Layer | None = None  # the layer in work; none: the first of the model

    @property
    def layer(self) -> Layer:
        """The layer in work."""
        return self.kind or self.model.runs[0][0]

    @property
    def span(self) -> float:
        """Tokens among which a token looks back: of its document, where several are packed."""
        return min(self.document, self.sequence) if self.document else self.sequence

    @property
    def spread(self) -> int:
        """Ranks over which the activations between blocks are spread."""
        return self.tp if self.sequence_parallel else 1

    @property
    def wide(self) -> str:
        """Dtype of activations and of products that are never in 8 bits."""
        return self.precision if self.precision in ("fp32", "fp16") else "bf16"

    @property
    def element_bytes(self) -> float:
        """Bytes of one element of the activations."""
        return DTYPE_BYTES[self.wide]

    @property
    def attention_width(self) -> tuple[float, float]:
        """Query-key size and value size summed over this rank's heads."""
        layer, heads = self.layer, self.layer.heads / self.tp
        return heads * layer.qk_dim, heads * layer.v_dim

    @property
    def key_value_width(self) -> tuple[float, float]:
        """Size of the keys and of the values of one token on this rank."""
        layer = self.layer
        if layer.latent:
            return self.attention_width
        heads = max(layer.kv_heads / self.tp, 1.0)
        return heads * layer.head_dim, 0.0 if layer.keys_are_values else heads * layer.v_dim

    @property
    def narrow(self) -> bool:
        """Products are in 8 bits or fewer."""
        return DTYPE_BYTES[self.precision] <= 1

    @property
    def narrow_gathers(self) -> bool:
        """Activations and gradients are brought into 8 bits before they are gathered over tp."""
        return self.narrow and self.sequence_parallel and self.stack.narrow_tensor_gather

    @property
    def cast_rows(self) -> float:
        """Rows of an operand that is gathered which this rank brings into 8 bits."""
        return self.tokens / self.tp if self.narrow_gathers else self.tokens

    @property
    def trains(self) -> bool:
        """Weights have gradients; under LoRA its small matrices alone, which are work of their own."""
        return not self.model.lora_rank

    @property
    def heads_spread(self) -> int:
        """Ranks of cp that exchange heads for tokens (Ulysses)."""
        return {"a2a": self.cp, "a2a+p2p": self.cp_inner}.get(self.cp_comm, 1)

    @property
    def ring(self) -> int:
        """Ranks of cp over which keys and values travel."""
        return self.cp // self.heads_spread
