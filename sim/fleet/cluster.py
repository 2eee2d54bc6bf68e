"""The machines of a fleet: nodes of several accelerator types under leaf switches.

A device is a bit of its node, and has a number of its own in the fleet: node after node, slot after
slot. A placement says which devices of which nodes, and is written as intervals of those numbers
("0-7 16 18"), as Batsim does. Descriptions only: who holds what is in `free`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ersatz.device_models.text.problems import did_you_mean

UNCOUNTED = 1 << 60  # of a node's processors or memory that nobody counts

Placement = tuple[tuple[int, int], ...]
"""(node index, bit mask of its devices) in the order of nodes; mask 0: processors only."""


@dataclass(frozen=True, slots=True)
class FleetNode:
    """One server. `leaf` and `pod` are numbers of the whole fleet: switch and group of switches."""

    name: str
    type: str  # accelerator type, e.g. 'h800'
    devices: int
    leaf: int = 0
    pod: int = 0
    cpu_milli: int = UNCOUNTED  # thousandths of a processor
    memory_mib: int = UNCOUNTED


@dataclass(frozen=True, slots=True)
class Cluster:
    """All nodes of a fleet. Raises `ValueError` for names that stand twice and negative counts."""

    nodes: tuple[FleetNode, ...]
    name: str = "fleet"
    first: tuple[int, ...] = field(init=False, compare=False, repr=False)  # device number of slot 0
    index: dict[str, int] = field(init=False, compare=False, repr=False)  # node name -> index
    types: tuple[str, ...] = field(init=False, compare=False, repr=False)  # in order of appearance
    devices: int = field(init=False, compare=False)
    leaves: int = field(init=False, compare=False)  # one more than the highest number
    rooms: dict[object, int] = field(  # what jobs of a shape could get at most: kept by `fits`
        init=False, compare=False, repr=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        first = [0]
        for node in self.nodes:
            if node.devices < 0 or node.leaf < 0 or node.pod < 0:
                raise ValueError(f"{node}: expected counts that are not negative")
            first.append(first[-1] + node.devices)
        index = {node.name: i for i, node in enumerate(self.nodes)}
        if len(index) < len(self.nodes):
            counts = Counter(node.name for node in self.nodes)
            twice = next(name for name in index if counts[name] > 1)
            raise ValueError(f"node {twice!r} stands twice in {self.name}")
        for key, value in (
            ("first", tuple(first[:-1])),
            ("index", index),
            ("types", tuple(dict.fromkeys(node.type for node in self.nodes))),
            ("devices", first[-1]),
            ("leaves", 1 + max((node.leaf for node in self.nodes), default=-1)),
        ):
            object.__setattr__(self, key, value)

    def devices_of(self, kind: str) -> int:
        """Return the number of devices of a type."""
        return sum(node.devices for node in self.nodes if node.type == kind)

    def node_named(self, name: str) -> int:
        """Return the index of a node; raises `ValueError` for an unknown name."""
        if name not in self.index:
            raise ValueError(f"{name!r} is no node of {self.name}{did_you_mean(name, self.index)}")
        return self.index[name]


def make_pool(
    kind: str, nodes: int, devices: int = 8, *, nodes_per_leaf: int = 32, first_leaf: int = 0,
    pod: int = 0, prefix: str | None = None,
) -> tuple[FleetNode, ...]:  # fmt: skip
    """Return alike nodes of one accelerator type, packed under leaves of their own."""
    name = kind if prefix is None else prefix
    return tuple(
        FleetNode(f"{name}-{i}", kind, devices, first_leaf + i // nodes_per_leaf, pod)
        for i in range(nodes)
    )


def make_cluster(*pools: Sequence[FleetNode], name: str = "fleet") -> Cluster:
    """Return a fleet of several pools, whose leaves are numbered on from pool to pool."""
    nodes: list[FleetNode] = []
    leaf = 0
    for pod, pool in enumerate(pools):
        nodes += [FleetNode(n.name, n.type, n.devices, leaf + n.leaf, pod, n.cpu_milli,
                            n.memory_mib) for n in pool]  # fmt: skip
        leaf = 1 + max((n.leaf for n in nodes), default=-1)
    return Cluster(tuple(nodes), name)


def slots(mask: int) -> Iterator[int]:
    """Yield the positions of the set bits, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def lowest(mask: int, count: int) -> int:
    """Return the lowest `count` set bits of a mask."""
    if count >= mask.bit_count():
        return mask
    taken = 0
    for _ in range(count):
        low = mask & -mask
        taken |= low
        mask ^= low
    return taken


def size_of(placement: Placement) -> int:
    """Return the number of devices of a placement."""
    if len(placement) == 1:
        return placement[0][1].bit_count()
    return sum([mask.bit_count() for _, mask in placement])


def placement_of(cluster: Cluster, numbers: Iterable[int]) -> Placement:
    """Return the placement of device numbers; raises `ValueError` for one outside the fleet."""
    masks: dict[int, int] = {}
    for number in numbers:
        if not 0 <= number < cluster.devices:
            raise ValueError(f"device {number} is outside 0..{cluster.devices - 1}")
        node = bisect_right(cluster.first, number) - 1
        while cluster.nodes[node].devices == 0:  # nodes without devices share their successor's
            node -= 1
        masks[node] = masks.get(node, 0) | 1 << (number - cluster.first[node])
    return tuple(sorted(masks.items()))


def devices_text(cluster: Cluster, placement: Placement) -> str:
    """Write a placement as intervals of device numbers; '@node' where no device is held."""
    parts: list[str] = []
    start = end = -2
    for node, mask in placement:
        if not mask:
            parts.append(f"@{node}")
        at = cluster.first[node]
        while mask:
            skip = (mask & -mask).bit_length() - 1
            run = (~(mask >> skip) & -~(mask >> skip)).bit_length() - 1
            low = at + skip
            if low != end + 1:
                if end >= 0:
                    parts.append(f"{start}-{end}" if end > start else f"{start}")
                start = low
            end = low + run - 1
            mask >>= skip + run
            at = low + run
    if end >= 0:
        parts.append(f"{start}-{end}" if end > start else f"{start}")
    return " ".join(parts)


_PART = re.compile(r"(@?)([0-9]{1,18})(?:-([0-9]{1,18}))?$")


def parse_devices(cluster: Cluster, text: str) -> Placement:
    """Read what `devices_text` writes; raises `ValueError` for anything else."""
    numbers: list[int] = []
    bare: dict[int, int] = {}
    for part in text.split():
        match = _PART.match(part)
        if not match or (match[1] and match[3]):
            raise ValueError(f"{part!r} is no device number or interval, like '0-7 16'")
        low, high = int(match[2]), int(match[3] or match[2])
        if match[1]:
            if low >= len(cluster.nodes):
                raise ValueError(f"{part!r} is outside @0..@{len(cluster.nodes) - 1}")
            bare[low] = 0
        elif high < low or high >= cluster.devices:
            raise ValueError(f"{part!r} is outside 0..{cluster.devices - 1}")
        else:
            numbers.extend(range(low, high + 1))
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{text!r} names a device twice")
    return tuple(sorted({**bare, **dict(placement_of(cluster, numbers))}.items()))
