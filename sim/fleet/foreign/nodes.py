"""Fleets from lists of nodes, a function per kind in `NODE_LISTS`.

    openb, spot    Alibaba's node lists of 2023 and 2026
    sinfo          sinfo -N -o "%N|%c|%m|%G|%P"      (or with blanks between)
    scontrol       scontrol show node -o
    kubernetes     kubectl get nodes -o json

None of them tells where nodes stand, but for labels of Kubernetes' topology: all others are under one leaf.
Devices are GPUs and their like; where no node has any, processors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.sim.fleet.cluster import UNCOUNTED, Cluster, FleetNode
from ersatz.sim.fleet.foreign.hostlist import expand
from ersatz.sim.fleet.foreign.kubernetes import node_of, objects
from ersatz.sim.fleet.workload.traces.rows import (
    CellError,
    Row,
    csv_rows,
    fail,
    items_of,
    open_text,
)

_GRES = re.compile(r"(?:^|,)gpu(?::([A-Za-z_][\w.-]*))?:([0-9]{1,6})")
_WORDS = {"NODELIST": "name", "NODE": "name", "CPUS": "cpu", "MEMORY": "memory", "GRES": "gres",
          "NodeName": "name", "CPUTot": "cpu", "RealMemory": "memory", "Gres": "gres"}  # fmt: skip
MOST_DEVICES = 1024


def read_fleet(path: Path | str, kind: str = "") -> Cluster:
    """Read a list of nodes of a kind in `NODE_LISTS`, or of the one that it looks like.

    Raises `InputError` with every row that cannot be read.
    """
    path = Path(path)
    kind = kind or _kind_of(path)
    if kind not in NODE_LISTS:
        raise InputError([Problem(str(path), 0, 0, "", kind, "is no kind of node list; expected one of"
                                  f" {', '.join(NODE_LISTS)}{did_you_mean(kind, NODE_LISTS)}")])  # fmt: skip
    nodes = NODE_LISTS[kind](path)
    if not nodes:
        fail(path, "lists no node")
    if not any(node.devices for node in nodes):
        nodes = [FleetNode(n.name, n.type, min(n.cpu_milli // 1000, MOST_DEVICES), n.leaf, n.pod)
                 for n in nodes if n.cpu_milli < UNCOUNTED]  # fmt: skip
    try:
        return Cluster(tuple(nodes), path.name.split(".")[0])
    except ValueError as error:
        fail(path, str(error))


def _kind_of(path: Path) -> str:
    text = open_text(path)
    head = text.lstrip().partition("\n")[0].strip()
    words = set(re.split(r"[,|\s]+", head))
    if head.startswith(("{", "[")):
        return "kubernetes"
    if head.startswith("NodeName="):
        return "scontrol"
    known = (("spot", {"gpu_model", "node_name"}), ("openb", {"sn", "model"}), ("sinfo", {"GRES"}))
    found = [kind for kind, columns in known if columns <= words]
    if not found:
        raise InputError([Problem(str(path), 1, 1, "", head[:60], "does not tell which list this is; put"
                                  f" its kind before the path: {', '.join(NODE_LISTS)}")])  # fmt: skip
    return found[0]


def _openb(path: Path) -> list[FleetNode]:
    def make(row: Row) -> FleetNode:
        return FleetNode(row.text("sn"), row.text("model") or "cpu", _devices(row, "gpu"),
                         cpu_milli=row.count("cpu_milli"), memory_mib=row.count("memory_mib"))  # fmt: skip

    return items_of(path, csv_rows(path, ("sn", "cpu_milli", "memory_mib", "gpu", "model")), make)


def _spot(path: Path) -> list[FleetNode]:
    def make(row: Row) -> FleetNode:
        devices = _devices(row, "gpu_capacity_num")
        return FleetNode(row.text("node_name"), row.text("gpu_model") or "cpu", devices,
                         cpu_milli=1000 * row.count("cpu_num"))  # fmt: skip

    needed = ("gpu_model", "gpu_capacity_num", "cpu_num", "node_name")
    return items_of(path, csv_rows(path, needed), make)


def _devices(row: Row, key: str) -> int:
    count = row.count(key)
    if count > MOST_DEVICES:
        raise CellError(key, row.text(key), f"expected at most {MOST_DEVICES} devices in a node")
    return count


def _sinfo(path: Path) -> list[FleetNode]:
    lines = [line for line in open_text(path).splitlines() if line.strip()]
    if not lines:
        fail(path, "lists no node")
    delimiter = "|" if "|" in lines[0] else ""
    names = [_WORDS.get(w.strip(), w.strip()) for w in _cells(lines[0], delimiter)]

    def rows() -> Iterator[Row]:
        for number, line in enumerate(lines[1:], 2):
            cells = [cell.strip() for cell in _cells(line, delimiter)]
            fault = "" if len(cells) == len(names) else (
                f"has {len(cells)} cells; expected {len(names)}")  # fmt: skip
            yield Row(number, dict(zip(names, cells, strict=False)), fault, None, line, delimiter)

    return _slurm_nodes(path, rows())


def _cells(line: str, delimiter: str) -> list[str]:
    return line.split(delimiter) if delimiter else line.split()


def _scontrol(path: Path) -> list[FleetNode]:
    def rows() -> Iterator[Row]:
        for number, line in enumerate(open_text(path).splitlines(), 1):
            cells = {_WORDS.get(key, key): value for key, value in re.findall(r"(\w+)=(\S*)", line)}
            if cells:
                yield Row(number, cells)

    return _slurm_nodes(path, rows())


def _slurm_nodes(path: Path, rows: Iterator[Row]) -> list[FleetNode]:
    """Return nodes; one that stands in several partitions is one."""

    def make(row: Row) -> list[FleetNode]:
        kinds = _GRES.findall(row.text("gres"))
        devices = sum(int(count) for _, count in kinds)
        if not row.text("name"):
            raise CellError("name", "", "expected names of nodes")
        if devices > MOST_DEVICES:
            raise CellError(
                "gres", row.text("gres"), f"expected at most {MOST_DEVICES} devices in a node"
            )
        kind = next((kind for kind, _ in kinds if kind), "gpu") if kinds else "cpu"
        cpu = 1000 * row.count("cpu", 0) or UNCOUNTED
        return [FleetNode(name, kind, devices, cpu_milli=cpu, memory_mib=_memory(row))
                for name in expand(row.text("name"))]  # fmt: skip

    found = [node for nodes in items_of(path, rows, make) for node in nodes]
    return list({node.name: node for node in found}.values())


def _memory(row: Row) -> int:
    text = row.text("memory").rstrip("+")
    return Row(row.line, {"memory": text}).count("memory", 0) or UNCOUNTED


def _kubernetes(path: Path) -> list[FleetNode]:
    found = [item for item in objects(path) if item.get("kind") == "Node"]
    zones: dict[str, int] = {}
    racks: dict[str, int] = {}
    return [node_of(path, item, zones, racks) for item in found]


NODE_LISTS: dict[str, Callable[[Path], list[FleetNode]]] = {
    "openb": _openb, "spot": _spot, "sinfo": _sinfo, "scontrol": _scontrol, "kubernetes": _kubernetes,
}  # fmt: skip
