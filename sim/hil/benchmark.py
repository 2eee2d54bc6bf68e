"""Measure kernels until the time is up; every finished one is on disk, so that a killed run goes on.

The journal is a file of JSON lines beside the calibration: what was attached, then a line per kernel
(measured or impossible), and one for every turn of the sentinels. A run with the same device and seed
skips what stands there; a last line that was cut off is dropped. When the calibration is written the
journal is removed.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from ersatz.device_models.calibration.file import point_row, row_point
from ersatz.device_models.calibration.measured import Origin, Point, kernel_key
from ersatz.device_models.calibration.records import LARGEST
from ersatz.device_models.catalog.device import Device
from ersatz.device_models.kernels.kernel import Kernel
from ersatz.device_models.text.files import MAX_TABLE_BYTES, read_text_file
from ersatz.device_models.text.whole import write_whole
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.hil.device.attached import Attached, unusable
from ersatz.sim.hil.device.identity import contradictions
from ersatz.sim.hil.device.measure import Unmeasurable, engine_start, measure
from ersatz.sim.hil.sentinels import Watch, chosen_points, steps_of, undisturbed
from ersatz.sim.hil.shapes import kernel_rounds, ranges_of, small_kernels
from ersatz.sim.hil.together import Parts, WholeSteps, small_subjects

FEWEST_ROUNDS = 2  # below, not even products can be fitted
WATCH_TURNS = 12  # of the sentinels, evenly over the time
Progress = Callable[[float, str], None]  # seconds spent, what is measured


@dataclass(slots=True)
class Journal:
    """What has been measured so far, in memory and on disk."""

    path: Path | None
    identity: dict[str, Any]
    points: list[Point] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    turns: list[dict[str, float]] = field(default_factory=list)  # seconds of each sentinel
    small: dict[str, list[float]] = field(default_factory=dict)  # of each kernel of small steps
    whole: dict[str, list[Parts]] = field(default_factory=dict)  # steps of each small model
    spent_s: float = 0.0
    resumed: int = 0  # kernels that an earlier run had finished

    def open(self) -> None:
        """Read what is there; raises `InputError` when it belongs to something else."""
        if self.path is None:
            return
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append({"identity": self.identity})
            return
        lines = list(_whole_lines(self.path))
        found = lines[0].get("identity") if lines and isinstance(lines[0], dict) else None
        if found != self.identity:
            expected = (
                f"holds measurements of {_named(found)}, not of {_named(self.identity)};"
                " remove it, or name another --out"
            )
            raise InputError([Problem(str(self.path), 1, 0, "", "", expected)])
        for number, line in enumerate(lines[1:], 2):
            try:
                self._take(line)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                expected = f"is no line that ersatz wrote ({error}); remove it"
                raise InputError([Problem(str(self.path), number, 1, "", "", expected)]) from error
        self.resumed = len(self.done)

    def add(self, kernel: Kernel, result: Point | str, spent_s: float) -> None:
        """Keep one kernel's result: a point, or why there is none."""
        line: dict[str, Any] = {"kernel": kernel_key(kernel), "spent_s": round(spent_s, 3)}
        line |= {"missing": result} if isinstance(result, str) else {"point": point_row(result)}
        self._append(line)
        self._take(line)

    def add_turn(self, seconds: dict[str, float], spent_s: float) -> None:
        """Keep one turn of the sentinels."""
        line: dict[str, Any] = {"turn": seconds, "spent_s": round(spent_s, 3)}
        self._append(line)
        self._take(line)

    def add_small(
        self, seconds: dict[str, list[float]], whole: dict[str, list[Parts]], spent_s: float
    ) -> None:
        """Keep some passes over the kernels of small steps, and some such steps as a whole."""
        line: dict[str, Any] = {"small": seconds, "whole": whole, "spent_s": round(spent_s, 3)}
        self._append(line)
        self._take(line)

    def small_points(self) -> list[Point]:
        """Return the kernels of small steps as they were measured in the order of a step."""
        found = []
        dtypes = dict.fromkeys(p.kernel.dtype for p in self.points)
        drawn = (k for dtype in dtypes for k in small_kernels(dtype, self.identity["seed"]))
        timed = (k for k in drawn if self.small.get(kernel_key(k)))
        for step in steps_of(timed, lambda kernel: kernel):
            samples = [self.small[kernel_key(k)] for k in step]
            for kernel, own, seconds in zip(step, samples, undisturbed(samples), strict=True):
                low, middle, high = np.quantile(own, [0.2, 0.5, 0.8])
                found.append(
                    Point(kernel, seconds, seconds, float((high - low) / middle), len(own))
                )
        return found

    def sentinels(self) -> dict[str, float]:
        """Return what each sentinel took, the median of all turns."""
        keys = dict.fromkeys(key for turn in self.turns for key in turn)
        return {k: statistics.median(t[k] for t in self.turns if k in t) for k in keys}

    def close(self) -> None:
        """Remove the file: its content stands in the calibration."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _take(self, line: dict[str, Any]) -> None:
        self.spent_s += line["spent_s"]
        if "turn" in line:
            self.turns.append(line["turn"])
            return
        if "small" in line:
            for key, seconds in line["small"].items():
                self.small.setdefault(key, []).extend(seconds)
            for name, steps in line.get("whole", {}).items():
                self.whole.setdefault(name, []).extend(_parts(parts) for parts in steps)
            return
        self.done.add(line["kernel"])
        if "point" in line:
            self.points.append(row_point(line["point"]))
        else:
            self.missing.append(line["missing"])

    def _append(self, line: dict[str, Any]) -> None:
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a journal; one that a killed run cut off is dropped from the file."""
    text = read_text_file(path, "lines of JSON", MAX_TABLE_BYTES)
    kept = text[: text.rfind("\n") + 1]
    if kept != text:
        write_whole(path, kept)
    for number, line in enumerate(kept.splitlines(), 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise InputError(
                [Problem(str(path), number, 1, "", "", f"is no JSON: {error}")]
            ) from error


def _named(identity: Any) -> str:
    told = identity if isinstance(identity, dict) else {}
    return f"{told.get('hardware')} ({told.get('device')})" if told else "nothing"


def identity_of(attached: Attached, seed: int) -> dict[str, Any]:
    """Return what makes measurements comparable."""
    return {
        "device": attached.catalog_name, "backend": attached.backend,
        "hardware": attached.hardware, "driver": attached.driver,
        "framework": attached.framework, "seed": seed,
        **({"pretended": attached.pretended} if attached.pretended else {}),
        **({"libraries": attached.pieces.libraries} if attached.pieces.libraries else {}),
    }  # fmt: skip


def origin_of(attached: Attached, journal: Journal) -> Origin:
    """Return the provenance of a finished benchmark."""
    return Origin(
        **journal.identity, clock=attached.clock, date=date.today().isoformat(),
        measured_s=round(journal.spent_s, 1),
    )  # fmt: skip


def refuse_impostor(attached: Attached, device: Device, points: Sequence[Point]) -> None:
    """Raise `InputError` when the measurements cannot be of the device, unless it only pretends."""
    found = [] if attached.pretended else contradictions(attached.backend, points, device)
    if found:
        raise unusable(attached.hardware, f"is not {device.name}: {'; '.join(found)}")


def run_benchmark(
    attached: Attached, dtypes: list[str], minutes: float, *, seed: int = 0,
    journal_path: Path | None = None, progress: Progress | None = None,
    most_kernels: int | None = None,
) -> Journal:  # fmt: skip
    """Measure rounds of kernels for `minutes`, those of an earlier run included.

    At least `FEWEST_ROUNDS` of every dtype are measured. Raises `InputError` when the journal is of
    another device.
    """
    journal = Journal(journal_path, identity_of(attached, seed))
    journal.open()
    engine_s = engine_start(attached)
    budget = minutes * 60.0
    sentry = Sentry(journal, attached, seed, budget, dtypes)
    seen: set[str] = set()
    for number, kernels in enumerate(kernel_rounds(ranges_of(attached.backend), dtypes, seed)):
        known = number >= FEWEST_ROUNDS * len(dtypes)
        for kernel in kernels:
            if known:
                sentry.look()
            if known and journal.spent_s >= budget:
                return journal
            if most_kernels is not None and len(journal.done) >= most_kernels:
                return journal
            key = kernel_key(kernel)
            if key in journal.done or key in seen:
                continue
            seen.add(key)
            if progress:
                progress(journal.spent_s, key)
            _measure_into(journal, attached, kernel, seed, engine_s)
    return journal


@dataclass(slots=True)
class Sentry:
    """Lets the sentinels of a calibration run when their time has come."""

    journal: Journal
    attached: Attached
    seed: int
    budget_s: float
    dtypes: Sequence[str] = ()
    watch: Watch | None = None
    small: Watch | None = None
    whole: WholeSteps | None = None

    def look(self) -> None:
        """Run a turn if one is due."""
        if self.journal.spent_s * WATCH_TURNS < len(self.journal.turns) * self.budget_s:
            return
        start = time.monotonic()
        if self.watch is None:
            self.watch = Watch(self.attached, self._chosen(), self.seed)
        self.journal.add_turn(self.watch.turn(), time.monotonic() - start)
        if not self.attached.asynchronous:
            self._look_at_small_steps()

    def _look_at_small_steps(self) -> None:
        start = time.monotonic()
        if self.small is None or self.whole is None:
            kernels = (k for dtype in self.dtypes for k in small_kernels(dtype, self.seed))
            points = [Point(kernel, 1.0, 1.0, 0.0, 1) for kernel in kernels]
            self.small = Watch(self.attached, points, self.seed, in_order=True, small=True)
            self.whole = WholeSteps(self.attached, small_subjects(self.dtypes, self.seed))
        passes = {k: _short(v) for k, v in self.small.passes().items()}
        turn = self.whole.turn().items()
        steps = {name: [_short(parts) for parts in steps] for name, steps in turn}
        self.journal.add_small(passes, steps, time.monotonic() - start)

    def _chosen(self) -> list[Point]:
        """Return the sentinels of an earlier run, or of the kernels that are known by now."""
        earlier = self.journal.sentinels()
        same = [p for p in self.journal.points if kernel_key(p.kernel) in earlier]
        return same or chosen_points(self.journal.points)


def _parts(raw: Any) -> Parts:
    """Return the seconds of the parts of a step; raises `ValueError` or `TypeError`."""
    forward, backward, update = map(float, raw)
    if not all(0 < seconds < LARGEST for seconds in (forward, backward, update)):
        raise ValueError("expected seconds above 0")
    return [forward, backward, update]


def _short(seconds: Sequence[float]) -> list[float]:
    return [float(f"{s:.4g}") for s in seconds]


def _measure_into(
    journal: Journal, attached: Attached, kernel: Kernel, seed: int, engine_s: float
) -> None:
    start = time.monotonic()
    result: Point | str
    try:
        result = measure(attached, kernel, seed=seed, engine_s=engine_s)
    except Unmeasurable as reason:
        result = str(reason)
    journal.add(kernel, result, time.monotonic() - start)
