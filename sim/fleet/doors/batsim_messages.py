"""Batsim's messages, versions 3 and 4: JSON, as its page docs/protocol.rst describes them.

A message is `{"now": t, "events": [{"timestamp", "type", "data"}]}`. One Batsim resource is one
device; its type, node, leaf and pod are its properties. Beyond the protocol, jobs carry their
tenant, priority, allowed types and the like, and `RESERVE` tells a promised start, to be judged.
Left out: dynamic jobs, energy, storage, profiles (they would tell true run times), and the
FlatBuffers of version 5.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from ersatz.sim.fleet.cluster import Cluster
from ersatz.sim.fleet.workload.jobs import Job

WORKLOAD = "w0"
STATES = {  # how an attempt ends, in Batsim's words
    "finish": "COMPLETED_SUCCESSFULLY", "timeout": "COMPLETED_WALLTIME_REACHED",
    "fail": "COMPLETED_FAILED", "preempt": "COMPLETED_KILLED", "resize": "COMPLETED_KILLED",
}  # fmt: skip
Event = dict[str, Any]
# Of every job: what it does is not the scheduler's to know. Batsim's plainest type, which pybatsim reads.
PROFILE = {"type": "delay", "delay": 1.0}
CLOCK_S = 1e-4  # by which a scheduler's clock may be behind: some JSON readers drop the last digits
FIRST_S = 1e-6  # as which the first instant is told where it is 0: some take 0 for no time at all
Kinds = tuple[type, ...]
TEXT: Kinds = (str,)
TIME: Kinds = (int, float)
# What a scheduler may send: the keys that it must give, with their kinds.
ORDERS: dict[str, dict[str, Kinds]] = {
    "EXECUTE_JOB": {"job_id": TEXT, "alloc": TEXT},
    "REJECT_JOB": {"job_id": TEXT},
    "KILL_JOB": {"job_ids": (list,)},
    "CALL_ME_LATER": {"timestamp": TIME},
    "RESERVE": {"job_id": TEXT, "at": TIME},
    "SET_RESOURCE_STATE": {"resources": TEXT, "state": TEXT},
    "SET_JOB_METADATA": {},
    "NOTIFY": {},
}  # fmt: skip
REFUSED = {
    "REGISTER_JOB": "dynamic jobs are not enabled",
    "REGISTER_PROFILE": "dynamic jobs are not enabled",
    "SUBMIT_JOB": "dynamic jobs are not enabled; and it is a word of version 1",
    "CHANGE_JOB_STATE": "states follow from what happens",
    "QUERY": "energy is not counted here",
    "ANSWER": "nothing was asked",
    "TO_JOB_MSG": "jobs take no messages",
    "NOP": "it is a word of version 1; ersatz speaks 3 and 4",
}
EXTRAS = ("tenant", "priority", "types", "min_devices", "max_devices", "max_nodes", "max_leaves",
          "max_pods", "deadline_s", "model", "mixed", "milli", "checkpoint_s")  # fmt: skip
_DEFAULTS = {field.name: field.default for field in fields(Job)}


class ProtocolError(ValueError):
    """A reply that is none; the message says what is wrong with it."""


class Order(NamedTuple):
    """One event of a scheduler's reply, whose data has the keys and kinds of `ORDERS`."""

    at_s: float
    type: str
    data: Mapping[str, Any]


def encode(now: float, events: list[Event]) -> bytes:
    """Return a message."""
    first = any(found["type"] == "SIMULATION_BEGINS" for found in events)
    return json.dumps(
        {"now": now if first else now or FIRST_S, "events": events},
        separators=(",", ":"),
        allow_nan=False,
    ).encode()


def event(now: float, kind: str, **data: Any) -> Event:
    """Return one event."""
    at_s = now if kind == "SIMULATION_BEGINS" else now or FIRST_S
    return {"timestamp": at_s, "type": kind, "data": data}


