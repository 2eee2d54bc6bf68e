"""Read devices, links, networks, nodes and software stacks from YAML, with all faults at once.

A name is a file of the catalogue (or one of its `aliases`); anything with a path separator or the
ending .yaml is a user's own file, looked for beside the file that names it. The tables below say
what each file holds; `sheet` reads it, and `identities` refuses what cannot be true: an
efficiency above one, links that do not add up, a TPP that the peaks deny.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from ersatz.device_models.catalog.device import (
    Device,
    Fact,
    Node,
    ScaleOut,
    ScaleUp,
    sixteen_bit,
)
from ersatz.device_models.catalog.identities import (
    check_device,
    check_node,
    check_scale_out,
    check_scale_up,
    check_stack,
)
from ersatz.device_models.catalog.power import limited_clock
from ersatz.device_models.catalog.sheet import LEAF_KEYS, Schema, Sheet, read_sheet, read_text
from ersatz.device_models.catalog.stack import Anchor, Stack
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.files import remembered
from ersatz.device_models.text.problems import InputError, Problem, did_you_mean
from ersatz.device_models.text.yamltext import YamlText

_COMMON = {"name": "text", "title": "text", "description": "text", "based_on": "text",
           "aliases": "list", "sources": "mapping"}  # fmt: skip
# What export rules read of a device (`export`); a user's own device may leave them out.
EXPORT_LEAVES = {
    "designer": "text", "process_nm": "number", "foundry": "text", "transistors": "number",
    "data_centre": "boolean", "sold_in_us": "boolean",
    "die_area_least_m2": "area", "die_area_most_m2": "area", "sold_as": "text",
}  # fmt: skip
EXPORT_ONLY = frozenset({*EXPORT_LEAVES, "die_area_m2", "io_bandwidth"})  # no run reads them
DEVICE = Schema(
    header=_COMMON | {"vendor": "text", "architecture": "text", "released": "text",
                      "bin_of": "text", "trains": "boolean", "why_not": "text", "prices": "list"},
    leaves={
        "memory_bytes": "bytes", "memory_bandwidth": "bandwidth", "memory_efficiency": "fraction",
        "cache_bytes": "bytes", "matrix_tile": "tile", "compute_units": "integer",
        "clock_hz": "frequency", "kernel_launch_s": "time", "power_idle_w": "power",
        "power_max_w": "power", "die_area_m2": "area", "io_bandwidth": "bandwidth",
        "failure_rate": "rate", "attention_forward": "fraction", "attention_backward": "fraction",
        "attention_portable": "fraction", "sustained_clock": "number", "tpp": "number",
        **EXPORT_LEAVES,
    },
    maps={"matrix_peak": "flop_rate", "vector_peak": "flop_rate",
          "matrix_ceiling": "fraction", "datasheet_peak": "flop_rate"},
    optional=frozenset({"tpp", "datasheet_peak", "sustained_clock", *EXPORT_LEAVES}),
)  # fmt: skip
SCALE_UP = Schema(
    header=_COMMON | {"kind": "text"},
    leaves={
        "domain": "integer", "links": "integer", "link_bandwidth": "bandwidth",
        "efficiency": "fraction", "in_switch": "fraction", "all_to_all": "fraction",
        "latency_s": "time", "total_bandwidth": "bandwidth", "peer_s": "time",
        "bulk_latency_s": "time", "quick_share": "fraction", "dims": "tile",
    },
    optional=frozenset({"dims", "total_bandwidth", "peer_s", "bulk_latency_s", "quick_share"}),
)  # fmt: skip
SCALE_OUT = Schema(
    header=_COMMON | {"kind": "text"},
    leaves={
        "tiers": "integer", "nic_bandwidth": "bandwidth", "efficiency": "fraction",
        "all_to_all": "fraction", "latency_s": "time", "oversubscription": "number",
        "group_stall_s": "time", "message_stall_s": "time", "piece_s": "time", "crowding": "number",
        "leaf_nodes": "integer", "ports": "integer", "planes": "integer", "uplinks": "integer",
        "pod_nodes": "integer", "core_oversubscription": "number", "core_bandwidth": "bandwidth",
        "core_latency_s": "time", "switch_price": "number", "cable_price": "number",
        "switch_power_w": "power", "cable_power_w": "power", "start_s": "time",
        "quick_latency_s": "time", "quick_share": "fraction", "peer_s": "time",
        "pat_gather": "boolean", "level_gather": "boolean", "knee_bytes": "bytes",
        "beyond_knee": "fraction",
    },
    optional=frozenset({
        "piece_s", "group_stall_s", "message_stall_s", "crowding", "leaf_nodes", "ports", "planes", "uplinks",
        "pod_nodes", "core_oversubscription", "core_bandwidth", "core_latency_s", "switch_price",
        "cable_price", "switch_power_w", "cable_power_w", "start_s", "quick_latency_s", "quick_share",
        "peer_s", "pat_gather", "level_gather", "knee_bytes", "beyond_knee",
    }),
)  # fmt: skip
NODE = Schema(
    header=_COMMON | {"device": "text", "scale_up": "text", "scale_out": "text", "prices": "list"},
    leaves={"devices": "integer", "nics": "integer", "host_power_w": "power",
            "failure_rate": "rate", "host_busy_share": "fraction", "host_idle_share": "fraction"},
    optional=frozenset({"host_busy_share", "host_idle_share"}),
)  # fmt: skip
STACK_OPTIONAL = frozenset(
    {
        "pat_gather",
        "accumulates_apart",
        "half_accumulate_bytes",
        "recompute_stops_early",
        "rank_limited_dispatch",
        "matrix_factor",
        "collective_factor",
        "host_bandwidth",
        "activation_offload",
        "weights_offload",
        "updates_on_device",
        "pipeline_buffers",
        "keeps_results",
        "scatters_copies",
        "bucket_stands",
        "gradients_follow",
        "graph_share",
        "graph_pool_bytes",
        "expert_buffers",
        "expert_buffer_bytes",
    }
)
ANCHOR_FACTORS = 5  # of `sim.anchor`
STACK_DIMENSIONS = {
    "memory_overhead_bytes": "bytes",
    "communicator_bytes": "bytes",
    "optimizer_bandwidth": "bandwidth",
    "host_bandwidth": "bandwidth",
    "graph_pool_bytes": "bytes",
    "expert_buffer_bytes": "bytes",
}

Part = TypeVar("Part", Device, ScaleUp, ScaleOut)


def load_device(name: str) -> Device:
    """Return an accelerator by catalogue name, alias or path; raises `InputError`."""
    return _device(find_file(name, "devices"))


def load_scale_up(name: str) -> ScaleUp:
    """Return a scale-up fabric by name or path; raises `InputError`."""
    return _scale_up(find_file(name, "fabrics"))


def load_scale_out(name: str) -> ScaleOut:
    """Return a scale-out network by name or path; raises `InputError`."""
    return _scale_out(find_file(name, "fabrics"))


def make_scale_out(data: Mapping[str, Any], folder: Path = Path()) -> ScaleOut:
    """Return the network that a mapping describes: keys of a network file with plain values.

    `based_on` names a network whose values hold where the mapping is silent. Raises `InputError`
    with a problem without a place for every fault; their keys are those of the mapping.
    """
    path = folder / "network.yaml"
    given = {"source": "GIVEN", "date": "given", "confidence": "high"}
    leaves = {key: value if key in SCALE_OUT.header else _as_leaf(value, given)
              for key, value in data.items()}  # fmt: skip
    own_sources = {"sources": {"GIVEN": "as given", **data.get("sources", {})}}
    text = YamlText("", {**leaves, **own_sources}, {}, {})
    return _made_scale_out(
        read_text(text, path, SCALE_OUT, lambda name, beside: find_file(name, "fabrics", beside)),
        str(data.get("name", data.get("based_on", "own network"))),
    )


def _as_leaf(value: Any, given: Mapping[str, str]) -> Any:
    whole = isinstance(value, dict) and "value" in value and not set(value) - set(LEAF_KEYS)
    return {**given, **value} if whole else {"value": value, **given}


def load_node(name: str) -> Node:
    """Return a node by name or path; raises `InputError`."""
    return _node(find_file(name, "nodes"))


def load_stack(name: str) -> Stack:
    """Return a software stack by name or path; raises `InputError`."""
    return _stack(find_file(name, "stacks"))


def list_devices() -> list[str]:
    """Return the names of all catalogue devices."""
    return _names("devices")


def list_nodes() -> list[str]:
    """Return the names of all catalogue nodes."""
    return _names("nodes")


def list_stacks() -> list[str]:
    """Return the names of all catalogue stacks."""
    return _names("stacks")


def list_fabrics() -> list[str]:
    """Return the names of all catalogue fabrics, scale-up and scale-out."""
    return _names("fabrics")


def _names(room: str) -> list[str]:
    return sorted(path.stem for path in (DATA / room).glob("*.yaml"))


def find_file(name: str, room: str, folder: Path = Path()) -> Path:
    """Return the file of a name; a path is looked for in `folder` first. Raises `InputError`."""
    if name.endswith((".yaml", ".yml")) or "/" in name or "\\" in name:
        return Path(os.path.abspath(folder / name if os.path.exists(folder / name) else name))
    wanted, known, others = name.strip().lower(), _names(room), aliases(room)
    if wanted in known or wanted in others:
        return DATA / room / f"{others.get(wanted, wanted)}.yaml"
    hint = did_you_mean(wanted, [*known, *others])
    expected = f"no such name in the catalogue of {room}{hint}"
    raise InputError([Problem(name[:60], 0, 0, "", "", expected)])


@lru_cache(maxsize=8)
def aliases(room: str) -> dict[str, str]:
    """Return other names of each file; only the header lines are looked at, for speed."""
    found: dict[str, str] = {}
    for path in (DATA / room).glob("*.yaml"):
        for line in path.read_text(encoding="utf-8").splitlines()[:8]:
            if line.startswith("aliases:"):
                names = line.removeprefix("aliases:").strip().strip("[]").split(",")
                found.update({alias.strip(" \"'").lower(): path.stem for alias in names})
    return found


def _read(path: Path, room: str, schema: Schema) -> Sheet:
    return read_sheet(path, schema, lambda name, folder: find_file(name, room, folder))


@remembered
def _device(path: Path) -> Device:
    sheet = _read(path, "devices", DEVICE)
    trains = sheet.header.get("trains", True)
    if not trains and not sheet.header.get("why_not"):
        sheet.blame(("trains",), trains, "a device that cannot train needs `why_not`")
    check_device(sheet.values, sheet.blame)
    sheet.finish()
    _limit_clock(sheet, path)
    known = {f.name for f in fields(Device)}
    values = {key: value for key, value in sheet.values.items() if key in known}
    texts = {"title": path.stem, "vendor": "unknown", "architecture": "", "released": "",
             "why_not": ""}  # fmt: skip
    header = {key: sheet.header.get(key, silent) for key, silent in texts.items()}
    return Device(name=path.stem, trains=trains, prices=sheet.prices, facts=sheet.facts,
                  sources=sheet.sources, **header, **values)  # fmt: skip


def _limit_clock(sheet: Sheet, path: Path) -> None:
    """Predict the clock of a bin of another device from its power, unless its file states it."""
    usual = sheet.header.get("based_on") or sheet.header.get("bin_of")
    if not usual or "sustained_clock" in sheet.text.data:
        return
    try:
        part = _device(find_file(str(usual), "devices", path.parent))
    except InputError as error:
        sheet.blame_for(("bin_of",), usual, error)
        raise InputError(sheet.problems) from error
    power, peaks = sheet.values["power_max_w"], sheet.values["matrix_peak"]
    clock = limited_clock(power, sixteen_bit(peaks), part)
    sheet.values["sustained_clock"] = clock
    if abs(clock / part.sustained_clock - 1) > 0.005:
        note = f"a bin of {part.name} with {power:g} W: not measured, follows from its power"
        sheet.sources = {**sheet.sources, "POWER": "data/power.yaml"}
        sheet.facts["sustained_clock"] = Fact("sustained_clock", clock, f"{clock:.3g}", "POWER",
                                              "2026-11", "assumed", note)  # fmt: skip


@remembered
def _scale_up(path: Path) -> ScaleUp:
    sheet = _read(path, "fabrics", SCALE_UP)
    kind = _choice(sheet, "kind", ("switched", "mesh", "supernode", "ring", "torus"))
    check_scale_up(sheet.values, kind, sheet.blame)
    sheet.finish()
    values = {key: value for key, value in sheet.values.items() if key != "total_bandwidth"}
    return ScaleUp(name=path.stem, title=_title(sheet, path), kind=kind,  # type: ignore[arg-type]
                   facts=sheet.facts, sources=sheet.sources, **values)  # fmt: skip


@remembered
def _scale_out(path: Path) -> ScaleOut:
    return _made_scale_out(_read(path, "fabrics", SCALE_OUT), path.stem)


def _made_scale_out(sheet: Sheet, name: str) -> ScaleOut:
    kind = _choice(sheet, "kind", ("rail", "fat-tree", "dual-plane", "multi-plane"))
    check_scale_out(sheet.values, sheet.blame)
    sheet.finish()
    title = str(sheet.header.get("title", name))
    return ScaleOut(name=name, title=title, kind=kind,  # type: ignore[arg-type]
                    facts=sheet.facts, sources=sheet.sources, **sheet.values)  # fmt: skip


@remembered
def _node(path: Path) -> Node:
    sheet = _read(path, "nodes", NODE)
    device = _part(sheet, path, "device", "devices", _device)
    scale_up = _part(sheet, path, "scale_up", "fabrics", _scale_up)
    scale_out = _part(sheet, path, "scale_out", "fabrics", _scale_out)
    if scale_up:
        check_node(sheet.values, scale_up, sheet.blame)
    if sheet.problems or not (device and scale_up and scale_out):
        raise InputError(sheet.problems)
    return Node(name=path.stem, title=_title(sheet, path), device=device, scale_up=scale_up,
                scale_out=scale_out, prices=sheet.prices, facts=sheet.facts,
                sources=sheet.sources, **sheet.values)  # fmt: skip


def _part(
    sheet: Sheet, path: Path, key: str, room: str, load: Callable[[Path], Part]
) -> Part | None:
    """Load what a node names; the faults of its file are faults of the node."""
    name = sheet.header.get(key)
    if name is None:
        if key not in sheet.text.data:
            sheet.blame((), key, "key is missing")
        return None
    try:
        return load(find_file(name, room, path.parent))
    except InputError as error:
        sheet.blame_for((key,), name, error)
        return None


@remembered
def _stack(path: Path) -> Stack:
    schema = Schema(header=_COMMON | {"defaults": "mapping", "anchor": "mapping", "released": "text"},
                    leaves=_stack_leaves(), optional=STACK_OPTIONAL)  # fmt: skip
    sheet = _read(path, "stacks", schema)
    check_stack(sheet.values, sheet.header.get("defaults", {}), sheet.blame)
    anchor = _anchor(sheet)
    sheet.finish()
    defaults = {key: str(value).lower() for key, value in sheet.header.get("defaults", {}).items()}
    return Stack(name=path.stem, title=_title(sheet, path), defaults=defaults, anchor=anchor,
                 released=str(sheet.header.get("released", "")),
                 facts=sheet.facts, sources=sheet.sources, **sheet.values)  # fmt: skip


def _anchor(sheet: Sheet) -> Anchor | None:
    """Return the measured steps that a stack was moved to, if its own file says so."""
    given = sheet.text.data.get("anchor")
    if not isinstance(given, dict):
        return None
    known = {f.name for f in fields(Anchor)}
    if set(given) != known:
        sheet.blame(("anchor",), sorted(given), f"expected the keys {', '.join(sorted(known))}")
        return None
    rows = given["covariance"]
    square = isinstance(rows, list) and all(
        isinstance(row, list) and len(row) == len(rows) and all(map(_is_number, row))
        for row in rows
    )
    if not square or len(rows) != ANCHOR_FACTORS:
        expected = f"expected {ANCHOR_FACTORS} rows of {ANCHOR_FACTORS} numbers"
        sheet.blame(("anchor", "covariance"), None, expected)
        return None
    if not _is_number(given["runs"]) or given["runs"] < 1:
        sheet.blame(("anchor", "runs"), given["runs"], "expected a number of 1 or more")
        return None
    if not _is_number(given["spread"]) or given["spread"] <= 0:
        sheet.blame(("anchor", "spread"), given["spread"], "expected a number above 0")
        return None
    table = tuple(tuple(float(v) for v in row) for row in rows)
    runs, spread = int(given["runs"]), float(given["spread"])
    return Anchor(str(given["base"]), str(given["device"]), runs, spread, table)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _stack_leaves() -> dict[str, str]:
    """Kind of each value of a stack, from its type and its name."""
    kinds = {"bool": "boolean", "str": "text", "float": "number", "int": "integer"}
    leaves = {f.name: kinds[str(f.type)] for f in fields(Stack) if str(f.type) in kinds}
    times = {name: "time" for name in leaves if name.endswith("_s")}
    named = {"name", "title", "released"}
    return {k: v for k, v in (leaves | times | STACK_DIMENSIONS).items() if k not in named}


def _title(sheet: Sheet, path: Path) -> str:
    return str(sheet.header.get("title", path.stem))


def _choice(sheet: Sheet, key: str, known: tuple[str, ...]) -> str:
    value = sheet.header.get(key)
    if value not in known:
        sheet.blame((key,), value, f"expected one of {', '.join(known)}")
        return known[0]
    return str(value)
