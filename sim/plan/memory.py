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
from dataclasses import replace

from ersatz.device_models.catalog.device import DTYPE_BYTES
from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.kernels.kernel import kernel_constants
from ersatz.sim.plan.layout import Chunk, chunk_params, rank_shape, split_layers
from ersatz.sim.plan.schedules import Schedule, make_schedule
from ersatz.sim.records import MemoryResult
from ersatz.sim.scenario.scenario import Parallel, Pool, Scenario


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
    dense, expert = map(
        math.fsum, zip(*(chunk_params(model, c, parallel) for c in held), strict=True)
    )
    trained = kernel_constants().adapter_share if model.lora_rank else 1.0
    ways, expert_ways = _shard_ways(parallel)

    def state(bytes_each: float, sharded: bool) -> float:
        split = (ways, expert_ways) if sharded else (1, 1)
        return bytes_each * (dense / split[0] + expert / split[1])

    gradient = DTYPE_BYTES[stack.gradient_dtype] * trained
    wide = max(DTYPE_BYTES[scenario.training.precision], 2.0)
    flying = schedule.in_flight(stage)
    kept = math.fsum(n * _kept_bytes(scenario, pool, c) for n, c in zip(flying, held, strict=True))
    working = max(_working_bytes(scenario, pool, chunk) for chunk in held)
    parts = {
        "weights": state(wide, parallel.zero == 3),
        "gradients": state(gradient, parallel.zero >= 2)
        + state(_fresh_gradient_bytes(stack, parallel) * trained, False),
        "optimizer": state(stack.optimizer_state_bytes * trained, parallel.zero >= 1),
        "activations": kept + working,
        "gathered weights": _gathered_bytes(scenario, held) if parallel.zero == 3 else 0.0,
        "overhead": stack.memory_overhead_bytes,
    }
    parts["fragmentation"] = stack.memory_fragmentation * (kept + working)
    return parts


def _fresh_gradient_bytes(stack: Stack, parallel: Parallel) -> float:
    """Bytes per weight of a backward pass's own gradients, where they stand beside the fp32 sum.

    Some frameworks add them after the whole backward pass; with ZeRO 2 and 3 they leave layer by
    layer.
    """
    return stack.fresh_gradient_bytes if parallel.zero < 2 else 0.0


def _shard_ways(parallel: Parallel) -> tuple[float, float]:
    """Ranks over which dense and expert state are divided."""
    replicas = parallel.cp * parallel.dp
    dense = parallel.shard * parallel.cp if parallel.shard else replicas
    expert = max(replicas * parallel.tp // (parallel.ep * parallel.etp), 1)
    return dense, min(expert, dense)


def _kept_bytes(scenario: Scenario, pool: Pool, chunk: Chunk) -> float:
    """Activations that one micro-batch leaves in a chunk until its backward pass."""
    layers = [(False, chunk.dense), (True, chunk.moe + chunk.predict)]
    moe_model = scenario.model.experts is not None
    kept = math.fsum(
        count * _layer_bytes(scenario, pool, moe=moe and moe_model, recompute=True)
        for moe, count in layers
        if count
    )
    if chunk.head:
        tokens = _tokens(scenario)
        each = kernel_constants().logit_memory_bytes
        logits = each * tokens * scenario.model.vocab / scenario.parallel.tp
        kept += logits * (1 + chunk.predict) * pool.stack.activation_memory
    return kept


def _working_bytes(scenario: Scenario, pool: Pool, chunk: Chunk) -> float:
    """What the layer in work needs beyond what is kept."""
    if scenario.parallel.recompute == "none" or not chunk.layers:
        return 0.0
    return _layer_bytes(scenario, pool, moe=chunk.moe > 0, recompute=False)


def _tokens(scenario: Scenario) -> float:
    training = scenario.training
    return training.micro_batch * training.sequence_length / scenario.parallel.cp


def _layer_bytes(scenario: Scenario, pool: Pool, *, moe: bool, recompute: bool) -> float:
    """Bytes that one layer keeps for its backward pass on one rank."""
    model, parallel, stack = scenario.model, scenario.parallel, pool.stack
    spread = parallel.tp if parallel.sequence_parallel else 1
    tokens, h, tp = _tokens(scenario), model.hidden, parallel.tp
    mode = parallel.recompute if recompute else "none"
    wide = max(DTYPE_BYTES[scenario.training.precision], 2.0)  # of what is never in 8 bits
    boundary = wide * tokens * h / spread
    if mode == "full":
        return boundary
    operand = DTYPE_BYTES[scenario.training.precision]
    attention = _attention_elements(scenario, selective=mode == "selective") / tp
    inputs = 2 * h / spread  # what enters the attention's and the MLP's first products
    ways = 2 if model.gated else 1
    inner = model.ffn_hidden / tp
    routed = 1.0
    if moe and model.experts:
        e = model.experts
        share = tp / parallel.etp if parallel.sequence_parallel else 1.0
        routed = e.top_k * stack.expert_imbalance / share
        inner = e.hidden / parallel.etp
        inputs += routed * h  # the permuted tokens
        shared = e.shared * e.hidden / tp
    else:
        shared = 0.0
    mlp = (ways + (mode == "none")) * (routed * inner + shared)
    kept = 2 * boundary + wide * tokens * attention + operand * tokens * (inputs + mlp)
    if not (stack.flash_attention and model.fused_attention):
        span = scenario.training.sequence_length
        kept += 5.0 * tokens * span * model.heads / tp
    return kept * stack.activation_memory


def _attention_elements(scenario: Scenario, *, selective: bool) -> float:
    """Elements of queries, keys, values and output per token, all heads."""
    model = scenario.model
    if not model.latent:
        return model.head_dim * (2.0 * model.heads + 2 * model.kv_heads)
    m = model.latent
    small = m.q_rank + m.kv_rank + m.rope_dim + model.heads * m.v_dim
    if selective:  # the up-projections are computed again
        return small
    return small + model.heads * (2.0 * (m.nope_dim + m.rope_dim) + m.v_dim)


def _gathered_bytes(scenario: Scenario, held: list[Chunk]) -> float:
    """Two layers' whole weights: the one in use and the one gathered ahead."""
    largest = 0.0
    for chunk in held:
        one = replace(chunk, dense=min(chunk.dense, 1), moe=min(chunk.moe, 1), predict=0,
                      embedding=False, head=False)  # fmt: skip
        largest = max(largest, math.fsum(chunk_params(scenario.model, one, scenario.parallel)))
    return 2 * 2.0 * largest


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
