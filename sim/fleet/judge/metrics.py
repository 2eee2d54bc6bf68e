"""What a run was worth, computed from its event log alone: definitions in `DEFINITIONS`.

`job_table` gives one row per job, `metrics` the figures of a run or of a part of its jobs (a tenant, an
accelerator type), `series` the steps over time from which pictures are drawn.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ersatz.sim.fleet.fits import spans
from ersatz.sim.fleet.log import FINAL, RELEASES, Log
from ersatz.sim.fleet.workload.jobs import Job

TAU_S = 10.0  # of the bounded slowdown
DEFINITIONS = {
    "jobs": "jobs that were submitted",
    "finished": "jobs whose work was done; the others timed out, were rejected, given up, or cut off",
    "wait_s": "mean time from submission to the first start, of jobs that started",
    "wait_p50_s": "its median", "wait_p90_s": "its 90th percentile", "wait_p99_s": "its 99th percentile",
    "wait_max_s": "the longest, of jobs that never started counted to the end",
    "queued_s": "mean time without devices, of finished jobs, over all their attempts",
    "jct_s": "mean job completion time: from submission to the end, of finished jobs",
    "jct_p50_s": "its median", "jct_p90_s": "its 90th percentile", "jct_p99_s": "its 99th percentile",
    "slowdown": "mean of completion time / run time on the devices it had, of finished jobs",
    "bounded_slowdown": f"the same with run times of {TAU_S:g} s at least, and 1 at least",
    "makespan_s": "from the first submission to the last end; to that of the run if jobs still ran",
    "device_hours": "device-hours held",
    "allocated": "device-hours held / device-hours of the fleet until the end of the makespan",
    "lost_hours": "device-hours whose work was lost or that went into restarts",
    "goodput": "1 - lost / held",
    "preemptions": "interruptions per job by the scheduler: preemptions, moves and resizes",
    "failures": "failures per job",
    "leaves": "mean leaf switches under a start",
    "late": "share of jobs with a deadline that missed it",
    "rho": "mean finish-time fairness: completion time / time alone on a 1/n part of the fleet (n"
           " tenants): run time x max(1, its devices / (devices / n))",
    "rho_max": "the worst of it", "unfair": "share of jobs above 1",
    "jain": "Jain's index of device-hours held per tenant and share of quota",
}  # fmt: skip


@dataclass(slots=True)
class JobRow:
    """One job in one line. Times in seconds; -1: it did not happen."""

    job: Job
    state: str = "waiting"  # 'finish', 'timeout', 'abandon', 'reject', or as the log ends
    first_start_s: float = -1.0
    end_s: float = -1.0
    held_s: float = 0.0  # of all attempts
    device_s: float = 0.0
    lost_device_s: float = 0.0
    type: str = ""  # of the first start
    attempts: int = 0
    preemptions: int = 0
    failures: int = 0
    leaves: int = 0  # of all starts together
    kept_s: float = 0.0

    @property
    def wait_s(self) -> float:
        """Time from submission to the first start."""
        return self.first_start_s - self.job.submit_s

    @property
    def jct_s(self) -> float:
        """Time from submission to the end."""
        return self.end_s - self.job.submit_s


@dataclass(slots=True)
class _Open:
    start_s: float
    since_s: float
    devices: int
    rate: float
    work_s: float = 0.0  # done since the start


def job_table(log: Log) -> dict[str, JobRow]:
    """Return a row for each submitted job, in the order of submission."""
    rows = {name: JobRow(job) for name, job in log.jobs.items()}
    running: dict[str, _Open] = {}
    for r in log.records:
        row = rows.get(r.job)
        if row is None:
            continue
        if r.event == "start":
            running[r.job] = _begin(log, row, r.time_s, r.placement, r.value)
        elif r.event == "rate" and r.job in running:
            opened = running[r.job]
            opened.work_s += max(r.time_s - opened.since_s, 0.0) * opened.rate
            opened.since_s, opened.rate = max(r.time_s, opened.since_s), r.value
        elif r.event in RELEASES and r.job in running:
            _end(row, running.pop(r.job), r.event, r.time_s, r.value)
        if r.event in FINAL:
            row.state, row.end_s = r.event, r.time_s
    for name, opened in running.items():  # cut off by the end of the log
        _end(rows[name], opened, "cut", log.end_s, rows[name].kept_s + opened.work_s
             + max(log.end_s - opened.since_s, 0.0) * opened.rate)  # fmt: skip
        rows[name].state = "running"
    return rows


def _begin(
    log: Log, row: JobRow, now: float, placement: tuple[tuple[int, int], ...], rate: float
) -> _Open:
    pause = row.job.restart_s if row.attempts else 0.0
    if row.attempts == 0:
        row.first_start_s = now
        row.type = log.cluster.nodes[placement[0][0]].type if placement else ""
    row.attempts += 1
    row.leaves += spans(log.cluster, placement)[1]
    return _Open(now, now + pause, sum(mask.bit_count() for _, mask in placement), rate)


def _end(row: JobRow, opened: _Open, event: str, now: float, kept: float) -> None:
    held = now - opened.start_s
    work = opened.work_s + max(now - opened.since_s, 0.0) * opened.rate
    row.held_s += held
    row.device_s += held * opened.devices
    row.preemptions += event in ("preempt", "resize")
    row.failures += event == "fail"
    useful = (
        max(kept - row.kept_s, 0.0) / work if work > 0 else 0.0
    )  # share of the work that counts
    pause = min(max(opened.since_s - opened.start_s, 0.0), held) if not opened.work_s else 0.0
    working = held - pause
    row.lost_device_s += opened.devices * (pause + working * (1.0 - min(useful, 1.0)))
    row.kept_s = kept


def metrics(log: Log, rows: Iterable[JobRow] | None = None) -> dict[str, float]:
    """Return the figures of `DEFINITIONS` of a run, or of some of its jobs; NaN where none is."""
    chosen = list(job_table(log).values() if rows is None else rows)
    started = [r for r in chosen if r.first_start_s >= 0]
    done = [r for r in chosen if r.state == "finish"]
    waits = np.array([r.wait_s for r in started])
    jct = np.array([r.jct_s for r in done])
    runs = np.array([r.held_s for r in done])
    held = math.fsum(r.device_s for r in chosen)
    lost = math.fsum(r.lost_device_s for r in chosen)
    running = any(r.first_start_s >= 0 > r.end_s for r in chosen)  # when the run ended
    last = (
        log.end_s if running else max((r.end_s for r in chosen if r.end_s >= 0), default=log.end_s)
    )
    first = min((r.job.submit_s for r in chosen), default=0.0)
    longest = [r.wait_s if r.first_start_s >= 0 else (r.end_s if r.end_s >= 0 else log.end_s)
               - r.job.submit_s for r in chosen]  # fmt: skip
    tenants = len({job.tenant for job in log.jobs.values()}) or 1
    rho = np.array([_rho(r, log.cluster.devices / tenants) for r in done])
    due = [r for r in chosen if r.job.deadline_s < math.inf]
    return {
        "jobs": len(chosen), "finished": len(done), "wait_s": _mean(waits),
        **{f"wait_p{q}_s": _quantile(waits, q) for q in (50, 90, 99)},
        "wait_max_s": max(longest, default=math.nan),
        "queued_s": _mean(jct - runs), "jct_s": _mean(jct),
        **{f"jct_p{q}_s": _quantile(jct, q) for q in (50, 90, 99)},
        "slowdown": _mean(jct[runs > 0] / runs[runs > 0]),
        "bounded_slowdown": _mean(np.maximum(jct / np.maximum(runs, TAU_S), 1.0)),
        "makespan_s": last - first, "device_hours": held / 3600.0,
        "allocated": _ratio(held, log.cluster.devices * max(last, 1e-9)),
        "lost_hours": lost / 3600.0, "goodput": 1.0 - lost / held if held else math.nan,
        "preemptions": _ratio(sum(r.preemptions for r in chosen), len(chosen)),
        "failures": _ratio(sum(r.failures for r in chosen), len(chosen)),
        "leaves": _ratio(sum(r.leaves for r in chosen), sum(r.attempts for r in chosen)),
        "late": _ratio(sum(r.state != "finish" or r.end_s > r.job.deadline_s for r in due), len(due)),
        "rho": _mean(rho), "rho_max": float(rho.max()) if len(rho) else math.nan,
        "unfair": _mean((rho > 1.0).astype(float)), "jain": _jain(log, chosen),
    }  # fmt: skip


def _rho(row: JobRow, part: float) -> float:
    """Return a job's finish-time fairness, against alone on `part` devices."""
    alone = row.held_s * max(1.0, row.job.devices / part if part else 1.0)
    return row.jct_s / alone if alone > 0 else 1.0


