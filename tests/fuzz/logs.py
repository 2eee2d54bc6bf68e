"""Kinds of input from others' clusters: logs of their schedulers, lists of nodes, their configuration."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from ersatz.sim.answers.schedule import schedule
from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.doors.slurm.accounts import read_accounts
from ersatz.sim.fleet.doors.slurm.base import orders, slurmdbd_conf
from ersatz.sim.fleet.doors.slurm.config import Site, config_files
from ersatz.sim.fleet.doors.slurm.given import read_conf
from ersatz.sim.fleet.doors.slurm.submit import sbatch_arguments
from ersatz.sim.fleet.workload.jobs import Job, Workload
from tests.slurm_files import BY_PARTITION, DUMP

from . import seeds
from .judge import Input
from .mutate import mutated, mutated_bytes, mutated_rows, to_json
from .orders import delivery, maybe, options
from .words import NUMBERS, TEXTS

SACCT = """\
JobID|Account|Partition|Submit|Eligible|Start|End|State|Timelimit|AllocTRES|NodeList
1|a|train|D00:00:00|D00:00:00|D00:00:10|D01:00:10|COMPLETED|02:00:00|gres/gpu:h800=16,gres/gpu=16,node=2|n[0-1]
1.batch|a||D00:00:10|D00:00:10|D00:00:10|D01:00:10|COMPLETED||cpu=16|n0
2|b|train|D00:01:00|D00:01:00|D00:02:00|D00:12:00|NODE_FAIL|1-00:00:00|gres/gpu=8|n2
2|b|train|D00:01:00|D00:12:30|D01:00:10|D02:00:00|COMPLETED|1-00:00:00|gres/gpu=8|n2
3|b|train|D00:05:00|D00:05:00|Unknown|D00:06:00|CANCELLED by 7|10:00|gres/gpu=4|None assigned
4_[1-3]|b|train|D02:00:00|D02:00:00|D02:00:01|Unknown|RUNNING|UNLIMITED|gres/gpu=4|n0
""".replace("D0", "2026-01-01T0")
BATSIM = """\
job_id,workload_name,submission_time,requested_number_of_resources,requested_time,success,final_state,starting_time,finish_time,allocated_resources
0,w,0.0,1,149.0,1,COMPLETED_SUCCESSFULLY,0.0,88.51,0
1,w,4.7,2,399.0,1,COMPLETED_SUCCESSFULLY,4.7,270.5,1-2
w!2,w,16.0,1,20.0,0,COMPLETED_WALLTIME_REACHED,89.0,109.0,0
3,w,17.0,9,20.0,0,REJECTED,-1,-1,
"""
SINFO = "NODELIST|CPUS|MEMORY|GRES|PARTITION\nn[0-2]|128|1000000|gpu:h800:8(S:0-1)|train*\n"
SCONTROL = "NodeName=n0 CPUTot=128 RealMemory=1000 Gres=gpu:8 State=IDLE\nNodeName=n1 CPUTot=8 Gres=(null)\n"
OPENB = "sn,cpu_milli,memory_mib,gpu,model\nn0,96000,786432,8,V100M32\nn1,64000,262144,2,P100\n"
SPOT = "gpu_model,gpu_capacity_num,cpu_num,node_name\nH800,8,192,n0\nH800,8,192,n1\n"


def _pod(
    name: str, gpus: int, created: str, bound: str, node: str, ended: str = "", **labels: str
) -> Any:
    day = "2026-01-01T{}Z"
    status: dict[str, Any] = {"phase": "Succeeded" if ended else "Running", "conditions": [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": day.format(bound)}]}  # fmt: skip
    if ended:
        status["containerStatuses"] = [{"state": {"terminated": {"finishedAt": day.format(ended)}}}]
    return {"kind": "Pod", "metadata": {"name": name, "namespace": "team", "labels": labels,
                                        "creationTimestamp": day.format(created)},
            "spec": {"nodeName": node, "priority": 3, "containers": [
                {"resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}]}, "status": status}  # fmt: skip


def _machine(name: str) -> Any:
    labels = {"nvidia.com/gpu.product": "NVIDIA-H800", "topology.kubernetes.io/zone": "z"}
    return {"kind": "Node", "metadata": {"name": name, "labels": labels},
            "status": {"allocatable": {"nvidia.com/gpu": "8", "cpu": "128", "memory": "1Ti"}}}  # fmt: skip


_GROUP = {"volcano.sh/job-name": "w"}
OBJECTS: Any = {"kind": "List", "items": [
    _machine("k0"), _machine("k1"),
    _pod("w-0", 8, "00:00:00", "00:00:05", "k0", "01:00:00", **_GROUP),
    _pod("w-1", 8, "00:00:00", "00:00:06", "k1", "01:00:00", **_GROUP),
    _pod("solo", 4, "00:10:00", "01:00:10", "k0"), _pod("web", 0, "00:00:00", "00:00:01", "k0"),
    {"kind": "Event", "reason": "Preempted",
     "involvedObject": {"kind": "Pod", "namespace": "team", "name": "solo"},
     "lastTimestamp": "2026-01-01T02:00:00Z", "message": "Preempted by x on node k0"},
]}  # fmt: skip


def _asked(at: str, verb: str, sub: str, what: Any) -> Any:
    return {"kind": "Event", "auditID": at, "stage": "ResponseComplete", "verb": verb,
            "objectRef": {"resource": "pods", "namespace": "team", "name": "a", "subresource": sub},
            "requestReceivedTimestamp": f"2026-01-01T{at}.000000Z", "requestObject": what,
            "responseStatus": {"code": 201}}  # fmt: skip


AUDIT: Any = [
    _asked("00:00:00", "create", "", {**_pod("a", 8, "00:00:00", "", ""), "status": {"phase": "Pending"}}),
    _asked("00:00:07", "create", "binding", {"target": {"name": "k0"}}),
    _asked("00:30:00", "patch", "status", {"status": {"phase": "Succeeded"}}),
    _asked("00:40:00", "delete", "", None),
]  # fmt: skip
MACHINES: Any = {"kind": "List", "items": [_machine("k0"), _machine("k1")]}


@cache
def own_log() -> str:
    """Return a log of ours: a small fleet, first come, first served."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "f.yaml").write_text(seeds.FLEET, "utf-8")
        answer = schedule(str(Path(folder) / "f.yaml"), ["easy"], {"draws": 1})
    return str(answer.files()["easy.log.csv"])


