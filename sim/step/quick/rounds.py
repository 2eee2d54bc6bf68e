"""What of a schedule repeats: the slots by which each further micro-batch makes it longer.

Two schedules that differ by what a schedule takes at once (one micro-batch, a group of interleaving, a
pair of DualPipe) are the same but for slots that the longer one has in the middle of each stage. Where the
shorter one has the same slots right before, they are the round: a schedule of any more micro-batches is
the beginning, as many rounds as it has more, and the end. `repeated` makes sure of that, and that each of
the three can be walked by itself; tests compare it to the whole schedules.
"""

from __future__ import annotations

from collections.abc import Sequence

from ersatz.sim.plan.orders import orders_of
from ersatz.sim.plan.schedules import within_limits
from ersatz.sim.step.quick.slots import Numbering, Slot, in_order

LEAST = 3  # rounds, below which a schedule is walked as a whole
Pieces = tuple[tuple[Sequence[Slot], bool], ...]  # walked once, or in every round


def rounds_of(name: str, p: int, m: int, v: int) -> tuple[int, int] | None:
    """Return the micro-batches of the schedule that is taken apart, and rounds; None for too few.

    Raises ValueError where there are more slots than can be walked.
    """
    within_limits(p, m, v)
    unit = _unit(name, p)
    few = {"gpipe": 2, "interleaved": 3 * p, "dualpipe": max(2 * p, 6)}.get(name, max(2 * p, 3))
    rounds, rest = divmod(m - few, unit)
    return (few, rounds) if rounds >= LEAST and not rest else None


def _unit(name: str, p: int) -> int:
    """Return the micro-batches that a schedule takes at once."""
    return {"interleaved": p, "dualpipe": 2}.get(name, 1)


def repeated(numbering: Numbering, name: str, p: int, few: int, v: int) -> Pieces | None:
    """Return a schedule in pieces whose rounds are those beyond `few` micro-batches.

    None where it does not come apart like that.
    """
    longer = numbering.stages(orders_of(name, p, few + _unit(name, p), v))
    if name == "gpipe":
        parts: list[tuple[Sequence[Slot], ...]] = [
            (mine[:2], mine[2:3], mine[3:4], mine[4:5], mine[5:]) for mine in longer
        ]
        again = [False, True, False, True, False]
    else:
        shorter = numbering.stages(orders_of(name, p, few, v))
        parts = [_apart(mine, other) for mine, other in zip(longer, shorter, strict=True)]
        again = [False, True, False]
    if not all(parts):
        return None
    there = [0] * (len(numbering.lanes) + 1)
    pieces = []
    for number, loops in enumerate(again):
        before = there[1:]
        walk = in_order([stage[number] for stage in parts], there)
        if walk is None or (loops and there[1:] != before):
            return None
        pieces.append((walk, loops))
    return tuple(pieces)


def _apart(longer: Sequence[Slot], shorter: Sequence[Slot]) -> tuple[Sequence[Slot], ...]:
    """Return a stage's beginning, round and end; nothing where the round does not stand twice.

    The beginning has one round less than what both have in common, and the round is what comes then.
    """
    size, limit = len(longer) - len(shorter), len(shorter)
    common = next((at for at in range(limit) if longer[at] is not shorter[at]), limit)
    begin = common - size
    whole = 0 < size <= common and longer[begin:common] == longer[common : common + size]
    if not whole or longer[common + size :] != shorter[common:]:
        return ()
    return longer[:begin], longer[begin:common], longer[common:]
