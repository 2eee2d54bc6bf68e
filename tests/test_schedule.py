"""Figures from logs, comparisons, fleet files, pictures, and `ersatz schedule` as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as Xml
from pathlib import Path

import numpy as np
import pytest
from fleet_cases import mixed_case

from ersatz.sim.errors import InputError
from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.compare import COMPARED, compare, run_policy
from ersatz.sim.fleet.engine.fleet import FleetSpec, run_fleet
from ersatz.sim.fleet.engine.outages import Maintenance
from ersatz.sim.fleet.judge.metrics import DEFINITIONS, by_part, job_table, metrics, series
from ersatz.sim.fleet.judge.properties import PROPERTIES
from ersatz.sim.fleet.judge.validate import judge
from ersatz.sim.fleet.log import Quota, Rules
from ersatz.sim.fleet.policies.queue import QueueScheduler
from ersatz.sim.fleet.policies.registry import POLICIES, make_scheduler
from ersatz.sim.fleet.reading.contest import load_contest
from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.report.pictures.fleet_gantt import gantt
from ersatz.sim.report.pictures.fleet_plots import pictures

ROOT = Path(__file__).resolve().parents[1]


def hand() -> FleetSpec:
    """Two nodes of 8. a (8 devices, 100 s) loses its node at 50 with 40 s saved; the node is back at 60.

    b (8 devices, 20 s) comes at 10 and takes the other node until 30; a goes on there at 50, needs
    5 s of restart and 60 s of work, and ends at 115. c comes at 60, runs on the first node: 60 to 70.
    """
    jobs = (Job("a", 0, 8, 100, "t", checkpoint_s=20, restart_s=5), Job("b", 10, 8, 20, "u"),
            Job("c", 60, 4, 10, "u", deadline_s=65))  # fmt: skip
    return FleetSpec(make_cluster(make_pool("h800", 2)), Workload(jobs),
                     Rules({"t": Quota(8, 16), "u": Quota(8, 16)}),
                     outages=(Maintenance(50, 10, (0,)),))  # fmt: skip


def test_figures_by_hand() -> None:
    log = run_fleet(hand(), QueueScheduler())
    rows = job_table(log)
    assert [(r.first_start_s, r.end_s, r.attempts) for r in rows.values()] == [
        (0, 115, 2), (10, 30, 1), (60, 70, 1)]  # fmt: skip
    found = metrics(log)
    assert set(found) == set(DEFINITIONS)
    assert found["jobs"] == found["finished"] == 3
    assert found["wait_s"] == 0
    assert found["jct_s"] == pytest.approx((115 + 20 + 10) / 3)
    assert found["makespan_s"] == 115
    device_s = 8 * (50 + 65) + 8 * 20 + 4 * 10  # held: a twice, b, c
    assert found["device_hours"] == pytest.approx(device_s / 3600)
    assert found["allocated"] == pytest.approx(device_s / (16 * 115))
    lost = 8 * 10 + 8 * 5  # ten seconds since the checkpoint, five of restart
    assert found["lost_hours"] == pytest.approx(lost / 3600)
    assert found["goodput"] == pytest.approx(1 - lost / device_s)
    assert found["failures"] == pytest.approx(1 / 3)
    assert found["late"] == 1.0  # c is the only job with a deadline, and ends 5 s after it
    shares = [8 * 115 / 8, (8 * 20 + 4 * 10) / 8]  # device-seconds per device of quota
    assert found["jain"] == pytest.approx(sum(shares) ** 2 / (2 * sum(s * s for s in shares)))
    assert by_part(log, "tenant")["u"]["jct_s"] == pytest.approx(15)
    assert set(by_part(log, "type")) == {"h800"}


def test_series_by_hand() -> None:
    run = series(run_fleet(hand(), QueueScheduler()))
    held = dict(zip(run.times_s, run.held["h800"], strict=True))
    assert [held[t] for t in (0, 10, 30, 50, 60, 70, 115)] == [8, 16, 8, 8, 12, 8, 0]
    up = dict(zip(run.times_s, run.up["h800"], strict=True))
    assert (up[30], up[50], up[60]) == (16, 8, 16)
    # At 60 four devices are free on a node; of the three jobs, two ask for 8 of a node: two thirds
    # of the demand cannot use them.
    unusable = dict(zip(run.times_s, run.unusable, strict=True))
    assert unusable[60] == pytest.approx(2 / 3)


def test_littles_law_is_exact() -> None:
    """The area under the number of jobs in the system is the sum of their times in it."""
    log = run_fleet(mixed_case(3, 60), make_scheduler("las"))
    rows = job_table(log).values()
    events = sorted([(r.job.submit_s, 1) for r in rows] + [(r.end_s, -1) for r in rows])
    area, count, before = 0.0, 0, 0.0
    for time_s, change in events:
        area += count * (time_s - before)
        count, before = count + change, time_s
    assert area == pytest.approx(sum(r.jct_s for r in rows), rel=1e-12)
    # The same from the series that pictures are drawn from, for waiting and running jobs alike.
    run = series(log)
    steps = zip(run.times_s, run.times_s[1:], run.queue, strict=False)
    waiting = sum((b - a) * queue for a, b, queue in steps)
    held = sum(r.held_s for r in rows)
    assert waiting + held == pytest.approx(sum(r.jct_s for r in rows), rel=1e-9)


def test_comparison_on_common_random_numbers() -> None:
    specs = [mixed_case(seed, 40, breaking=False) for seed in (1, 2, 3)]
    outcomes = [
        [run_policy(p, s, make_scheduler, twice=True) for s in specs]
        for p in ("fifo", "fifo:leaf", "fill")
    ]
    for draw in range(3):  # the same jobs for all
        assert len({tuple(o[draw].log.jobs.values()) for o in outcomes}) == 1
    found = {(d.policy, d.metric): d for d in compare(outcomes)}
    assert set(found) == {(p, m) for p in ("fifo", "fifo:leaf", "fill") for m in COMPARED}
    same = found["fifo", "jct_s"]
    assert (same.change, same.low, same.high) == (0, 0, 0)
    # The logarithm of the ratio of means, each draw left out in turn (jackknife); t of two is 4.303.
    fill, fifo = (np.array([o.metrics["jct_s"] for o in outcomes[i]]) for i in (2, 0))
    logs = [np.log(np.delete(fill, i).mean() / np.delete(fifo, i).mean()) for i in range(3)]
    error = (2 / 3 * sum((x - sum(logs) / 3) ** 2 for x in logs)) ** 0.5
    ratio = fill.mean() / fifo.mean()
    assert found["fill", "jct_s"].change == pytest.approx(ratio - 1)
    assert found["fill", "jct_s"].low == pytest.approx(
        ratio * np.exp(-4.3027 * error) - 1, rel=1e-4
    )
    assert found["fill", "jct_s"].high == pytest.approx(
        ratio * np.exp(4.3027 * error) - 1, rel=1e-4
    )


def test_pictures_are_sound_and_always_the_same() -> None:
    runs = [run_policy(p, mixed_case(1, 40), make_scheduler) for p in ("fifo", "easy:leaf:any")]
    files = pictures(runs)
    assert {f for f in files if "." not in f.removesuffix(".svg")} == {
        "queue.svg", "fragmentation.svg", "completion.svg", "delay.svg"}  # fmt: skip
    assert {"fifo.gantt.svg", "fifo.use.svg", "easy:leaf:any.leaves.svg"} <= set(files)
    for text in files.values():
        Xml.fromstring(text)
    # A bar per attempt and stretch of neighbouring nodes that it has whole; a part of a node is one.
    nodes = runs[0].log.cluster.nodes
    bars = 0
    for r in runs[0].log.records:
        whole = {n for n, mask in r.placement if mask.bit_count() == nodes[n].devices}
        if r.event == "start":
            bars += len(r.placement) - len(whole) + sum(n - 1 not in whole for n in whole)
    assert files["fifo.gantt.svg"].count('class="job"') == bars
    end = max(o.log.end_s for o in runs)
    assert gantt(runs[0].log, "fifo", end) == files["fifo.gantt.svg"]  # one time axis for all
    assert files == pictures(runs)


SMALL = """# Who wins?
question: Who wins?
seed: 1
pools:
  - {name: h800, node: h800-8, nodes: 2}
  - {name: old, devices: 4, nodes: 2}
