"""The record and the files of `ersatz schedule`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ersatz.device_models.text.csvtext import csv_text
from ersatz.sim.fleet.compare import Difference, Outcome
from ersatz.sim.fleet.judge.logfile import log_text
from ersatz.sim.fleet.judge.metrics import DEFINITIONS, job_table
from ersatz.sim.fleet.judge.properties import Verdict
from ersatz.sim.fleet.standing import cannot_win, standing
from ersatz.sim.report.pictures.fleet_plots import pictures

JOB_COLUMNS = ("job", "tenant", "devices", "type", "submit_s", "first_start_s", "end_s", "state", "wait_s",
               "held_s", "device_s", "lost_device_s", "attempts", "preemptions", "failures")  # fmt: skip


def schedule_record(
    question: str, outcomes: Sequence[Sequence[Outcome]], differences: Sequence[Difference],
    assumptions: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """Return everything that was found, for --json; NaN becomes null."""
    return {
        "question": question,
        "definitions": DEFINITIONS,
        "policies": [
            {"policy": draws[0].policy, "cannot_win": cannot_win(draws),
             "draws": [{"seed": o.log.about.get("seed", ""), "reason": o.reason, "metrics": _plain(o.metrics),
                        "tenants": {k: _plain(v) for k, v in o.tenants.items()},
                        "types": {k: _plain(v) for k, v in o.types.items()},
                        "verdict": verdict_record(o.verdict)} for o in draws]}
            for draws in outcomes
        ],
        "comparison": [_plain(asdict(d)) for d in differences],
        "standing": {"all": _plain(asdict(standing(outcomes))), **{
            f"tenant {name}": _plain(asdict(standing(outcomes, name)))
            for name in sorted({t for draws in outcomes for o in draws for t in o.tenants})}},
        "assumptions": list(assumptions),
    }  # fmt: skip


def verdict_record(verdict: Verdict) -> list[dict[str, Any]]:
    """Return the findings on a log."""
    return [{**asdict(f), "title": f.title, "context": list(f.context)} for f in verdict.findings]


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _finite(value) for key, value in values.items()}


def _finite(value: Any) -> Any:
    """Return a value with null for every number that is none."""
    if isinstance(value, tuple | list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def schedule_files(outcomes: Sequence[Sequence[Outcome]]) -> dict[str, str]:
    """Return the files for --out: of each policy's first draw the log, the jobs and the pictures."""
    files: dict[str, str] = {}
    for draws in outcomes:
        name = draws[0].policy
        files[f"{name}.log.csv"] = log_text(draws[0].log)
        files[f"{name}.jobs.csv"] = jobs_text(draws[0])
    return files | pictures([draws[0] for draws in outcomes], max(map(len, outcomes), default=1))


def jobs_text(outcome: Outcome) -> str:
    """Return the table of jobs as CSV."""
    rows = []
    for name, row in job_table(outcome.log).items():
        job = row.job
        wait = row.wait_s if row.first_start_s >= 0 else ""
        rows.append((name, job.tenant, job.devices, row.type, job.submit_s, row.first_start_s, row.end_s,
                         row.state, wait, row.held_s, row.device_s, row.lost_device_s, row.attempts,
                         row.preemptions, row.failures))  # fmt: skip
    return csv_text(JOB_COLUMNS, rows)
