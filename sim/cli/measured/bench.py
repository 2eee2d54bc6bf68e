"""The attached device of `ersatz calibrate`: timed, soaked and proved, and where its calibration is kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ersatz.sim.cli.app import Failure
from ersatz.sim.cli.output import cannot_be_written
from ersatz.sim.cli.process.terminal import clock_bar, say
from ersatz.sim.errors import EXIT_BAD_INPUT, EXIT_CANNOT_WRITE
from ersatz.sim.signals import Stopped

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ersatz.device_models.calibration.measured import Calibration
    from ersatz.device_models.catalog.device import Device
    from ersatz.sim.hil.captured import Captured
    from ersatz.sim.hil.device.attached import Attached
    from ersatz.sim.hil.fit import HeldOut
    from ersatz.sim.hil.proof.proof import Judgement
    from ersatz.sim.hil.proof.subjects import Subject


@dataclass(frozen=True, slots=True)
class Bench:
    """An attached device, where its calibration goes, and how long and how it is measured."""

    attached: Attached
    path: Path
    minutes: float
    seed: int
    soak_s: float

    @property
    def catalogued(self) -> Device:
        """The device of the catalogue that it is."""
        from ersatz.device_models.catalog.reading import load_device

        return load_device(self.attached.catalog_name)


@dataclass(frozen=True, slots=True)
class Timed:
    """A calibration, how well it predicts what it was not fitted to, what trains, and its report."""

    calibration: Calibration
    held: Sequence[HeldOut] = ()
    subjects: Sequence[Subject] = ()
    view: RenderableType | None = None  # none of one that was there before


def measure(bench: Bench, dtypes: list[str] | None) -> Timed:
    """Measure, fit and write; the journal is kept until the calibration stands on disk."""
    from ersatz.device_models.calibration.file import write_calibration
    from ersatz.device_models.text.whole import write_whole
    from ersatz.sim.hil.benchmark import origin_of, refuse_impostor, run_benchmark
    from ersatz.sim.hil.fit import fit_calibration, with_small_steps
    from ersatz.sim.hil.together import small_subjects, with_ratios
    from ersatz.sim.report.measured.calibration import held_out_plot, render_calibration

    attached, path, catalogued = bench.attached, bench.path, bench.catalogued
    chosen = _dtypes(attached, dtypes)
    journal_path = path.with_name(path.name + ".part")
    try:
        with clock_bar(bench.minutes * 60.0) as tell:
            journal = run_benchmark(attached, chosen, bench.minutes, seed=bench.seed,
                                    journal_path=journal_path, progress=tell)  # fmt: skip
        refuse_impostor(attached, catalogued, journal.points)
        origin = origin_of(attached, journal)
        calibration, held = fit_calibration(origin, catalogued, journal.points, journal.missing)
        calibration = with_small_steps(
            replace(calibration, sentinels=journal.sentinels()), catalogued, journal.small_points()
        )
        calibration = with_ratios(calibration, small_subjects(chosen, bench.seed), journal.whole)
        if not held:
            words = f"{len(journal.points)} kernels are too few to fit anything; they are kept: go on with"
            raise Failure(2, [f"{words} more --minutes", *journal.missing[:8]])
        calibration = _soaked(bench, calibration)
        write_calibration(calibration, path)
        write_whole(path.with_suffix(".svg"), held_out_plot(held))
    except OSError as error:
        raise Failure(EXIT_CANNOT_WRITE, [cannot_be_written(path, error)]) from error
    except Stopped as stopped:
        words = f"finished kernels are kept in {journal_path}; the same command goes on"
        raise Failure(stopped.status, [f"interrupted by {stopped}: {words}"]) from None
    journal.close()
    view = render_calibration(calibration, held, catalogued, journal.resumed)
    return Timed(calibration, held, view=view)


def time_operators(bench: Bench, captured: Captured) -> Timed:
    """Time the operators of a captured step and write them."""
    from ersatz.sim.hil.captured import calibrate_captured

    with clock_bar(len(captured.operators) * 0.2) as tell:
        calibration = calibrate_captured(
            bench.attached, bench.catalogued, captured, bench.seed, tell
        )
    return _written(bench, calibration)


def time_own(bench: Bench, scenario: str) -> Timed:
    """Time the kernels of one scenario; returns also what trains, where one device can."""
    from ersatz.sim.hil.ownops import calibrate_own, own_step
    from ersatz.sim.scenario.file import load_cases
    from ersatz.sim.scenario.shipped import find_scenario

    case = load_cases(find_scenario(scenario), [], bench.seed)[0]
    step = own_step(case, bench.attached.catalog_name)
    with clock_bar(len(step.kernels) * 0.2) as tell:
        calibration = calibrate_own(bench.attached, bench.catalogued, step, bench.seed, tell)
    timed = _written(bench, calibration)
    subject = step.subject()
    if subject is None:
        words = (
            f"{case.name} needs {case.parallel.world:,} devices: its step cannot be proved on one"
        )
        say(f"note: {words}")
    return replace(timed, subjects=[subject] if subject else [])


def _written(bench: Bench, calibration: Calibration) -> Timed:
    """Write what was timed of one step, with its soak."""
    from ersatz.sim.report.measured.calibration import render_calibration

    calibration = _soaked(bench, calibration)
    write(calibration, bench.path)
    return Timed(calibration, view=render_calibration(calibration, [], bench.catalogued))


def _soaked(bench: Bench, calibration: Calibration) -> Calibration:
    """Return the calibration with what a soak found, if any is wanted."""
    from ersatz.sim.hil.device.soak import run_soak

    if not bench.soak_s:
        return calibration
    dtypes = {p.kernel.dtype for p in calibration.points if p.kernel.kind == "matmul"}
    dtype = next((d for d in ("bf16", "fp16", "fp32") if d in dtypes), "fp32")
    with clock_bar(bench.soak_s) as tell:
        found = run_soak(bench.attached, dtype, bench.soak_s, progress=tell)
    return replace(calibration, soak=found.figures())


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


def same_device(path: Path, attached: Attached) -> Calibration:
    """Read a calibration and refuse one of another device."""
    from ersatz.device_models.calibration.file import read_calibration
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


def proved_on(
    bench: Bench, calibration: Calibration, subjects: Sequence[Subject]
) -> tuple[Calibration, list[Judgement]]:
    """Train the models of the proof and note its figures in the calibration."""
    from ersatz.sim.hil.proof.proof import proof_figures, prove

    with clock_bar(bench.minutes * 60.0) as tell:
        judged = prove(bench.attached, calibration, bench.minutes, subjects, tell)
    proved = replace(calibration, proof=proof_figures(judged))
    write(proved, bench.path)
    return proved, judged


def target_of(path: Path) -> Path:
    """Return where a calibration goes; refuses to put it over anything else, before any work."""
    from ersatz.device_models.calibration.file import TITLE

    if path.suffix == ".svg":
        raise Failure(EXIT_BAD_INPUT, [f"{path}: its picture goes there; expected FILE.yaml"])
    if os.path.isfile(path):
        with path.open("rb") as file:
            begin = file.read(len(TITLE))
        if begin not in (b"", TITLE.encode()):
            words = "is no calibration that ersatz wrote; expected another --out"
            raise Failure(EXIT_BAD_INPUT, [f"{path}: {words}"])
    return path


def write(calibration: Calibration, path: Path) -> None:
    """Write a calibration; what hinders it ends the verb."""
    from ersatz.device_models.calibration.file import write_calibration

    try:
        write_calibration(calibration, path)
    except OSError as error:
        raise Failure(EXIT_CANNOT_WRITE, [cannot_be_written(path, error)]) from error
