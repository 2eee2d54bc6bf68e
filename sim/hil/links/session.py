"""Time collectives between real processes, under `torchrun`.

Every process runs the same program. A span is a group of ranks: a pair side by side, a node, one
rank of every node, everybody. Each collective is timed from a barrier until its slowest member is
done, as a training step waits for it. All collectives and sizes take turns, round after round, so that
a disturbance meets some samples of each and not all samples of one; the lower decile counts. A process
on a CPU counts as a node of its own, as `cpu-1` in the catalogue; on accelerators the processes of a
host are a node.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ersatz.sim.hil.device.attached import Attached, unusable
from ersatz.sim.hil.links.tables import span_of
from ersatz.sim.hil.links.timing import Timing

LIBRARIES = {"cpu": "gloo", "cuda": "nccl", "rocm": "rccl", "npu": "hccl"}
BACKENDS = {**LIBRARIES, "rocm": "nccl"}  # PyTorch calls RCCL by the name of NCCL
WAIT = timedelta(seconds=120)  # for processes that do not come
ROUNDS, SAMPLES, SHORT_S = 8, 4, 2e-3  # short ones are sampled four times as often
SIZES = tuple(4**power for power in range(6, 13))  # 4 KiB to 16 MiB
LARGE_SIZES = (*SIZES, 4**13, 4**14, 2 * 4**14)  # up to 512 MiB on accelerators
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
        sizes = SIZES if self.attached.backend == "cpu" else LARGE_SIZES
        cases = [(kind, nbytes) for kind in EXERCISES for nbytes in sizes]
        samples: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
        lacking: set[str] = set()
        for turn in range(ROUNDS):
            for kind, nbytes in cases:
                if kind in lacking:
                    continue
                self.tell(f"{kind} of {nbytes:,} bytes among {len(ranks)}, {turn + 1} of {ROUNDS}")
                try:
                    call = EXERCISES[kind](self, group, ranks, nbytes)
                    samples[kind, nbytes] += self._times(call, group)
                except (RuntimeError, ValueError, NotImplementedError) as error:
                    self.missing.append(f"{kind}: {str(error).splitlines()[0][:90]}")
                    lacking.add(kind)
        self.rows += [self._row(*case, ranks, per_node, times)
                      for case, times in samples.items() if times]  # fmt: skip
        if len(ranks) == self.world.size:
            self.contention = self._contention(group, ranks, sizes[-1])

    def _row(
        self, kind: str, nbytes: int, ranks: Sequence[int], per_node: int, times: list[float]
    ) -> Timing:
        ordered, cut = sorted(times), len(times) // 5
        spread = (ordered[-1 - cut] - ordered[cut]) / statistics.median(ordered)
        return Timing(kind, nbytes, len(ranks), per_node, undisturbed(ordered), spread, len(times),
                      span_of(len(ranks), per_node))  # fmt: skip

    def tensor(self, nbytes: float) -> Any:
        """Return a buffer of this many bytes of fp32."""
        import torch

        return torch.ones(max(int(nbytes) // 4, 1), device=self.attached.device)

    def _times(self, call: Callable[[], object], group: Any) -> list[float]:
        """Return samples of the slowest member's seconds, the same on every rank."""
        first = self._slowest([self._sample(call, group)], group)[0]
        count = 4 * SAMPLES if first < SHORT_S else SAMPLES
        return self._slowest([self._sample(call, group) for _ in range(count)], group)

    def _sample(self, call: Callable[[], object], group: Any) -> float:
        import torch.distributed as dist

        self.attached.synchronize()
        dist.barrier(group)
        begun = time.perf_counter()
        call()
        self.attached.synchronize()
        return time.perf_counter() - begun

    def _slowest(self, values: list[float], group: Any) -> list[float]:
        import torch
        import torch.distributed as dist

        shared = torch.tensor(values, dtype=torch.float32, device=self.attached.device)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=group)
        return [float(v) for v in shared]

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
        rounds = [[self._times(call, group) for call in calls] for _ in range(ROUNDS)]
        alone, busy, together = (
            undisturbed([t for part in parts for t in part]) for parts in zip(*rounds, strict=True)
        )
        return (
            f"an all-reduce of {nbytes:,} bytes among {len(ranks)} takes {1e3 * alone:.3g} ms, products"
            f" {1e3 * busy:.3g} ms, both at once {1e3 * together:.3g} ms"
        )


def undisturbed(times: Sequence[float]) -> float:
    """Return the lower decile: what else runs on a host delays a message and never hastens it."""
    return sorted(times)[len(times) // 10]


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
