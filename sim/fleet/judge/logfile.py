"""Event logs as text: CSV or JSON lines, the same bytes for the same run.

The first row, `begin`, holds the fleet, its rules and the scheduler's claims as JSON in `detail`;
`submit` rows hold their job likewise, fields at their default left out.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ersatz.device_models.text.csvtext import csv_text
from ersatz.device_models.text.problems import InputError, Problem, in_words
from ersatz.device_models.text.typed import typed
from ersatz.sim.fleet.cluster import (
    UNCOUNTED,
    Cluster,
    FleetNode,
    Placement,
    devices_text,
    parse_devices,
)
from ersatz.sim.fleet.log import COLUMNS, EVENTS, RELEASES, Claims, Log, Quota, Record, Rules
from ersatz.sim.fleet.workload.jobs import Job
from ersatz.sim.fleet.workload.traces.rows import open_text

VERSION = 1
MOST_DEVICES = 65_536  # of a node that a log tells of
MOST_LEAVES = 10_000_000
LONGEST_S = 1e15  # that a log may tell of


def log_text(log: Log, kind: str = "csv") -> str:
    """Return a log as 'csv' or 'jsonl' text."""
    if kind == "jsonl":
        return "".join(
            json.dumps(
                {k: v for k, v in zip(COLUMNS, row, strict=True) if v != ""}, allow_nan=False
            )
            + "\n"
            for row in _rows(log)
        )
    return csv_text(COLUMNS, _rows(log))


def read_log(path: Path | str) -> Log:
    """Read a log file; raises `InputError` naming the first line that is none of a log."""
    path = Path(path)
    return parse_log(open_text(path), str(path))


def parse_log(text: str, file: str = "log") -> Log:
    """Read the text of a log; raises `InputError` naming the line."""
    log: Log | None = None
    line = 0
    try:
        for number, row in _read_rows(text):
            line = number
            if log is None:
                if row["event"] != "begin":
                    raise ValueError("expected the row 'begin' first")
                log = _begin(_data(row["detail"]))
            else:
                log.records.append(_record(log, row))
        if log is None:
            raise ValueError("is empty; expected an event log")
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
        csv.Error,
    ) as error:
        raise InputError([Problem(file, line, 1, "", "", in_words(error))]) from error
    return log


def _rows(log: Log) -> Iterator[tuple[object, ...]]:
    begin = {"version": VERSION, "about": log.about, "cluster": _cluster_data(log.cluster),
             "rules": _rules_data(log.rules), "claims": _given(log.claims, Claims())}  # fmt: skip
    yield (0.0, "begin", "", "", "", "", json.dumps(begin, separators=(",", ":"), allow_nan=False))
    known: dict[Placement, str] = {}
    for record in log.records:
        time_s, event, job, placement, node, value, detail = record
        if placement not in known:
            known[placement] = devices_text(log.cluster, placement)
        if event == "submit":
            detail = json.dumps(job_data(log.jobs[job]), separators=(",", ":"), allow_nan=False)
        name = log.cluster.nodes[node].name if node >= 0 else ""
        yield (float(time_s), event, job, known[placement], name, _shown(event, value), detail)
        if event in RELEASES:
            known.pop(placement, None)


_VALUED = RELEASES | {"start", "rate", "abandon", "notice", "reserve", "slow", "end"}


def _shown(event: str, value: float) -> float | str:
    return float(value) if event in _VALUED else ""


def _read_rows(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    if text.startswith("{"):
        for line, row in enumerate(text.splitlines(), 1):
            found = json.loads(row)
            yield line, {key: str(found.get(key, "")) for key in COLUMNS}
        return
    reader = csv.reader(io.StringIO(text))
    head = next(reader, None)
    if head is not None and tuple(head) != COLUMNS:
        raise ValueError(f"has the columns {','.join(head)[:80]}; expected {','.join(COLUMNS)}")
    for cells in reader:
        if len(cells) != len(COLUMNS):
            raise ValueError(f"has {len(cells)} fields; expected {len(COLUMNS)}")
        yield reader.line_num, dict(zip(COLUMNS, cells, strict=True))


def _record(log: Log, row: dict[str, str]) -> Record:
    event, job, detail = row["event"], row["job"], row["detail"]
    if event not in EVENTS:
        raise ValueError(f"unknown event {event!r}")
    if event == "submit":
        log.jobs[job] = job_of(_data(detail))
        detail = ""
    time_s = _number(row["time_s"])
    if abs(time_s) > LONGEST_S:
        raise ValueError(f"time_s {row['time_s']!r}: expected up to {LONGEST_S:g}")
    return Record(
        time_s, event, job, parse_devices(log.cluster, row["devices"]),
        log.cluster.node_named(row["node"]) if row["node"] else -1,
        _number(row["value"]) if row["value"] else 0.0, detail,
    )  # fmt: skip


DIGITS = 19  # of a whole number: any such can be a float, too


def _data(text: str) -> Any:
    """Return the JSON data of a cell."""
    return json.loads(text, parse_int=_whole)


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"{text[:20]}...: expected a whole number of at most {DIGITS} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if math.isnan(value):
        raise ValueError(f"{text!r} is no number")
    return value


_ALWAYS = frozenset({"id", "submit_s", "devices", "duration_s"})  # of a job, written in any case


def _given(item: Any, default: Any) -> dict[str, Any]:
    """Return the fields that differ from the default, infinity as text."""
    return {
        f.name: "inf" if value == math.inf else value
        for f in fields(item)
        if f.init
        and f.name not in _ALWAYS
        and (value := getattr(item, f.name)) != getattr(default, f.name)
    }


_PLAIN = Job("plain", 0.0, 0, 0.0)


def job_data(job: Job) -> dict[str, Any]:
    """Return a job as JSON data, fields at their default left out."""
    return {"id": job.id, "submit_s": job.submit_s, "devices": job.devices,
            "duration_s": job.duration_s, **_given(job, _PLAIN)}  # fmt: skip


def job_of(data: dict[str, Any]) -> Job:
    """Return the job of such data; raises `TypeError` or `ValueError` for anything else."""
    values: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else math.inf if v == "inf" else v
        for key, v in data.items()
    }
    found = typed(Job, values)
    # whole numbers stay whole, so that the log is written back as it was
    numbers: dict[str, Any] = {k: v for k, v in values.items() if isinstance(v, int | float)}
    return replace(found, **numbers)


def _rules_data(rules: Rules) -> dict[str, Any]:
    data = _given(rules, Rules())
    if rules.quotas:
        data["quotas"] = {name: [q.share, q.limit] for name, q in sorted(rules.quotas.items())}
    return data


def _cluster_data(cluster: Cluster) -> dict[str, Any]:
    """Return the nodes as lists, trailing defaults left out."""
    nodes = []
    for n in cluster.nodes:
        row: list[object] = [n.name, n.type, n.devices, n.leaf, n.pod, n.cpu_milli, n.memory_mib]
        for default in (UNCOUNTED, UNCOUNTED, 0, 0):
            if row[-1] != default:
                break
            row.pop()
        nodes.append(row)
    return {"name": cluster.name, "nodes": nodes}


def _begin(data: dict[str, Any]) -> Log:
    if data.get("version") != VERSION:
        raise ValueError(f"is a log of version {data.get('version')}; expected {VERSION}")
    nodes = tuple(typed(FleetNode, row, row=True) for row in data["cluster"]["nodes"])
    for node in nodes:
        if node.devices > MOST_DEVICES or max(node.leaf, node.pod) > MOST_LEAVES:
            raise ValueError(f"node {node.name[:60]!r}: expected at most {MOST_DEVICES:,} devices,"
                             f" and leaf and pod up to {MOST_LEAVES:,}")  # fmt: skip
    rules = dict(data["rules"])
    quotas = {name: typed(Quota, pair, row=True) for name, pair in rules.pop("quotas", {}).items()}
    return Log(Cluster(nodes, str(data["cluster"]["name"])), typed(Rules, {**rules, "quotas": quotas}),
               typed(Claims, data["claims"]), typed(dict[str, str], data["about"]))  # fmt: skip
