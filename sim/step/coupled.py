"""L3: the folded step with links that its collectives share while they run at the same time.

One rank stands for each stage, as at L1. An op that moves data uses shares of its stage's links: the
scale-up links, the cards outwards and inwards, and what lies above the leaves. Alone it goes at full
speed and takes its own time; together with others no link carries more than it can, and speeds are
max-min fair (`device_models.networks.sharing`, done here for the few ops that meet). Ops on links
that nothing else uses keep their time, so with links of infinite width this equals L2.

Ends of ops whose time is fixed are known as soon as what they wait for is; only moving data needs the
event queue. Not modelled: ranks of a stage that differ, and priorities of one collective over another.
"""

from __future__ import annotations

import gc
import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ersatz.sim.kept import Kept
from ersatz.sim.step.program import INPUT, Block, Op, Program, ticks

Link = tuple[int, str]  # stage, kind of link
Uses = tuple[tuple[Link, float], ...]  # a share of each
SLACK = 1e-12


@dataclass(slots=True, eq=False)
class Task:
    """One op of one stage in the course of the step."""

    op: Op
    uses: Uses  # empty: its time is fixed
    offset: float  # host time before it, after the latest op that the host waited for
    missing: int = 0  # what it still waits for
    ready: float = 0.0
    host: float = 0.0  # when the host went on after that op
    next: list[Task] = field(default_factory=list)
    receivers: Sequence[Task] = ()  # of its message
    unblocks: list[Task] | None = None  # whose host waits for this op
    left: float = 0.0  # seconds of work at full speed
    speed: float = 0.0
    since: float = 0.0  # when `left` was true
    version: int = 0


def coupled_step(program: Program) -> float:
    """Return the duration of one step in seconds, links shared (L3)."""
    return coupled_times(program)[1]


def coupled_times(program: Program) -> tuple[float, float]:
    """Return when every gradient is there and when the step ends, links shared (L3).

    The latest programs' are kept: a search asks for the same step a few times.
    """
    return _KNOWN.get((program.schedule,), _content(program), lambda: _followed(program))


_KNOWN: Kept[tuple[float, float]] = Kept(24)


def _content(program: Program) -> tuple[object, ...]:
    """Return all on which the times hang, beside the schedule."""
    return *program.blocks, *(
        (block.sends, *((op.stream, op.after, op.host_waits, op.device_s, op.host_s, op.lead_s,
                         op.uses, op.to, op.flight_s) for op in block.ops))
        for block in (*program.blocks.values(), *program.tails)
    )  # fmt: skip


def _followed(program: Program) -> tuple[float, float]:
    collects = gc.isenabled()
    gc.disable()  # hundreds of thousands of tasks refer to each other and all live to the end
    try:
        barrier = CoupledRun(program, _body(program)).run(0.0)
        tails = {s: [(tail, (), ())] for s, tail in enumerate(program.tails)}
        return barrier, CoupledRun(program, tails).run(barrier)
    finally:
        if collects:
            gc.enable()


Slot = tuple[Block, Sequence[int], Sequence[int]]  # block, messages in, messages out


def _body(program: Program) -> Mapping[int, Sequence[Slot]]:
    slots: dict[int, list[Slot]] = defaultdict(list)
    for stage, variant, inputs, outputs in program.schedule.walk:
        slots[stage].append((program.blocks[stage, variant], inputs, outputs))
    return slots


