"""The validator: right schedulers pass, every wrong one is caught, and so is every forged log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from fleet_cases import MIXED, mixed_case

from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.engine.fleet import FleetSpec, RunEndedError, run_fleet
from ersatz.sim.fleet.engine.outages import Maintenance
from ersatz.sim.fleet.judge.validate import PROPERTIES, judge
from ersatz.sim.fleet.log import Claims, Log, Quota, Record, Rules
from ersatz.sim.fleet.policies.backfill import EasyScheduler
from ersatz.sim.fleet.policies.placement import Placer, best_fit, first_fit
from ersatz.sim.fleet.policies.preempt import PreemptiveScheduler, PriorityScheduler
from ersatz.sim.fleet.policies.queue import FillScheduler, QueueScheduler
from ersatz.sim.fleet.policies.registry import POLICIES, make_scheduler
from ersatz.sim.fleet.protocol import Attempt, Decision, Preempt, Scheduler, Start, View
from ersatz.sim.fleet.workload.jobs import Job, Workload


def run(spec: FleetSpec, scheduler: Scheduler) -> Log:
    """The log, however the run ends."""
    try:
        return run_fleet(spec, scheduler)
    except RunEndedError as ended:
        return ended.log


def broken(log: Log, **others: Log) -> set[int]:
    return {f.number for f in judge(log, **others).findings if f.status == "violated"}


@pytest.mark.heavy
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("grace_s", [0.0, 60.0])
def test_built_in_schedulers_break_nothing(policy: str, grace_s: float) -> None:
    for seed in (1, 2):
        spec = mixed_case(seed, grace_s=grace_s)
        log = run_fleet(spec, make_scheduler(policy))
        verdict = judge(log, again=run_fleet(spec, make_scheduler(policy)))
        assert verdict.holds, verdict.first
        assert {f.number for f in verdict.findings} == set(PROPERTIES)


# -- schedulers that are wrong on purpose ----------------------------------------------------------


class Oversubscribes(QueueScheduler):
    """Gives every job the first devices, held or not."""

    def start_in_order(self, view: View) -> Iterator[Decision]:
        for name in list(view.waiting):
            job = view.waiting[name]
            yield self.start(job, ((0, (1 << min(job.devices, 8)) - 1),))


class SplitsGangs(QueueScheduler):
    """Starts with the devices that happen to be free."""

    def start_in_order(self, view: View) -> Iterator[Decision]:
        for name in list(view.waiting):
            job = view.waiting[name]
            part = replace(job, devices=max(job.devices // 2, 1), min_devices=0)
            if placement := self.placer.find(view, part):
                yield self.start(job, placement)


class UsesDownNodes(QueueScheduler):
    """Waits for a node to go down and starts there."""

    def start_in_order(self, view: View) -> Iterator[Decision]:
        if view.free.closed:
            for name in list(view.waiting):
                job = view.waiting[name]
                yield self.start(job, ((min(view.free.closed), (1 << job.devices) - 1),))


class ActsTooEarly(QueueScheduler):
    """Starts a job of which it has only heard."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        for record in events:
            if record.event == "submit" and record.job not in view.waiting:
                yield Start(record.job, ((int(record.job) % 8, 1),))


def anywhere(view: View, job: Job) -> Sequence[str]:
    return view.cluster.types[::-1]


class IgnoresPromises(EasyScheduler):
    """Promises the head its start, and lets everybody overtake."""

    def _overtake(self, view: View, now: float, head: Job, only: object) -> Iterator[Decision]:
        for _, _, name in self.queue[::-1]:
            job = view.waiting[name]
            if name != head.id and (placement := self.placer.find(view, job)):
                yield self.start(job, placement)


class Starves(QueueScheduler):
    """Never starts a certain job."""

    def enqueue(self, view: View) -> None:
        super().enqueue(view)
        self.queue = [entry for entry in self.queue if entry[2] != "3"]


class EvictsTheUrgent(PriorityScheduler):
    """Prefers low priority, and says otherwise."""

    strict = False

    def rank(self, view: View, job: Job) -> tuple[float, ...]:
        return (job.priority, job.submit_s)

    def may_evict(self, view: View, job: Job, victim: Attempt) -> bool:
        return victim.job.priority > job.priority


