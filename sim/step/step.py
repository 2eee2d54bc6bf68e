"""One training step of a scenario: its duration, its utilisation and where its time goes.

A job on one kind of device, or with stages on several, is one program. Replicas on several kinds of
device are one program each, with the batch split by speed; they meet when gradients are exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ersatz.device_models.kernels.kernel import Timer, calibrated_time, utilisation_peak
from ersatz.sim.errors import InfeasibleError, LayoutError
from ersatz.sim.plan.borders import stage_ranks
from ersatz.sim.plan.layout import on_pool, share_of, turn_of
from ersatz.sim.records import StepResult
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.breakdown import StepTimes, explain_folded, explain_step
from ersatz.sim.step.build import build_program, stage_pools
from ersatz.sim.step.coupled import coupled_times
from ersatz.sim.step.folded import folded_times
from ersatz.sim.step.longer import Longer, longer_step
from ersatz.sim.step.program import Program
from ersatz.sim.step.quick.flat import flat_schedule
from ersatz.sim.step.quick.walk import quick_times
from ersatz.sim.step.stragglers import named_stragglers, slowness, stragglers_between
from ersatz.sim.step.vector import VectorStep

WAITS = ("bubble", "launch", "straggler")  # causes during which a device does nothing


def simulate_step(scenario: Scenario, timer: Timer = calibrated_time) -> StepResult:
    """Simulate one step and account for its time: at L2 with stragglers, else at L1, its equal.

    Its interval is the duration alone: `sim.uncertainty` knows how far off it may be.

    With `fabric.contention` L3 adds what collectives that run at the same time cost each other.

    Raises `InfeasibleError` when a batch cannot be split over replicas of different speed.
    """
    scenario = named_stragglers(scenario)
    longer = longer_step(scenario)
    if longer is None:
        return _result(scenario, *_explained(scenario, timer))
    found = [_explained(step, timer) for step in longer.steps]
    times = beyond([times for _, times, _ in found], longer)
    return _result(scenario, [scenario], times, longer.beyond([flop for _, _, flop in found]))


def _explained(scenario: Scenario, timer: Timer) -> tuple[list[Scenario], StepTimes, float]:
    """Follow every micro-batch; returns the shares of the job, its times and the FLOPs executed."""
    shares, programs, executed = job_programs(scenario, timer)
    runs = []
    for share, program in zip(shares, programs, strict=True):
        slow = slowness(share, program)
        times = explain_step(program, slow) if slow else explain_folded(program)
        runs.append(_sharing_links(program, times) if shares_links(scenario) else times)
    return shares, _join(runs), executed


def beyond(found: Sequence[StepTimes], longer: Longer) -> StepTimes:
    """Return the account of a whole step from those of two that were followed."""
    stages = []
    for pair in zip(*(times.by_stage for times in found), strict=True):
        causes = dict.fromkeys(cause for stage in pair for cause in stage)
        stages.append({c: longer.beyond([stage.get(c, 0.0) for stage in pair]) for c in causes})
    duration, body = (longer.beyond([getattr(times, name) for times in found])
                      for name in ("duration_s", "body_s"))  # fmt: skip
    return StepTimes(duration, tuple(stages), body)


def step_seconds(scenario: Scenario, timer: Timer = calibrated_time) -> float:
    """Duration of one step, for callers that need no more (search, validation, jobs).

    It equals that of `simulate_step`: stragglers count here, too.
    """
    scenario = named_stragglers(scenario)
    longer = longer_step(scenario)
    if longer:
        return longer.beyond([step_seconds(step, timer) for step in longer.steps])
    shares = split_replicas(scenario, timer)
    parts = shares if len(shares) > 1 else []
    return joined_seconds([_times(share, timer, parts) for share in shares])


def job_programs(scenario: Scenario, timer: Timer) -> tuple[list[Scenario], list[Program], float]:
    """Return the shares of a job with the program of each, and the FLOPs of all together."""
    shares = split_replicas(scenario, timer)
    parts = shares if len(shares) > 1 else []
    built = [build_program(share, timer, shares=parts) for share in shares]
    return shares, [program for program, _ in built], math.fsum(flop for _, flop in built)


def _times(share: Scenario, timer: Timer, shares: Sequence[Scenario]) -> tuple[float, float]:
    """Return when the gradients of a share of the job are complete and when its step ends."""
    if not share.stragglers.ranks and not shares_links(share):
        return quick_times(share, timer, shares)
    program, _ = build_program(share, timer, shares=shares)
    if shares_links(share):
        return coupled_times(program)
    slow = slowness(share, program)
    return VectorStep(program, slow).times() if slow else folded_times(program)


def joined_seconds(times: Sequence[tuple[float, float]]) -> float:
    """Return the duration of a step from when each pool's gradients are complete and its step ends.

    Replicas meet before the reduction: the slowest gradients and the slowest exchange after them count.
    """
    return max(body for body, _ in times) + max(end - body for body, end in times)


def unshared(scenario: Scenario) -> Scenario:
    """Return the same with links of its own for each collective, as it cannot be slower."""
    if scenario.fabric is None:
        return scenario
    return replace(scenario, fabric=replace(scenario.fabric, contention=False))


def shares_links(scenario: Scenario) -> bool:
    """Tell whether collectives share links, so that each event of a step has to be followed."""
    return scenario.fabric is not None and scenario.fabric.contention


def _sharing_links(program: Program, alone: StepTimes) -> StepTimes:
    """Add what L3 finds beyond the time with links of one's own, to every stage."""
    body, duration = coupled_times(program)
    longer = duration - alone.duration_s
    stages = [{**causes, "link sharing": longer} for causes in alone.by_stage]
    return StepTimes(duration, tuple(stages), body)


