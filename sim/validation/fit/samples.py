"""The measured rows that parameters are fitted on: complete, not repeated, spread over models."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ersatz.sim.errors import InfeasibleError, LayoutError
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.step import step_seconds
from ersatz.sim.validation.reading.lineages import lineage_of
from ersatz.sim.validation.reading.rows import read_run
from ersatz.sim.validation.reading.rules import Refused
from ersatz.sim.validation.reading.table import Run

COMPLETE = ("n_devices", "layers", "hidden", "seq_len", "global_batch_seqs", "micro_batch", "tp", "pp",
            "metric_value")  # fmt: skip
MOST_ROWS = 32  # of a source that enter a fit, drawn evenly over its models and layouts
APART = re.compile(r"\bEXCLUDE|\bdo not use\b|\bSUSPECT\b")
OUTLIER = 0.6  # log error at the priors beyond which a row does not enter the fit


@dataclass(frozen=True, slots=True)
class Sample:
    """One configuration of a source with its measured time: the median of those that repeat it."""

    runs: tuple[Run, ...]
    scenario: Scenario
    measured_s: float

    @property
    def source(self) -> str:
        """Where it was published."""
        return self.runs[0].text("source")

    @property
    def lineage(self) -> str:
        """Its source's lineage: what is left out together."""
        return lineage_of(self.runs[0])

    @property
    def family(self) -> tuple[str, str]:
        """Its source and model: what is left out together."""
        return self.source, self.runs[0].text("model_name")

    @property
    def stack(self) -> str:
        """The software stack that it ran on."""
        return self.scenario.pools[0].stack.name


def is_complete(run: Run) -> bool:
    """Tell whether device, shape, batch, layout and value are all stated."""
    return bool(run.text("device")) and all(run.number(key) for key in COMPLETE)


def is_verified(run: Run) -> bool:
    """Tell whether a row counts: checked at its source, and not called suspect or to be excluded."""
    confidence = run.text("confidence").lower()
    set_apart = APART.search(run.text("notes")) or "suspect" in confidence
    return not set_apart and (not confidence or confidence.startswith("verified"))


def samples(runs: Iterable[Run]) -> list[Sample]:
    """Return the complete and verified configurations, repeats merged."""
    groups: dict[object, list[tuple[Run, Scenario, float]]] = defaultdict(list)
    for run in runs:
        if not (is_complete(run) and is_verified(run)):
            continue
        try:
            reading = read_run(run, oddities=True)
        except Refused:
            continue
        scenario, measured = reading.scenario, reading.measured_s
        if measured:
            groups[configuration(run, scenario)].append((run, scenario, measured))
    return [
        Sample(
            tuple(run for run, _, _ in rows), rows[0][1], float(np.median([t for _, _, t in rows]))
        )
        for rows in groups.values()
    ]


def configuration(run: Run, scenario: Scenario) -> Hashable:
    """Return what tells one configuration of a source from another."""
    pool = scenario.pools[0]
    node = pool.node
    return (run.text("source"), scenario.model, scenario.parallel, scenario.training, pool.stack.name,
            node.device.name, node.scale_out.name, node.nics, pool.nodes)  # fmt: skip


def log_error(scenario: Scenario, measured_s: float) -> float:
    """Return log(predicted / measured); infinite where no such layout can run."""
    try:
        return math.log(step_seconds(scenario) / measured_s)
    except (LayoutError, InfeasibleError):
        return math.inf


def usable(found: Sequence[Sample], errors: Sequence[float]) -> list[Sample]:
    """Leave out gross outliers, and thin large sources evenly in the order of model and layout."""
    by_source: dict[str, list[Sample]] = defaultdict(list)
    for sample, error in zip(found, errors, strict=True):
        if abs(error) < OUTLIER:
            by_source[sample.source].append(sample)
    kept = []
    for rows in by_source.values():
        rows.sort(key=lambda s: (s.family, s.runs[0].id))
        step = max(len(rows) / MOST_ROWS, 1.0)
        kept += [rows[int(i * step)] for i in range(round(len(rows) / step))]
    return kept
