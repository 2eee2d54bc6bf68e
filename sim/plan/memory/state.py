"""Weights, gradients and optimiser state of a rank, and what ZeRO holds whole for a moment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.catalog.stack import Stack
from ersatz.sim.plan.layout import Chunk, chunk_params, weight_spread
from ersatz.sim.scenario.scenario import Parallel, Scenario
from ersatz.sim.workload.adapters import trained_share
from ersatz.sim.workload.layer import Layer

MASTER_BYTES = 4.0  # of a weight that ZeRO 3 keeps in fp32 alone


@dataclass(frozen=True, slots=True)
class Held:
    """Weights of a rank, dense and of experts, before any sharding."""

    dense: float
    expert: float
    parallel: Parallel

    def of(self, bytes_each: float, *, sharded: bool) -> float:
        """Bytes of `bytes_each` per weight, whole or this rank's shard."""
        ways = [spread.shard if sharded else 1 for spread in weight_spread(self.parallel)]
        return bytes_each * (self.dense / ways[0] + self.expert / ways[1])

    def spread(self, bytes_each: float) -> float:
        """Bytes of whole copies of those weights that are spread over more than one rank."""
        dense, expert = weight_spread(self.parallel)
        return bytes_each * (self.dense * (dense.shard > 1) + self.expert * (expert.shard > 1))


def held_of(scenario: Scenario, chunks: Sequence[Chunk]) -> Held:
    """Return the weights of some chunks on one rank."""
    found = [chunk_params(scenario.model, chunk, scenario.parallel) for chunk in chunks]
    return Held(math.fsum(d for d, _ in found), math.fsum(e for _, e in found), scenario.parallel)


def gradient_bytes(scenario: Scenario, stack: Stack) -> float:
    """Bytes of accumulated gradients per weight."""
    return DTYPE_BYTES[stack.gradient_dtype] * trained_share(scenario.model)


def gradients_kept(scenario: Scenario, stack: Stack, held: Held) -> float:
    """Bytes of a rank's sum of gradients, and of copies beside it.

    The sum of what the host updates is the host's where a framework takes it there as it arrives.
    """
    zero = scenario.parallel.zero
    away = stack.gradients_follow and zero >= 2 and not stack.updates_on_device
    summed = held.of(gradient_bytes(scenario, stack), sharded=zero >= 2)
    copies = held.of(stack.gradient_copy_bytes * trained_share(scenario.model), sharded=False)
    return summed * (1 - stack.optimizer_offload * away) + copies


def standing_bucket(scenario: Scenario, stack: Stack) -> float:
    """Bytes of the bucket in which gradients are sent, where it stands all the time."""
    stands = stack.bucket_stands and scenario.parallel.zero > 0
    return _whole_bytes(scenario) * stack.bucket_params if stands else 0.0


def weights_kept(scenario: Scenario, stack: Stack, chunks: Sequence[Chunk]) -> float:
    """Bytes of the weights that stay: in 16 bits, or fp32 shards from which they are gathered.

    Tables (embedding, head) are never frozen in fewer than 16 bits.
    """
    each, sharded = kept_bytes(scenario, stack), scenario.parallel.zero == 3
    found = held_of(scenario, chunks).of(each, sharded=sharded)
    lacking = _whole_bytes(scenario) - each
    if scenario.model.lora_rank and lacking > 0:
        tables = [replace(chunk, runs=(), predict=0) for chunk in chunks]
        found += held_of(scenario, tables).of(lacking, sharded=sharded)
    return (1 - stack.weights_offload) * found


def kept_bytes(scenario: Scenario, stack: Stack) -> float:
    """Bytes of a weight as it is kept: in 16 bits, as the master copy, or as LoRA's frozen ones."""
    if scenario.model.lora_rank:
        return frozen_bytes(scenario, stack)
    parallel = scenario.parallel
    sharded = parallel.zero == 3 and weight_spread(parallel)[0].shard > 1
    return MASTER_BYTES if sharded and stack.master_is_weight else _whole_bytes(scenario)


def frozen_bytes(scenario: Scenario, stack: Stack) -> float:
    """Bytes of a weight that LoRA does not train."""
    if stack.frozen_weight_bytes:
        return stack.frozen_weight_bytes
    narrow = stack.narrow_frozen_weights and DTYPE_BYTES[scenario.training.precision] <= 1
    return 1.0 if narrow else _whole_bytes(scenario)


def state_kept(scenario: Scenario, stack: Stack, held: Held) -> float:
    """Bytes of master copy and moments, less what the host keeps."""
    parallel = scenario.parallel
    each = stack.optimizer_state_bytes
    sharded = parallel.zero == 3 and weight_spread(parallel)[0].shard > 1
    if sharded and stack.master_is_weight and not scenario.model.lora_rank:
        each -= MASTER_BYTES
    each *= trained_share(scenario.model) * (1 - stack.optimizer_offload)
    return held.of(each, sharded=parallel.zero >= 1)


def update_bytes(scenario: Scenario, stack: Stack, held: Held) -> float:
    """Bytes that the optimiser's step makes for a moment."""
    each = stack.update_bytes * trained_share(scenario.model) * (1 - stack.optimizer_offload)
    whole = held.of(each, sharded=scenario.parallel.zero >= 1)
    return min(whole, each * stack.update_params) if stack.update_params else whole


