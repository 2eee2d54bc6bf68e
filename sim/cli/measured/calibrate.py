"""`ersatz calibrate`: time an attached device, fit its model, and prove it on real training steps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ersatz.sim.cli.app import Failure, JsonOption, SeedOption, app
from ersatz.sim.cli.links import read_links, time_links
from ersatz.sim.cli.measured.bench import (
    Bench,
    Timed,
    measure,
    proved_on,
    same_device,
    target_of,
    time_operators,
    time_own,
    write,
)
from ersatz.sim.cli.output import deliver
from ersatz.sim.cli.process.inputs import was_read
from ersatz.sim.cli.process.terminal import grouped, say
from ersatz.sim.errors import EXIT_BAD_INPUT

if TYPE_CHECKING:
    from ersatz.sim.hil.captured import Captured
    from ersatz.sim.hil.proof.proof import Judgement

SOAK_S = 20.0  # after which clocks of accelerators have settled


@app.command(
    epilog="Example: ersatz calibrate --device cpu --minutes 4 --out my-cpu.yaml, then:"
    " ersatz calibrate --device cpu --out my-cpu.yaml --prove"
)
def calibrate(
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, cuda, rocm or npu; cuda:1 is the second.")
    ] = "auto",
    as_: Annotated[
        str, typer.Option("--as", metavar="NAME", help="The device of the catalogue that it is.")
    ] = "",
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.01, help="Time to measure; also of the proof.")
    ] = 5.0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where the calibration goes.")
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option("--dtype", help="fp32, bf16, fp16, fp8; repeatable.")
    ] = None,
    prove: Annotated[
        bool, typer.Option("--prove", help="Train real models and hold their steps against it.")
    ] = False,
    models: Annotated[
        int, typer.Option("--models", min=0, help="Of the proof, evenly chosen; 0: all.")
    ] = 0,
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Transfer a relative's, to --as.")
    ] = None,
    trace: Annotated[
        str, typer.Option("--trace", metavar="TRACE|SCENARIO",
                          help="Time the kernels of this step alone; TRACE is of emulate --out.")
    ] = "",
    links: Annotated[
        bool, typer.Option("--links", help="Time collectives between the processes of torchrun.")
    ] = False,
    table: Annotated[
        list[str] | None,
        typer.Option("--table", metavar="[OP=]FILE", help="Links from nccl-tests or its kin."),
    ] = None,
    ranks: Annotated[int, typer.Option("--ranks", min=0, help="Of a table that tells none.")] = 0,
    per_node: Annotated[int, typer.Option("--per-node", min=0, help="Ranks of it on a node.")] = 0,
    soak: Annotated[
        float, typer.Option("--soak", min=-1.0, max=600.0, metavar="SECONDS",
                            help="Products without a pause; -1: 20 on accelerators.")
    ] = -1.0,
    pretend: Annotated[
        bool, typer.Option("--pretend", help="Take the device for --as, whatever speaks against it.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="PyTorch's own kernels, not those of torch_npu or AITER.")
    ] = False,
    json: JsonOption = None, seed: SeedOption = None,
) -> None:  # fmt: skip
    """Time the kernels of an attached device and fit its model."""
    if table:
        return read_links(table, as_, ranks, per_node, out, json)
    if links:
        return time_links(device, as_, pretend, out, json)
    if from_:
        return _transfer(from_, as_, out, json)
    from ersatz.sim.hil.device.attached import attach
    from ersatz.sim.hil.proof.subjects import some_subjects
    from ersatz.sim.report.measured.calibration import calibration_record, render_proof

    captured = _captured(trace, prove=prove)
    attached = attach(device, catalog_name=as_, pretend=pretend, plain=plain)
    soak_s = soak if soak >= 0 else SOAK_S if attached.asynchronous else 0.0
    path = target_of(out or Path(f"{attached.catalog_name}.calibration.yaml"))
    bench = Bench(attached, path, minutes, seed or 0, soak_s)
    if captured:
        timed = time_operators(bench, captured)
    elif trace:
        timed = time_own(bench, trace)
        prove = prove and bool(timed.subjects)
    elif prove and os.path.exists(path):
        timed = Timed(same_device(path, attached))
    else:
        timed = measure(bench, dtype)
    views = [] if timed.view is None else [timed.view]
    calibration = timed.calibration
    judged: list[Judgement] = []
    if prove:
        subjects = timed.subjects or (some_subjects(attached.backend, models) if models else ())
        calibration, judged = proved_on(bench, calibration, subjects)
        views.insert(0, render_proof(calibration, judged))
    record = calibration_record(calibration, timed.held, judged)
    deliver("calibration", record, grouped(*views), json)
    say(f"written: {path}")


def _captured(trace: str, *, prove: bool) -> Captured | None:
    """Read the operators of a script, where a captured trace is named."""
    if not trace.endswith(".json"):
        return None
    if prove:
        words = "its step is proved by running the script: expected --trace SCENARIO, or no --prove"
        raise Failure(EXIT_BAD_INPUT, [f"--prove: {trace} is a captured trace; {words}"])
    from ersatz.sim.hil.captured import read_captured

    return read_captured(Path(trace))


def _transfer(source: Path, target: str, out: Path | None, json: str | None) -> None:
    """Write the calibration of an unmeasured relative of a measured device."""
    from ersatz.device_models.calibration.file import find_calibration, read_calibration
    from ersatz.device_models.calibration.transfer import transfer_calibration
    from ersatz.device_models.catalog.reading import load_device
    from ersatz.sim.hil.timers import refuse_contradiction
    from ersatz.sim.report.measured.calibration import calibration_record, render_transfer

    if not target:
        raise Failure(2, ["--from: name the device that it is for by --as"])
    measured = read_calibration(find_calibration(str(source)))
    devices = load_device(measured.origin.device), load_device(target)
    refuse_contradiction(measured, devices[0])
    carried = transfer_calibration(measured, *devices)
    path = out or Path(f"{devices[1].name}.calibration.yaml")
    if was_read(path):  # before its own head is looked at
        raise Failure(EXIT_BAD_INPUT, [f"{path}: --from reads it; expected another --out"])
    target_of(path)
    write(carried, path)
    view = render_transfer(measured, carried, devices)
    deliver("calibration", calibration_record(carried, [], []), view, json)
    say(f"written: {path}")
