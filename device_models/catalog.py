"""Read devices, links, networks, nodes and software stacks from YAML, with all faults at once.

A name is a file of the catalogue (or one of its `aliases`); anything with a path separator or the
ending .yaml is a user's own file. Every value is a leaf `{value, source, date, confidence, note}`;
`based_on` names a file whose values hold where the own file is silent. What cannot be true is
refused on load: an efficiency above one, links that do not add up, a TPP that the peaks deny.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from device_models.device import Device, Fact, Node, Price, ScaleOut, ScaleUp
from device_models.identities import check_device, check_node, check_scale_out, check_scale_up
from device_models.problems import InputError, Problem, did_you_mean
from device_models.stack import Stack
from device_models.units import CURRENCIES, UnitError, parse_money, parse_quantity
from device_models.yamltext import Key, YamlText, read_yaml

DATA = Path(str(files("device_models") / "data"))
CONFIDENCES = ("high", "medium", "low", "assumed")
HEADER = ("name", "title", "vendor", "architecture", "aliases", "released", "trains", "why_not",
          "sources", "prices", "based_on", "device", "scale_up", "scale_out", "kind", "defaults",
          "description")  # fmt: skip

# What each leaf means: a dimension of `units`, or number, integer, boolean, text, tile.
DEVICE = {
    "memory_bytes": "bytes", "memory_bandwidth": "bandwidth", "memory_efficiency": "fraction",
    "cache_bytes": "bytes", "matrix_tile": "tile", "compute_units": "integer",
    "clock_hz": "frequency", "kernel_launch_s": "time", "power_idle_w": "power",
    "power_max_w": "power", "die_area_m2": "area", "io_bandwidth": "bandwidth",
    "failure_rate": "rate", "attention_forward": "fraction", "attention_backward": "fraction",
    "attention_portable": "fraction", "tpp": "number",
}  # fmt: skip
DEVICE_MAPS = {"matrix_peak": "flop_rate", "vector_peak": "flop_rate",
               "matrix_ceiling": "fraction", "datasheet_peak": "flop_rate"}  # fmt: skip
SCALE_UP = {
    "domain": "integer", "links": "integer", "link_bandwidth": "bandwidth",
    "efficiency": "fraction", "in_switch": "fraction", "all_to_all": "fraction",
    "latency_s": "time", "total_bandwidth": "bandwidth",
}  # fmt: skip
SCALE_OUT = {
    "tiers": "integer", "nic_bandwidth": "bandwidth", "efficiency": "fraction",
    "all_to_all": "fraction", "latency_s": "time", "oversubscription": "number",
    "group_stall_s": "time", "message_stall_s": "time",
}  # fmt: skip
NODE = {"devices": "integer", "nics": "integer", "host_power_w": "power", "failure_rate": "rate"}
OPTIONAL = {"tpp", "total_bandwidth", "datasheet_peak", "group_stall_s", "message_stall_s"}
STACK_DIMENSIONS = {"memory_overhead_bytes": "bytes"}


@dataclass(slots=True)
class Sheet:
    """One file in the course of being read."""

    text: YamlText
    values: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    prices: tuple[Price, ...] = ()
    problems: list[Problem] = field(default_factory=list)

    def blame(self, path: Key, value: object, expected: str, *, at_key: bool = False) -> None:
        """Note a fault at a place of the file."""
        self.problems.append(self.text.problem(path, value, expected, at_key=at_key))


def load_device(name: str) -> Device:
    """Return an accelerator by catalogue name, alias or path; raises `InputError`."""
    return _device(_find(name, "devices"))


def load_scale_up(name: str) -> ScaleUp:
    """Return a scale-up fabric by name or path; raises `InputError`."""
    return _scale_up(_find(name, "fabrics"))


def load_scale_out(name: str) -> ScaleOut:
    """Return a scale-out network by name or path; raises `InputError`."""
    return _scale_out(_find(name, "fabrics"))


def load_node(name: str) -> Node:
    """Return a node by name or path; raises `InputError`."""
    return _node(_find(name, "nodes"))


def load_stack(name: str) -> Stack:
    """Return a software stack by name or path; raises `InputError`."""
    return _stack(_find(name, "stacks"))


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


def _find(name: str, room: str) -> Path:
    if name.endswith((".yaml", ".yml")) or "/" in name or "\\" in name:
        return Path(name).resolve()
    wanted = name.strip().lower()
    path = DATA / room / f"{wanted}.yaml"
    if path.is_file():
        return path
    aliases = _aliases(room)
    if wanted in aliases:
        return DATA / room / f"{aliases[wanted]}.yaml"
    hint = did_you_mean(wanted, [*_names(room), *aliases])
    known = f"no such name in the catalogue of {room}{hint}"
    raise InputError([Problem(name, 0, 0, "", "", known)])


@lru_cache(maxsize=8)
def _aliases(room: str) -> dict[str, str]:
    """Return other names of each file; only the header lines are looked at, for speed."""
    found: dict[str, str] = {}
    for path in (DATA / room).glob("*.yaml"):
        for line in path.read_text(encoding="utf-8").splitlines()[:8]:
            if line.startswith("aliases:"):
                names = line.removeprefix("aliases:").strip().strip("[]").split(",")
                found.update({alias.strip(" \"'").lower(): path.stem for alias in names})
    return found


@lru_cache(maxsize=128)
def _device(path: Path) -> Device:
    sheet = _read(path, "devices", DEVICE, DEVICE_MAPS)
    trains = sheet.header.get("trains", True)
    if not trains and not sheet.header.get("why_not"):
        sheet.blame(("trains",), trains, "a device that cannot train needs `why_not`")
    check_device(sheet.values, sheet.blame)
    _finish(sheet)
    known = {f.name for f in fields(Device)}
    values = {key: value for key, value in sheet.values.items() if key in known}
    return Device(
        name=path.stem, title=str(sheet.header.get("title", path.stem)),
        vendor=str(sheet.header.get("vendor", "unknown")),
        architecture=str(sheet.header.get("architecture", "")),
        released=str(sheet.header.get("released", "")), trains=bool(trains),
        why_not=str(sheet.header.get("why_not", "")), prices=sheet.prices,
        facts=sheet.facts, sources=sheet.sources, **values,
    )  # fmt: skip


@lru_cache(maxsize=128)
def _scale_up(path: Path) -> ScaleUp:
    sheet = _read(path, "fabrics", SCALE_UP, {})
    kind = _choice(sheet, "kind", ("switched", "mesh", "supernode"))
    check_scale_up(sheet.values, kind, sheet.blame)
    _finish(sheet)
    values = {key: value for key, value in sheet.values.items() if key != "total_bandwidth"}
    return ScaleUp(name=path.stem, title=str(sheet.header.get("title", path.stem)), kind=kind,  # type: ignore[arg-type]
                   facts=sheet.facts, sources=sheet.sources, **values)  # fmt: skip


@lru_cache(maxsize=128)
def _scale_out(path: Path) -> ScaleOut:
    sheet = _read(path, "fabrics", SCALE_OUT, {})
    kind = _choice(sheet, "kind", ("rail", "fat-tree", "dual-plane", "multi-plane"))
    check_scale_out(sheet.values, sheet.blame)
    _finish(sheet)
    return ScaleOut(name=path.stem, title=str(sheet.header.get("title", path.stem)), kind=kind,  # type: ignore[arg-type]
                    facts=sheet.facts, sources=sheet.sources, **sheet.values)  # fmt: skip


@lru_cache(maxsize=128)
def _node(path: Path) -> Node:
    sheet = _read(path, "nodes", NODE, {})
    parts = {}
    for key, load in (("device", load_device), ("scale_up", load_scale_up),
                      ("scale_out", load_scale_out)):  # fmt: skip
        try:
            parts[key] = load(str(sheet.header.get(key, "")))
        except InputError as error:
            shown = sheet.header.get(key)
            sheet.problems += [
                problem if problem.line else sheet.text.problem((key,), shown, problem.expected)
                for problem in error.problems
            ]
    if len(parts) == 3:
        check_node(sheet.values, parts["scale_up"], sheet.blame)  # type: ignore[arg-type]
    _finish(sheet)
    return Node(name=path.stem, title=str(sheet.header.get("title", path.stem)),
                prices=sheet.prices, facts=sheet.facts, sources=sheet.sources,
                **parts, **sheet.values)  # type: ignore[arg-type]  # fmt: skip


@lru_cache(maxsize=128)
def _stack(path: Path) -> Stack:
    sheet = _read(path, "stacks", _stack_leaves(), {})
    _finish(sheet)
    defaults = {key: str(value) for key, value in sheet.header.get("defaults", {}).items()}
    return Stack(name=path.stem, title=str(sheet.header.get("title", path.stem)),
                 defaults=defaults, facts=sheet.facts, sources=sheet.sources,
                 **sheet.values)  # fmt: skip


def _stack_leaves() -> dict[str, str]:
    """Kind of each value of a stack, from its type and its name."""
    kinds = {"bool": "boolean", "str": "text", "float": "number", "int": "integer"}
    leaves = {f.name: kinds[str(f.type)] for f in fields(Stack) if str(f.type) in kinds}
    times = {name: "time" for name in leaves if name.endswith("_s")}
    named = {"name", "title"}
    return {k: v for k, v in (leaves | times | STACK_DIMENSIONS).items() if k not in named}


def _read(path: Path, room: str, leaves: Mapping[str, str], maps: Mapping[str, str]) -> Sheet:
    """Read a file and what it is based on; missing and unknown keys become problems."""
    sheet = Sheet(read_yaml(path))
    data = sheet.text.data
    if not isinstance(data, dict):
        raise InputError([sheet.text.problem((), None, "expected keys and values")])
    if data.get("based_on"):
        base = _read(_find(str(data["based_on"]), room), room, leaves, maps)
        _finish(base)
        sheet.values, sheet.facts = dict(base.values), dict(base.facts)
        sheet.sources, sheet.header = dict(base.sources), dict(base.header)
        sheet.prices = base.prices
    _read_header(sheet, data)
    for key, node in data.items():
        if key in leaves:
            sheet.values[key] = _leaf(sheet, (key,), node, leaves[key])
        elif key in maps and isinstance(node, dict):
            read = {
                dtype: _leaf(sheet, (key, dtype), leaf, maps[key]) for dtype, leaf in node.items()
            }
            sheet.values[key] = {**sheet.values.get(key, {}), **read}
        elif key not in HEADER:
            hint = did_you_mean(key, [*leaves, *maps, *HEADER])
            sheet.blame((key,), None, f"unknown key{hint}", at_key=True)
    for key in [*leaves, *maps]:
        if key not in sheet.values and key not in OPTIONAL:
            sheet.blame((), key, "key is missing")
    return sheet


def _read_header(sheet: Sheet, data: Mapping[str, Any]) -> None:
    inherited = {k: v for k, v in sheet.header.items() if k not in ("aliases", "prices")}
    own = {key: data[key] for key in HEADER if key in data}
    sheet.header = {**inherited, **own}
    sources = data.get("sources") or {}
    if isinstance(sources, dict):
        sheet.sources.update({key: str(text) for key, text in sources.items()})
    if "prices" in data:
        rows = data["prices"] or []
        sheet.prices = tuple(
            price for i, row in enumerate(rows) if (price := _price(sheet, ("prices", i), row))
        )


def _price(sheet: Sheet, path: Key, row: Any) -> Price | None:
    if not isinstance(row, dict) or row.get("kind") not in ("rent", "purchase"):
        sheet.blame(path, None, "expected a price with kind rent or purchase")
        return None
    dimension = "money_rate" if row["kind"] == "rent" else "money"
    try:
        amount, currency = parse_money(row.get("value"), dimension)
    except UnitError as error:
        sheet.blame((*path, "value"), row.get("value"), str(error))
        return None
    if currency not in CURRENCIES:
        sheet.blame((*path, "value"), row.get("value"), f"expected one of {', '.join(CURRENCIES)}")
        return None
    texts = {
        key: str(row.get(key, "")) for key in ("date", "region", "source", "confidence", "note")
    }
    return Price(row["kind"], amount, currency, **texts)


def _leaf(sheet: Sheet, path: Key, node: Any, kind: str) -> Any:
    """Read one value with its provenance."""
    if not isinstance(node, dict) or "value" not in node:
        sheet.blame(path, node, "expected {value, source, date, confidence}")
        return None
    raw = node["value"]
    value = _convert(sheet, (*path, "value"), raw, kind)
    for key in node:
        if key not in ("value", "source", "date", "confidence", "note"):
            sheet.blame((*path, key), None, "unknown key of a value", at_key=True)
    source, confidence = str(node.get("source", "")), str(node.get("confidence", ""))
    if source not in sheet.sources:
        sheet.blame((*path, "source"), source, "expected a key of `sources`")
    if confidence not in CONFIDENCES:
        sheet.blame((*path, "confidence"), confidence, f"expected one of {', '.join(CONFIDENCES)}")
    name = ".".join(str(part) for part in path)
    shown = value if isinstance(value, int | float | str) else str(value)
    sheet.facts[name] = Fact(name, shown, str(raw), source, str(node.get("date", "")),
                             confidence, str(node.get("note", "")))  # type: ignore[arg-type]  # fmt: skip
    return value


def _convert(sheet: Sheet, path: Key, raw: Any, kind: str) -> Any:
    """Bring a raw value into base units; a fault is noted and gives None."""
    number = isinstance(raw, int | float) and not isinstance(raw, bool)
    if kind == "boolean" and isinstance(raw, bool):
        return raw
    if kind == "text" and isinstance(raw, str):
        return raw
    if kind == "integer" and number and raw == int(raw) and raw >= 0:
        return int(raw)
    if kind == "number" and number and raw >= 0:
        return float(raw)
    if kind == "tile" and isinstance(raw, list) and len(raw) == 3:
        return tuple(int(size) for size in raw)
    if kind in ("boolean", "text", "integer", "number", "tile"):
        sheet.blame(path, raw, f"expected a {kind}")
        return None
    try:
        value = parse_quantity(raw, kind)
    except UnitError as error:
        sheet.blame(path, raw, str(error))
        return None
    if value < 0:
        sheet.blame(path, raw, "expected a value that is not negative")
    return value


def _choice(sheet: Sheet, key: str, known: tuple[str, ...]) -> str:
    value = sheet.header.get(key)
    if value not in known:
        sheet.blame((key,), value, f"expected one of {', '.join(known)}")
        return known[0]
    return str(value)


def _finish(sheet: Sheet) -> None:
    if sheet.problems:
        raise InputError(sheet.problems)
