"""What Slurm's accounting says of jobs that have run: `sacct -P`, with or without duplicates (-D).

    sacct -a -X -D -P -S now-30days --format=JobID,User,Account,Partition,Submit,Eligible,Start,End,State,\\
          Timelimit,NNodes,AllocTRES,ReqTRES,NodeList

Devices are GPUs (gres/gpu); in a log without any, processors. Steps (12.batch) are left out. A job that
became eligible after it was submitted (dependencies, --begin, holds) counts from then on. Slurm's
priorities say in which order it meant to start jobs, not how urgent they are to anybody: left out.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ersatz.device_models.text.problems import InputError, Problem
from ersatz.sim.fleet.cluster import Cluster
from ersatz.sim.fleet.foreign.hostlist import expand
from ersatz.sim.fleet.foreign.stories import Foreign, Ran, Story, make_log
from ersatz.sim.fleet.workload.traces.rows import CellError, Row, csv_rows, items_of

NEEDED = ("JobID", "Submit", "Start", "End", "State", "NodeList")
SIZES = ("AllocTRES", "ReqTRES", "AllocCPUS", "NCPUS", "ReqCPUS")
# How Slurm ends an attempt, and the event that it is here.
ENDS = {
    "COMPLETED": "finish", "TIMEOUT": "timeout", "DEADLINE": "timeout", "PREEMPTED": "preempt",
    "REQUEUED": "fail", "NODE_FAIL": "fail", "BOOT_FAIL": "fail", "FAILED": "abandon",
    "CANCELLED": "abandon", "OUT_OF_MEMORY": "abandon", "REVOKED": "abandon",
}  # fmt: skip
GOING_ON = frozenset({"RUNNING", "PENDING", "SUSPENDED", "RESIZING", "COMPLETING", "CONFIGURING"})
UNKNOWN = frozenset({"", "Unknown", "None", "N/A"})
_GPUS = re.compile(r"(?:^|,)gres/gpu(?::[^=,]+)?=([0-9]{1,9})(?=,|$)")
_ALL_GPUS = re.compile(r"(?:^|,)gres/gpu=([0-9]{1,9})(?=,|$)")
_CPUS = re.compile(r"(?:^|,)cpu=([0-9]{1,9})(?=,|$)")
_LIMIT = re.compile(r"(?:([0-9]{1,6})-)?([0-9]{1,9})(?::([0-9]{2}))?(?::([0-9]{2}))?$")


def read_sacct(path: Path, fleet: Cluster | None = None) -> Foreign:
    """Read the output of `sacct -P`; raises `InputError` with every row that cannot be read."""
    rows = [row for row in csv_rows(path, NEEDED, delimiter="|") if "." not in row.text("JobID")]
    if rows and not any(key in rows[0].cells for key in SIZES):
        raise InputError([Problem(str(path), 1, 1, "AllocTRES", "",
                                  f"column is missing; expected one of {', '.join(SIZES)}")])  # fmt: skip
    gpus = any(_GPUS.search(row.text(key)) for row in rows for key in ("AllocTRES", "ReqTRES"))
    size = _gpus if gpus else _cpus
    parts: dict[str, list[Story]] = defaultdict(list)
    for story in items_of(path, rows, lambda row: _story(row, size)):
        parts[story.id].append(story)
    stories = [_joined(found) for found in parts.values()]
    later = sum(row.text("Eligible") not in UNKNOWN and row.text("Eligible") > row.text("Submit")
                for row in rows)  # fmt: skip
    notes = [
        "" if gpus else "the log has no GPUs: processors are the devices",
        f"{later:,} jobs were eligible later than submitted and count from then" if later else "",
        "Slurm's own limits, reservations and QOS are not in the log: its conduct is only remarked on",
    ]
    return make_log(path, stories, fleet, {"policy": "slurm", "workload": path.name, "door": "sacct"},
                    notes=notes, slack_s=1.0, own_rules="Slurm's configuration")  # fmt: skip


def _story(row: Row, size: Callable[[Row], int]) -> Story:
    """Return one row as a job with one attempt, or none."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", row.text("JobID"))  # an array's 7_[1-3], a part's 7+1
    state = row.text("State").split(" ")[0].rstrip("+")
    submit, start, end = (_clock(row, key) for key in ("Submit", "Start", "End"))
    eligible = _clock(row, "Eligible")
    if submit == math.inf:
        raise CellError("Submit", row.text("Submit"), "expected a time like 2026-01-31T12:00:00")
    if state not in ENDS and state not in GOING_ON:
        raise CellError(
            "State", row.text("State"), f"expected one of {', '.join((*ENDS, *GOING_ON))}"
        )
    devices, nodes = size(row), _nodes(row)
    tenant = row.text("Account") or row.text("User")
    submit = eligible if submit < eligible <= min(start, end) and eligible < math.inf else submit
    story = Story(
        name, row.line, submit, devices, (), tenant, 0, _limit(row), row.text("Partition")
    )
    if not nodes or start == math.inf:
        gone = "abandon" if ENDS.get(state) == "abandon" and end < math.inf else ""
        return Story(name, row.line, submit, devices, (), tenant, 0, _limit(row), row.text("Partition"),
                     end, gone, state.lower())  # fmt: skip
    if end < start:
        raise CellError("End", row.text("End"), "expected not before its start")
    if start < submit:
        raise CellError("Start", row.text("Start"), "expected not before its submission")
    each = _spread(devices, nodes)
    ran = Ran(
        start, end if state in ENDS else math.inf, ENDS.get(state, ""), each, f"slurm: {state}"
    )
    return Story(
        story.id, story.line, submit, devices, (ran,), tenant, 0, story.limit_s, story.place
    )


