"""What the work of a model is made of: kernels, collectives, waits; and a rank's share of it.

`PartWork` holds the pieces of a part of the model in the order of execution; `Shard` says what one
rank holds of a micro-batch and of every layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.kernels.kernel import Kernel
from ersatz.sim.workload.model import Model


@dataclass(frozen=True, slots=True)
class Comm:
    """One collective of the rank's group `group`; it may overlap the matrix product `partner`."""

    name: str
    category: str
    kind: str  # a kind of ersatz.device_models.networks.collectives
    nbytes: float
    group: str  # tp, cp, ep
    partner: Kernel | None = None
    chunks: float = 1  # pieces in which it is pipelined with the partner
    top_k: int = 0  # experts that a token visits, for an expert exchange
    node_limit: int = 0  # most nodes that it visits; 0 is no limit


@dataclass(frozen=True, slots=True)
class Join:
    """The next kernel needs the result of the collective before."""


@dataclass(frozen=True, slots=True)
class HostWork:
    """What routing costs the host in a layer of experts; it may wait to read token counts back."""

    reads: bool = False


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
        heads = self.model.heads / self.tp
        if self.model.latent:
            m = self.model.latent
            return heads * (m.nope_dim + m.rope_dim), heads * m.v_dim
        return heads * self.model.head_dim, heads * self.model.head_dim

    @property
    def kv_width(self) -> float:
        """Size of keys (or of values) of one token on this rank."""
        if self.model.latent:
            return self.attention_width[0]
        return max(self.model.kv_heads / self.tp, 1.0) * self.model.head_dim
