"""One way to all doors: what each takes, and what it refuses."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ersatz.sim.errors import InputError
from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.doors.door import Door, run_at_door, told_to_slurm
from ersatz.sim.fleet.doors.slurm.daemons import SlurmError, missing
from ersatz.sim.fleet.engine.fleet import FleetSpec
from ersatz.sim.fleet.engine.outages import Failures
from ersatz.sim.fleet.log import Quota, Rules
from ersatz.sim.fleet.workload.jobs import Job, Workload

ROOT = Path(__file__).resolve().parents[1]
FLEET = make_cluster(make_pool("h800", 1), make_pool("ppu", 1))
WORK = Workload((Job("a", 0.0, 8, 100.0, types=("ppu",), walltime_s=200.0),), "w")
SPEC = FleetSpec(FLEET, WORK)


def halved(job: Job, kind: str, devices: int, nodes: int, leaves: int) -> float:
    return 0.5 if kind == "ppu" else 1.0


def test_the_batsim_door_runs_the_example() -> None:
    pytest.importorskip("zmq")
    command = f"{sys.executable} {ROOT}/scenarios/schedulers/easy.py {{endpoint}}"
    log = run_at_door(SPEC, Door("batsim", scheduler=command))
    assert [(r.time_s, r.event) for r in log.records] == [
        (0.0, "submit"), (0.0, "start"), (100.0, "finish"), (100.0, "end"),
    ]  # fmt: skip
    assert (log.about["door"], log.about["policy"]) == ("batsim", "easy")


def test_doors_say_what_they_cannot_do() -> None:
    for door, words in (
        (Door("batsim"), "either a command"), (Door("batsim", scheduler="python x.py"), "lacks"),
        (Door("slurm", speed=0.5), "expected 1"), (Door("slurm", speed=1e6), "expected 1"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            run_at_door(SPEC, door)


@pytest.mark.skipif(not missing(200.0), reason="Slurm is installed")
def test_slurm_is_missing() -> None:
    with pytest.raises(SlurmError, match="not found; on Debian"):
        run_at_door(SPEC, Door("slurm"))


def test_jobs_for_slurm_last_as_long_as_where_they_run() -> None:
    # a PPU does half the work in a second: 200 s instead of 100; the one limit is that on the slower, 400
    spec = replace(SPEC, speed=halved)
    (rates,) = told_to_slurm(spec, Door("slurm")).carried.rates.values()
    assert rates == {("ppu", 1): 0.5}
    anywhere = replace(spec, workload=Workload((replace(WORK.jobs[0], types=()),), "w"))
    told = told_to_slurm(anywhere, Door("slurm")).carried
    assert told.rates["a"] == {("h800", 1): 1.0, ("ppu", 1): 0.5}
    assert told.notes == ("slurm: the one limit of each of 1 jobs is that on its slowest type",)
    ends = replace(WORK.jobs[0], types=(), walltime_s=50.0)  # at 50 s of work, wherever it runs
    with pytest.raises(InputError, match="ends at its limit, which differs between the types"):
        told_to_slurm(replace(spec, workload=Workload((ends,), "w")), Door("slurm"))


def test_a_type_on_which_a_job_does_not_run_is_not_asked_for() -> None:
    def never(job: Job, kind: str, devices: int, nodes: int, leaves: int) -> float:
        return 0.0 if kind == "ppu" else 2.0

    anywhere = Workload((replace(WORK.jobs[0], types=()),), "w")
    told = told_to_slurm(replace(SPEC, workload=anywhere, speed=never), Door("slurm")).carried
    assert told.workload.jobs[0].types == ("h800",)
    with pytest.raises(InputError, match="runs on none of the types"):
        told_to_slurm(replace(SPEC, speed=never), Door("slurm"))


def test_what_slurm_is_told_otherwise_is_said() -> None:
    slow = Failures("node", 1e-3, 60.0, slowdown=0.5)
    fails = Failures("node", 1e-3, 60.0)
    elastic = Workload((replace(WORK.jobs[0], min_devices=4, checkpoint_s=60.0, tenant="a"),), "w")
    spec = replace(SPEC, workload=elastic, outages=(slow, fails), rules=Rules({"a": Quota(8, 8)}))
    told = told_to_slurm(spec, Door("slurm"))
    assert told.carried.outages == (fails,)
    assert told.carried.workload.jobs[0].least == 8
    for words, note in zip(
        ("1 elastic jobs run at the size", "do not become slow", "start over", "GrpTRES"),
        told.notes,
        strict=True,
    ):
        assert words in note