def _told(kind: str, rng: random.Random) -> bytes:
    """Return a log of a kind, changed."""
    if kind == "kubernetes":
        tree = rng.choice((OBJECTS, OBJECTS, AUDIT))
        new = mutated(tree, [tree], rng)
        if tree is AUDIT and isinstance(new, list):
            return b"\n".join(map(to_json, new))
        return to_json(new)
    if kind == "ersatz":
        return _own_changed(rng)
    text, separator = {"sacct": (SACCT, "|"), "batsim": (BATSIM, ",")}[kind]
    raw = mutated_rows(text, rng, separator).encode("utf-8", "replace")
    return mutated_bytes(raw, rng) if rng.random() < 0.1 else raw


def _own_changed(rng: random.Random) -> bytes:
    """Change a cell or a row; or what the first row says, as JSON."""
    text = own_log()
    if rng.random() < 0.3:
        lines = text.splitlines()
        head, _, quoted = lines[1].partition(',"')
        begin = json.loads(quoted[:-1].replace('""', '"'))
        new = to_json(mutated(begin, [begin], rng)).decode().replace('"', '""')
        return "\n".join([lines[0], f'{head},"{new}"', *lines[2:], ""]).encode("utf-8", "replace")
    return mutated_rows(text, rng).encode("utf-8", "replace")


def _nodes(rng: random.Random) -> tuple[str, bytes]:
    """Return kind and text of a list of nodes, changed now and then."""
    kind = rng.choice(("sinfo", "scontrol", "openb", "spot", "kubernetes"))
    if kind == "kubernetes":
        return kind, to_json(mutated(MACHINES, [MACHINES], rng))
    text, separator = {"sinfo": (SINFO, "|"), "scontrol": (SCONTROL, " "), "openb": (OPENB, ","),
                       "spot": (SPOT, ",")}[kind]  # fmt: skip
    return kind, mutated_rows(text, rng, separator).encode("utf-8", "replace")


