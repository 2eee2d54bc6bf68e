"""Which kernel times a run uses: the choice of `ersatz run --timer`, with its interval and its notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ersatz.device_models.calibration.file import find_calibration, read_calibration
from ersatz.device_models.calibration.measured import (
    OWN_STACK,
    Calibration,
    calibrated_device,
    calibrated_timer,
)
from ersatz.device_models.calibration.table_timer import table_timer
from ersatz.device_models.catalog.device import Device
from ersatz.device_models.kernels.kernel import Timer, calibrated_time, roofline_time
from ersatz.device_models.text.units import format_duration
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.hil.cached import step_timer
from ersatz.sim.hil.device.identity import contradictions
from ersatz.sim.hil.live import LiveTimer, LocalSource, Source
from ersatz.sim.hil.sentinels import Pace, watched_pace
from ersatz.sim.hil.trust import blended_width, shares_of, summary_of
from ersatz.sim.records import RunResult
from ersatz.sim.run import run_case
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.uncertainty.intervals import half_width

NAMES = ("calibrated", "roofline", "table", "live", "paced")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Kernel times for some cases: the timer, its calibration if any, and the live devices."""

    name: str
    calibration: Calibration | None = None
    sources: Mapping[str, Source] | None = None
    tell: Callable[[str], None] | None = None
    pace: Pace | None = None  # of the calibration's sentinels, where the device is attached
    small_pace: Pace | None = None  # of those of steps that stay in the cache

    def prepare(self, cases: Sequence[Scenario]) -> list[Scenario]:
        """Return the cases on calibrated devices; raises `InputError` when no case has them."""
        check_devices(self, cases)
        return [self.apply(case) for case in cases]

    def run(self, case: Scenario) -> RunResult:
        """Simulate a prepared case; its sources begin with where its kernel times come from."""
        timer = self.timer_for(case)
        shares = shares_of(case, timer, None if self.name == "roofline" else self.calibration)
        result = run_case(case, timer, self.width(case, shares))
        rests = f"kernel times and links: the busy time of the step rests on {summary_of(shares)}"
        notes = (*self.notes(timer), rests, *self.paced(case, timer))
        return replace(
            result, sources=(*notes, *result.sources),
            assumptions=(*self.rehearsal(), *result.assumptions),
        )  # fmt: skip

    def rehearsal(self) -> Sequence[str]:
        """Say that the kernel times are another device's, where it was told to pretend."""
        origin = self.calibration.origin if self.calibration else None
        if origin is None or not origin.pretended or self.name == "roofline":
            return ()
        return [
            f"REHEARSAL, no answer: kernel times of {origin.device} were measured on {origin.hardware},"
            f" which only pretends ({origin.pretended}); the interval does not cover that"
        ]

    def timer_for(self, scenario: Scenario) -> Timer:
        """Return the timer of one case; a live one counts its own measurements."""
        modelled = self._modelled(scenario)
        if self.sources is None:
            return modelled
        return LiveTimer(self.sources, modelled, self.tell, _stacks(scenario))

    def _modelled(self, scenario: Scenario) -> Timer:
        if self.name == "roofline":
            return roofline_time
        if self.calibration is None:
            return calibrated_time
        make = table_timer if self.name == "table" else calibrated_timer
        stack = _stacks(scenario).get(self.calibration.origin.device, OWN_STACK)
        return step_timer(make, self.calibration, scenario, stack, self.pace, self.small_pace)

    def apply(self, scenario: Scenario) -> Scenario:
        """Return the case with the calibrated device in the place of the catalogue's."""
        calibration = self.calibration
        if calibration is None or self.name == "roofline":
            return scenario
        pools = tuple(
            replace(
                pool,
                node=replace(pool.node, device=calibrated_device(pool.node.device, calibration)),
            )
            for pool in scenario.pools
        )
        told = tuple(
            f"{calibration.origin.device}: {key} is taken as" for key in calibration.parameters
        )
        silent = tuple(line for line in scenario.assumptions if not line.startswith(told))
        return replace(scenario, pools=pools, assumptions=silent)

    def width(self, scenario: Scenario, shares: Mapping[str, float] | None = None) -> float | None:
        """Return the half width of the step's interval where the calibration decides it.

        It follows from what the step rests on. The proof holds for one device under plain PyTorch;
        everything else keeps the interval of published runs where that is wider.
        """
        calibration, pool = self.calibration, scenario.pools[0]
        if calibration is None or calibration.origin.pretended or self.name == "roofline":
            return None
        if pool.node.device.name != calibration.origin.device:
            return None
        published = half_width(scenario)
        measured = calibration.step_error
        width = blended_width(shares, measured, published) if shares else measured
        if scenario.parallel.world == 1 and pool.stack.name == OWN_STACK:
            return width
        return width if shares and width > published else None

    def paced(self, scenario: Scenario, timer: Timer) -> list[str]:
        """Run the paced step where it is asked for, and say what it found."""
        sources = (self.sources or {}).items()
        local = [(device, s) for device, s in sources if isinstance(s, LocalSource)]
        if self.name != "paced" or not local:
            return []
        from ersatz.sim.hil.paced import Bench, paced_step

        device, source = local[0]
        bench = Bench(source.attached, _stacks(scenario).get(device, OWN_STACK))
        paced = paced_step(scenario, timer, bench)
        return [
            f"kernel times, paced: the step takes {format_duration(paced.duration_s)} with"
            f" {paced.kernels:,} kernels of rank 0 really run, {format_duration(paced.modelled_s)} with"
            f" each measured alone; the device's pace changed by {100 * (paced.drift - 1):+.0f} %"
            " from the first half to the second"
        ]

    def notes(self, timer: Timer) -> Sequence[str]:
        """Return what a report has to say of the kernel times."""
        found = []
        if self.calibration and self.name != "roofline":
            origin = self.calibration.origin
            found.append(
                f"kernel times of {origin.device} by the {self.name} timer: {len(self.calibration.points)}"
                f" kernels measured on {origin.hardware} with {origin.framework}, {origin.date}"
                + (f"; fused kernels of {origin.libraries}" if origin.libraries else "")
            )
        if self.pace:
            found.append(f"kernel times, sentinels: {self.pace.summary()}")
        if isinstance(timer, LiveTimer):
            found.append(f"kernel times, live: {timer.summary()}")
        return found


