"""Threads of the script: modes belong to a thread, so each enters one of its own."""

from __future__ import annotations

import threading

from ersatz.sim.emulate.virtual.mode import Emulation


def install(mode: Emulation) -> None:
    """Let every thread that starts from now on run on the virtual device."""
    run = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def run_in_mode(self: threading.Thread) -> None:
        with mode.another():
            run(self)

    threading.Thread._bootstrap_inner = run_in_mode  # type: ignore[attr-defined]
