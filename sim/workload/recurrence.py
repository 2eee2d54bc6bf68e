"""Layers that carry a state along the sequence instead of looking back: sizes, weights, FLOPs.

| kind | source | products in | state of a head |
|---|---|---|---|
| gated_delta | Yang et al. 2024 , Qwen3-Next | q, k, v, gate, two scalars a head | key x value |
| kda | Kimi Linear (arXiv 2510.26692) | q, k, v, gates by channel through a low rank | key x value |
| lightning | MiniMax-01 (arXiv 2501.08313) | q, k, v, gate | key x value |
| mamba2 | Dao, Gu 2024 (state-space duality) | x, gate, B, C, step | head x state |
| mamba1 | Gu, Dao 2023 | x, gate; B, C and step from x | 1 x state |
| rg_lru | De et al. 2024 (Griffin) | x, gate | 1 |
| conv | LFM2: gated short convolution | three of the hidden size | its last tokens |

Matrix work is that of the chunked form: with chunks of C tokens a head of K x V costs 6 K V for a
delta rule (4 K V otherwise) and the products inside a chunk. The last three kinds have no matrix
work: they are priced by what they read and write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


def says(meaning: str) -> dict[str, str]:
    """Return the meaning of a key of a model file, for `docs/model-file.md`."""
    return {"meaning": meaning}


class Product(NamedTuple):
    """One weight matrix of a layer, unsharded: k columns in, n columns out."""

    name: str
    n: int
    k: int
    whole: bool = False  # every rank of a tensor group holds it whole and runs it on its own rows
    latent: bool = False  # takes what a whole product made
    into: bool = True  # stands before the core, else after it
    recurrent: bool = False  # belongs to a recurrence


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A mixer with a state: linear attention, a state-space model, a gated unit, a convolution."""

    kind: str = field(metadata=says("gated_delta, kda, lightning, mamba2, mamba1, rg_lru or conv"))
    heads: int = field(metadata=says("heads (of values); channels where they have no heads"))
    key_dim: int = field(metadata=says("size of a key, or of the state of a channel"))
    value_dim: int = field(metadata=says("size of a value; 1 where channels have no heads"))
    key_heads: int = field(
        default=0, metadata=says("heads of keys, or groups of B and C; 0: `heads`")
    )
    conv: int = field(default=4, metadata=says("tokens of the short convolution"))
    chunk: int = field(default=64, metadata=says("tokens that are worked on at once"))
    rank: int = field(
        default=0, metadata=says("rank of the gates (kda) or of the step (mamba1); 0: full")
    )

    @property
    def keys(self) -> int:
        """Width of the keys (or of B, or of C) of one token."""
        return (self.key_heads or self.heads) * self.key_dim

    @property
    def values(self) -> int:
        """Width of the values of one token."""
        return self.heads * self.value_dim

    @property
    def convolved(self) -> int:
        """Columns that pass through the short convolution."""
        return _CONVOLVED[self.kind](self)

    @property
    def state(self) -> int:
        """Numbers of the state that a sequence carries along."""
        if self.kind == "conv":
            return self.values * (self.conv - 1)
        return self.values * (1 if self.kind == "rg_lru" else self.key_dim)

    @property
    def more_params(self) -> int:
        """Weights that are no matrix products: convolutions, decays, skips, norms."""
        return _MORE[self.kind](self)

    @property
    def core_flop(self) -> float:
        """FLOPs of a token, forward, that no weights have: of the chunked form, without a mask's gain."""
        if self.kind not in MATRIX_KINDS:
            return 0.0
        k, v, c = self.key_dim, self.value_dim, self.chunk
        if self.kind == "mamba2":  # scores are those of a group, their use that of a head
            shared = 2.0 * c * (self.keys + self.values)
            return 4.0 * self.heads * k * v + shared
        if self.kind == "lightning":
            return 4.0 * self.heads * k * v + 2.0 * self.heads * c * (k + v)
        solve = c * (k + v)
        return self.heads * (6.0 * k * v + c * (4.0 * k + 2.0 * v) + solve)

    @property
    def touched(self) -> float:
        """Elements of a token that the core reads and writes, forward."""
        if self.kind == "conv":
            return 2.0 * self.values
        if self.kind == "rg_lru":
            return 4.0 * self.values
        if self.kind == "mamba1":
            return 3.0 * self.values + 2.0 * self.key_dim
        return 2.0 * self.keys + 2.0 * self.values + 2.0 * self.heads

    def products(self, hidden: int) -> Iterator[Product]:
        """Yield the weight matrices."""
        for product in _PRODUCTS[self.kind](self, hidden):
            yield product._replace(recurrent=True)
        yield Product("out", hidden, self.values, into=False, recurrent=True)

    @property
    def kept(self) -> float:
        """Elements of a token that a backward pass wants: what enters convolution, core and output.

        States are kept once a chunk (fp32: twice the elements of 16 bits).
        """
        core = self.convolved or 2 * self.keys + self.values  # lightning convolves nothing
        inside = float(self.convolved + core + 2 * self.values)
        chunks = 2.0 * self.state / self.chunk if self.kind in MATRIX_KINDS else 0.0
        return inside + chunks


