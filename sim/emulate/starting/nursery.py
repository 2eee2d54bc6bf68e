"""Ranks are forked from one process that has imported PyTorch once: a start costs tens of milliseconds.

    python -P -m ersatz.sim.emulate.starting.nursery SOCKET      asked over the socket that it inherits

A request carries what a rank needs to begin, and two open files: for what it prints, and for its number
and its exit status. Who supervises a rank is forked, too, so that the nursery waits for nobody. It keeps
no state of a rank: nothing is run, and nothing replaced, before the fork.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

MOST = 1 << 20  # bytes of a request
_LENGTH = 8
PR_SET_PDEATHSIG = 1
PARTING_S = 2.0  # for a nursery to end by itself
CORE = ("torch", "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.device_mesh",
        "torch.distributed.tensor", "torch.testing._internal.distributed.fake_pg",
        "torch.utils.backend_registration", "ersatz.sim.emulate.virtual.rank",
        "ersatz.sim.emulate.virtual.mode", "ersatz.sim.emulate.world.collectives",
        "ersatz.sim.emulate.standins.place", "ersatz.sim.emulate.surface.cuda",
        "ersatz.sim.emulate.surface.npu")  # fmt: skip


@dataclass(slots=True)
class Child:
    """One process that the nursery started."""

    pid: int
    news: IO[bytes]  # its exit status comes here
    status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status; None while it runs."""
        if self.status is None:
            with suppress(BlockingIOError):
                told = os.read(self.news.fileno(), 16)
                self.status = int(told) if told else -signal.SIGKILL  # its supervisor is gone
        return self.status

    def kill(self) -> None:
        """End it with all that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


@dataclass(slots=True)
class Nursery:
    """A process with PyTorch imported, from which ranks are forked."""

    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] = field(init=False)
    line: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self.line, theirs = socket.socketpair()
        words = [
            sys.executable,
            "-P",
            "-m",
            "ersatz.sim.emulate.starting.nursery",
            str(theirs.fileno()),
        ]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, env=dict(self.environment),
                                        pass_fds=[theirs.fileno()], start_new_session=True)  # fmt: skip
        theirs.close()

    def start(
        self, seat: str, script: Sequence[str], environment: Mapping[str, str], output: int
    ) -> Child:
        """Fork a rank that runs a script in the current folder and prints to an open file."""
        reading, writing = os.pipe()
        text = json.dumps([seat, list(script), dict(environment), os.getcwd()]).encode()
        try:
            socket.send_fds(self.line, [len(text).to_bytes(_LENGTH, "big")], [output, writing])
            self.line.sendall(text)
        finally:
            os.close(writing)
        news = os.fdopen(reading, "rb", buffering=0)
        pid = int(news.readline() or 0)
        os.set_blocking(reading, False)
        return Child(pid, news)

    def close(self) -> None:
        """Let it end."""
        self.line.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(PARTING_S)
        self.process.kill()
        self.process.wait()


_open: dict[str, Nursery] = {}


def nursery() -> Nursery:
    """Return the nursery of this environment: there is one until the environment or the process ends."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1",
                   "PYTHONHASHSEED": "0", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
                   "TORCHDYNAMO_DISABLE": "1"}  # fmt: skip
    volatile = {"PYTEST_CURRENT_TEST", "PWD", "OLDPWD", "_"}
    key = json.dumps({k: v for k, v in sorted(environment.items()) if k not in volatile})
    found = _open.get(key)
    if found is None or found.process.poll() is not None:
        for other in _open.values():
            other.close()
        _open.clear()
        found = _open[key] = Nursery(environment)
    return found


@atexit.register
def close_all() -> None:
    """Let every nursery end."""
    for found in _open.values():
        found.close()
    _open.clear()


def serve(line: socket.socket) -> None:
    """Fork a rank for every request until the asker goes away."""
    import importlib

    for name in CORE:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks ends the ranks
    while True:
        head, files, _, _ = socket.recv_fds(line, _LENGTH, 2)
        if not head:
            return
        text = _exactly(line, int.from_bytes(head, "big"))
        if os.fork() == 0:
            line.close()
            _supervise(*json.loads(text), *files)
        for file in files:
            os.close(file)


def _exactly(line: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        parts.append(line.recv(min(size, MOST)))
        size -= len(parts[-1])
        if not parts[-1]:
            os._exit(0)
    return b"".join(parts)


def _supervise(
    seat: str, script: list[str], environment: dict[str, str], folder: str, output: int, news: int
) -> None:
    """Run a rank in a process of its own and tell its status; does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _end_with_parent()
    pid = os.fork()
    if pid == 0:
        _end_with_parent()
        os.close(news)
        os.setpgid(0, 0)
        _become(seat, script, environment, folder, output)
    os.close(output)
    with suppress(OSError):
        os.setpgid(pid, pid)  # whoever of the two comes first
    _tell(news, pid)
    _, status = os.waitpid(pid, 0)
    _tell(news, os.waitstatus_to_exitcode(status))
    os._exit(0)


def _tell(news: int, number: int) -> None:
    """Write a line; where nobody is left to hear it this process ends, and the rank with it."""
    try:
        os.write(news, b"%d\n" % number)
    except OSError:
        os._exit(0)


def _end_with_parent() -> None:
    """Let Linux end this process when the one that forked it ends, however that comes."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _become(
    seat: str, script: list[str], environment: dict[str, str], folder: str, output: int
) -> None:
    """Run the rank; does not return."""
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    status = 1
    try:
        from ersatz.sim.emulate.virtual.rank import main

        status = main([seat, "--", *script])
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
