"""Judges a scheduler by its event log alone, whichever door it came through.

Nineteen properties (`judge.properties`): rules of the fleet, claims of the scheduler, and conduct that
no rule forbids. A verdict names the first offending record of each and what led to it; what is only worth
knowing is a remark. Conduct is judged as long as the log can be believed.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator

from ersatz.sim.fleet.cluster import devices_text
from ersatz.sim.fleet.judge.conduct import Conduct
from ersatz.sim.fleet.judge.interruptions import Interruptions
from ersatz.sim.fleet.judge.ledger import Ledger
from ersatz.sim.fleet.judge.logfile import log_text
from ersatz.sim.fleet.judge.promises import Promises
from ersatz.sim.fleet.judge.properties import PROPERTIES, Fault, Finding, Verdict
from ersatz.sim.fleet.log import DONE, FINAL, STARVED, Log, Record

GRAVITY = ("rule", "conduct", "remark")
CONTEXT = 4  # records before the offending one that are shown
ORDER = {"finish": 1, "timeout": 1, "down": 2, "fail": 2, "up": 3, "submit": 4}


UNSOUND = frozenset(
    {1, 2, 3, 4, 10}
)  # after such an offence a log says nothing of conduct any more
NAMED = (
    "job",
    "at ",
    "one log",
    "the other",
)  # how reasons begin that name their subject themselves


def judge(log: Log, again: Log | None = None, twin: Log | None = None) -> Verdict:
    """Check every property on a log.

    `again` is the log of a second run with the same seed, `twin` that of the same policy through
    another door.
    """
    collecting = gc.isenabled()
    gc.disable()  # nothing here refers to itself, and looking through a million records takes its time
    try:
        return _judge(log, again, twin)
    finally:
        if collecting:
            gc.enable()


def _judge(log: Log, again: Log | None, twin: Log | None) -> Verdict:
    faults: dict[int, list[Fault]] = {number: [] for number in PROPERTIES}
    at, sound = 0, True

    def fault(number: int, why: str) -> None:
        nonlocal sound
        faults[number].append(Fault(at, why))
        sound = sound and number not in UNSOUND

    ledger = Ledger(log, fault)
    promises = Promises(log, ledger, fault)
    conduct = Conduct(log, promises.promised)
    purpose = Interruptions(log, conduct)
    book, watch = ledger.book, promises.watch
    started_now: set[str] = set()
    rank = 0
    for at, record in enumerate(log.records):
        time_s, event = record.time_s, record.event
        if time_s != ledger.now:
            if time_s < ledger.now:
                fault(4, f"at {time_s:g} s, after a record of {ledger.now:g} s")
            _settle(ledger)
            promises.settle(time_s)
            if sound:
                conduct.settle(max(at - 1, 0), ledger.now, time_s)
            ledger.now, rank = time_s, 0
            started_now.clear()
        if event in ORDER:
            place = ORDER[event]
            if place < rank and record.job not in started_now and not (
                    event in ("finish", "timeout") and started_now):  # fmt: skip
                fault(11, f"{event} after an event that comes later in an instant")
            rank = max(rank, place)
        elif event == "start":
            started_now.add(record.job)
        if event in watch:
            watch[event](record)
        if event in book:
            book[event](record)
        if sound:
            conduct.see(at, record)
            purpose.see(at, record)
    _settle(ledger)
    promises.finish(ledger.now)
    _check_end(log, ledger)
    for number, told in (*conduct.faults(), *purpose.faults()) if log.records else ():
        faults[number].append(told)
    status = _not_judged(log, again, twin, promises.made)
    for other, number in ((again, 11), (twin, 13)):
        if other and (difference := _difference(log, other)):
            faults[number].insert(0, Fault(*difference))
    findings = tuple(_finding(log, number, found, status.get(number, "holds"))
                     for number, found in faults.items())  # fmt: skip
    return Verdict(log.about.get("policy", ""), findings)


def _settle(ledger: Ledger) -> None:
    """At the end of an instant nobody may still hold a device of a node that was lost in it."""
    for name, node in sorted(ledger.struck.items()):
        where = ledger.log.cluster.nodes[node].name
        ledger.fault(2, f"job {name} runs on after its worker on {where} was lost")
    ledger.struck.clear()


def _check_end(log: Log, ledger: Ledger) -> None:
    """Every job is over, unless the log was cut short."""
    end = log.records[-1] if log.records else None
    how = end.value if end and end.event == "end" else DONE
    over = Counter(r.job for r in log.records if r.event in FINAL)
    for name in log.jobs:
        if over[name] > 1:
            ledger.fault(3, f"job {name} ended {over[name]} times")
        elif how == DONE and not over[name]:
            ledger.fault(3, f"job {name} has no final state, it is {ledger.status.get(name)}")
        if how in (DONE, STARVED) and not over[name] and not ledger.attempts[name]:
            ledger.fault(
                8, f"job {name}, submitted at {log.jobs[name].submit_s:g} s, never started"
            )


def _not_judged(log: Log, again: Log | None, twin: Log | None, promises: int) -> dict[int, str]:
    """Return the properties that this log says nothing about."""
    status = {}
    if not log.claims.backfill and not promises:
        status[7] = "not claimed"
    if not log.claims.work_conserving:
        status[12] = "not claimed"
    if again is None:
        status[11] = "not checked"
    if twin is None:
        status[13] = "not checked"
    return status


def _difference(log: Log, other: Log) -> tuple[int, str] | None:
    """Return where two logs differ first, or None when they are the same text."""
    if log_text(log) == log_text(other):
        return None
    pairs = enumerate(zip(log.records, other.records, strict=False))
    at = next((i for i, (one, two) in pairs if one != two), None)
    if at is None:
        at = min(len(log.records), len(other.records)) - 1
        return at, f"one log has {len(log.records)} records, the other {len(other.records)}"
    return at, f"the other log says: {line_of(other, other.records[at])}"


def line_of(log: Log, r: Record) -> str:
    """Return a record as a person reads it."""
    parts = [f"{r.time_s:.3f} s", r.event]
    parts += [f"job {r.job}"] if r.job else []
    parts += [log.cluster.nodes[r.node].name] if r.node >= 0 else []
    if r.placement:
        text = devices_text(log.cluster, r.placement)
        parts.append(f"devices {text if len(text) < 40 else text[:37] + '...'}")
    parts += [f"value {r.value:g}"] if r.value else []
    return " ".join([*parts, f"({r.detail})" if r.detail else ""]).strip()


def _context(log: Log, first: int) -> Iterator[str]:
    """Yield the latest records on the same job, node or devices, then the record itself."""
    bad = log.records[first]
    wanted = {node for node, _ in bad.placement} | ({bad.node} if bad.node >= 0 else set())
    before: list[str] = []
    for i in range(first - 1, -1, -1):
        r = log.records[i]
        same = (r.job and r.job == bad.job) or r.node in wanted
        if same or any(node in wanted for node, _ in r.placement):
            before.append(line_of(log, r))
        if len(before) == CONTEXT:
            break
    yield from reversed(before)
    yield line_of(log, bad)


def _finding(log: Log, number: int, found: list[Fault], otherwise: str) -> Finding:
    if not found:
        return Finding(number, otherwise)
    grave = min(found, key=lambda f: GRAVITY.index(f.severity))
    same = [f for f in found if f.severity == grave.severity]
    first, why = grave.at, grave.why
    name = log.records[first].job
    if name and number < 14 and not why.startswith(NAMED):
        why = f"job {name} {why}"
    status = {"rule": "violated", "conduct": "bad conduct", "remark": "remark"}[grave.severity]
    return Finding(number, status, sum(f.count for f in same), first, why,
                   tuple(_context(log, first)), grave.severity)  # fmt: skip
