"""What a rank is told: which device it pretends to have, where it stands, how kernels are timed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

from ersatz.device_models.catalog.device import Device, Node
from ersatz.device_models.catalog.reading import load_node, load_stack
from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.units import parse_quantity
from ersatz.device_models.text.yamltext import parse_yaml
from ersatz.sim.errors import InputError, Problem
from ersatz.sim.plan.network import used_node
from ersatz.sim.scenario.scenario import Pool

TESTED = ("2.13", "2.14")  # minors of PyTorch that the tests ran with
OLDEST = (2, 13)
WHERE = ".where"  # ends the file in which a rank says where its script is
STANDINS = ("apex", "flash_attn", "liger_kernel", "transformer_engine", "xformers")  # that have one


@dataclass(frozen=True, slots=True)
class Shown:
    """How drivers and PyTorch present a device."""

    surface: str  # cuda or npu: torch.cuda, torch.npu
    name: str  # what the driver calls it
    capability: tuple[int, int]
    warp: int  # threads that go in step
    warp_assumed: bool = False
    hip: str = ""  # version of ROCm where the surface is that of AMD
    assumed: str = ""  # what of it is assumed; empty: nothing


@dataclass(frozen=True, slots=True)
class Host:
    """What the host adds, and what an emulation assumes of it (data/emulate.yaml)."""

    launch_s: float  # host time of one eager operator
    collective_launch_s: float
    copy_bandwidth: float  # bytes/s between host and device
    storage_bandwidth: float  # bytes/s of a checkpoint of one rank
    launch_queue: int  # launches that a driver takes before it makes the host wait


@dataclass(frozen=True, slots=True)
class Seat:
    """One rank of an emulated world, as the process that stands for it is told."""

    node: str  # name or path in the catalogue
    nodes: int
    stack: str
    rank: int
    world: int
    per_node: int
    steps: int  # optimizer steps after which the script is stopped; 0: let it end by itself
    represented: tuple[int, ...]  # ranks that run as processes
    store_port: int  # of the store over which they exchange small values; 0: alone
    timer: str
    calibration: str
    attach: str  # backend on which the live timer measures
    out: str  # file for the trace
    seed: int
    unknown_float: float
    under_torchrun: bool
    allocator: str  # options of PyTorch's allocator, as the environment gives them
    standins: tuple[str, ...] = ()  # packages for which one is put in place

    def to_json(self) -> str:
        """Return the text that the rank's process reads."""
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> Seat:
        """Read what `to_json` wrote."""
        data = json.loads(text)
        return cls(**{**data, "represented": tuple(data["represented"]),
                      "standins": tuple(data["standins"])})  # fmt: skip


@lru_cache(maxsize=1)
def host_defaults() -> Host:
    """Return what is assumed of hosts."""
    data = parse_yaml((DATA / "emulate.yaml").read_text("utf-8"), "emulate.yaml").data["host"]
    return Host(
        parse_quantity(data["launch_s"]["value"], "time"),
        parse_quantity(data["collective_launch_s"]["value"], "time"),
        parse_quantity(data["copy_bandwidth"]["value"], "bandwidth"),
        parse_quantity(data["storage_bandwidth"]["value"], "bandwidth"),
        int(data["launch_queue"]["value"]),
    )


def shown_as(device: Device) -> Shown:
    """Return how a device presents itself to a script.

    Raises `InputError` for a device without a surface in PyTorch that the emulator has.
    """
    data = parse_yaml((DATA / "emulate.yaml").read_text("utf-8"), "emulate.yaml").data
    vendors, names = data["vendors"], data["drivers"]
    if device.vendor not in vendors:
        expected = f"has no surface that can be emulated; expected one of {', '.join(vendors)}"
        raise InputError(
            [Problem(f"device {device.name}", 0, 0, "vendor", device.vendor, expected)]
        )
    vendor, row = vendors[device.vendor], names.get(device.name)
    capability = (row or vendor)["capability"]
    name = row["name"] if row else device.title
    assumed = "" if row and row["confidence"] in ("high", "medium") else (
        f"to the script the device is torch.{vendor['surface']} and called {name!r}: assumed"
    )  # fmt: skip
    return Shown(
        vendor["surface"], name, (capability[0], capability[1]), int(vendor["warp"]),
        bool(vendor.get("warp_assumed")), vendor.get("hip", ""), assumed,
    )  # fmt: skip


def seated_node(node: str, nodes: int, stack: str) -> tuple[Node, Stack]:
    """Return a node with the cards its software uses and a peak for every format, and the stack."""
    software = load_stack(stack)
    return node_of(Pool("", load_node(node), nodes, software)), software


def node_of(pool: Pool) -> Node:
    """Return the node of a pool as its ranks find it."""
    found = used_node(pool)
    return replace(found, device=with_every_peak(found.device))


def with_every_peak(device: Device) -> Device:
    """Return a device with a peak for every format.

    Products in fp32 run on vector units where no others do; those in 8 and 4 bits at the rate of bf16.
    """
    peaks, ceilings = dict(device.matrix_peak), dict(device.matrix_ceiling)
    wide = device.vector_peak.get("fp32") or max(peaks.values()) / 16
    least = min(ceilings.values())
    for dtype, peak in (("fp32", wide), ("tf32", peaks.get("tf32", wide)),
                        ("bf16", peaks.get("fp16", wide)), ("fp16", peaks.get("bf16", wide))):  # fmt: skip
        peaks.setdefault(dtype, peak)
        ceilings.setdefault(dtype, least)
    for dtype in ("fp8", "int8", "fp4"):  # not native: multiplied after a conversion
        peaks.setdefault(dtype, peaks["bf16"])
        ceilings.setdefault(dtype, ceilings["bf16"])
    return replace(device, matrix_peak=peaks, matrix_ceiling=ceilings)


def usable_memory(node: Node, stack: Stack) -> int:
    """Return the bytes that PyTorch may reserve: not those of contexts and communication."""
    return int(node.device.memory_bytes - stack.memory_overhead_bytes)
