"""Pipeline schedules: in which order a stage runs the phases of its chunks, as data.

A schedule is, per stage, a tuple of slots; a slot is one part (phase, chunk, micro-batch), or a
forward and a backward that overlap. Phases: F forward, B whole backward, I input gradient only,
W weight gradient only. `PIPELINE_SCHEDULES` maps names to functions; a caller may pass its own
orders. Orders say nothing about durations, so they are cached per shape.

Sources: GPipe (Huang et al. 2019), 1F1B and interleaving (Narayanan et al. 2021), zero-bubble
ZB-H1 and ZB-V (Qi et al. 2024), DualPipe (DeepSeek-AI 2024) and DualPipeV (the same, cut
in half: Sea AI Lab 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

MOST_SLOTS = 1_000_000  # of one schedule: some ten seconds


class Part(NamedTuple):
    """One phase of one model chunk for one micro-batch."""

    phase: str  # F, B, I or W
    chunk: int
    microbatch: int


Slot = tuple[Part, ...]
Order = tuple[Slot, ...]
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


def _slots(parts: Sequence[Part]) -> list[Slot]:
    return [(part,) for part in parts]


def gpipe(p: int, m: int, v: int) -> list[list[Slot]]:
    """All forwards, then all backwards."""
    one = [Part("F", 0, i) for i in range(m)] + [Part("B", 0, i) for i in range(m)]
    return [_slots(one) for _ in range(p)]


def one_f_one_b(p: int, m: int, v: int) -> list[list[Slot]]:
    """Warm up with p-1-s forwards, then alternate one forward and one backward."""
    orders = []
    for stage in range(p):
        warm = min(p - 1 - stage, m)
        order = [Part("F", 0, i) for i in range(warm)]
        for i in range(m - warm):
            order += [Part("F", 0, warm + i), Part("B", 0, i)]
        order += [Part("B", 0, i) for i in range(m - warm, m)]
        orders.append(_slots(order))
    return orders


def interleaved(p: int, m: int, v: int) -> list[list[Slot]]:
    """1F1B over v chunks per stage; micro-batches go through a chunk in groups of p."""
    if m % p:
        raise ValueError(f"interleaving needs micro-batches ({m}) in whole groups of {p} stages")
    forward = [(k // p % v, k // (p * v) * p + k % p) for k in range(m * v)]
    orders = []
    for stage in range(p):
        warm = min((p - stage - 1) * 2 + (v - 1) * p, m * v)
        order = [Part("F", *forward[k]) for k in range(warm)]
        for k in range(m * v):
            if warm + k < m * v:
                order.append(Part("F", *forward[warm + k]))
            chunk, microbatch = forward[k]
            order.append(Part("B", v - 1 - chunk, microbatch))
        orders.append(_slots(order))
    return orders


def zb_h1(p: int, m: int, v: int) -> list[list[Slot]]:
    """1F1B with weight gradients put off into the bubble, at the memory of 1F1B."""
    orders = []
    for stage in range(p):
        warm = min(p - 1 - stage, m)
        order = [Part("F", 0, i) for i in range(warm)]
        done = 0  # weight gradients
        for i in range(m):
            if warm + i < m:
                order.append(Part("F", 0, warm + i))
            order.append(Part("I", 0, i))
            if (i >= stage and warm + i < m) or warm + i >= m:
                order.append(Part("W", 0, done))
                done += 1
        order += [Part("W", 0, i) for i in range(done, m)]
        orders.append(_slots(order))
    return orders


def zb_v(p: int, m: int, v: int) -> list[list[Slot]]:
    """Two chunks per stage in a V, weight gradients where a stage would wait otherwise."""
    if m < 2 * p:
        raise ValueError(f"ZB-V needs at least 2 x stages ({2 * p}) micro-batches, not {m}")
    return [_slots(_zb_v_rank(p, m, rank)) for rank in range(p)]


def _zb_v_rank(p: int, m: int, rank: int) -> list[Part]:
    """Warm up until the first micro-batch returns, alternate both chunks, drain with W last."""
    count = {(phase, chunk): 0 for phase in "FIW" for chunk in (0, 1)}
    order: list[Part] = []

    def take(*steps: tuple[str, int]) -> None:
        for step in steps:
            order.append(Part(*step, count[step]))
            count[step] += 1

    take(*[("F", 0)] * (2 * (p - rank) - 1))
    for _ in range(rank):
        take(("F", 1), ("F", 0))
    for _ in range(p - rank):
        take(("F", 1), ("I", 1), ("W", 1))
    while count["F", 1] < count["F", 0] or count["F", 0] < m:
        if count["F", 0] < m:
            take(("F", 0))
        take(("I", 0), ("W", 0), ("F", 1), ("I", 1), ("W", 1))
    for _ in range(rank):
        take(("I", 0), ("I", 1))
    for _ in range(p - rank):
        take(("I", 0), ("W", 0))
    take(*[("W", 1)] * (m - count["W", 1]), *[("W", 0)] * (m - count["W", 0]))
    return order


def dualpipe(p: int, m: int, v: int) -> list[list[Slot]]:
    """Bidirectional pipelines whose forward and backward chunks overlap (DeepSeek-V3).

    Every stage holds a chunk of each direction; half of the micro-batches enter at each end.
    """
    if p % 2 or m % 2 or m < 2 * p:
        raise ValueError(
            f"DualPipe needs even stages ({p}) and even micro-batches ({m}) >= 2 x stages"
        )
    return [_dualpipe_rank(p, m // 2, rank) for rank in range(p)]


def _dualpipe_rank(p: int, m: int, rank: int) -> list[Slot]:
    """The order of one rank, `m` micro-batches in each direction: eight parts, as published."""
    near, half = min(rank, p - 1 - rank), p // 2
    outer = half - near - 1  # ranks between this one and the middle
    run = _BothWays(m, second=rank >= half)
    for _ in range(outer * 2):
        run.forward(0)
    for _ in range(near + 1):
        run.forward(0)
        run.forward(1)
    return _both_ways(run, outer, near, m - p + near + 1)


def dualpipev(p: int, m: int, v: int) -> list[list[Slot]]:
    """DualPipe cut in half: two chunks per stage in a V, whose forward and backward overlap.

    The way back of the V takes the place of the second direction, so that no weights stand twice.
    """
    if m < 2 * p:
        raise ValueError(f"DualPipeV needs at least 2 x stages ({2 * p}) micro-batches, not {m}")
    return [_dualpipev_rank(p, m, rank) for rank in range(p)]


def _dualpipev_rank(p: int, m: int, rank: int) -> list[Slot]:
    """The order of one rank: eight parts, as published; phase 0 is the way down, 1 the way up."""
    after = p - rank - 1  # ranks between this one and the turn of the V
    run = _BothWays(0, second=False)
    for _ in range(after * 2):
        run.forward(0)
    for _ in range(rank + 1):
        run.forward(0)
        run.forward(1)
    return _both_ways(run, after, rank, m - 2 * p + rank + 1)


def _both_ways(run: _BothWays, outer: int, near: int, steady: int) -> list[Slot]:
    """The last six parts of an order, alike in both: from the first way back to the last weights.

    `outer` ranks stand between this one and where the directions meet, `near` on its other side.
    """
    for _ in range(outer):
        run.backward(1, put_off=True)
        run.weight()
        run.forward(1)
    for i in range(steady):
        if i == 0 and not outer:
            run.forward(0)
            run.backward(1)
        else:
            run.both(0, 1)
        run.both(1, 0)
    for _ in range(outer):
        run.backward(1)
        run.both(1, 0)
    for i in range(near + 1):
        middle = (near + 1) // 2
        run.backward(1, put_off=i > middle or (i == middle and near % 2 == 1))
        run.backward(0, put_off=i >= middle)
    for _ in range(outer):
        run.weight()
        run.backward(0, put_off=True)
    while run.waiting:
        run.weight()
    return run.order


class _BothWays:
    """Writes the order of a rank that works in both directions; phase 0 enters nearer to it."""

    def __init__(self, microbatches: int, *, second: bool) -> None:
        self.microbatches, self.second = microbatches, second
        self.count = {(kind, chunk): 0 for kind in "FB" for chunk in (0, 1)}
        self.waiting: list[Part] = []  # weight gradients put off, oldest first
        self.order: list[Slot] = []

    def _take(self, kind: str, phase: int) -> Part:
        chunk = phase ^ self.second
        number = self.count[kind, chunk]
        self.count[kind, chunk] += 1
        return Part(kind, chunk, chunk * self.microbatches + number)

    def forward(self, phase: int) -> None:
        self.order.append((self._take("F", phase),))

    def backward(self, phase: int, *, put_off: bool = False) -> None:
        part = self._take("B", phase)
        if put_off:
            self.waiting.append(part._replace(phase="W"))
            part = part._replace(phase="I")
        self.order.append((part,))

    def weight(self) -> None:
        self.order.append((self.waiting.pop(0),))

    def both(self, forward: int, backward: int) -> None:
        self.order.append((self._take("F", forward), self._take("B", backward)))


PipelineSchedule = Callable[[int, int, int], list[list[Slot]]]
PIPELINE_SCHEDULES: dict[str, PipelineSchedule] = {
    "gpipe": gpipe,
    "1f1b": one_f_one_b,
    "interleaved": interleaved,
    "zb-h1": zb_h1,
    "zb-v": zb_v,
    "dualpipe": dualpipe,
    "dualpipev": dualpipev,
}
V_SHAPED = ("zb-v", "dualpipev")  # two chunks per stage by nature: on the way down and up


def stage_chunks(name: str, v: int) -> int:
    """Return how many positions of one pipeline a stage holds; `v` where the schedule asks for them."""
    return {**dict.fromkeys(V_SHAPED, 2), "dualpipe": 1}.get(name, v)


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
    `custom` gives the orders directly (per stage: phase, chunk, micro-batch). Raises ValueError
    when the shape does not suit the schedule, a part is missing, the orders are circular or there
    are more than `MOST_SLOTS` of them.
    """
    if name == "interleaved" and v == 1:
        name = "1f1b"
    if p * max(m, 1) * v > MOST_SLOTS:
        chunks = f" of {v:,} chunks" if v > 1 else ""
        raise ValueError(f"{m:,} micro-batches over {p:,} stages{chunks} are more than can be"
                         f" walked: at most {MOST_SLOTS:,} slots")  # fmt: skip
    if custom:
        orders = tuple(tuple(_slots([Part(*part) for part in stage])) for stage in custom)
    else:
        orders = tuple(tuple(order) for order in PIPELINE_SCHEDULES[name](p, m, v))
    places = chunk_places(name, p, v)
    length = 1 + max(place.position for row in places for place in row)
    _check_places(orders, places, m)
    _check_complete(orders, places, m)
    return Schedule(name, m, orders, places, length, _walk(orders, places, length, m, runs))


