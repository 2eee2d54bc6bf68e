"""The judge is not fooled: who misbehaves is convicted or cannot win, who is honest is not convicted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from fleet_cases import mixed_case
from misbehaving import HONEST, MISBEHAVING, Plain, full_house

from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.compare import Outcome, compare, ratio_interval, run_policy
from ersatz.sim.fleet.engine.fleet import FleetSpec, RunEndedError, run_fleet
from ersatz.sim.fleet.engine.outages import Failures, Maintenance
from ersatz.sim.fleet.judge.properties import PROPERTIES, Verdict
from ersatz.sim.fleet.judge.validate import judge
from ersatz.sim.fleet.log import Claims, Log, Quota, Record, Rules
from ersatz.sim.fleet.policies.queue import QueueScheduler
from ersatz.sim.fleet.policies.registry import POLICIES, make_scheduler
from ersatz.sim.fleet.protocol import Decision, Preempt, Resize, Start, View, WakeAt
from ersatz.sim.fleet.standing import cannot_win, standing, within_chance
from ersatz.sim.fleet.workload.jobs import Job, Workload
from ersatz.sim.report.schedule import answer
from ersatz.sim.report.schedule_record import schedule_record

SPEC = full_house()
EIGHT = make_cluster(make_pool("h800", 1))
TWO = make_cluster(make_pool("h800", 2))


def outcome(name: str) -> Outcome:
    made = MISBEHAVING | HONEST
    return run_policy(name, SPEC, (lambda _: made[name]()) if name in made else make_scheduler)


@pytest.fixture(scope="module")
def easy() -> Outcome:
    return outcome("easy")


SLOW = {
    "MovesNowhere",
    "MovesNowhereOpenly",
    "Swaps",
    "PreemptsForShow",
}  # thousands of moves first


@pytest.mark.heavy
@pytest.mark.parametrize("name", [n for n in MISBEHAVING if n not in SLOW])
def test_who_misbehaves_cannot_win(name: str, easy: Outcome) -> None:
    bad = outcome(name)
    assert cannot_win([bad])
    lines = answer([[easy], [bad]])
    assert lines[0].startswith("easy has the shortest")
    assert any(line.startswith(f"{name} cannot win: it ") for line in lines)
    assert "inf" not in lines[0]


@pytest.mark.heavy
@pytest.mark.parametrize("name", sorted(SLOW))
def test_who_moves_jobs_about_cannot_win(name: str) -> None:
    few = replace(SPEC, workload=Workload(SPEC.workload.jobs[:40]))
    assert cannot_win([run_policy(name, few, lambda _: MISBEHAVING[name]())])


@pytest.mark.parametrize("name", [*HONEST, *POLICIES])
def test_who_is_honest_is_not_convicted(name: str) -> None:
    honest = outcome(name)
    assert honest.verdict.holds, honest.verdict.first
    assert not cannot_win([honest])


def test_the_answer_says_by_how_much_others_are_longer_and_how_sure_that_is() -> None:
    """Three draws of two policies: the lead of the better one, with its interval."""
    draws = [replace(full_house(seed), outages=()) for seed in (1, 2, 3)]
    outcomes = [[run_policy(p, spec, make_scheduler) for spec in draws] for p in ("fifo", "fill")]
    found = standing(outcomes)
    ((other, change, low, high),) = found.behind
    means = {
        p: np.array([o.metrics["jct_s"] for o in d])
        for p, d in zip(("fifo", "fill"), outcomes, strict=True)
    }
    best = found.winners[0]
    assert change == pytest.approx(means[other].mean() / means[best].mean() - 1, rel=1e-6)
    assert low < change < high
    line = next(text for text in answer(outcomes) if text.startswith("Longer than it by"))
    assert f"{other} {100 * change:+.0f} ({100 * low:+.0f}..{100 * high:+.0f})" in line
    record = schedule_record("?", outcomes, [], [])["standing"]["all"]["behind"]
    assert record == [[other, change, low, high]]


def test_whoever_puts_off_some_of_a_tenants_jobs_is_convicted_for_that() -> None:
    """Of jobs of one class those of tenant b are passed over for those of tenant a, six times in seven."""
    first = outcome("HatesSmall").verdict.first
    assert first is not None
    assert (first.number, first.severity) == (16, "conduct")
    assert "small of b is passed over" in first.why


# -- one property after the other, by hand ------------------------------------------------------------------


def status(verdict: Verdict, number: int) -> str:
    return next(f.status for f in verdict.findings if f.number == number)


def log_of(spec: FleetSpec, scheduler: object) -> Log:
    try:
        return run_fleet(spec, scheduler)  # type: ignore[arg-type]
    except RunEndedError as ended:
        return ended.log


def test_every_finding_has_number_status_and_severity() -> None:
    verdict = outcome("RejectsTheLarge").verdict
    assert [f.number for f in verdict.findings] == list(PROPERTIES)
    first = verdict.first
    assert first is not None
    assert (first.number, first.severity, first.status) == (14, "rule", "violated")
    assert "reject" in first.context[-1]


def test_rejections_with_a_cause_are_none() -> None:
    """b depends on a, which runs into its limit: the fleet itself turns b away."""
    jobs = (Job("a", 0, 8, 100, walltime_s=50), Job("b", 0, 8, 10, after=("a",)))
    verdict = judge(run_fleet(FleetSpec(EIGHT, Workload(jobs)), QueueScheduler()))
    assert status(verdict, 14) == "holds"


class Waits(Plain):
    """Starts nothing for two hours."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        yield from super().on_event(now, events, view) if now >= 7200 else ()
        if now < 7200:
            yield WakeAt(7200)


