"""What the layers of a chunk leave in memory between their passes, and need while they work.

Bytes are those of the fused minimum (each matrix product's input, the attention's inputs and output),
times the stack's `activation_memory`. A kind of layer (`ersatz.sim.workload.layer`) is data: what it has
of attention, recurrence, MLP and experts adds up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.catalog.stack import Stack, words_of
from ersatz.sim.plan.layout import Chunk, held_runs
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario
from ersatz.sim.workload.adapters import targets_of
from ersatz.sim.workload.layer import Layer
from ersatz.sim.workload.model import Model

SAVED_LOGIT_BYTES = (
    6.0  # of a logit between the passes: its probability in fp32, and itself in 16 bits
)


class LossBytes(NamedTuple):
    """Bytes of the loss of one micro-batch on one rank."""

    kept: float  # from the forward to the backward pass
    working: float  # more while its backward pass runs: what it computes again, and its gradients


class Working(NamedTuple):
    """Bytes of one layer at work on one rank, beyond what it has kept."""

    dropped: float  # what it computes again
    gradients: float


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a micro-batch that one rank holds, and in which formats."""

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
        size = self.scenario.training.operand_bytes
        return size if self.stack.narrow_saved else max(size, 2.0)

    def boundary(self, kind: Layer) -> float:
        """Bytes of the residual streams between two layers."""
        parallel = self.scenario.parallel
        spread = parallel.tp if parallel.sequence_parallel else 1
        return self.wide * self.tokens * kind.hidden * kind.streams / spread


def layer_kept(scenario: Scenario, pool: Pool, kind: Layer, *, again: bool) -> float:
    """Bytes that one micro-batch leaves in a layer, which may be computed `again`."""
    return _kept(scenario, pool, kind, scenario.parallel.recompute if again else "none")


def chunk_kept(scenario: Scenario, pool: Pool, chunk: Chunk) -> float:
    """Bytes that one micro-batch leaves in a chunk's layers until its backward pass.

    What the host takes is there only while the layer, or the one after it, is in use.
    """
    counts: Counter[tuple[Layer, str]] = Counter()
    for kind, count, again in _dealt(scenario, chunk):
        counts[kind, scenario.parallel.recompute] += again
        counts[kind, "none"] += count - again
    here = 1.0 - pool.stack.activation_offload
    return here * math.fsum(
        count * _kept(scenario, pool, kind, mode) for (kind, mode), count in counts.items() if count
    )


def chunk_working(scenario: Scenario, pool: Pool, chunk: Chunk) -> float:
    """Bytes that the layer in work needs beyond what is kept (a group of layers, if these are grouped).

    A group holds all that its layers have dropped, and the gradients of the one in work.
    """
    runs = list(_dealt(scenario, chunk))
    if not runs:
        return 0.0
    found = {kind: _working(scenario, pool, kind) for kind, _, _ in runs}
    plain = [found[kind].gradients for kind, count, again in runs if count > again]
    table = np.array([found[kind] for kind, _, _ in runs])
    dropped, gradients = np.repeat(table, [again for _, _, again in runs], axis=0).T
    starts = np.arange(0, dropped.size, max(scenario.parallel.recompute_group, 1))
    groups = np.add.reduceat(dropped, starts) + np.maximum.reduceat(gradients, starts)
    return max([*plain, float(groups.max())]) + _brought_back(scenario, pool, runs)


def _brought_back(scenario: Scenario, pool: Pool, runs: Sequence[tuple[Layer, int, int]]) -> float:
    """Bytes that the host has given back: of the layer in work and of the one that follows it."""
    share = pool.stack.activation_offload
    if not share:
        return 0.0
    kept = [layer_kept(scenario, pool, kind, again=again > 0) for kind, _, again in runs]
    return 2 * share * max(kept)


def _working(scenario: Scenario, pool: Pool, kind: Layer) -> Working:
    whole = _kept(scenario, pool, kind, "none")
    dropped = whole - _kept(scenario, pool, kind, scenario.parallel.recompute)
    return Working(dropped, _gradients(scenario, pool, kind))