def _joined(parts: list[Story]) -> Story:
    """Return the attempts of a job that was requeued as one story."""
    if len(parts) == 1:
        return parts[0]
    attempts = sorted((ran for story in parts for ran in story.attempts), key=lambda r: r.start_s)
    last = parts[-1]
    return Story(last.id, last.line, min(s.submit_s for s in parts), last.devices, tuple(attempts),
                 last.tenant, 0, last.limit_s, last.place,
                 last.gone_s, last.gone, last.why)  # fmt: skip


def _gpus(row: Row) -> int:
    for key in ("AllocTRES", "ReqTRES"):
        text = row.text(key)
        if match := _ALL_GPUS.search(text):
            return int(match[1])
        if found := _GPUS.findall(text):
            return sum(map(int, found))
    return 0


def _cpus(row: Row) -> int:
    for key in ("AllocTRES", "ReqTRES"):
        if match := _CPUS.search(row.text(key)):
            return int(match[1])
    return next((row.count(key) for key in SIZES[2:] if row.text(key)), 0)


def _nodes(row: Row) -> list[str]:
    text = row.text("NodeList")
    if text in UNKNOWN or text.startswith("None"):
        return []
    try:
        return expand(text)
    except ValueError as error:
        raise CellError("NodeList", text, str(error)) from None


def _spread(devices: int, nodes: list[str]) -> dict[str, int]:
    """Return devices shared out evenly; the first nodes get what is left over."""
    each, over = divmod(devices, len(nodes))
    return {node: each + (i < over) for i, node in enumerate(nodes)}


def _clock(row: Row, key: str) -> float:
    text = row.text(key)
    if text in UNKNOWN:
        return math.inf
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise CellError(key, text, "expected a time like 2026-01-31T12:00:00") from None


def _limit(row: Row) -> float:
    """Return a limit as D-HH:MM:SS, HH:MM:SS or MM:SS in seconds."""
    text = row.text("Timelimit")
    if text in UNKNOWN or text in ("UNLIMITED", "Partition_Limit"):
        return math.inf
    match = _LIMIT.match(text)
    if not match:
        raise CellError("Timelimit", text, "expected a time like 1-12:00:00")
    days, first, second, third = match.groups()
    parts = [int(p) for p in (first, second, third) if p is not None]
    if days or len(parts) == 3:
        hours, minutes, seconds = [*parts, 0, 0][:3]
        value = int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds
    else:
        value = parts[0] * 60 + (parts[1] if len(parts) > 1 else 0)
    return float(value) or math.inf
