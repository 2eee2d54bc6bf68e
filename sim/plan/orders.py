"""In which order each stage of a pipeline runs the phases of its chunks, as data.

An order is a tuple of slots; a slot is one part (phase, chunk, micro-batch), or a forward and a
backward that overlap. Phases: F forward, B whole backward, I input gradient only, W weight gradient
only. `PIPELINE_SCHEDULES` maps names to functions of (stages, micro-batches, chunks a stage).

Sources: GPipe (Huang et al. 2019), 1F1B and interleaving (Narayanan et al. 2021), zero-bubble
ZB-H1 and ZB-V (Qi et al. 2024), DualPipe (DeepSeek-AI 2024) and DualPipeV (the same, cut
in half: Sea AI Lab 2025).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from ersatz.sim.errors import LayoutError


class Part(NamedTuple):
    """One phase of one model chunk for one micro-batch."""

    phase: str  # F, B, I or W
    chunk: int
    microbatch: int


Slot = tuple[Part, ...]
Order = tuple[Slot, ...]


Row = list[Slot]


@lru_cache(maxsize=4)
def _singles(m: int, v: int) -> dict[tuple[str, int], Row]:
    """Return the slots of one part by phase and chunk; all stages share them."""
    return {(phase, chunk): [(Part(phase, chunk, i),) for i in range(m)]
            for phase in "FBIW" for chunk in range(v)}  # fmt: skip


def gpipe(p: int, m: int, v: int) -> list[Row]:
    """All forwards, then all backwards."""
    single = _singles(m, 1)
    return [single["F", 0] + single["B", 0] for _ in range(p)]


def _alternated(forward: Row, backward: Row, warm: int) -> Row:
    """Return an order that begins with `warm` forwards and then alternates."""
    pairs = chain.from_iterable(zip(forward[warm:], backward, strict=False))
    return [*forward[:warm], *pairs, *backward[len(forward) - warm :]]


def one_f_one_b(p: int, m: int, v: int) -> list[Row]:
    """Warm up with p-1-s forwards, then alternate one forward and one backward."""
    single = _singles(m, 1)
    return [
        _alternated(single["F", 0], single["B", 0], min(p - 1 - stage, m)) for stage in range(p)
    ]


def interleaved(p: int, m: int, v: int) -> list[Row]:
    """1F1B over v chunks per stage; micro-batches go through a chunk in groups of p."""
    if m % p:
        raise LayoutError(f"interleaving needs micro-batches ({m}) in whole groups of {p} stages")
    single = _singles(m, v)
    places = [(k // p % v, k // (p * v) * p + k % p) for k in range(m * v)]
    forward = [single["F", chunk][i] for chunk, i in places]
    backward = [single["B", v - 1 - chunk][i] for chunk, i in places]
    return [
        _alternated(forward, backward, min((p - stage - 1) * 2 + (v - 1) * p, m * v))
        for stage in range(p)
    ]


def zb_h1(p: int, m: int, v: int) -> list[Row]:
    """1F1B with weight gradients put off into the bubble, at the memory of 1F1B."""
    single = _singles(m, 1)
    forward, backward, weights = (single[phase, 0] for phase in "FIW")
    orders = []
    for stage in range(p):
        warm = min(p - 1 - stage, m)
        order = forward[:warm]
        done = 0  # weight gradients
        for i in range(m):
            if warm + i < m:
                order.append(forward[warm + i])
            order.append(backward[i])
            if (i >= stage and warm + i < m) or warm + i >= m:
                order.append(weights[done])
                done += 1
        orders.append(order + weights[done:])
    return orders


def zb_v(p: int, m: int, v: int) -> list[Row]:
    """Two chunks per stage in a V, weight gradients where a stage would wait otherwise."""
    if m < 2 * p:
        raise LayoutError(f"ZB-V needs at least 2 x stages ({2 * p}) micro-batches, not {m}")
    return [_zb_v_rank(p, m, rank) for rank in range(p)]


def _zb_v_rank(p: int, m: int, rank: int) -> Row:
    """Warm up until the first micro-batch returns, alternate both chunks, drain with W last."""
    single = _singles(m, 2)
    count = {(phase, chunk): 0 for phase in "FIW" for chunk in (0, 1)}
    order: Row = []

    def take(*steps: tuple[str, int]) -> None:
        for step in steps:
            order.append(single[step][count[step]])
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


def dualpipe(p: int, m: int, v: int) -> list[Row]:
    """Bidirectional pipelines whose forward and backward chunks overlap (DeepSeek-V3).

    Every stage holds a chunk of each direction; half of the micro-batches enter at each end.
    """
    if p % 2 or m % 2 or m < 2 * p:
        raise LayoutError(
            f"DualPipe needs even stages ({p}) and even micro-batches ({m}) >= 2 x stages"
        )
    return [_dualpipe_rank(p, m // 2, rank) for rank in range(p)]


def _dualpipe_rank(p: int, m: int, rank: int) -> Row:
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


def dualpipev(p: int, m: int, v: int) -> list[Row]:
    """DualPipe cut in half: two chunks per stage in a V, whose forward and backward overlap.

    The way back of the V takes the place of the second direction, so that no weights stand twice.
    """
    if m < 2 * p:
        raise LayoutError(f"DualPipeV needs at least 2 x stages ({2 * p}) micro-batches, not {m}")
    return [_dualpipev_rank(p, m, rank) for rank in range(p)]


def _dualpipev_rank(p: int, m: int, rank: int) -> Row:
    """The order of one rank: eight parts, as published; phase 0 is the way down, 1 the way up."""
    after = p - rank - 1  # ranks between this one and the turn of the V
    run = _BothWays(0, second=False)
    for _ in range(after * 2):
        run.forward(0)
    for _ in range(rank + 1):
        run.forward(0)
        run.forward(1)
    return _both_ways(run, after, rank, m - 2 * p + rank + 1)


def _both_ways(run: _BothWays, outer: int, near: int, steady: int) -> Row:
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
        self.waiting: deque[Part] = deque()  # weight gradients put off, oldest first
        self.order: Row = []

    def _take(self, kind: str, phase: int) -> Part:
        chunk = phase ^ self.second
        number = self.count[kind, chunk]
        self.count[kind, chunk] = number + 1
        return Part(kind, chunk, chunk * self.microbatches + number)

    def forward(self, phase: int) -> None:
        self.order.append((self._take("F", phase),))

    def backward(self, phase: int, *, put_off: bool = False) -> None:
        part = self._take("B", phase)
        if put_off:
            self.waiting.append(Part("W", part.chunk, part.microbatch))
            part = Part("I", part.chunk, part.microbatch)
        self.order.append((part,))

    def weight(self) -> None:
        self.order.append((self.waiting.popleft(),))

    def both(self, forward: int, backward: int) -> None:
        self.order.append((self._take("F", forward), self._take("B", backward)))


PipelineSchedule = Callable[[int, int, int], list[Row]]
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


@lru_cache(maxsize=4)
def orders_of(name: str, p: int, m: int, v: int) -> Sequence[Sequence[Slot]]:
    """Return the orders of a named schedule; raises LayoutError where the shape does not suit it.

    Nothing else is checked. The latest are kept, for whoever asks what a stage holds and how long it takes.
    """
    return PIPELINE_SCHEDULES["1f1b" if name == "interleaved" and v == 1 else name](p, m, v)


def stage_chunks(name: str, v: int) -> int:
    """Return how many positions of one pipeline a stage holds; `v` where the schedule asks for them."""
    return {**dict.fromkeys(V_SHAPED, 2), "dualpipe": 1}.get(name, v)