class BreaksItsWord(PreemptiveScheduler):
    """Preempts, and claims that it never does."""

    strict = False

    def __init__(self) -> None:
        super().__init__()
        self.claims = Claims()

    def rank(self, view: View, job: Job) -> tuple[float, ...]:
        return (job.priority, job.submit_s)

    def may_evict(self, view: View, job: Job, victim: Attempt) -> bool:
        return victim.job.priority > job.priority


class Idles(QueueScheduler):
    """Claims never to let a device idle beside a job, and keeps strict order."""

    def __init__(self) -> None:
        super().__init__("idles")
        self.claims = Claims(work_conserving=True)


class IsSlow(QueueScheduler):
    """Claims that nobody waits longer than a minute."""

    def __init__(self) -> None:
        super().__init__("slow")
        self.claims = Claims(max_wait_s=60.0)


class LendsForEver(FillScheduler):
    """Claims to call loans back, and does not."""

    def __init__(self) -> None:
        super().__init__("lends")
        self.claims = Claims(reclaim_s=60.0)


def no_limits(view: View, job: Job, beside: int = 0) -> bool:
    return True


class IgnoresLeaves(QueueScheduler):
    """Spreads jobs over leaves whatever they ask for."""

    def start_in_order(self, view: View) -> Iterator[Decision]:
        for name in list(view.waiting):
            job = view.waiting[name]
            free = replace(job, max_leaves=0)
            if self.admit(view, job, 0) and (placement := self.placer.find(view, free)):
                yield self.start(job, placement)


@pytest.mark.parametrize(
    ("make", "number", "breaking"),
    [
        (Oversubscribes, 1, False),
        (SplitsGangs, 2, False),
        (Starves, 8, False),
        (ActsTooEarly, 4, False),
        (lambda: QueueScheduler("t", Placer(best_fit, anywhere)), 5, False),
        (IgnoresLeaves, 5, False),
        (lambda: FillScheduler("quota", admit=no_limits), 6, False),
        (LendsForEver, 6, False),
        (IgnoresPromises, 7, False),
        (IsSlow, 8, False),
        (EvictsTheUrgent, 9, False),
        (BreaksItsWord, 9, False),
        (UsesDownNodes, 10, True),
        (Idles, 12, False),
    ],
)
def test_every_wrong_scheduler_is_caught(
    make: Callable[[], Scheduler], number: int, breaking: bool
) -> None:
    log = run(mixed_case(5, 200, breaking=breaking), make())
    verdict = judge(log)
    assert number in broken(log)
    finding = next(f for f in verdict.findings if f.number == number)
    assert finding.why
    assert finding.context[-1].startswith(f"{log.records[finding.first].time_s:.3f} s")


def test_a_run_that_differs_is_not_deterministic() -> None:
    class Moody(QueueScheduler):
        """Remembers earlier runs in the class."""

        runs = 0

        def on_start(self, view: View) -> None:
            Moody.runs += 1
            place = (first_fit, best_fit)[Moody.runs % 2]
            self.placer = Placer(place, anywhere if Moody.runs % 2 else self.placer.kinds)

    spec = mixed_case(1, breaking=False)
    assert 11 in broken(run(spec, Moody()), again=run(spec, Moody()))


def test_another_door_must_give_the_same_log() -> None:
    spec = mixed_case(1)
    one, other = run(spec, QueueScheduler("p")), run(spec, FillScheduler("p"))
    assert 13 not in broken(one, twin=run(spec, QueueScheduler("p")))
    assert 13 in broken(one, twin=other)


# -- logs that were tampered with --------------------------------------------------------------------


def hand_log() -> Log:
    """Two jobs on two nodes of 8; node 0 is lost at 50, when a has saved 40 of its 100 s."""
    jobs = (Job("a", 0, 8, 100, "t", checkpoint_s=20, walltime_s=500), Job("b", 10, 8, 20, "u"))
    spec = FleetSpec(make_cluster(make_pool("h800", 2)), Workload(jobs), Rules({"t": Quota(8, 8)}),
                     outages=(Maintenance(50, 10, (0,)),))  # fmt: skip
    return run_fleet(spec, QueueScheduler())


def first(log: Log, event: str, job: str = "") -> int:
    return next(i for i, r in enumerate(log.records) if r.event == event and job in ("", r.job))


def change(event: str, job: str = "", **fields: object) -> Callable[[Log], None]:
    def act(log: Log) -> None:
        at = first(log, event, job)
        log.records[at] = log.records[at]._replace(**fields)  # type: ignore[arg-type]

    return act


