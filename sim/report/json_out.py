"""Results as JSON and CSV: every record with its documented columns, the same bytes each time."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from ersatz.device_models.text.csvtext import csv_text
from ersatz.sim.errors import BrokenAnswerError
from ersatz.sim.job.chance import differences
from ersatz.sim.records import CollectiveRow, FlopRow, RunResult
from ersatz.sim.report.setting import setting
from ersatz.sim.scenario.scenario import Scenario

MOST_PLACES = 8  # that a complaint lists


def plain(value: Any) -> Any:
    """Return a record as mappings, lists and numbers."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and math.isinf(value):
        return None  # JSON has no infinity: never, or without bound
    return value


def result_json(scenarios: Sequence[Scenario], results: Sequence[RunResult]) -> dict[str, Any]:
    """Return the results: the baseline's keys at the top, all cases under `cases`."""
    rows = [{**plain(result), "setting": setting(scenario)}
            for scenario, result in zip(scenarios, results, strict=True)]  # fmt: skip
    top = {"question": scenarios[0].question, **rows[0]}
    if len(results) > 1:
        top["cases"] = {row["name"]: row for row in rows}
        if saved := differences(scenarios, results):
            top["differences"] = plain(saved)
    return top


def to_text(data: Any) -> str:
    """Return JSON text, indented, with a newline at the end.

    JSON knows no NaN and no infinity: raises `BrokenAnswerError` with the places of any.
    """
    try:
        return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError:
        places = [f"{place or 'the answer'} is {value}" for place, value in _unbounded(data)]
        raise BrokenAnswerError(places[:MOST_PLACES]) from None


def _unbounded(data: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Yield the place and the value of every number that is not finite."""
    if isinstance(data, float) and not math.isfinite(data):
        yield place, data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from _unbounded(value, f"{place}.{key}".lstrip("."))
    elif isinstance(data, list | tuple):
        for i, value in enumerate(data):
            yield from _unbounded(value, f"{place}[{i}]")


def run_files(
    results: Sequence[RunResult], sources: Sequence[Path], overrides: Sequence[str]
) -> dict[str, str | bytes]:
    """Return what `--out` holds beside result and report: what was asked, and flat tables."""
    asked = {f"scenario{f'-{i + 1}' if i else ''}.yaml": _copied(path)
             for i, path in enumerate(sources)}  # fmt: skip
    changes = {"overrides.txt": "".join(f"{line}\n" for line in overrides)}
    return {**asked, **changes, **table_files(results)}


def _copied(path: Path) -> bytes:
    """Return a scenario file as it is, but for carriage returns, of which a line's end may consist."""
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def table_files(results: Sequence[RunResult]) -> dict[str, str]:
    """Return the flat tables of a run as CSV by file name."""
    return {f"{name}.csv": table_text(rows) for name, rows in tables(results).items()}


def tables(results: Sequence[RunResult]) -> dict[str, list[dict[str, Any]]]:
    """Return the flat tables of a run: one row per case, and the breakdowns by stage and cause."""
    found: dict[str, list[dict[str, Any]]] = {"breakdown": [], "memory_parts": []}
    for result in results:
        for kind in ("step", "memory", "job", "cost", "energy"):
            record = getattr(result, kind)
            if record is not None:
                flat = {k: v for k, v in plain(record).items() if isinstance(v, int | float | str)}
                found.setdefault(kind, []).append({"case": result.name, **flat})
        for stage, causes in enumerate(result.step.by_stage):
            found["breakdown"] += [
                {"case": result.name, "stage": stage, "cause": cause, "seconds": seconds}
                for cause, seconds in sorted(causes.items())
            ]
        found["memory_parts"] += [
            {"case": result.name, "use": use, "bytes": nbytes}
            for use, nbytes in result.memory.parts.items()
        ]
        for phase in result.phases:
            found.setdefault("phases", []).append({"case": result.name, **plain(phase)})
        if result.operations:
            for name in ("collectives", "flops"):
                rows = getattr(result.operations, name)
                found.setdefault(name, []).extend(_flat(result.name, row) for row in rows)
    return found


def _flat(case: str, row: CollectiveRow | FlopRow) -> dict[str, Any]:
    stages = " ".join(str(stage) for stage in row.stages)
    return {"case": case, **plain(row), "stages": stages}


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV; the header is that of the first."""
    header = list(rows[0]) if rows else []
    return csv_text(header, ([row.get(key) for key in header] for row in rows))
