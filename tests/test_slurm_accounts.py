"""Slurm's data base: accounts of a file or of a fleet, and what a real Slurm makes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ersatz.sim.errors import InputError
from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.doors.door import Door, run_at_door
from ersatz.sim.fleet.doors.slurm.accounts import Accounts, accounts_of_fleet, read_accounts
from ersatz.sim.fleet.doors.slurm.base import orders, slurmdbd_conf
from ersatz.sim.fleet.doors.slurm.config import Site, config_files
from ersatz.sim.fleet.doors.slurm.daemons import missing
from ersatz.sim.fleet.doors.slurm.given import read_conf
from ersatz.sim.fleet.doors.slurm.submit import sbatch_arguments
from ersatz.sim.fleet.engine.fleet import FleetSpec
from ersatz.sim.fleet.judge.validate import judge
from ersatz.sim.fleet.log import Quota, Rules
from ersatz.sim.fleet.reading.contest import load_contest
from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.scenario.shipped import find_scenario
from tests.slurm_files import DUMP

FLEET = make_cluster(make_pool("h800", 2))
SITE = Site(Path("x"), 20000, "host", "me", speed=100.0, nodes=2, kinds=("h800",))
NO_SLURM = missing(200.0, accounts=True)
needs_slurm = pytest.mark.skipif(bool(NO_SLURM), reason=NO_SLURM)
CONF = """\
NodeName=g[1-2] Gres=gpu:8
PriorityType=priority/multifactor
PriorityWeightFairshare=100000
PriorityWeightQOS=1000000
AccountingStorageEnforce=associations,limits,qos,wckeys
PreemptType=preempt/qos
PreemptMode=REQUEUE
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE
"""
JOBS = Workload((
    *(Job(f"ann-{i}", 1.0 * i, 8, 600.0, "ann", walltime_s=900.0) for i in range(4)),
    Job("bob-0", 60.0, 8, 600.0, "bob", walltime_s=900.0),
    Job("urgent-0", 800.0, 8, 100.0, "light", walltime_s=600.0),
))  # fmt: skip


def accounts(folder: Path, text: str = DUMP) -> Accounts:
    (folder / "mine.assoc").write_text(text)
    return read_accounts(folder / "mine.assoc", FLEET, JOBS)


def test_a_dump_becomes_one_for_a_single_user(tmp_path: Path) -> None:
    found = accounts(tmp_path)
    assert found.dump("me").splitlines() == [
        "Cluster - 'ersatz':Fairshare='1':QOS='normal'", "Parent - 'root'",
        "User - 'me':DefaultAccount='root'",
        "Parent - 'root'", "Account - 'heavy':Fairshare='1':QOS='normal'", "Parent - 'heavy'", "User - 'me'",
        "Parent - 'root'", "Account - 'light':Fairshare='9':GrpTRES='gres/gpu=16':QOS='normal,urgent'",
        "Parent - 'light'", "User - 'me'",
        "Parent - 'heavy'", "Account - 'heavy.ann':Fairshare='1'", "Parent - 'heavy.ann'", "User - 'me'",
        "Parent - 'light'", "Account - 'light.bob':Fairshare='1'", "Parent - 'light.bob'", "User - 'me'",
    ]  # fmt: skip
    assert [words[2:] for words in orders(found, "FILE")] == [
        ["add", "qos", "urgent"], ["modify", "qos", "normal", "set", "Priority=0"],
        ["modify", "qos", "urgent", "set", "Priority=100", "Preempt=normal",
         "MaxTRESPerAccount=gres/gpu=16"],
        ["load", "file=FILE", "cluster=ersatz"],
    ]  # fmt: skip
    assert found.notes == (
        "mine.assoc: users stand as accounts of their own, ACCOUNT.USER, with their shares and limits",
        "mine.assoc: not carried over: cpu=",
    )


def test_jobs_run_in_the_account_of_their_tenant_and_the_qos_of_their_class(tmp_path: Path) -> None:
    found = accounts(tmp_path)
    words = [found.arguments(job) for job in (JOBS.jobs[0], JOBS.jobs[-1], Job("x", 0, 8, 1.0))]
    assert words == [
        ["--account=heavy.ann"],
        ["--account=light", "--qos=urgent"],
        ["--account=root"],
    ]
    assert "--account=heavy.ann" in sbatch_arguments(
        replace(SITE, accounts=found), FLEET, JOBS.jobs[0]
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("User - 'bob'", "User - bob\nRubbish"), r":13:1: .*is no line of a dump"),
        (("Parent - 'heavy'", "Parent - 'gone'"), r":9:1: .*is no account that stands above"),
        (("gres/gpu=16:QOS", "gres/gpu:a100=16:QOS"), r":8:1: .*limits gres/gpu:a100; the fleet has h800"),
        (("QOS - 'urgent'", "QOS - 'other'"), r"urgent.*add a line QOS - 'urgent':Priority"),
        (("User - 'bob'", "User - 'rob'"), r"bob.*is no account and no user of the file"),
        (("Account - 'light'", "Account - 'heavy'"), r":8:1: .*stands twice"),
        (("Fairshare=9", "Fairshare='$(id)'"), r":8:1: .*holds signs"),
        (("Account - 'light'", "Account - 'li ght'"), r":8:1: .*expected a name"),
    ],
)  # fmt: skip
def test_faults_of_a_dump_are_named(change: tuple[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        accounts(tmp_path, DUMP.replace(*change))


def test_quotas_are_limits_of_accounts() -> None:
    jobs = Workload((Job("a", 0, 8, 60.0, "Big"), Job("b", 0, 8, 60.0, "small")))
    found = accounts_of_fleet(jobs, {"Big": Quota(8, 16)})
    assert [(a.name, a.options) for a in found.accounts] == [
        ("big", {"Fairshare": "8", "GrpTRES": "gres/gpu=16"}), ("small", {}),
    ]  # fmt: skip
    site = replace(SITE, accounts=found)
    lines = config_files(site, FLEET, jobs)["slurm.conf"].splitlines()
    for line in ("AccountingStorageEnforce=associations,limits", "AccountingStoragePort=20003",
                 "AccountingStorageTRES=gres/gpu,gres/gpu:h800", "MessageTimeout=2000"):  # fmt: skip
        assert line in lines
    assert "DbdPort=20003" in slurmdbd_conf(site).splitlines()
    assert "DbdAddr=127.0.0.1" in slurmdbd_conf(site).splitlines()


def test_what_the_file_enforces_and_weighs_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text(CONF)
    given = read_conf(tmp_path / "slurm.conf", FLEET)
    site = replace(SITE, given=given, accounts=accounts(tmp_path))
    lines = config_files(site, FLEET, JOBS)["slurm.conf"].splitlines()
    for line in ("AccountingStorageEnforce=associations,limits,qos", "PriorityWeightFairshare=100000",
                 "PriorityWeightQOS=1000000", "PreemptType=preempt/qos"):  # fmt: skip
        assert lines.count(line) == 1


@pytest.mark.slow
@needs_slurm
def test_real_slurm_shares_fairly_and_preempts_by_qos(tmp_path: Path) -> None:
    """ann holds both nodes; bob's late job passes hers, as his account is light; urgent takes a node."""
    (tmp_path / "slurm.conf").write_text(CONF)
    (tmp_path / "mine.assoc").write_text(DUMP)
    door = Door(
        "slurm", speed=100.0, conf=str(tmp_path / "slurm.conf"), assoc=str(tmp_path / "mine.assoc")
    )
    log = run_at_door(FleetSpec(FLEET, JOBS), door)
    starts = [r.job for r in log.records if r.event == "start"]
    assert starts[:2] == ["ann-0", "ann-1"]
    assert "bob-0" in starts[2:4]
    (urgent,) = (r for r in log.records if r.event == "start" and r.job == "urgent-0")
    (preempted,) = (r for r in log.records if r.event == "preempt")
    assert preempted.job.startswith("ann-")
    assert preempted.time_s <= urgent.time_s
    assert sum(r.event == "finish" for r in log.records) == len(JOBS.jobs)
    assert judge(log).holds, judge(log).first