def split_replicas(scenario: Scenario, timer: Timer = calibrated_time) -> list[Scenario]:
    """Return one scenario per kind of device that runs whole replicas, with its share of the batch."""
    if len(scenario.pools) == 1 or scenario.parallel.mixed == "stages":
        return [scenario]
    total = scenario.training.global_batch
    alone = [
        replace(one, parallel=share_of(one.parallel, one.pools[0], scenario.pools))
        for one in _by_pool(scenario)
    ]
    turns = [turn_of(one.parallel, one.training.micro_batch) for one in alone]
    unit = math.gcd(*turns)
    try:
        counts = share_microbatches(
            total // unit, [turn // unit for turn in turns], replica_speeds(scenario, timer)
        )
        shares = [
            replace(one, training=replace(one.training, global_batch=count * turn))
            for one, turn, count in zip(alone, turns, counts, strict=True)
        ]
        for share in shares:
            _check_order(share)
    except LayoutError as error:
        raise InfeasibleError(f"the batch as it is split over the pools: {error}") from error
    return shares


def _check_order(share: Scenario) -> None:
    """Raise LayoutError where the schedule does not take as many micro-batches as a share has."""
    p, training = share.parallel, share.training
    count = training.global_batch // (training.micro_batch * p.dp)
    flat_schedule(p.schedule, p.pp, count, p.vp, p.custom_schedule, runs=p.zero == 2)


def replica_speeds(scenario: Scenario, timer: Timer = calibrated_time) -> list[float]:
    """Return how fast a replica of each pool is, as its share of the batch sees it."""
    if scenario.parallel.batch_split == "equal":
        return [1.0] * len(scenario.pools)
    return [1 / (_rounds(alone) * _pace(alone, timer)) for alone in _by_pool(scenario)]


def _rounds(alone: Scenario) -> int:
    """Return the micro-batches that a pool's own schedule takes at once."""
    return turn_of(alone.parallel, 1) // alone.parallel.dp


def _by_pool(scenario: Scenario) -> list[Scenario]:
    """Return one scenario per pool of replicas, with its own slow ranks counted from its first."""
    found, first = [], 0
    for pool in scenario.pools:
        slow = stragglers_between(scenario.stragglers.ranks, first, pool.devices)
        found.append(replace(on_pool(scenario, pool), pools=(pool,), stragglers=slow))
        first += pool.devices
    return found


def _pace(alone: Scenario, timer: Timer) -> float:
    """Seconds per micro-batch of one replica on a pool, in the steady state of the pipeline."""
    parallel, training = alone.parallel, alone.training
    column = parallel.tp * parallel.cp * parallel.pp
    dp = alone.devices // column
    alone = replace(alone, parallel=replace(parallel, dp=dp))

    def seconds(count: int) -> float:
        batch = count * training.micro_batch * dp
        return step_seconds(replace(alone, training=replace(training, global_batch=batch)), timer)

    few = 2 * parallel.pp
    return (seconds(2 * few) - seconds(few)) / few