@dataclass(slots=True, eq=False)
class CoupledRun:
    """A part of a step: the slots of every stage, from a common start to the last end."""

    program: Program
    slots: Mapping[int, Sequence[Slot]]
    users: dict[Link, dict[Task, None]] = field(default_factory=lambda: defaultdict(dict))
    queue: list[tuple[float, int, int, Task]] = field(default_factory=list)
    count: int = 0
    end: float = 0.0

    def run(self, start: float) -> float:
        """Return when the last op ends."""
        tasks = self._tasks(start)
        self.end = start
        self._settle([task for task in tasks if not task.missing])
        while self.queue:
            now, _, version, task = heapq.heappop(self.queue)
            if version != task.version:
                continue  # its speed has changed since
            if task.speed:
                self._finish(task, now)
            else:
                self._begin(task, now)
        return self.end

    def _tasks(self, start: float) -> list[Task]:
        """Unfold the ops of all stages, with who waits for whom."""
        shared = _shared_links(self.program, self.slots)
        joined: dict[tuple[int, int], tuple[Block, list[Uses]]] = {}
        tasks: list[Task] = []
        senders: dict[int, Task] = {}
        receivers: dict[int, list[Task]] = defaultdict(list)
        for stage, slots in self.slots.items():
            host: Task | None = None
            offset = 0.0
            latest: dict[int, Task] = {}
            for block, inputs, outputs in slots:
                mine: list[Task] = []
                if (stage, id(block)) not in joined:
                    made = _joined(block, stage, self.program.stages, shared)
                    links = [_uses(op, stage, self.program.stages) for op in made.ops]
                    joined[stage, id(block)] = made, links
                block, links = joined[stage, id(block)]
                for op, uses in zip(block.ops, links, strict=True):
                    task = Task(op, uses, offset, ready=start, host=start)
                    waits = [mine[i] for i in op.after if i >= 0]
                    for i in op.after:
                        number = INPUT - i
                        if i < 0 and number < len(inputs) and inputs[number] >= 0:
                            receivers[inputs[number]].append(task)
                            task.missing += 1
                    before = latest.get(op.stream)
                    if before is not None:
                        waits.append(before)
                    if host is not None and host.unblocks is not None:
                        host.unblocks.append(task)
                        task.missing += 1
                    for other in waits:
                        other.next.append(task)
                    task.missing += len(waits)
                    latest[op.stream] = task
                    offset += op.host_s
                    if op.host_waits:
                        host, offset, task.unblocks = task, 0.0, []
                    mine.append(task)
                for index, part in block.sends:
                    if part < len(outputs) and outputs[part] >= 0:
                        senders[outputs[part]] = mine[index]
                tasks += mine
        for message, waiting in receivers.items():
            senders[message].receivers = [*senders[message].receivers, *waiting]
        return tasks

    def _settle(self, ready: list[Task]) -> None:
        """Give every op that waits for nothing its end, or its start when it shares links."""
        while ready:
            task = ready.pop()
            launched = task.host + task.offset
            if task.uses and task.op.device_s > 0:
                self._push(max(task.ready, launched + task.op.host_s), task)
                continue
            end = max(task.ready + task.op.device_s, launched + task.op.lead_s)
            ready += self._release(task, end)

    def _release(self, task: Task, end: float) -> list[Task]:
        """Return who may start now that an op's end is known."""
        self.end = max(self.end, end)
        free = []
        for others, time in ((task.next, end), (task.receivers, end + task.op.flight_s)):
            for other in others:
                if time > other.ready:
                    other.ready = time
                other.missing -= 1
                if not other.missing:
                    free.append(other)
        if task.unblocks:
            went_on = max(task.host + task.offset + task.op.host_s, end)
            for other in task.unblocks:
                other.host = went_on
                other.missing -= 1
                if not other.missing:
                    free.append(other)
        return free

    def _push(self, time: float, task: Task) -> None:
        self.count += 1
        task.version += 1
        heapq.heappush(self.queue, (time, self.count, task.version, task))

    def _begin(self, task: Task, now: float) -> None:
        task.left, task.since = task.op.device_s, now
        alone = True
        for link, _ in task.uses:
            users = self.users[link]
            users[task] = None  # in order of arrival: sets of objects have none
            alone = alone and len(users) == 1
        self._set_speeds([task] if alone else self._meeting(task), now)

    def _finish(self, task: Task, now: float) -> None:
        if any(len(self.users[link]) > 1 for link, _ in task.uses):
            meets = self._meeting(task)
            meets.remove(task)
        else:
            meets = []
        for link, _ in task.uses:
            del self.users[link][task]
        if meets:
            self._set_speeds(meets, now)
        self._settle(self._release(task, ticks(now)))

    def _meeting(self, task: Task) -> list[Task]:
        """Return the ops whose speeds depend on this one's, itself first."""
        found, todo = {task: None}, [task]
        while todo:
            for link, _ in todo.pop().uses:
                for other in self.users[link]:
                    if other not in found:
                        found[other] = None
                        todo.append(other)
        return list(found)

    def _set_speeds(self, tasks: Sequence[Task], now: float) -> None:
        """Share the links anew; who changes its speed gets a new end."""
        for task, speed in zip(tasks, fair_speeds([t.uses for t in tasks]), strict=True):
            if abs(speed - task.speed) > SLACK:
                task.left -= task.speed * (now - task.since)
                task.since, task.speed = now, speed
                self._push(now + max(task.left, 0.0) / speed, task)


