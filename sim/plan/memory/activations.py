"""What the layers of a chunk leave in memory between their passes, and need while they work.

Bytes are those of the fused minimum (each matrix product's input, the attention's inputs and output),
times the stack's `activation_memory`. `LAYERS` has one row per kind of layer: a new kind is a new row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.catalog.stack import Stack, words_of
from ersatz.sim.plan.layout import Chunk
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario

SAVED_LOGIT_BYTES = (
    6.0  # of a logit between the passes: its probability in fp32, and itself in 16 bits
)


class LayerBytes(NamedTuple):
    """Bytes of one layer and micro-batch on one rank."""

    kept: float  # from the forward to the backward pass
    working: float  # more while its backward pass runs: what it computes again, and its gradients


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a micro-batch that one rank holds of a layer, and in which formats."""

    scenario: Scenario
    stack: Stack
    again: tuple[str, ...]  # modules that are computed again

    @property
    def tokens(self) -> float:
        """Tokens of a micro-batch on one context-parallel rank."""
        training = self.scenario.training
        return training.micro_batch * training.sequence_length / self.scenario.parallel.cp

    @property
    def wide(self) -> float:
        """Bytes of what is never in 8 bits."""
        return max(DTYPE_BYTES[self.scenario.training.precision], 2.0)

    @property
    def operand(self) -> float:
        """Bytes of a matrix product's input as it is kept for the weight gradient."""
        size = DTYPE_BYTES[self.scenario.training.precision]
        return size if self.stack.narrow_saved else max(size, 2.0)

    @property
    def boundary(self) -> float:
        """Bytes of the residual stream between two layers."""
        parallel = self.scenario.parallel
        spread = parallel.tp if parallel.sequence_parallel else 1
        return self.wide * self.tokens * self.scenario.model.hidden / spread


def chunk_kept(scenario: Scenario, pool: Pool, chunk: Chunk) -> float:
    """Bytes that one micro-batch leaves in a chunk's layers until its backward pass."""
    return math.fsum(
        recomputed * _kept(scenario, pool, kind, scenario.parallel.recompute)
        + (count - recomputed) * _kept(scenario, pool, kind, "none")
        for kind, count, recomputed in _dealt(scenario, chunk)
    )


def chunk_working(scenario: Scenario, pool: Pool, chunk: Chunk) -> float:
    """Bytes that the layer in work needs beyond what is kept (a group of layers, if these are grouped)."""
    mode, group = scenario.parallel.recompute, max(scenario.parallel.recompute_group, 1)
    found = []
    for kind, _, recomputed in _dealt(scenario, chunk):
        whole = _kept(scenario, pool, kind, "none")
        dropped = whole - _kept(scenario, pool, kind, mode) if recomputed else 0.0
        together = min(group, recomputed) if recomputed else 1
        found.append(together * dropped + _gradients(scenario, pool, kind))
    return max(found, default=0.0)


def layer_bytes(scenario: Scenario, pool: Pool, kind: str) -> LayerBytes:
    """Return what one layer of a kind (a key of `LAYERS`) keeps and needs in work."""
    kept = _kept(scenario, pool, kind, scenario.parallel.recompute)
    dropped = _kept(scenario, pool, kind, "none") - kept
    return LayerBytes(kept, dropped + _gradients(scenario, pool, kind))


def loss_bytes(scenario: Scenario, stack: Stack) -> LayerBytes:
    """Return what the head keeps of its logits, and needs more while the loss goes back."""
    rows = Rows(scenario, stack, ())
    tp, model = scenario.parallel.tp, scenario.model
    logits = rows.tokens * model.vocab / tp / max(stack.loss_chunks, 1.0)
    each = stack.loss_memory_bytes + (stack.loss_parallel_bytes if tp > 1 else 0.0)
    kept = min(SAVED_LOGIT_BYTES, each)
    sliced = scenario.parallel.sequence_parallel and not stack.keeps_gathered_inputs
    inputs = rows.wide * rows.tokens * model.hidden / (tp if sliced else 1)
    return LayerBytes(kept * logits + inputs, (each - kept) * logits)


def repeated_modules(parallel: Parallel, stack: Stack) -> tuple[str, ...]:
    """Return what selective recomputation repeats: the layout's list, or the stack's."""
    return parallel.recompute_modules or words_of(stack.selective_recompute)


def layer_kinds(scenario: Scenario, chunk: Chunk) -> list[tuple[str, int]]:
    """Kinds of the layers of a chunk (keys of `LAYERS`), and how many there are of each."""
    experts = "moe" if scenario.model.experts else "dense"
    kinds = [("dense", chunk.dense), (experts, chunk.moe + chunk.predict)]
    return [(kind, count) for kind, count in kinds if count]


def _dealt(scenario: Scenario, chunk: Chunk) -> Iterator[tuple[str, int, int]]:
    """Yield kind, layers, and how many of these are computed again: the first of the chunk."""
    left = scenario.parallel.recompute_layers or chunk.layers + chunk.predict
    for kind, count in layer_kinds(scenario, chunk):
        again = min(left, count)
        left -= again
        yield kind, count, again