jobs:
  drawn:
    - {name: j, count: 12, devices: {1: 1, 8: 1}, every: 5 min, median: 20 min, limit: [1, 2], types: [h800]}
policies: [fifo, easy]
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_a_fleet_file_is_resolved(small: Path) -> None:
    contest = load_contest(small, ["failures.scale=3", "draws=2"])
    spec = contest.specs[0]
    assert [n.name for n in spec.cluster.nodes] == ["h800-0", "h800-1", "old-0", "old-1"]
    assert (spec.cluster.devices, len(spec.workload.jobs)) == (24, 12)
    assert {job.devices for job in spec.workload.jobs} == {1, 8}
    assert all(1 <= job.walltime_s / job.duration_s <= 2 for job in spec.workload.jobs)
    assert contest.specs[1].workload.jobs != spec.workload.jobs
    assert (
        load_contest(small).specs[0].workload.jobs == spec.workload.jobs
    )  # failures leave jobs alone
    assert any("old do not fail" in text for text in contest.assumptions)
    assert any("failures does not say: repair 2 days" in text for text in contest.assumptions)
    assert any("leaf switches do not fail: failures.leaf_rate" in a for a in contest.assumptions)
    slow = load_contest(small, ["failures.slow_rate=1 /year", "failures.repair=1 day"]).assumptions
    (said,) = [text for text in slow if "does not say" in text]
    assert "slow_repair 6 h" in said
    assert "slow_factor 0.8" in said
    assert {o.type for o in spec.outages} == {"h800"}  # type: ignore[union-attr]


