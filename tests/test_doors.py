"""One way to all doors: what each takes, and what it refuses."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ersatz.sim.errors import InputError
from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.doors.door import Door, at_rate, run_at_door
from ersatz.sim.fleet.doors.slurm.daemons import SlurmError, missing
from ersatz.sim.fleet.engine.fleet import FleetSpec
from ersatz.sim.fleet.engine.outages import Failures
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
    slow = Failures("node", 1e-3, 60.0, slowdown=0.5)
    with pytest.raises(InputError, match="slow nodes cannot be emulated"):
        run_at_door(replace(SPEC, outages=(slow,)), Door("slurm"))


@pytest.mark.skipif(not missing(200.0), reason="Slurm is installed")
def test_slurm_is_missing() -> None:
    with pytest.raises(SlurmError, match="not found; on Debian"):
        run_at_door(SPEC, Door("slurm"))


def test_jobs_for_slurm_last_as_long_as_on_their_type() -> None:
    # a PPU does half the work in a second: 200 s instead of 100, and a limit of 400
    (job,) = at_rate(FLEET, WORK, halved).jobs
    assert (job.duration_s, job.walltime_s) == (200.0, 400.0)
    anywhere = Workload((replace(WORK.jobs[0], types=()),), "w")
    with pytest.raises(InputError, match="depends on the accelerator type"):
        at_rate(FLEET, anywhere, halved)
