"""Peak memory of every stage under its schedule, the verdict, and what would make a plan fit.

A rank holds weights, gradients (twice where their accumulation is not fused), optimiser state
(each divided over its shard group by ZeRO), the activations of the micro-batches in flight, the
logits of the last stage, gathered weights (ZeRO 3) and the software's own overhead. Activation
bytes are those of the fused minimum (each matrix product's input, the attention's inputs and
output) times the stack's `activation_memory`.

Not modelled: the allocator's history, and temporary peaks inside a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.catalog.stack import Stack, words_of
from ersatz.device_models.kernels.kernel import kernel_constants
from ersatz.sim.plan.layout import (
    Chunk,
    chunk_params,
    rank_shape,
    split_layers,
    weight_spread,
)
from ersatz.sim.plan.schedules import Schedule, make_schedule
from ersatz.sim.records import MemoryResult
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario
from ersatz.sim.workload.layer import Layer


def plan_memory(scenario: Scenario, *, advise: bool = True) -> MemoryResult:
    """Return the peak of each stage and the verdict on the fullest rank."""
    stages = [_stage_parts(scenario, pool, stage) for stage, pool in _stages(scenario)]
    pools = [pool for _, pool in _stages(scenario)]
    peaks = [math.fsum(parts.values()) for parts in stages]
    spare = [pool.node.device.memory_bytes - peak for pool, peak in zip(pools, peaks, strict=True)]
    worst = min(range(len(spare)), key=spare.__getitem__)
    fits = spare[worst] >= 0
    return MemoryResult(
        peak_bytes=peaks[worst],
        capacity_bytes=pools[worst].node.device.memory_bytes,
        fits=fits,
        stage=worst % scenario.parallel.pp,
        parts=stages[worst],
        by_stage=tuple(peaks),
        advice=() if fits or not advise else tuple(_advice(scenario)),
    )


def _stages(scenario: Scenario) -> Iterator[tuple[int, Pool]]:
    """Every (stage, pool) of the job: replicas on several pools repeat the stages."""
    parallel = scenario.parallel
    if parallel.stage_pools:
        by_name = {pool.name: pool for pool in scenario.pools}
        yield from ((s, by_name[name]) for s, name in enumerate(parallel.stage_pools))
        return
    for pool in scenario.pools:
        yield from ((stage, pool) for stage in range(parallel.pp))


def _schedule(scenario: Scenario) -> Schedule:
    parallel, training = scenario.parallel, scenario.training
    microbatches = training.global_batch // (training.micro_batch * parallel.dp)
    return make_schedule(
        parallel.schedule, parallel.pp, microbatches, parallel.vp, parallel.custom_schedule
    )


def _stage_parts(scenario: Scenario, pool: Pool, stage: int) -> Mapping[str, float]:
    model, parallel, stack = scenario.model, scenario.parallel, pool.stack
    schedule = _schedule(scenario)
    chunks = split_layers(model, parallel)
    held = [chunks[place.position] for place in schedule.places[stage]]
    weights = [chunk_params(model, chunk, parallel) for chunk in held]
    held_bytes = _HeldBytes(
        math.fsum(d for d, _ in weights), math.fsum(e for _, e in weights), parallel
    )
    trained = kernel_constants().adapter_share if model.lora_rank else 1.0
    gradient = DTYPE_BYTES[stack.gradient_dtype] * trained
    flying = schedule.in_flight(stage)
    kept = math.fsum(n * _kept_bytes(scenario, pool, c) for n, c in zip(flying, held, strict=True))
    working = max(_working_bytes(scenario, pool, chunk) for chunk in held)
    parts = {
        "weights": held_bytes.of(weight_bytes(scenario, stack), parallel.zero == 3),
        "gradients": held_bytes.of(gradient, parallel.zero >= 2)
        + held_bytes.of(_fresh_gradient_bytes(stack, parallel) * trained, False),
        "whole gradients": _unsharded_gradient_bytes(scenario, stack, held, gradient),
        "optimizer": held_bytes.of(stack.optimizer_state_bytes * trained, parallel.zero >= 1),
        "activations": kept + working,
        "gathered weights": _gathered_bytes(scenario, held) if parallel.zero == 3 else 0.0,
        "overhead": stack.memory_overhead_bytes,
    }
    parts["fragmentation"] = stack.memory_fragmentation * (kept + working)
    return parts


@dataclass(frozen=True, slots=True)
class _HeldBytes:
    """The weights of a rank, and over how many ranks ZeRO divides what belongs to them."""

    dense: float
    expert: float
    parallel: Parallel

    def of(self, bytes_each: float, sharded: bool) -> float:
        """Bytes of `bytes_each` per weight, whole or this rank's shard."""
        ways = [spread.shard if sharded else 1 for spread in weight_spread(self.parallel)]
        return bytes_each * (self.dense / ways[0] + self.expert / ways[1])

    def gathered(self, bytes_each: float) -> float:
        """Bytes of whole copies of weights that are divided at all."""
        dense, expert = weight_spread(self.parallel)
        return bytes_each * (self.dense * (dense.shard > 1) + self.expert * (expert.shard > 1))


