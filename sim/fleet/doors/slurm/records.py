"""From Slurm's own records to the one event log.

Sources: the job completion file (a line per attempt: times, state) and, since that names only nodes,
what each job wrote down at its start about the devices that it got. Slurm's clock counts whole
seconds. An emulated job takes somewhat longer than its work: launching and ending it under a fast
clock costs virtual seconds; the log says so as a rate below 1. It keeps no checkpoints: interrupted,
it starts over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ersatz.sim.fleet.cluster import Cluster, Placement
from ersatz.sim.fleet.doors.slurm.daemons import SlurmError
from ersatz.sim.fleet.doors.slurm.strikes import Struck
from ersatz.sim.fleet.log import BROKEN_OFF, DONE, Claims, Log, Quota, Record, Rules
from ersatz.sim.fleet.workload.jobs import Job

# How Slurm ends an attempt, and the event that it is here. The others wait again afterwards.
ENDS = {
    "COMPLETED": "finish", "TIMEOUT": "timeout", "DEADLINE": "timeout", "PREEMPTED": "preempt",
    "REQUEUED": "fail", "NODE_FAIL": "fail", "BOOT_FAIL": "fail", "FAILED": "abandon",
    "CANCELLED": "abandon", "OUT_OF_MEMORY": "abandon", "REVOKED": "abandon",
}  # fmt: skip
WAITS_AGAIN = frozenset({"preempt", "fail"})  # a node may fail before the job on it has started
MOST_DIGITS = 6  # of a node or device: more than a million nobody has
SLACK_S = 1.0  # how exactly Slurm's times are known
_FINISH, _DOWN, _FAIL, _UP, _SUBMIT, _START, _LATE = range(7)  # the order within a second
Row = tuple[float, int, int, Record]


@dataclass(frozen=True, slots=True)
class Completion:
    """One attempt of a job; times in seconds of the fast clock since its origin."""

    slurm_id: int
    state: str
    submit_s: float
    start_s: float
    end_s: float
    nodes: tuple[int, ...] = ()
    lost_node: int = -1  # by whose failure it ended


@dataclass(frozen=True, slots=True)
class Submission:
    """A job as it was handed to Slurm; `refused` says why it was not taken."""

    job: Job
    at_s: float
    slurm_id: int = 0
    refused: str = ""


def read_completions(path: Path, origin: float) -> list[Completion]:
    """Read Slurm's job completion file, complete lines only; an absent file has none."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return []
    return [_completion(line, origin) for line in text.splitlines(keepends=True)
            if line.endswith("\n") and line.strip()]  # fmt: skip


def _completion(line: str, origin: float) -> Completion:
    fields = dict(re.findall(r"(\w+)=(\S*)", line))
    try:
        submit, start, end = (
            _seconds(fields[key], origin) for key in ("SubmitTime", "StartTime", "EndTime")
        )
        state = fields["JobState"].split("+")[0]
        listed = fields.get("NodeList", "")
        nodes = tuple(_numbers(listed.strip("n[]"))) if listed.startswith("n") else ()
        return Completion(int(fields["JobId"]), state, submit, start, end, nodes)
    except (KeyError, ValueError) as error:
        raise SlurmError(f"its completion record cannot be read ({error}): {line[:80]!r}") from None


def _seconds(text: str, origin: float) -> float:
    if text == "Unknown":
        return -1.0  # never started
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() - origin


def parse_taken(text: str) -> Placement:
    """Return the devices in the text of `scontrol -d show job`."""
    masks: dict[int, int] = {}
    for nodes, gres in re.findall(r"\sNodes=(\S+) CPU_IDs=\S* Mem=\S* GRES=(\S*)", text):
        found = re.search(r"\(IDX:([\d,-]+)\)", gres)
        mask = sum(1 << slot for slot in _numbers(found[1])) if found else 0
        for node in _numbers(nodes.strip("n[]")):
            masks[node] = mask
    return tuple(sorted(masks.items()))


def _numbers(text: str) -> Iterator[int]:
    """Yield the numbers of '0-3,7'."""
    for part in text.split(","):
        low, _, high = part.partition("-")
        ends = (low, high or low)
        if not all(end.isdecimal() and len(end) <= MOST_DIGITS for end in ends):
            raise SlurmError(f"its note of nodes and devices cannot be read: {text[:80]!r}")
        yield from range(int(low), int(high or low) + 1)


