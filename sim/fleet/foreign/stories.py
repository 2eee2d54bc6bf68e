"""From what became of each job, as another system tells it, to the one event log.

A story says when a job came, where it ran from when to when, and how each attempt ended. What a foreign
log does not hold is careful: nodes without a list are as large as what ran on them at once, devices of a
node that are only counted are the lowest free ones, checkpoints are unknown (an interrupted job starts
over), and limits, reservations or quotas of the system are not known, so that its conduct is remarked on
and not convicted.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.sim.fleet.cluster import Cluster, FleetNode, Placement, lowest
from ersatz.sim.fleet.log import DONE, TIME_UP, Claims, Log, Record, Rules
from ersatz.sim.fleet.workload.jobs import Job

MOST_PROBLEMS = 50
_DOWN, _END, _UP, _SUBMIT, _START, _LATE = range(6)  # order within an instant


@dataclass(frozen=True, slots=True)
class Ran:
    """One attempt of a job; `how` is a word of the log, `abandon` a job that failed for good."""

    start_s: float
    end_s: float  # infinite: it runs when the log ends
    how: str
    on: Mapping[str, int]  # node -> number of devices
    detail: str = ""
    masks: Mapping[str, int] = field(
        default_factory=dict
    )  # node -> which devices, where that is known


@dataclass(frozen=True, slots=True)
class Story:
    """What became of a job; times in seconds of any clock."""

    id: str
    line: int  # of the file where it is told
    submit_s: float
    devices: int
    attempts: tuple[Ran, ...] = ()
    tenant: str = ""
    priority: int = 0
    limit_s: float = math.inf
    place: str = ""  # partition or kind of device that it asks for
    gone_s: float = math.inf  # when it was given up without running
    gone: str = ""  # 'reject' or 'abandon', and why
    why: str = ""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A log from elsewhere, and what was assumed in reading it."""

    log: Log
    notes: tuple[str, ...]


def make_log(
    path: Path, stories: Sequence[Story], fleet: Cluster | None, about: Mapping[str, str], *,
    notes: Sequence[str] = (), slack_s: float = 0.0, outages: Iterable[tuple[float, str, str]] = (),
    own_rules: str = "",
) -> Foreign:  # fmt: skip
    """Return the log of stories; raises `InputError` for what cannot be.

    `outages` are (time, 'down' or 'up', node); `own_rules` is what the system obeys that is not told.
    """
    if not stories:
        raise InputError([Problem(str(path), 0, 0, "", "", "has no job")])
    told = list(notes)
    if fleet is None:
        fleet = _fleet_of(stories)
        told.append(
            "nodes are as large as what ran on them at once; give --fleet for their true size"
        )
    _check_nodes(path, stories, fleet)
    fleet, allowed = _by_place(stories, fleet)
    origin = min(story.submit_s for story in stories)
    log = Log(
        fleet, Rules(slack_s=slack_s), Claims(preempts="any", own_rules=own_rules), dict(about)
    )
    rows: list[tuple[float, int, int, int, Record]] = []
    for number, story in enumerate(stories):
        log.jobs[story.id] = _job(path, story, origin, allowed)
        rows += [(t, order, number, ran, r) for t, order, ran, r in _told(story, origin)]
    for time_s, event, node in outages:
        if node in fleet.index:
            at = time_s - origin
            rows.append((at, _DOWN if event == "down" else _UP, 0, 0,
                         Record(at, event, node=fleet.index[node])))  # fmt: skip
    log.records = list(_placed(fleet, stories, sorted(rows, key=lambda row: row[:3])))
    over = all(_ended(story) for story in stories)
    end = log.records[-1].time_s if log.records else 0.0
    log.records.append(Record(end, "end", value=DONE if over else TIME_UP))
    told.append("work between interruptions is lost: checkpoints are not in the log"
                if any(len(s.attempts) > 1 for s in stories) else "")  # fmt: skip
    return Foreign(log, tuple(note for note in told if note))


def _ended(story: Story) -> bool:
    last = story.attempts[-1].how if story.attempts else story.gone
    return last in ("finish", "timeout", "abandon", "reject")


def _fleet_of(stories: Sequence[Story]) -> Cluster:
    """Return the smallest fleet on which everything has room."""
    steps: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
    for story in stories:
        for ran in story.attempts:
            for node, count in ran.on.items():
                steps[node] += [(ran.start_s, 1, count), (ran.end_s, 0, -count)]
    nodes = []
    for name in sorted(steps, key=_natural):
        held = most = 0
        for _, _, change in sorted(steps[name]):
            held += change
            most = max(most, held)
        nodes.append(FleetNode(name, "node", most))
    return Cluster(tuple(nodes), "fleet")


