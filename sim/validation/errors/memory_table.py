"""Memory verdicts: runs out of memory beside those that ran, and the peaks that rows state.

The table of crashes has the columns of `COLUMNS`, one configuration a row; a model is named as the
table of runs names it at its end (8B for nanotron-llama-8B) and takes its shape from there. A crash
is caught when the plan does not fit, or cannot run at all. The runs of the same software are judged as
they stand, like the crashes; those of other sources under any reading of their blanks.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from ersatz.device_models.text.files import read_csv
from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.sim.plan.schedules import MOST_SLOTS
from ersatz.sim.validation.errors import memory_peaks
from ersatz.sim.validation.errors.memory_peaks import (
    Errors,
    Peak,
    errors_by,
    errors_of,
    kept_by_source,
    stated_peaks,
    unread_peak,
)
from ersatz.sim.validation.fit.samples import is_complete, is_verified
from ersatz.sim.validation.reading.rows import scenario_of
from ersatz.sim.validation.reading.table import Run, read_table

COLUMNS = ("model", "n_devices", "micro_batch", "grad_acc", "gbs_seqs", "dp", "pp", "tp", "zero")
COUNT = re.compile(r"0*[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Share:
    """Verdicts of one model: how many of its crashes were caught, and of its runs kept."""

    crashed: int
    caught: int
    ran: int
    kept: int

    @property
    def balanced(self) -> float:
        """Mean of the two shares; nan where either kind is missing."""
        if not self.crashed or not self.ran:
            return float("nan")
        return (self.caught / self.crashed + self.kept / self.ran) / 2


@dataclass(frozen=True, slots=True)
class MemoryVerdicts:
    """How well plans tell what runs, and how far off stated peaks are."""

    # mean share of runs kept over sources, and of crashes caught, halved; None: no such rows
    sources_equal: float | None
    kept_sources_equal: float | None
    caught_sources_equal: float | None
    vetoed: tuple[str, ...]  # rows that ran and would not be let run
    by_source: Mapping[str, tuple[int, int]]  # of runs that ran: judged, kept
    total: Share  # crashes and runs of the same software
    balanced_accuracy: float | None
    by_model: Mapping[str, Share]
    peaks: Errors | None  # every source weighing the same
    peaks_by_source: Mapping[str, Errors]
    peaks_by_stack: Mapping[str, Errors]
    peaks_by_kind: Mapping[str, Errors]
    rows: tuple[Peak, ...]
    problems: tuple[Problem, ...]


def judge_memory(
    crashes: Path | str | None, runs: Path | str, tell: Callable[[str], None] = lambda _: None
) -> MemoryVerdicts:
    """Judge a table of runs, and one of crashes if any; raises `InputError` when nothing can be.

    `tell` hears the id of every run that is judged.
    """
    table = read_table(runs)
    swept = [r for r in table.runs if is_complete(r) and is_verified(r) and _is_swept(r)]
    crashed: list[tuple[str, Run]] = []
    problems: list[Problem] = []
    if crashes is not None:
        crashed, problems = _read(Path(crashes), {r.text("model_name"): r for r in swept})
    by_model = _shares(crashed, swept)
    counts = [astuple(share) for share in by_model.values()] or [(0, 0, 0, 0)]
    total = Share(*np.sum(counts, axis=0).tolist())
    apart = _is_swept if crashed else lambda _: False  # judged with the crashes of its sweep
    ran = kept_by_source((r for r in table.runs if is_verified(r) and not apart(r)), tell)
    by_source = {source: (rows, kept) for source, (rows, kept, _) in ran.items()}
    if total.ran:
        by_source[swept[0].text("source")] = (total.ran, total.kept)
    kept = _mean([kept / rows for rows, kept in by_source.values()])
    caught = total.caught / total.crashed if total.crashed else None
    problems = [
        *problems,
        *(
            Problem(str(runs), run.line, 0, *found)
            for run in table.runs
            if (found := unread_peak(run))
        ),
    ]
    peaks = list(stated_peaks(r for r in table.runs if is_verified(r)))
    return MemoryVerdicts(
        None if kept is None or caught is None else (kept + caught) / 2, kept, caught,
        tuple(bad for _, _, bads in ran.values() for bad in bads),
        dict(sorted(by_source.items())), total,
        total.balanced if total.crashed and total.ran else None, by_model,
        errors_of(peaks) if peaks else None, errors_by(peaks, "source"), errors_by(peaks, "stack"),
        errors_by(peaks, "counts"), tuple(peaks), tuple(problems),
    )  # fmt: skip


def _mean(shares: Sequence[float]) -> float | None:
    return float(np.mean(shares)) if shares else None


def _is_swept(run: Run) -> bool:
    """Tell whether a run belongs to the software that the table of crashes is about."""
    return run.text("framework").startswith("nanotron")


def _shares(crashed: Sequence[tuple[str, Run]], swept: Sequence[Run]) -> dict[str, Share]:
    """Return by model how many crashes were caught and how many runs of it kept."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for model, run in crashed:
        counts[model][0] += 1
        counts[model][1] += not fits(run)
    models = {model for model, _ in crashed}
    for run in swept:
        model = run.text("model_name").split("-")[-1]
        if model in models:
            counts[model][2] += 1
            counts[model][3] += fits(run)
    return {model: Share(*counts[model]) for model in sorted(counts)}


