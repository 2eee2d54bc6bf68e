"""Write a run as evalys reads it: the columns of Batsim's `jobs.csv`, a row per attempt.

evalys (and what else reads Batsim's output) then draws its pictures from our runs.
"""

from __future__ import annotations

from ersatz.device_models.text.csvtext import csv_text
from ersatz.sim.fleet.cluster import devices_text, size_of
from ersatz.sim.fleet.doors.batsim_messages import STATES
from ersatz.sim.fleet.log import RELEASES, Log, Record

COLUMNS = ("job_id", "workload_name", "profile", "submission_time", "requested_number_of_resources",
           "requested_time", "success", "final_state", "starting_time", "execution_time",
           "finish_time", "waiting_time", "turnaround_time", "stretch", "allocated_resources",
           "consumed_energy", "metadata")  # fmt: skip


def jobs_text(log: Log) -> str:
    """Return the attempts that have ended as CSV, in the order of their ends. Times in seconds."""
    rows: list[list[object]] = []
    started: dict[str, Record] = {}
    numbers: dict[str, int] = {}
    for record in log.records:
        if record.event == "start":
            started[record.job] = record
        elif record.event in RELEASES and record.job in started:
            number = numbers[record.job] = numbers.get(record.job, -1) + 1
            rows.append(_row(log, started.pop(record.job), record, number))
    return csv_text(COLUMNS, rows)


def _row(log: Log, start: Record, end: Record, number: int) -> list[object]:
    job = log.jobs[end.job]
    run = end.time_s - start.time_s
    turnaround = end.time_s - job.submit_s
    limit = job.walltime_s if job.walltime_s < float("inf") else -1
    return [
        f"{job.id}#{number}" if number else job.id, log.about.get("workload", "w0"), job.model,
        job.submit_s, size_of(start.placement), limit, int(end.event == "finish"),
        STATES[end.event], start.time_s, run, end.time_s, start.time_s - job.submit_s, turnaround,
        turnaround / run if run else 1.0, devices_text(log.cluster, start.placement), -1, "",
    ]  # fmt: skip
