"""Backfilling against Batsim and batsched, whose workload and results evalys ships (BSD; data/batsim)."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from ersatz.sim.fleet.cluster import devices_text, make_cluster, make_pool
from ersatz.sim.fleet.engine.fleet import FleetSpec, run_fleet
from ersatz.sim.fleet.judge.metrics import job_table, metrics
from ersatz.sim.fleet.judge.validate import judge
from ersatz.sim.fleet.policies.conservative import ConservativeScheduler
from ersatz.sim.fleet.policies.placement import Placer
from ersatz.sim.fleet.policies.registry import POLICIES
from ersatz.sim.fleet.workload.jobs import Workload
from ersatz.sim.fleet.workload.synthetic import at_load
from ersatz.sim.fleet.workload.traces import read_trace

DATA = Path(__file__).parent / "data" / "batsim"
MACHINES = make_cluster(make_pool("machine", 32, 1))


@pytest.mark.parametrize(("policy", "mean_wait"), [("easy", 9.516326), ("conservative", 9.852251)])
def test_batsim_and_batsched_start_every_job_at_the_same_time_on_the_same_machines(
    policy: str, mean_wait: float
) -> None:
    workload = read_trace(DATA / "medium_late.json.gz")
    log = run_fleet(FleetSpec(MACHINES, workload), POLICIES[policy](Placer()))
    with gzip.open(DATA / f"{policy}_out_jobs.csv.gz", "rt") as text:
        expected = {row["job_id"]: row for row in csv.DictReader(text)}
    assert len(expected) == 801
    starts = {r.job: r for r in log.records if r.event == "start"}
    for name, row in expected.items():
        assert starts[name].time_s == pytest.approx(float(row["starting_time"]), abs=1e-6)
        assert devices_text(MACHINES, starts[name].placement) == row["allocated_resources"]
    assert metrics(log)["wait_s"] == pytest.approx(mean_wait, abs=5e-7)
    assert max(r.end_s for r in job_table(log).values()) == pytest.approx(16088.51)
    assert judge(log).holds


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("policy", "mean_wait"), [("fifo", 5627.883), ("easy", 3500.4617), ("conservative", 3447.1275)]
)
def test_a_live_batsched_starts_every_job_of_a_log_that_nobody_tuned_on_as_we_do(
    policy: str, mean_wait: float
) -> None:
    fleet = make_cluster(make_pool("processor", 240, 1))
    workload = read_trace(DATA / "hpc2n_excerpt.csv.gz")
    log = run_fleet(FleetSpec(fleet, workload), POLICIES[policy](Placer()))
    with gzip.open(DATA / "hpc2n_batsched.csv.gz", "rt") as text:
        theirs = {row["job"]: row for row in csv.DictReader(text)}
    ours = {r.job: r for r in log.records if r.event == "start"}
    assert len(theirs) == len(ours) == 3145
    for name, row in theirs.items():
        assert ours[name].time_s == float(row[f"{policy}_s"])
        assert devices_text(fleet, ours[name].placement) == row[f"{policy}_on"]
    assert metrics(log)["wait_s"] == pytest.approx(mean_wait, abs=5e-4)


def crowded() -> Workload:
    """The first jobs of Batsim's workload, more than 32 machines can do."""
    return at_load(Workload(read_trace(DATA / "medium_late.json.gz").jobs[:160]), 32, 1.2)


def test_conservative_backfilling_looks_closely_at_few_jobs_and_at_all_that_could_move() -> None:
    """Whoever looks at every waiting job at every event books the same."""

    class LooksAtAll(ConservativeScheduler):
        def _next(self, at: int, moves: bool) -> int:
            return at if moves and at < len(self.lineup) else super()._next(at, moves)

    workload = crowded()
    logs = [run_fleet(FleetSpec(MACHINES, workload), policy(placer=Placer()))
            for policy in (ConservativeScheduler, LooksAtAll)]  # fmt: skip
    starts = [[(r.job, r.time_s, r.placement) for r in log.records if r.event == "start"]
              for log in logs]  # fmt: skip
    assert starts[0] == starts[1]


def test_jobs_behind_the_depth_of_conservative_backfilling_wait_without_a_promise() -> None:
    workload = crowded()
    log = run_fleet(FleetSpec(MACHINES, workload), ConservativeScheduler(placer=Placer(), depth=5))
    assert judge(log).holds
    waiting: set[str] = set()
    promised: set[str] = set()
    for r in log.records:
        if r.event == "submit":
            waiting.add(r.job)
        elif r.event == "reserve":
            promised.add(r.job)
        elif r.event == "start":
            waiting.discard(r.job)
            promised.discard(r.job)
        assert len(promised) <= 5