def test_speeds_follow_from_the_step_engine(small: Path) -> None:
    step = (
        "{model: llama2-7b, training: {sequence_length: 4096, global_batch: 64}, parallel: {tp: 8}}"
    )
    text = SMALL.replace("types: [h800]}", f"step: {step}}}").replace("{1: 1, 8: 1}", "8")
    small.write_text(text.replace("{name: old, devices: 4,", "{name: 910b, node: ascend-910b2-8,"))
    spec = load_contest(small).specs[0]
    job = spec.workload.jobs[0]
    assert spec.speed(job, "h800", 8, 1, 1) == 1.0  # by definition: the first pool
    assert 0.2 < spec.speed(job, "910b", 8, 1, 1) < 0.8  # about a third of the peak


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("nodes: 2}", "nodes: 0}", "pools[0].nodes"),
        ("node: h800-8", "node: h8000-8", "did you mean"),
        ("devices: 4, ", "", "expected a node of the catalogue, or devices per node"),
        ("types: [h800]", "types: [mi300x]", "is no pool"),
        ("every: 5 min", "every: 5", "has no unit"),
        ("name: old", "name: h800", "stands twice"),
        ("count: 12", "cuont: 12", "did you mean 'count'"),
    ],
)
def test_faults_of_a_file_are_placed(small: Path, old: str, new: str, words: str) -> None:
    small.write_text(SMALL.replace(old, new))
    with pytest.raises(InputError) as found:
        load_contest(small)
    assert words in str(found.value)
    assert f"{small}:" in str(found.value)


def ersatz(*arguments: str, cwd: Path = ROOT, seed: str = "0") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return subprocess.run([sys.executable, "-m", "ersatz", *arguments], capture_output=True, text=True,
                          cwd=cwd, env=env, timeout=120)  # fmt: skip


@pytest.mark.heavy
def test_the_same_bytes_in_another_process(small: Path) -> None:
    names = ",".join(POLICIES)
    runs = []
    for seed in ("1", "2"):
        out = small.parent / seed
        done = ersatz("schedule", str(small), "--policy", names, "--out", str(out), seed=seed)
        assert (done.returncode, done.stderr) == (0, "")
        runs.append({p.name: p.read_bytes() for p in sorted(out.iterdir())})
    assert runs[0] == runs[1]
    assert {
        "fifo.log.csv",
        "fifo.jobs.csv",
        "fifo.gantt.svg",
        "schedule.json",
        "report.txt",
    } <= set(runs[0])


CRASHES = """
from ersatz.sim.fleet.log import Claims

class Scheduler:
    name, claims = "mine", Claims()
    def on_start(self, view): pass
    def on_event(self, now, events, view):
        if now > 600:
            raise KeyError("lost")
        return []
    def on_end(self, view): pass
"""


