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
from ersatz.sim.fleet.policies.placement import Placer
from ersatz.sim.fleet.policies.registry import POLICIES
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
