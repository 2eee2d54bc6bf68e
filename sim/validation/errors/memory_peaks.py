"""Stated peaks and runs that ran, against plans: errors and verdicts by source, with all seen and left out.

A table states a peak in `peak_memory`, its unit (GB or GiB) and what it counts: tensors (allocated), the
allocator's blocks (reserved), or all that the device holds (device). A run that ran is kept where its plan
fits under a reading of its blanks; a row that states no layout at all states no plan.
Left out means read as a stranger's row: stacks that only its lineage showed are not recognised. With
the source alone left out, those that only it showed are not, nor those whose memory was fitted to runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

import numpy as np

from ersatz.device_models.kernels.kernel import kernel_constants
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.plan.memory import plan_memory
from ersatz.sim.records import MemoryResult
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.validation.reading.lineages import (
    lineage_of,
    source_of,
    withheld,
    withheld_memory,
)
from ersatz.sim.validation.reading.rows import Reading, read_run
from ersatz.sim.validation.reading.rules import Refused
from ersatz.sim.validation.reading.table import Run

UNITS = {"GB": 1e9, "GiB": 2.0**30}
COUNTS = ("allocated", "reserved", "device")
LAYOUT = ("tp", "pp", "ep", "sharding")  # columns of which one at least makes a plan
MOST_READINGS = 64  # of one row's blanks
UNREADABLE = (Refused, ValueError, InfeasibleError)


@dataclass(frozen=True, slots=True)
class Peak:
    """One stated peak and what its plan says of it; errors are predicted / stated - 1."""

    source: str
    id: str
    stack: str
    counts: str
    stated_bytes: float
    predicted_bytes: float
    error: float
    left_out_error: float | None  # None: as a stranger's it cannot be read
    source_out_error: float | None = None  # other sources of its lineage known


@dataclass(frozen=True, slots=True)
class Errors:
    """Absolute relative errors of a group, as shares, and the median of the signed ones."""

    rows: int
    median: float
    p90: float
    bias: float
    left_out_median: float
    left_out_p90: float
    source_out_median: float
    source_out_p90: float


def unread_peak(run: Run) -> tuple[str, str, str] | None:
    """Return column, value and what was expected of a stated peak that is left out; None of others."""
    if not run.number("peak_memory"):
        return None
    for column, known in (("peak_memory_unit", tuple(UNITS)), ("peak_memory_counts", COUNTS)):
        if run.text(column) not in known:
            return (
                column,
                run.text(column),
                f"its peak is left out: expected one of {', '.join(known)}",
            )
    return None


def stated_peaks(runs: Iterable[Run]) -> Iterator[Peak]:
    """Yield the peaks that rows state, beside those of their plans."""
    for run in runs:
        stated, counts = run.number("peak_memory"), run.text("peak_memory_counts")
        if not stated or unread_peak(run):
            continue
        unit = UNITS[run.text("peak_memory_unit")]
        try:
            scenario = read_run(run, possible=False).scenario
            predicted = counted(plan_memory(scenario, advise=False), counts)
        except UNREADABLE:
            continue
        nbytes = stated * unit
        strange, apart = (
            _left_out(run, counts, nbytes, unknown)
            for unknown in (withheld(lineage_of(run)), withheld_memory(source_of(run)))
        )
        yield Peak(
            source_of(run), run.id, scenario.pools[0].stack.name, counts, nbytes, predicted,
            predicted / nbytes - 1, strange, apart,
        )  # fmt: skip


def counted(memory: MemoryResult, counts: str) -> float:
    """Return the bytes of a plan's peak that a statement of one kind counts."""
    if counts == "device":
        return memory.peak_bytes
    whole = memory.allocated_bytes if counts == "allocated" else memory.reserved_bytes
    return whole + kernel_constants().staging_bytes


def _left_out(run: Run, counts: str, stated: float, unknown: frozenset[str]) -> float | None:
    try:
        strange = read_run(run, unknown=unknown, possible=False).scenario
        return counted(plan_memory(strange, advise=False), counts) / stated - 1
    except UNREADABLE:
        return None


