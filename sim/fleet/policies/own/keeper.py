"""Starts a program and leaves nothing of it behind: run as a program of its own, on its own.

`python keeper.py FOLDER RELAY FDS WORD...` starts the words and says so in a line of JSON, and in
another how they ended. It waits for the end of its standard input, which comes when ersatz closes the
pipe and also when ersatz dies, however it dies. Then all processes that came from the words are ended,
also those that left their group or their parents, and the folder is removed. What the words write is
read and dropped but for its end, so that it fills no disk; RELAY bytes of it go to standard error.
It imports nothing of ersatz, so that it starts at once.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time

LOOK_S = 0.05
FAREWELL_S = 2.0  # between SIGTERM and SIGKILL
TAIL = 4096  # bytes of output that are kept
LINUX = sys.platform == "linux"


def prctl(option: int, value: int) -> None:
    """Set a property of this process, where there are such."""
    if LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def begin_child() -> None:
    """Die with the keeper, and first of all where memory runs out."""
    prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if LINUX:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")


def tell(**found: object) -> None:
    """Write a line for ersatz; if it is gone the end of the input says so, too."""
    try:
        os.write(1, json.dumps(found).encode() + b"\n")
    except OSError:
        return


def descendants() -> list[int]:
    """Return all processes that came from this one; orphans among them are its children."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if LINUX else []:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue  # gone
            children.setdefault(parent, []).append(int(name))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


class Keeper:
    """A program under way."""

    def __init__(self, words: list[str], fds: tuple[int, ...], relay: int) -> None:
        self.output, write = os.pipe()
        self.relay, self.tail = relay, b""
        self.status: int | None = None
        try:
            self.program = subprocess.Popen(  # kept: one that is let go takes leave of a child itself
                words, stdin=subprocess.DEVNULL, stdout=write, stderr=write, pass_fds=fds,
                start_new_session=True, preexec_fn=begin_child,
            )  # fmt: skip
            self.pid = self.program.pid
        finally:
            os.close(write)
            for fd in fds:
                os.close(fd)

    def reap(self) -> bool:
        """Take leave of children that have ended; False where none is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid == self.pid:
                self.status = os.waitstatus_to_exitcode(status)

    def read(self) -> bool:
        """Read what was written; False when nobody can write any more."""
        chunk = os.read(self.output, 65536)
        self.tail = (self.tail + chunk)[-TAIL:]
        if self.relay:
            os.write(2, chunk[: self.relay])
            self.relay = max(self.relay - len(chunk), 0)
        return bool(chunk)

    def watch(self) -> None:
        """Wait for the end of the input; tell when the program has ended."""
        with selectors.DefaultSelector() as ready:
            ready.register(0, selectors.EVENT_READ)
            ready.register(self.output, selectors.EVENT_READ)
            told = False
            while True:
                found = {key.fd for key, _ in ready.select(LOOK_S)}
                if self.output in found and not self.read():
                    ready.unregister(self.output)
                self.reap()
                if self.status is not None and not told and self.output not in found:
                    told = True
                    tell(status=self.status, words=self.tail.decode("utf-8", "replace"))
                if 0 in found and not os.read(0, 1024):
                    return

    def end(self) -> None:
        """End everything that came from the program: first politely, then until nothing is left."""
        start = time.monotonic()
        number = signal.SIGTERM
        while self.reap():
            for pid in descendants() or [self.pid]:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            while self.reap() and number == signal.SIGTERM:
                if time.monotonic() > start + FAREWELL_S:
                    break
                time.sleep(LOOK_S / 5)
            number = signal.SIGKILL
            time.sleep(LOOK_S / 5)


def main(folder: str, relay: str, fds: str, *words: str) -> None:
    """Start, watch, end, clear up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # it goes last; the program's own are as usual
    prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans come here
    try:
        keeper = Keeper(list(words), tuple(map(int, fds.split(","))) if fds else (), int(relay))
    except OSError as error:
        tell(error=error.strerror)
    else:
        tell(pid=keeper.pid)
        keeper.watch()
        keeper.end()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