def begins(cluster: Cluster, *, forward: bool = False) -> Event:
    """Return the first event: the devices of a fleet. `forward`: tell also what Batsim does not."""
    devices = [
        {"id": cluster.first[index] + slot, "name": f"{node.name}/{slot}", "state": "idle",
         "properties": {"type": node.type, "node": node.name, "leaf": str(node.leaf),
                        "pod": str(node.pod)}}
        for index, node in enumerate(cluster.nodes) for slot in range(node.devices)
    ]  # fmt: skip
    return event(
        0.0, "SIMULATION_BEGINS", nb_resources=len(devices), nb_compute_resources=len(devices),
        nb_storage_resources=0, allow_compute_sharing=False, allow_storage_sharing=False,
        allow_time_sharing_on_compute=False, allow_time_sharing_on_storage=False,
        config={"profiles-forwarded-on-submission": True, "dynamic-jobs-enabled": False,
                "dynamic-jobs-acknowledged": False, "forward-unknown-events": forward},
        compute_resources=devices, storage_resources=[], workloads={WORKLOAD: WORKLOAD},
        profiles={WORKLOAD: {"training": PROFILE}},
    )  # fmt: skip


def submitted(now: float, batsim_id: str, job: Job) -> Event:
    """Return the event of a job that waits; without a limit it has no walltime.

    Where Batsim's id is another one than the job's, that is told, too.
    """
    data: dict[str, Any] = {"id": batsim_id, "subtime": job.submit_s or FIRST_S, "res": job.devices,
                            "profile": "training"}  # fmt: skip
    if batsim_id.partition("!")[2].partition("#")[0] != job.id:
        data["name"] = job.id
    if math.isfinite(job.walltime_s):
        data["walltime"] = job.walltime_s
    for key in EXTRAS:
        value = getattr(job, key)
        if value != _DEFAULTS[key]:
            data[key] = value
    return event(now, "JOB_SUBMITTED", job_id=batsim_id, job=data, profile=PROFILE)


def completed(now: float, batsim_id: str, state: str, alloc: str) -> Event:
    """Return the event of a job that holds its devices no longer."""
    code = 0 if state == "COMPLETED_SUCCESSFULLY" else 1
    return event(now, "JOB_COMPLETED", job_id=batsim_id, job_state=state, return_code=code,
                 kill_reason="", alloc=alloc)  # fmt: skip


def decode(reply: bytes, now: float) -> list[Order]:
    """Read a reply; raises `ProtocolError` for anything but a message of versions 3 and 4."""
    try:
        message = json.loads(reply)
    except (ValueError, RecursionError) as error:
        if b"\0" in reply[:16]:
            raise ProtocolError("is binary, perhaps version 5; ersatz speaks the JSON of versions"
                                " 3 and 4") from None  # fmt: skip
        raise ProtocolError(f"is no JSON ({error}): {_shown(reply)}") from None
    if not isinstance(message, dict) or not isinstance(message.get("events"), list):
        raise ProtocolError(f"has no list of events: {_shown(reply)}")
    version = str(message.get("version", "4"))[:8]
    if version.partition(".")[0] not in ("3", "4"):
        raise ProtocolError(f"is of version {version!r}; ersatz speaks 3 and 4")
    if not _is_time(message.get("now")):
        raise ProtocolError(f"has no time 'now': {_shown(reply)}")
    if message["now"] < now - CLOCK_S:
        raise ProtocolError(f"says now is {message['now']} s; it is {now} s already")
    return [_order(found, now) for found in message["events"]]


def _order(found: Any, now: float) -> Order:
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise ProtocolError(f"has an event without a type: {shown(found)}")
    kind, at_s = found["type"], found.get("timestamp")
    data = found.get("data")
    if kind in REFUSED:
        raise ProtocolError(f"has {kind}, which is refused: {REFUSED[kind]}")
    if kind not in ORDERS:
        raise ProtocolError(f"has an event of unknown type {kind[:40]!r}; known are"
                            f" {', '.join(ORDERS)}")  # fmt: skip
    if at_s is None or not _is_time(at_s) or at_s < now - CLOCK_S:
        raise ProtocolError(f"has {kind} at {shown(at_s)}; expected a time from {now} s on")
    data = data if isinstance(data, dict) else {}
    for key, kinds in ORDERS[kind].items():
        value = data.get(key)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ProtocolError(f"has {kind} without a proper {key!r}: {shown(data)}")
        if kinds is TIME and not _is_time(value):
            raise ProtocolError(f"has {kind} with {key} = {shown(value)}")
    at_once = at_s <= now + FIRST_S and now == 0.0
    return Order(now if at_once else max(float(at_s), now), kind, data)


def _is_time(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def shown(value: object) -> str:
    """Write what a scheduler sent, of any depth and length, in short."""
    return value[:200] if isinstance(value, str) else reprlib.repr(value)


def _shown(reply: bytes) -> str:
    text = reply[:80].decode("utf-8", "replace")
    return repr(text + ("..." if len(reply) > 80 else ""))
