"""Carrying out what a scheduler decides, or ending the run where that cannot be done."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import simpy

from ersatz.sim.fleet.cluster import Cluster, Placement, size_of
from ersatz.sim.fleet.engine.happening import TIMER, Happening
from ersatz.sim.fleet.engine.nodes import Nodes
from ersatz.sim.fleet.free import Free
from ersatz.sim.fleet.log import Log, Rules
from ersatz.sim.fleet.protocol import (
    Attempt,
    Drain,
    Preempt,
    Progress,
    Reject,
    Reserve,
    Resize,
    Scheduler,
    Start,
    WakeAt,
)
from ersatz.sim.fleet.workload.jobs import Job


class Fleet(Protocol):
    """What decisions act on."""

    env: simpy.Environment
    scheduler: Scheduler
    cluster: Cluster
    rules: Rules
    log: Log
    free: Free
    waiting: OrderedDict[str, Job]
    running: dict[str, Attempt]
    progress: dict[str, Progress]
    nodes: Nodes

    @property
    def jobs(self) -> Mapping[str, Job]:
        """All jobs, with their true run times."""

    def ended(self, reason: str) -> Exception:
        """Return the error that ends the run."""

    def write(
        self, event: str, job: str = "", placement: Placement = (), node: int = -1,
        value: float = 0.0, detail: str = "",
    ) -> None:  # fmt: skip
        """Add a record to the log."""

    def tell(self) -> None:
        """Let the scheduler know of the latest record."""

    def rate(self, job: Job, placement: Placement) -> float:
        """Return the rate of a job on healthy nodes."""

    def begin(self, job: Job, placement: Placement) -> None:
        """Start an attempt on devices that are free."""

    def stop(
        self, attempt: Attempt, event: str, kept: float, node: int = -1, detail: str = ""
    ) -> None:
        """End an attempt and free its devices."""

    def requeue(self, name: str) -> None:
        """Let a job wait again."""

    def ask_soon(self) -> None:
        """Ask the scheduler at the end of this instant."""

    def reject(self, name: str, reason: str) -> None:
        """Refuse a waiting job."""

    def wake_at(self, time_s: float) -> None:
        """Ask the scheduler at a time."""


def carry_out(fleet: Fleet, decision: object) -> None:
    """Carry out one decision; raises `RunEndedError` for an impossible one."""
    act = _ACTS.get(type(decision))
    if act is None or not _is_sound(decision):
        raise fleet.ended(
            f"{fleet.scheduler.name} answered nonsense: {str(decision)[:80]!r} is no decision"
        )
    act(fleet, decision)


_KINDS: dict[str, Any] = {
    "job": str, "mode": str, "for_job": str, "reason": str, "node": int, "undo": bool,
    "at_s": int | float, "time_s": int | float,
}  # fmt: skip


def _is_sound(decision: object) -> bool:
    """Tell whether every field of a decision is of its kind."""
    return all(
        isinstance(value := getattr(decision, key), _KINDS[key])
        and not (isinstance(value, int) and value.bit_length() > 63)
        for key in decision.__slots__ if key in _KINDS  # type: ignore[attr-defined]
    )  # fmt: skip


def _start(fleet: Fleet, decision: Start) -> None:
    job = fleet.waiting.get(decision.job)
    placement = _shaped(decision.placement)
    if job is None:
        state = "is running already" if decision.job in fleet.running else "does not wait"
        if decision.job in fleet.log.jobs:
            fleet.write("start", decision.job, _written(fleet, placement))
        raise fleet.ended(f"{fleet.scheduler.name} started job {decision.job}, which {state}")
    if why := _fault(fleet, job, placement, fleet.free):
        fleet.write("start", job.id, _written(fleet, placement))
        raise fleet.ended(f"{fleet.scheduler.name} started job {job.id} in vain: {why}")
    fleet.begin(job, placement)


def _fault(fleet: Fleet, job: Job, placement: Placement, free: Free) -> str:
    """Say why a job cannot run on a placement, or return an empty text."""
    if not placement:
        return "its placement is no list of (node, devices)"
    if why := free.fault(job, placement):
        return why
    size = size_of(placement)
    if not job.least <= size <= job.most:
        wanted = f"{job.least}" if job.least == job.most else f"{job.least} to {job.most}"
        return f"it was given {size} devices, its gang takes {wanted}"
    if fleet.rate(job, placement) <= 0:
        return "it cannot run on this type of device"
    return ""


def _shaped(placement: Any) -> Placement:
    """Return a placement if it looks like one, else none."""
    try:
        return tuple((int(node), int(mask)) for node, mask in placement)
    except (TypeError, ValueError, OverflowError):
        return ()


def _written(fleet: Fleet, placement: Placement) -> Placement:
    """Return the parts of a placement that a log can hold: on nodes of this fleet."""
    nodes = fleet.cluster.nodes
    return tuple((node, mask) for node, mask in placement
                 if 0 <= node < len(nodes) and 0 <= mask < 4 << nodes[node].devices)  # fmt: skip


def _preempt(fleet: Fleet, decision: Preempt) -> None:
    attempt = fleet.running.get(decision.job)
    if attempt is None:
        raise fleet.ended(
            f"{fleet.scheduler.name} preempted job {decision.job}, which does not run"
        )
    if not attempt.notice_s:  # else it is on its way out
        save_s = attempt.job.save_s if decision.mode == "checkpoint" else 0.0
        _after_grace(fleet, attempt, decision.for_job, save_s,
                     lambda now: _evict(fleet, now, decision))  # fmt: skip


def _after_grace(
    fleet: Fleet, attempt: Attempt, detail: str, save_s: float, act: Callable[[Attempt], None]
) -> None:
    """Act on an attempt when its time of grace is over and its state is saved, if it still runs."""
    name, grace_s = attempt.job.id, max(fleet.rules.grace_s, save_s)
    if not grace_s:
        return act(attempt)

    def when_over(_: simpy.Event) -> None:
        now = fleet.running.get(name)
        if now is not None and now.number == attempt.number:
            act(now)

    due_s = fleet.env.now + grace_s
    fleet.running[name] = replace(attempt, notice_s=due_s)
    fleet.write("notice", name, value=due_s, detail=detail)
    Happening(fleet.env, TIMER, grace_s, when_over)


def _evict(fleet: Fleet, attempt: Attempt, decision: Preempt) -> None:
    """End an attempt; its work is saved whole, or falls back to the latest checkpoint."""
    saved = attempt.work_at(fleet.env.now - attempt.job.save_s)
    if decision.mode != "checkpoint":
        saved = fleet.jobs[decision.job].kept(attempt.work_at(fleet.env.now))
    kept = max(fleet.progress[decision.job].kept_s, saved)
    detail = f"{decision.mode} for {decision.for_job}" if decision.for_job else decision.mode
    fleet.stop(attempt, "preempt", kept, detail=detail)
    fleet.tell()
    fleet.requeue(decision.job)


def _resize(fleet: Fleet, decision: Resize) -> None:
    attempt = fleet.running.get(decision.job)
    if attempt is None or attempt.notice_s:
        raise fleet.ended(f"{fleet.scheduler.name} resized job {decision.job}, which does not run")
    if why := _move_fault(fleet, attempt, decision):
        raise fleet.ended(f"{fleet.scheduler.name} resized job {decision.job} in vain: {why}")
    _after_grace(fleet, attempt, "", attempt.job.save_s, lambda now: _move(fleet, now, decision))


def _move_fault(fleet: Fleet, attempt: Attempt, decision: Resize) -> str:
    """Say why a job cannot go on elsewhere once its own devices are free, or return an empty text."""
    free, placement = fleet.free.copy(), _shaped(decision.placement)
    free.give(attempt.job, attempt.placement)
    return _fault(fleet, attempt.job, placement, free)


def _move(fleet: Fleet, attempt: Attempt, decision: Resize) -> None:
    """Let a job go on elsewhere; where that was taken during its grace it waits again."""
    if attempt.notice_s and _move_fault(fleet, attempt, decision):
        return _evict(fleet, attempt, Preempt(decision.job))
    fleet.stop(attempt, "resize", attempt.work_at(fleet.env.now - attempt.job.save_s))
    fleet.waiting[decision.job] = attempt.job
    _start(fleet, Start(decision.job, decision.placement))
    if attempt.notice_s:
        fleet.ask_soon()


def _reserve(fleet: Fleet, decision: Reserve) -> None:
    if decision.job not in fleet.waiting:
        raise fleet.ended(
            f"{fleet.scheduler.name} reserved for job {decision.job}, which does not wait"
        )
    placement = _shaped(decision.placement)
    if decision.placement and (not placement or _written(fleet, placement) != placement):
        raise fleet.ended(f"{fleet.scheduler.name} reserved for job {decision.job} what is no"
                          " placement")  # fmt: skip
    fleet.write("reserve", decision.job, placement, value=decision.at_s)


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
    cause = f"scheduler {fleet.scheduler.name}"
    held = fleet.nodes.drained.get(decision.node)
    if held is None if decision.undo else held and held[cause]:
        return  # it is so already
    if not fleet.nodes.drain(decision.node, cause, decision.undo):
        raise fleet.ended(
            f"{fleet.scheduler.name} undrained {fleet.cluster.nodes[decision.node].name}, which it"
            " has not drained")  # fmt: skip


_ACTS: dict[type, Callable[[Any, Any], None]] = {
    Start: _start, Preempt: _preempt, Resize: _resize, Reserve: _reserve, Reject: _reject,
    WakeAt: _wake, Drain: _drain,
}  # fmt: skip
