"""A schedule flattened: its slots in an order that respects messages, what each runs, and what repeats.

Once a pipeline is full its slots repeat micro-batch after micro-batch (`ersatz.sim.step.quick.rounds`); of
many micro-batches only one such round is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ersatz.sim.errors import LayoutError
from ersatz.sim.kept import Kept
from ersatz.sim.plan.borders import Step, schedule_steps
from ersatz.sim.plan.orders import orders_of
from ersatz.sim.plan.schedules import Place, Variant, chunk_places, make_schedule, within_limits
from ersatz.sim.step.quick.rounds import Pieces, repeated, rounds_of
from ersatz.sim.step.quick.slots import Numbering, Slot, in_order


class Sent(NamedTuple):
    """What a phase of a chunk of a stage is, and where its result goes."""

    phase: str
    position: int
    edge: str
    to: int | None  # stage


class Piece(NamedTuple):
    """Slots in an order that respects messages, walked once or in every round."""

    slots: tuple[Slot, ...]
    again: bool


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """A schedule as pieces of slots that follow one another."""

    pieces: tuple[Piece, ...]
    blocks: tuple[tuple[int, tuple[Sent, ...]], ...]  # stage and phases of each block
    lanes: int  # with lane 0, which stays empty
    held: tuple[tuple[int, ...], ...]  # positions of each stage
    steps: tuple[Step, ...]


LARGE = 20_000  # slots, from which on only the latest schedules are kept
_FLAT: Kept[Flat] = Kept(64)
_LARGE: Kept[Flat] = Kept(4)
_ROUNDS: Kept[tuple[Flat | None]] = Kept(128)
Orders = tuple[tuple[tuple[str, int, int], ...], ...]


def flat_schedule(
    name: str, p: int, m: int, v: int, custom: Orders, *, runs: bool
) -> tuple[Flat, int]:
    """Return the flattened form of a schedule, and how often its rounds are walked.

    Arguments and faults as of `make_schedule`.
    """
    if name == "interleaved" and v == 1:
        name = "1f1b"
    runs = runs and len(chunk_places(name, 1, v)[0]) > 1  # one chunk goes back in one run
    found = None if custom else rounds_of(name, p, m, v)
    if found:
        few, rounds = found
        shape = name, p, few, v, runs

        def make() -> tuple[Flat | None]:
            numbering = Numbering(chunk_places(name, p, v), runs=runs)
            pieces = repeated(numbering, name, p, few, v)
            return (_flat(numbering, pieces) if pieces else None,)

        (flat,) = _ROUNDS.get((), shape, make)
        if flat:
            return flat, rounds
    kept = _LARGE if p * max(m, 1) * v > LARGE else _FLAT
    return kept.get(
        (), (name, p, m, v, custom, runs), lambda: _whole(name, p, m, v, custom, runs)
    ), 0


def _whole(name: str, p: int, m: int, v: int, custom: Orders, runs: bool) -> Flat:
    """Return a schedule without rounds, walked as it is."""
    within_limits(p, m, v)
    numbering = Numbering(chunk_places(name, p, v), runs=runs, own=bool(custom))
    if custom:  # the orders of somebody, which may be wrong
        stages = numbering.stages(make_schedule.__wrapped__(name, p, m, v, custom).orders)
    else:
        stages = numbering.stages(orders_of(name, p, m, v))
    walk = in_order(stages, [0] * (len(numbering.lanes) + 1))
    if walk is None:
        raise LayoutError(f"the schedule {name} is circular for {p} stages and {m} micro-batches")
    return _flat(numbering, ((walk, False),))


def _flat(numbering: Numbering, pieces: Pieces) -> Flat:
    places = numbering.places
    at = {place: stage for stage, row in enumerate(places) for place in row}
    blocks = tuple((stage, tuple(_sent(numbering, at, stage, variant)))
                   for stage, variant in numbering.blocks)  # fmt: skip
    held = tuple(tuple(sorted({place.position for place in row})) for row in places)
    done = tuple(Piece(tuple(walk), again) for walk, again in pieces)
    return Flat(done, blocks, len(numbering.lanes) + 1, held, schedule_steps(places))


def _sent(
    numbering: Numbering, at: Mapping[Place, int], stage: int, variant: Variant
) -> Iterator[Sent]:
    for phase, chunk, edge in variant:
        line, position = numbering.places[stage][chunk]
        to = at.get(Place(line, position + (1 if phase == "F" else -1)))
        yield Sent(phase, position, edge, to)
