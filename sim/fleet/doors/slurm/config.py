"""Slurm's configuration, written from the description of a fleet.

One slurmd per node, all on this machine and on loopback; a device is an empty file that Slurm hands
out as a GPU; a leaf is a leaf switch of its tree; each priority is a partition with its tier. Facts
about the options: Slurm 22.05's manual pages slurm.conf(5), gres.conf(5), topology.conf(5).
Quotas, fair shares and QOS need Slurm's data base (`base`). What is not carried over: `carried`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ersatz.device_models.text.names import EXPECTED, is_name
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.fleet.cluster import Cluster
from ersatz.sim.fleet.doors.slurm.accounts import Accounts
from ersatz.sim.fleet.doors.slurm.given import Given, Settings, nodes_of
from ersatz.sim.fleet.workload.jobs import Job, Workload

LAUNCH_S = 60.0  # allowed for launching and ending a job under the fast clock, beside its limit
CPUS = 256  # of an emulated node; a job takes one for each device, so that they never run out


@dataclass(frozen=True, slots=True)
class Site:
    """Where one emulated Slurm lives: its folder, ports, user and clock."""

    folder: Path
    first_port: int  # the controller's; the nodes' follow
    host: str
    user: str
    speed: float = 1.0  # virtual seconds in a real one
    preempt: bool = False  # urgent partitions may requeue others' jobs
    given: Given | None = None  # a slurm.conf of the user's
    accounts: Accounts | None = None  # what Slurm's data base holds; None: there is none
    nodes: int = 0  # how many, each with its port
    kinds: tuple[str, ...] = ()  # accelerator types

    @property
    def conf(self) -> Path:
        """The file that SLURM_CONF names."""
        return self.folder / "slurm.conf"


def node_name(index: int) -> str:
    """Return the name of a fleet's node in Slurm, which wants short ones with a number."""
    return f"n{index}"


def partition_of(priority: int) -> str:
    """Return the name of the partition for a priority; names allow no sign."""
    return f"p{priority}" if priority >= 0 else f"m{-priority}"


def word(text: str) -> str:
    """Return a name that may stand in Slurm's files and commands; raises `InputError` for others.

    Whoever could put more than a name there could have any command run.
    """
    if not is_name(text):
        raise InputError([Problem("--door slurm", 0, 0, "", text[:60], EXPECTED)])
    return text


def _text(lines: Sequence[str]) -> str:
    """Join lines, each of which must be one; raises `InputError` for what would be more or less."""
    for line in lines:
        if not line.isprintable() or "#" in line or "\\" in line:
            expected = "cannot stand in a line of Slurm's configuration"
            raise InputError([Problem("--door slurm", 0, 0, "", line[:60], expected)])
    return "\n".join([*lines, ""])


def message_timeout(site: Site) -> int:
    """Return how long an answer may take, in virtual seconds: some real ones, more with a data base."""
    real_s = 20 if site.accounts else 5
    return 30 if site.speed == 1 else math.ceil(max(30, real_s * site.speed))


def base_port(site: Site) -> int:
    """Return the port of slurmdbd: the one after the nodes'."""
    return site.first_port + 1 + site.nodes


def limit_minutes(job: Job, slowest: float = 1.0) -> int:
    """Return the time limit that Slurm enforces: whole minutes, with room for launching the job.

    `slowest` is the job's lowest rate.
    """
    limit = (
        job.walltime_s / slowest
        if math.isfinite(job.walltime_s)
        else 2.0 * job.duration_s / slowest + 3600.0
    )
    return math.ceil((limit + LAUNCH_S) / 60.0)


def config_files(site: Site, cluster: Cluster, workload: Workload) -> dict[str, str]:
    """Return the text of each configuration file of an emulated Slurm, by file name."""
    return {
        "slurm.conf": _text(
            [*_daemons(site), *_scheduling(site, workload), *_nodes(site, cluster),
             *_partitions(site, workload)]
        ),
        "gres.conf": _text(_gres(site, cluster)),
        "topology.conf": _text(_topology(cluster)),
        "cgroup.conf": "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n",
        "job.sh": _JOB,
        "seconds.awk": _SECONDS,
        "where": _where(cluster),
    }  # fmt: skip


# The job writes down which devices it got, since Slurm's own record names only nodes. Where its time
# depends on them, $1 is a table: type, leaves, seconds; `where` tells each node's type and leaf.
_JOB = """#!/bin/sh
scontrol -o -d show job "$SLURM_JOB_ID" > "$2/$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" &
case "$1" in
*/*) seconds=$(awk -v got="$SLURM_JOB_NODELIST" -f "${2%/*}/seconds.awk" "${2%/*}/where" "$1") ;;
*) seconds=$1 ;;
esac
sleep "$seconds"
wait
"""

