"""`emulate`: one step of a real PyTorch script on devices that are not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ersatz.sim.answers.answer import Answer, Overrides, by_name, override_texts
from ersatz.sim.emulate.emulate import STACK, Emulation, Request
from ersatz.sim.emulate.emulate import emulate as emulated
from ersatz.sim.emulate.records import EmulateResult, ReplayResult
from ersatz.sim.emulate.replaying.chakra import chakra_files, groups_text
from ersatz.sim.emulate.replaying.export import perfetto_text
from ersatz.sim.emulate.replaying.replay import (
    load_replays,
    recording_text,
    replay_text,
    run_replay,
)
from ersatz.sim.emulate.report import render_emulation
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.report.json_out import plain
from ersatz.sim.report.replay import fits, render_replays, wont_fit


def emulate(
    script: Sequence[str], node: str, nodes: int = 1, *, stack: str = STACK, ranks: str = "0",
    steps: int = 4, timer: str = "calibrated", calibration: str = "", attach: str = "cpu",
    patience_s: float = 600.0, seed: int = 0, standins: Sequence[str] = (),
) -> Answer[EmulateResult]:  # fmt: skip
    """Run a script, unmodified, on `nodes` virtual nodes, and time its step.

    `script` is the command line that would start it: ["train.py", "--batch", "8"], or with
    "torchrun" before it. `ranks` are those that run as processes ("0", "0,4" or "all"); the others
    are taken to do the same; `standins` are compiled packages in whose place one is put ("flash_attn").
    It ends after `steps` whole steps of the optimizer (0: by itself).
    Raises `InputError` for what cannot be run (also without PyTorch), `InfeasibleError` where the
    devices' memory is too small.
    """
    asked = Request(node, tuple(script), nodes, stack, ranks, steps, timer, calibration, attach,
                    patience_s, seed, tuple(standins))  # fmt: skip
    made = emulated(asked)
    result = made.result
    return Answer(
        "emulate", {result.script: result}, view=lambda: render_emulation(result),
        record=lambda: plain(result), files=lambda: _files(made),
    )  # fmt: skip


def _files(made: Emulation) -> dict[str, str | bytes]:
    """Return a timeline, Chakra's traces, and the recording with the file that replays it."""
    result, asked = made.result, made.request
    return {
        "trace.json": perfetto_text(made.traces, result.script),
        "groups.json": groups_text(made.traces),
        **{f"chakra.{rank}.et": data for rank, data in chakra_files(made.traces).items()},
        "ranks.json": recording_text(result.script, result.world, made.traces),
        "replay.yaml": replay_text(
            result.script, asked.node, asked.nodes, asked.stack, made.traces[0].facts["parameters"]
        ),
    }


def replay(
    path: Path | str, overrides: Overrides = (), seed: int | None = None, *,
    timer: str = "calibrated", calibration: str = "",
) -> Answer[ReplayResult]:  # fmt: skip
    """Time what `emulate` recorded on other devices and networks; job, energy and cost follow.

    `path` is the `replay.yaml` that `emulate` wrote, `overrides` as for `run`:
    {"cluster.node": "ascend-910b2-8", "cluster.nodes": 8}. Raises `InputError` with every fault.
    """
    if timer not in ("calibrated", "roofline", "table"):
        expected = "expected calibrated, roofline or table: a recording has no operands to time"
        raise InputError([Problem("--timer", 0, 0, "", timer, expected)])
    cases = load_replays(Path(path), override_texts(overrides), seed)
    results = [run_replay(case, timer, calibration) for case in cases]
    question = cases[0].scenario.question
    return Answer(
        "replay", by_name((r.name, r) for r in results),
        view=lambda: render_replays(question, results),
        record=lambda: {"question": question, "cases": {r.name: plain(r) for r in results}},
        reasons=tuple(wont_fit(r) for r in results if not fits(r)),
    )  # fmt: skip