def fresh_bytes(scenario: Scenario, stack: Stack, chunk: Chunk) -> float:
    """A backward pass's own gradients, where they stand beside the sum until its end.

    Where ZeRO 2 and 3 spread gradients they leave layer by layer; those of one stand beside sums that
    a pipeline keeps whole.
    """
    parallel, held = scenario.parallel, held_of(scenario, [chunk])
    if sums_step(parallel, stack):
        return max(_units(scenario, stack, chunk, fresh_unit_bytes(scenario)), default=0.0)
    spread = max(part.shard for part in weight_spread(parallel)) > 1
    each = 0.0 if parallel.zero >= 2 and spread else stack.fresh_gradient_bytes
    return held.of(each * trained_share(scenario.model), sharded=False)


def whole_gradients(scenario: Scenario, stack: Stack, chunk: Chunk) -> float:
    """Gradients that ZeRO 2 and 3 hold whole until they are scattered, while a chunk works.

    Those of a layer or a bucket; of the chunk where several of its micro-batches are summed first.
    """
    parallel, each = scenario.parallel, gradient_bytes(scenario, stack)
    if stack.live_params:  # DeepSpeed sends them as autograd makes them, and sums what arrives
        each = min(each, fresh_unit_bytes(scenario))
    if parallel.zero < 2:
        return 0.0
    sums = sums_runs(parallel, stack)
    if stack.scatters_copies and not sums:  # of the layer before, beside those of the layer in work
        each += fresh_unit_bytes(scenario)
    largest = held_of(scenario, [chunk]).spread(each)
    if sums:
        return largest
    bucket = stack.bucket_params * each if largest and not stack.bucket_stands else 0.0
    return min(max(bucket, *_units(scenario, stack, chunk, each)), largest)


def fresh_unit_bytes(scenario: Scenario) -> float:
    """Bytes per weight of the gradients that autograd makes, until they join a sum."""
    return _whole_bytes(scenario) * trained_share(scenario.model)


def sums_runs(parallel: Parallel, stack: Stack) -> bool:
    """Tell whether gradients of a run of micro-batches are summed whole before they are scattered."""
    return sums_step(parallel, stack) or (parallel.zero == 2 and stack.zero2_reduce == "run")


def sums_step(parallel: Parallel, stack: Stack) -> bool:
    """Tell whether a pipeline sums a chunk's gradients whole until its last micro-batch is done.

    PyTorch's does so with ZeRO 3, too: between micro-batches nothing is scattered.
    """
    return parallel.zero >= 2 and parallel.pp > 1 and stack.zero2_reduce == "step"


def reshards_at_end(parallel: Parallel, stack: Stack) -> bool:
    """Tell whether whole weights, gathered from fp32 shards, go with the gradients of a pipeline."""
    return parallel.zero == 2 and sums_step(parallel, stack) and stack.master_is_weight


def parts_of(scenario: Scenario, chunk: Chunk) -> list[Held]:
    """Weights of each kind of part of a chunk, in the order of the model; two of a kind at most."""
    none = replace(chunk, runs=(), predict=0, embedding=False, head=False)

    def held(**only: object) -> Held:
        return held_of(scenario, [replace(none, **only)])  # type: ignore[arg-type]

    layers = {kind: held(runs=((kind, 1),)) for kind, _ in chunk.runs}
    found = [held(embedding=True)] * chunk.embedding
    for kind, count in chunk.runs:
        found += [layers[kind]] * min(count, 2)
    found += [held(predict=1)] * min(chunk.predict, 2)
    found += [held(head=True)] * chunk.head
    return found or [Held(0.0, 0.0, scenario.parallel)]


def _units(scenario: Scenario, stack: Stack, chunk: Chunk, each: float) -> list[float]:
    """Bytes of what is gathered and scattered at once: parts of a chunk, or single matrices of them."""
    parts = parts_of(scenario, chunk)
    if not stack.live_params:
        return [part.spread(each) for part in parts]
    model, tp = scenario.model, scenario.parallel.tp
    matrices = [max(_largest_matrix(kind) for kind, _ in chunk.runs) / tp] if chunk.runs else []
    table = model.hidden * model.vocab / tp
    ends = [table] * chunk.embedding, [table] * chunk.head
    sizes = [*ends[0], *matrices, *ends[1]] or [0.0]
    return [Held(size, 0.0, scenario.parallel).spread(each) for size in sizes]


def _largest_matrix(kind: Layer) -> int:
    """Weights of the largest single matrix of a layer, whole."""
    e, widths = kind.experts, [kind.ffn_hidden, kind.heads * kind.head_dim]
    widths += [e.hidden, e.shared_inner] if e else []
    recurrent = kind.recurrence.products(kind.hidden) if kind.recurrence else ()
    return max(kind.hidden * max(widths), *(product.n * product.k for product in recurrent), 0)


def gathered_weights(scenario: Scenario, stack: Stack, chunk: Chunk) -> float:
    """Whole weights that ZeRO 3 holds at once: two parts, the one in use and the one ahead.

    A framework may keep more alive, up to a number of weights, and does not reshard the root's. A
    pipeline that sums whole gradients leaves a chunk's weights whole after a backward pass.
    """
    if scenario.parallel.zero < 3:
        return 0.0
    each = _whole_bytes(scenario)
    if sums_step(scenario.parallel, stack):
        return held_of(scenario, [chunk]).spread(each)
    parts = _units(scenario, stack, chunk, each)
    ahead = max(a + b for a, b in pairwise([0.0, *parts]))
    whole = held_of(scenario, [chunk]).spread(each)
    if not stack.regather_embedding and chunk.embedding and not chunk.head:
        ahead += parts[0]
    elif not stack.regather_embedding and chunk.embedding:
        ahead = max(ahead, parts[0] + parts[-1] + max(parts[1:-1], default=0.0))
    return min(max(ahead, min(stack.live_params * each, whole)), whole)


def _whole_bytes(scenario: Scenario) -> float:
    return max(DTYPE_BYTES[scenario.training.precision], 2.0)