def _stacks(scenario: Scenario) -> dict[str, str]:
    """Return the software that runs on each kind of device."""
    return {pool.node.device.name: pool.stack.name for pool in reversed(scenario.pools)}


def choose(
    name: str,
    calibration: str | None,
    attach: Sequence[str] = (),
    tell: Callable[[str], None] | None = None,
) -> Chosen:
    """Return the kernel times that the options name; raises `InputError` with what is wrong."""
    if name not in NAMES:
        raise _fault(name, f"is unknown; expected one of {', '.join(NAMES)}")
    if name == "table" and calibration is None:
        raise _fault(name, "interpolates measurements: name them by --calibration FILE")
    lives = name in ("live", "paced")
    if attach and not lives and (calibration is None or name == "roofline"):
        words = "--attach goes with live and paced, or with --calibration for its sentinels"
        raise _fault(name, f"runs nothing on a device: {words}")
    read = read_calibration(find_calibration(calibration)) if calibration else None
    if not lives:
        paces = _paces(read, attach, tell) if read and attach else (None, None)
        return Chosen(name, read, pace=paces[0], small_pace=paces[1])
    from ersatz.sim.hil.sources import open_sources

    return Chosen(name, read, open_sources(attach or ["auto"]), tell)


def _paces(
    calibration: Calibration, words: Sequence[str], tell: Callable[[str], None] | None
) -> tuple[Pace, Pace | None]:
    """Run the sentinels on the device that the calibration is of; raises `InputError`."""
    from ersatz.sim.hil.sources import open_sources

    origin = calibration.origin
    source = open_sources(words).get(origin.device)
    if not isinstance(source, LocalSource) or source.attached.hardware != origin.hardware:
        raise _fault(", ".join(words), f"is not the {origin.hardware} ({origin.device}) that the"
                     " calibration was measured on: its sentinels say nothing here")  # fmt: skip
    if source.attached.pieces.libraries != origin.libraries:
        there = source.attached.pieces.libraries or "none"
        expected = f"runs fused kernels of {there}; expected {origin.libraries or 'none'}, as timed"
        raise _fault(", ".join(words), expected)
    if tell:
        tell("sentinels of the calibration")
    small = calibration.small
    return watched_pace(source.attached, calibration), (
        watched_pace(source.attached, small) if small else None
    )


def check_devices(chosen: Chosen, scenarios: Sequence[Scenario]) -> None:
    """Refuse a calibration, or live devices, that no case has; raises `InputError`."""
    present = {pool.node.device.name for s in scenarios for pool in s.pools}
    listed = ", ".join(sorted(present))
    if chosen.calibration and chosen.calibration.origin.device not in present:
        name = chosen.calibration.origin.device
        expected = f"is a calibration of {name}; the scenario runs on {listed}"
        raise InputError([Problem(chosen.calibration.file, 0, 0, "", "", expected)])
    if chosen.calibration:
        refuse_contradiction(chosen.calibration, _device_of(chosen.calibration, scenarios))
    if chosen.sources is not None and not present & set(chosen.sources):
        names = ", ".join(sorted(chosen.sources))
        raise _fault(chosen.name, f"attached is {names}; the scenario runs on {listed}")


def _device_of(calibration: Calibration, scenarios: Sequence[Scenario]) -> Device:
    name = calibration.origin.device
    return next(
        p.node.device for s in scenarios for p in s.pools if p.node.device.name == name
    )  # fmt: skip


def refuse_contradiction(calibration: Calibration, device: Device) -> None:
    """Raise `InputError` when the measurements of a calibration cannot be of its device."""
    origin = calibration.origin
    found = [] if origin.pretended else contradictions(origin.backend, calibration.points, device)
    if found:
        expected = (
            f"was measured on {origin.hardware}, which is not {device.name}: {'; '.join(found)}"
        )
        raise InputError([Problem(calibration.file, 0, 0, "origin.device", device.name, expected)])


def _fault(name: str, expected: str) -> InputError:
    return InputError([Problem("--timer", 0, 0, "", name, expected)])
