"""The process at the other end of a ZeroMQ socket: started, asked, and never left behind.

Either ersatz starts the scheduler (`command`, whose word {endpoint} is where it must bind: a socket
file in a private folder), or the user has, and says where it listens (`endpoint`).
"""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path
from typing import Any

from ersatz.device_models.text.private import private_folder
from ersatz.sim.fleet.policies.own.kept import FAREWELL_S, Kept, environment
from ersatz.sim.fleet.protocol import SchedulerFault

LOOK_MS = 100  # between two looks at whether the process still lives
MOST_BYTES = 64 * 2**20  # of a reply
# Others reach no other process (inproc), or are a place to bind at (port 0, a star)
ADDRESS = re.compile(
    r"tcp://[^\s:/*]+:0*[1-9][0-9]{0,4}|tcp://\[[^\s\]]+\]:0*[1-9][0-9]{0,4}|ipc://.+"
)


class Peer:
    """A scheduler's process. Times are real seconds."""

    def __init__(self, command: str = "", endpoint: str = "", *, timeout_s: float = 30.0) -> None:
        if bool(command) == bool(endpoint):
            raise ValueError("expected either a command that starts a scheduler, or an endpoint")
        if command and "{endpoint}" not in command:
            raise ValueError(f"the command {command!r} lacks {{endpoint}}, where it has to bind")
        if endpoint and not ADDRESS.fullmatch(endpoint):
            raise ValueError(f"{endpoint!r}: expected an endpoint tcp://HOST:PORT or ipc://PATH")
        self.command, self.endpoint, self.timeout_s = command, endpoint, timeout_s
        self.folder: Path | None = None
        self.process: Kept | None = None
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
        self._socket.setsockopt(zmq.MAXMSGSIZE, 4 * MOST_BYTES)  # above it the line is cut
        self._socket.setsockopt(zmq.RECONNECT_IVL, 10)
        self._socket.setsockopt(zmq.RCVTIMEO, LOOK_MS)
        self._socket.setsockopt(zmq.SNDTIMEO, LOOK_MS)
        self._nothing_yet = zmq.Again
        try:
            self._socket.connect(self.endpoint)
        except zmq.ZMQError as error:
            raise SchedulerFault(f"cannot be reached at {self.endpoint!r}: {error}") from None

    def _start(self) -> None:
        self.folder = private_folder("scheduler")
        self.endpoint = f"ipc://{self.folder}/socket"
        words = [w.replace("{endpoint}", self.endpoint) for w in shlex.split(self.command)]
        try:
            self.process = Kept(words, self.folder, environment=environment())
        except OSError as error:
            raise SchedulerFault(f"cannot be started: {words[0]}: {error.strerror}") from None

    def ask(self, message: bytes) -> bytes:
        """Return the reply to a message. Raises `SchedulerFault` when none comes."""
        self._socket.send(message)
        end = time.monotonic() + self.timeout_s
        while True:
            end_text = self.process.how_it_ended() if self.process else ""
            try:
                return self._bounded(self._socket.recv())
            except self._nothing_yet:
                if end_text:  # already before this wait: nothing can come any more
                    raise SchedulerFault(f"ended: its process {end_text}") from None
            if time.monotonic() > end:
                raise SchedulerFault(f"hangs: no answer in {self.timeout_s:g} s")

    def _bounded(self, reply: bytes) -> bytes:
        if len(reply) > MOST_BYTES:
            raise SchedulerFault(f"answered {len(reply):,} bytes; expected at most {MOST_BYTES:,}")
        return reply

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
            if self.process is not None:
                self.process.end(patient=bool(farewell))  # its keeper removes the folder, too
            self.process = self.folder = None
