"""Every layout that a job could have on its devices, as rows of whole numbers.

A row holds the degrees, the schedule and what follows from them (data-parallel degree, micro-batches).
Nothing of these rows leaves for the host: what needs it is a second pass (`ersatz.sim.search.host.second`).
Conditions are those of `ersatz.sim.scenario.checks`; each says how many rows it leaves, so that a space
that is empty can name what emptied it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ersatz.sim.plan.orders import V_SHAPED, stage_chunks
from ersatz.sim.plan.schedules import MOST_SLOTS
from ersatz.sim.scenario.scenario import Parallel, Scenario
from ersatz.sim.search.choices import RECOMPUTE, SCHEDULES, Choices, Held, divisors
from ersatz.sim.search.host.away import put_away

Rows = npt.NDArray[np.int64]
COLUMNS = ("tp", "cp", "ep", "etp", "pp", "vp", "schedule", "micro_batch", "recompute",
           "sequence_parallel", "zero", "shard", "dp", "m", "host")  # fmt: skip
TP, CP, EP, ETP, PP, VP, SCHEDULE, MB, RECOMP, SP, ZERO, SHARD, DP, M, HOST = range(len(COLUMNS))
PLAIN = SCHEDULES.index("1f1b")
LOOPED, ZBV, DUAL, DUALV = (
    SCHEDULES.index(name) for name in ("interleaved", "zb-v", "dualpipe", "dualpipev")
)
BOTH_WAYS = (DUAL, DUALV)  # a forward and a backward run side by side


class Degrees(NamedTuple):
    """What the ranks of a layout are dealt out over."""

    tp: int
    cp: int
    ep: int
    etp: int
    pp: int
    dp: int


@dataclass(slots=True)
class Space:
    """The rows of a job on its devices, and how many each condition left."""

    scenario: Scenario
    choices: Choices
    held: Held
    rows: Rows
    left: dict[str, int] = field(default_factory=dict)


def make_space(scenario: Scenario, choices: Choices, held: Held | None = None) -> Space:
    """Return all layouts of a scenario's model, batch and devices; `held` fixes axes."""
    held = held or {}
    space = Space(scenario, choices, held, np.empty((0, len(COLUMNS)), dtype=np.int64))
    found = [block for degrees in _degrees(space) for block in _blocks(space, degrees)]
    if found:
        space.rows = np.concatenate(found)
    return space


def _note(space: Space, name: str, count: int = 1) -> bool:
    space.left[name] = space.left.get(name, 0) + count
    return True


