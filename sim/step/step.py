"""One training step of a scenario: its duration, its utilisation and where its time goes.

A job on one kind of device, or with stages on several, is one program. Replicas on several kinds of
device are one program each, with the batch split by speed; they meet when gradients are exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ersatz.device_models.kernels.kernel import Timer, calibrated_time, sixteen_bit_peak
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.records import StepResult
from ersatz.sim.scenario.scenario import Pool, Scenario
from ersatz.sim.step.breakdown import StepTimes, explain_folded, explain_step
from ersatz.sim.step.build import build_program, stage_pools
from ersatz.sim.step.coupled import coupled_step
from ersatz.sim.step.folded import folded_step
from ersatz.sim.step.program import Program
from ersatz.sim.step.vector import ONE, Array

WAITS = ("bubble", "launch", "straggler")  # causes during which a device does nothing


def simulate_step(scenario: Scenario, timer: Timer = calibrated_time) -> StepResult:
    """Simulate one step and account for its time: at L2 with stragglers, else at L1, its equal.

    Its interval is the duration alone: `sim.uncertainty` knows how far off it may be.

    With `fabric.contention` L3 adds what collectives that run at the same time cost each other.

    Raises `InfeasibleError` when a batch cannot be split over replicas of different speed.
    """
    shares = split_replicas(scenario, timer)
    total = sum(share.parallel.dp for share in shares)
    runs = []
    executed = 0.0
    for number, share in enumerate(shares):
        program, flop = build_program(share, timer, replicas=total if len(shares) > 1 else 0)
        executed += flop
        slowness = straggling(share, program, number)
        times = explain_step(program, slowness) if slowness else explain_folded(program)
        runs.append(_sharing_links(program, times) if _shares_links(scenario) else times)
    return _result(scenario, shares, _join(runs), executed)


def step_seconds(scenario: Scenario, timer: Timer = calibrated_time) -> float:
    """Duration of one step at L1, for callers that need no more (search, validation, jobs)."""
    shares = split_replicas(scenario, timer)
    total = sum(share.parallel.dp for share in shares) if len(shares) > 1 else 0
    engine = coupled_step if _shares_links(scenario) else folded_step
    return max(engine(build_program(s, timer, replicas=total)[0]) for s in shares)


def _shares_links(scenario: Scenario) -> bool:
    return scenario.fabric is not None and scenario.fabric.contention


def _sharing_links(program: Program, alone: StepTimes) -> StepTimes:
    """Add what L3 finds beyond the time with links of one's own, to every stage."""
    duration = coupled_step(program)
    longer = duration - alone.duration_s
    stages = [{**causes, "link sharing": longer} for causes in alone.by_stage]
    return StepTimes(duration, tuple(stages))