def test_idleness_is_bad_where_everything_fits_and_a_remark_behind_a_head() -> None:
    small = FleetSpec(EIGHT, Workload((Job("a", 0, 4, 100), Job("b", 10, 4, 100))))
    assert status(judge(log_of(small, Waits())), 15) == "bad conduct"
    # a holds 4 of 8 for two hours; b asks for 8 and blocks c, which would fit.
    blocked = Workload((Job("a", 0, 4, 7200), Job("b", 1, 8, 10), Job("c", 2, 4, 10)))
    found = judge(run_fleet(FleetSpec(EIGHT, blocked), QueueScheduler()))
    assert status(found, 15) == "remark"
    assert found.holds
    remark = next(f for f in found.remarks if f.number == 15)
    assert "8 device-hours" in remark.why  # 4 devices for nearly two hours


class PreemptsInVain(Plain):
    """Preempts a small job every 50 s for a gang that has no room all the same, and lets nobody in."""

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        if now == 0:
            yield from (Start(f"s{i}", ((0, 1 << i),)) for i in range(6))
            yield WakeAt(50)
        elif "gang" in view.waiting and view.running and now < 500:
            yield Preempt(next(iter(view.running)), for_job="gang")
            yield WakeAt(now + 50)
        elif now > 5000 or not view.running:
            yield from super().on_event(now, events, view)
        if now < 6000:
            yield WakeAt(6000)


def test_preempting_in_vain() -> None:
    jobs = (*(Job(f"s{i}", 0, 1, 5000) for i in range(6)), Job("gang", 20, 8, 10))
    found = judge(log_of(FleetSpec(EIGHT, Workload(jobs)), PreemptsInVain()))
    assert status(found, 17) == "bad conduct"
    assert "makes way for job gang, which does not start" in next(
        f.why for f in found.findings if f.number == 17)  # fmt: skip


