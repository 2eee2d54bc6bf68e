"""A child process that runs inputs within bounds of memory and time; a new one when it dies.

Inputs are named by kind and number, so that the child makes them itself; what it is told to run
otherwise (a smaller input, a stored one) is sent.
"""

from __future__ import annotations

import gc
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.pace import pace

from . import kinds
from .judge import Input, Outcome, is_waiting, run, used_s

MEMORY_BYTES = 3 * 2**30
IN_MEMORY = "/dev/shm"  # where there is one: answers are synced to what they are written to
SILENT_S = 90.0  # of CPU time, after which a child that says nothing is killed: real time starves
PACE_S = 30.0  # between measurements of how fast this core is
INPUTS_PER_CHILD = 3000  # its caches grow
HEAVY = (
    "numpy",
    "scipy.stats",
    "scipy.optimize",
    "scipy.sparse",
    "networkx",
    "simpy",
    "pydantic",
    "yaml",
    "rich.table",
)
COLLECT = (50_000, 20, 50)  # allocations between collections: a child has much that stays


@dataclass(slots=True)
class Bounds:
    """Of one input; times are those of a quiet core and scaled by what this one does now."""

    cpu_s: float = 8.0
    memory_bytes: int = MEMORY_BYTES
    silent_s: float = SILENT_S
    blocked_s: float = 10.0  # of real time without using the processor


class Pool:
    """One child; used in a `with` block."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        inside = IN_MEMORY if Path(IN_MEMORY).is_dir() else None
        self.root = Path(tempfile.mkdtemp(prefix="ersatz-fuzz-", dir=inside))
        self._child: BaseProcess | None = None
        self._left = 0
        self._slowness = _Slowness()
        for name in HEAVY:  # once, and not in every child
            import_module(name)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        shutil.rmtree(self.root, ignore_errors=True)

    def made(self, kind: str, seed: int, number: int) -> Outcome:
        """Make and run an input of a series."""
        return self._answer((kind, seed, number))

    def given(self, given: Input) -> Outcome:
        """Run an input; a `call` is found by its kind."""
        return self._answer((given.kind, dict(given.files), given.argv))

    def _answer(self, order: tuple[object, ...]) -> Outcome:
        if self._child is None or not self._left:
            self._end()
            self._start()
        self._left -= 1
        try:
            used = began = used_s(self._child.pid or 0)
            self._pipe.send(order)
            since = time.monotonic()
            while not self._pipe.poll(1.0):
                if not self._child.is_alive() and not self._pipe.poll(0.1):
                    raise EOFError
                pid = self._child.pid or 0
                if (now := used_s(pid)) > used + 0.1 or not is_waiting(pid):
                    used, since = now, time.monotonic()
                elif (still := time.monotonic() - since) > self.bounds.blocked_s:
                    os.kill(
                        pid, signal.SIGUSR1 if still < 4 * self.bounds.blocked_s else signal.SIGKILL
                    )
                if used - began > self.bounds.silent_s * self._slowness.now():
                    self._end()
                    return Outcome(-9, "overtime: had to be killed", "", used - began)
            outcome: Outcome = self._pipe.recv()
            if outcome.signature.startswith(("overtime", "blocked")):
                self._end()  # it was stopped anywhere: what it held then may still be held
            return outcome
        except (EOFError, ConnectionError):
            self._child.join(5.0)
            code = self._child.exitcode
            self._end()
            name = signal.Signals(-code).name if code and code < 0 else f"status {code}"
            return Outcome(-9, f"crash: the process ended with {name}")

    def _start(self) -> None:
        context = get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._child = context.Process(
            target=_serve, args=(theirs, self.root, self.bounds), daemon=False
        )
        self._child.start()
        theirs.close()
        self._left = INPUTS_PER_CHILD

    def _end(self) -> None:
        if self._child is not None:
            self._pipe.close()
            self._child.kill()
            self._child.join()
            self._child = None


class _Slowness:
    """How many times longer than on a quiet core anything takes, measured again every so often."""

    def __init__(self) -> None:
        self._known, self._until = 1.0, 0.0

    def now(self) -> float:
        if time.monotonic() >= self._until:
            self._known, self._until = pace(), time.monotonic() + PACE_S
        return self._known


def _serve(pipe: Connection, root: Path, bounds: Bounds) -> None:
    """Run what is asked for until the other side is gone."""
    resource.setrlimit(resource.RLIMIT_AS, (bounds.memory_bytes, bounds.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**28, 2**28))
    for number in (signal.SIGXFSZ, signal.SIGINT):  # not SIGTERM: by it pools end their workers
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.setrecursionlimit(1000)
    gc.freeze()
    gc.set_threshold(*COLLECT)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    slowness = _Slowness()
    while True:
        try:
            order = pipe.recv()
        except (EOFError, OSError):
            return
        kind, second, third = order
        given = (kinds.make(kind, second, third) if isinstance(second, int)
                 else Input(kind, second, third, kinds.CALLS.get(kind)))  # fmt: skip
        outcome = run(given, root, bounds.cpu_s * slowness.now())
        if outcome.seconds > 1.0:
            gc.collect()
        pipe.send(outcome)


def series(
    pool: Pool, kind: str, seed: int, first: int, count: int
) -> Iterator[tuple[int, Outcome]]:
    """Yield number and outcome of each input of a series."""
    for number in range(first, first + count):
        yield number, pool.made(kind, seed, number)
