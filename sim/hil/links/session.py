"""Time collectives between real processes, under `torchrun`.

Every process runs the same program. A span is a group of ranks: a pair side by side, a node, one
rank of every node, everybody. Each collective is timed from a barrier until its slowest member is
done, as a training step waits for it. All collectives and sizes take turns, each time in another
order, so that a disturbance, and what one leaves in the caches, meets some samples of each and not
all samples of one (`clock`: what then counts). All-reduces, which decide the fit, are timed at twice
as many sizes, and at others in between that no fit sees: what is fitted is held against those,
which met the same disturbances. A process on a CPU counts as a node of its own, as `cpu-1` in the
catalogue; on accelerators the processes of a host are a node.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ersatz.sim.hil.device.attached import Attached, unusable
from ersatz.sim.hil.links.clock import Sample, clock_of, spread_of, undisturbed
from ersatz.sim.hil.links.tables import span_of
from ersatz.sim.hil.links.timing import Timing

LIBRARIES = {"cpu": "gloo", "cuda": "nccl", "rocm": "rccl", "npu": "hccl"}
BACKENDS = {**LIBRARIES, "rocm": "nccl"}  # PyTorch calls RCCL by the name of NCCL
WAIT = timedelta(seconds=120)  # for processes that do not come
ROUNDS, SAMPLES = 8, 4  # batches of samples, and at least so many in each
SHORT_S = 3e-3  # an all-reduce of less is sampled in a longer row: only there its code is warm
ROW, SEEN_EVERY = 12, 2  # samples of that row; turns at which the other collectives are sampled
POWERS, LARGE_POWERS = (
    range(6, 13),
    range(6, 15),
)  # of four: 4 KiB to 16 MiB, 256 MiB on accelerators
EDGE = {"cpu": 384}  # of the product beside an all-reduce; accelerators take LARGE_EDGE
LARGE_EDGE = 4096


@dataclass(frozen=True, slots=True)
class World:
    """This process among all, as torchrun tells it."""

    rank: int
    size: int
    local_rank: int
    local_size: int

    @property
    def hosts(self) -> int:
        """Hosts with as many processes each."""
        return self.size // self.local_size


def world_of(environment: Mapping[str, str] | None = None) -> World:
    """Return what torchrun has told; raises `InputError` when it has not started this process."""
    told = os.environ if environment is None else environment
    try:
        return World(
            *(int(told[k]) for k in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        )
    except (KeyError, ValueError) as error:
        how = "torchrun --nproc-per-node 2 -m ersatz.sim calibrate --links --device cpu"
        raise unusable("links", f"are timed between processes: {how}") from error


def spans(
    world: World, own_nodes: bool, cores: int | None = None
) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield (ranks, members per node) of every group to time.

    Processes that are nodes of their own and more than the `cores` of their host slow each other:
    then fewer of them would tell of another machine, and only all of them together are timed.
    """
    local = 1 if own_nodes else world.local_size
    crowded = own_nodes and cores is not None and world.local_size > cores
    found: list[tuple[tuple[int, ...], int]] = []
    if world.size > 1 and not crowded:
        found.append(((0, 1), min(local, 2)))
    if own_nodes:
        counts = (world.size,) if crowded else (world.size // 2, world.size)
        found += [(tuple(range(n)), 1) for n in counts if n > 2 or crowded]
    else:
        found += [(tuple(range(local)), local)] if local > 2 else []
        heads = tuple(range(0, world.size, local))
        found += [(heads[:n], 1) for n in (2, len(heads)) if 1 < n <= len(heads)]
        found += [(tuple(range(world.size)), local)] if world.hosts > 1 and local > 1 else []
    yield from dict.fromkeys(found)


@dataclass(slots=True)
class Session:
    """One process's part in timing all spans."""

    attached: Attached
    world: World
    tell: Callable[[str], None] = lambda words: None
    rows: list[Timing] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    contention: str = ""
    clock: str = ""  # how time was told, where not by the wall

    def run(self) -> None:
        """Time every collective on every span; all ranks call this together."""
        import torch.distributed as dist

        own = self.attached.backend == "cpu"
        for ranks, per_node in spans(self.world, own, os.cpu_count()):
            group: Any = dist.new_group(list(ranks))
            if self.world.rank in ranks:
                self._span(group, ranks, per_node)
            dist.barrier()

    def _span(self, group: Any, ranks: Sequence[int], per_node: int) -> None:
        powers = POWERS if self.attached.backend == "cpu" else LARGE_POWERS
        cases = list(cases_of(powers))
        samples: dict[tuple[str, int, int], list[Sample]] = {case: [] for case in cases}
        lacking: set[str] = set()
        for turn in range(ROUNDS):
            for case in random.Random(turn).sample(cases, len(cases)):
                kind, nbytes, _ = case
                if kind in lacking or (kind != "all_reduce" and turn % SEEN_EVERY):
                    continue
                self.tell(f"{kind} of {nbytes:,} bytes among {len(ranks)}, {turn + 1} of {ROUNDS}")
                try:
                    call = EXERCISES[kind](self, group, ranks, nbytes)
                    samples[case] += self._samples(
                        call, group, ROW if kind == "all_reduce" else SAMPLES
                    )
                except (RuntimeError, ValueError, NotImplementedError) as error:
                    self.missing.append(f"{kind}: {str(error).splitlines()[0][:90]}")
                    lacking.add(kind)
        clock = clock_of(samples, self.one_host)
        self.clock = clock.words or self.clock
        for (kind, nbytes, held_out), some in samples.items():
            if some:
                walls = [s.wall_s for s in some]
                self.rows.append(Timing(
                    kind, nbytes, len(ranks), per_node, clock.seconds(some), spread_of(walls),
                    len(some), span_of(len(ranks), per_node), held_out, undisturbed(walls),
                ))  # fmt: skip
        if len(ranks) == self.world.size:
            self.contention = self._contention(group, ranks, 4 ** powers[-1])

    @property
    def one_host(self) -> bool:
        """Whether the members' processors move all bytes themselves."""
        return self.attached.backend == "cpu" and self.world.hosts == 1

    def _own(self, sample: Sample) -> float:
        """Return what a sample took of itself: that others delay it is no reason to take fewer."""
        return sample.processors_s if self.one_host else sample.wall_s

    def tensor(self, nbytes: float) -> Any:
        """Return a buffer of this many bytes of fp32."""
        import torch

        return torch.ones(max(int(nbytes) // 4, 1), device=self.attached.device)

    def _times(self, call: Callable[[], object], group: Any) -> list[float]:
        """Return the slowest member's seconds by the wall."""
        return [s.wall_s for s in self._samples(call, group)]

    def _samples(self, call: Callable[[], object], group: Any, row: int = SAMPLES) -> list[Sample]:
        """Return samples of all members together, the same on every rank; short ones with a `row` more."""
        self._sample(call, group)  # touches the buffers
        found = self._together([self._sample(call, group) for _ in range(SAMPLES)], group)
        if min(self._own(s) for s in found) < SHORT_S:
            found += self._together([self._sample(call, group) for _ in range(row)], group)
        return found

    def _sample(self, call: Callable[[], object], group: Any) -> Sample:
        import torch.distributed as dist

        self.attached.synchronize()
        dist.barrier(group)
        spent, begun = time.process_time(), time.perf_counter()
        call()
        self.attached.synchronize()
        return Sample(time.perf_counter() - begun, time.process_time() - spent)

    def _together(self, mine: Sequence[Sample], group: Any) -> list[Sample]:
        """Return the slowest member's wall time and all members' processors' time."""
        import torch
        import torch.distributed as dist

        walls, processors = torch.tensor(mine, dtype=torch.float32, device=self.attached.device).T
        walls, processors = walls.contiguous(), processors.contiguous()
        dist.all_reduce(walls, op=dist.ReduceOp.MAX, group=group)
        dist.all_reduce(processors, op=dist.ReduceOp.SUM, group=group)
        return [Sample(float(w), float(p)) for w, p in zip(walls, processors, strict=True)]

    def _contention(self, group: Any, ranks: Sequence[int], nbytes: int) -> str:
        """Say how much longer an all-reduce and products take beside each other."""
        import torch
        import torch.distributed as dist

        edge = EDGE.get(self.attached.backend, LARGE_EDGE)
        x = torch.ones(edge, edge, device=self.attached.device)
        buffer = self.tensor(nbytes)

        def products(count: int) -> None:
            for _ in range(count):
                torch.mm(x, x)

        one = min(self._times(lambda: products(8), group)) / 8
        once = min(self._times(lambda: dist.all_reduce(buffer, group=group), group))
        count = max(int(once / one), 8)

        def both() -> None:
            work: Any = dist.all_reduce(buffer, group=group, async_op=True)
            products(count)
            work.wait()

        calls: tuple[Callable[[], object], ...] = (
            lambda: dist.all_reduce(buffer, group=group), lambda: products(count), both,
        )  # fmt: skip
        rounds = [[self._times(call, group) for call in calls] for _ in range(ROUNDS // 2)]
        alone, busy, together = (
            undisturbed([t for part in parts for t in part]) for parts in zip(*rounds, strict=True)
        )
        return (
            f"an all-reduce of {nbytes:,} bytes among {len(ranks)} takes {1e3 * alone:.3g} ms, products"
            f" {1e3 * busy:.3g} ms, both at once {1e3 * together:.3g} ms by the wall"
        )


def cases_of(powers: range) -> Iterator[tuple[str, int, int]]:
    """Yield (collective, bytes, 1 where it is held out) of what is timed, over powers of four.

    All-reduces also at twice these sizes, and held out at three times: nowhere further than half
    as much from a size that is fitted.
    """
    for kind in EXERCISES:
        yield from ((kind, 4**power, 0) for power in powers)
    for power in powers[:-1]:
        yield "all_reduce", 2 * 4**power, 0
        yield "all_reduce", 3 * 4**power, 1


def _reduce(
    session: Session, group: Any, ranks: Sequence[int], nbytes: int
) -> Callable[[], object]:
    import torch.distributed as dist

    buffer = session.tensor(nbytes)
    return lambda: dist.all_reduce(buffer, group=group)


def _gather(
    session: Session, group: Any, ranks: Sequence[int], nbytes: int
) -> Callable[[], object]:
    import torch.distributed as dist

    part = session.tensor(nbytes / len(ranks))
    whole = part.repeat(len(ranks))
    gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    return lambda: gather(whole, part, group=group)


def _scatter(
    session: Session, group: Any, ranks: Sequence[int], nbytes: int
) -> Callable[[], object]:
    import torch.distributed as dist

    part = session.tensor(nbytes / len(ranks))
    whole = part.repeat(len(ranks))
    scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    return lambda: scatter(part, whole, group=group)


def _exchange(
    session: Session, group: Any, ranks: Sequence[int], nbytes: int
) -> Callable[[], object]:
    import torch
    import torch.distributed as dist

    sent = session.tensor(nbytes / len(ranks)).repeat(len(ranks))
    got = torch.empty_like(sent)
    return lambda: dist.all_to_all_single(got, sent, group=group)


def _send(session: Session, group: Any, ranks: Sequence[int], nbytes: int) -> Callable[[], object]:
    """One message from the first rank of the group to the last."""
    import torch.distributed as dist

    buffer = session.tensor(nbytes)

    def call() -> None:
        if session.world.rank == ranks[0]:
            dist.send(buffer, ranks[-1], group=group)
        elif session.world.rank == ranks[-1]:
            dist.recv(buffer, ranks[0], group=group)

    return call


Exercise = Callable[[Session, Any, Sequence[int], int], Callable[[], object]]
EXERCISES: dict[str, Exercise] = {
    "all_reduce": _reduce, "all_gather": _gather, "reduce_scatter": _scatter,
    "all_to_all": _exchange, "send": _send,
}  # fmt: skip


@contextmanager
def joined(attached: Attached) -> Iterator[None]:
    """Meet the other processes while this lasts; raises `InputError` when they do not come."""
    import torch.distributed as dist

    backend = BACKENDS[attached.backend]
    try:
        dist.init_process_group(backend, timeout=WAIT)
        dist.barrier()
    except (RuntimeError, ValueError) as error:
        why = str(error).splitlines()[0][:160]
        raise unusable(f"{backend} on {socket.gethostname()}", f"does not start: {why}") from error
    try:
        yield
    finally:
        dist.destroy_process_group()