def remove(event: str, job: str = "") -> Callable[[Log], None]:
    return lambda log: log.records.pop(first(log, event, job)) and None


def repeat(event: str, job: str = "") -> Callable[[Log], None]:
    def act(log: Log) -> None:
        at = first(log, event, job)
        log.records.insert(at, log.records[at])

    return act


def add(*records: Record) -> Callable[[Log], None]:
    def act(log: Log) -> None:
        log.records[:] = sorted([*log.records, *records], key=lambda r: r.time_s)

    return act


def test_the_log_by_hand_is_sound() -> None:
    assert judge(hand_log()).holds


@pytest.mark.parametrize(
    ("forge", "number"),
    [
        (change("start", "b", placement=((0, 255),)), 1),  # a's devices
        (change("start", "b", placement=((1, 511),)), 1),  # a ninth device
        (change("start", "b", placement=((1, 127),)), 2),  # a gang of seven
        (remove("fail"), 2),  # a runs on after its node is lost
        (change("finish", "b", placement=((1, 127),)), 2),  # gives back seven of eight
        (remove("finish", "b"), 3),
        (repeat("finish", "b"), 3),
        (repeat("submit", "b"), 3),
        (repeat("start", "b"), 3),
        (change("finish", "b", value=19.0), 3),  # a second of work is missing
        (change("start", "b", value=0.5), 3),  # 10 s of work at this rate, not 20
        (change("start", "b", time_s=9.0), 4),  # before b was submitted; time runs back
        (remove("submit", "b"), 4),
        (change("fail", value=0.0), 9),  # fell back behind its checkpoint
        (change("fail", value=48.0), 9),  # kept what was not saved
        (add(Record(20.0, "preempt", "b", ((1, 255),), value=10.0, detail="checkpoint")), 9),
        (add(Record(55.0, "up", node=1)), 10),
        (add(Record(55.0, "down", node=0)), 10),
        (add(Record(5.0, "drain", node=1)), 10),  # b starts there at 10
        (change("submit", "b", time_s=50.0), 4),
    ],
)
def test_forged_logs_are_caught(forge: Callable[[Log], None], number: int) -> None:
    log = hand_log()
    forge(log)
    assert number in broken(log)


def test_reservations_that_are_put_off() -> None:
    log = hand_log()
    log.claims = Claims(backfill="easy")
    at = first(log, "start", "b")
    log.records.insert(at, Record(10.0, "reserve", "b", value=10.0))
    assert judge(log).holds
    log.records[at] = Record(0.0, "reserve", "b", value=5.0)
    log.records.sort(key=lambda r: r.time_s)
    assert 7 in broken(log)


def test_simultaneous_events_have_an_order() -> None:
    log = hand_log()
    log.jobs["c"] = Job("c", 50, 1, 1)
    log.records.insert(first(log, "down"), Record(50.0, "submit", "c"))
    assert 11 in broken(log)


def test_a_gang_that_is_shared_out_twice() -> None:
    jobs = (
        Job("a", 0, 1, 10, milli=600),
        Job("b", 0, 1, 10, milli=400),
        Job("c", 0, 1, 10, milli=500),
    )
    spec = FleetSpec(MIXED, Workload(jobs))
    log = run_fleet(spec, QueueScheduler())
    starts = {r.job: r.placement for r in log.records if r.event == "start"}
    assert starts["a"] == starts["b"] != starts["c"]  # 600 + 400 make one device
    assert judge(log).holds
    at = first(log, "start", "c")
    log.records[at] = log.records[at]._replace(placement=starts["a"])
    log.records[first(log, "finish", "c")] = log.records[first(log, "finish", "c")]._replace(
        placement=starts["a"])  # fmt: skip
    assert 1 in broken(log)


def test_preempting_without_notice() -> None:
    class Rude(QueueScheduler):
        """Preempts the first running job once."""

        def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
            yield from super().on_event(now, events, view)
            if now >= 10 and self.claims.preempts == "never":
                self.claims = Claims(preempts="any")
                yield Preempt(next(iter(view.running)))

    jobs = Workload((Job("a", 0, 8, 100), Job("b", 10, 8, 100)))
    log = run_fleet(FleetSpec(MIXED, jobs, Rules(grace_s=30)), Rude())
    log.claims = Claims(preempts="any")
    assert judge(log).holds
    log.records.pop(first(log, "notice"))
    assert 9 in broken(log)
