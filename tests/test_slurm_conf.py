"""A slurm.conf of the user's own: what of it decides who runs when, and what is refused or told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ersatz.sim.errors import InputError
from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.doors.slurm.config import Site, config_files
from ersatz.sim.fleet.doors.slurm.daemons import missing
from ersatz.sim.fleet.doors.slurm.given import Given, read_conf
from ersatz.sim.fleet.doors.slurm.replay import replay_on_slurm
from ersatz.sim.fleet.doors.slurm.submit import sbatch_arguments
from ersatz.sim.fleet.judge.validate import judge
from ersatz.sim.fleet.workload.jobs import Job, Workload
from tests.slurm_files import BY_PARTITION

FLEET = make_cluster(make_pool("h800", 3))
SITE = Site(Path("x"), 20000, "host", "me", speed=200.0)
NO_SLURM = missing(200.0, accounts=True)
CONF = f"""\
ClusterName=mine
NodeName=g[01-03] Gres=gpu:8 CPUs=128   # ours
PriorityType=priority/multifactor
PriorityWeightAge=1000
PriorityWeightFairshare=5000
{BY_PARTITION}PartitionName=train Nodes=g[01-03] PriorityTier=10 PreemptMode=off
PartitionName=spot Nodes=g[02-03] Default=YES PriorityTier=1 AllowGroups=all
"""


def given(folder: Path, text: str = CONF) -> Given:
    (folder / "slurm.conf").write_text(text)
    return read_conf(folder / "slurm.conf", FLEET)


def test_partitions_priorities_and_preemption_are_taken_over(tmp_path: Path) -> None:
    """g02 and g03 are the second and third node of the file, and so n1 and n2 of the fleet."""
    found = given(tmp_path)
    files = config_files(replace(SITE, given=found), FLEET, Workload((Job("a", 0, 8, 60.0),)))
    lines = files["slurm.conf"].splitlines()
    assert [line for line in lines if line.startswith("PartitionName")] == [
        "PartitionName=train Nodes=n[0-2] MaxTime=2-00:00:00 State=UP PriorityTier=10 PreemptMode=off",
        "PartitionName=spot Nodes=n[1-2] MaxTime=2-00:00:00 State=UP Default=YES PriorityTier=1",
    ]
    for line in (
        "PriorityType=priority/multifactor",
        "PriorityWeightAge=1000",
        "PreemptMode=REQUEUE",
    ):
        assert lines.count(line) == 1
    parameters = next(line for line in lines if line.startswith("SchedulerParameters="))
    assert parameters.startswith("SchedulerParameters=bf_window=2880,bf_max_job_test=7,")
    assert "bf_interval=30,bf_max_time=600" in parameters  # a budget: 0.15 s at 200 times the speed
    assert "Prolog" not in files["slurm.conf"]
    assert "ClusterName=mine" not in files["slurm.conf"]
    assert found.needs_base
    assert found.notes == (
        "slurm.conf: not carried over, as nodes are emulated: AllowGroups, ClusterName, Prolog",
    )
    assert "AccountingStorageType=accounting_storage/none" in lines  # no accounts were given


def test_names_have_no_case_and_the_last_of_one_counts(tmp_path: Path) -> None:
    """As in Slurm: a default's MaxTime and a partition's MAXTIME are one setting."""
    text = CONF.replace("PartitionName=train", "PARTITIONNAME=train MAXTIME=60")
    found = given(tmp_path, text + "PREEMPTMODE=SUSPEND\n")
    train = found.partitions[0]
    assert train["PartitionName"] == "train"
    assert [value for name, value in train.items() if name.lower() == "maxtime"] == ["60"]
    modes = [value for name, value in found.settings.items() if name.lower() == "preemptmode"]
    assert modes == ["SUSPEND"]


def test_jobs_go_to_the_partition_of_their_tenant_their_class_or_the_default(
    tmp_path: Path,
) -> None:
    found = given(tmp_path)
    jobs = (Job("a", 0, 8, 60.0, tenant="train"), Job("train-3", 0, 8, 60.0), Job("b", 0, 8, 60.0))
    assert [found.partition_of(job) for job in jobs] == ["train", "train", "spot"]
    assert "--partition=train" in sbatch_arguments(replace(SITE, given=found), FLEET, jobs[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("g[01-03] Gres", "g[01-04] Gres"), r"has 4 nodes, the fleet 3"),
        (("Nodes=g[02-03]", "Nodes=g[02-05]"), r"g04.*is no NodeName of the file"),
        (("PriorityWeightAge=1000", "PriorityWeightAge=$(id)"), r":4:1: .*holds signs"),
        (("ClusterName=mine", "Include other.conf"), r":1:1: .*name one whole file"),
        (("PartitionName=", "Partition="), r"names no partition"),
        (("g[01-03] Gres", "g[03-01] Gres"), r":2:1: .*is no list of nodes"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_over_is_refused_by_name(
    change: tuple[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        given(tmp_path, CONF.replace(*change))


@pytest.mark.slow
@pytest.mark.skipif(bool(NO_SLURM), reason=NO_SLURM)
def test_real_slurm_decides_by_the_file(tmp_path: Path) -> None:
    """A spot job stands in the way of two train jobs' nodes: it is requeued for them, and never on g01."""
    jobs = (Job("spot-0", 0.0, 16, 900.0, walltime_s=1200.0),
            Job("train-0", 120.0, 24, 300.0, walltime_s=600.0))  # fmt: skip
    log = replay_on_slurm(FLEET, Workload(jobs), speed=100.0, given=given(tmp_path))
    starts = [r for r in log.records if r.event == "start"]
    assert all(node in (1, 2) for r in starts if r.job == "spot-0" for node, _ in r.placement)
    assert [r.job for r in starts] == ["spot-0", "train-0", "spot-0"]
    assert [r.job for r in log.records if r.event == "preempt"] == ["spot-0"]
    assert judge(log).holds