def loss_bytes(scenario: Scenario, stack: Stack) -> LossBytes:
    """Return what the head keeps of its logits, and needs more while the loss goes back."""
    rows = Rows(scenario, stack, ())
    tp, model = scenario.parallel.tp, scenario.model
    logits = rows.tokens * model.vocab / tp / max(stack.loss_chunks, 1.0)
    each = stack.loss_memory_bytes + (stack.loss_parallel_bytes if tp > 1 else 0.0)
    kept = min(SAVED_LOGIT_BYTES, each)
    sliced = scenario.parallel.sequence_parallel and not stack.keeps_gathered_inputs
    inputs = rows.wide * rows.tokens * model.hidden / (tp if sliced else 1)
    return LossBytes(kept * logits + inputs, (each - kept) * logits)


def message_bytes(scenario: Scenario, pool: Pool, chunk: Chunk) -> float:
    """Bytes of buffers that torch.distributed.pipelining holds all through a step for one chunk.

    It makes one for each micro-batch that comes in, forward and backward, and may keep all results of
    the last stage until the step's end. The inputs of micro-batches in flight lie in their buffers,
    and the results of these are kept: one for the other.
    """
    if not pool.stack.pipeline_buffers or scenario.parallel.pp == 1 or not chunk.runs:
        return 0.0
    count, rows = _micro_batches(scenario), Rows(scenario, pool.stack, ())
    ways = (not chunk.embedding) + (not chunk.head)
    results = (count - 1) * _result(rows) if _keeps_results(rows, chunk) else 0.0
    return ways * count * rows.boundary(chunk.runs[0][0]) + results


def joined_bytes(scenario: Scenario, pool: Pool, chunk: Chunk) -> float:
    """Bytes of the one tensor into which the last stage joins the results of all micro-batches."""
    rows = Rows(scenario, pool.stack, ())
    return _micro_batches(scenario) * _result(rows) if _keeps_results(rows, chunk) else 0.0


def _keeps_results(rows: Rows, chunk: Chunk) -> bool:
    return chunk.head > 0 and rows.stack.keeps_results and rows.scenario.parallel.pp > 1


def _micro_batches(scenario: Scenario) -> int:
    training = scenario.training
    return training.global_batch // (training.micro_batch * scenario.parallel.dp)


def _result(rows: Rows) -> float:
    """Bytes of one micro-batch's logits as the last stage keeps them."""
    scenario = rows.scenario
    return rows.wide * rows.tokens * scenario.model.vocab / scenario.parallel.tp


def repeated_modules(parallel: Parallel, stack: Stack) -> tuple[str, ...]:
    """Return what selective recomputation repeats: the layout's list, or the stack's."""
    return parallel.recompute_modules or words_of(stack.selective_recompute)


def _dealt(scenario: Scenario, chunk: Chunk) -> Iterator[tuple[Layer, int, int]]:
    """Yield kind, layers, and how many of these are computed again: the first of the chunk."""
    left = scenario.parallel.recompute_layers or chunk.layers + chunk.predict
    for kind, count in held_runs(scenario.model, chunk):
        again = min(left, count)
        left -= again
        yield kind, count, again


def _kept(scenario: Scenario, pool: Pool, kind: Layer, mode: str) -> float:
    """Bytes that one layer keeps for its backward pass on one rank."""
    parallel, stack = scenario.parallel, pool.stack
    again = repeated_modules(parallel, stack) if mode == "selective" else ()
    rows = Rows(scenario, stack, again)
    if mode == "full":
        return rows.boundary(kind) / max(parallel.recompute_group, 1)
    wide, operands = _elements(rows, kind)
    kept = kind.blocks * rows.boundary(kind) + rows.tokens * (
        rows.wide * wide + rows.operand * operands
    )
    return (kept + _scores(rows, kind)) * stack.activation_memory


def _gradients(scenario: Scenario, pool: Pool, kind: Layer) -> float:
    """Gradients in flight inside a layer: of the residual stream, and of what its widest part keeps."""
    rows = Rows(scenario, pool.stack, ())
    widest = sum(_elements(rows, kind))
    return rows.boundary(kind) + rows.wide * rows.tokens * widest / 2


def _scores(rows: Rows, kind: Layer) -> float:
    """Bytes of the score matrix with its mask, where attention is not fused (Korthikanti et al.)."""
    span = rows.scenario.training.sequence_length
    if (rows.stack.flash_attention and kind.fused_attention) or "core_attn" in rows.again:
        return 0.0
    return 5.0 * rows.tokens * span * kind.heads / rows.scenario.parallel.tp


