"""Real Slurm on emulated nodes: its files, its records, its end; and whole replays where it is installed."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from ersatz.sim.errors import InputError
from ersatz.sim.fleet.cluster import Cluster, FleetNode, make_cluster, make_pool
from ersatz.sim.fleet.doors.slurm import daemons, guard
from ersatz.sim.fleet.doors.slurm.carried import refuse_what_slurm_cannot
from ersatz.sim.fleet.doors.slurm.config import Site, config_files, limit_minutes
from ersatz.sim.fleet.doors.slurm.daemons import SlurmError, missing, running
from ersatz.sim.fleet.doors.slurm.records import (
    Completion,
    Submission,
    make_log,
    parse_taken,
    read_completions,
)
from ersatz.sim.fleet.doors.slurm.replay import replay_on_slurm
from ersatz.sim.fleet.doors.slurm.strikes import Strike, Struck, strikes
from ersatz.sim.fleet.doors.slurm.submit import (
    sbatch_arguments,
    seconds_file,
    seconds_text,
)
from ersatz.sim.fleet.engine.fleet import FleetSpec, RunEndedError, run_fleet
from ersatz.sim.fleet.engine.outages import Failures, Maintenance
from ersatz.sim.fleet.judge.logfile import log_text, parse_log
from ersatz.sim.fleet.judge.validate import judge
from ersatz.sim.fleet.log import Log, Quota, Rules
from ersatz.sim.fleet.policies.queue import QueueScheduler
from ersatz.sim.fleet.workload.jobs import Job, Workload

ROOT = Path(__file__).resolve().parents[1]
SITE = Site(Path("x"), 20000, "host", "me", speed=200.0, nodes=5, kinds=("h800", "ppu"))
FLEET = make_cluster(make_pool("h800", 3, nodes_per_leaf=2), make_pool("ppu", 2, 16))
WORK = Workload((Job("a", 0.0, 8, 100.0, walltime_s=120.0), Job("b", 5.0, 16, 50.0, priority=-3)))
NO_SLURM = missing(200.0)
needs_slurm = pytest.mark.skipif(bool(NO_SLURM), reason=NO_SLURM)


# -- configuration --------------------------------------------------------------------------------------


def test_files_of_a_fleet() -> None:
    files = config_files(SITE, FLEET, WORK)
    lines = files["slurm.conf"].splitlines()
    assert (
        "NodeName=n[0-2] NodeHostname=host NodeAddr=127.0.0.1 Port=[20001-20003] CPUs=256"
        in (files["slurm.conf"])
    )
    assert "Port=[20004-20005]" in files["slurm.conf"]
    assert "Feature=ppu Gres=gpu:ppu:16" in files["slurm.conf"]
    assert "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny" in lines  # loopback only
    assert "SlurmctldPort=20000" in lines
    # the lower priority is the lower tier
    assert [line.split()[0] for line in lines if line.startswith("PartitionName")] == [
        "PartitionName=m3", "PartitionName=p0",
    ]  # fmt: skip
    # 0.15 virtual seconds per unit of speed: every 30 s at 200; a minute's limit and a minute more
    assert (
        "bf_interval=30,bf_max_time=600,sched_interval=30,max_sched_time=300"
        in (files["slurm.conf"])
    )
    assert files["gres.conf"].splitlines() == [
        "NodeName=n[0-2] Name=gpu Type=h800 File=x/dev/gpu[0-7]",
        "NodeName=n[3-4] Name=gpu Type=ppu File=x/dev/gpu[0-15]",
    ]
    assert files["topology.conf"].splitlines() == [
        "SwitchName=leaf0 Nodes=n[0-1]", "SwitchName=leaf1 Nodes=n[2]",
        "SwitchName=leaf2 Nodes=n[3-4]", "SwitchName=spine Switches=leaf0,leaf1,leaf2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (Job("a", 0, 3, 1, types=("h800",)), "--nodes=1 --gres=gpu:h800:3 --constraint=h800"),
        (Job("a", 0, 16, 1, types=("h800",)), "--nodes=2 --gres=gpu:h800:8 --constraint=h800"),
        (Job("a", 0, 12, 1, types=("h800",)), "--nodes=2 --gpus=h800:12 --constraint=h800"),
        (Job("a", 0, 8, 1), "--nodes=1 --gres=gpu:8 --constraint=[h800|ppu]"),  # of one type
        # two nodes of h800, or one ppu
        (Job("a", 0, 16, 1, max_leaves=1),
         "--nodes=1-2 --gpus=16 --constraint=[h800|ppu] --switches=1@30-00:00:00"),
        # 32 of its 56 devices are ppu's: on those nodes alone, as Slurm spreads no range over leaves
        (Job("a", 0, 32, 1, max_leaves=2),
         "--nodes=2 --gres=gpu:16 --constraint=[h800|ppu] --switches=2@30-00:00:00"),
        (Job("a", 0, 8, 1, mixed=True), "--nodes=1 --gres=gpu:8 --constraint=h800|ppu"),
        (Job("a", 0, 32, 1, types=("ppu",), max_leaves=1),
         "--nodes=2 --gres=gpu:ppu:16 --constraint=ppu --switches=1@30-00:00:00"),
    ],
)  # fmt: skip
def test_what_a_job_asks_for(job: Job, words: str) -> None:
    assert words in " ".join(sbatch_arguments(SITE, FLEET, job))


def test_limits_leave_room_for_launching() -> None:
    # 120 s and 60 s for the launch are 3 minutes; without a limit twice the run time and an hour
    assert limit_minutes(WORK.jobs[0]) == 3
    assert limit_minutes(replace(WORK.jobs[0], walltime_s=float("inf"))) == -(
        -(200 + 3600 + 60) // 60
    )


def test_what_slurm_cannot_carry_is_said_at_once() -> None:
    jobs = Workload((Job("a", 0, 1, 1.0, milli=500), Job("b", 0, 8, 1.0, max_pods=1)), "w")
    with pytest.raises(InputError) as caught:
        refuse_what_slurm_cannot(Cluster((FleetNode("c", "cpu", 0),)), jobs, Rules(max_failures=3))
    text = str(caught.value)
    for words in (
        "no 'max_failures'",
        "shares of devices",
        "on pods",
        "(job b)",
        "without devices",
    ):
        assert words in text


def test_a_machine_without_slurm_is_told_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemons, "search_path", lambda: "/nowhere")
    assert "slurmctld, slurmd, sbatch, scontrol, munged, faketime not found" in missing(200.0)
    assert "apt-get install --no-install-recommends faketime munge" in missing(200.0)
    with pytest.raises(SlurmError, match="not found"):
        replay_on_slurm(FLEET, WORK)
    with pytest.raises(
        SlurmError, match=r"mariadbd, slurmdbd.* mariadb-server-core.* slurm-wlm-mysql-plugin"
    ):
        replay_on_slurm(FLEET, WORK, rules=Rules({"a": Quota(8, 8)}))


def test_a_job_sleeps_as_long_as_where_it_is_takes(tmp_path: Path) -> None:
    # n0 and n1 are one leaf, n2 another, n3 and n4 ppu's: on one leaf of h800 10 s, on two 15 s, on ppu 20 s
    job = Job("a", 0.0, 16, 10.0)
    rates = {("h800", 1): 1.0, ("h800", 2): 2 / 3, ("ppu", 1): 0.5}
    site = replace(SITE, folder=tmp_path)
    assert str(seconds_file(site, job)) in sbatch_arguments(site, FLEET, job, rates)
    assert "20.000" in sbatch_arguments(site, FLEET, job, {("ppu", 1): 0.5})
    assert "--switches=1@30-00:00:00" in sbatch_arguments(site, FLEET, replace(job, max_leaves=1))
    table = tmp_path / "table"
    table.write_text(seconds_text(job, rates))
    files = config_files(site, FLEET, WORK)
    for name in ("seconds.awk", "where"):
        (tmp_path / name).write_text(files[name])
    for got, seconds in (("n0", "10.000"), ("n[0-1]", "10.000"), ("n[1-2]", "15.000"), ("n[0,2]", "15.000"),
                         ("n[3-4]", "20.000"), ("n[2-4]", "20.000")):  # fmt: skip
        words = [
            "awk",
            "-v",
            f"got={got}",
            "-f",
            tmp_path / "seconds.awk",
            tmp_path / "where",
            table,
        ]
        assert subprocess.run(words, capture_output=True, text=True).stdout.strip() == seconds


# -- records ---------------------------------------------------------------------------------------------

SHOWN = (
    "JobId=2 JobName=j ReqNodeList=(null) NodeList=n[1-4] TRES=cpu=2   Nodes=n[1-2,4] CPU_IDs=0 Mem=0"
    " GRES=gpu:h800:8(IDX:0-7)   Nodes=n3 CPU_IDs=0-1 Mem=0 GRES=gpu:h800:3(IDX:0,2-3) MinCPUsNode=1"
)


def line(number: int, state: str, submit: str, start: str, end: str) -> str:
    day = "2026-01-01T00:"
    return (f"JobId={number} Name=x JobState={state} TimeLimit=5 StartTime={day}{start}"
            f" EndTime={day}{end} NodeList=n0 SubmitTime={day}{submit} ExitCode=0:0 \n")  # fmt: skip


ORIGIN = 1767225600.0  # 2026-01-01 00:00 UTC


def test_devices_of_a_job() -> None:
    assert parse_taken(SHOWN) == ((1, 255), (2, 255), (3, 0b1101), (4, 255))
    assert parse_taken("JobId=2 NodeList=n1") == ()


def test_an_unfinished_line_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "jobcomp.txt"
    assert read_completions(path, ORIGIN) == []
    path.write_text(line(7, "COMPLETED", "00:05", "00:07", "01:07") + "JobId=8 JobSta")
    assert read_completions(path, ORIGIN) == [Completion(7, "COMPLETED", 5.0, 7.0, 67.0, (0,))]
    path.write_text("JobId=8 rubbish\n")
    with pytest.raises(SlurmError, match="cannot be read"):
        read_completions(path, ORIGIN)


def test_a_log_by_hand(tmp_path: Path) -> None:
    # a runs 10-60 s for 40 s of work; b, on the same devices, starts in the second in which a ends,
    # loses its node at 100 s, starts over at 110 s and ends at 160 s; c is refused
    path = tmp_path / "jobcomp.txt"
    path.write_text(
        line(1, "COMPLETED", "00:01", "00:10", "01:00")
        + line(2, "NODE_FAIL", "00:02", "01:00", "01:40")
        + line(2, "COMPLETED", "00:02", "01:50", "02:40")
    )
    taken = " Nodes=n0 CPU_IDs=0 Mem=0 GRES=gpu:h800:8(IDX:0-7)"
    for name in ("1.0", "2.0", "2.1"):
        (tmp_path / name).write_text(taken)
    a, b, c = (Job(name, 0.0, 8, 40.0) for name in "abc")
    submissions = [
        Submission(a, 0.5, 1),
        Submission(b, 1.5, 2),
        Submission(c, 3.0, refused="sbatch: no"),
    ]
    log = make_log(FLEET, submissions, read_completions(path, ORIGIN), tmp_path, {"door": "slurm"})
    assert [(r.time_s, r.event, r.job) for r in log.records] == [
        (1.0, "submit", "a"), (2.0, "submit", "b"), (3.0, "submit", "c"), (3.0, "reject", "c"),
        (10.0, "start", "a"), (60.0, "finish", "a"), (60.0, "start", "b"), (100.0, "fail", "b"),
        (110.0, "start", "b"), (160.0, "finish", "b"), (160.0, "end", ""),
    ]  # fmt: skip
    assert log.records[4].value == pytest.approx(40 / 50)  # launching took 10 of 50 s
    assert log.records[5].value == 40.0
    assert log_text(parse_log(log_text(log))) == log_text(log)


def test_limits_and_preemptions_stand_before_the_judge(tmp_path: Path) -> None:
    # a, of 40 s, is ended at its limit of 20 s, which took Slurm 50 s; b makes way at 30 s, starts over
    path = tmp_path / "jobcomp.txt"
    path.write_text(
        line(1, "TIMEOUT", "00:01", "00:10", "01:00")
        + line(2, "PREEMPTED", "00:02", "00:10", "00:30")
        + line(2, "COMPLETED", "00:02", "01:00", "01:50")
        + line(3, "CANCELLED", "00:03", "01:00", "01:10")
        + line(4, "CANCELLED", "00:03", "00:00", "01:20").replace(
            "StartTime=2026-01-01T00:00:00", "StartTime=Unknown"
        )
    )
    for name, node in (("1.0", 0), ("2.0", 1), ("2.1", 0), ("3.0", 2)):
        (tmp_path / name).write_text(f" Nodes=n{node} CPU_IDs=0 Mem=0 GRES=gpu:h800:8(IDX:0-7)")
    a, b, c, d = (Job(name, 0.0, 8, 40.0, checkpoint_s=5.0) for name in "abcd")
    submissions = [Submission(replace(a, walltime_s=20.0), 1.0, 1), Submission(b, 2.0, 2),
                   Submission(c, 3.0, 3), Submission(d, 3.0, 4)]  # fmt: skip
    done = read_completions(path, ORIGIN)
    log = make_log(FLEET, submissions, done, tmp_path, {}, preempts=True)
    assert [(r.time_s, r.event, r.job) for r in log.records if r.event not in ("submit", "start")] == [
        (30.0, "preempt", "b"), (60.0, "timeout", "a"), (70.0, "fail", "c"), (70.0, "abandon", "c"),
        (80.0, "abandon", "d"), (110.0, "finish", "b"), (110.0, "end", ""),
    ]  # fmt: skip
    assert judge(log).holds, judge(log).first
    assert not judge(make_log(FLEET, submissions, done, tmp_path, {})).holds  # it claimed not to


def test_a_job_that_was_broken_off_before_it_could_tell_its_devices(tmp_path: Path) -> None:
    # on whole nodes they are known; on parts of one they are not, and it counts as not begun
    early = [
        Completion(1, "PREEMPTED", 0.0, 1.0, 3.0, (0,)),
        Completion(2, "PREEMPTED", 0.0, 1.0, 3.0, (1,)),
    ]
    jobs = [Submission(Job("a", 0.0, 8, 40.0), 0.0, 1), Submission(Job("b", 0.0, 4, 40.0), 0.0, 2)]
    log = make_log(FLEET, jobs, early, tmp_path, {}, preempts=True)
    assert [(r.event, r.job, r.placement) for r in log.records if r.event != "submit"] == [
        ("start", "a", ((0, 255),)), ("preempt", "a", ((0, 255),)), ("end", "", ()),
    ]  # fmt: skip


def test_a_job_that_hid_its_devices_is_an_error(tmp_path: Path) -> None:
    done = [Completion(1, "COMPLETED", 0.0, 1.0, 2.0)]
    with pytest.raises(SlurmError, match="no note of the devices"):
        make_log(FLEET, [Submission(WORK.jobs[0], 0.0, 1)], done, tmp_path, {})


def test_strikes_are_those_of_the_fleet() -> None:
    # node 1 is drained from 40 s and down from 100 to 150 s; failures come at the fleet's own times
    plan = Maintenance(100.0, 50.0, (1,), drain_s=60.0, cause="firmware")
    found = [(s.at_s, s.action, s.node) for s in strikes(FLEET, (plan,), 0)]
    assert found == [(40.0, "drain", 1), (100.0, "down", 1), (150.0, "up", 1),
                     (150.0, "undrain", 1)]  # fmt: skip
    *_, back, undrained = strikes(FLEET, (plan,), 0)  # one order does both
    assert (back.orders()[-1], undrained.orders()) == ("state=resume", [])
    assert next(strikes(FLEET, (plan,), 0)).orders() == [
        "update", "nodename=n1", "state=drain", "reason=firmware",
    ]  # fmt: skip
    failures = (Failures("node", 1e-4, 600.0),)
    log = run_fleet(FleetSpec(FLEET, WORK, outages=failures, seed=5, until_s=2e4), QueueScheduler())
    downs = [(r.time_s, r.node) for r in log.records if r.event == "down"]
    mine = [(s.at_s, s.node) for s in islice(strikes(FLEET, failures, 5), 99) if s.action == "down"]
    assert len(downs) > 3
    assert mine[: len(downs)] == downs


def test_a_lost_node_in_the_log(tmp_path: Path) -> None:
    # node 0 is taken down between 90 and 96 s; a, there and on node 1, ended with it at 94 s and starts
    # over at 200 s; node 2, where nothing ran, counts as down from 97 s; both are back at 150 s
    path = tmp_path / "jobcomp.txt"
    path.write_text(line(1, "NODE_FAIL", "00:01", "00:10", "01:34")
                    + line(1, "COMPLETED", "00:01", "03:20", "04:00"))  # fmt: skip
    for name in ("1.0", "1.1"):
        (tmp_path / name).write_text(" Nodes=n[0-1] CPU_IDs=0 Mem=0 GRES=gpu:h800:8(IDX:0-7)")
    struck = [Struck(Strike(90.0, "down", n, "node"), 90.0, 96.0) for n in (0, 2)]
    struck += [Struck(Strike(150.5, "up", n, "repair"), 150.0, 156.0) for n in (0, 2)]
    log = make_log(FLEET, [Submission(Job("a", 0.0, 16, 40.0), 1.0, 1)],
                   read_completions(path, ORIGIN), tmp_path, {}, struck=struck)  # fmt: skip
    assert [(r.time_s, r.event, r.node) for r in log.records] == [
        (1.0, "submit", -1), (10.0, "start", -1), (94.0, "down", 0), (94.0, "fail", 0),
        (97.0, "down", 2), (150.0, "up", 0), (150.0, "up", 2), (200.0, "start", -1),
        (240.0, "finish", -1), (240.0, "end", -1),
    ]  # fmt: skip
    assert judge(log).holds, judge(log).first


def test_a_job_whose_node_failed_before_it_started_waits_again(tmp_path: Path) -> None:
    # chosen at 11 s for a node that was gone: no start, no refusal; it runs from 20 to 60 s
    path = tmp_path / "jobcomp.txt"
    early = line(1, "NODE_FAIL", "00:01", "00:00", "00:11")
    path.write_text(early.replace("StartTime=2026-01-01T00:00:00", "StartTime=Unknown")
                    + line(1, "COMPLETED", "00:01", "00:20", "01:00"))  # fmt: skip
    (tmp_path / "1.1").write_text(" Nodes=n1 CPU_IDs=0 Mem=0 GRES=gpu:h800:8(IDX:0-7)")
    log = make_log(FLEET, [Submission(Job("a", 0.0, 8, 40.0), 1.0, 1)],
                   read_completions(path, ORIGIN), tmp_path, {})  # fmt: skip
    assert [r.event for r in log.records] == ["submit", "start", "finish", "end"]
    assert judge(log).holds, judge(log).first


# -- nothing is left ----------------------------------------------------------------------------------------


def _gone(mark: str, seconds: float = 10.0) -> bool:
    """Tell whether no process carries a mark in its environment any more."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not guard.members(mark):
            return True
        time.sleep(0.05)
    return False


