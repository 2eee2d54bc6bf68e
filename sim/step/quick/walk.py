"""L1 at its fastest: a step's duration from folded blocks, without an op or an array.

A schedule is flattened once into numbers (`flat`), each of its blocks folded into a matrix (`blocks`), and
its slots are walked, rounds that only repeat at their pace (`paces`).

The result equals `ersatz.sim.step.folded` to the last bit. Not covered: stragglers (L2), shared links (L3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ersatz.device_models.kernels.kernel import Timer, calibrated_time
from ersatz.sim.kept import Kept
from ersatz.sim.plan.borders import Border, Step, stage_borders
from ersatz.sim.scenario.scenario import Pool, Scenario
from ersatz.sim.step.build import StageBuilder, stage_builders, stage_pools
from ersatz.sim.step.quick.blocks import Folded, Phase, fold, tail_seconds
from ersatz.sim.step.quick.flat import Sent, flat_schedule
from ersatz.sim.step.quick.paces import walked

_BORDERS: Kept[Mapping[Step, Border]] = Kept(64)


def borders_of(
    scenario: Scenario, pools: Sequence[Pool], steps: tuple[Step, ...]
) -> Mapping[Step, Border]:
    """Return what messages find on their way, kept for layouts whose stages sit alike."""
    p = scenario.parallel
    kinds = list({id(pool): pool for pool in pools}.values())
    if len(kinds) > 1:
        return stage_borders(scenario, pools, steps)
    pool = kinds[0]
    place = (p.tp * p.cp * p.dp, len(pools), p.world, pool.nodes, scenario.fabric, scenario.seed)
    return _BORDERS.get((pool.node, pool.stack), (place, steps),
                        lambda: stage_borders(scenario, pools, steps))  # fmt: skip


def quick_times(
    scenario: Scenario, timer: Timer = calibrated_time, shares: Sequence[Scenario] = ()
) -> tuple[float, float]:
    """Return when every gradient is there and when the step ends, in seconds from its start.

    `shares` as in `build_program`. Raises ValueError where layers or micro-batches do not suit the
    schedule and `InfeasibleError` where a fault cuts off a rank.
    """
    parallel, training = scenario.parallel, scenario.training
    microbatches = training.global_batch // (training.micro_batch * parallel.dp)
    flat, rounds = flat_schedule(
        parallel.schedule, parallel.pp, microbatches, parallel.vp, parallel.custom_schedule,
        runs=parallel.zero == 2,
    )  # fmt: skip
    pools = stage_pools(scenario)
    borders = borders_of(scenario, pools, flat.steps)
    builders = stage_builders(scenario, pools, timer, tuple(shares), borders)
    folded = [_folded(builders[stage], stage, phases) for stage, phases in flat.blocks]
    barrier = walked(flat, rounds, folded, parallel.pp)
    tail = max(_tail(builders[stage], held) for stage, held in enumerate(flat.held))
    return barrier, barrier + tail


def _folded(builder: StageBuilder, stage: int, phases: Sequence[Sent]) -> Folded:
    """Return the block of a slot, made once per bench for chunks of the same content."""
    made, classes, overlaps = builder.bench.made, builder.classes, len(phases) > 1
    key: list[object] = [builder.messages_overlap]
    ways = []
    for phase, position, edge, to in phases:
        border = None
        if to is not None and phase != "W":
            border = builder.borders[min(stage, to), max(stage, to)]
        ways.append(border)
        key.append((phase, classes[position], edge, border))
    found: Folded | None = made.get(tuple(key))
    if found is None:
        found = fold(builder, [
            Phase(sent.phase, builder.chunks[sent.position], sent.edge, border, overlaps)
            for sent, border in zip(phases, ways, strict=True)
        ])  # fmt: skip
        made[tuple(key)] = found
    return found


def _tail(builder: StageBuilder, held: Sequence[int]) -> float:
    """Return how long the end of a step takes a stage that holds these positions."""
    made = builder.bench.made
    key = "tail", tuple(builder.classes[position] for position in held)
    if key not in made:
        made[key] = tail_seconds(builder, [builder.chunks[position] for position in held])
    return float(made[key])
