"""A slurm.conf of one's own: its partitions, priorities, preemption and scheduler, on emulated nodes.

Taken over is what decides who runs when; what says where Slurm lives, how it is secured or what it runs
(paths, hosts, plug-ins of nodes, prologues) is not, and that is told. Nodes are emulated: the file's own
stand for the fleet's in their order. What needs Slurm's data base (fair share, QOS, limits of accounts)
is taken over as well, and then one is started (`base`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ersatz.device_models.text.files import read_text_file
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.fleet.cluster import Cluster
from ersatz.sim.fleet.foreign.hostlist import expand
from ersatz.sim.fleet.workload.jobs import Job

TAKEN = frozenset({
    "prioritytype", "priorityweightage", "priorityweightjobsize", "priorityweightpartition",
    "prioritydecayhalflife", "prioritymaxage", "priorityfavorsmall", "priorityflags",
    "prioritycalcperiod", "preempttype", "preemptmode", "preemptexempttime", "enforcepartlimits",
    "killwait", "overtimelimit", "jobrequeue", "schedulertype", "schedulerparameters",
})  # fmt: skip
OF_PARTITIONS = frozenset({
    "partitionname", "nodes", "default", "maxtime", "defaulttime", "prioritytier", "priorityjobfactor",
    "preemptmode", "gracetime", "maxnodes", "minnodes", "state", "oversubscribe", "llnorder", "lln",
    "overtimelimit", "exclusiveuser", "qos",
})  # fmt: skip
DATA_BASE = frozenset(
    {
        "priorityweightfairshare",
        "priorityweightqos",
        "priorityweightassoc",
        "priorityweighttres",
        "priorityusageresetperiod",
        "fairsharedampeningfactor",
        "accountingstorageenforce",
    }
)
NOTHING = frozenset({"", "0", "none"})
# What is enforced of accounts; of the rest, wckeys are nobody's here, and the others keep no records.
ENFORCED = ("associations", "limits", "qos", "safe")  # fmt: skip
BUDGETS = frozenset({"bf_interval", "bf_max_time", "sched_interval", "max_sched_time"})
VALUE = re.compile(r"[A-Za-z0-9_.,:/=+*\[\]-]{1,2000}")
MOST_LINES = 20_000
Settings = dict[str, str]


@dataclass(frozen=True, slots=True)
class Given:
    """What a slurm.conf says of who runs when."""

    settings: Settings  # key as the file writes it -> value
    base: Settings  # likewise, of what needs Slurm's data base
    partitions: tuple[Settings, ...]
    nodes: tuple[str, ...]  # the file's own, in their order
    notes: tuple[str, ...]

    @property
    def default(self) -> str:
        """The partition of jobs that name none: the default one, else the first."""
        found = [p["PartitionName"] for p in self.partitions if _of(p, "default").upper() == "YES"]
        return found[0] if found else self.partitions[0]["PartitionName"]

    def partition_of(self, job: Job) -> str:
        """Return where a job goes: to the partition of its tenant's name, its class's, or the default."""
        known = {p["PartitionName"] for p in self.partitions}
        return next(
            (n for n in (job.tenant, job.id.rpartition("-")[0]) if n in known), self.default
        )

    @property
    def needs_base(self) -> bool:
        """Whether anything of the file has an effect with Slurm's data base only."""
        return any(value.lower() not in NOTHING for value in self.base.values()) or any(
            _of(partition, "qos") for partition in self.partitions
        )

    @property
    def enforced(self) -> list[str]:
        """What the file has Slurm enforce of accounts."""
        asked = _of(self.base, "accountingstorageenforce").lower().split(",")
        return [flag for flag in ENFORCED if flag in asked or "all" in asked]

    def parameters(self, ours: str) -> str:
        """Return the scheduler's parameters: the file's, but for budgets of time, which follow the clock."""
        theirs = [p for p in _of(self.settings, "schedulerparameters").split(",") if p]
        kept = [p for p in theirs if p.partition("=")[0] not in BUDGETS]
        names = {p.partition("=")[0] for p in kept}
        return ",".join([*kept, *(p for p in ours.split(",") if p.partition("=")[0] not in names)])


def _of(settings: Settings, key: str) -> str:
    return next((value for name, value in settings.items() if name.lower() == key), "")


