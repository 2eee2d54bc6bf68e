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
    """Return counts, reasons of refusal, errors over all rows, with equal sources, and by group."""
    rows = list(predictions)
    predicted = [p for p in rows if not p.reason]
    reasons: dict[str, int] = defaultdict(int)
    for p in rows:
        if p.reason:
            reasons[p.reason] += 1
    summary: dict[str, Any] = {
        "rows": len(rows), "predicted": len(predicted), "refused": len(rows) - len(predicted),
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
    predicted = None
    if p.measured_s and p.predicted_s and measured:
        direct = metric == "step_time_s"
        ratio = p.predicted_s / p.measured_s
        predicted = measured * ratio if direct else measured / ratio
    return {
        "id": p.run.id, "status": "refused" if p.reason else "predicted", "reason": p.reason,
        "metric_name": metric, "measured": measured, "predicted": predicted,
        "step_time_predicted_s": p.predicted_s, "relative_error": p.relative_error,
        "low80": p.low80_s, "high80": p.high80_s, "memory_fits": p.memory_fits,
        "peak_bytes": p.peak_bytes,
        "relative_error_model_left_out": math.expm1(held.family_error) if held else None,
        "relative_error_source_left_out": math.expm1(held.source_error) if held else None,
        "assumptions": list(p.scenario.assumptions) if p.scenario else [],
    }  # fmt: skip
