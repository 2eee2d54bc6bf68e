"""The best layout of a job over several pools: by stages or by replicas, timed exactly, with a bound.

By replicas each pool is searched alone at its share of the batch, and the best of each are put together:
they meet only when gradients are exchanged. By stages see `stages`. What is found is the fastest of those
that were timed; `left` says by how much any other could be faster at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

import numpy as np

from ersatz.sim.errors import InfeasibleError, LayoutError
from ersatz.sim.plan.memory.peaks import stage_peaks
from ersatz.sim.plan.memory.verdict import judge, room_for_sure
from ersatz.sim.scenario.resolving.own import joined_layout
from ersatz.sim.scenario.scenario import Parallel, Pool, PoolLayout, Scenario
from ersatz.sim.search.best import search
from ersatz.sim.search.choices import choices_of, divisors
from ersatz.sim.search.mix.parts import Part, parts_of
from ersatz.sim.search.mix.stages import Chain, Pipelines, pipelines
from ersatz.sim.search.pricing import VERDICTS
from ersatz.sim.search.space import PLAIN, PP, SCHEDULE, M, Rows, layout_of, make_space
from ersatz.sim.step.step import step_seconds

MOST_TIMED = 30  # of each way to mix
MOST_SPLITS = 6  # of one chain, until its memory suits
MOST_ALONE = 60  # exact steps of a pool alone at its share of the batch
KINDS_ALONE = 3
MANY = 1_000_000  # micro-batches, with which the way through a pipeline does not count


@dataclass(frozen=True, slots=True)
class Alone:
    """The fastest layout of one pool as the whole job; none: infinite seconds, and why."""

    part: Part
    scenario: Scenario | None
    seconds: float
    why_not: str = ""
    timed: int = 0
    least_s: float = 0.0

    @property
    def name(self) -> str:
        """Of the pool."""
        return self.part.pool.name

    def is_of(self, pool: Pool) -> bool:
        """Tell whether it is of as many nodes of that pool."""
        return (self.name, self.part.pool.nodes) == (pool.name, pool.nodes)


@dataclass(frozen=True, slots=True)
class Mixed:
    """A layout over all pools."""

    scenario: Scenario
    seconds: float

    @property
    def way(self) -> str:
        """How the pools share the job: stages or replicas."""
        return self.scenario.parallel.mixed


@dataclass(frozen=True, slots=True)
class FoundMix:
    """What a search over one mix found."""

    plans: tuple[Mixed, ...]  # the fastest of each way and order, the fastest first
    alone: tuple[Alone, ...]  # each pool as the whole job
    timed: int
    least_s: float  # no layout that was looked at could take less
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Mixed:
        """The fastest."""
        return self.plans[0]

    @property
    def left(self) -> float:
        """Share by which another layout could be faster at most."""
        return max(1.0 - self.least_s / self.best.seconds, 0.0)

    @property
    def together_s(self) -> float:
        """Seconds of a step at the pools' own rates added up: the mark that HETHUB measures itself by."""
        rate = sum(1.0 / one.seconds for one in self.alone)
        return 1.0 / rate if rate else float("inf")


def search_mix(
    scenario: Scenario, *, least: str = "fits", everything: bool = False,
    ways: Sequence[str] = ("stages", "replicas"), known: Sequence[Alone] = (),
) -> FoundMix:  # fmt: skip
    """Return the fastest layouts of a scenario's model over all of its pools.

    `known` are pools of the question that were searched alone already. Raises `InfeasibleError` where
    no layout over all of them can be run, with what was tried.
    """
    fresh = parts_of(scenario, everything=everything)
    alone = [
        next((one for one in known if one.is_of(part.pool)), None) or _alone(part, least)
        for part in fresh
    ]
    parts = [one.part for one in alone]  # with all prices that are known
    plans: list[Mixed] = []
    notes: list[str] = []
    timed, bound = 0, float("inf")
    for way in ways:
        found, count, at_least, words = WAYS[way](scenario, parts, alone, least)
        plans += found
        timed += count
        bound = min(bound, at_least)
        notes += [f"by {way}: {words}"] if words else []
    if not plans:
        raise InfeasibleError("no layout over all pools can be run: " + "; ".join(notes))
    plans.sort(key=lambda one: one.seconds)
    return FoundMix(tuple(plans), tuple(alone), timed, bound, tuple(notes))


def _alone(part: Part, least: str) -> Alone:
    """Return the fastest layout of a pool as the whole job."""
    base = part.scenario
    try:
        space = make_space(base, choices_of(base, everything=part.everything))
        found = search(space, part.bounds, least=least, kinds=1,
                       most=2 * MOST_ALONE)  # fmt: skip
        seconds = found.plans[0].price.seconds
        return Alone(part, replace(found.best, open=()), seconds, "",
                     found.timed, (1.0 - found.left) * seconds)  # fmt: skip
    except InfeasibleError as error:
        return Alone(part, None, float("inf"), str(error))


def alone_mix(scenario: Scenario, *, least: str = "fits", everything: bool = False) -> FoundMix:
    """Return the fastest layout of a scenario that has one pool, told as a mix of one."""
    (part,) = parts_of(scenario, everything=everything)
    one = _alone(part, least)
    if one.scenario is None:
        raise InfeasibleError(one.why_not)
    return FoundMix((Mixed(one.scenario, one.seconds),), (one,), one.timed, one.least_s)


