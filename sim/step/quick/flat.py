"""A schedule flattened into numbers: which block each slot runs, which messages it takes and leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ersatz.sim.kept import Kept
from ersatz.sim.plan.borders import Step, schedule_steps
from ersatz.sim.plan.schedules import Schedule, Variant, make_schedule


class Sent(NamedTuple):
    """What a phase of a chunk of a stage is, and where its result goes."""

    phase: str
    position: int
    edge: str
    to: int | None  # stage


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """A schedule as numbers: slots of (stage, block, messages in, messages out); message 0 is none."""

    slots: tuple[tuple[int, int, tuple[int, ...], tuple[int, ...]], ...]
    blocks: tuple[tuple[int, tuple[Sent, ...]], ...]  # stage and phases of each block
    messages: int
    held: tuple[tuple[int, ...], ...]  # positions of each stage
    steps: tuple[Step, ...]


LARGE = 20_000  # slots, from which on only the latest schedules are kept
_FLAT: Kept[Flat] = Kept(64)
_LARGE: Kept[Flat] = Kept(4)
Orders = tuple[tuple[tuple[str, int, int], ...], ...]


def flat_schedule(name: str, p: int, m: int, v: int, custom: Orders, *, runs: bool) -> Flat:
    """Return the flattened form of a schedule; arguments and faults as of `make_schedule`."""
    large = p * max(m, 1) * v > LARGE
    make = make_schedule.__wrapped__ if large else make_schedule
    kept = _LARGE if large else _FLAT
    return kept.get((), (name, p, m, v, custom, runs),
                    lambda: _flatten(make(name, p, m, v, custom, runs=runs)))  # fmt: skip


def _flatten(schedule: Schedule) -> Flat:
    numbers: dict[tuple[int, Variant], int] = {}
    messages = {-1: 0}
    slots = []
    for stage, variant, inputs, outputs in schedule.walk:
        block = numbers.setdefault((stage, variant), len(numbers))
        taken = tuple([messages.setdefault(message, len(messages)) for message in inputs])
        left = tuple([messages.setdefault(message, len(messages)) for message in outputs])
        slots.append((stage, block, taken, left))
    at = {place: stage for stage, row in enumerate(schedule.places) for place in row}
    blocks = []
    for stage, variant in numbers:
        sent = []
        for phase, chunk, edge in variant:
            place = schedule.places[stage][chunk]
            target = place._replace(position=place.position + (1 if phase == "F" else -1))
            sent.append(Sent(phase, place.position, edge, at.get(target)))
        blocks.append((stage, tuple(sent)))
    held = tuple(tuple(sorted({place.position for place in row})) for row in schedule.places)
    return Flat(tuple(slots), tuple(blocks), len(messages), held, schedule_steps(schedule))
