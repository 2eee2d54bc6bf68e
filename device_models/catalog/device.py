"""Accelerators, the nodes that hold them and the links between: plain frozen descriptions.

All numbers are in base units (FLOP/s, bytes, bytes/s, s, W, Hz, m2). Peaks are dense and of the
matrix units alone; link rates are per direction. Where a number comes from stands in `facts`.
Not modelled here: time, randomness, or anything about a workload.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

DTYPE_BYTES = {
    "fp32": 4.0,
    "tf32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5,
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One value of the catalogue with where it comes from."""

    key: str
    value: float | str
    text: str
    source: str
    date: str
    confidence: Literal["high", "medium", "low", "assumed"]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Price:
    """What one device costs to rent or to buy, at a date and in a region."""

    kind: Literal["rent", "purchase"]
    amount: float  # currency/s for rent, currency for a purchase
    currency: str
    date: str
    region: str
    source: str
    confidence: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator: what its data sheet says and what it sustains."""

    name: str
    title: str
    vendor: str
    architecture: str
    released: str
    trains: bool
    why_not: str  # why it cannot train, when `trains` is false
    matrix_peak: Mapping[str, float]  # FLOP/s by dtype, dense, matrix units alone
    vector_peak: Mapping[str, float]  # FLOP/s by dtype
    matrix_ceiling: Mapping[str, float]  # sustained share of the matrix peak in training, by dtype
    attention_forward: float  # share of the bf16 peak that fused attention sustains, forward
    attention_backward: float
    attention_portable: float  # speed of portable attention kernels (FlashAttention-2) / the best
    memory_bytes: float
    memory_bandwidth: float
    memory_efficiency: float  # sustained share of the memory bandwidth
    cache_bytes: float
    matrix_tile: tuple[int, int, int]  # m, n, k of one unit's output tile
    compute_units: int
    clock_hz: float
    kernel_launch_s: float  # host time to launch one kernel, without any framework
    power_idle_w: float
    power_max_w: float
    die_area_m2: float
    io_bandwidth: float  # bytes/s, all links and host bus, both directions (export rules)
    failure_rate: float  # failures per second that stop the device
    sustained_clock: float = 1.0  # under its power limit / that of its architecture's usual part
    prices: tuple[Price, ...] = ()
    # Host time to issue a kernel by operation, framework included, where it was measured.
    launches: Mapping[str, float] = field(default_factory=dict, hash=False)
    facts: Mapping[str, Fact] = field(default_factory=dict, repr=False, hash=False, compare=False)
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False, compare=False)

    def supports(self, dtype: str) -> bool:
        """Tell whether the matrix units multiply `dtype` natively."""
        return dtype in self.matrix_peak


def sixteen_bit(peaks: Mapping[str, float]) -> float:
    """Return the peak of the 16-bit format among peaks by dtype, else the largest."""
    return peaks.get("bf16") or peaks.get("fp16") or max(peaks.values())


def family(device: Device) -> str:
    """Return the architecture without what was cut or added: 'Hopper GH100'."""
    return re.split(r"[(+,]", device.architecture)[0].strip()


ScaleUpKind = Literal["switched", "mesh", "supernode", "ring", "torus"]


@dataclass(frozen=True, slots=True)
class ScaleUp:
    """The fast links between the devices of a node or supernode.

    `mesh`: every pair has its own link of `link_bandwidth`, so a group of n devices uses n-1 of
    the `links`. `switched` and `supernode`: a device may use all its links towards any other.
    `ring`: half of the links lead to either neighbour, and what goes further passes through.
    `torus`: rings of `dims` devices in up to three dimensions, which share the links evenly.
    """

    name: str
    title: str
    kind: ScaleUpKind
    domain: int  # devices that it joins
    links: int  # per device
    link_bandwidth: float  # bytes/s per direction
    efficiency: float  # share of the rate that ring and direct collectives sustain
    in_switch: float  # share of the rate of an all-reduce done by the switch; 0 without
    all_to_all: float  # share of the rate that expert all-to-all sustains
    latency_s: float  # per hop of a collective, software included
    bulk_latency_s: float = 0.0  # per hop where a library's bulk protocol has more; 0: as latency_s
    quick_share: float = 1.0  # of the rate that its low-latency protocol sustains, at latency_s
    dims: tuple[int, int, int] = (1, 1, 1)  # of a torus; neighbouring ranks along the first
    peer_s: float = 0.0  # of an all-to-all per further member: a message each, served in turn
    facts: Mapping[str, Fact] = field(default_factory=dict, repr=False, hash=False, compare=False)
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False, compare=False)

    @property
    def bandwidth(self) -> float:
        """Bytes/s per direction of all links of one device."""
        return self.links * self.link_bandwidth


@dataclass(frozen=True, slots=True)
class ScaleOut:
    """The network between nodes: its cards, what collectives sustain, and its topology.

    `leaf_nodes` 0: the topology is not described, and taken as one switch that never blocks.
    """

    name: str
    title: str
    kind: Literal["rail", "fat-tree", "dual-plane", "multi-plane"]
    tiers: int
    nic_bandwidth: float  # bytes/s per direction and card
    efficiency: float  # share that ring collectives sustain
    all_to_all: float  # share that all-to-all sustains
    latency_s: float  # per hop of a collective, software included
    oversubscription: float  # 1 is non-blocking
    start_s: float = 0.0  # of a collective over it, once
    quick_latency_s: float = (
        0.0  # per hop under the library's low-latency protocol; 0: as latency_s
    )
    quick_share: float = 1.0  # of the rate that this protocol sustains
    peer_s: float = (
        0.0  # of an all-to-all per member that it reaches: a message each, served in turn
    )
    pat_gather: bool = False  # its library gathers in log2 hops where a node has one member
    level_gather: bool = False  # its library gathers across nodes first, then inside them
    crowding: float = 0.0  # rings over m nodes sustain (2/m)^crowding of what two nodes do
    knee_bytes: float = (
        0.0  # buffer of a collective up to which hosts move it at the full rate; 0: any
    )
    beyond_knee: float = 1.0  # share of the rate that buffers of twice that size and more sustain
    group_stall_s: float = 0.0  # of the host per member and tensor collective while messages travel
    message_stall_s: float = 0.0  # per pipeline message, an oddity of one cluster
    piece_s: float = 0.0  # of the host per piece of a ring that crosses a node's border
    leaf_nodes: int = 0  # nodes that a leaf switch serves, one card of each on rails
    ports: int = 1  # of a card, each to a leaf of its own
    planes: int = 1  # sets of spines that share nothing
    uplinks: int = 1  # of a leaf, each to another spine
    pod_nodes: int = 0  # nodes below one set of spines; 0: all
    core_oversubscription: float = 1.0  # above the spines
    core_bandwidth: float = 0.0  # bytes/s between a pod and the rest; 0: by the oversubscription
    core_latency_s: float = 0.0  # of one crossing between pods (sites), beside the hop
    switch_price: float = 0.0  # USD; 0: not known
    cable_price: float = 0.0  # USD, transceivers included; 0: not known
    switch_power_w: float = 0.0  # of one switch; 0: not known
    cable_power_w: float = 0.0  # of one cable with its transceivers; 0: not known
    facts: Mapping[str, Fact] = field(default_factory=dict, repr=False, hash=False, compare=False)
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False, compare=False)


@dataclass(frozen=True, slots=True)
class Node:
    """A server: its devices, what joins them, its network cards and what else it draws."""

    name: str
    title: str
    device: Device
    devices: int
    scale_up: ScaleUp
    scale_out: ScaleOut
    nics: int
    host_power_w: float  # rated server power without the devices, per node
    failure_rate: float  # failures per second of the node that are no device's
    host_busy_share: float = 1.0  # of the rated power, drawn while the devices train
    host_idle_share: float = 1.0  # of the rated power, drawn while they wait
    prices: tuple[Price, ...] = ()  # of the whole server
    facts: Mapping[str, Fact] = field(default_factory=dict, repr=False, hash=False, compare=False)
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False, compare=False)

    @property
    def nic_bandwidth_per_device(self) -> float:
        """Bytes/s per direction that each device has into the network."""
        return self.nics * self.scale_out.nic_bandwidth / self.devices
