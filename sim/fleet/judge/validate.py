"""Judges a scheduler by its event log alone, whichever door it came through.

Thirteen properties; some hold for every scheduler, some for those that claim them, and two compare
the log with a second one. A verdict names the first offending record of each and what led to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ersatz.sim.fleet.cluster import devices_text
from ersatz.sim.fleet.judge.ledger import Ledger
from ersatz.sim.fleet.judge.logfile import log_text
from ersatz.sim.fleet.judge.promises import Promises
from ersatz.sim.fleet.log import DONE, FINAL, STARVED, Log, Record

PROPERTIES = {
    1: "devices: none is held twice, none beyond its node's capacity",
    2: "gangs: all devices of a job or none, of the right number",
    3: "conservation: one final state per job, work adds up",
    4: "causality: nothing before its cause, time never runs back",
    5: "wishes: accelerator types, one type per gang, nodes, leaves and pods",
    6: "quotas: no tenant beyond its limit, loans are called back in time",
    7: "backfilling: no promised start is put off",
    8: "starvation: every job starts, within the claimed wait",
    9: "preemption: only whom the claims allow, after grace, from the last checkpoint",
    10: "recovery: nothing runs on a node that is down or drained",
    11: "determinism: the same bytes again, simultaneous events in order",
    12: "work conservation: no idle devices beside a waiting job that fits them",
    13: "protocol: the same log through another door",
}
CONTEXT = 4  # records before the offending one that are shown
ORDER = {"finish": 1, "timeout": 1, "down": 2, "fail": 2, "up": 3, "submit": 4}


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one property."""

    number: int
    status: str  # 'holds', 'violated', 'not claimed', 'not checked'
    count: int = 0  # offending records
    first: int = -1  # index of the first offending record
    why: str = ""
    context: tuple[str, ...] = ()  # that record and what led to it, as text

    @property
    def title(self) -> str:
        """The property in words."""
        return PROPERTIES[self.number]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings on a log, in the order of the properties."""

    policy: str
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Tell whether no property is violated."""
        return not any(f.status == "violated" for f in self.findings)

    @property
    def first(self) -> Finding | None:
        """The finding with the earliest offending record."""
        bad = [f for f in self.findings if f.status == "violated"]
        return min(bad, key=lambda f: (f.first, f.number), default=None)


def judge(log: Log, again: Log | None = None, twin: Log | None = None) -> Verdict:
    """Check every property on a log.

    `again` is the log of a second run with the same seed, `twin` that of the same policy through
    another door.
    """
    faults: dict[int, list[tuple[int, str]]] = {number: [] for number in PROPERTIES}
    at = 0

    def fault(number: int, why: str) -> None:
        faults[number].append((at, why))

    ledger = Ledger(log, fault)
    promises = Promises(log, ledger, fault)
    book, watch = ledger.book, promises.watch
    started_now: set[str] = set()
    rank = 0
    for at, record in enumerate(log.records):  # noqa: B007 (`fault` reads it)
        time_s, event = record.time_s, record.event
        if time_s != ledger.now:
            if time_s < ledger.now:
                fault(4, f"at {time_s:g} s, after a record of {ledger.now:g} s")
            _settle(ledger)
            promises.settle(time_s)
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
    _settle(ledger)
    _check_end(log, ledger)
    status = _not_judged(log, again, twin)
    for other, number in ((again, 11), (twin, 13)):
        if other and (difference := _difference(log, other)):
            faults[number].insert(0, difference)
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


def _not_judged(log: Log, again: Log | None, twin: Log | None) -> dict[int, str]:
    """Return the properties that this log says nothing about."""
    status = {}
    if not log.claims.backfill:
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


def _finding(log: Log, number: int, found: list[tuple[int, str]], otherwise: str) -> Finding:
    if not found:
        return Finding(number, otherwise)
    first, why = found[0]
    name = log.records[first].job
    why = (
        f"job {name} {why}"
        if name and not why.startswith(("job", "at ", "one log", "the other"))
        else why
    )
    return Finding(number, "violated", len(found), first, why, tuple(_context(log, first)))