def weight_bytes(scenario: Scenario, stack: Stack) -> float:
    """Bytes of a weight as the products read it; frozen ones may be kept in 8 bits."""
    size = DTYPE_BYTES[scenario.training.precision]
    narrow = scenario.model.lora_rank and stack.narrow_frozen_weights
    return size if narrow else max(size, 2.0)


def _fresh_gradient_bytes(stack: Stack, parallel: Parallel) -> float:
    """Bytes per weight of a backward pass's own gradients, where they stand beside the fp32 sum.

    Some frameworks add them after the whole backward pass; where ZeRO 2 and 3 spread them they
    leave layer by layer.
    """
    spread = max(part.shard for part in weight_spread(parallel)) > 1
    return 0.0 if parallel.zero >= 2 and spread else stack.fresh_gradient_bytes


def _unsharded_gradient_bytes(
    scenario: Scenario, stack: Stack, held: list[Chunk], each: float
) -> float:
    """Whole gradients that ZeRO 2 and 3 hold beside the shards until they are reduced.

    Those of a layer or a bucket, or of a whole chunk where its run of micro-batches is summed first.
    """
    parallel = scenario.parallel
    if parallel.zero < 2:
        return 0.0
    whole = [_HeldBytes(*chunk_params(scenario.model, c, parallel), parallel) for c in held]
    largest = max(chunk.gathered(each) for chunk in whole)
    if parallel.zero == 2 and stack.zero2_reduce == "run":
        return largest
    units = [
        _HeldBytes(*unit, parallel).gathered(each) for c in held for unit in _units(scenario, c)
    ]
    bucket = stack.bucket_params * each if parallel.zero == 2 else 0.0
    return min(max(bucket, *units), largest)


def _units(scenario: Scenario, chunk: Chunk) -> list[tuple[float, float]]:
    """Dense and expert weights of each kind of part of a chunk, in the order of the model."""
    none = replace(chunk, runs=(), predict=0, embedding=False, head=False)
    kinds = [replace(none, embedding=True)] * chunk.embedding
    for kind, count in chunk.runs:
        kinds += [replace(none, runs=((kind, 1),))] * min(count, 2)
    kinds += [replace(none, predict=1)] * min(chunk.predict, 2)
    kinds += [replace(none, head=True)] * chunk.head
    return [chunk_params(scenario.model, kind, scenario.parallel) for kind in kinds] or [(0.0, 0.0)]


def _gathered_bytes(scenario: Scenario, held: list[Chunk]) -> float:
    """Two parts' whole weights: the one in use and the one gathered ahead."""
    parallel, largest = scenario.parallel, 0.0
    each = max(DTYPE_BYTES[scenario.training.precision], 2.0)
    for chunk in held:
        units = _units(scenario, chunk)
        whole = [_HeldBytes(*unit, parallel).gathered(each) for unit in units]
        largest = max(largest, *(a + b for a, b in pairwise([0.0, *whole])))
    return largest


