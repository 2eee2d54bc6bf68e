"""Carrying out what a scheduler decides, or ending the run where that cannot be done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import simpy

from ersatz.sim.fleet.cluster import Placement, size_of
from ersatz.sim.fleet.engine.happening import TIMER, Happening
from ersatz.sim.fleet.protocol import Drain, Preempt, Reject, Reserve, Resize, Start, WakeAt
from ersatz.sim.fleet.workload.jobs import Job

if TYPE_CHECKING:
    from ersatz.sim.fleet.engine.fleet import Fleet


def carry_out(fleet: Fleet, decision: object) -> None:
    """Carry out one decision; raises `RunEndedError` for an impossible one."""
    act = _ACTS.get(type(decision))
    if act is None:
        raise fleet.ended(
            f"{fleet.scheduler.name} answered nonsense: {str(decision)[:80]!r} is no decision"
        )
    act(fleet, decision)


def _start(fleet: Fleet, decision: Start) -> None:
    job = fleet.waiting.get(decision.job)
    if job is None:
        state = "is running already" if decision.job in fleet.running else "does not wait"
        if decision.job in fleet.log.jobs:
            fleet.write("start", decision.job, _clean(decision.placement))
        raise fleet.ended(f"{fleet.scheduler.name} started job {decision.job}, which {state}")
    if why := _fault(fleet, job, decision.placement):
        fleet.write("start", job.id, _clean(decision.placement))
        raise fleet.ended(f"{fleet.scheduler.name} started job {job.id} in vain: {why}")
    fleet.begin(job, decision.placement)


def _fault(fleet: Fleet, job: Job, placement: Placement) -> str:
    """Say why a job cannot run on a placement, or return an empty text."""
    if not _clean(placement):
        return "its placement is no list of (node, devices)"
    if why := fleet.free.fault(job, placement):
        return why
    size = size_of(placement)
    if not job.least <= size <= job.most:
        wanted = f"{job.least}" if job.least == job.most else f"{job.least} to {job.most}"
        return f"it was given {size} devices, its gang takes {wanted}"
    if fleet.rate(job, placement) <= 0:
        return "it cannot run on this type of device"
    return ""


def _clean(placement: Any) -> Placement:
    """Return a placement if it looks like one, else none."""
    try:
        return tuple((int(node), int(mask)) for node, mask in placement)
    except (TypeError, ValueError):
        return ()


def _preempt(fleet: Fleet, decision: Preempt) -> None:
    attempt = fleet.running.get(decision.job)
    if attempt is None:
        raise fleet.ended(
            f"{fleet.scheduler.name} preempted job {decision.job}, which does not run"
        )
    if attempt.notice_s:
        return  # it is on its way out

    def execute(_: simpy.Event | None) -> None:
        if fleet.running.get(decision.job) is not attempt:
            return
        done = attempt.work_at(fleet.env.now)
        kept = fleet.progress[decision.job].kept_s
        if decision.mode == "checkpoint":
            kept = max(kept, done)
        else:
            kept = max(kept, fleet.spec.workload.by_id[decision.job].kept(done))
        detail = f"{decision.mode} for {decision.for_job}" if decision.for_job else decision.mode
        fleet.stop(attempt, "preempt", kept, detail=detail)
        fleet.tell()
        fleet.requeue(decision.job)

    if not fleet.rules.grace_s:
        return execute(None)
    attempt.notice_s = fleet.env.now + fleet.rules.grace_s
    fleet.write("notice", decision.job, value=attempt.notice_s, detail=decision.for_job)
    Happening(fleet.env, TIMER, fleet.rules.grace_s, execute)


def _resize(fleet: Fleet, decision: Resize) -> None:
    attempt = fleet.running.get(decision.job)
    if attempt is None or attempt.notice_s:
        raise fleet.ended(f"{fleet.scheduler.name} resized job {decision.job}, which does not run")
    fleet.stop(attempt, "resize", attempt.work_at(fleet.env.now))
    fleet.waiting[decision.job] = attempt.job
    _start(fleet, Start(decision.job, decision.placement))


def _reserve(fleet: Fleet, decision: Reserve) -> None:
    if decision.job not in fleet.waiting:
        raise fleet.ended(
            f"{fleet.scheduler.name} reserved for job {decision.job}, which does not wait"
        )
    fleet.write("reserve", decision.job, decision.placement, value=decision.at_s)


def _reject(fleet: Fleet, decision: Reject) -> None:
    if decision.job not in fleet.waiting:
        raise fleet.ended(
            f"{fleet.scheduler.name} rejected job {decision.job}, which does not wait"
        )
    fleet.reject(decision.job, decision.reason)


def _wake(fleet: Fleet, decision: WakeAt) -> None:
    if not decision.time_s >= fleet.env.now:
        raise fleet.ended(
            f"{fleet.scheduler.name} wants to be woken at {decision.time_s} s, in the past"
        )
    fleet.wake_at(decision.time_s)


def _drain(fleet: Fleet, decision: Drain) -> None:
    if not 0 <= decision.node < len(fleet.cluster.nodes):
        raise fleet.ended(
            f"{fleet.scheduler.name} drained node {decision.node}, which does not exist"
        )
    fleet.drain(decision.node, fleet.scheduler.name, decision.undo)


_ACTS: dict[type, Callable[[Any, Any], None]] = {
    Start: _start, Preempt: _preempt, Resize: _resize, Reserve: _reserve, Reject: _reject,
    WakeAt: _wake, Drain: _drain,
}  # fmt: skip
