"""Errors of predicted step times, by group: median, 90th percentile, bias and interval coverage."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ersatz.sim.validation.errors.heldout import Judged
from ersatz.sim.validation.errors.predict import Prediction
from ersatz.sim.validation.fit.samples import is_verified


@dataclass(frozen=True, slots=True)
class GroupErrors:
    """Errors of one group of rows; shares, not percent."""

    rows: int
    median: float  # of the absolute relative error of step time
    p90: float
    bias: float  # median of the signed error; above 0 the prediction is too slow
    coverage80: float  # share of rows inside their 80 % interval


GROUPS: dict[str, Callable[[Prediction], str]] = {
    "source": lambda p: p.run.text("source") or "unnamed",
    "vendor": lambda p: p.run.text("vendor") or "unknown",
    "device": lambda p: p.scenario.pools[0].node.device.name if p.scenario else "",
    "stack": lambda p: p.scenario.pools[0].stack.name if p.scenario else "",
    "model": lambda p: p.run.text("model_name") or "unnamed",
}


def errors_of(predictions: Sequence[Prediction]) -> GroupErrors:
    """Summarise predicted rows (at least one)."""
    signed = np.array([p.relative_error for p in predictions], dtype=float)
    size = np.abs(signed)
    inside = [p.low80_s <= p.measured_s <= p.high80_s for p in predictions
              if p.low80_s is not None and p.high80_s is not None and p.measured_s is not None]  # fmt: skip
    return GroupErrors(
        len(predictions), float(np.median(size)), float(np.quantile(size, 0.9)),
        float(np.median(signed)), float(np.mean(inside)),
    )  # fmt: skip


def summarise(predictions: Iterable[Prediction]) -> dict[str, Any]:
    """Return counts, reasons of refusal, errors over all rows, with equal sources, and by group.

    Rows that their table calls suspect, second-hand or to be excluded are predicted, and stand apart.
    """
    rows = list(predictions)
    everything = [p for p in rows if not p.reason]
    predicted = [p for p in everything if is_verified(p.run)]
    reasons: dict[str, int] = defaultdict(int)
    for p in rows:
        if p.reason:
            reasons[p.reason] += 1
    summary: dict[str, Any] = {
        "rows": len(rows), "predicted": len(everything), "refused": len(rows) - len(everything),
        "apart": len(everything) - len(predicted),
        "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    }  # fmt: skip
    if predicted:
        summary["all"] = errors_of(predicted)
        summary["sources_weighted_equally"] = _equal_sources(predicted)
        summary["groups"] = {name: _by(predicted, key) for name, key in GROUPS.items()}
    return summary


def _by(
    predictions: Sequence[Prediction], key: Callable[[Prediction], str]
) -> Mapping[str, GroupErrors]:
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for p in predictions:
        groups[key(p)].append(p)
    order = sorted(groups, key=lambda name: (-len(groups[name]), name))
    return {name: errors_of(groups[name]) for name in order}


def _equal_sources(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Median and 90th percentile with every source weighing the same."""
    counts: dict[str, int] = defaultdict(int)
    for p in predictions:
        counts[GROUPS["source"](p)] += 1
    size = np.array([abs(p.relative_error or 0.0) for p in predictions])
    weight = np.array([1.0 / counts[GROUPS["source"](p)] for p in predictions])
    order = np.argsort(size)
    total = np.cumsum(weight[order]) / weight.sum()
    median, p90 = (float(size[order][np.searchsorted(total, q)]) for q in (0.5, 0.9))
    return {"median": median, "p90": p90, "sources": len(counts)}


def row_record(p: Prediction, held: Judged | None = None) -> dict[str, Any]:
    """Return one row for JSON, with its errors when its model or its source is left out."""
    metric = p.run.text("metric_name")
    measured = p.run.number("metric_value")

    def in_metric(seconds: float | None) -> float | None:
        """Say a step time in the row's own metric; rates fall where times grow."""
        if not (seconds and p.measured_s and measured):
            return None
        ratio = seconds / p.measured_s
        return measured * ratio if metric == "step_time_s" else measured / ratio

    ends = sorted(end for end in map(in_metric, (p.low80_s, p.high80_s)) if end is not None)
    return {
        "id": p.run.id, "status": "refused" if p.reason else "predicted", "reason": p.reason,
        "metric_name": metric, "metric_unit": p.run.text("metric_unit"),
        "measured_in_metric_unit": measured, "predicted_in_metric_unit": in_metric(p.predicted_s),
        "low80_in_metric_unit": ends[0] if ends else None,
        "high80_in_metric_unit": ends[-1] if ends else None,
        "step_time_measured_s": p.measured_s, "step_time_predicted_s": p.predicted_s,
        "step_time_low80_s": p.low80_s, "step_time_high80_s": p.high80_s,
        "relative_error": p.relative_error, "counts": is_verified(p.run), "memory_fits": p.memory_fits,
        "left_open": {name: math.expm1(factor) for name, factor in p.open_ends},
        "peak_bytes": p.peak_bytes,
        "relative_error_model_left_out": math.expm1(held.family_error) if held else None,
        "relative_error_lineage_left_out": math.expm1(held.lineage_error) if held else None,
        "assumptions": list(p.scenario.assumptions) if p.scenario else [],
    }  # fmt: skip
