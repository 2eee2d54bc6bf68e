"""CUDA graphs: what is captured is cut out of the trace, and each replay pastes it in with one launch.

Not modelled: values inside a graph; integers stay those of the capture, as their tensors do in life unless
they are written to.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, ClassVar, NamedTuple

from ersatz.sim.emulate.clock import HOST, Entry
from ersatz.sim.emulate.virtual.machine import Machine


class Before(NamedTuple):
    """A clock as it stood when a capture began."""

    host: float
    free: dict[int, float]
    last: dict[int, int]
    pending: dict[int, set[int]]
    talking: list[tuple[float, float, int]]
    beside_s: float
    entries: int


class CUDAGraph:
    """Work that is launched at once."""

    machine: ClassVar[Machine]
    _pools: ClassVar[int] = 0

    def __init__(self, keep_graph: bool = False) -> None:
        self.entries: list[Entry] = []
        self.stream = 0
        self.handle = pool_handle()

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        """Begin to cut out what follows."""
        machine, clock = self.machine, self.machine.clock
        self.handle = pool or self.handle
        self.stream, machine.capturing = machine.stream, True
        pending = {k: set(v) for k, v in clock.pending.items()}
        self.before = Before(clock.host, dict(clock.free), dict(clock.last), pending,
                             list(clock.talking), clock.beside_s, len(clock.entries))  # fmt: skip

    def capture_end(self) -> None:
        """Take what was captured out of the trace: nothing of it has run."""
        clock, before = self.machine.clock, self.before
        self.entries = clock.entries[before.entries :]
        del clock.entries[before.entries :], clock.ends[before.entries :]
        clock.host = before.host
        clock.free.clear()
        clock.free.update(before.free)
        clock.talking, clock.beside_s, clock.ended = list(before.talking), before.beside_s, False
        clock.last, clock.pending = before.last, defaultdict(set, before.pending)
        self.machine.capturing = False

    def replay(self) -> None:
        """Run it on the current stream: one launch of the host for all."""
        machine, clock = self.machine, self.machine.clock
        begin, first, host_s = clock.mark(machine.stream), len(clock.entries), machine.launch_s
        places: dict[int, int] = {}
        used: set[int] = set()
        for i, entry in enumerate(self.entries):
            if entry.stream == HOST:
                continue
            stream = machine.stream if entry.stream == self.stream else entry.stream
            after = [
                places[j - self.before.entries]
                for j in entry.after
                if j - self.before.entries in places
            ]
            waits = after if stream in used or stream == machine.stream else [*after, *begin]
            used.add(stream)
            task = machine.recorder.table[entry.work]
            seconds = task.seconds
            places[i] = clock.run(stream, entry.work, seconds, host_s, waits, talks=task.talks)
            host_s = 0.0
        machine.contend()
        if len(clock.entries) > first:  # what follows waits for all branches
            clock.wait(machine.stream, [i for s in used for i in clock.mark(s)])
        machine.note("values inside CUDA graphs stay those of their capture")

    def reset(self) -> None:
        """Forget what was captured."""
        self.entries = []

    def pool(self) -> Any:
        """Return the handle of its memory."""
        return self.handle

    def enable_debug_mode(self) -> None:
        """Do nothing: there is nothing to dump."""

    debug_dump = register_generator_state = instantiate = lambda self, *args: None


class graph:
    """Context in which work is captured."""

    def __init__(
        self, cuda_graph: CUDAGraph, pool: Any = None, stream: Any = None,
        capture_error_mode: str = "global", **kwargs: Any,
    ) -> None:  # fmt: skip
        self.cuda_graph, self.pool, self.stream = cuda_graph, pool, stream

    def __enter__(self) -> None:
        machine = self.cuda_graph.machine
        machine.clock.synchronize()
        self.before = machine.stream
        machine.stream = (
            machine.new_stream("capture") if self.stream is None else self.stream.number
        )
        self.cuda_graph.capture_begin(self.pool)

    def __exit__(self, *error: object) -> None:
        self.cuda_graph.capture_end()
        self.cuda_graph.machine.stream = self.before


def pool_handle() -> tuple[int, int]:
    """Return the handle of a new pool of memory."""
    CUDAGraph._pools += 1
    return 0, CUDAGraph._pools


def surface_of(machine: Machine) -> dict[str, Any]:
    """Return what `torch.cuda` offers of graphs."""
    CUDAGraph.machine = machine
    return {
        "CUDAGraph": CUDAGraph, "NPUGraph": CUDAGraph, "graph": graph, "graph_pool_handle": pool_handle,
        "is_current_stream_capturing": lambda: machine.capturing,
    }  # fmt: skip