@pytest.mark.slow
@needs_slurm
def test_the_flagship_runs_on_real_slurm() -> None:
    """Four kinds of accelerators, tenants with limits, several leaves; fewer and shorter jobs."""
    fewer = [f"jobs.drawn.{i}.{key}" for i, count in enumerate((1, 3, 8)) for key in
             (f"count={count}", "every=2 min", "median=10 min")]  # fmt: skip
    (spec,) = load_contest(find_scenario("four-pools"), [*fewer, "draws=1"]).specs
    log = run_at_door(spec, Door("slurm", speed=300.0))
    assert sum(r.event == "finish" for r in log.records) == 12
    assert log.rules.quotas == spec.rules.quotas
    assert judge(log).holds, judge(log).first
    for r in log.records:
        if r.event == "start":
            kinds = {spec.cluster.nodes[node].type for node, _ in r.placement}
            leaves = {spec.cluster.nodes[node].leaf for node, _ in r.placement}
            (kind,) = kinds  # one type, and as fast as it runs there, but for launching
            rate = spec.speed(log.jobs[r.job], kind, log.jobs[r.job].devices, 1, len(leaves))
            work = log.jobs[r.job].duration_s
            assert work / (work / rate + 300.0) <= r.value <= 1.02 * rate


@pytest.mark.slow
@needs_slurm
def test_real_slurm_keeps_a_tenant_to_its_limit() -> None:
    """Of three nodes the first tenant may hold two: its third job waits beside an idle node."""
    fleet = make_cluster(make_pool("h800", 3))
    jobs = Workload((
        *(Job(f"a-{i}", 1.0 * i, 8, 300.0, "A", walltime_s=600.0) for i in range(3)),
        Job("b-0", 200.0, 8, 300.0, "b", walltime_s=600.0),
    ))  # fmt: skip
    log = run_at_door(
        FleetSpec(fleet, jobs, Rules({"A": Quota(8, 16)})), Door("slurm", speed=100.0)
    )
    order = [r.job for r in log.records if r.event == "start"]
    assert order == ["a-0", "a-1", "b-0", "a-2"]
    assert judge(log).holds, judge(log).first