def fair_speeds(uses: Sequence[Sequence[tuple[Link, float]]]) -> list[float]:
    """Return max-min fair speeds of at most 1, for ops that use shares of links at speed 1.

    The same as `max_min_rates` with capacities and bounds of 1, without its overhead.
    """
    if len(uses) == 1:
        return [1.0 / max(1.0, *(share for _, share in uses[0]))]
    speeds = [1.0] * len(uses)
    left: dict[Link, float] = {link: 1.0 for flow in uses for link, _ in flow}
    active = set(range(len(uses)))
    while active:
        demand: dict[Link, float] = defaultdict(float)
        for i in sorted(active):
            for link, share in uses[i]:
                demand[link] += share
        level = {link: max(left[link], 0.0) / total for link, total in demand.items() if total > 0}
        lowest = min(level.values(), default=1.0)
        if lowest >= 1.0:
            break
        settled = [i for i in sorted(active) if any(
            share > 0 and level[link] <= lowest * (1 + SLACK) for link, share in uses[i])]  # fmt: skip
        for i in settled:
            speeds[i] = lowest
            for link, share in uses[i]:
                left[link] -= share * lowest
        active -= set(settled)
    return speeds


def _joined(block: Block, stage: int, stages: int, shared: set[Link]) -> Block:
    """Return the block with ops joined that run one after the other whatever the others do.

    An op joins the one before it in the block when both are of one stream, neither shares a link, it
    waits for nothing else, and nobody else waits for the one before.
    """
    alone = [not any(link in shared for link, _ in _uses(op, stage, stages)) for op in block.ops]
    awaited = [i for op in block.ops for i in op.after] + [i for i, _ in block.sends]
    ops: list[Op] = []
    where: list[int] = []
    for i, op in enumerate(block.ops):
        before = block.ops[i - 1] if i else None
        joins = (
            before is not None and alone[i] and alone[i - 1] and op.stream == before.stream
            and not before.host_waits and set(op.after) <= {i - 1}
            and awaited.count(i - 1) == op.after.count(i - 1)
        )  # fmt: skip
        if joins:
            ops[-1] = _chained(ops[-1], op)
        else:
            after = tuple(where[j] if j >= 0 else j for j in op.after)
            ops.append(replace(op, after=after, uses=() if alone[i] else op.uses))
        where.append(len(ops) - 1)
    return Block(tuple(ops), tuple((where[i], part) for i, part in block.sends))


def _chained(first: Op, second: Op) -> Op:
    """Return two ops of fixed time, one after the other, as one."""
    lead = max(first.lead_s + second.device_s, first.host_s + second.lead_s)
    return replace(
        first, device_s=first.device_s + second.device_s, host_s=first.host_s + second.host_s,
        lead_s=lead, host_waits=second.host_waits, flight_s=second.flight_s,
    )  # fmt: skip


def _uses(op: Op, stage: int, stages: int) -> tuple[tuple[Link, float], ...]:
    """Return the links of an op; a message arrives at the cards of another stage."""
    places = {"in": (stage + op.to) % stages}
    return tuple(((places.get(kind, stage), kind), share) for kind, share in op.uses)


def _shared_links(program: Program, slots: Mapping[int, Iterable[Slot]]) -> set[Link]:
    """Return the links that ops of more than one stream use."""
    streams: dict[Link, set[tuple[int, int]]] = defaultdict(set)
    for stage, blocks in slots.items():
        seen: set[int] = set()
        for block, _, _ in blocks:
            if id(block) in seen:
                continue
            seen.add(id(block))
            for op in block.ops:
                for link, share in _uses(op, stage, program.stages):
                    if share > 0:
                        streams[link].add((stage, op.stream))
    return {link for link, users in streams.items() if len(users) > 1}