def _joined(pairs: Iterable[tuple[str, str]]) -> Settings:
    """Return settings of which the last of a name counts: Slurm's names have no case."""
    found: dict[str, tuple[str, str]] = {}
    for name, value in pairs:
        low = name.lower()
        found[low] = ("PartitionName" if low == "partitionname" else name, value)
    return dict(found.values())


def read_conf(path: Path | str, cluster: Cluster) -> Given:
    """Read a slurm.conf for a fleet; raises `InputError` with every line that cannot be carried over."""
    settings: Settings = {}
    base: Settings = {}
    partitions: list[Settings] = []
    nodes: list[str] = []
    left: dict[str, int] = {}
    problems: list[Problem] = []
    for number, line in _lines(read_text_file(path, "a slurm.conf")):
        words = re.findall(r"(\w+)\s*=\s*(\S+)", line)
        first = words[0][0].lower() if words else line.split()[0].lower()
        try:
            if not words:
                raise ValueError(
                    "is no KEY=VALUE" + (": name one whole file" if first == "include" else "")
                )
            if first == "nodename":
                nodes += [] if words[0][1].upper() == "DEFAULT" else expand(words[0][1])
            elif first == "partitionname":
                partitions.append(
                    _joined((k, sound(v)) for k, v in words if k.lower() in OF_PARTITIONS)
                )
                left |= {k: number for k, _ in words if k.lower() not in OF_PARTITIONS}
            else:
                for key, value in words:
                    if key.lower() in TAKEN:
                        settings = _joined([*settings.items(), (key, sound(value))])
                    elif key.lower() in DATA_BASE:
                        base = _joined([*base.items(), (key, sound(value))])
                    else:
                        left[key] = number
        except ValueError as error:
            problems.append(Problem(str(path), number, 1, first, line[:60], str(error)))
    named = [p for p in partitions if p["PartitionName"].upper() != "DEFAULT"]
    defaults = next((p for p in partitions if p["PartitionName"].upper() == "DEFAULT"), {})
    if not named and not problems:
        problems.append(Problem(str(path), 0, 0, "PartitionName", "", "names no partition"))
    if nodes and len(nodes) != len(cluster.nodes):
        problems.append(Problem(str(path), 0, 0, "NodeName", "", f"has {len(nodes)} nodes, the fleet"
                                f" {len(cluster.nodes)}; expected as many"))  # fmt: skip
    if problems:
        raise InputError(problems)
    whole = tuple(_joined([*defaults.items(), *p.items()]) for p in named)
    given = Given(settings, base, whole, tuple(nodes), _notes(left))
    for partition in whole:  # every fault of a name before anything is started
        nodes_of(given, partition, str(path))
    return given


def _lines(text: str) -> list[tuple[int, str]]:
    """Return lines with their numbers, comments dropped and continued ones joined."""
    found: list[tuple[int, str]] = []
    joined = ""
    for number, line in enumerate(text.splitlines()[:MOST_LINES], 1):
        line = joined + line.partition("#")[0].rstrip()
        joined = line[:-1] if line.endswith("\\") else ""
        if not joined and line.strip():
            found.append((number, line.strip()))
    return found


def sound(value: str) -> str:
    """Return a value of Slurm's as it is; raises `ValueError` for what is none."""
    if not VALUE.fullmatch(value):
        raise ValueError("holds signs that a value of Slurm's does not have")
    return value


def _notes(left: dict[str, int]) -> tuple[str, ...]:
    names = ", ".join(sorted(left))
    return (f"slurm.conf: not carried over, as nodes are emulated: {names}",) if left else ()


def nodes_of(given: Given, partition: Settings, path: str = "slurm.conf") -> Sequence[int] | None:
    """Return the fleet's nodes of a partition, None for all; raises `InputError` for unknown ones."""
    text = _of(partition, "nodes")
    if not text or text.upper() == "ALL":
        return None
    places = {name: i for i, name in enumerate(given.nodes)}
    try:
        wanted = expand(text)
    except ValueError as error:
        raise InputError([Problem(path, 0, 0, "Nodes", text[:60], str(error))]) from error
    unknown = [name for name in wanted if name not in places]
    if unknown:
        expected = f"is no NodeName of the file (partition {partition['PartitionName']})"
        raise InputError([Problem(path, 0, 0, "Nodes", unknown[0], expected)])
    return sorted(places[name] for name in wanted)
