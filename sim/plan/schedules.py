"""Pipeline schedules: the orders of all stages, and the walk through them that respects every message.

Orders are those of `sim/plan/orders.py` or a caller's own. They say nothing about durations, so schedules
are cached per shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from ersatz.sim.errors import LayoutError
from ersatz.sim.plan.orders import PIPELINE_SCHEDULES, V_SHAPED, Order, Part, Slot

MOST_SLOTS = 1_000_000  # of one schedule: some ten seconds

Variant = tuple[tuple[str, int, str], ...]  # per part: phase, chunk, '' | 'first' | 'last' | 'run'


class Place(NamedTuple):
    """Where a chunk stands: which pipeline (`line`) and which position in it."""

    line: int
    position: int


class Visit(NamedTuple):
    """One slot in the order in which an engine walks all stages."""

    stage: int
    block: Variant
    inputs: tuple[int, ...]  # message number per part; -1: none
    outputs: tuple[int, ...]  # message number per part; -1: none


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Orders of all stages, and the walk through them that respects every message."""

    name: str
    microbatches: int
    orders: tuple[Order, ...]
    places: tuple[tuple[Place, ...], ...]  # per stage and chunk
    length: int  # positions of one pipeline
    walk: tuple[Visit, ...]

    @property
    def stages(self) -> int:
        """Pipeline stages."""
        return len(self.orders)

    @property
    def chunks(self) -> int:
        """Model chunks per stage."""
        return len(self.places[0])

    def steps_to(self, stage: int, chunk: int, phase: str) -> int | None:
        """Return how many stages further a phase of a chunk sends its result; None: nowhere."""
        line, position = self.places[stage][chunk]
        target = position + (1 if phase == "F" else -1)
        for other, row in enumerate(self.places):
            if Place(line, target) in row:
                return other - stage
        return None


def chunk_places(name: str, p: int, v: int) -> tuple[tuple[Place, ...], ...]:
    """Return where each stage's chunks stand: looped, in a V, or in two directions."""
    if name in V_SHAPED:
        return tuple((Place(0, s), Place(0, 2 * p - 1 - s)) for s in range(p))
    if name == "dualpipe":
        return tuple((Place(0, s), Place(1, p - 1 - s)) for s in range(p))
    return tuple(tuple(Place(0, c * p + s) for c in range(v)) for s in range(p))


@lru_cache(maxsize=256)
def make_schedule(
    name: str, p: int, m: int, v: int = 1,
    custom: tuple[tuple[tuple[str, int, int], ...], ...] = (), *, runs: bool = False,
) -> Schedule:  # fmt: skip
    """Return the schedule of `p` stages, `m` micro-batches and `v` chunks per stage.

    With `runs` the last backward of each run of a chunk's is marked, too, as 'run'. Interleaving
    one chunk per stage is 1F1B.
    `custom` gives the orders directly (per stage: phase, chunk, micro-batch). Raises LayoutError
    when the shape does not suit the schedule, a part is missing, the orders are circular or there
    are more than `MOST_SLOTS` of them.
    """
    if name == "interleaved" and v == 1:
        name = "1f1b"
    within_limits(p, m, v)
    orders: tuple[Order, ...]
    if custom:
        orders = tuple(tuple((Part(*part),) for part in stage) for stage in custom)
    else:
        orders = tuple(tuple(order) for order in PIPELINE_SCHEDULES[name](p, m, v))
    places = chunk_places(name, p, v)
    length = 1 + max(place.position for row in places for place in row)
    _check_places(orders, places, m)
    _check_complete(orders, places, m)
    return Schedule(name, m, orders, places, length, _walk(orders, places, length, m, runs))


def within_limits(p: int, m: int, v: int) -> None:
    """Raise LayoutError where there are more slots than can be walked."""
    if p * max(m, 1) * v > MOST_SLOTS:
        chunks = f" of {v:,} chunks" if v > 1 else ""
        raise LayoutError(f"{m:,} micro-batches over {p:,} stages{chunks} are more than can be"
                         f" walked: at most {MOST_SLOTS:,} slots")  # fmt: skip


def _check_places(orders: Sequence[Order], places: Sequence[Sequence[Place]], m: int) -> None:
    """There is an order for each stage, of chunks that it holds and of micro-batches that there are."""
    if len(orders) != len(places):
        raise LayoutError(f"orders of {len(orders)} stages for {len(places)}")
    for stage, order in enumerate(orders):
        for part in (part for slot in order for part in slot):
            if not (0 <= part.chunk < len(places[stage]) and 0 <= part.microbatch < m):
                raise LayoutError(
                    f"stage {stage} runs micro-batch {part.microbatch} of chunk {part.chunk};"
                    f" there are {m} of {len(places[stage])}, from 0"
                )