def _kept(scenario: Scenario, pool: Pool, kind: str, mode: str) -> float:
    """Bytes that one layer keeps for its backward pass on one rank."""
    parallel, stack = scenario.parallel, pool.stack
    again = repeated_modules(parallel, stack) if mode == "selective" else ()
    rows = Rows(scenario, stack, again)
    if mode == "full":
        return rows.boundary / max(parallel.recompute_group, 1)
    wide, operands = LAYERS[kind](rows)
    kept = 2 * rows.boundary + rows.tokens * (rows.wide * wide + rows.operand * operands)
    return (kept + _scores(rows)) * stack.activation_memory


def _gradients(scenario: Scenario, pool: Pool, kind: str) -> float:
    """Gradients in flight inside a layer: of the residual stream, and of what its widest part keeps."""
    rows = Rows(scenario, pool.stack, ())
    widest = sum(LAYERS[kind](rows))
    return rows.boundary + rows.wide * rows.tokens * widest / 2


def _scores(rows: Rows) -> float:
    """Bytes of the score matrix with its mask, where attention is not fused (Korthikanti et al.)."""
    model, span = rows.scenario.model, rows.scenario.training.sequence_length
    if (rows.stack.flash_attention and model.fused_attention) or "core_attn" in rows.again:
        return 0.0
    return 5.0 * rows.tokens * span * model.heads / rows.scenario.parallel.tp


def _dense_layer(rows: Rows) -> tuple[float, float]:
    model, parallel = rows.scenario.model, rows.scenario.parallel
    results = activation = 0.0
    if "mlp" not in rows.again:
        results = _first_results(rows, halved=True) * model.ffn_hidden / parallel.tp
        activation = _activated(rows) * model.ffn_hidden / parallel.tp
    return _sorted(rows, results, activation)


def _expert_layer(rows: Rows) -> tuple[float, float]:
    return _sorted(rows, *_expert_elements(rows))


def _sorted(rows: Rows, results: float, operands: float) -> tuple[float, float]:
    """Add attention and inputs to an MLP's first results and operands: in 16 bits, and as operands."""
    wide, narrow = (0.0, results) if rows.stack.narrow_results else (results, 0.0)
    return _attention_elements(rows) + wide, _input_elements(rows) + narrow + operands


# Per kind of layer: elements kept per token beside the residual stream, in 16 bits and as operands.
LAYERS: Mapping[str, Callable[[Rows], tuple[float, float]]] = {
    "dense": _dense_layer,
    "moe": _expert_layer,
}


def _input_elements(rows: Rows) -> float:
    """What enters the first products of attention and MLP: this rank's rows, or gathered ones."""
    if "layernorm" in rows.again:
        return 0.0
    parallel = rows.scenario.parallel
    sliced = parallel.sequence_parallel and not rows.stack.keeps_gathered_inputs
    return 2.0 * rows.scenario.model.hidden / (parallel.tp if sliced else 1)


def _first_results(rows: Rows, *, halved: bool) -> float:
    """Results of an MLP's first products that it keeps, in sizes of its inner layer."""
    gated = rows.scenario.model.gated
    return (2 if gated else 1) - (halved and gated and "every_second_product" in rows.again)


def _activated(rows: Rows) -> float:
    """Results of its activation that an MLP keeps: what its last product reads."""
    return 0.0 if "activation" in rows.again else 1.0


def _expert_elements(rows: Rows) -> tuple[float, float]:
    """What experts keep in 16 bits and as operands: ordered tokens, first results, activations."""
    model, parallel = rows.scenario.model, rows.scenario.parallel
    experts = model.experts
    assert experts is not None
    shared = experts.shared * experts.hidden / parallel.tp
    wide, operands = _first_results(rows, halved=True) * shared, _activated(rows) * shared
    if "experts" in rows.again:
        return wide, operands
    routed = experts.top_k * rows.stack.expert_imbalance * parallel.etp / parallel.tp
    ordered = 0.0 if "permute" in rows.again else model.hidden
    inner = experts.hidden / parallel.etp
    return (wide + routed * _first_results(rows, halved=False) * inner,
            operands + routed * (ordered + _activated(rows) * inner))  # fmt: skip


def _attention_elements(rows: Rows) -> float:
    """Elements of queries, keys, values and output per token, of this rank's heads."""
    model, tp = rows.scenario.model, rows.scenario.parallel.tp
    if not model.latent:
        keys = model.kv_heads * model.head_dim
        every = model.head_dim * (2.0 * model.heads + 2 * model.kv_heads)
        return (every - (keys if "every_second_product" in rows.again else 0.0)) / tp
    m = model.latent
    small = m.q_rank + m.kv_rank + m.rope_dim + model.heads * m.v_dim
    if "mla_up_proj" in rows.again:
        return small / tp
    return (small + model.heads * (2.0 * (m.nope_dim + m.rope_dim) + m.v_dim)) / tp