def degraded_step_seconds(
    scenario: Scenario, replicas_lost: int, timer: Timer = calibrated_time
) -> float:
    """Duration of a step when the other replicas take over the micro-batches of the lost ones.

    Micro-batches are rounded up to what the schedule accepts. Raises `InfeasibleError` when no
    replica is left.
    """
    parallel, training = scenario.parallel, scenario.training
    left = parallel.dp - replicas_lost
    if left < 1:
        raise InfeasibleError(f"{replicas_lost} of {parallel.dp} replicas are lost: none is left")
    whole = {"interleaved": parallel.pp, "dualpipe": 2}.get(parallel.schedule, 1)
    each = -(-training.global_batch // (training.micro_batch * left * whole)) * whole
    spread = parallel.ep * parallel.etp // (parallel.tp * parallel.cp)
    smaller = replace(
        scenario,
        parallel=replace(parallel, dp=max(left, spread)),
        training=replace(training, global_batch=each * training.micro_batch * max(left, spread)),
    )
    return step_seconds(smaller, timer)


def split_replicas(scenario: Scenario, timer: Timer = calibrated_time) -> list[Scenario]:
    """Return one scenario per kind of device that runs whole replicas, with its share of the batch."""
    if len(scenario.pools) == 1 or scenario.parallel.mixed == "stages":
        return [scenario]
    parallel, training = scenario.parallel, scenario.training
    column = parallel.tp * parallel.cp * parallel.pp
    replicas = [pool.devices // column for pool in scenario.pools]
    microbatches = training.global_batch // training.micro_batch
    if parallel.batch_split == "equal":
        speeds = [1.0] * len(replicas)
    else:
        speeds = [1 / _pace(scenario, pool, timer) for pool in scenario.pools]
    counts = share_microbatches(microbatches, replicas, speeds)
    return [
        replace(
            scenario,
            pools=(pool,),
            parallel=replace(parallel, dp=dp),
            training=replace(training, global_batch=count * dp * training.micro_batch),
        )
        for pool, dp, count in zip(scenario.pools, replicas, counts, strict=True)
    ]


def _pace(scenario: Scenario, pool: Pool, timer: Timer) -> float:
    """Seconds per micro-batch of one replica on a pool, in the steady state of the pipeline."""
    parallel, training = scenario.parallel, scenario.training
    column = parallel.tp * parallel.cp * parallel.pp
    alone = replace(scenario, pools=(pool,), parallel=replace(parallel, dp=pool.devices // column))

    def seconds(count: int) -> float:
        batch = count * training.micro_batch * alone.parallel.dp
        return step_seconds(replace(alone, training=replace(training, global_batch=batch)), timer)

    few = 2 * parallel.pp
    return (seconds(2 * few) - seconds(few)) / few


def share_microbatches(total: int, replicas: Sequence[int], speeds: Sequence[float]) -> list[int]:
    """Return micro-batches per replica of each pool, whole, adding up to `total`, nearest to speed.

    Raises `InfeasibleError` when no whole split exists.
    """
    pace = math.fsum(n * v for n, v in zip(replicas, speeds, strict=True))
    ideal = [total * v / pace for v in speeds]
    best: tuple[float, list[int]] | None = None
    for first in range(1, total // replicas[0] + 1):
        rest = _share_rest(total - first * replicas[0], replicas[1:], ideal[1:])
        if rest is None:
            continue
        counts = [first, *rest]
        slowest = max(n / v for n, v in zip(counts, speeds, strict=True))
        if best is None or slowest < best[0]:
            best = slowest, counts
    if best is None:
        raise InfeasibleError(
            f"{total} micro-batches cannot be split over {list(replicas)} replicas in whole numbers;"
            f" a global batch divisible by micro_batch x {int(np.gcd.reduce(list(replicas)))} can"
        )
    return best[1]


def _share_rest(total: int, replicas: Sequence[int], ideal: Sequence[float]) -> list[int] | None:
    if len(replicas) == 1:
        count, remainder = divmod(total, replicas[0])
        return [count] if count >= 1 and not remainder else None
    near = round(ideal[0])
    for count in sorted(range(max(1, near - 64), near + 65), key=lambda c: abs(c - ideal[0])):
        rest = _share_rest(total - count * replicas[0], replicas[1:], ideal[1:])
        if rest is not None:
            return [count, *rest]
    return None


def straggling(scenario: Scenario, program: Program, stream: int) -> list[Array] | None:
    """Return the slowness of every rank, or None when all are alike."""
    spec = scenario.stragglers
    if not (spec.ranks or (spec.fraction and spec.slowdown)):
        return None
    shape = program.shape
    per_stage = int(np.prod(shape))
    rng = np.random.default_rng(np.random.SeedSequence(scenario.seed, spawn_key=(1, stream)))
    factors = np.ones(per_stage * program.stages)
    slow = rng.random(factors.size) < spec.fraction
    factors[slow] += spec.slowdown
    for rank, slowdown in spec.ranks.items():
        if rank < factors.size:
            factors[rank] = 1.0 + slowdown
    rows = factors.reshape(program.stages, per_stage)
    return [row.reshape(shape, order="F") if (row != 1).any() else ONE for row in rows]


def _join(runs: Sequence[StepTimes]) -> StepTimes:
    """Replicas wait for the slowest pool; the wait of the others is a bubble of theirs."""
    duration = max(run.duration_s for run in runs)
    stages = []
    for run in runs:
        wait = duration - run.duration_s
        for causes in run.by_stage:
            waiting = {"bubble": causes.get("bubble", 0.0) + wait} if wait else {}
            stages.append({**causes, **waiting})
    return StepTimes(duration, tuple(stages))


def _result(
    scenario: Scenario, shares: Sequence[Scenario], times: StepTimes, executed: float
) -> StepResult:
    training, model = scenario.training, scenario.model
    tokens = float(training.global_batch * training.sequence_length)
    seconds = times.duration_s
    peak = _peak(scenario, shares)
    breakdown = times.mean()

    def per_token(**rule: object) -> float:
        return model.flop_per_token(training.sequence_length, **rule)  # type: ignore[arg-type]

    lora = 4 / 6 if model.lora_rank else 1.0
    capacity = peak * seconds / lora
    return StepResult(
        duration_s=seconds,
        tokens=tokens,
        devices=scenario.devices,
        tokens_per_s_per_device=tokens / seconds / scenario.devices,
        model_flop=tokens * per_token(causal=True) * lora,
        mfu=tokens * per_token(causal=True) / capacity,
        mfu_noncausal=tokens * per_token(causal=False) / capacity,
        mfu_6n=tokens * per_token(causal=False, rule="6n") / capacity,
        hfu=executed / (peak * seconds),
        peak_flop_per_s=peak,
        bubble_fraction=breakdown.get("bubble", 0.0) / seconds,
        breakdown=breakdown,
        by_stage=times.by_stage,
        low80_s=seconds,
        high80_s=seconds,
    )


def _peak(scenario: Scenario, shares: Sequence[Scenario]) -> float:
    """Dense 16-bit matrix peak of all devices."""
    if len(shares) > 1:
        return math.fsum(
            sixteen_bit_peak(pool.node.device) * pool.devices for pool in scenario.pools
        )
    parallel = scenario.parallel
    ranks = parallel.tp * parallel.cp * parallel.dp
    return math.fsum(sixteen_bit_peak(pool.node.device) * ranks for pool in stage_pools(scenario))


def busy_share(result: StepResult) -> float:
    """Share of the step during which the mean device computes or communicates."""
    waiting = math.fsum(result.breakdown.get(cause, 0.0) for cause in WAITS)
    return 1.0 - waiting / result.duration_s