def _natural(name: str) -> tuple[str, int, str]:
    """Order names that end in a number by it."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or -1), name


def _check_nodes(path: Path, stories: Sequence[Story], fleet: Cluster) -> None:
    unknown = {node: story.line for story in stories for ran in story.attempts for node in ran.on
               if node not in fleet.index}  # fmt: skip
    if unknown:
        raise InputError(
            Problem(str(path), line, 1 if line else 0, "", node,
                    f"is no node of the fleet{did_you_mean(node, fleet.index)}")
            for node, line in list(unknown.items())[:MOST_PROBLEMS])  # fmt: skip


def _by_place(
    stories: Sequence[Story], fleet: Cluster
) -> tuple[Cluster, dict[str, tuple[str, ...]]]:
    """Return the fleet with its nodes told apart by who was seen to run there, and who may where.

    A job counts as one that fits only where jobs of its partition were seen: a partition's true nodes
    are not in the log.
    """
    seen: dict[str, set[str]] = defaultdict(set)
    for story in stories:
        for ran in story.attempts:
            for node in ran.on:
                seen[node].add(story.place)
    places = {story.place for story in stories}
    if len(places) < 2 or (all(found == places for found in seen.values()) and (
            len(seen) == len(fleet.nodes))):  # fmt: skip
        return fleet, {}
    kinds = {
        n.name: "-".join(sorted(_name(p) or "any" for p in seen[n.name])) or "unused"
        for n in fleet.nodes
    }
    several = len(set(kinds.values())) > 1
    nodes = tuple(
        FleetNode(n.name, _name(f"{n.type}.{kinds[n.name]}") if several else n.type, n.devices, n.leaf, n.pod,
                  n.cpu_milli, n.memory_mib) for n in fleet.nodes)  # fmt: skip
    allowed = {
        place: tuple(dict.fromkeys(n.type for n in nodes if place in seen[n.name]))
        for place in places
    }
    return Cluster(nodes, fleet.name), allowed


def _job(path: Path, story: Story, origin: float, allowed: Mapping[str, tuple[str, ...]]) -> Job:
    done = [r.end_s - r.start_s for r in story.attempts if r.end_s < math.inf]
    try:
        return Job(story.id, story.submit_s - origin, story.devices, done[-1] if done else 0.0,
                   _name(story.tenant), story.priority, allowed.get(story.place, ()),
                   walltime_s=story.limit_s, mixed=True)  # fmt: skip
    except ValueError as error:
        raise InputError([Problem(str(path), story.line, 1, "", "", str(error))]) from error


def _name(text: str) -> str:
    """Return a name of somebody else's as one of ours: signs that ours do not have become a line."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip("-.")


def _told(story: Story, origin: float) -> list[tuple[float, int, int, Record]]:
    """Return a story's records with their order and attempt, without the devices."""
    at = story.submit_s - origin
    rows = [(at, _SUBMIT, 0, Record(at, "submit", story.id))]
    for number, ran in enumerate(story.attempts):
        start, end = ran.start_s - origin, ran.end_s - origin
        rows.append((start, _START, number, Record(start, "start", story.id, value=1.0)))
        if end == math.inf:
            continue
        order = _END if end > start else _LATE
        event = "fail" if ran.how == "abandon" else ran.how
        work = end - start if event in ("finish", "timeout") else 0.0
        detail = f"kill; {ran.detail}" if event == "preempt" else ran.detail
        rows.append((end, order, number, Record(end, event, story.id, value=work, detail=detail)))
        if ran.how == "abandon":
            rows.append((end, order, number, Record(end, "abandon", story.id, detail=ran.detail)))
    if story.gone and story.gone_s < math.inf:
        at = story.gone_s - origin
        rows.append((at, _LATE, 0, Record(at, story.gone, story.id, detail=story.why)))
    return rows


def _placed(
    fleet: Cluster, stories: Sequence[Story], rows: Sequence[tuple[float, int, int, int, Record]]
) -> Iterable[Record]:
    """Yield the records with devices; where more is held than there is, a device is held twice.

    Attempts of one job may overlap, as a log has them: each gives back what it took itself.
    """
    busy: Counter[tuple[int, int]] = Counter()  # (node, device) -> by how many
    held: dict[tuple[int, int], Placement] = {}  # by story: two may tell of one job
    for _, _, number, attempt, record in rows:
        if record.event == "start":
            ran = stories[number].attempts[attempt]
            placement = held[number, attempt] = tuple(sorted(
                (fleet.index[node], ran.masks.get(node) or _lowest(fleet, busy, fleet.index[node], count))
                for node, count in ran.on.items()))  # fmt: skip
            _count(busy, placement, 1)
            yield record._replace(placement=placement)
        elif record.event in ("finish", "fail", "preempt", "timeout"):
            placement = held.pop((number, attempt))
            _count(busy, placement, -1)
            yield record._replace(placement=placement)
        else:
            yield record


def _count(busy: Counter[tuple[int, int]], placement: Placement, by: int) -> None:
    for node, mask in placement:
        for slot in range(mask.bit_length()):
            if mask >> slot & 1:
                busy[node, slot] += by


def _lowest(fleet: Cluster, busy: Counter[tuple[int, int]], node: int, count: int) -> int:
    """Return the lowest free devices of a node, and more than it has where more were given."""
    size = fleet.nodes[node].devices
    free = sum(1 << slot for slot in range(size) if not busy[node, slot])
    mask = lowest(free, count)
    missing = count - mask.bit_count()
    rest = ((1 << size) - 1) & ~mask
    mask |= lowest(rest, missing)
    beyond = count - mask.bit_count()
    return mask | ((1 << beyond) - 1) << size
