"""Start the processes of the emulated ranks, wait for them together, and read what they did."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ersatz.device_models.text.private import private_place
from ersatz.sim.emulate.starting.nursery import Child, nursery
from ersatz.sim.emulate.starting.smi import write_tools
from ersatz.sim.emulate.trace import Trace, load
from ersatz.sim.emulate.virtual_device import OLDEST, TESTED, WHERE, Seat, seated_node, shown_as
from ersatz.sim.errors import EXIT_BAD_INPUT, InfeasibleError, InputError, Problem

POLL_S = 0.02
LAST_WORDS_S = 1.0  # for what a rank printed at its end
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_NOT_THE_SCRIPT = re.compile(r"-packages/|/sim/emulate/|/lib/python\d|^<")
TAIL = 30  # lines of a rank's output that a failure quotes


@dataclass(slots=True)
class Running:
    """One rank's process and where it writes."""

    seat: Seat
    process: Child
    log: Path
    relay: threading.Thread | None = None  # shows what it prints


def torch_version() -> str:
    """Return the version of PyTorch; raises `InputError` that says what to install."""
    try:
        found = version("torch")
    except PackageNotFoundError:
        expected = "is not installed; pip install 'ersatz[emulate]' (the CPU build is enough)"
        raise InputError([Problem("emulate", 0, 0, "PyTorch", "", expected)]) from None
    minor = tuple(int(part) for part in found.split("+")[0].split(".")[:2])
    if minor < OLDEST:
        expected = f"is too old; expected {'.'.join(map(str, OLDEST))} or newer"
        raise InputError([Problem("emulate", 0, 0, "PyTorch", found, expected)])
    return found


def version_note(found: str) -> str:
    """Return a sentence where a version of PyTorch was never tried; empty where it was."""
    if any(found.startswith(minor) for minor in TESTED):
        return ""
    return f"PyTorch {found} was never tried; tested are {', '.join(TESTED)}"


def run_ranks(seats: Sequence[Seat], script: Sequence[str], patience_s: float) -> list[Trace]:
    """Run a script as every rank that has a seat, all at once; returns their traces.

    Raises `InputError` where the script fails or makes no step, `InfeasibleError` where a device's memory
    is too small for it.
    """
    with private_place("emulate") as folder:
        node, _ = seated_node(seats[0].node, seats[0].nodes, seats[0].stack)
        write_tools(folder, node.device, shown_as(node.device), seats[0].per_node)
        port = free_port() if len(seats) > 1 else 0
        running: list[Running] = []
        try:
            for i, seat in enumerate(seats):
                placed = replace(seat, out=str(folder / f"{seat.rank}.json"), store_port=port)
                running.append(_start(placed, script, folder, quiet=i > 0))
            _wait(running, patience_s)
            return [_trace(r) for r in running]
        finally:
            _stop(running)


def _start(seat: Seat, script: Sequence[str], folder: Path, *, quiet: bool) -> Running:
    log = folder / f"{seat.rank}.log"
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
                   "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}",
                   "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}  # fmt: skip
    with log.open("wb") as file:
        if quiet:
            return Running(
                seat, nursery().start(seat.to_json(), script, environment, file.fileno()), log
            )
        reading, writing = os.pipe()
        child = nursery().start(seat.to_json(), script, environment, writing)
        os.close(writing)
    return Running(seat, child, log, _relay(reading, log))


def _relay(source: int, log: Path) -> threading.Thread:
    """Show what a rank prints on standard error, and keep it."""
    from ersatz.device_models.text.visible import stripped, visible

    def copy() -> None:
        with os.fdopen(source, "rb") as printed, log.open("ab") as file:
            for line in printed:
                file.write(line)
                file.flush()
                with suppress(OSError, ValueError):
                    shown = line.rstrip(b"\r\n").rpartition(b"\r")[2]  # of a bar its last state
                    sys.stderr.write(visible(stripped(shown.decode("utf-8", "replace"))) + "\n")
                    sys.stderr.flush()

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread


def _wait(running: Sequence[Running], patience_s: float) -> None:
    """Wait until all ranks have ended, or one has failed."""
    begin = time.monotonic()
    while any(r.process.poll() is None for r in running):
        if any(map(_failed, running)):
            break
        if time.monotonic() - begin > patience_s:
            where = _whereabouts(running[0])
            raise _fault(
                running[0], f"has not ended after {patience_s:.0f} s of real time{where}; fewer --steps, a"
                " smaller model, or more --patience"
            )  # fmt: skip
        time.sleep(POLL_S)
    for rank in running:
        if rank.process.poll():
            time.sleep(POLL_S)
            if rank is not running[0]:  # the first has shown what it printed
                _show_tail(rank)
            raise _failure(rank)
        if _failed(rank):
            _trace(rank)


def _whereabouts(rank: Running) -> str:
    """Ask a rank where its script is; empty where it does not say."""
    told = Path(rank.seat.out + WHERE)
    with suppress(OSError):
        os.kill(rank.process.pid, signal.SIGUSR1)
        for _ in range(25):
            time.sleep(POLL_S)
            found = [
                m for m in _FRAME.findall(told.read_text()) if not _NOT_THE_SCRIPT.search(m[0])
            ]
            if found:
                return f"; it is at {Path(found[0][0]).name}:{found[0][1]}"
    return ""


def _failed(rank: Running) -> bool:
    """Tell whether a rank ended with a status, or without a trace: others would wait for it."""
    status = rank.process.poll()
    return bool(status) or (status == 0 and not Path(rank.seat.out).exists())


def _show_tail(rank: Running) -> None:
    """Show the last lines that a rank printed."""
    from ersatz.device_models.text.visible import visible

    for line in rank.log.read_text("utf-8", "replace").splitlines()[-TAIL:]:
        with suppress(OSError):
            print(f"rank {rank.seat.rank}: {visible(line)}", file=sys.stderr)


def _failure(rank: Running) -> Exception:
    error = started = ""
    with suppress(OSError, ValueError, KeyError):
        trace = load(Path(rank.seat.out))
        error, started = str(trace.facts["error"]), _started(trace)
    if "out of memory" in error:
        return InfeasibleError(f"rank {rank.seat.rank}: {error}")
    lines = rank.log.read_text("utf-8", "replace").splitlines()[-TAIL:] if rank.log.exists() else []
    status = rank.process.poll()
    if status == EXIT_BAD_INPUT and not Path(rank.seat.out).exists():  # before the script began
        return _fault(rank, lines[-1] if lines else "could not be started")
    words = (
        error.splitlines()[0] if error else f"ended with status {status}: {' / '.join(lines[-2:])}"
    )
    return _fault(rank, f"the script failed: {words}{started}")


def _trace(rank: Running) -> Trace:
    path = Path(rank.seat.out)
    if not path.exists():
        raise _fault(
            rank, "ended without a trace: the script, or a library, left the process at once"
        )
    trace = load(path)
    if not trace.marks:
        raise _fault(
            rank, f"made no optimizer step and no backward pass in {trace.facts['dispatches']:,} operators on"
            f" the device: there is nothing to time{_started(trace)}"
        )  # fmt: skip
    return trace


def _started(trace: Trace) -> str:
    """Say where a script has started processes of its own, which have worked unseen."""
    places = [
        f"{place} ({count:,})" for place, count in sorted(trace.facts.get("started", {}).items())
    ]
    if not places:
        return ""
    return (
        f"; processes that it starts by itself are not seen, at {', '.join(places[:4])}: let torchrun start"
        " them, and the script read LOCAL_RANK"
    )


def _fault(rank: Running, expected: str) -> InputError:
    return InputError([Problem("emulate", 0, 0, f"rank {rank.seat.rank}", "", expected)])


def _stop(running: Sequence[Running]) -> None:
    """End every process with what it has started, and show the last that was printed."""
    for rank in running:
        rank.process.kill()
    for rank in running:
        if rank.relay:
            rank.relay.join(LAST_WORDS_S)


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