class Mover(Plain):
    """Moves a job to the other node every 10 s."""

    claims = Claims()

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        yield from super().on_event(now, events, view)
        if now in (10, 20, 30, 40):
            node = view.running["a"].placement[0][0]
            yield Resize("a", ((1 - node, 255),))
        yield WakeAt((now // 10 + 1) * 10)


def test_moves_are_interruptions() -> None:
    """They need the claim, notice and a purpose, and count as preemptions."""
    spec = FleetSpec(TWO, Workload((Job("a", 0, 8, 100, restart_s=2, save_s=1),)))
    log = run_fleet(spec, Mover())
    found = judge(log)
    assert status(found, 9) == "violated"
    assert status(found, 17) == "bad conduct"
    log.claims = Claims(preempts="any")
    assert status(judge(log), 9) == "holds"
    from ersatz.sim.fleet.judge.metrics import metrics

    figures = metrics(log)
    assert figures["preemptions"] == 4
    # Each move takes 1 s of saving and 2 s of starting, without progress.
    assert figures["makespan_s"] == pytest.approx(112)
    assert figures["goodput"] == pytest.approx(100 / 112)
    log.rules = Rules(grace_s=30)
    assert status(judge(log), 9) == "violated"


def test_a_preemption_costs_saving_and_starting_again() -> None:
    """a: 50 s of work, 5 s of saving (49 to 54 would be after grace 5), then b, then 10 s to start again."""

    class Once(Plain):
        def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
            if now == 50:
                yield Preempt("a", for_job="b")
            elif "b" in view.waiting and not view.running:
                yield from self.fill(view, [view.waiting["b"]])
            else:
                yield from super().on_event(now, events, view)

    jobs = (Job("a", 0, 8, 100, restart_s=10, save_s=5), Job("b", 50, 8, 20))
    log = run_fleet(FleetSpec(EIGHT, Workload(jobs)), Once())
    at = {(r.event, r.job): (r.time_s, r.value) for r in log.records}
    assert at["notice", "a"] == (50, 55)
    assert at["preempt", "a"] == (55, 50)  # what was done until saving began
    assert at["finish", "a"] == (55 + 20 + 10 + 50, 100)
    assert judge(log).holds


def test_a_node_that_was_drained_by_another() -> None:
    log = outcome("Plain").log
    at = next(i for i, r in enumerate(log.records) if r.event == "undrain")
    forged = replace(log, records=list(log.records))
    forged.records[at] = forged.records[at]._replace(detail="scheduler Plain")
    assert status(judge(forged), 18) == "violated"


def test_promises_are_judged_whether_or_not_backfilling_is_claimed() -> None:
    found = outcome("PromisesEverything").verdict
    assert status(found, 7) == "violated"
    assert status(outcome("Plain").verdict, 7) == "not claimed"


def test_two_borrowers_together_owe_what_none_owes_alone() -> None:
    """b and c hold 8 each of a's 16: a's job of 16 waits for both."""
    jobs = (Job("b", 0, 8, 1000, "b"), Job("c", 0, 8, 1000, "c"), Job("a", 10, 16, 10, "a"))
    quotas = {"a": Quota(16, 16), "b": Quota(0, 16), "c": Quota(0, 16)}
    scheduler = QueueScheduler()
    scheduler.claims = Claims(reclaim_s=60.0)
    log = run_fleet(FleetSpec(TWO, Workload(jobs), Rules(quotas)), scheduler)
    found = judge(log)
    assert status(found, 6) == "violated"
    assert "b and c borrows" in next(f.why for f in found.findings if f.number == 6)


# -- the headline -------------------------------------------------------------------------------------------


def test_a_change_is_never_below_minus_a_hundred_per_cent() -> None:
    base, values = np.array([100.0, 2000.0, 150.0, 90.0]), np.array([1.0, 3.0, 2.0, 1.5])
    change, low, high = ratio_interval(values, base)
    assert -1 < low < change < high
    assert change == pytest.approx(7.5 / 2340 - 1)
    assert ratio_interval(base, base) == (0.0, 0.0, 0.0)
    assert ratio_interval(np.zeros(3), base[:3])[:2] == (-1.0, -1.0)


def test_ratio_interval_by_hand() -> None:
    """Jackknife of two draws: log(1/1) and log(3/2) left out one by one; t of one degree is 12.706."""
    change, low, high = ratio_interval(np.array([3.0, 1.0]), np.array([2.0, 1.0]))
    spread = np.log(1.5)
    error = np.sqrt(0.5 * 2 * (spread / 2) ** 2)
    assert change == pytest.approx(1 / 3)
    assert high + 1 == pytest.approx(4 / 3 * np.exp(12.7062 * error), rel=1e-4)
    assert low + 1 == pytest.approx(4 / 3 / np.exp(12.7062 * error), rel=1e-4)


def test_ties_within_chance() -> None:
    assert within_chance(np.array([10.0, 12.0]), np.array([11.0, 11.0]))
    assert not within_chance(np.array([10.0, 10.1, 9.9]), np.array([5.0, 5.1, 4.9]))
    assert not within_chance(np.array([10.0]), np.array([11.0]))
    draws = [mixed_case(seed, 40, breaking=False) for seed in (1, 2, 3)]
    same = [[run_policy(n, s, QueueScheduler) for s in draws] for n in ("x", "y")]
    assert set(standing(same).winners) == {"x", "y"}
    assert "tied with" in answer(same)[0]


def test_a_policy_that_breaks_off_has_no_figures_to_compare(easy: Outcome) -> None:
    bad = outcome("ReadsTheTruth")
    assert standing([[bad]]).winners == ()
    assert answer([[bad], [bad]])[0] == "Nobody wins."
    changes = compare([[easy], [bad]])
    assert all(np.isnan(d.change) for d in changes if d.policy == "ReadsTheTruth")


def test_what_is_left_undone_counts_as_if_it_went_on_at_the_end() -> None:
    """Time is up at 100 s. Both in order: 90 and 95 s; the short one alone: 5 s and 100 + 90 s at least."""
    jobs = Workload((Job("long", 0, 8, 90), Job("short", 0, 8, 5)))
    spec = FleetSpec(EIGHT, jobs, until_s=100.0)

    class ShortOnly(Plain):
        def order(self, view: View) -> list[Job]:
            return [j for j in view.waiting.values() if j.id == "short"]

    both = [
        [run_policy("fifo", spec, QueueScheduler)],
        [run_policy("s", spec, lambda _: ShortOnly())],
    ]
    found = standing(both)
    assert found.winners[0] == "fifo"
    assert found.best_s == pytest.approx((90 + 95) / 2)


# -- nodes --------------------------------------------------------------------------------------------------


def test_overlapping_maintenance_ends_with_the_last_window() -> None:
    """2 to 4 h and 3 to 7 h: down from 2 h to 7 h, drained as long."""
    outages = (Maintenance(7200, 7200, (0,)), Maintenance(10800, 14400, (0,)))
    log = run_fleet(FleetSpec(EIGHT, Workload(()), outages=outages, until_s=1e5), QueueScheduler())
    seen = [(r.event, r.time_s) for r in log.records if r.node == 0]
    assert seen == [("drain", 7200), ("down", 7200), ("up", 25200), ("undrain", 25200)]


def test_overlapping_slow_spells_end_with_the_last() -> None:
    """Spells of 5,000 s that begin every 2,000 s or so: the node is never as new in between."""
    spells = Failures("node", 1 / 2000, 5000.0, repair="fixed", slowdown=0.5)
    log = run_fleet(
        FleetSpec(EIGHT, Workload(()), outages=(spells,), seed=1, until_s=2e4), QueueScheduler())  # fmt: skip
    seen = [(r.value, r.time_s) for r in log.records if r.event == "slow"]
    assert seen[0][0] == 0.5
    assert all(a[0] != b[0] for a, b in pairwise(seen))
    assert len(seen) == 1 or seen[1][1] - seen[0][1] > 5000


@pytest.mark.parametrize("policy", ["easy", "priority", "conservative"])
def test_a_node_that_is_down_does_not_freeze_the_fleet(policy: str) -> None:
    """A job for all 8 nodes waits three days for one of them; four small jobs need not."""
    cluster = make_cluster(make_pool("h800", 8))
    small = [Job(f"s{i}", 10 + i, 8, 3600, walltime_s=4000) for i in range(4)]
    jobs = Workload((Job("whole", 5, 64, 7200, walltime_s=8000), *small))
    spec = FleetSpec(cluster, jobs, outages=(Maintenance(0, 3 * 86400, (0,)),))
    log = run_fleet(spec, make_scheduler(policy))
    starts = {r.job: r.time_s for r in log.records if r.event == "start"}
    assert max(starts[j.id] for j in small) < 14.5
    assert judge(log).holds