def _check_complete(orders: Sequence[Order], places: Sequence[Sequence[Place]], m: int) -> None:
    """Each chunk runs every one of its micro-batches forward once and backward once."""
    lines = 1 + max(place.line for row in places for place in row)
    for stage, order in enumerate(orders):
        parts = [part for slot in order for part in slot]
        if len(parts) != len(set(parts)):
            raise LayoutError(f"stage {stage} runs a part twice")
        for chunk in range(len(places[stage])):
            mine = [part for part in parts if part.chunk == chunk]
            forward = {part.microbatch for part in mine if part.phase == "F"}
            whole = {part.microbatch for part in mine if part.phase == "B"}
            inputs = {part.microbatch for part in mine if part.phase == "I"}
            weights = {part.microbatch for part in mine if part.phase == "W"}
            if len(forward) != m // lines or forward != whole | inputs or inputs != weights:
                raise LayoutError(
                    f"stage {stage} chunk {chunk} runs {len(forward)} micro-batches forward,"
                    f" {len(whole | inputs)} backward and {len(whole | weights)} weight gradients;"
                    f" expected {m // lines} of each"
                )


def _walk(
    orders: Sequence[Order], places: Sequence[Sequence[Place]], length: int, m: int, runs: bool
) -> tuple[Visit, ...]:
    """Order the slots of all stages so that each comes after the messages that it needs."""
    visits = [stage_visits(s, order, places[s], length, m, runs) for s, order in enumerate(orders)]
    cursor = [0] * len(orders)
    sent = {-1}
    walk: list[Visit] = []
    pending = True
    while pending:
        pending = False
        for stage, mine in enumerate(visits):
            at = cursor[stage]
            while at < len(mine) and sent.issuperset(mine[at].inputs):
                walk.append(mine[at])
                sent.update(mine[at].outputs)
                at += 1
            pending = pending or at > cursor[stage]
            cursor[stage] = at
    for stage, at in enumerate(cursor):
        if at < len(orders[stage]):
            raise LayoutError(
                f"the schedule is circular: stage {stage} waits at {orders[stage][at]}"
            )
    return tuple(walk)


def stage_visits(
    stage: int, order: Order, places: Sequence[Place], length: int, m: int, runs: bool
) -> list[Visit]:
    """Return the slots of a stage in its order, with the messages that each takes and leaves."""
    edges, known, found = edges_of(order, runs), dict[tuple[str, int, str], _Passage](), []
    for slot in order:
        passages, inputs, outputs = [], [], []
        for part in slot:
            phase, chunk, microbatch = part
            name = phase, chunk, edges.get(part, "")
            passage = known.get(name)
            if passage is None:
                passage = known[name] = _passage(name, places[chunk], length, m)
            into, out = passage.into, passage.out
            passages.append(passage.name)
            inputs.append(into if into < 0 else into + 2 * microbatch)
            outputs.append(out if out < 0 else out + 2 * microbatch)
        found.append(Visit(stage, tuple(passages), tuple(inputs), tuple(outputs)))
    return found


class _Passage(NamedTuple):
    """A phase of a chunk at an edge, with the messages of its first micro-batch; -1: none."""

    name: tuple[str, int, str]
    into: int
    out: int


def _passage(name: tuple[str, int, str], place: Place, length: int, m: int) -> _Passage:
    phase, line, position = name[0], place.line, place.position
    at = (line * (length + 1) + position) * m * 2
    if phase == "F":
        return _Passage(name, at if position else -1, at + 2 * m if position < length - 1 else -1)
    if phase in "BI":
        return _Passage(
            name, at + 1 if position < length - 1 else -1, at - 2 * m + 1 if position else -1
        )
    return _Passage(name, -1, -1)


def edges_of(order: Sequence[Slot], runs: bool) -> dict[Part, str]:
    """Return the parts of a stage at an edge: 'first' and 'last' of a chunk, with `runs` 'run', too."""
    edges = _ends_of_runs(order) if runs else {}
    first: dict[int, Part] = {}
    last: dict[int, Part] = {}
    for slot in order:
        for part in slot:
            if part[0] == "F":
                first.setdefault(part[1], part)
            elif part[0] in "BW":
                last[part[1]] = part
    return edges | dict.fromkeys(first.values(), "first") | dict.fromkeys(last.values(), "last")


def _ends_of_runs(order: Sequence[Slot]) -> dict[Part, str]:
    """Return the backward parts after which the stage goes back through another chunk."""
    backward = [part for slot in order for part in slot if part.phase in "BW"]
    return {a: "run" for a, b in pairwise(backward) if a.chunk != b.chunk}