CLAIMS = ("easy", "conservative", "conserving", "preempts=lower", "preempts=any", "wait=1 h",
          "reclaim=10 min", "wait=soon", "wait=1e300 s", "reclaim=-1 s", "easy=1", "wait=nan s",
          "")  # fmt: skip


def judged(rng: random.Random) -> Input:
    """A log, ours or another's, judged; with the nodes that it ran on, and what was promised."""
    kind = rng.choice(("sacct", "sacct", "batsim", "kubernetes", "kubernetes", "ersatz"))
    raw = _told(kind, rng)
    name = "itself.log"
    if rng.random() < 0.05:
        raw, name = gzip.compress(raw, mtime=0), "itself.log.gz"
    files, more = {name: raw}, maybe(rng, 0.2, "--claims", ",".join(
        rng.choice(CLAIMS) for _ in range(rng.choice((1, 1, 2, 3)))))  # fmt: skip
    if kind != "ersatz" and rng.random() < 0.4:
        nodes, files["nodes"] = _nodes(rng)
        if kind == "sacct" and rng.random() < 0.6:
            nodes, files["nodes"] = "sinfo", SINFO.encode()
        more = (*more, "--fleet", f"{nodes}:@/nodes" if rng.random() < 0.5 else "@/nodes")
    said = f"{kind}:@/{name}" if rng.random() < 0.6 else f"@/{name}"
    where = rng.choice((delivery(rng), ("--html", "@/o.html")))
    return Input("judged", files, ("schedule", "--judge", said, *more, *where))


def nodes(rng: random.Random) -> Input:
    """A fleet whose nodes stand in another's list."""
    kind, raw = _nodes(rng)
    fleet = seeds.tree(seeds.FLEET)
    fleet = {k: v for k, v in fleet.items() if k not in ("pools", "maintenance")}
    devices = {"1": 1, "8": 1, "16": 1}
    job = {"name": "j", "count": 3, "devices": devices, "every": "1 h", "median": "1 h"}
    said = f"{kind}:nodes.txt" if rng.random() < 0.7 else "nodes.txt"
    fleet |= {"nodes": said, "draws": 1, "jobs": {"drawn": [job]}}
    files = {"itself.yaml": to_json(fleet), "nodes.txt": raw}
    return Input("nodes", files, ("schedule", "@/itself.yaml", *options(rng), *delivery(rng)))


# -- Slurm's own files -------------------------------------------------------------------------------------

CONF = f"""\
ClusterName=mine
NodeName=g[1-2] Gres=gpu:8 CPUs=128   # ours
PriorityType=priority/multifactor
PriorityWeightAge=1000
PriorityWeightQOS=1000000
AccountingStorageEnforce=associations,limits,qos,wckeys
{BY_PARTITION}PartitionName=train Nodes=g[1-2] PriorityTier=10 PreemptMode=off
PartitionName=spot Nodes=g2 Default=YES PriorityTier=1 AllowGroups=all
"""
SIGNS = (
    "=",
    "\\\n",
    ";",
    "'",
    "$(id)",
    "[1-99999999]",
    "g[2-1]",
    "DEFAULT",
    "Include other",
    "#",
    "ALL",
    ":",
)


def slurm_conf(rng: random.Random) -> Input:
    """A slurm.conf, or a dump of associations, of one's own."""
    files = {"slurm.conf": CONF.encode(), "mine.assoc": DUMP.encode()}
    name = rng.choice(sorted(files))
    separator = rng.choice(("=", " ") if name == "slurm.conf" else (":", "=", " - ", "'"))
    text = mutated_rows(files[name].decode(), rng, separator)
    if rng.random() < 0.3:
        at = rng.randrange(len(text) + 1)
        odd = rng.choice((*SIGNS, rng.choice(TEXTS)[:100], str(rng.choice(NUMBERS))))
        text = text[:at] + odd + text[at:]
    files[name] = text.encode("utf-8", "replace")
    return Input("slurm-conf", files, call=carried_over)


