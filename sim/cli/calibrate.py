"""`ersatz calibrate`: time an attached device, fit its model, and prove it on real training steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ersatz.sim.cli.app import Failure, JsonOption, SeedOption, app
from ersatz.sim.cli.output import cannot_be_written, deliver
from ersatz.sim.cli.process.inputs import was_read
from ersatz.sim.cli.process.terminal import clock_bar, grouped, say
from ersatz.sim.errors import EXIT_BAD_INPUT, EXIT_CANNOT_WRITE
from ersatz.sim.signals import Stopped

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ersatz.device_models.calibration.measured import Calibration
    from ersatz.sim.hil.attached import Attached
    from ersatz.sim.hil.fit import HeldOut
    from ersatz.sim.hil.proof import Judgement


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
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Transfer a relative's, to --as.")
    ] = None,
    json: JsonOption = None, seed: SeedOption = None,
) -> None:  # fmt: skip
    """Time the kernels of an attached device and fit its model."""
    if from_:
        return _transfer(from_, as_, out, json)
    from ersatz.device_models.catalog.reading import load_device
    from ersatz.sim.hil.attached import attach
    from ersatz.sim.report.calibration import calibration_record, render_calibration, render_proof

    attached = attach(device, catalog_name=as_)
    catalogued = load_device(attached.catalog_name)
    path = _target(out or Path(f"{attached.catalog_name}.calibration.yaml"))
    held: list[HeldOut] = []
    judged: list[Judgement] = []
    views: list[RenderableType] = []
    if prove and path.exists():
        calibration = _same_device(path, attached)
    else:
        calibration, held, resumed = _measure(attached, path, minutes, dtype, seed or 0)
        views.append(render_calibration(calibration, held, catalogued, resumed))
    if prove:
        calibration, judged = _prove(attached, calibration, path, minutes)
        views.insert(0, render_proof(calibration, judged))
    deliver("calibration", calibration_record(calibration, held, judged), grouped(*views), json)
    say(f"written: {path}")


def _transfer(source: Path, target: str, out: Path | None, json: str | None) -> None:
    """Write the calibration of an unmeasured relative of a measured device."""
    from ersatz.device_models.calibration.measured import find_calibration, read_calibration
    from ersatz.device_models.calibration.transfer import transfer_calibration
    from ersatz.device_models.catalog.reading import load_device
    from ersatz.sim.report.calibration import calibration_record, render_transfer

    if not target:
        raise Failure(2, ["--from: name the device that it is for by --as"])
    measured = read_calibration(find_calibration(str(source)))
    devices = load_device(measured.origin.device), load_device(target)
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
    attached: Attached, path: Path, minutes: float, dtypes: list[str] | None, seed: int
) -> tuple[Calibration, list[HeldOut], int]:
    """Measure, fit and write; the journal is kept until the calibration stands on disk."""
    from ersatz.device_models.calibration.measured import write_calibration
    from ersatz.device_models.catalog.reading import load_device
    from ersatz.device_models.text.whole import write_whole
    from ersatz.sim.hil.benchmark import origin_of, run_benchmark
    from ersatz.sim.hil.fit import fit_calibration
    from ersatz.sim.report.calibration import held_out_plot

    chosen = _dtypes(attached, dtypes)
    journal_path = path.with_name(path.name + ".part")
    try:
        with clock_bar(minutes * 60.0) as tell:
            journal = run_benchmark(attached, chosen, minutes, seed=seed,
                                    journal_path=journal_path, progress=tell)  # fmt: skip
        catalogued = load_device(attached.catalog_name)
        origin = origin_of(attached, journal)
        calibration, held = fit_calibration(origin, catalogued, journal.points, journal.missing)
        if not held:
            words = f"{len(journal.points)} kernels are too few to fit anything; they are kept: go on with"
            raise Failure(2, [f"{words} more --minutes", *journal.missing[:8]])
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
    from ersatz.sim.hil.attached import DTYPES, unusable

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
    if theirs != ours:
        expected = f"is of {origin.hardware} ({origin.device}); attached is {ours[1]} ({ours[0]})"
        raise InputError([Problem(str(path), 0, 0, "", "", expected)])
    return calibration


def _prove(
    attached: Attached, calibration: Calibration, path: Path, minutes: float
) -> tuple[Calibration, list[Judgement]]:
    """Train the models of the proof and note its figures in the calibration."""
    from ersatz.sim.hil.proof import proof_figures, prove

    with clock_bar(minutes * 60.0) as tell:
        judged = prove(attached, calibration, minutes, progress=tell)
    proved = replace(calibration, proof=proof_figures(judged))
    _write(proved, path)
    return proved, judged
