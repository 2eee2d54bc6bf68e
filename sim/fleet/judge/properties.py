"""What a scheduler is judged by: properties, how grave an offence is, and what is said of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["rule", "conduct", "remark"]

PROPERTIES = {
    1: "devices: none is held twice, none beyond its node's capacity",
    2: "gangs: all devices of a job or none, of the right number",
    3: "conservation: one final state per job, work adds up",
    4: "causality: nothing before its cause, time never runs back",
    5: "wishes: accelerator types, one type per gang, nodes, leaves and pods",
    6: "quotas: no tenant beyond its limit, loans are called back in time",
    7: "promises: no start that was promised is put off",
    8: "starvation: every job starts, within the claimed wait",
    9: "interruption: only whom the claims allow, after grace, from the last checkpoint",
    10: "recovery: nothing runs on a node that is down or drained",
    11: "determinism: the same bytes again, simultaneous events in order",
    12: "work conservation: no idle devices beside a waiting job that fits them",
    13: "protocol: the same log through another door",
    14: "refusals: no job is turned away that could run",
    15: "idleness: devices do not stand idle while every waiting job fits them",
    16: "order: no priority, tenant or class is passed over without a reason",
    17: "purpose: nobody is interrupted in vain",
    18: "nodes: drained with cause, undrained only by whom drained them",
    19: "progress: jobs are not moved about without getting on",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """An offence, or a remark, on a record."""

    at: int  # index of the record
    why: str
    severity: Severity = "rule"
    count: int = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one property."""

    number: int
    status: str  # 'holds', 'violated', 'bad conduct', 'remark', 'not claimed', 'not checked'
    count: int = 0  # offending records
    first: int = -1  # index of the first offending record
    why: str = ""
    context: tuple[str, ...] = ()  # that record and what led to it, as text
    severity: str = ""  # 'rule', 'conduct' or 'remark'; empty where nothing was found

    @property
    def title(self) -> str:
        """The property in words."""
        return PROPERTIES[self.number]

    @property
    def convicts(self) -> bool:
        """Tell whether it speaks against the scheduler: a broken rule, or bad conduct."""
        return self.severity in ("rule", "conduct")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings on a log, in the order of the properties."""

    policy: str
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Tell whether nothing speaks against the scheduler; remarks do not."""
        return not any(f.convicts for f in self.findings)

    @property
    def first(self) -> Finding | None:
        """What speaks against it: the gravest kind, and of that the earliest offending record."""
        bad = [f for f in self.findings if f.convicts]
        return min(bad, key=lambda f: (f.severity != "rule", f.first, f.number), default=None)

    @property
    def remarks(self) -> tuple[Finding, ...]:
        """What is worth knowing and no offence."""
        return tuple(f for f in self.findings if f.severity == "remark")