def _check_places(orders: Sequence[Order], places: Sequence[Sequence[Place]], m: int) -> None:
    """There is an order for each stage, of chunks that it holds and of micro-batches that there are."""
    if len(orders) != len(places):
        raise ValueError(f"orders of {len(orders)} stages for {len(places)}")
    for stage, order in enumerate(orders):
        for part in (part for slot in order for part in slot):
            if not (0 <= part.chunk < len(places[stage]) and 0 <= part.microbatch < m):
                raise ValueError(
                    f"stage {stage} runs micro-batch {part.microbatch} of chunk {part.chunk};"
                    f" there are {m} of {len(places[stage])}, from 0"
                )


def _check_complete(orders: Sequence[Order], places: Sequence[Sequence[Place]], m: int) -> None:
    """Each chunk runs every one of its micro-batches forward once and backward once."""
    lines = 1 + max(place.line for row in places for place in row)
    for stage, order in enumerate(orders):
        parts = [part for slot in order for part in slot]
        if len(parts) != len(set(parts)):
            raise ValueError(f"stage {stage} runs a part twice")
        for chunk in range(len(places[stage])):
            mine = [part for part in parts if part.chunk == chunk]
            forward = {part.microbatch for part in mine if part.phase == "F"}
            whole = {part.microbatch for part in mine if part.phase == "B"}
            inputs = {part.microbatch for part in mine if part.phase == "I"}
            weights = {part.microbatch for part in mine if part.phase == "W"}
            if len(forward) != m // lines or forward != whole | inputs or inputs != weights:
                raise ValueError(
                    f"stage {stage} chunk {chunk} runs {len(forward)} micro-batches forward,"
                    f" {len(whole | inputs)} backward and {len(whole | weights)} weight gradients;"
                    f" expected {m // lines} of each"
                )