def _kept_bytes(scenario: Scenario, pool: Pool, chunk: Chunk) -> float:
    """Activations that one micro-batch leaves in a chunk until its backward pass."""
    kept = math.fsum(
        count * _layer_bytes(scenario, pool, kind, mode=scenario.parallel.recompute)
        for kind, count in _layer_kinds(scenario, chunk)
    )
    if chunk.head:
        tokens = _tokens(scenario)
        each = kernel_constants().logit_memory_bytes
        logits = each * tokens * scenario.model.vocab / scenario.parallel.tp
        kept += logits * (1 + chunk.predict) * pool.stack.activation_memory
    return kept


def _layer_kinds(scenario: Scenario, chunk: Chunk) -> list[tuple[Layer, int]]:
    """Kinds of layer of a chunk and how many it has of each, prediction modules among them."""
    found: dict[Layer, int] = {}
    runs = (
        (*chunk.runs, (scenario.model.predict_layer, chunk.predict))
        if chunk.predict
        else chunk.runs
    )
    for kind, count in runs:
        found[kind] = found.get(kind, 0) + count
    return list(found.items())


def _working_bytes(scenario: Scenario, pool: Pool, chunk: Chunk) -> float:
    """What the layer in work needs beyond what is kept: all that it has dropped."""
    mode = scenario.parallel.recompute
    dropped = [
        _layer_bytes(scenario, pool, kind, mode="none")
        - _layer_bytes(scenario, pool, kind, mode=mode)
        for kind, _ in _layer_kinds(scenario, chunk)
    ]
    return max(dropped, default=0.0)


def _tokens(scenario: Scenario) -> float:
    training = scenario.training
    return training.micro_batch * training.sequence_length / scenario.parallel.cp


def _layer_bytes(scenario: Scenario, pool: Pool, kind: Layer, *, mode: str) -> float:
    """Bytes that one layer keeps for its backward pass on one rank."""
    parallel, stack = scenario.parallel, pool.stack
    spread = parallel.tp if parallel.sequence_parallel else 1
    tokens, tp = _tokens(scenario), parallel.tp
    wide = max(DTYPE_BYTES[scenario.training.precision], 2.0)  # of what is never in 8 bits
    boundary = wide * tokens * kind.hidden * kind.streams / spread
    if mode == "full":
        return boundary
    again = repeated_modules(parallel, stack) if mode == "selective" else ()
    operand = DTYPE_BYTES[scenario.training.precision]
    mixer = (_attention_elements(kind, again) + _recurrent_elements(kind)) / tp
    elements = _input_elements(kind, parallel, stack, again)
    if kind.has_mlp:
        mlp = _expert_elements if kind.experts else _mlp_elements
        elements += mlp(kind, parallel, stack, again)
    kept = kind.blocks * boundary + wide * tokens * mixer + operand * tokens * elements
    if (
        kind.heads
        and not (stack.flash_attention and kind.fused_attention)
        and "core_attn" not in again
    ):
        span = scenario.training.sequence_length
        kept += 5.0 * tokens * span * kind.heads / tp
    return kept * stack.activation_memory


def repeated_modules(parallel: Parallel, stack: Stack) -> tuple[str, ...]:
    """Return what selective recomputation repeats: the layout's list, or the stack's."""
    return parallel.recompute_modules or words_of(stack.selective_recompute)


def _input_elements(kind: Layer, parallel: Parallel, stack: Stack, again: tuple[str, ...]) -> float:
    """What enters the first products of attention and MLP: this rank's rows, or gathered ones."""
    if "layernorm" in again:
        return 0.0
    spread = parallel.tp if parallel.sequence_parallel and stack.regather_inputs else 1
    return float(kind.blocks) * kind.hidden / spread


def _mlp_elements(kind: Layer, parallel: Parallel, stack: Stack, again: tuple[str, ...]) -> float:
    """What a dense MLP keeps: the results of its first products, and of the activation."""
    if "mlp" in again:
        return 0.0
    ways = 2 if kind.gated else 1
    results = ways + 1 - ("activation" in again) - (kind.gated and "every_second_product" in again)
    return results * kind.ffn_hidden / parallel.tp