# The longest of the types that a job got, on as many leaves as it got, or on any where it asked for fewer.
_SECONDS = """BEGIN {
    gsub(/n|\\[|\\]/, "", got)
    parts = split(got, part, ",")
    for (i = 1; i <= parts; i++) {
        if (split(part[i], end, "-") == 1) end[2] = end[1]
        for (node = end[1] + 0; node <= end[2] + 0; node++) mine[node] = 1
    }
}
FILENAME == ARGV[1] {
    if ($1 in mine) { types[$2] = 1; if (!($3 in leaves)) { leaves[$3] = 1; count++ } }
    next
}
$2 == count { exact[$1] = $3 }
$3 + 0 > any[$1] + 0 { any[$1] = $3 }
END {
    for (type in types) {
        time = (type in exact) ? exact[type] : any[type]
        if (time + 0 > most + 0) most = time
    }
    print most
}
"""


def _where(cluster: Cluster) -> str:
    return "".join(f"{i} {word(node.type)} {node.leaf}\n" for i, node in enumerate(cluster.nodes))


def _daemons(site: Site) -> list[str]:
    folder = site.folder
    expire = math.ceil(max(120, 3 * site.speed))  # a requeued job waits for so long
    return [
        "ClusterName=ersatz",
        f"SlurmctldHost={site.host}(127.0.0.1)",
        f"SlurmctldPort={site.first_port}",
        f"SlurmUser={site.user}",
        f"SlurmdUser={site.user}",
        "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny",  # loopback only
        "AuthType=auth/munge",
        f"AuthInfo=socket={folder}/munge/socket,cred_expire={expire},ttl=3600",
        "CredType=cred/munge",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool/%n",
        f"SlurmdPidFile={folder}/spool/%n.pid",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmctldLogFile={folder}/slurmctld.log",
        f"SlurmdLogFile={folder}/spool/%n.log",
        "MailProg=/bin/true",
        "PrivateData=jobs,nodes,partitions,reservations,usage,users",
        "ProctrackType=proctrack/pgid",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/none",
        "MpiDefault=none",
        "ReturnToService=1",
        "SlurmdTimeout=0",
        "SlurmdParameters=config_overrides",
        "TreeWidth=64",
        f"MessageTimeout={message_timeout(site)}",
        # Half a minute of the machine's own time: what a busy one ends late is no broken node.
        f"UnkillableStepTimeout={math.ceil(max(60, 30 * site.speed))}",
        "JobCompType=jobcomp/filetxt",
        f"JobCompLoc={folder}/jobcomp.txt",
        *_base(site),
        "MaxJobCount=200000",
        *([] if site.given and "enforcepartlimits" in map(str.lower, site.given.settings) else
          ["EnforcePartLimits=ALL"]),  # what can never run is refused when it is submitted
    ]  # fmt: skip


def _base(site: Site) -> list[str]:
    """Where Slurm keeps its accounts, and what it enforces of them."""
    if site.accounts is None:
        return ["AccountingStorageType=accounting_storage/none"]
    flags = dict.fromkeys(site.given.enforced if site.given else [])
    flags |= dict.fromkeys(["associations", "limits"] if site.accounts.limits else [])
    own = {} if site.given is None else site.given.base
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        "AccountingStorageHost=127.0.0.1",
        f"AccountingStoragePort={base_port(site)}",
        f"AccountingStoragePass={site.folder}/munge/socket",
        f"AccountingStorageTRES={','.join(['gres/gpu', *(f'gres/gpu:{k}' for k in site.kinds)])}",
        *(
            [f"AccountingStorageEnforce={','.join(flags)}"] if flags else []
        ),  # it has no word for none
        *(f"{k}={v}" for k, v in own.items() if k.lower() != "accountingstorageenforce"),
    ]


