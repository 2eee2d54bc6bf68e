"""The fleet: its descriptions, its clock, and what it does with good and bad schedulers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ersatz.sim.errors import InputError
from ersatz.sim.fleet.cluster import (
    Cluster,
    FleetNode,
    devices_text,
    make_cluster,
    make_pool,
    parse_devices,
    placement_of,
    size_of,
)  # fmt: skip
from ersatz.sim.fleet.engine.fleet import FleetSpec, RunEndedError, run_fleet
from ersatz.sim.fleet.engine.outages import Failures, Maintenance
from ersatz.sim.fleet.judge.logfile import job_data, job_of, log_text, parse_log
from ersatz.sim.fleet.judge.validate import judge
from ersatz.sim.fleet.log import Claims, Log, Record, Rules
from ersatz.sim.fleet.policies.queue import QueueScheduler
from ersatz.sim.fleet.policies.registry import make_scheduler
from ersatz.sim.fleet.protocol import Decision, Preempt, Reject, Resize, Start, View, WakeAt
from ersatz.sim.fleet.workload.jobs import Job, Workload

SMALL = make_cluster(make_pool("h800", 2), make_pool("910b", 3, 4))  # devices 0-15, and 16-27


def starts(log: Log) -> dict[str, float]:
    """First start of each job."""
    found: dict[str, float] = {}
    for r in log.records:
        if r.event == "start":
            found.setdefault(r.job, r.time_s)
    return found


def of(log: Log, event: str) -> list[tuple[float, str, float]]:
    return [(r.time_s, r.job, r.value) for r in log.records if r.event == event]


# -- descriptions --------------------------------------------------------------------------------


def test_devices_are_numbered_node_after_node() -> None:
    assert SMALL.devices == 2 * 8 + 3 * 4
    assert SMALL.first == (0, 8, 16, 20, 24)
    assert [n.leaf for n in SMALL.nodes] == [0, 0, 1, 1, 1]  # pools have leaves of their own
    assert placement_of(SMALL, [7, 8, 27]) == ((0, 1 << 7), (1, 1), (4, 8))


@given(st.sets(st.integers(0, 27)))
def test_placements_are_written_and_read_back(numbers: set[int]) -> None:
    placement = placement_of(SMALL, numbers)
    assert size_of(placement) == len(numbers)
    assert parse_devices(SMALL, devices_text(SMALL, placement)) == placement


def test_placement_text() -> None:
    assert devices_text(SMALL, ((0, 0xFF), (1, 0b1011))) == "0-9 11"
    assert devices_text(SMALL, ((2, 0),)) == "@2"  # processors only
    assert parse_devices(SMALL, "@2 0-1") == ((0, 3), (2, 0))
    for bad in ("x", "28", "3-1", "0-99", "@5", "1 0-2"):
        with pytest.raises(ValueError, match=bad.split()[0]):
            parse_devices(SMALL, bad)


def test_impossible_descriptions() -> None:
    with pytest.raises(ValueError, match="stands twice"):
        Cluster((FleetNode("a", "h800", 8), FleetNode("a", "h800", 8)))
    with pytest.raises(ValueError, match="'7' stands twice"):
        Workload((Job("7", 0, 1, 1), Job("7", 1, 1, 1)))
    for bad in (dict(submit_s=-1), dict(duration_s=-1), dict(milli=0), dict(walltime_s=0),
                dict(min_devices=9), dict(devices=2, milli=500)):  # fmt: skip
        with pytest.raises(ValueError, match="job a"):
            Job(**{"id": "a", "submit_s": 0, "devices": 1, "duration_s": 1, **bad})


# -- the clock -----------------------------------------------------------------------------------


def test_first_come_first_served_by_hand() -> None:
    # 16 devices of h800. a takes 12 until 100; b wants 8 and waits, c wants 4 and may not overtake.
    # At 100 both start; b ends at 150, c at 110; d wants all 16 and starts when b is done.
    jobs = (Job("a", 0, 12, 100), Job("b", 10, 8, 50), Job("c", 20, 4, 10), Job("d", 30, 16, 5))
    cluster = make_cluster(make_pool("h800", 2))
    log = run_fleet(FleetSpec(cluster, Workload(jobs)), QueueScheduler())
    assert starts(log) == {"a": 0, "b": 100, "c": 100, "d": 150}
    assert log.end_s == 155
    assert [r.event for r in log.records[-2:]] == ["finish", "end"]


def test_order_within_an_instant() -> None:
    # At 10 s: a finishes, its node is taken down for maintenance, b arrives. It starts at 15.
    jobs = (Job("a", 0, 8, 10), Job("b", 10, 8, 1))
    spec = FleetSpec(make_cluster(make_pool("h800", 1)), Workload(jobs),
                     outages=(Maintenance(10, 5, (0,)),))  # fmt: skip
    log = run_fleet(spec, QueueScheduler())
    assert [r.event for r in log.records if r.time_s == 10] == ["finish", "drain", "down", "submit"]
    assert starts(log) == {"a": 0, "b": 15}


def test_a_failure_falls_back_to_the_checkpoint() -> None:
    # Work 100, saved every 30, restart 5. The node is down from 70 to 80: 60 are kept. From 80 on
    # 5 s of restart and 40 of work: done at 125.
    jobs = (Job("a", 0, 8, 100, checkpoint_s=30, restart_s=5),)
    spec = FleetSpec(make_cluster(make_pool("h800", 1)), Workload(jobs),
                     outages=(Maintenance(70, 10, (0,)),))  # fmt: skip
    log = run_fleet(spec, QueueScheduler())
    assert of(log, "fail") == [(70, "a", 60)]
    assert of(log, "finish") == [(125, "a", 100)]


def test_limits_end_attempts() -> None:
    jobs = (Job("a", 0, 1, 100, walltime_s=40), Job("b", 0, 1, 40, walltime_s=40))
    log = run_fleet(FleetSpec(SMALL, Workload(jobs)), QueueScheduler())
    assert of(log, "timeout") == [(40, "a", 40)]
    assert of(log, "finish") == [(40, "b", 40)]


def test_slow_nodes_slow_their_jobs() -> None:
    # Half speed from the first failure on, repaired after 10 s exactly: work lost is 5 s each time.
    failures = Failures("node", 1e-3, 10.0, repair="fixed", slowdown=0.5)
    spec = FleetSpec(make_cluster(make_pool("h800", 1)), Workload((Job("a", 0, 8, 1000),)),
                     outages=(failures,), seed=3)  # fmt: skip
    log = run_fleet(spec, QueueScheduler())
    slow = sum(r.event == "slow" and r.value < 1 for r in log.records)
    assert slow >= 1
    gaps = [b - a for a, b in zip([t for t, _, v in of(log, "slow") if v < 1],
                                  [t for t, _, v in of(log, "slow") if v == 1], strict=True)]  # fmt: skip
    assert of(log, "finish")[0][0] == pytest.approx(1000 + sum(gaps) / 2)


def test_dependencies_wait_and_fall_together() -> None:
    jobs = (Job("a", 0, 1, 10), Job("b", 1, 1, 10, after=("a",)),
            Job("c", 0, 1, 100, walltime_s=5), Job("d", 0, 1, 1, after=("c",)))  # fmt: skip
    log = run_fleet(FleetSpec(SMALL, Workload(jobs)), QueueScheduler())
    assert starts(log) == {"a": 0, "c": 0, "b": 10}
    assert [(r.time_s, r.job) for r in log.records if r.event == "reject"] == [(5, "d")]


def test_a_job_that_hangs_on_two_that_fall_falls_once() -> None:
    jobs = (Job("a", 0, 1, 100, walltime_s=5), Job("b", 1, 1, 10, after=("a",)),
            Job("c", 1, 1, 10, after=("a", "b")), Job("d", 1, 1, 10, after=("b", "a", "c")))  # fmt: skip
    log = run_fleet(FleetSpec(SMALL, Workload(jobs)), QueueScheduler())
    assert sorted(r.job for r in log.records if r.event == "reject") == ["b", "c", "d"]


def test_a_year_without_jobs_has_as_many_failures_as_its_rates_say() -> None:
    # 100 nodes x 8 devices x 0.5 per year: 400 expected; four standard deviations are 80.
    year = 365 * 86400.0
    spec = FleetSpec(make_cluster(make_pool("h800", 100)), Workload(()), until_s=year,
                     outages=(Failures("device", 0.5 / year, 3600.0),))  # fmt: skip
    log = run_fleet(spec, QueueScheduler())
    downs = sum(r.event == "down" for r in log.records)
    assert abs(downs - 400) < 80
    assert log.end_s == year


@pytest.mark.parametrize("policy", ["fifo", "easy", "conservative", "easy:leaf", "fifo:worst-fit"])
def test_a_mixed_gang_keeps_to_its_types(policy: str) -> None:
    # a may hold 910b and ppu together: it gets 16 of their 24 devices, though 16 of h800 come first.
    # b wants 12 of the 8 that are left, and waits until a ends at 10; c shares one of them at once.
    cluster = make_cluster(make_pool("h800", 2), make_pool("910b", 2, 4), make_pool("ppu", 2))
    jobs = (Job("a", 0, 16, 10, types=("910b", "ppu"), mixed=True, walltime_s=20),
            Job("c", 0, 1, 5, types=("910b", "ppu"), mixed=True, milli=500, walltime_s=5),
            Job("b", 1, 12, 10, types=("910b", "ppu"), mixed=True, walltime_s=20))  # fmt: skip
    log = run_fleet(FleetSpec(cluster, Workload(jobs)), make_scheduler(policy))
    assert starts(log) == {"a": 0, "b": 10, "c": 0}
    for record in log.records:
        assert all(node >= 2 for node, _ in record.placement)
    assert judge(log).holds, judge(log).first


def test_nobody_is_promised_a_node_that_is_drained() -> None:
    # Node 0 is drained from 20 on and down from 100 to 150. a leaves it at 50; c, which waits since 10,
    # is promised the end of b's limit on node 1 (200), and has node 0 when it is back.
    jobs = (Job("a", 0, 8, 50, walltime_s=60), Job("b", 0, 8, 190, walltime_s=200),
            Job("c", 10, 8, 5, walltime_s=8))  # fmt: skip
    spec = FleetSpec(make_cluster(make_pool("h800", 2)), Workload(jobs),
                     outages=(Maintenance(100, 50, (0,), drain_s=80),))  # fmt: skip
    log = run_fleet(spec, make_scheduler("conservative"))
    promised = [(r.time_s, r.value) for r in log.records if r.event == "reserve"]
    assert promised == [(10, 60), (20, 200), (100, 200)]  # told anew when node 0 goes
    assert starts(log) == {"a": 0, "b": 0, "c": 150}
    assert judge(log).holds, judge(log).first


# -- the log as text -----------------------------------------------------------------------------


def test_numbers_in_quotes_are_numbers_of_a_job() -> None:
    told = {
        "id": "a",
        "submit_s": 0,
        "devices": "8",
        "duration_s": "3",
        "deadline_s": "9",
        "types": ["x"],
    }
    job = job_of(told)
    assert (job.submit_s, job.devices, job.duration_s, job.deadline_s) == (0, 8, 3.0, 9.0)
    assert job_data(job) == {
        **told,
        "devices": 8,
        "duration_s": 3.0,
        "deadline_s": 9.0,
        "types": ("x",),
    }


def busy_log(seed: int = 0) -> Log:
    jobs = tuple(
        Job(str(i), 10.0 * i, (1, 4, 8)[i % 3], 7.0 * (i % 11), f"t{i % 2}", types=("h800",) * (i % 2),
            checkpoint_s=3, restart_s=1, after=(str(i - 1),) if i % 7 == 6 else ())
        for i in range(60)
    )  # fmt: skip
    spec = FleetSpec(SMALL, Workload(jobs), outages=(Failures("device", 1e-3, 20.0),), seed=seed)
    return run_fleet(spec, QueueScheduler())


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_logs_are_written_and_read_back(kind: str) -> None:
    log = busy_log()
    assert any(r.event == "fail" for r in log.records)
    text = log_text(log, kind)
    again = parse_log(text)
    assert again == log
    assert log_text(again, kind) == text
    assert log_text(busy_log(), kind) == text
    assert log_text(busy_log(1), kind) != text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.replace("submit", "submitt", 1), "log:3:1: unknown event"),
        (lambda s: s.replace("time_s", "time", 1), "expected time_s"),
        (lambda s: "", "is empty"),
        (lambda s: s.replace("910b-0", "nowhere", 1).replace(",h800-0,", ",nowhere-1,"), "no node"),
        (lambda s: s + "nan,up,,,,,\n", "is no number"),
        (lambda s: s + "1\n", "has 1 fields"),
        (
            lambda s: s.replace('""checkpoint_s"":3', f'""checkpoint_s"":{10**400}', 1),
            "at most 19 digits",
        ),
    ],
)
def test_malformed_logs_name_the_line(change: Callable[[str], str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_log(change(log_text(busy_log())))


# -- schedulers that misbehave -------------------------------------------------------------------


class Told:
    """A scheduler that does as told at each call."""

    name, claims = "told", Claims()

    def __init__(self, *acts: Callable[[View], Sequence[object]]) -> None:
        self.acts = list(acts)
        self.ended = False

    def on_start(self, view: View) -> None: ...

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        yield from self.acts.pop(0)(view) if self.acts else ()  # type: ignore[misc]

    def on_end(self, view: View) -> None:
        self.ended = True


def endless(view: View) -> Iterator[Decision]:
    while True:
        yield WakeAt(view.now)


def hang(view: View) -> list[Decision]:
    while True:
        pass


A = ((0, 0xFF),)


@pytest.mark.parametrize(
    ("acts", "words"),
    [
        ([lambda v: 1 / 0], "crashed: ZeroDivisionError"),
        ([hang], "hangs: no answer"),
        ([endless], "decisions at once"),
        ([lambda v: ["what"]], "nonsense: 'what'"),
        ([lambda v: [Start("z", A)]], "started job z, which does not wait"),
        ([lambda v: [Start("a", A), Start("a", A)]], "which is running already"),
        ([lambda v: [Start("a", A), Start("b", A)]], "no free device 0"),
        ([lambda v: [Start("a", ((0, 1),))]], "its gang takes 8"),
        ([lambda v: [Start("a", ((9, 255),))]], "unknown nodes"),
        ([lambda v: [Start("a", ((2, 255),))]], "no such devices"),
        ([lambda v: [Start("a", "x")]], "no list of"),  # type: ignore[arg-type]
        ([lambda v: [Preempt("a")]], "which does not run"),
        ([lambda v: [Resize("a", A)]], "which does not run"),
        ([lambda v: [Reject("z")]], "which does not wait"),
        ([lambda v: [WakeAt(-1.0)]], "in the past"),
        ([lambda v: [WakeAt(v.now)]] * 20_000, "without letting time pass"),
        ([], "starts nothing, but 2 jobs wait"),
        ([lambda v: 7], "crashed: TypeError"),
    ],
)  # fmt: skip
def test_misbehaviour_ends_the_run_with_reason_and_log(
    acts: list[Callable[[View], Sequence[object]]], words: str
) -> None:
    scheduler = Told(*acts)
    jobs = Workload((Job("a", 0, 8, 10), Job("b", 0, 8, 10)))
    with pytest.raises(RunEndedError, match=words) as found:
        run_fleet(FleetSpec(SMALL, jobs, decision_limit_s=0.1), scheduler)
    assert found.value.log.records[-1].event == "end"
    assert words in found.value.log.records[-1].detail
    assert [r.event for r in found.value.log.records[:2]] == ["submit", "submit"]
    assert scheduler.ended


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (dict(devices=29), "28 at most"),
        (dict(devices=17, types=("h800",)), "h800 together, the fleet has 16"),
        (dict(devices=16, max_nodes=1), "has 8 at most"),
        (dict(devices=1, types=("ppu",)), "there is none"),
        (dict(devices=1, memory_mib=1 << 61), "room for it"),
    ],
)  # fmt: skip
def test_a_job_that_can_never_run(job: dict[str, object], words: str) -> None:
    job = {"mixed": "types" not in job, "duration_s": 1, **job}
    workload = Workload((Job("a", 0, 1, 5), Job("b", 2, **job)))  # type: ignore[arg-type]
    with pytest.raises(RunEndedError, match=words) as found:
        run_fleet(FleetSpec(SMALL, workload), QueueScheduler())
    assert starts(found.value.log) == {"a": 0}


def test_preemption_after_grace_and_resize() -> None:
    # a runs from 0, gets notice at 10 and ends at 13 with 13 s of work; it starts again at 13 and is
    # doubled with notice at 20, when 23 s are done at 23: 77 left at twice the rate, 38.5 s.
    acts: list[Callable[[View], Sequence[object]]] = [
        lambda v: [Start("a", ((0, 0xF),)), WakeAt(10), WakeAt(20)],
        lambda v: [Preempt("a", for_job="b")],
        lambda v: [Start("a", ((0, 0xF),))],
        lambda v: [Resize("a", ((0, 0xFF),))],
    ]
    job = Job("a", 0, 4, 100, max_devices=8)
    log = run_fleet(FleetSpec(SMALL, Workload((job,)), Rules(grace_s=3)), Told(*acts))
    assert of(log, "notice") == [(10, "a", 13), (20, "a", 23)]
    assert of(log, "preempt") == [(13, "a", 13)]
    assert of(log, "resize") == [(23, "a", 23)]
    assert of(log, "finish") == [(61.5, "a", 100)]
