"""The slots of a schedule as numbers: which block each runs, from which lanes it takes, to which it leaves.

Messages of one kind to one position of a pipeline arrive in the order in which they left, since named
schedules pass micro-batches through every chunk in their order: each such way is a lane, first in, first
out. Equal slots of a stage are the same object, so that long schedules cost little more than their orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ersatz.sim.plan.orders import Order
from ersatz.sim.plan.orders import Slot as Parts
from ersatz.sim.plan.schedules import Place, Variant, edges_of


class Slot(NamedTuple):
    """One block of a stage with the lanes from which its parts take and to which they leave; 0: none."""

    stage: int
    block: int
    taken: tuple[int, ...]
    left: tuple[int, ...]


class Numbering:
    """Numbers the blocks and lanes of a schedule; with `own` each micro-batch has lanes of its own.

    These are for orders that somebody wrote: there a message may overtake another.
    """

    def __init__(self, places: Sequence[Sequence[Place]], *, runs: bool, own: bool = False) -> None:
        self.places, self.runs, self.own = places, runs, own
        self.length = 1 + max(place.position for row in places for place in row)
        self.blocks: dict[tuple[int, Variant], int] = {}
        self.lanes: dict[tuple[int, int, int, int], int] = {}
        self._known: list[dict[object, Slot]] = [{} for _ in places]

    def stages(self, orders: Sequence[Sequence[Parts] | Order]) -> list[list[Slot]]:
        """Return the slots of each stage in its order."""
        return [self._stage(stage, order) for stage, order in enumerate(orders)]

    def _stage(self, stage: int, order: Sequence[Parts]) -> list[Slot]:
        edges, known, found = edges_of(order, self.runs), self._known[stage], []
        for parts in order:
            key = tuple([
                (part[0], part[1], edges.get(part, ""), part[2] if self.own else 0)
                for part in parts
            ])  # fmt: skip
            slot = known.get(key)
            if slot is None:
                slot = known[key] = self._slot(stage, key)
            found.append(slot)
        return found

    def _slot(self, stage: int, key: Sequence[tuple[str, int, str, int]]) -> Slot:
        block = tuple((phase, chunk, edge) for phase, chunk, edge, _ in key)
        taken, left = [], []
        for phase, chunk, _, own in key:
            line, position = self.places[stage][chunk]
            forward, last = phase == "F", self.length - 1
            into = phase != "W" and position != (0 if forward else last)
            out = phase != "W" and position != (last if forward else 0)
            to = position + (1 if forward else -1)
            taken.append(self._lane(line, position, forward, own) if into else 0)
            left.append(self._lane(line, to, forward, own) if out else 0)
        number = self.blocks.setdefault((stage, block), len(self.blocks))
        return Slot(stage, number, tuple(taken), tuple(left))

    def _lane(self, line: int, position: int, forward: bool, own: int) -> int:
        return self.lanes.setdefault((line, position, forward, own), len(self.lanes) + 1)


def in_order(stages: Sequence[Sequence[Slot]], there: list[int]) -> list[Slot] | None:
    """Order the slots of all stages so that messages come first; `there` counts those on their way.

    None where a slot waits for a message that none of these leaves.
    """
    there[0] = sum(map(len, stages)) * 2 + 1  # whatever takes nothing does not wait
    cursor = [0] * len(stages)
    walk: list[Slot] = []
    pending = True
    while pending:
        pending = False
        for stage, mine in enumerate(stages):
            begun = at = cursor[stage]
            while at < len(mine):
                slot = mine[at]
                if not all(map(there.__getitem__, slot[2])):
                    break
                for lane in slot[2]:
                    there[lane] -= 1
                for lane in slot[3]:
                    there[lane] += 1
                at += 1
            if at > begun:
                walk += mine[begun:at]
                cursor[stage] = at
                pending = True
    return walk if all(at == len(mine) for at, mine in zip(cursor, stages, strict=True)) else None
