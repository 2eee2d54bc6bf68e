"""Weights that travel ahead: while parts of a chunk take their turns, those of a later one are gathered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from ersatz.sim.step.traffic.weights import Bucket


class Ahead(NamedTuple):
    """Weights that are gathered while kernels of `beside_s` run."""

    buckets: tuple[Bucket, ...]
    beside_s: float


class Turn(NamedTuple):
    """A part in its turn: what is gathered for a later one, and whether it waits for its own."""

    place: int
    ahead: Ahead | None
    waits: bool


def turns(
    order: Sequence[int], gathers: Sequence[Bucket], seconds: Sequence[float]
) -> tuple[Ahead | None, list[Turn]]:
    """Return what is gathered first, and the turns of parts: the next bucket's weights travel ahead.

    `seconds` are those of each part's kernels, in the order of the turns.
    """
    rank = {place: number for number, place in enumerate(order)}
    due: dict[int, list[Bucket]] = {}
    for bucket in gathers:
        due.setdefault(min(rank[bucket.first], rank[bucket.last]), []).append(bucket)
    starts = sorted(due)
    if not starts:
        return None, [Turn(place, None, False) for place in order]
    after = dict(pairwise(starts))
    first = Ahead(tuple(due[starts[0]]), math.fsum(seconds[: starts[0] + 1]))
    found = []
    for number, place in enumerate(order):
        ahead = None
        if number in after:
            ends = after[number]
            ahead = Ahead(tuple(due[ends]), math.fsum(seconds[number:ends]))
        found.append(Turn(place, ahead, number in due))
    return first, found