def _jain(log: Log, rows: Sequence[JobRow]) -> float:
    held: dict[str, float] = defaultdict(float)
    for row in rows:
        quota = log.rules.quotas.get(row.job.tenant)
        held[row.job.tenant] += row.device_s / max(quota.share if quota else 1, 1)
    values = np.array(list(held.values()))
    square = float((values**2).sum())
    return float(values.sum()) ** 2 / (len(values) * square) if square else math.nan


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _quantile(values: np.ndarray, percent: int) -> float:
    return float(np.quantile(values, percent / 100)) if len(values) else math.nan


def _ratio(count: float, of: float) -> float:
    return count / of if of else math.nan


def by_part(
    log: Log, what: str, rows: Mapping[str, JobRow] | None = None
) -> dict[str, dict[str, float]]:
    """Return the figures by 'tenant' or by 'type' (of a job's first start)."""
    parts: dict[str, list[JobRow]] = defaultdict(list)
    for row in (job_table(log) if rows is None else rows).values():
        parts[row.job.tenant if what == "tenant" else row.type or "never started"].append(row)
    return {name: metrics(log, parts[name]) for name in sorted(parts)}


@dataclass(slots=True)
class Series:
    """Steps over time: after each time the values hold until the next."""

    times_s: list[float]
    held: dict[str, list[int]]  # accelerator type -> devices held
    up: dict[str, list[int]]  # accelerator type -> devices of nodes that are not down
    queue: list[int]  # jobs that wait
    queued_devices: list[int]  # that they ask for
    unusable: list[float]  # share of the free devices that the mean waiting demand cannot use