def _elements(rows: Rows, kind: Layer) -> tuple[float, float]:
    """Elements kept per token beside the residual stream: in 16 bits, and as operands."""
    results, operands = (_expert_elements if kind.experts else _mlp_elements)(rows, kind)
    wide, narrow = (0.0, results) if rows.stack.narrow_results else (results, 0.0)
    mixer = (
        _attention_elements(rows, kind) + _recurrent_elements(kind)
    ) / rows.scenario.parallel.tp
    return mixer + wide, _input_elements(rows, kind) + narrow + operands


def _input_elements(rows: Rows, kind: Layer) -> float:
    """What enters the first products of attention and MLP: this rank's rows, or gathered ones."""
    if "layernorm" in rows.again:
        return 0.0
    parallel, model = rows.scenario.parallel, rows.scenario.model
    sliced = parallel.sequence_parallel and not rows.stack.keeps_gathered_inputs
    blocks = kind.has_mixer * _read(model, "q", "k", "v") + kind.has_mlp * _read(
        model, "gate", "up"
    )
    return float(blocks) * kind.hidden / (parallel.tp if sliced else 1)


def _read(model: Model, *modules: str) -> bool:
    """Tell whether a weight gradient, or one of an adapter, reads the input of one of some products."""
    return not model.lora_rank or not set(targets_of(model)).isdisjoint(modules)


def _first_results(rows: Rows, kind: Layer, *, halved: bool) -> float:
    """Results of an MLP's first products that it keeps, in sizes of its inner layer."""
    gated = kind.gated
    return (2 if gated else 1) - (halved and gated and "every_second_product" in rows.again)


def _activated(rows: Rows) -> float:
    """Results of its activation that an MLP keeps: what its last product reads."""
    kept = "activation" not in rows.again and _read(rows.scenario.model, "down")
    return 1.0 if kept else 0.0


def _mlp_elements(rows: Rows, kind: Layer) -> tuple[float, float]:
    """What a dense MLP keeps in 16 bits and as operands: first results, activation; 0 without one."""
    if "mlp" in rows.again:
        return 0.0, 0.0
    inner = kind.ffn_hidden / rows.scenario.parallel.tp
    return _first_results(rows, kind, halved=True) * inner, _activated(rows) * inner


def _expert_elements(rows: Rows, kind: Layer) -> tuple[float, float]:
    """What experts keep in 16 bits and as operands: ordered tokens, first results, activations.

    Tokens are ordered in the latent where experts have one; those that pass a token on keep nothing.
    """
    experts, parallel = kind.experts, rows.scenario.parallel
    assert experts is not None
    shared = experts.shared_inner / parallel.tp
    wide, operands = _first_results(rows, kind, halved=True) * shared, _activated(rows) * shared
    if "experts" in rows.again:
        return wide, operands
    routed = experts.visited * rows.stack.expert_imbalance * parallel.etp / parallel.tp
    ordered = 0.0 if "permute" in rows.again else experts.latent or kind.hidden
    inner = experts.hidden / parallel.etp
    return (wide + routed * _first_results(rows, kind, halved=False) * inner,
            operands + routed * (ordered + _activated(rows) * inner))  # fmt: skip


def _attention_elements(rows: Rows, kind: Layer) -> float:
    """Elements of queries, keys, values, gate and output per token, all heads; 0 without attention."""
    if not kind.heads:
        return 0.0
    if not kind.latent:
        keys = kind.kv_heads * (kind.head_dim + (0 if kind.keys_are_values else kind.v_dim))
        ranks = kind.compressed.q_rank if kind.compressed else 0
        kept = kind.heads * (kind.head_dim + kind.v_dim) + kind.gate_width + float(keys) + ranks
        second = kind.kv_heads * kind.head_dim if "every_second_product" in rows.again else 0.0
        return kept - second
    m = kind.latent
    small = float(m.down + kind.heads * m.v_dim + kind.gate_width)
    if "mla_up_proj" in rows.again:
        return small
    return small + kind.heads * (2.0 * (m.nope_dim + m.rope_dim) + m.v_dim)


def _recurrent_elements(kind: Layer) -> float:
    """Elements per token that a recurrence keeps, all heads."""
    return kind.recurrence.kept if kind.recurrence else 0.0
