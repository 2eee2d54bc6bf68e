"""What Kubernetes tells of pods that have run: objects as JSON, or an audit log.

    kubectl get pods,events,nodes -A -o json > log.json
    audit.log: a line of JSON per request (audit.k8s.io, level Request or more for pods, bindings, status)

A pod is a job, but pods of one group (Volcano, coscheduling, Kueue's pod groups, Kubeflow's training jobs)
are a gang: it starts when the last of them is bound. A gang of which some are bound for longer than
`GANG_S` while others wait is told as what was taken: a part. Devices are what pods ask for of resources that
are accelerators. What was deleted before the log was taken is in an audit log only.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ersatz.device_models.text.digits import is_whole
from ersatz.sim.fleet.cluster import Cluster, FleetNode
from ersatz.sim.fleet.foreign.stories import Foreign, Ran, Story, make_log
from ersatz.sim.fleet.workload.traces.rows import fail, open_text

GANG_S = 60.0  # within which the pods of a gang are bound
DEVICE = re.compile(r"^[\w.-]+/.*(?:gpu|npu|ascend|ppu|dcu|mlu|tpu|gcu|accelerator)", re.IGNORECASE)
GROUPS = ("volcano.sh/job-name", "scheduling.x-k8s.io/pod-group", "scheduling.k8s.io/group-name",
          "pod-group.scheduling.sigs.k8s.io", "kueue.x-k8s.io/pod-group-name",
          "training.kubeflow.org/job-name")  # fmt: skip
QUEUES = ("kueue.x-k8s.io/queue-name", "volcano.sh/queue-name", "kai.scheduler/queue")
TYPES = ("nvidia.com/gpu.product", "amd.com/gpu.product-name", "accelerator",
         "node.kubernetes.io/instance-type")  # fmt: skip
RACKS = (
    "topology.kubernetes.io/rack",
    "cloud.provider.com/topology-rack",
    "network.topology.nvidia.com/leaf",
)
OWN_RULES = "Kubernetes' configuration"
Data = Mapping[str, Any]


@dataclass(slots=True)
class Pod:
    """What is known of a pod; times in seconds since 1970."""

    name: str
    group: str = ""
    tenant: str = ""
    devices: int = 0
    priority: int = 0
    created_s: float = math.inf
    bound_s: float = math.inf
    ended_s: float = math.inf
    node: str = ""
    how: str = ""
    events: list[str] = field(default_factory=list)


def objects(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON file: of a list, of one, or one a line; raises `InputError`."""
    text = open_text(path)
    try:
        data = json.loads(text)
        found = data.get("items", [data]) if isinstance(data, dict) else data
    except json.JSONDecodeError:
        found = [_line(path, number, line) for number, line in enumerate(text.splitlines(), 1)
                 if line.strip()]  # fmt: skip
    except (RecursionError, ValueError):
        fail(path, "is nested too deeply, or has numbers of thousands of digits")
    if not isinstance(found, list):
        fail(path, "holds no list of objects")
    return [item for item in found if isinstance(item, dict)]


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (RecursionError, ValueError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        fail(path, f"is no JSON: {why}", number)


def read_kubernetes(path: Path, fleet: Cluster | None = None) -> Foreign:
    """Read pods, events and nodes, or an audit log; raises `InputError`."""
    items = objects(path)
    pods: dict[str, Pod] = {}
    for item in items:
        kind = item.get("kind")
        if kind == "Pod":
            _see_pod(path, pods, item)
        elif kind == "Event" and "auditID" in item:
            _see_audit(path, pods, item)
    for item in items:
        if item.get("kind") == "Event" and "auditID" not in item:
            _see_event(path, pods, item)
    if not pods:
        fail(
            path,
            "tells of no pod; expected `kubectl get pods,events,nodes -A -o json`, or an audit log",
        )
    nodes = [item for item in items if item.get("kind") == "Node"]
    if fleet is None and nodes:
        zones: dict[str, int] = {}
        racks: dict[str, int] = {}
        found = tuple(node_of(path, item, zones, racks) for item in nodes)
        try:
            fleet = Cluster(found, path.name.split(".")[0])
        except ValueError as error:
            fail(path, str(error))
    asked = [pod for pod in pods.values() if pod.devices and pod.created_s < math.inf]
    if not asked:
        fail(
            path,
            "tells of no pod that asks for devices; events alone do not say what a pod asks for",
        )
    without = len(pods) - len(asked)
    notes = [f"{without:,} pods without devices are left out" if without else "",
             "limits, quotas and taints are not in the log: its conduct is only remarked on"]  # fmt: skip
    about = {"policy": "kubernetes", "workload": path.name, "door": "kubernetes"}
    return make_log(path, list(_stories(asked)), fleet, about, notes=notes, slack_s=1.0,
                    outages=_outages(path, items), own_rules=OWN_RULES)  # fmt: skip


def node_of(path: Path, item: Data, zones: dict[str, int], racks: dict[str, int]) -> FleetNode:
    """Return a node with its devices; the same zone is the same pod, the same rack the same leaf."""
    meta, status = _part(item, "metadata"), _part(item, "status")
    labels = _part(meta, "labels")
    room = _part(status, "allocatable") or _part(status, "capacity")
    devices = {key: _whole(value) for key, value in room.items() if DEVICE.match(key)}
    kind = next((str(labels[key]) for key in TYPES if labels.get(key)), next(iter(devices), "cpu"))
    zone = str(labels.get("topology.kubernetes.io/zone", ""))
    rack = next((str(labels[key]) for key in RACKS if labels.get(key)), zone)
    name = meta.get("name")
    if not isinstance(name, str) or not name:
        fail(path, "has a node without a name")
    return FleetNode(name, kind.partition("/")[2] or kind, min(sum(devices.values()), 1024),
                     racks.setdefault(rack, len(racks)), zones.setdefault(zone, len(zones)),
                     cpu_milli=_milli(room.get("cpu")), memory_mib=1 << 60)  # fmt: skip


def _whole(value: object) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0


def _milli(value: object) -> int:
    text = str(value)
    return (
        int(text[:-1])
        if is_whole(text[:-1]) and text.endswith("m")
        else 1000 * _whole(text) or 1 << 60
    )


def _part(item: Data, key: str) -> dict[str, Any]:
    value = item.get(key)
    return value if isinstance(value, dict) else {}


def _items(item: Data, key: str) -> list[dict[str, Any]]:
    value = item.get(key)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _seconds(path: Path, text: object) -> float:
    """Return a time as in 2026-01-31T12:00:00Z; infinite where there is none."""
    if not text:
        return math.inf
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        fail(path, f"{str(text)[:40]!r} is no time like 2026-01-31T12:00:00Z")


def _name(meta: Data) -> str:
    return f"{meta.get('namespace') or 'default'}/{meta.get('name')}"


def _see_pod(path: Path, pods: dict[str, Pod], item: Data) -> Pod:
    """Take note of a pod as it stood when it was written."""
    meta, spec, status = (_part(item, key) for key in ("metadata", "spec", "status"))
    name = _name(meta)
    pod = pods.setdefault(name, Pod(name))
    labels = {**_part(meta, "annotations"), **_part(meta, "labels")}
    group = next((str(labels[key]) for key in GROUPS if labels.get(key)), "")
    pod.group = f"{meta.get('namespace') or 'default'}/{group}" if group else pod.group
    pod.tenant = next((str(labels[key]) for key in QUEUES if labels.get(key)),
                      str(meta.get("namespace") or "default"))  # fmt: skip
    pod.devices = max(pod.devices, _devices(spec))
    priority = spec.get("priority")
    pod.priority = priority if isinstance(priority, int) else pod.priority
    pod.created_s = min(pod.created_s, _seconds(path, meta.get("creationTimestamp")))
    pod.node = str(spec.get("nodeName") or pod.node)
    for condition in _items(status, "conditions"):
        if condition.get("status") == "True":
            at = _seconds(path, condition.get("lastTransitionTime"))
            if condition.get("type") == "PodScheduled":
                pod.bound_s = min(pod.bound_s, at)
            elif condition.get("type") == "DisruptionTarget":
                preempted = "Preempt" in str(condition.get("reason", ""))
                pod.how, pod.ended_s = ("preempt" if preempted else "fail"), min(pod.ended_s, at)
    phase = status.get("phase")
    if phase in ("Succeeded", "Failed"):
        pod.how = pod.how or ("finish" if phase == "Succeeded" else "abandon")
        ends = [_seconds(path, _part(_part(c, "state"), "terminated").get("finishedAt"))
                for c in _items(status, "containerStatuses")]  # fmt: skip
        ends = [end for end in ends if end < math.inf]
        pod.ended_s = min(pod.ended_s, max(ends)) if ends else pod.ended_s
    return pod


def _devices(spec: Data) -> int:
    """Return the accelerators that a pod's containers ask for."""
    total = 0
    for container in _items(spec, "containers"):
        room = _part(container, "resources")
        asked = {**_part(room, "requests"), **_part(room, "limits")}
        total += sum(_whole(value) for key, value in asked.items() if DEVICE.match(key))
    return total


def _moment(event: Data) -> object:
    return event.get("eventTime") or event.get("firstTimestamp") or event.get("lastTimestamp")


def _see_event(path: Path, pods: dict[str, Pod], item: Data) -> None:
    """Take note of what was said about a pod."""
    about = _part(item, "involvedObject") or _part(item, "regarding")
    pod = pods.get(_name(about))
    if pod is None or about.get("kind") != "Pod":
        return
    at = _seconds(path, _moment(item))
    reason, said = str(item.get("reason", "")), str(item.get("message") or item.get("note") or "")
    if reason == "Scheduled":
        pod.bound_s = min(pod.bound_s, at)
        pod.node = pod.node or said.rpartition(" to ")[2].strip()
    elif reason in ("Preempted", "Evicted", "TaintManagerEviction"):
        pod.how, pod.ended_s = (
            ("preempt" if reason == "Preempted" else "fail"),
            min(pod.ended_s, at),
        )


def _see_audit(path: Path, pods: dict[str, Pod], item: Data) -> None:
    """Take note of a request that was answered."""
    ref, verb = _part(item, "objectRef"), item.get("verb")
    if ref.get("resource") != "pods" or item.get("stage") not in (None, "ResponseComplete"):
        return
    code = _part(item, "responseStatus").get("code", 200)
    if not isinstance(code, int) or code >= 400:
        return
    at = _seconds(path, item.get("requestReceivedTimestamp") or item.get("stageTimestamp"))
    asked, answer = _part(item, "requestObject"), _part(item, "responseObject")
    name = _name(
        {**_part(answer, "metadata"), **ref} if ref.get("name") else _part(answer, "metadata")
    )
    if verb == "create" and ref.get("subresource") == "binding":
        pod = pods.setdefault(name, Pod(name))
        pod.bound_s, pod.node = (
            min(pod.bound_s, at),
            str(_part(asked, "target").get("name", pod.node)),
        )
    elif verb == "create" and not ref.get("subresource"):
        whole = answer if answer.get("spec") else asked
        meta = {
            "namespace": ref.get("namespace"),
            **_part(whole, "metadata"),
            "name": name.partition("/")[2],
        }
        pod = _see_pod(path, pods, {**whole, "metadata": meta})
        pod.created_s = min(pod.created_s, at)
    elif verb in ("patch", "update") and ref.get("subresource") == "status":
        phase = _part(asked, "status").get("phase") or _part(answer, "status").get("phase")
        if phase in ("Succeeded", "Failed") and name in pods:
            pod = pods[name]
            pod.how = pod.how or ("finish" if phase == "Succeeded" else "abandon")
            pod.ended_s = min(pod.ended_s, at)
    elif verb == "delete" and name in pods:
        pod = pods[name]
        pod.how, pod.ended_s = pod.how or "abandon", min(pod.ended_s, at)


def _stories(pods: list[Pod]) -> Iterator[Story]:
    """Yield a job per gang, and per pod that stands alone."""
    gangs: dict[str, list[Pod]] = defaultdict(list)
    for pod in pods:
        gangs[pod.group or pod.name].append(pod)
    for name, members in gangs.items():
        yield _story(name.replace("/", "."), members)


def _story(name: str, members: list[Pod]) -> Story:
    first = members[0]
    bound = [pod for pod in members if pod.bound_s < math.inf and pod.node]
    submit = min(pod.created_s for pod in members)
    devices = sum(pod.devices for pod in members)
    if not bound:
        end = max(pod.ended_s for pod in members)
        return Story(name, 0, submit, devices, (), first.tenant, first.priority, gone_s=end,
                     gone="abandon" if end < math.inf else "", why="deleted before it was bound")  # fmt: skip
    start = max(pod.bound_s for pod in bound)
    early = min(pod.bound_s for pod in bound)
    whole = len(bound) == len(members) and start - early <= GANG_S
    taken = bound if whole else [pod for pod in bound if pod.bound_s <= early + GANG_S]
    start = start if whole else early
    on: dict[str, int] = defaultdict(int)
    for pod in taken:
        on[pod.node] += pod.devices
    end = max(min(pod.ended_s for pod in taken) if any(p.how == "preempt" for p in taken) else
              max(pod.ended_s for pod in taken), start)  # fmt: skip
    how = next(
        (h for h in ("preempt", "fail", "abandon") if any(p.how == h for p in taken)), "finish"
    )
    ran = Ran(start, end, how if end < math.inf else "", dict(on), f"kubernetes: {how}")
    return Story(name, 0, submit, devices, (ran,), first.tenant, first.priority)


def _outages(path: Path, items: list[dict[str, Any]]) -> Iterator[tuple[float, str, str]]:
    """Yield when nodes became not ready, and ready again."""
    for item in items:
        about = _part(item, "involvedObject") or _part(item, "regarding")
        if item.get("kind") == "Event" and about.get("kind") == "Node" and (
                item.get("reason") in ("NodeNotReady", "NodeReady")):  # fmt: skip
            at = _seconds(
                path,
                item.get("eventTime") or item.get("firstTimestamp") or item.get("lastTimestamp"),
            )
            if at < math.inf:
                yield (
                    at,
                    "down" if item["reason"] == "NodeNotReady" else "up",
                    str(about.get("name")),
                )