def _expert_elements(
    kind: Layer, parallel: Parallel, stack: Stack, again: tuple[str, ...]
) -> float:
    """What experts keep: ordered tokens, results of the first products and of the activation."""
    e = kind.experts
    assert e is not None
    results = (2 if kind.gated else 1) + 1 - ("activation" in again)
    gate = kind.gated and "every_second_product" in again
    shared = (results - gate) * e.shared_inner / parallel.tp
    if "experts" in again:
        return shared
    routed = e.visited * stack.expert_imbalance * parallel.etp / parallel.tp
    ordered = 0.0 if "permute" in again else e.latent or kind.hidden
    return routed * (ordered + results * e.hidden / parallel.etp) + shared


def _attention_elements(kind: Layer, again: tuple[str, ...]) -> float:
    """Elements of queries, keys, values and output per token, all heads."""
    if not kind.heads:
        return 0.0
    if not kind.latent:
        keys = kind.kv_heads * (kind.head_dim + (0 if kind.keys_are_values else kind.v_dim))
        ranks = kind.compressed.q_rank if kind.compressed else 0
        kept = kind.heads * (kind.head_dim + kind.v_dim) + kind.gate_width + float(keys) + ranks
        second = kind.kv_heads * kind.head_dim if "every_second_product" in again else 0.0
        return kept - second
    m = kind.latent
    small = m.down + kind.heads * m.v_dim + kind.gate_width
    if "mla_up_proj" in again:
        return small
    return small + kind.heads * (2.0 * (m.nope_dim + m.rope_dim) + m.v_dim)


def _recurrent_elements(kind: Layer) -> float:
    """Elements per token that a recurrence keeps, all heads."""
    return kind.recurrence.kept if kind.recurrence else 0.0


def _advice(scenario: Scenario) -> Iterator[str]:
    """Name the single changes that would make the plan fit."""
    for words, changed in _changes(scenario):
        try:
            result = plan_memory_without_advice(changed)
        except ValueError:
            continue
        if result:
            yield words
    needed = _least_capacity(scenario)
    yield f"devices with at least {needed / 2**30:.0f} GiB"


def plan_memory_without_advice(scenario: Scenario) -> bool:
    """Tell whether a plan fits, nothing more."""
    return all(
        math.fsum(_stage_parts(scenario, pool, stage).values()) <= pool.node.device.memory_bytes
        for stage, pool in _stages(scenario)
    )


def _least_capacity(scenario: Scenario) -> float:
    return max(math.fsum(_stage_parts(scenario, p, s).values()) for s, p in _stages(scenario))


def _changes(scenario: Scenario) -> Iterator[tuple[str, Scenario]]:
    parallel, training = scenario.parallel, scenario.training
    if parallel.recompute == "none":
        yield "recompute: selective", _with(scenario, recompute="selective")
    if parallel.recompute != "full":
        yield "recompute: full", _with(scenario, recompute="full")
    for zero in range(parallel.zero + 1, 4):
        yield f"zero: {zero}", _with(scenario, zero=zero)
    if training.micro_batch > 1:
        smaller = replace(training, micro_batch=training.micro_batch // 2)
        yield f"micro_batch: {smaller.micro_batch}", replace(scenario, training=smaller)
    for degree in ("tp", "pp", "ep"):
        for factor in (2, 4, 8):
            if degree == "ep" and scenario.model.experts:
                value = parallel.ep * factor
                if (
                    scenario.model.experts.routed % value == 0
                    and rank_shape(replace(parallel, ep=value))[3]
                ):
                    yield f"ep: {value}", _with(scenario, ep=value)
            elif degree != "ep" and parallel.dp % factor == 0 and not parallel.stage_pools:
                value = getattr(parallel, degree) * factor
                changed = {degree: value, "dp": parallel.dp // factor}
                if degree == "tp" and scenario.model.heads % value == 0:
                    yield f"tp: {value}", _with(scenario, **changed)
                elif degree == "pp":
                    yield f"pp: {value}", _with(scenario, **changed)


def _with(scenario: Scenario, **changes: object) -> Scenario:
    return replace(scenario, parallel=replace(scenario.parallel, **changes))  # type: ignore[arg-type]