def test_the_guard_clears_up_when_its_input_ends(tmp_path: Path) -> None:
    folder = tmp_path / "slurm"
    folder.mkdir()
    conf = f"{folder}/slurm.conf"
    env = {**os.environ, "SLURM_CONF": conf}
    stubborn = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 600 & wait; sleep 600"], env=env)
    other = subprocess.Popen(["sleep", "600"], env={**os.environ, "SLURM_CONF": conf + "2"})
    try:
        assert stubborn.pid in guard.members(conf)
        process = subprocess.Popen([sys.executable, guard.__file__, str(folder), "1.0"],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        assert process.stdout is not None
        assert b'"environment"' in process.stdout.readline()
        process.send_signal(signal.SIGINT)  # an interrupt is not its end
        process.communicate(timeout=20)
        assert stubborn.wait(5) == -signal.SIGKILL
        assert _gone(conf)
        assert not folder.exists()
        assert other.poll() is None  # somebody else's
    finally:
        other.kill()
        other.wait()
        stubborn.kill()
        stubborn.wait()


# -- with Slurm ------------------------------------------------------------

SMALL = Workload(tuple(
    Job(f"j{i}", 30.0 * i, size, 600.0, walltime_s=900.0)
    for i, size in enumerate([8, 16, 3, 12, 32, 5, 8, 16, 1, 32, 8, 8])
), "small")  # fmt: skip


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of this test alone for temporary files, reachable by munge's clients."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def judged(place: Path) -> Log:
    return replay_on_slurm(make_cluster(make_pool("h800", 4, nodes_per_leaf=2)), SMALL, speed=200.0)


@pytest.mark.slow
@needs_slurm
def test_a_small_replay(judged: Log, place: Path) -> None:
    assert sum(record.event == "finish" for record in judged.records) == len(SMALL.jobs)
    assert judge(judged).holds, judge(judged).first
    for record in judged.records:
        if record.event == "start":
            size = sum(mask.bit_count() for _, mask in record.placement)
            assert size == judged.jobs[record.job].devices
            # 600 s of work; launching on a busy machine may take 300 virtual seconds, 1.5 real ones
            assert 600 / 900 <= record.value <= 1.0
    assert all(0 <= judged.jobs[job.id].submit_s - job.submit_s <= 300 for job in SMALL.jobs)
    assert not list(place.iterdir())


@pytest.mark.slow
@needs_slurm
def test_a_replay_with_failing_nodes(place: Path) -> None:
    # node 0 fails under a gang of two: it is lost whole, comes back, and no rule is broken
    cluster = make_cluster(make_pool("h800", 3))
    outages = (Maintenance(300.0, 900.0, (0,), drain_s=0.0, cause="xid79"),)
    jobs = Workload((Job("gang", 0.0, 16, 600.0), Job("other", 10.0, 8, 900.0)), "w")
    log = replay_on_slurm(cluster, jobs, speed=100.0, outages=outages)
    events = [record.event for record in log.records]
    assert (events.count("down"), events.count("up"), events.count("finish")) == (1, 1, 2)
    assert [r.job for r in log.records if r.event == "fail"] == ["gang"]
    assert judge(log).holds, judge(log).first


@pytest.mark.slow
@needs_slurm
def test_a_job_waits_for_one_leaf_however_long(place: Path) -> None:
    """Of each leaf one node is away for 1,500 s: longer than the five minutes that Slurm waits by itself."""
    fleet = make_cluster(make_pool("h800", 4, nodes_per_leaf=2))
    jobs = Workload((Job("x", 60.0, 16, 100.0, max_leaves=1, walltime_s=600.0),), "w")
    away = Maintenance(1.0, 1500.0, (0, 2), cause="firmware")
    log = replay_on_slurm(fleet, jobs, speed=200.0, outages=(away,))
    (start,) = (r for r in log.records if r.event == "start")
    assert start.time_s >= 1500.0
    assert judge(log).holds, judge(log).first  # one leaf, and no drained node


@pytest.mark.slow
@needs_slurm
def test_a_job_that_can_never_run_is_rejected_with_slurms_words(place: Path) -> None:
    jobs = Workload((Job("fits", 0.0, 8, 60.0), Job("never", 1.0, 64, 60.0)), "w")
    log = replay_on_slurm(make_cluster(make_pool("h800", 2)), jobs, speed=100.0)
    rejected = [record for record in log.records if record.event == "reject"]
    assert [record.job for record in rejected] == ["never"]
    assert "sbatch" in rejected[0].detail
    assert sum(record.event == "finish" for record in log.records) == 1


@pytest.mark.slow
@needs_slurm
def test_a_dead_controller_ends_the_run_with_the_log_so_far(
    place: Path,
) -> None:
    killed = []

    def kill(_: str) -> None:
        if not killed:
            (pid,) = [p for p in members_in(place) if _name(p) == "slurmctld"]
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    jobs = Workload((Job("first", 0.0, 8, 30.0), Job("second", 0.0, 8, 3000.0)), "w")
    with pytest.raises(RunEndedError) as caught:
        replay_on_slurm(make_cluster(make_pool("h800", 1)), jobs, speed=100.0, advance=kill)
    assert "slurm" in str(caught.value)
    assert [r.event for r in caught.value.log.records][-1] == "end"
    assert [r.job for r in caught.value.log.records if r.event == "finish"] == ["first"]
    assert not list(place.iterdir())


def members_in(place: Path) -> list[int]:
    (folder,) = place.glob("ersatz-slurm-*")
    return guard.members(f"{folder}/slurm.conf")


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


@pytest.mark.slow
@needs_slurm
def test_nothing_is_left_when_ersatz_is_killed() -> None:
    code = ("from ersatz.sim.fleet.cluster import *; from ersatz.sim.fleet.workload.jobs import *\n"
            "from ersatz.sim.fleet.doors.slurm.daemons import running\nimport time\n"
            "with running(make_cluster(make_pool('h800', 2)), Workload(()), speed=50.0) as slurm:\n"
            "    print(slurm.site.folder, flush=True); time.sleep(600)")  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().decode().strip())
    assert len(guard.members(f"{folder}/slurm.conf")) >= 3  # a controller and two nodes
    process.kill()
    process.wait()
    assert _gone(f"{folder}/slurm.conf", 20.0)
    end = time.monotonic() + 10
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not folder.exists()


@pytest.mark.slow
@needs_slurm
def test_real_time_needs_no_fast_clock() -> None:
    with running(make_cluster(make_pool("h800", 1)), Workload(())) as slurm:
        assert "LD_PRELOAD" not in slurm.environment
        slurm.begin()
        assert abs(slurm.origin - time.time()) < 5
