"""`ersatz calibrate`: time an attached device, fit its model, and prove it on real training steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ersatz.sim.cli.app import Failure, JsonOption, SeedOption, app
from ersatz.sim.cli.links import read_links, time_links
from ersatz.sim.cli.output import cannot_be_written, deliver
from ersatz.sim.cli.process.inputs import was_read
from ersatz.sim.cli.process.terminal import clock_bar, grouped, say
from ersatz.sim.errors import EXIT_BAD_INPUT, EXIT_CANNOT_WRITE
from ersatz.sim.signals import Stopped

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ersatz.device_models.calibration.measured import Calibration
    from ersatz.sim.hil.captured import Captured
    from ersatz.sim.hil.device.attached import Attached
    from ersatz.sim.hil.fit import HeldOut
    from ersatz.sim.hil.proof.proof import Judgement
    from ersatz.sim.hil.proof.subjects import Subject

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
    from ersatz.device_models.catalog.reading import load_device
    from ersatz.sim.hil.device.attached import attach
    from ersatz.sim.hil.proof.subjects import some_subjects
    from ersatz.sim.report.measured.calibration import (
        calibration_record,
        render_calibration,
        render_proof,
    )

    captured = _captured(trace, prove=prove)
    attached = attach(device, catalog_name=as_, pretend=pretend, plain=plain)
    soak_s = soak if soak >= 0 else SOAK_S if attached.asynchronous else 0.0
    catalogued = load_device(attached.catalog_name)
    path = _target(out or Path(f"{attached.catalog_name}.calibration.yaml"))
    held: list[HeldOut] = []
    judged: list[Judgement] = []
    views: list[RenderableType] = []
    subjects: Sequence[Subject] = ()
    if captured:
        calibration = _operators(attached, captured, path, seed or 0, soak_s)
        views.append(render_calibration(calibration, held, catalogued))
    elif trace:
        calibration, subjects = _own(attached, trace, path, seed or 0, soak_s)
        views.append(render_calibration(calibration, held, catalogued))
        prove = prove and bool(subjects)
    elif prove and path.exists():
        calibration = _same_device(path, attached)
    else:
        calibration, held, resumed = _measure(attached, path, minutes, dtype, seed or 0, soak_s)
        views.append(render_calibration(calibration, held, catalogued, resumed))
    if prove and models and not subjects:
        subjects = some_subjects(attached.backend, models)
    if prove:
        calibration, judged = _prove(attached, calibration, path, minutes, subjects)
        views.insert(0, render_proof(calibration, judged))
    deliver("calibration", calibration_record(calibration, held, judged), grouped(*views), json)
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


def _operators(
    attached: Attached, captured: Captured, path: Path, seed: int, soak_s: float
) -> Calibration:
    """Time the operators of a captured step and write them."""
    from ersatz.device_models.catalog.reading import load_device
    from ersatz.sim.hil.captured import calibrate_captured

    with clock_bar(len(captured.operators) * 0.2) as tell:
        calibration = calibrate_captured(
            attached, load_device(attached.catalog_name), captured, seed, tell
        )
    calibration = _soaked(attached, calibration, soak_s)
    _write(calibration, path)
    return calibration


def _own(
    attached: Attached, scenario: str, path: Path, seed: int, soak_s: float
) -> tuple[Calibration, Sequence[Subject]]:
    """Time the kernels of one scenario; returns also what trains, where one device can."""
    from ersatz.device_models.catalog.reading import load_device
    from ersatz.sim.hil.ownops import calibrate_own, own_step
    from ersatz.sim.scenario.file import load_cases
    from ersatz.sim.scenario.shipped import find_scenario

    case = load_cases(find_scenario(scenario), [], seed)[0]
    step = own_step(case, attached.catalog_name)
    with clock_bar(len(step.kernels) * 0.2) as tell:
        calibration = calibrate_own(attached, load_device(attached.catalog_name), step, seed, tell)
    calibration = _soaked(attached, calibration, soak_s)
    _write(calibration, path)
    subject = step.subject()
    if subject is None:
        words = (
            f"{case.name} needs {case.parallel.world:,} devices: its step cannot be proved on one"
        )
        say(f"note: {words}")
    return calibration, [subject] if subject else []


def _soaked(attached: Attached, calibration: Calibration, seconds: float) -> Calibration:
    """Return the calibration with what a soak of `seconds` found, if any is wanted."""
    from ersatz.sim.hil.device.soak import run_soak

    if not seconds:
        return calibration
    dtypes = {p.kernel.dtype for p in calibration.points if p.kernel.kind == "matmul"}
    dtype = next((d for d in ("bf16", "fp16", "fp32") if d in dtypes), "fp32")
    with clock_bar(seconds) as tell:
        found = run_soak(attached, dtype, seconds, progress=tell)
    return replace(calibration, soak=found.figures())


def _transfer(source: Path, target: str, out: Path | None, json: str | None) -> None:
    """Write the calibration of an unmeasured relative of a measured device."""
    from ersatz.device_models.calibration.measured import find_calibration, read_calibration
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
    _target(path)
    _write(carried, path)
    view = render_transfer(measured, carried, devices)
    deliver("calibration", calibration_record(carried, [], []), view, json)
    say(f"written: {path}")


def _target(path: Path) -> Path:
    """Return where a calibration goes; refuses to put it over anything else, before any work."""
    from ersatz.device_models.calibration.measured import TITLE

    if path.suffix == ".svg":
        raise Failure(EXIT_BAD_INPUT, [f"{path}: its picture goes there; expected FILE.yaml"])
    if path.is_file():
        with path.open("rb") as file:
            begin = file.read(len(TITLE))
        if begin not in (b"", TITLE.encode()):
            words = "is no calibration that ersatz wrote; expected another --out"
            raise Failure(EXIT_BAD_INPUT, [f"{path}: {words}"])
    return path


def _write(calibration: Calibration, path: Path) -> None:
    from ersatz.device_models.calibration.measured import write_calibration

    try:
        write_calibration(calibration, path)
    except OSError as error:
        raise Failure(EXIT_CANNOT_WRITE, [cannot_be_written(path, error)]) from error


def _measure(
    attached: Attached,
    path: Path,
    minutes: float,
    dtypes: list[str] | None,
    seed: int,
    soak_s: float,
) -> tuple[Calibration, list[HeldOut], int]:
    """Measure, fit and write; the journal is kept until the calibration stands on disk."""
    from ersatz.device_models.calibration.measured import write_calibration
    from ersatz.device_models.catalog.reading import load_device
    from ersatz.device_models.text.whole import write_whole
    from ersatz.sim.hil.benchmark import origin_of, refuse_impostor, run_benchmark
    from ersatz.sim.hil.fit import fit_calibration, with_small_steps
    from ersatz.sim.report.measured.calibration import held_out_plot

    chosen = _dtypes(attached, dtypes)
    journal_path = path.with_name(path.name + ".part")
    try:
        with clock_bar(minutes * 60.0) as tell:
            journal = run_benchmark(attached, chosen, minutes, seed=seed,
                                    journal_path=journal_path, progress=tell)  # fmt: skip
        catalogued = load_device(attached.catalog_name)
        refuse_impostor(attached, catalogued, journal.points)
        origin = origin_of(attached, journal)
        calibration, held = fit_calibration(origin, catalogued, journal.points, journal.missing)
        calibration = with_small_steps(
            replace(calibration, sentinels=journal.sentinels()), catalogued, journal.small_points()
        )
        if not held:
            words = f"{len(journal.points)} kernels are too few to fit anything; they are kept: go on with"
            raise Failure(2, [f"{words} more --minutes", *journal.missing[:8]])
        calibration = _soaked(attached, calibration, soak_s)
        write_calibration(calibration, path)
        write_whole(path.with_suffix(".svg"), held_out_plot(held))
    except OSError as error:
        raise Failure(EXIT_CANNOT_WRITE, [cannot_be_written(path, error)]) from error
    except Stopped as stopped:
        words = f"finished kernels are kept in {journal_path}; the same command goes on"
        raise Failure(stopped.status, [f"interrupted by {stopped}: {words}"]) from None
    journal.close()
    return calibration, held, journal.resumed


def _dtypes(attached: Attached, asked: list[str] | None) -> list[str]:
    """Return the formats to measure: those asked for, fp32 on a CPU, else all that it has."""
    from ersatz.sim.hil.device.attached import DTYPES, unusable

    native = attached.native_dtypes()
    if not asked:
        return ["fp32"] if attached.backend == "cpu" else native
    for name in asked:
        if name not in DTYPES:
            raise unusable(f"dtype {name}", f"is unknown; expected some of {', '.join(DTYPES)}")
        if name not in native:
            raise unusable(attached.hardware, f"multiplies {', '.join(native)}, not {name}")
    return asked


def _same_device(path: Path, attached: Attached) -> Calibration:
    """Read a calibration and refuse one of another device."""
    from ersatz.device_models.calibration.measured import read_calibration
    from ersatz.sim.errors import InputError, Problem

    calibration = read_calibration(path)
    origin = calibration.origin
    theirs, ours = (origin.device, origin.hardware), (attached.catalog_name, attached.hardware)
    if theirs == ours and origin.libraries != attached.pieces.libraries:
        whose = _whose(origin.libraries), _whose(attached.pieces.libraries)
        expected = f"was timed with {whose[0]}; attached is {whose[1]} (--plain: PyTorch's own)"
        raise InputError([Problem(str(path), 0, 0, "origin.libraries", "", expected)])
    if theirs != ours:
        expected = f"is of {origin.hardware} ({origin.device}); attached is {ours[1]} ({ours[0]})"
        raise InputError([Problem(str(path), 0, 0, "", "", expected)])
    return calibration


def _whose(libraries: str) -> str:
    """Say whose kernels were timed."""
    return libraries or "PyTorch's own kernels"


def _prove(
    attached: Attached,
    calibration: Calibration,
    path: Path,
    minutes: float,
    subjects: Sequence[Subject] = (),
) -> tuple[Calibration, list[Judgement]]:
    """Train the models of the proof and note its figures in the calibration."""
    from ersatz.sim.hil.proof.proof import proof_figures, prove

    with clock_bar(minutes * 60.0) as tell:
        judged = prove(attached, calibration, minutes, subjects, tell)
    proved = replace(calibration, proof=proof_figures(judged))
    _write(proved, path)
    return proved, judged