def share_microbatches(total: int, replicas: Sequence[int], speeds: Sequence[float]) -> list[int]:
    """Return micro-batches per replica of each pool, whole, adding up to `total`, done soonest.

    Raises `InfeasibleError` when no whole split exists.
    """
    ideal = total / math.fsum(n * v for n, v in zip(replicas, speeds, strict=True))
    more, latest = max(1 / v for v in speeds), total / min(speeds)
    divisor = int(np.gcd.reduce(list(replicas)))
    while total % divisor == 0:
        found = _split_by(ideal + more, total, replicas, speeds)
        if found:
            return found[1]
        if ideal + more > latest:
            break
        more *= 2
    raise InfeasibleError(
        f"{total} micro-batches cannot be split over {list(replicas)} replicas in whole numbers;"
        f" a global batch divisible by micro_batch x {divisor} can"
    )


def _split_by(
    latest: float, total: int, replicas: Sequence[int], speeds: Sequence[float]
) -> tuple[float, list[int]] | None:
    """Return when the soonest split is done, and that split; None where none is by `latest`."""
    size, speed = replicas[0], speeds[0]
    if len(replicas) == 1:
        count, remainder = divmod(total, size)
        fits = count >= 1 and not remainder and count / speed <= latest
        return (count / speed, [count]) if fits else None
    others = math.fsum(n * v for n, v in zip(replicas[1:], speeds[1:], strict=True))
    fewest = math.floor((total - latest * others) / size)  # the others cannot do more by then
    most = (total - sum(replicas[1:])) // size
    best: tuple[float, list[int]] | None = None
    for count in range(max(fewest, 1), most + 1):
        if count / speed > latest:
            break
        rest = _split_by(latest, total - count * size, replicas[1:], speeds[1:])
        if rest and (best is None or max(count / speed, rest[0]) < best[0]):
            best = max(count / speed, rest[0]), [count, *rest[1]]
            latest = best[0]
    return best


def _join(runs: Sequence[StepTimes]) -> StepTimes:
    """Replicas wait for each other's gradients and exchanges; their waits are bubbles of theirs."""
    duration = joined_seconds([(run.body_s, run.duration_s) for run in runs])
    stages = []
    for run in runs:
        wait = duration - run.duration_s
        for causes in run.by_stage:
            waiting = {"bubble": causes.get("bubble", 0.0) + wait} if wait else {}
            stages.append({**causes, **waiting})
    return StepTimes(duration, tuple(stages), max(run.body_s for run in runs))


def _result(
    scenario: Scenario, shares: Sequence[Scenario], times: StepTimes, executed: float
) -> StepResult:
    training, model = scenario.training, scenario.model
    tokens = float(training.global_batch * training.sequence_length)
    seconds = times.duration_s
    peak = _peak(scenario, shares)
    breakdown = times.mean()

    looked_back = min(training.document_tokens or math.inf, training.sequence_length)

    def per_token(length: float = training.sequence_length, **rule: object) -> float:
        return model.flop_per_token(length, **rule)  # type: ignore[arg-type]

    needed = tokens * per_token(looked_back, causal=True)  # nobody attends to other documents

    lora = 4 / 6 if model.lora_rank else 1.0
    capacity = peak * seconds / lora
    return StepResult(
        duration_s=seconds,
        tokens=tokens,
        devices=scenario.devices,
        tokens_per_s_per_device=tokens / seconds / scenario.devices,
        model_flop=needed * lora,
        mfu=needed / capacity,
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
    """Dense matrix peak of all devices by which MFU divides."""
    dtype = scenario.training.precision
    if len(shares) > 1:
        return math.fsum(utilisation_peak(p.node.device, dtype) * p.devices for p in scenario.pools)
    return math.fsum(utilisation_peak(p.node.device, dtype) * stage_ranks(scenario, p)
                     for p in stage_pools(scenario))  # fmt: skip


def busy_share(result: StepResult) -> float:
    """Share of the step during which the mean device computes or communicates."""
    waiting = math.fsum(result.breakdown.get(cause, 0.0) for cause in WAITS)
    return 1.0 - waiting / result.duration_s
