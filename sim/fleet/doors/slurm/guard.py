"""Holds the fast clock, and leaves nothing behind: run as a program of its own, on its own.

`faketime ... python guard.py FOLDER` prints the environment that processes need to share the clock,
then waits for the end of its standard input. That comes when ersatz closes the pipe, and also when
ersatz dies, however it dies. Then every process that carries this folder's SLURM_CONF is ended and the
folder is removed. It imports nothing of ersatz, so that it starts at once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time

ROUNDS = 200


def members(conf: str) -> list[int]:
    """Return the ids of all other processes whose environment names the configuration file."""
    mark = f"SLURM_CONF={conf}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if mark in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue  # gone, or another user's
    return found


def end_all(conf: str, pause: float) -> None:
    """Terminate the processes of an emulated Slurm; kill those that do not go."""
    for number in range(ROUNDS):
        left = members(conf)
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGTERM if number == 0 else signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(pause if number else 5 * pause)


def main(folder: str, speed: float) -> None:
    """Print the clock's environment, wait, and clear up; pauses are of a tenth of a real second."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it goes last, when its input ends
    clock = {key: value for key, value in os.environ.items()
             if key.startswith("FAKETIME") or key == "LD_PRELOAD"}  # fmt: skip
    print(json.dumps({"environment": clock, "now": time.time()}), flush=True)
    sys.stdin.read()
    end_all(f"{folder}/slurm.conf", 0.1 * speed)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