def make_log(
    cluster: Cluster, submissions: list[Submission], completions: list[Completion], taken: Path,
    about: dict[str, str], *, struck: Sequence[Struck] = (), broken: str = "",
    preempts: bool = False, quotas: Mapping[str, Quota] | None = None, clock_s: float = SLACK_S,
) -> Log:  # fmt: skip
    """Return the event log of a replay; `broken` says why it was broken off.

    By `clock_s` our fast clock and Slurm's may differ.
    """
    claims = Claims(preempts="any" if preempts else "never")
    log = Log(cluster, Rules(quotas or {}, slack_s=SLACK_S), claims, about)
    rows, ended = _node_rows(struck, completions, taken, clock_s)
    attempts: dict[int, list[Completion]] = {}
    for completion in ended:
        attempts.setdefault(completion.slurm_id, []).append(completion)
    for number, submission in enumerate(submissions):
        mine = attempts.get(submission.slurm_id, [])
        at = mine[0].submit_s if mine else submission.at_s
        job = log.jobs[submission.job.id] = replace(
            submission.job, submit_s=max(at, 0.0), checkpoint_s=0.0, restart_s=0.0, save_s=0.0
        )
        rows.append((job.submit_s, _SUBMIT, number, Record(job.submit_s, "submit", job.id)))
        if submission.refused:
            rows.append((job.submit_s, _START, number,
                         Record(job.submit_s, "reject", job.id, detail=submission.refused)))  # fmt: skip
        for restarts, attempt in enumerate(mine):
            path = taken / f"{attempt.slurm_id}.{restarts}"
            rows += [(at, order, number, record)
                     for at, order, record in _attempt(cluster, job, attempt, path)]  # fmt: skip
    rows.sort(key=lambda row: row[:3])
    log.records = [row[3] for row in rows]
    how, why = (BROKEN_OFF, broken) if broken else (DONE, "all jobs are over")
    log.records.append(Record(log.end_s, "end", value=how, detail=why))
    return log


def _node_rows(
    struck: Sequence[Struck], completions: Sequence[Completion], taken: Path, clock_s: float
) -> tuple[list[Row], list[Completion]]:
    """Return the records of nodes, and the completions with the node by whose failure they ended.

    A node is down from the second in which its jobs ended. Without any it counts as down (or drained)
    from the second after the order was carried out, and as up from the one in which it was given:
    nothing can have started there in between.
    """
    ended = list(completions)
    places = _places(completions, taken)
    rows: list[Row] = []
    for number, (strike, from_s, to_s) in enumerate((s.strike, s.from_s, s.to_s) for s in struck):
        at, order = (from_s, _UP) if strike.action in ("up", "undrain") else (to_s + 1, _DOWN)
        if strike.action == "down":
            hit = [i for i, c in enumerate(ended) if c.state == "NODE_FAIL" and c.lost_node < 0
                   and from_s - clock_s <= c.end_s <= to_s + clock_s
                   and strike.node in places[i]]  # fmt: skip
            if hit:
                at = min(ended[i].end_s for i in hit)
                at += any(ended[i].start_s >= at for i in hit)  # ended as soon as it had started
                for i in hit:
                    ended[i] = replace(ended[i], end_s=at, lost_node=strike.node)
        record = Record(at, strike.action, node=strike.node, detail=strike.cause)
        rows.append((at, order, number, record))
    return rows, ended


def _places(completions: Sequence[Completion], taken: Path) -> list[set[int]]:
    """Return the nodes of each attempt."""
    restarts: dict[int, int] = {}
    places = []
    for completion in completions:
        number = restarts[completion.slurm_id] = restarts.get(completion.slurm_id, -1) + 1
        path = taken / f"{completion.slurm_id}.{number}"
        places.append({n for n, _ in parse_taken(path.read_text())} if path.exists() else set())
    return places


def _attempt(
    cluster: Cluster, job: Job, attempt: Completion, path: Path
) -> Iterator[tuple[float, int, Record]]:
    """Yield start and end of one attempt, with their order within a second.

    One that was broken off before it could note its devices held whole nodes, or did not begin.
    """
    event = ENDS.get(attempt.state)
    if event is None:
        raise SlurmError(f"job {job.id} ended in a state that is not known: {attempt.state}")
    start, end = attempt.start_s, attempt.end_s
    if start < 0:  # never started: it waits again, or its owner gave it up while it waited
        if event not in WAITS_AGAIN:
            yield end, _LATE, Record(end, "abandon", job.id, detail=f"slurm: {attempt.state}")
        return
    placement = parse_taken(path.read_text()) if path.exists() else ()
    if not placement and event in WAITS_AGAIN:
        placement = tuple((node, (1 << cluster.nodes[node].devices) - 1) for node in attempt.nodes)
        if sum(mask.bit_count() for _, mask in placement) != job.devices:
            return
    if not placement and job.devices:
        raise SlurmError(f"job {job.id} left no note of the devices that it got")
    work = {"finish": job.duration_s, "timeout": job.walltime_s}.get(event, 0.0)
    rate = work / (end - start) if work and end > start else 1.0
    yield start, _START, Record(start, "start", job.id, placement, value=rate)
    detail = "" if event == "finish" else f"slurm: {attempt.state}"
    if event == "preempt":
        detail = f"kill; {detail}"
    final = Record(end, event, job.id, placement, attempt.lost_node, work, detail)
    if attempt.lost_node >= 0:
        yield end, _FAIL, final
        return
    if event == "abandon":  # ends the attempt and the job
        final = final._replace(event="fail", value=0.0)
    yield end, _FINISH if end > start else _LATE, final
    if event == "abandon":
        yield end, _FINISH if end > start else _LATE, Record(end, event, job.id, detail=detail)
