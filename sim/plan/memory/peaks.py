"""The fullest moment of every stage over a step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ersatz.sim.plan.layout import Chunk, on_pool, split_layers
from ersatz.sim.plan.memory.moments import (
    KINDS,
    WORDS,
    Bytes,
    Moments,
    StageBytes,
    alive,
    stage_bytes,
    stage_moments,
)
from ersatz.sim.plan.memory.runtime import beside, fragmentation
from ersatz.sim.plan.schedules import chunk_places
from ersatz.sim.scenario.scenario import Pool, Scenario


@dataclass(frozen=True, slots=True)
class StagePeak:
    """The fullest moment of one stage on one pool."""

    stage: int
    pool: Pool
    parts: dict[str, float]  # bytes by use; their sum is what the device must hold
    allocated: float  # bytes of tensors alone
    moment: str  # in words

    @property
    def total(self) -> float:
        """Bytes that the device must hold."""
        return math.fsum(self.parts.values())

    @property
    def reserved(self) -> float:
        """Bytes of tensors and of what the allocator cannot hand out."""
        return self.allocated + self.parts["fragmentation"]

    @property
    def spare(self) -> float:
        """Bytes that are left."""
        return self.pool.node.device.memory_bytes - self.total


def stage_peaks(scenario: Scenario) -> Iterator[StagePeak]:
    """Yield the peak of every stage on every pool that has it."""
    for stage, pool, bytes_ in held_stages(scenario):
        yield stage_peak(on_pool(scenario, pool), stage, pool, bytes_)


def held_stages(scenario: Scenario) -> Iterator[tuple[int, Pool, StageBytes]]:
    """Yield each stage with its pool and what its chunks take there."""
    cut: dict[str, tuple[Scenario, list[list[Chunk]]]] = {}
    known: dict[object, StageBytes] = {}
    for stage, pool in _stages(scenario):
        if pool.name not in cut:
            own = on_pool(scenario, pool)
            cut[pool.name] = own, _held(own)
        own, held = cut[pool.name]
        alike = (
            pool.name,
            *((c.runs, c.embedding, c.head, c.predict, c.table) for c in held[stage]),
        )
        if alike not in known:
            known[alike] = stage_bytes(own, pool, held[stage])
        yield stage, pool, known[alike]


def _held(scenario: Scenario) -> list[list[Chunk]]:
    """Return the chunks of each stage."""
    parallel = scenario.parallel
    chunks = split_layers(scenario.model, parallel)
    places = chunk_places(parallel.schedule, parallel.pp, parallel.vp)
    return [[chunks[place.position] for place in row] for row in places]


def stage_peak(scenario: Scenario, stage: int, pool: Pool, bytes_: StageBytes) -> StagePeak:
    """Return the fullest moment of a stage."""
    moments = stage_moments(scenario, stage)
    found = alive(moments, bytes_)
    row = int(np.argmax(found.sum(axis=1)))
    parts = {kind: float(x) for kind, x in zip(KINDS, found[row], strict=True)}
    wasted = fragmentation(pool.stack, found, row)
    return StagePeak(
        stage, pool,
        parts | beside(pool.stack, scenario.parallel, scenario.model) | {"fragmentation": wasted},
        math.fsum(parts.values()), _words(scenario, stage, moments, row, found),
    )  # fmt: skip


def _words(scenario: Scenario, stage: int, moments: Moments, row: int, found: Bytes) -> str:
    """Say which moment of the step it is, and where."""
    text = WORDS[moments.what[row]]
    where = f"stage {stage}" + (
        f" chunk {moments.chunk[row]}" if moments.flying.shape[1] > 1 else ""
    )
    flying = int(moments.flying[row].sum())
    count = f"{flying} micro-batch{'es' if flying != 1 else ''} in flight"
    return f"{text}, {where}, {count}"


def _stages(scenario: Scenario) -> Iterator[tuple[int, Pool]]:
    """Every (stage, pool) of the job: replicas on several pools repeat the stages."""
    parallel = scenario.parallel
    if parallel.stage_pools:
        by_name = {pool.name: pool for pool in scenario.pools}
        yield from ((s, by_name[name]) for s, name in enumerate(parallel.stage_pools))
        return
    for pool in scenario.pools:
        own = on_pool(scenario, pool).parallel
        yield from ((stage, pool) for stage in range(own.pp))