def series(log: Log, *, fragmentation: bool = True) -> Series:
    """Return how use, queue and fragmentation went.

    Fragmentation is that of FGD (ATC 2023) for whole devices: the share of free devices on nodes
    where a job of the workload's mix of sizes per node does not fit, in the mean over the mix.
    """
    cluster = log.cluster
    kinds = cluster.types
    held, up = Counter(dict.fromkeys(kinds, 0)), {k: cluster.devices_of(k) for k in kinds}
    out = Series([], {k: [] for k in kinds}, {k: [] for k in kinds}, [], [], [])
    waiting: set[str] = set()
    busy, down = [0] * len(cluster.nodes), set[int]()
    mix = _mix(log.jobs)
    asked, frag = 0, _Fragments(log, mix) if fragmentation else None
    now = None
    for r in log.records:
        if now is not None and r.time_s != now:
            _step(out, now, held, up, len(waiting), asked, frag)
        now = r.time_s
        job = log.jobs.get(r.job)
        if job and (r.event in ("submit", "fail", "preempt", "resize")):
            waiting.add(r.job)
            asked += job.devices
        if job and r.event in ("start", "reject", "abandon") and r.job in waiting:
            waiting.discard(r.job)
            asked -= job.devices
        if r.event == "start" or r.event in RELEASES:
            sign = 1 if r.event == "start" else -1
            for node, mask in r.placement:
                held[cluster.nodes[node].type] += sign * mask.bit_count()
                busy[node] ^= mask
                if frag:
                    frag.set(node, busy[node], node in down)
        if r.event in ("down", "up"):
            (down.add if r.event == "down" else down.discard)(r.node)
            up[cluster.nodes[r.node].type] += cluster.nodes[r.node].devices * (
                1 if r.event == "up" else -1
            )
            if frag:
                frag.set(r.node, busy[r.node], r.node in down)
    if now is not None:
        _step(out, now, held, up, len(waiting), asked, frag)
    return out


def _step(out: Series, now: float, held: Mapping[str, int], up: Mapping[str, int], queue: int,
          asked: int, frag: _Fragments | None) -> None:  # fmt: skip
    out.times_s.append(now)
    for kind in out.held:
        out.held[kind].append(held[kind])
        out.up[kind].append(up[kind])
    out.queue.append(queue)
    out.queued_devices.append(asked)
    out.unusable.append(frag.share if frag else 0.0)


def _mix(jobs: Mapping[str, Job]) -> list[tuple[int, float]]:
    """Return the sizes that jobs ask of one node (at most 8), with their shares of jobs."""
    counts = Counter(min(max(job.devices, 1), 8) for job in jobs.values())
    total = sum(counts.values()) or 1
    return [(size, count / total) for size, count in sorted(counts.items())]


class _Fragments:
    """Keeps the expected number of free devices that the mix cannot use, node by node."""

    def __init__(self, log: Log, mix: list[tuple[int, float]]) -> None:
        nodes = log.cluster.nodes
        self.full = [n.devices for n in nodes]
        self.lost = [
            math.fsum(w for size, w in mix if size > free) * free
            for free in range(max(self.full, default=0) + 1)
        ]
        self.free = list(self.full)
        self.total = sum(self.full)
        self.unusable = math.fsum(self.lost[f] for f in self.free)

    def set(self, node: int, busy: int, down: bool) -> None:
        """Note what a node has free."""
        free = 0 if down else max(self.full[node] - busy.bit_count(), 0)  # a log may give too many
        before = self.free[node]
        self.free[node] = free
        self.total += free - before
        self.unusable += self.lost[free] - self.lost[before]

    @property
    def share(self) -> float:
        """Unusable devices / free devices."""
        return self.unusable / self.total if self.total > 0 else 0.0