def _walk(
    orders: Sequence[Order], places: Sequence[Sequence[Place]], length: int, m: int, runs: bool
) -> tuple[Visit, ...]:
    """Order the slots of all stages so that each comes after the messages that it needs."""
    visits = [_visits(s, order, places[s], length, m, runs) for s, order in enumerate(orders)]
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
            raise ValueError(
                f"the schedule is circular: stage {stage} waits at {orders[stage][at]}"
            )
    return tuple(walk)


def _visits(
    stage: int, order: Order, places: Sequence[Place], length: int, m: int, runs: bool
) -> list[Visit]:
    edges = _ends_of_runs(order) if runs else {}
    first: dict[int, Part] = {}
    last: dict[int, Part] = {}
    for slot in order:
        for part in slot:
            if part.phase == "F":
                first.setdefault(part.chunk, part)
            elif part.phase in "BW":
                last[part.chunk] = part
    edges |= dict.fromkeys(first.values(), "first") | dict.fromkeys(last.values(), "last")
    return [_visit(stage, slot, places, length, m, edges) for slot in order]


def _ends_of_runs(order: Order) -> dict[Part, str]:
    """Return the backward parts after which the stage goes back through another chunk."""
    backward = [part for slot in order for part in slot if part.phase in "BW"]
    return {a: "run" for a, b in pairwise(backward) if a.chunk != b.chunk}


def _visit(
    stage: int, slot: Slot, places: Sequence[Place], length: int, m: int, edges: Mapping[Part, str]
) -> Visit:
    keys, inputs, outputs = [], [], []
    for part in slot:
        phase, chunk, microbatch = part
        line, position = places[chunk]
        keys.append((phase, chunk, edges.get(part, "")))
        base = line * (length + 1)
        into = out = -1
        if phase == "F":
            into = ((base + position) * m + microbatch) * 2 if position else -1
            out = ((base + position + 1) * m + microbatch) * 2 if position < length - 1 else -1
        elif phase in "BI":
            into = ((base + position) * m + microbatch) * 2 + 1 if position < length - 1 else -1
            out = ((base + position - 1) * m + microbatch) * 2 + 1 if position else -1
        inputs.append(into)
        outputs.append(out)
    return Visit(stage, tuple(keys), tuple(inputs), tuple(outputs))
