"""A fleet under schedulers as a trace: who held which devices when, what waited, what was down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ersatz.sim.fleet.compare import Outcome
from ersatz.sim.fleet.judge.metrics import series
from ersatz.sim.report.pictures.fleet_gantt import attempts, down_times
from ersatz.sim.report.timelines.chrome import counter, packed, process, span, text_of, thread

SLOTS = 1024  # track numbers of a node
ENDS = {"finish": "finished", "fail": "lost to a failure", "preempt": "preempted",
        "resize": "moved or resized", "timeout": "ended at its limit", "end": "still running"}  # fmt: skip


def fleet_trace(outcomes: Sequence[Outcome], question: str = "") -> bytes:
    """Return a compressed trace of one run of each policy: a process per policy and accelerator type.

    A track is a node, or the devices of a node that a job begins at, so that jobs side by side on a
    node do not cover each other. Seconds of the fleet's clock are seconds of the trace.
    """
    about = {"made_by": "ersatz", "question": question, "policies": [o.policy for o in outcomes]}
    return packed(_events(outcomes), about)


def _events(outcomes: Sequence[Outcome]) -> Iterator[str]:
    pid = 0
    for outcome in outcomes:
        log = outcome.log
        pids = {kind: pid + i for i, kind in enumerate(log.cluster.types, start=1)}
        for kind, number in pids.items():
            yield from process(number, f"{outcome.policy}: {kind}", number)
        pid += len(pids) + 1
        yield from process(pid, f"{outcome.policy}: queue", pid)
        yield from _bars(outcome, pids)
        yield from _counts(outcome, pids, pid)


def _bars(outcome: Outcome, pids: dict[str, int]) -> Iterator[str]:
    log = outcome.log
    nodes = log.cluster.nodes
    tracks: set[int] = set()
    for start, end, job, placement, how in attempts(log):
        about = log.jobs[job]
        args = {
            "tenant": about.tenant,
            "devices": about.devices,
            "nodes": len(placement),
            "end": ENDS.get(how, how),
        }
        rest = f',"cat":"job","args":{text_of(args)}'
        for node, mask in placement:
            first = max((mask & -mask).bit_length() - 1, 0)
            tid = node * SLOTS + first + 1
            pid = pids[nodes[node].type]
            if tid not in tracks:
                tracks.add(tid)
                yield thread(
                    pid, tid, nodes[node].name + (f", from device {first}" if first else "")
                )
            yield span(pid, tid, text_of(job), start, end, rest)
    for start, end, node in down_times(log):
        pid, tid = pids[nodes[node].type], node * SLOTS
        yield thread(pid, tid, f"{nodes[node].name}: down")
        yield span(pid, tid, '"down"', start, end, ',"cat":"down"')


def _counts(outcome: Outcome, pids: dict[str, int], queue: int) -> Iterator[str]:
    run = series(outcome.log, fragmentation=False)
    for i, time in enumerate(run.times_s):
        yield counter(queue, "jobs that wait", time, {"jobs": run.queue[i]})
        for kind, pid in pids.items():
            if not i or run.held[kind][i] != run.held[kind][i - 1]:
                yield counter(pid, "devices in use", time, {"devices": run.held[kind][i]})