def errors_by(peaks: Sequence[Peak], key: str) -> dict[str, Errors]:
    """Return the errors of groups of peaks: by source, stack, or what they count."""
    groups: dict[str, list[Peak]] = {}
    for peak in peaks:
        groups.setdefault(getattr(peak, key), []).append(peak)
    order = sorted(groups, key=lambda name: (-len(groups[name]), name))
    return {name: errors_of(groups[name]) for name in order}


def errors_of(peaks: Sequence[Peak]) -> Errors:
    """Summarise peaks (at least one), their sources weighing the same."""
    sources = [peak.source for peak in peaks]
    weights = np.array([1.0 / sources.count(source) for source in sources])
    signed = np.array([peak.error for peak in peaks])
    return Errors(
        len(peaks), *_quantiles(np.abs(signed), weights), _quantiles(signed, weights)[0],
        *_known([peak.left_out_error for peak in peaks], weights),
        *_known([peak.source_out_error for peak in peaks], weights),
    )  # fmt: skip


def _known(errors: Sequence[float | None], weights: Any) -> tuple[float, float]:
    """Weighted median and 90th percentile of the sizes of those that there are."""
    places = [i for i, error in enumerate(errors) if error is not None]
    sizes = np.abs(np.array([errors[i] for i in places], dtype=float))
    return _quantiles(sizes, weights[places])


def _quantiles(values: Any, weights: Any) -> tuple[float, float]:
    """Weighted median and 90th percentile."""
    if not len(values):
        return float("nan"), float("nan")
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order]) / np.sum(weights)
    return tuple(float(values[order][np.searchsorted(total, q - 1e-12)]) for q in (0.5, 0.9))  # type: ignore[return-value]


def kept_by_source(
    runs: Iterable[Run], tell: Callable[[str], None] = lambda _: None
) -> Mapping[str, tuple[int, int, tuple[str, ...]]]:
    """Return per source how many runs that ran can be judged, how many are kept, and who is not."""
    found: dict[str, tuple[int, int, tuple[str, ...]]] = {}
    for run in runs:
        tell(run.id)
        verdict = kept(run)
        if verdict is not None:
            rows, good, bad = found.get(run.text("source"), (0, 0, ()))
            found[run.text("source")] = rows + 1, good + verdict, bad if verdict else (*bad, run.id)
    return found


def kept(run: Run) -> bool | None:
    """Tell whether a plan of a run that ran fits under a reading of its blanks; None: it says no plan."""
    if run.count("n_devices") > 1 and not any(run.text(x) or run.number(x) for x in LAYOUT):
        return None
    try:
        first = read_run(run, possible=False)
    except UNREADABLE:
        return None
    return any(fits(scenario) for scenario in islice(_readings(run, first), MOST_READINGS))


def fits(scenario: Scenario) -> bool:
    """Tell whether a plan fits and can run at all (more stages than layers cannot)."""
    try:
        return can_deal_out(scenario) and plan_memory(scenario, advise=False).fits
    except UNREADABLE:
        return False


def can_deal_out(scenario: Scenario) -> bool:
    """Tell whether every stage gets a layer when the last may hold the head alone."""
    return scenario.parallel.pp == 1 or scenario.parallel.pp < scenario.model.layers


def _readings(run: Run, first: Reading) -> Iterator[Scenario]:
    """Yield what a row may mean: as read, its blanks read otherwise, its sharding too if it is blank."""
    yield from _shardings(run, first.scenario)
    keys = list(first.open)
    for chosen in product(*[(None, *first.open[key]) for key in keys]):
        choices = {k: v for k, v in zip(keys, chosen, strict=True) if v is not None}
        if not choices:
            continue
        try:
            yield from _shardings(run, read_run(run, choices=choices, possible=False).scenario)
        except UNREADABLE:
            continue


def _shardings(run: Run, scenario: Scenario) -> Iterator[Scenario]:
    yield scenario
    if run.text("sharding"):
        return
    for zero in (1, 3):
        if zero > scenario.parallel.zero:
            yield replace(scenario, parallel=replace(scenario.parallel, zero=zero))