MATRIX_KINDS = ("gated_delta", "kda", "lightning", "mamba2")


def _delta(r: Recurrence, h: int) -> Iterator[Product]:
    yield Product("qkv", 2 * r.keys + 2 * r.values + 2 * r.heads, h)


def _kda(r: Recurrence, h: int) -> Iterator[Product]:
    if r.rank:
        yield Product("gate down", 2 * r.rank, h, whole=True)
        yield Product("gate up", 2 * r.values, r.rank, latent=True)
    gates = 0 if r.rank else 2 * r.values
    yield Product("qkv", 2 * r.keys + r.values + r.heads + gates, h)


def _lightning(r: Recurrence, h: int) -> Iterator[Product]:
    yield Product("qkv", 2 * r.keys + 2 * r.values, h)


def _mamba2(r: Recurrence, h: int) -> Iterator[Product]:
    yield Product("qkv", 2 * r.values + 2 * r.keys + r.heads, h)


def _mamba1(r: Recurrence, h: int) -> Iterator[Product]:
    yield Product("qkv", 2 * r.values, h)
    yield Product("step down", r.rank + 2 * r.key_dim, r.values, latent=True)
    yield Product("step up", r.values, r.rank, latent=True)


def _rg_lru(r: Recurrence, h: int) -> Iterator[Product]:
    yield Product("qkv", 2 * r.values, h)
    blocks = max(r.key_heads, 1)
    yield Product("gates", 2 * r.values, r.values // blocks, latent=True)


def _conv(r: Recurrence, h: int) -> Iterator[Product]:
    yield Product("qkv", 3 * r.values, h)


_PRODUCTS: Mapping[str, Callable[[Recurrence, int], Iterator[Product]]] = {
    "gated_delta": _delta, "kda": _kda, "lightning": _lightning, "mamba2": _mamba2,
    "mamba1": _mamba1, "rg_lru": _rg_lru, "conv": _conv,
}  # fmt: skip
_CONVOLVED: Mapping[str, Callable[[Recurrence], int]] = {
    "gated_delta": lambda r: 2 * r.keys + r.values,
    "kda": lambda r: 2 * r.keys + r.values,
    "lightning": lambda r: 0,
    "mamba2": lambda r: r.values + 2 * r.keys,
    "mamba1": lambda r: r.values,
    "rg_lru": lambda r: r.values,
    "conv": lambda r: r.values,
}
_MORE: Mapping[str, Callable[[Recurrence], int]] = {
    "gated_delta": lambda r: r.conv * r.convolved + 2 * r.heads,
    "kda": lambda r: r.conv * r.convolved + r.heads + r.values,
    "lightning": lambda r: r.values,
    "mamba2": lambda r: (r.conv + 1) * r.convolved + 3 * r.heads + r.values,
    "mamba1": lambda r: r.values * (r.key_dim + r.conv + 3),
    "rg_lru": lambda r: 8 * r.values,
    "conv": lambda r: r.conv * r.values,
}
RECURRENCES = tuple(_PRODUCTS)