def fits(run: Run) -> bool:
    """Tell whether a row's plan, as it stands, fits and can run at all."""
    try:
        return memory_peaks.fits(scenario_of(run, possible=False))
    except memory_peaks.UNREADABLE:
        return False


def _read(path: Path, shapes: Mapping[str, Run]) -> tuple[list[tuple[str, Run]], list[Problem]]:
    """Return (model, row) of every crash that can be judged, and what was wrong with the others."""
    filled = [(line, [cell.strip() for cell in cells]) for line, cells in read_csv(path)]
    if len(filled) < 2:
        raise _fault(path, 1, "has no rows")
    header = filled[0][1]
    missing = [c for c in COLUMNS if c not in header]
    if missing:
        words = "column is missing"
        raise InputError([Problem(str(path), 1, 0, c, "", words + did_you_mean(c, header))
                          for c in missing])  # fmt: skip
    found: list[tuple[str, Run]] = []
    problems: list[Problem] = []
    for line, cells in filled[1:]:
        faults = list(_faults(path, line, header, cells, shapes))
        problems += faults
        if not faults:
            row = dict(zip(header, cells, strict=True))
            found.append((row["model"], _as_run(line, row, _shape(row["model"], shapes))))
    if not found:
        raise InputError(problems)
    return found, problems


def _fault(path: Path, line: int, words: str) -> InputError:
    return InputError([Problem(str(path), line, 0, "", "", words)])


def _faults(
    path: Path, line: int, header: list[str], cells: list[str], shapes: Mapping[str, Run]
) -> Iterator[Problem]:
    """Name the cells that cannot be read, then what contradicts itself in a row of good cells."""
    if len(cells) != len(header):
        words = f"has {len(cells)} cells; expected {len(header)}"
        yield Problem(str(path), line, 0, "", "", words)
        return
    row = dict(zip(header, cells, strict=True))
    wrong = {name: words for name in COLUMNS if (words := _wrong(name, row[name], shapes))}
    if not wrong:
        ranks = int(row["dp"]) * int(row["tp"]) * int(row["pp"])
        slots = int(row["gbs_seqs"]) // (int(row["micro_batch"]) * int(row["dp"])) * int(row["pp"])
        if ranks != int(row["n_devices"]):
            wrong["n_devices"] = f"dp x tp x pp is {ranks}"
        elif max(slots, int(row["grad_acc"]) * int(row["pp"])) > MOST_SLOTS:
            wrong["gbs_seqs"] = f"makes more than {MOST_SLOTS:,} slots of micro-batch and stage"
    for name, words in wrong.items():
        yield Problem(str(path), line, header.index(name) + 1, name, row[name][:60], words)


def _wrong(name: str, cell: str, shapes: Mapping[str, Run]) -> str:
    """Say what is wrong with a cell; empty when nothing is."""
    if name == "model":
        return "" if _shape(cell, shapes) else "no run shows the shape of this model"
    if name == "zero":
        return "" if cell in ("0", "1", "2", "3") else "expected 0, 1, 2 or 3"
    return "" if COUNT.fullmatch(cell) else "expected a whole number above 0"


def _shape(model: str, shapes: Mapping[str, Run]) -> Run | None:
    return next((run for name, run in shapes.items() if model and name.endswith(f"-{model}")), None)


def _as_run(line: int, row: Mapping[str, str], shape: Run | None) -> Run:
    """Return the row as a measured run of the same shape."""
    assert shape is not None
    numbers = dict(shape.numbers)
    for name, column in (("n_devices", "n_devices"), ("micro_batch", "micro_batch"), ("dp", "dp"),
                         ("global_batch_seqs", "gbs_seqs"), ("pp", "pp"), ("tp", "tp")):  # fmt: skip
        numbers[name] = float(row[column])
    more = {"id": f"line {line}", "sharding": f"zero{row['zero']}",
            "notes": f"grad_accum={row['grad_acc']}"}  # fmt: skip
    return Run(line, {**shape.texts, **more}, numbers)
