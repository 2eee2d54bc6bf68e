"""Whole jobs against what they took: the days of a pre-training, the minutes to a target.

A job is judged where its step time can be had: a run of the same model, device and device count is
known with its layout. The work is the stated tokens, or the samples at which the target was
reached. Short jobs add the evaluations that their benchmark's rules ask for; long ones divide by
the share of the time that the job simulation expects to be productive under failures.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ersatz.device_models.shipped import DATA
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.job.checkpoint import saved_params
from ersatz.sim.job.job import simulate_job
from ersatz.sim.scenario.defaults import job_defaults
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.step.degraded import degraded_step_seconds
from ersatz.sim.step.step import step_seconds
from ersatz.sim.validation.reading.rows import scenario_of
from ersatz.sim.validation.reading.rules import Refused, is_lora, rules
from ersatz.sim.validation.reading.table import Run

JOBS = DATA / "measured" / "job_runs.csv"
LONG_S = 86_400.0  # jobs of more than a day are simulated with failures
REPLICAS = 8  # histories of a long job; their mean is compared


@dataclass(frozen=True, slots=True)
class JudgedJob:
    """One job: seconds measured and predicted, or why it is not judged."""

    id: str
    source: str
    model: str
    devices: str
    measured_s: float = 0.0
    predicted_s: float = 0.0
    reason: str = ""

    @property
    def error(self) -> float:
        """Predicted / measured - 1."""
        return self.predicted_s / self.measured_s - 1.0


def judge_jobs(runs: Sequence[Run], path: Path = JOBS) -> list[JudgedJob]:
    """Return every job of a table, judged or with the reason why not."""
    known: dict[str, list[Run]] = {}
    for run in runs:
        known.setdefault(_key(run.text("model_name")), []).append(run)
    with path.open(encoding="utf-8", newline="") as file:
        return [_judge(row, known) for row in csv.DictReader(file)]


def job_summary(jobs: Sequence[JudgedJob]) -> dict[str, float]:
    """Return how many jobs were judged, and median and 90th percentile of |error|."""
    errors = np.abs([job.error for job in jobs if not job.reason])
    if not errors.size:
        return {"jobs": 0}
    return {"jobs": len(errors), "median": float(np.median(errors)),
            "p90": float(np.quantile(errors, 0.9))}  # fmt: skip


def _judge(row: Mapping[str, str], known: Mapping[str, list[Run]]) -> JudgedJob:
    job = JudgedJob(row["id"], row["source"], row["model_name"], row["n_devices"])
    try:
        measured = _measured_seconds(row)
        scenario, run = _plan(row, known)
        steps, evaluations = _work(row, scenario, run)
        step = step_seconds(scenario)
        seconds = step * (steps + evaluations)
        if measured > LONG_S:
            seconds = _with_failures(scenario, step, steps)
    except (Refused, ValueError, InfeasibleError) as refusal:
        return replace(job, reason=str(refusal))
    return replace(job, measured_s=measured, predicted_s=seconds)


def _number(row: Mapping[str, str], key: str) -> float:
    """Return the number of a cell, 0 where it is blank; raises `Refused` for what is none."""
    cell = row.get(key) or "0"
    try:
        return float(cell)
    except ValueError:
        raise Refused(f"{key}: {cell[:40]!r} is no number") from None


def _measured_seconds(row: Mapping[str, str]) -> float:
    minutes = _number(row, "time_to_train_min_median")
    devices, hours, days = (_number(row, k) for k in ("n_devices", "gpu_hours", "days"))
    if minutes:
        return minutes * 60
    if hours and devices:
        return hours / devices * 3600
    if days:
        return days * 86_400
    raise Refused("no duration, or no device count, is stated")


def _plan(row: Mapping[str, str], known: Mapping[str, list[Run]]) -> tuple[Scenario, Run]:
    """Return the layout of the run that is most like the job: its own submission, if there is one."""
    mark = "source_ref" if row["time_to_train_min_median"] else "device"
    fits = [
        run for run in known.get(_key(row["model_name"]), ())
        if run.text(mark) == row[mark]
        and run.count("n_devices") == _number(row, "n_devices")
        and run.count("tp")
        and run.count("pp")
    ]  # fmt: skip
    for run in fits:
        try:
            return scenario_of(run), run
        except Refused:
            continue
    raise Refused("no run of this model on so many of these devices shows its layout")


def _work(row: Mapping[str, str], scenario: Scenario, run: Run) -> tuple[float, float]:
    """Return the steps of the job, and those that would take as long as its evaluations."""
    training = scenario.training
    samples = _number(row, "samples_at_stop")
    if not samples:
        tokens = _number(row, "tokens_b") * 1e9
        if not tokens:
            raise Refused("neither tokens nor samples of the job are stated")
        return tokens / training.sequence_length / training.global_batch, 0.0
    for rule in rules("evaluations"):
        if re.search(rule["pattern"], row["model_name"], re.I):
            share = 0.5 if is_lora(run) else 1 / 3  # of a step is its forward pass
            evaluated = samples / float(rule["every"]) * float(rule["samples"])
            return samples / training.global_batch, share * evaluated / training.global_batch
    return samples / training.global_batch, 0.0


def _with_failures(scenario: Scenario, step: float, steps: float) -> float:
    """Return the mean wall time of a long job under failures, checkpoints and restarts."""
    tokens = steps * scenario.training.global_batch * scenario.training.sequence_length
    share = job_defaults()["spare_share"].value  # so large a job does not wait for repairs
    spares = math.ceil(share * sum(pool.nodes for pool in scenario.pools))
    whole = replace(
        scenario,
        training=replace(scenario.training, tokens=tokens),
        job=replace(scenario.job, replicas=REPLICAS, spare_nodes=spares),
    )
    result = simulate_job(
        whole, step, degraded_step_s=lambda lost: degraded_step_seconds(whole, lost),
        model_params=saved_params(whole.model),
    )  # fmt: skip
    return result.wall_s


def _key(name: str) -> str:
    """Return a model's name without case, punctuation and the words that tables add."""
    return re.sub(r"replica|finetune|[^a-z0-9]", "", name.lower())