Found = tuple[list[Mixed], int, float, str]


def _by_stages(
    scenario: Scenario, parts: Sequence[Part], alone: Sequence[Alone], least: str
) -> Found:
    """Return the fastest pipelines over the pools, one for each order of them."""
    lines = pipelines(scenario, parts)
    best: dict[tuple[int, ...], Mixed] = {}
    timed = tried = 0
    for chain in lines.chains:
        if timed >= MOST_TIMED or tried >= 4 * MOST_TIMED:
            break
        if chain.bound >= min((one.seconds for one in best.values()), default=float("inf")):
            continue
        tried += 1
        case = _fitting(lines, chain, least)
        if case is None:
            continue
        timed += 1
        seconds = step_seconds(case)
        known = best.get(chain.order)
        if known is None or seconds < known.seconds:
            best[chain.order] = Mixed(case, seconds)
    why = "" if best else "no pipeline over the pools fits"
    return list(best.values()), timed, lines.least, why


def _fitting(lines: Pipelines, chain: Chain, least: str) -> Scenario | None:
    """Return the scenario of a chain whose layers are dealt out so that all stages fit; None: they do not."""
    caps = lines.caps(chain)
    for _ in range(MOST_SPLITS):
        layers = lines.layers(chain, caps)
        if layers is None:
            return None
        case = lines.layout(chain, layers)
        fits = True
        for peak in stage_peaks(case):
            verdict, _ = judge(peak.total, peak.pool.node.device.memory_bytes)
            if VERDICTS.index(verdict) < VERDICTS.index(least):
                room = peak.pool.node.device.memory_bytes / room_for_sure(1.0)
                held = layers[peak.stage]
                caps[peak.stage] = min(held - 1, int(held * room / peak.total))
                fits = False
        if fits:
            return case
    return None


def _by_replicas(
    scenario: Scenario, parts: Sequence[Part], alone: Sequence[Alone], least: str
) -> Found:
    """Return the fastest layout whose pools hold whole replicas."""
    none = [one for one in alone if one.scenario is None]
    if none:
        return [], 0, float("inf"), f"{none[0].name} holds no replica: {none[0].why_not}"
    rates = [1.0 / one.seconds for one in alone]
    batch = scenario.training.global_batch
    choices: list[list[tuple[Parallel, int]]] = []
    for part, rate in zip(parts, rates, strict=True):
        share = _round_batch(batch * rate / sum(rates), part.pool.devices)
        try:
            space = make_space(part.at(share), part.choices)
            found = search(space, part.bounds, least=least, kinds=KINDS_ALONE, most=MOST_ALONE)
        except InfeasibleError as error:
            return [], 0, float("inf"), f"{part.pool.name}: {error}"
        cases = [layout_of(part.scenario, plan.row) for plan in found.plans]
        choices.append([(case.parallel, case.training.micro_batch) for case in cases])
    best: Mixed | None = None
    timed, why = 0, ""
    places = sorted(product(*(range(len(one)) for one in choices)), key=lambda at: (sum(at), at))
    for place in islice(places, MOST_TIMED):
        case = _replicas(scenario, [one[at] for one, at in zip(choices, place, strict=True)])
        try:
            seconds = step_seconds(case)
        except (InfeasibleError, LayoutError) as error:
            why = str(error)
            continue
        timed += 1
        if best is None or seconds < best.seconds:
            best = Mixed(case, seconds)
    bound = batch / sum(_most_rate(part, least) for part in parts)
    return ([best] if best else []), timed, bound, "" if best else why


def _replicas(scenario: Scenario, layouts: Sequence[tuple[Parallel, int]]) -> Scenario:
    """Return a scenario whose pools run whole replicas of these layouts."""
    own = [
        PoolLayout(pool.name, replace(parallel, mixed="replicas", own=True), size)
        for pool, (parallel, size) in zip(scenario.pools, layouts, strict=True)
    ]
    training = replace(scenario.training, micro_batch=own[0].micro_batch)
    parallel = joined_layout(own[0].parallel, own)
    return replace(scenario, parallel=parallel, training=training, open=())


def _round_batch(share: float, devices: int) -> int:
    """Return a batch near a share that many data-parallel degrees of so many devices divide."""
    for unit in sorted(divisors(devices), reverse=True):
        if 4 * unit <= share:
            return max(round(share / unit), 1) * unit
    return max(round(share), 1)


def _most_rate(part: Part, least: str) -> float:
    """Return the most sequences a second that a layout of a pool works off, whatever its share is.

    With as many micro-batches as stages or more its memory must suffice for that many in flight; with
    fewer a pipeline stands still half of the time.
    """
    batch = part.scenario.training.global_batch
    rows: Rows = make_space(part.scenario, part.choices).rows
    long, full = rows.copy(), rows.copy()
    long[:, M] = MANY
    full[:, M] = np.maximum(rows[:, PP], 2 * (rows[:, SCHEDULE] != PLAIN))
    bounds = part.bounds
    seconds = bounds.seconds(long) / MANY * rows[:, M]
    room = room_for_sure(1.0) if least == "fits" else 1.0 / room_for_sure(1.0)
    fits = bounds.bytes(full) * room <= part.pool.node.device.memory_bytes
    few = 2.0 * seconds.min()
    return float(batch / min(few, seconds[fits].min(initial=few)))


WAYS = {"stages": _by_stages, "replicas": _by_replicas}
