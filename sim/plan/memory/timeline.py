"""What the fullest rank holds over a step, moment by moment: for pictures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ersatz.sim.plan.layout import on_pool
from ersatz.sim.plan.memory.moments import (
    BACKWARD,
    FORWARD,
    JOIN,
    KINDS,
    LAYER,
    LOSS,
    UPDATE,
    WORDS,
    Bytes,
    StageBytes,
    alive,
    stage_moments,
)
from ersatz.sim.plan.memory.peaks import held_stages, stage_peak
from ersatz.sim.plan.memory.runtime import beside
from ersatz.sim.scenario.scenario import Pool, Scenario

MOST_MOMENTS = 2000  # that are kept; of more, the first and the last
WITHIN = {
    FORWARD: 1.0,
    LOSS: 0.05,
    LAYER: 0.2,
    BACKWARD: 1.0,
    JOIN: 0.5,
    UPDATE: 1.0,
}  # of a slot, for the eye


@dataclass(frozen=True, slots=True)
class Timeline:
    """One stage over a step: bytes by moment and kind, where each stands, and which is the peak."""

    number: int  # of the stage, over all pools of replicas
    stage: int
    pool: str
    kinds: tuple[str, ...]
    slots: Bytes  # (moments) where in the stage's order: slot and part of it
    held: Bytes  # (moments, kinds) in bytes
    words: tuple[str, ...]  # what happens at each
    peak: int  # index of the fullest moment
    capacity: float  # of the device, in bytes
    cut: int  # moments left out in the middle


def fullest_timeline(scenario: Scenario) -> Timeline:
    """Return the timeline of the stage with the least room; raises as `plan_memory` does."""
    stages = list(held_stages(scenario))
    peaks = [stage_peak(on_pool(scenario, pool), stage, pool, held) for stage, pool, held in stages]
    worst = min(range(len(peaks)), key=lambda i: peaks[i].spare)
    return _timeline(scenario, worst, *stages[worst])


def stage_timelines(scenario: Scenario, numbers: Sequence[int]) -> list[Timeline]:
    """Return the timelines of stages, as all pools of replicas together number them, each once."""
    stages = list(held_stages(scenario))
    return [_timeline(scenario, i, *stages[i]) for i in dict.fromkeys(numbers) if i < len(stages)]


def _timeline(
    scenario: Scenario, number: int, stage: int, pool: Pool, bytes_: StageBytes
) -> Timeline:
    scenario = on_pool(scenario, pool)
    moments = stage_moments(scenario, stage, whole=True)
    found = alive(moments, bytes_)
    rest = beside(pool.stack, scenario.parallel, scenario.model)
    stays = np.tile(list(rest.values()), (len(found), 1))
    table = np.hstack([stays, found])
    peak = int(np.argmax(found.sum(axis=1)))
    rows = _shown(len(table), peak)
    return Timeline(
        number, stage, pool.name, (*rest, *KINDS),
        (moments.slot + np.vectorize(WITHIN.get)(moments.what))[rows], table[rows],
        tuple(f"{WORDS[moments.what[row]]}, micro-batch {moments.microbatch[row]}" for row in rows),
        int(np.searchsorted(rows, peak)), pool.node.device.memory_bytes, len(table) - len(rows),
    )  # fmt: skip


def _shown(count: int, peak: int) -> npt.NDArray[np.intp]:
    """Return the rows that are kept: all, or those around the start, the peak and the end."""
    if count <= MOST_MOMENTS:
        return np.arange(count)
    third = MOST_MOMENTS // 3
    near = np.arange(max(peak - third // 2, 0), min(peak + third // 2, count))
    return np.unique(np.concatenate([np.arange(third), near, np.arange(count - third, count)]))