def _scheduling(site: Site, workload: Workload) -> list[str]:
    """Plug-ins of the scheduler; its budgets are virtual seconds and grow with the speed."""
    longest = max((limit_minutes(job) for job in workload.jobs), default=1)
    every = math.ceil(max(1.0, 0.15 * site.speed))
    budgets = (
        f"bf_continue,bf_interval={every},bf_max_time={20 * every},sched_interval={every},"
        f"max_sched_time={10 * every},bf_window={2 * longest + 60},bf_resolution=60,"
        "bf_max_job_test=10000,default_queue_depth=10000,"
        f"max_switch_wait={LEAVES_S:.0f}"
    )
    if site.given:
        own = {k: v for k, v in site.given.settings.items() if k.lower() != "schedulerparameters"}
        decides = [*(f"{key}={value}" for key, value in own.items()),
                   f"SchedulerParameters={site.given.parameters(budgets)}"]  # fmt: skip
    else:
        decides = [
            "SchedulerType=sched/backfill",
            f"SchedulerParameters={budgets}",
            "PriorityType=priority/basic",
            f"PreemptType=preempt/{'partition_prio' if site.preempt else 'none'}",
            f"PreemptMode={'REQUEUE' if site.preempt else 'OFF'}",
        ]
    return [
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core",
        "GresTypes=gpu",
        "TopologyPlugin=topology/tree",
        "TopologyParam=TopoOptional",
        *decides,
    ]


def _nodes(site: Site, cluster: Cluster) -> list[str]:
    """Runs of alike nodes, a line each; the accelerator type is also a feature to constrain by."""
    lines = []
    for (kind, devices), run in groupby(
        range(len(cluster.nodes)), key=lambda i: (cluster.nodes[i].type, cluster.nodes[i].devices)
    ):
        members = list(run)
        first, last = members[0], members[-1]
        port = site.first_port + 1
        lines.append(
            f"NodeName={_span(first, last)} NodeHostname={site.host} NodeAddr=127.0.0.1"
            f" Port={_ports(port + first, port + last)} CPUs={CPUS} Sockets=2"
            f" CoresPerSocket={CPUS // 2} ThreadsPerCore=1 RealMemory=1000000"
            f" Feature={word(kind)} Gres=gpu:{word(kind)}:{devices} State=UNKNOWN"
        )
    return lines


def _span(first: int, last: int) -> str:
    return f"n{first}" if first == last else f"n[{first}-{last}]"


def _ports(first: int, last: int) -> str:
    return f"{first}" if first == last else f"[{first}-{last}]"


def _partitions(site: Site, workload: Workload) -> list[str]:
    if site.given:
        return [_partition(site.given, partition) for partition in site.given.partitions]
    lines = []
    priorities = sorted({job.priority for job in workload.jobs} or {0})
    for tier, priority in enumerate(priorities, start=1):
        name = partition_of(priority)
        lines.append(f"PartitionName={name} Nodes=ALL Default={'YES' if tier == 1 else 'NO'}"
                     f" MaxTime=INFINITE PriorityTier={min(tier, 65533)} State=UP")  # fmt: skip
    return lines


def _partition(given: Given, partition: Settings) -> str:
    """Return a partition as the file has it, on the fleet's nodes."""
    nodes = nodes_of(given, partition)
    rest = [f"{key}={value}" for key, value in partition.items()
            if key.lower() not in ("partitionname", "nodes")]  # fmt: skip
    name = f"PartitionName={word(partition['PartitionName'])}"
    return " ".join([name, f"Nodes={'ALL' if nodes is None else _names(nodes)}", *rest])


def _gres(site: Site, cluster: Cluster) -> list[str]:
    """Nodes share the files that stand for their devices."""
    shapes = dict.fromkeys((node.type, node.devices) for node in cluster.nodes if node.devices)
    members: dict[tuple[str, int], list[int]] = {shape: [] for shape in shapes}
    for index, node in enumerate(cluster.nodes):
        if node.devices:
            members[node.type, node.devices].append(index)
    return [
        f"NodeName={_names(nodes)} Name=gpu Type={word(kind)}"
        f" File={site.folder}/dev/gpu{'0' if devices == 1 else f'[0-{devices - 1}]'}"
        for (kind, devices), nodes in members.items()
    ]


def _names(indices: Sequence[int]) -> str:
    """Write node numbers as Slurm does: n[0-31,64]."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    spans = ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
    return f"n[{spans}]"


def _topology(cluster: Cluster) -> list[str]:
    leaves: dict[int, list[int]] = {}
    for index, node in enumerate(cluster.nodes):
        leaves.setdefault(node.leaf, []).append(index)
    lines = [f"SwitchName=leaf{leaf} Nodes={_names(nodes)}" for leaf, nodes in leaves.items()]
    lines.append(f"SwitchName=spine Switches={','.join(f'leaf{leaf}' for leaf in leaves)}")
    return lines


LEAVES_S = 30 * 86_400.0  # how long a job waits for its leaves; Slurm's own default is 5 minutes
