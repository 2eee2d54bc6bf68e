"""`emulate`: one step of a real PyTorch script on devices that are not there."""

from __future__ import annotations

from collections.abc import Sequence

from ersatz.sim.answers.answer import Answer
from ersatz.sim.emulate.emulate import STACK, Request
from ersatz.sim.emulate.emulate import emulate as emulated
from ersatz.sim.emulate.export import perfetto_text
from ersatz.sim.emulate.records import EmulateResult
from ersatz.sim.emulate.report import render_emulation
from ersatz.sim.report.json_out import plain


def emulate(
    script: Sequence[str], node: str, nodes: int = 1, *, stack: str = STACK, ranks: str = "0",
    steps: int = 4, timer: str = "calibrated", calibration: str = "", attach: str = "cpu",
    patience_s: float = 600.0, seed: int = 0,
) -> Answer[EmulateResult]:  # fmt: skip
    """Run a script, unmodified, on `nodes` virtual nodes, and time its step.

    `script` is the command line that would start it: ["train.py", "--batch", "8"], or with
    "torchrun" before it. `ranks` are those that run as processes ("0", "0,4" or "all"); the others
    are taken to do the same. It ends after `steps` whole steps of the optimizer (0: by itself).
    Raises `InputError` for what cannot be run (also without PyTorch), `InfeasibleError` where the
    devices' memory is too small.
    """
    asked = Request(node, tuple(script), nodes, stack, ranks, steps, timer, calibration, attach,
                    patience_s, seed)  # fmt: skip
    made = emulated(asked)
    result = made.result
    return Answer(
        "emulate", {result.script: result}, view=lambda: render_emulation(result),
        record=lambda: plain(result),
        files=lambda: {"trace.json": perfetto_text(made.traces, result.script)},
    )  # fmt: skip
