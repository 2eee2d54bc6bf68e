"""Collective times against published benchmarks (data/measured/collectives.csv).

A benchmark's time holds its start-up: launching, and meeting at the end. A training step hides that or
counts it on its host, so it is no part of the model; here it is the median excess of the benchmark's
smallest messages, the judged row left out. Everything else is predicted from the catalogue.

Exchanges between experts are published as a rate: the bytes that tokens need at the ranks or nodes of
their experts, the own one included, over the time.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import median
from typing import Any

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import load_node, load_scale_out
from ersatz.device_models.networks.collectives import BUS_FACTOR, collective_time
from ersatz.device_models.networks.group import Group, remote_copies, wiring_of
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import read_yaml
from ersatz.sim.validation.errors.microbenchmarks import benchmark_rows

GB = 1e9


@dataclass(frozen=True, slots=True)
class System:
    """What a benchmark ran on, and what is judged together."""

    node: Node
    group: str
    harness: str  # rows with the same start-up
    node_limit: int = 0  # nodes that a token may go to; 0: any
    counts_nodes: bool = False  # the table's number of devices is one of nodes


@dataclass(frozen=True, slots=True)
class Point:
    """One measured collective beside its prediction, without the start-up, in seconds."""

    system: System
    nbytes: float
    measured_s: float
    predicted_s: float


def judge_collectives() -> dict[str, list[float]]:
    """Return relative errors of time of all collectives that can be judged, by group."""
    found: dict[str, list[float]] = defaultdict(list)
    points = list(_reductions())
    for point in points:
        start = _start([p for p in points if p is not point], point.system.harness)
        error = (point.predicted_s + start) / point.measured_s - 1
        found[f"{point.system.group}, {_size(point.nbytes)}"].append(error)
    for name, error in _exchanges():
        found[name].append(error)
    return dict(sorted(found.items()))


def _start(points: Iterable[Point], harness: str) -> float:
    """Return what a benchmark adds to each message: the median excess of its small ones."""
    small = _rules()["small_bytes"]
    excess = [p.measured_s - p.predicted_s for p in points
              if p.system.harness == harness and p.nbytes <= small]  # fmt: skip
    return max(median(excess), 0.0) if excess else 0.0


def _size(nbytes: float) -> str:
    large = _rules()["large_bytes"]
    return f"{large // 2**20} MiB or more" if nbytes >= large else "smaller"


def _reductions() -> Iterable[Point]:
    """All-reduces, gathers and scatters with a known system, rate and size."""
    for row in benchmark_rows("collectives.csv"):
        kind = re.match(r"(all_?reduce|all_gather|reduce_scatter)", row["op"], re.I)
        system = _system(row)
        rate = float(row["busbw_gb_s"] or 0)
        if not kind or system is None or rate < _rules()["least_gb_s"]:
            continue
        nbytes = float(row["size_bytes"] or _rules()["unstated_bytes"])
        count = int(row["n_devices"]) * (system.node.devices if system.counts_nodes else 1)
        name = kind[1].lower().replace("allreduce", "all_reduce")
        ring = "ring" if re.search(r"Ring|NVLS off", row["op"]) else None
        group = Group(count, min(count, system.node.devices), 1)
        predicted = collective_time(name, nbytes, group, system.node, algorithm=ring).seconds
        factor = BUS_FACTOR[name] * (count - 1) / count
        yield Point(system, nbytes, nbytes * factor / (rate * GB), predicted)


def _exchanges() -> Iterable[tuple[str, float]]:
    """Expert exchanges, dispatch and combine together: group and relative error of time."""
    rates: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    systems: dict[str, System] = {}
    for row in benchmark_rows("collectives.csv"):
        system = _system(row) if row["op"].startswith("EP ") else None
        if system and row["busbw_gb_s"]:
            systems[row["device"]] = system
            place = row["source"], row["device"], int(row["n_devices"])
            rates[place].append(float(row["busbw_gb_s"]))
    for (_, device, ranks), measured in sorted(rates.items()):
        system = systems[device]
        predicted = exchange_rate(system.node, ranks, system.node_limit) / GB
        yield system.group, math.fsum(measured) / len(measured) / predicted - 1


def exchange_rate(node: Node, ranks: int, node_limit: int = 0) -> float:
    """Return bytes/s of an expert exchange as DeepEP counts them.

    In one domain each token goes to the ranks of its experts; over several it crosses once to each
    node of its experts, and the copies for nodes, the own one too, are what is counted.
    """
    domain = min(ranks, wiring_of(node).domain)
    token_bytes = float(_rules()["exchanged_bytes"])
    if ranks <= domain:
        nbytes = token_bytes * _copies(ranks)
        return nbytes / collective_time("all_to_all", nbytes, Group(ranks, ranks, 1), node).seconds
    nodes = ranks // domain
    copies = _copies(min(ranks, (node_limit or nodes) * domain))
    remote = remote_copies(nodes, _rules()["experts"], node_limit or None)
    took = collective_time(
        "node_limited_all_to_all", token_bytes * copies, Group(ranks, domain, 1), node,
        crossing=min(remote / copies, 1.0),
    ).seconds  # fmt: skip
    return token_bytes * remote * nodes / (nodes - 1) / took


def _copies(reached: int) -> float:
    """Return at how many of so many ranks a token has an expert."""
    experts = int(_rules()["experts"])
    return float(reached * (1 - (1 - 1 / reached) ** experts))


@lru_cache(maxsize=1)
def _rules() -> dict[str, Any]:
    """Return the reading rules: patterns of a row's device and op to systems."""
    return dict(read_yaml(DATA / "validation" / "benchmarks.yaml").data)


def _system(row: dict[str, str]) -> System | None:
    """Return the first system whose pattern a row matches; a rule without a node skips it."""
    text = f"{row['source']} | {row['device']} | {row['op']}"
    for rule in _rules()["systems"]:
        if re.search(rule["pattern"], text):
            return _made(tuple(sorted(rule.items()))) if "node" in rule else None
    return None


@lru_cache(maxsize=32)
def _made(items: tuple[tuple[str, Any], ...]) -> System:
    rule = dict(items)
    node = load_node(rule["node"])
    if "network" in rule:
        node = replace(node, scale_out=load_scale_out(rule["network"]))
    return System(node, rule["group"], rule.get("harness", rule["pattern"]),
                  int(rule.get("node_limit", 0)), bool(rule.get("counts_nodes")))  # fmt: skip
