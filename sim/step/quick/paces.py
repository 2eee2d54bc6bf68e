"""The walk through a schedule's slots; rounds that add the same are walked until that is proved.

Streams that never pass the compute stream and never bind are dropped. What is left of most blocks are a
few constants (`Plain`); others keep the finite entries of their rows.

A round is a max-plus linear map of all times. Let each have advanced by a pace of its own in the last
rounds, and no time depend on a faster one, and each come out the same without the slower ones: then what
binds it has its pace, what is slower falls behind and never will bind, and all further rounds add the
same. These conditions are tried on the rounds themselves, so nothing is extrapolated: the result is that of
all slots, to the last bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ersatz.sim.step.program import COMPUTE, PIPE
from ersatz.sim.step.quick.blocks import NEVER, WIDTH, Folded, Matrix, power, product
from ersatz.sim.step.quick.flat import Flat
from ersatz.sim.step.quick.forms import (
    Pair,
    Plain,
    Sparse,
    dropped_streams,
    pair,
    plain,
    sparse,
)
from ersatz.sim.step.quick.slots import Slot

LOOKED_BACK = 6  # rounds: the longest period that is found
Times = list[float]


class Still(NamedTuple):
    """All times between two rounds: what depends on others, and what advances by itself."""

    driven: tuple[float, ...]
    alone: tuple[float, ...]

    def less(self, other: Still) -> Still:
        """Return by how much each time is later than before."""
        return Still(*(tuple([a - b for a, b in zip(mine, theirs, strict=True)])
                       for mine, theirs in zip(self, other, strict=True)))  # fmt: skip

    def later(self, more: Still, count: int) -> Still:
        """Return each time `count` times its own pace later."""
        return Still(*(tuple([a + count * b for a, b in zip(mine, added, strict=True)])
                       for mine, added in zip(self, more, strict=True)))  # fmt: skip

    def only(self, more: Still, pace: float) -> Still:
        """Return the times of one pace, slower ones as if never there, faster ones as if never free."""
        return Still(*(tuple([
            time if add == pace else (NEVER if add < pace else -NEVER)
            for time, add in zip(mine, added, strict=True)
        ]) for mine, added in zip(self, more, strict=True)))  # fmt: skip


@dataclass(slots=True)
class Walk:
    """Times of all stages and messages on their way, while slots are walked."""

    programme: Sequence[Plain | Pair | Sparse]  # by block
    state: list[Times]
    lanes: list[deque[float]]
    driven: list[tuple[int, int]] = field(default_factory=list)  # stage and row
    alone: list[tuple[int, int]] = field(default_factory=list)

    def slots(self, slots: Sequence[Slot]) -> None:
        """Walk some slots."""
        state, lanes, programme = self.state, self.lanes, self.programme
        for stage, block, taken, left in slots:
            form = programme[block]
            if len(form) == 2:
                state[stage] = _sparse_slot(form, state[stage], lanes, taken, left)
                continue
            if len(form) == 5:
                _pair_slot(form, state[stage], lanes, taken, left)
                continue
            device, lead, host_s, before, link, lead_out, flight, blocks = form
            now = state[stage]
            host, time, into = now[0], now[1], taken[0]
            if into:
                message = lanes[into].popleft()
                if message > time:
                    time = message
            end, late = time + device, host + lead
            now[1] = end = late if late > end else end
            out = left[0]
            if out:
                if not blocks:
                    end, late = time + before, now[5] + link
                    if late > end:
                        end = late
                    late = host + lead_out
                    if late > end:
                        end = late
                    now[5] = end
                lanes[out].append(end + flight)
            now[0] = host + host_s

    def rounds(self, slots: Sequence[Slot], count: int) -> None:
        """Walk the slots of a round so many times, or until their pace is proved."""
        self._sort(slots)
        seen: deque[Still] = deque([self._still()], maxlen=2 * LOOKED_BACK + 1)
        for done in range(1, count + 1):
            self.slots(slots)
            seen.append(self._still())
            pace = self._pace(slots, seen)
            if pace:
                period, more = pace
                many, rest = divmod(count - done, period)
                self._put(seen[-1].later(more, many))
                for _ in range(rest):
                    self.slots(slots)
                return

    def _sort(self, slots: Sequence[Slot]) -> None:
        """Note which times of a stage depend on others in a round, and which advance by themselves."""
        driven = set()
        for stage, block, _, _ in slots:
            form = self.programme[block]
            if isinstance(form, Sparse):
                driven |= {
                    (stage, row) for row, terms in form.rows if [c for c, _ in terms] != [row]
                }
            else:  # plain, or a pair
                driven |= {(stage, COMPUTE), (stage, PIPE)}
        every = [(stage, row) for stage in range(len(self.state)) for row in range(WIDTH)]
        self.driven = [at for at in every if at in driven]
        self.alone = [at for at in every if at not in driven]

    def _still(self) -> Still:
        state = self.state
        flying = [time for lane in self.lanes for time in lane]
        return Still((*[state[s][k] for s, k in self.driven], *flying),
                     tuple([state[s][k] for s, k in self.alone]))  # fmt: skip

    def _pace(self, slots: Sequence[Slot], seen: Sequence[Still]) -> tuple[int, Still] | None:
        """Return the rounds of a period and what each time adds in it, once these are sure."""
        now = seen[-1]
        for period in range(1, (len(seen) - 1) // 2 + 1):
            then, before = seen[-1 - period], seen[-1 - 2 * period]
            first, last = now.driven[0] - then.driven[0], now.driven[-1] - then.driven[-1]
            if (first, last) != (
                then.driven[0] - before.driven[0],
                then.driven[-1] - before.driven[-1],
            ):
                continue  # so that most rounds cost little
            more = now.less(then)
            if more == then.less(before) and self._sure(slots, then, now, period, more):
                return period, more
        return None

    def _sure(
        self, slots: Sequence[Slot], then: Still, now: Still, period: int, more: Still
    ) -> bool:
        """Tell whether every time will add the same in each further period, too.

        Of each pace: without the slower times it comes out the same, and none that is faster matters.
        """
        other = Walk(self.programme, [times[:] for times in self.state],
                     [deque(lane) for lane in self.lanes], self.driven, self.alone)  # fmt: skip
        for pace in set(more.driven):
            other._put(then.only(more, pace))
            for _ in range(period):
                other.slots(slots)
            found = other._still().driven
            if any(a != b for a, b, add in zip(found, now.driven, more.driven, strict=True)
                   if add == pace):  # fmt: skip
                return False
        return True

    def _put(self, still: Still) -> None:
        """Set all times; as many messages are on their way as before."""
        for (stage, row), time in zip(self.driven, still.driven, strict=False):
            self.state[stage][row] = time
        for (stage, row), time in zip(self.alone, still.alone, strict=True):
            self.state[stage][row] = time
        flying = iter(still.driven[len(self.driven) :])
        self.lanes = [deque([next(flying) for _ in lane]) for lane in self.lanes]


def walked(flat: Flat, rounds: int, folded: Sequence[Folded], stages: int) -> float:
    """Walk all slots from time zero; returns when every stream of every stage is free."""
    if stages == 1 and rounds and all(one.inputs == 1 for one in folded):
        return _walked_alone(flat, rounds, folded)
    different = {id(one): one for one in folded}
    dropped = dropped_streams(different.values())
    forms = {key: plain(one, dropped) or pair(one, dropped) or sparse(one, dropped)
             for key, one in different.items()}  # fmt: skip
    walk = Walk([forms[id(one)] for one in folded], [[0.0] * WIDTH for _ in range(stages)],
                [deque() for _ in range(flat.lanes)])  # fmt: skip
    for slots, again in flat.pieces:
        if again:
            walk.rounds(slots, rounds)
        else:
            walk.slots(slots)
    return max(max(times) for times in walk.state)


def _pair_slot(
    form: Pair, now: Times, lanes: Sequence[deque[float]], taken: Sequence[int], left: Sequence[int]
) -> None:
    """Advance a stage by a block of two passes; leaves its messages."""
    (c_host, c_compute, c_first, c_second), host_s, into_pipe, *sends = form
    host, time, pipe = now[0], now[1], now[5]
    one, two = taken
    first = lanes[one].popleft() if one else NEVER
    second = lanes[two].popleft() if two else NEVER
    for out, (a, b, c, d, e) in zip(left, sends, strict=True):
        if out:
            lanes[out].append(max(host + a, time + b, pipe + c, first + d, second + e))
    a, b, c, d, e = into_pipe
    now[5] = max(host + a, time + b, pipe + c, first + d, second + e)
    now[1] = max(host + c_host, time + c_compute, first + c_first, second + c_second)
    now[0] = host + host_s


def _sparse_slot(
    form: Sparse, now: Times, lanes: Sequence[deque[float]], taken: Sequence[int], left: Sequence[int]
) -> Times:  # fmt: skip
    """Return the state of a stage after a block that is not plain; leaves its messages."""
    ready = now + [lanes[lane].popleft() if lane else NEVER for lane in taken]
    after = now[:]
    for row, terms in form.rows:
        after[row] = max([ready[column] + weight for column, weight in terms])
    for part, terms in form.sends:
        if left[part]:
            lanes[left[part]].append(max([ready[column] + weight for column, weight in terms]))
    return after


def _walked_alone(flat: Flat, rounds: int, folded: Sequence[Folded]) -> float:
    """Walk a single stage, whose round is a power of its matrix."""
    total: Matrix = np.full((WIDTH, WIDTH), NEVER)
    total[range(WIDTH), range(WIDTH)] = 0.0
    unit = total
    for slots, again in flat.pieces:
        one = unit
        for slot in slots:
            one = product(folded[slot.block].matrix[:, :WIDTH], one)
        total = product(power({1: one}, rounds) if again else one, total)
    return float(total.max(initial=NEVER))
