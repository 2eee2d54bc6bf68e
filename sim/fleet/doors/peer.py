"""The process at the other end of a ZeroMQ socket: started, asked, and never left behind.

Either ersatz starts the scheduler (`command`, whose word {endpoint} is where it must bind: a socket
file in a private folder), or the user has, and says where it listens (`endpoint`).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ersatz.sim.fleet.protocol import SchedulerFault

LOOK_MS = 100  # between two looks at whether the process still lives
FAREWELL_S = 2.0  # for the last answer and for its end


def _die_with_parent() -> None:
    """Ask Linux to end this process when ersatz dies without having done so itself."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Peer:
    """A scheduler's process. Times are real seconds."""

    def __init__(self, command: str = "", endpoint: str = "", *, timeout_s: float = 30.0) -> None:
        if bool(command) == bool(endpoint):
            raise ValueError("expected either a command that starts a scheduler, or an endpoint")
        if command and "{endpoint}" not in command:
            raise ValueError(f"the command {command!r} lacks {{endpoint}}, where it has to bind")
        self.command, self.endpoint, self.timeout_s = command, endpoint, timeout_s
        self.folder: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._socket: Any = None
        self._context: Any = None
        self._nothing_yet: type[Exception] = TimeoutError

    @property
    def name(self) -> str:
        """What to call it: the file or program that is run, or its endpoint."""
        words = [w for w in shlex.split(self.command) if not w.startswith("-") and "{" not in w]
        stems = [Path(w).stem for w in words if Path(w).stem not in ("python", "python3", "env")]
        return " ".join(stems[:2]) or self.endpoint

    def open(self) -> None:
        """Start the process, if it is ours to start, and connect. Raises `SchedulerFault`."""
        try:
            import zmq
        except ImportError:
            raise SchedulerFault("needs pyzmq: pip install 'ersatz[schedulers]'") from None
        if self.command:
            self._start()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 10)
        self._socket.setsockopt(zmq.RCVTIMEO, LOOK_MS)
        self._socket.setsockopt(zmq.SNDTIMEO, LOOK_MS)
        self._nothing_yet = zmq.Again
        try:
            self._socket.connect(self.endpoint)
        except zmq.ZMQError as error:
            raise SchedulerFault(f"cannot be reached at {self.endpoint!r}: {error}") from None

    def _start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ersatz-scheduler-"))
        self.endpoint = f"ipc://{self.folder}/socket"
        words = [w.replace("{endpoint}", self.endpoint) for w in shlex.split(self.command)]
        with (self.folder / "output").open("wb") as output:
            try:
                self.process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={"PYTHONHASHSEED": "0", **os.environ},  # the same decisions every time
                    start_new_session=True,  # ended as a group, and not by an interrupt of ours
                    preexec_fn=_die_with_parent,
                )
            except OSError as error:
                raise SchedulerFault(f"cannot be started: {words[0]}: {error.strerror}") from None

    def ask(self, message: bytes) -> bytes:
        """Return the reply to a message. Raises `SchedulerFault` when none comes."""
        self._socket.send(message)
        end = time.monotonic() + self.timeout_s
        while True:
            dead = self.process is not None and self.process.poll() is not None
            try:
                reply: bytes = self._socket.recv()
                return reply
            except self._nothing_yet:
                if dead:  # already before this wait: nothing can come any more
                    raise SchedulerFault(
                        f"ended: its process {self._status()}{self.last_words()}"
                    ) from None
            if time.monotonic() > end:
                raise SchedulerFault(f"hangs: no answer in {self.timeout_s:g} s")

    def _status(self) -> str:
        code = self.process.returncode if self.process else 0
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"exited with status {code}"

    def last_words(self) -> str:
        """Return the last line that the process wrote, as a clause."""
        if not self.folder:
            return ""
        lines = (self.folder / "output").read_text(errors="replace").strip().splitlines()
        return f"; it wrote: {lines[-1][:200]}" if lines else ""

    def close(self, farewell: bytes = b"") -> None:
        """End the connection and the process; `farewell` is sent before, if nothing is pending."""
        try:
            if farewell and self._socket is not None:
                self._socket.send(farewell)
                self._socket.poll(FAREWELL_S * 1000)
        finally:
            if self._socket is not None:
                self._socket.close()
                self._context.term()
                self._socket = None
            self._end_process(patient=bool(farewell))
            if self.folder:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder = None

    def _end_process(self, *, patient: bool) -> None:
        if self.process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(FAREWELL_S if patient else 0.0)
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)  # the whole group: also what it started
                self.process.wait(FAREWELL_S)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self.process = None
