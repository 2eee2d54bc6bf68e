"""Memory verdicts against runs that ran out of memory, beside those of the same stack that ran.

The table of crashes has the columns of `COLUMNS`, one configuration a row; a model is named as the
table of runs names it at its end (8B for nanotron-llama-8B) and takes its shape from there. A crash
is caught when the plan does not fit, or cannot run at all. Peaks that rows state as allocated
(`mem_GB=` or `mem=..GB` in their notes) are compared without what the framework does not count:
context and communication buffers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ersatz.device_models.kernels.kernel import kernel_constants
from ersatz.device_models.text.files import read_csv
from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.plan.schedules import MOST_SLOTS
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.validation.fit.samples import is_complete, is_verified
from ersatz.sim.validation.reading.rows import scenario_of
from ersatz.sim.validation.reading.rules import Refused
from ersatz.sim.validation.reading.table import Run, read_table

COLUMNS = ("model", "n_devices", "micro_batch", "grad_acc", "gbs_seqs", "dp", "pp", "tp", "zero")
COUNT = re.compile(r"0*[1-9][0-9]{0,8}")
STATED = re.compile(r"mem(?:_GB=|=)(\d+(?:\.\d+)?)")
GB = 1e9


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
    """How well plans tell what runs; peaks are |predicted / measured - 1| by source."""

    total: Share
    balanced_accuracy: float
    by_model: Mapping[str, Share]
    peaks: Mapping[str, tuple[int, float, float]]  # rows, median, 90th percentile
    peak_median: float
    problems: tuple[Problem, ...]


def judge_memory(crashes: Path | str, runs: Path | str) -> MemoryVerdicts:
    """Judge a table of crashes against a table of runs; raises `InputError` when none can be."""
    known = [r for r in read_table(runs).runs if is_complete(r) and is_verified(r)]
    swept = [r for r in known if r.text("framework").startswith("nanotron")]
    shapes = {r.text("model_name"): r for r in swept}
    crashed, problems = _read(Path(crashes), shapes)
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
    total = Share(*np.sum(list(counts.values()), axis=0).tolist())
    peaks = peak_errors(known)
    everything = [e for errors in peaks.values() for e in errors]
    return MemoryVerdicts(
        total, total.balanced, {m: Share(*counts[m]) for m in sorted(counts)},
        {s: (len(e), *_quantiles(e)) for s, e in sorted(peaks.items(), key=lambda x: -len(x[1]))},
        _quantiles(everything)[0] if everything else float("nan"), tuple(problems),
    )  # fmt: skip


def fits(run: Run) -> bool:
    """Tell whether a row's plan fits and can run at all (more stages than layers cannot)."""
    try:
        scenario = scenario_of(run)
        return can_deal_out(scenario) and plan_memory(scenario, advise=False).fits
    except (Refused, ValueError, InfeasibleError):
        return False


def can_deal_out(scenario: Scenario) -> bool:
    """Tell whether every stage gets a layer when the last may hold the head alone."""
    return scenario.parallel.pp == 1 or scenario.parallel.pp < scenario.model.layers


def peak_errors(runs: Iterable[Run]) -> dict[str, list[float]]:
    """Return predicted / measured - 1 of the allocated peaks that rows state, by source."""
    found: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        stated = STATED.search(run.text("notes"))
        if stated is None:
            continue
        try:
            result = plan_memory(scenario_of(run), advise=False)
        except (Refused, ValueError, InfeasibleError):
            continue
        allocated = result.peak_bytes - result.parts["overhead"] - result.parts["fragmentation"]
        allocated += kernel_constants().staging_bytes
        found[run.text("source")].append(allocated / (float(stated[1]) * GB) - 1)
    return found


def _quantiles(errors: Sequence[float]) -> tuple[float, float]:
    size = np.abs(errors)
    return float(np.median(size)), float(np.quantile(size, 0.9))


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