def test_a_scheduler_of_a_file_that_crashes_ends_with_reason_and_log(small: Path) -> None:
    (small.parent / "mine.py").write_text(CRASHES)
    out = small.parent / "o"
    done = ersatz(
        "schedule", str(small), "--policy", str(small.parent / "mine.py"), "--out", str(out)
    )
    assert done.returncode == 1
    assert "mine crashed: KeyError: 'lost'" in done.stderr
    assert "Traceback" not in done.stderr
    log = (out / "mine.log.csv").read_text()
    assert "(on_event, line 9)" in log.splitlines()[-1]
    assert ",submit," in log


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--policy", "fiffo"], "did you mean 'fifo'"),
        (["--policy", "easy:leef"], "did you mean 'leaf'"),
        (["--policy", "nowhere.py"], "there is no such file"),
        (["--policy", "x" * 300 + ".py"], "there is no such file"),
        (["--door", "window"], "expected one of process, batsim, slurm"),
        (["--door", "batsim"], "expected either a command"),
        (["--scheduler", "python x {endpoint}"], "expected together with --door batsim"),
        (["--door", "slurm", "--endpoint", "tcp://x"], "expected together with --door batsim"),
        (["--door", "slurm", "--twice"], "--twice: expected without --door"),
        (["--trace", "nowhere.csv"], "cannot be read"),
    ],
)
def test_bad_options_are_2(small: Path, options: list[str], words: str) -> None:
    done = ersatz("schedule", str(small), *options)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_wrong_name_is_told_before_a_scheduler_outside_is_started(small: Path) -> None:
    mark = small.parent / "started"
    command = f"sh -c 'touch {mark}' {{endpoint}}"
    options = ["--door", "batsim", "--scheduler", command]
    done = ersatz("schedule", str(small), *options, "--policy", "fiffo")
    assert (done.returncode, mark.exists()) == (2, False)
    done = ersatz("schedule", str(small), *options, "--policy", "fifo")
    assert (done.returncode, mark.exists()) == (1, True)


def test_json_holds_every_figure_and_finding(small: Path) -> None:
    data = json.loads(ersatz("schedule", str(small), "--json", "-", "--twice").stdout)
    draw = data["policies"][1]["draws"][0]
    assert set(draw["metrics"]) == set(data["definitions"])
    assert [f["number"] for f in draw["verdict"]] == list(PROPERTIES)
    assert {f["status"] for f in draw["verdict"] if f["number"] in (7, 11)} == {"holds"}


def test_the_scheduler_of_the_page_is_the_file_that_it_names_and_keeps_the_rules(
    small: Path,
) -> None:
    file = ROOT / "scenarios" / "schedulers" / "first_come.py"
    page = (ROOT / "docs" / "schedulers.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    assert (
        code.split("class Scheduler:")[1].strip()
        == file.read_text().split("class Scheduler:")[1].strip()
    )
    spec = load_contest(small).specs[0]
    ours = run_fleet(spec, make_scheduler("fifo:first-fit:any"))
    theirs = run_fleet(spec, make_scheduler(str(file)))
    assert theirs.records == ours.records
    assert judge(theirs).holds


@pytest.mark.heavy
def test_a_log_is_judged_on_its_own(small: Path) -> None:
    out = small.parent / "out"
    ersatz("schedule", str(small), "--policy", "fifo", "--out", str(out))
    log = out / "fifo.log.csv"
    done = ersatz("schedule", "--judge", str(log))
    assert (done.returncode, done.stderr) == (0, "")
    assert "fifo keeps the rules." in done.stdout
    lines = log.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if ",finish," in line)
    log.write_text("".join(lines[:at] + lines[at + 1 :]))
    done = ersatz("schedule", "--judge", str(log))
    assert done.returncode == 1
    assert "fifo breaks the rules" in done.stderr
    assert "RULE BROKEN, 3." in done.stdout
    assert ersatz("schedule").returncode == 2
    assert ersatz("schedule", str(small), "--judge", str(log)).returncode == 2
    assert ersatz("schedule", "--judge", str(small)).returncode == 2


def test_backfilling_without_limits_says_so(small: Path) -> None:
    text = small.read_text()
    assert "had no limits" not in ersatz("schedule", str(small), "--policy", "fifo").stdout
    small.write_text(text.replace(", limit: [1, 2]", ""))
    found = ersatz("schedule", str(small), "--policy", "easy").stdout
    assert "easy had no limits to work with" in " ".join(found.split())


def test_what_an_interruption_costs_is_never_nothing(small: Path) -> None:
    """Where a file is silent: 16 GB a device over at most 10 GB/s a node, and two minutes to start."""
    spec = load_contest(small).specs[0]
    for job in spec.workload.jobs:
        assert job.save_s > 0
        assert job.restart_s == pytest.approx(120 + job.save_s)
        assert job.save_s == pytest.approx(job.devices * 1.6)