def _degrees(space: Space) -> Iterator[Degrees]:
    """Yield the degrees that model and devices allow."""
    s, held = space.scenario, space.held
    devices = s.devices
    for tp in _tensor(space):
        _note(space, "tp divides the heads")
        for cp in _context(space, tp):
            for pp in _fixed(held, "pp", _stages(space, devices // (tp * cp))):
                if devices % (tp * cp * pp) or pp > s.model.layers:
                    continue
                dp = devices // (tp * cp * pp)
                _note(space, "tp x cp x pp divides the devices")
                if held.get("dp", dp) != dp:
                    continue
                if s.training.global_batch % dp:
                    continue
                _note(space, "dp divides the global batch")
                for ep, etp in _experts(space, tp, cp, dp):
                    yield Degrees(tp, cp, ep, etp, pp, dp)


def _fixed(held: Held, axis: str, values: list[Any]) -> list[Any]:
    """Return the values of an axis, or the one that is held."""
    return [held[axis]] if axis in held else values


def _tensor(space: Space) -> list[int]:
    model, devices = space.scenario.model, space.scenario.devices
    most = space.choices.most_tensor if space.choices.tensor else 1
    wanted = _fixed(space.held, "tp", [d for d in divisors(devices) if d <= most])

    def suits(tp: int) -> bool:
        for kind in model.kinds:
            kv = kind.kv_heads
            if kind.heads % tp or (kind.heads and not kind.latent and kv % tp and tp % kv):
                return False
            if kind.recurrence and kind.recurrence.heads % tp:
                return False
        return devices % tp == 0

    return [tp for tp in wanted if suits(tp)]


def _context(space: Space, tp: int) -> list[int]:
    s = space.scenario
    length, comm = s.training.sequence_length, s.parallel.cp_comm
    most = max(length // space.choices.least_context_tokens, 1)
    wanted = [d for d in divisors(s.devices // tp) if d <= most]
    heads = {kind.heads // tp for kind in s.model.kinds if kind.heads}

    def suits(cp: int) -> bool:
        if length % cp or s.devices % (tp * cp):
            return False
        if comm == "a2a":
            return all(count % cp == 0 for count in heads)
        return comm != "a2a+p2p" or cp == s.parallel.cp

    return [cp for cp in _fixed(space.held, "cp", wanted) if suits(cp)]


def _stages(space: Space, devices: int) -> list[int]:
    """Return numbers of pipeline stages: divisors of the devices, one alone without a schedule."""
    if not space.choices.schedules:
        return [1]
    return [d for d in divisors(devices) if d <= space.scenario.model.layers]


def _experts(space: Space, tp: int, cp: int, dp: int) -> Iterator[tuple[int, int]]:
    s = space.scenario
    routed = [kind.experts.routed for kind in s.model.kinds if kind.experts]
    if not routed:
        if space.held.get("ep", 1) == space.held.get("etp", 1) == 1:
            _note(space, "experts divide over ep")
            yield 1, 1
        return
    strided = s.parallel.expert_layout == "strided"
    degrees = divisors(math.gcd(*routed))
    for ep in _fixed(space.held, "ep", degrees):
        if any(count % ep for count in routed):
            continue
        wanted = [tp] if strided else sorted({1, tp})
        for etp in _fixed(space.held, "etp", wanted):
            spread, inner = ep * etp, tp * cp
            if (tp * cp * dp) % spread or etp not in (1, tp):
                continue
            if strided and (dp % ep or etp != tp):
                continue
            if not strided and spread > 1 and math.gcd(spread, inner) not in (spread, inner):
                continue
            _note(space, "experts divide over ep")
            yield ep, etp


def _blocks(space: Space, at: Degrees) -> Iterator[Rows]:
    """Yield the rows of some degrees: micro-batches, schedules, recomputation, ZeRO."""
    s, choices, held = space.scenario, space.choices, space.held
    each = s.training.global_batch // at.dp
    sizes = [b for b in divisors(each) if b <= choices.most_micro_batch]
    many = list(product(
        [RECOMPUTE.index(str(mode)) for mode in _fixed(held, "recompute", list(choices.recompute))],
        _sequence(space, at.tp), _sharding(space, at),
    ))  # fmt: skip
    for mb in _fixed(held, "micro_batch", sizes):
        if each % mb:
            continue
        m = each // mb
        for schedule, vp in _orders(space, at.pp, m):
            _note(space, "a schedule suits stages and micro-batches")
            yield np.array([
                (at.tp, at.cp, at.ep, at.etp, at.pp, vp, schedule, mb, mode, sp, zero, shard, at.dp, m, 0)
                for mode, sp, (zero, shard) in many
            ], dtype=np.int64).reshape(-1, len(COLUMNS))  # fmt: skip


def _sequence(space: Space, tp: int) -> list[int]:
    """Return whether norms and residuals are spread over the tensor group."""
    if tp == 1:
        return [0]
    s = space.scenario
    if not space.choices.sequence:
        return [int(v) for v in _fixed(space.held, "sequence_parallel", [0])]
    forced = bool(s.model.experts) and not all(p.stack.slices_expert_tokens for p in s.pools)
    return [int(v) for v in _fixed(space.held, "sequence_parallel", [1] if forced else [0, 1])]


def _sharding(space: Space, at: Degrees) -> list[tuple[int, int]]:
    """Return ZeRO stages, each with its shard: all replicas, or with ZeRO 3 those of one node."""
    found = []
    for zero in _fixed(space.held, "zero", list(space.choices.zero)):
        shards = [0]
        inside = space.scenario.pools[0].node.devices // (at.tp * at.cp)
        if zero == 3 and 1 < inside < at.dp and at.dp % inside == 0 and at.ep == 1:
            shards.append(inside)
        found += [(int(zero), int(shard)) for shard in _fixed(space.held, "shard", shards)]
    return found


def _orders(space: Space, pp: int, m: int) -> Iterator[tuple[int, int]]:
    """Yield schedules with chunks per stage that suit stages, layers and micro-batches."""
    layers, held = space.scenario.model.layers, space.held
    names = [str(n) for n in _fixed(held, "schedule", list(space.choices.schedules) or ["1f1b"])]
    if pp == 1:
        names = ["1f1b"]
    for name in names:
        if name == "interleaved":
            if m % pp:
                continue
            for vp in _fixed(held, "vp", _chunks(layers, pp, space.choices.most_chunks)):
                if vp > 1 and pp * vp <= layers and pp * vp * m <= MOST_SLOTS:
                    yield LOOPED, int(vp)
            continue
        if held.get("vp", 1) != 1 or pp * m > MOST_SLOTS:
            continue
        if name in V_SHAPED and (m < 2 * pp or 2 * pp > layers):
            continue
        if name == "dualpipe" and (pp % 2 or m % 2 or m < 2 * pp):
            continue
        yield SCHEDULES.index(name), 1


def _chunks(layers: int, pp: int, most: int) -> list[int]:
    """Return chunks per stage: those that divide the layers evenly, and a few others where none do."""
    even = [v for v in range(2, most + 1) if layers % (pp * v) == 0]
    return even if layers % pp == 0 and even else [v for v in (2, 3, 4, 5, 6, 8) if v <= most]


def layout_of(scenario: Scenario, row: Rows | tuple[int, ...]) -> Scenario:
    """Return the scenario with the layout of a row."""
    (tp, cp, ep, etp, pp, vp, schedule, mb, mode, sp, zero, shard, dp, _, host) = map(int, row)
    base = scenario.parallel
    parallel = Parallel(
        tp=tp, pp=pp, vp=vp, cp=cp, ep=ep, etp=etp, dp=dp, sequence_parallel=bool(sp),
        zero=zero, shard=shard, schedule=SCHEDULES[schedule],  # type: ignore[arg-type]
        recompute=RECOMPUTE[mode],  # type: ignore[arg-type]
        cp_comm=base.cp_comm if cp > 1 else "p2p", cp_inner=base.cp_inner if cp > 1 else 1,
        expert_layout=base.expert_layout if ep > 1 and tp * cp > 1 else "folded",
    )  # fmt: skip
    training = replace(scenario.training, micro_batch=mb)
    return put_away(replace(scenario, parallel=parallel, training=training), host)


def row_of(scenario: Scenario) -> tuple[int, ...]:
    """Return the row of a scenario's own layout; what it has on the host is its stack's business."""
    p, t = scenario.parallel, scenario.training
    m = t.global_batch // (t.micro_batch * p.dp)
    return (p.tp, p.cp, p.ep, p.etp, p.pp, p.vp, SCHEDULES.index(p.schedule), t.micro_batch,
            RECOMPUTE.index(p.recompute), int(p.sequence_parallel and p.tp > 1), p.zero, p.shard,
            p.dp, m, 0)  # fmt: skip


def chunks_of(row: tuple[int, ...]) -> int:
    """Return the chunks of a stage's pipeline of a row."""
    return stage_chunks(SCHEDULES[row[SCHEDULE]], row[VP])