def carried_over(folder: Path) -> None:
    """Read both files and make Slurm's files of them: no line of theirs may become another of ours."""
    cluster = make_cluster(make_pool("h800", 2))
    work = Workload(
        (Job("a", 0.0, 8, 60.0, tenant="ann", walltime_s=900.0), Job("train-3", 0.0, 1, 5.0))
    )
    given = read_conf(folder / "slurm.conf", cluster)
    found = read_accounts(folder / "mine.assoc", cluster, work)
    site = Site(
        folder / "x", 20000, "host", "me", speed=100.0, nodes=2, kinds=("h800",), given=given
    )
    written = config_files(site, cluster, work)
    for job in work.jobs:
        sbatch_arguments(site, cluster, job)
        given.partition_of(job)
        found.arguments(job)
    lines = [*written["slurm.conf"].splitlines(), *found.dump("me").splitlines()]
    assert not [line for line in lines if re.match(r"\s*prolog|.*(\$\(|`)", line, re.I)], lines
    orders(found, "FILE")
    slurmdbd_conf(site)


# -- Kueue ---------------------------------------------------------------------------------------------------

KUEUE = """
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: h800}
spec: {nodeLabels: {type: h800}, topologyName: tree}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: 910b}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: Topology
metadata: {name: tree}
spec: {levels: [{nodeLabel: leaf}, {nodeLabel: kubernetes.io/hostname}]}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: Cohort
metadata: {name: all}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: a}
spec:
  cohortName: all
  namespaceSelector: {}
  queueingStrategy: BestEffortFIFO
  preemption: {withinClusterQueue: LowerPriority, reclaimWithinCohort: Any,
    borrowWithinCohort: {policy: LowerPriority, maxPriorityThreshold: 100}}
  flavorFungibility: {whenCanBorrow: TryNextFlavor, whenCanPreempt: TryNextFlavor}
  fairSharing: {weight: 2}
  resourceGroups:
  - coveredResources: [nvidia.com/gpu]
    flavors:
    - {name: h800, resources: [{name: nvidia.com/gpu, nominalQuota: 16, borrowingLimit: 8, lendingLimit: 8}]}
    - {name: 910b, resources: [{name: nvidia.com/gpu, nominalQuota: 8}]}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: b}
spec:
  cohortName: all
  namespaceSelector: {}
  queueingStrategy: StrictFIFO
  resourceGroups:
  - coveredResources: [nvidia.com/gpu]
    flavors: [{name: h800, resources: [{name: nvidia.com/gpu, nominalQuota: 7500m}]}]
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: l, namespace: team}
spec: {clusterQueue: a}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: WorkloadPriorityClass
metadata: {name: high}
value: 10
"""


@cache
def _documents() -> tuple[Any, ...]:
    return tuple(yaml.safe_load_all(KUEUE))


def kueue(rng: random.Random) -> Input:
    """A configuration of Kueue, rehearsed on a small fleet."""
    given = list(_documents())
    new = mutated(given, [given], rng)
    if isinstance(new, list) and rng.random() < 0.9:
        text = b"\n---\n".join(to_json(one) for one in new)
    else:
        text = to_json({"kind": "List", "items": new})
    if rng.random() < 0.05:
        text = mutated_bytes(KUEUE.encode(), rng)
    fleet = {**seeds.tree(seeds.FLEET), "draws": 1}
    drawn = [{**job, "tenants": {"a": 1, "b": 2}} for job in fleet["jobs"]["drawn"]]
    fleet["jobs"] = {**fleet["jobs"], "drawn": drawn}  # each tenant has a queue
    files = {"itself.yaml": to_json(fleet), "kueue.yaml": text}
    policy = ("--policy", "kueue:@/kueue.yaml")
    return Input(
        "kueue", files, ("schedule", "@/itself.yaml", *policy, *options(rng), *delivery(rng))
    )


KINDS = {"judged": judged, "nodes": nodes, "slurm-conf": slurm_conf, "kueue": kueue}
CALLS = {"slurm-conf": carried_over}
WEIGHTS = {"judged": 2}
SOUND: Mapping[str, tuple[str, str]] = {  # logs that are whole, with the nodes that they ran on
    "sacct": (SACCT, SINFO), "batsim": (BATSIM, ""),
    "kubernetes": (json.dumps(OBJECTS), json.dumps(MACHINES)),
    "audit": ("\n".join(map(json.dumps, AUDIT)), json.dumps(MACHINES)),
}  # fmt: skip
