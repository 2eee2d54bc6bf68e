"""Which devices are free, indexed so that a placement need not look at every node.

A set of nodes is a whole number with a bit per node, so that sets of thousands of nodes are united
and cut in a fraction of a microsecond, and the first of them is the lowest bit. A device taken in
part (`Job.milli`) is no longer free; what is left of it stands in `shared`. `held` tells of each node
how many jobs of each size stand there (0: a part of a device), for placements that keep sizes apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import iter_unpack

from ersatz.sim.fleet.cluster import Cluster, Placement, slots
from ersatz.sim.fleet.workload.jobs import Job


class Free:
    """The free devices of a fleet. Schedulers read it, and may try things out on a `copy`."""

    __slots__ = ("by_count", "closed", "cluster", "cpu", "free", "held", "in_leaf", "leaf_nodes",
                 "masks", "memory", "pod_nodes", "shared", "taken", "total")  # fmt: skip

    def __init__(self, cluster: Cluster) -> None:
        nodes = cluster.nodes
        self.cluster = cluster
        self.masks = [(1 << n.devices) - 1 for n in nodes]  # free devices of each open node
        self.taken = [0] * len(nodes)
        self.closed: set[int] = set()  # nodes that take no jobs: down or drained
        self.cpu = [n.cpu_milli for n in nodes]
        self.memory = [n.memory_mib for n in nodes]
        self.shared: dict[int, dict[int, int]] = {}  # node -> device -> thousandths left
        self.held: list[dict[int, int]] = [{} for _ in nodes]  # node -> devices asked for -> jobs
        self.total = {kind: cluster.devices_of(kind) for kind in cluster.types}  # free devices
        self.free = cluster.devices  # of all types
        self.in_leaf = [0] * cluster.leaves  # free devices
        leaves: list[list[int]] = [[] for _ in self.in_leaf]
        pods: list[list[int]] = [[] for _ in range(1 + max((n.pod for n in nodes), default=-1))]
        alike: dict[tuple[str, int], list[int]] = {}
        for i, n in enumerate(nodes):
            self.in_leaf[n.leaf] += n.devices
            leaves[n.leaf].append(i)
            pods[n.pod].append(i)
            alike.setdefault((n.type, n.devices), []).append(i)
        self.leaf_nodes = [set_of(each) for each in leaves]  # the nodes, as a set
        self.pod_nodes = [set_of(each) for each in pods]
        self.by_count = {}  # type -> free devices -> set of nodes
        for kind in cluster.types:
            widest = max(devices for name, devices in alike if name == kind)
            self.by_count[kind] = [set_of(alike.get((kind, k), ())) for k in range(widest + 1)]

    def copy(self) -> Free:
        """Return a copy to try placements on."""
        other = Free.__new__(Free)
        other.cluster, other.free = self.cluster, self.free
        other.leaf_nodes, other.pod_nodes = self.leaf_nodes, self.pod_nodes
        other.masks, other.taken, other.closed = self.masks[:], self.taken[:], set(self.closed)
        other.cpu, other.memory = self.cpu[:], self.memory[:]
        other.held = [dict(sizes) for sizes in self.held]
        other.shared = {node: dict(left) for node, left in self.shared.items()}
        other.total, other.in_leaf = dict(self.total), self.in_leaf[:]
        other.by_count = {kind: sets[:] for kind, sets in self.by_count.items()}
        return other

    def nodes_with(self, kind: str, count: int) -> int:
        """Return the set of the open nodes of a type ('': any) with `count` free devices or more."""
        found = 0
        for each in (kind,) if kind else self.by_count:
            for nodes in self.by_count[each][max(count, 1) :]:
                found |= nodes
        return found

    def of(self, kind: str) -> int:
        """Return the number of free devices of a type; '' is any."""
        return self.total.get(kind, 0) if kind else self.free

    def has_room(self, job: Job, node: int) -> bool:
        """Tell whether a node's processors and memory suffice for a job."""
        return self.cpu[node] >= job.cpu_milli and self.memory[node] >= job.memory_mib

    def fault(self, job: Job, placement: Placement) -> str:
        """Say why a placement cannot be taken, or return an empty text."""
        last = -1
        for node, mask in placement:
            if not (isinstance(node, int) and last < node < len(self.masks)):
                return "its placement names unknown nodes, or not in ascending order"
            last = node
            if not isinstance(mask, int) or mask < 0 or mask >> self.cluster.nodes[node].devices:
                return f"{self.cluster.nodes[node].name} has no such devices"
            if why := self._node_fault(job, node, mask):
                return f"{self.cluster.nodes[node].name} {why}"
        return ""

    def _node_fault(self, job: Job, node: int, mask: int) -> str:
        if node in self.closed:
            return "is down or drained"
        busy = mask & ~self.masks[node]
        if job.milli < 1000:
            left = self.shared.get(node, {})
            busy = sum(1 << s for s in slots(busy) if left.get(s, 0) < job.milli)
        if busy:
            return f"has no free device {next(slots(busy))}"
        return "" if self.has_room(job, node) else "lacks processors or memory"

    def take(self, job: Job, placement: Placement) -> None:
        """Give devices to a job; the caller has made sure that they are free."""
        for node, mask in placement:
            self.cpu[node] -= job.cpu_milli
            self.memory[node] -= job.memory_mib
            if job.devices:
                size, sizes = job.devices if job.milli == 1000 else 0, self.held[node]
                sizes[size] = sizes.get(size, 0) + 1
            if job.milli < 1000:
                left = self.shared.setdefault(node, {})
                for slot in slots(mask):
                    left[slot] = left.get(slot, 1000) - job.milli
            self.taken[node] |= mask
            self._refresh(node)

    def give(self, job: Job, placement: Placement) -> None:
        """Take devices back from a job."""
        for node, mask in placement:
            self.cpu[node] += job.cpu_milli
            self.memory[node] += job.memory_mib
            if job.devices:
                self._leave(job, node)
            if job.milli < 1000:
                mask = self._unshare(job, node, mask)
            self.taken[node] &= ~mask
            self._refresh(node)

    def set_free(self, node: int, mask: int) -> None:
        """Let just these devices of an open node be free, whoever held them."""
        self.taken[node] = ~mask & (1 << self.cluster.nodes[node].devices) - 1
        self._refresh(node)

    def _leave(self, job: Job, node: int) -> None:
        """Forget a job's size on a node."""
        size, sizes = job.devices if job.milli == 1000 else 0, self.held[node]
        sizes[size] -= 1
        if not sizes[size]:
            del sizes[size]

    def _unshare(self, job: Job, node: int, mask: int) -> int:
        """Give shares back; returns the devices that are whole again."""
        left = self.shared[node]
        whole = 0
        for slot in slots(mask):
            left[slot] += job.milli
            if left[slot] == 1000:
                del left[slot]
                whole |= 1 << slot
        if not left:
            del self.shared[node]
        return whole

    def close(self, node: int) -> None:
        """Let a node take no more jobs."""
        self.closed.add(node)
        self._refresh(node)

    def open(self, node: int) -> None:
        """Let a node take jobs again."""
        self.closed.discard(node)
        self._refresh(node)

    def _refresh(self, node: int) -> None:
        """Bring the indexes of a node up to date."""
        old = self.masks[node]
        spec = self.cluster.nodes[node]
        new = 0 if node in self.closed else ((1 << spec.devices) - 1) & ~self.taken[node]
        if new == old:
            return
        self.masks[node] = new
        before, after = old.bit_count(), new.bit_count()
        if before != after:
            more = after - before
            self.free += more
            self.total[spec.type] += more
            self.in_leaf[spec.leaf] += more
            sets, bit = self.by_count[spec.type], 1 << node
            sets[before] ^= bit
            sets[after] ^= bit


def set_of(nodes: Sequence[int]) -> int:
    """Return the set of some nodes, in ascending order."""
    if not nodes:
        return 0
    base = nodes[0] & ~7
    bits = bytearray((nodes[-1] - base) // 8 + 1)
    for node in nodes:
        bits[node - base >> 3] |= 1 << (node & 7)
    return int.from_bytes(bits, "little") << base


def members(nodes: int) -> Iterator[int]:
    """Yield the members of a set of nodes, lowest first; fast for sets of many thousands."""
    if not nodes:
        return
    base = first(nodes) & ~63
    rest = nodes >> base
    for (word,) in iter_unpack("<Q", rest.to_bytes(8 * -(-rest.bit_length() // 64), "little")):
        while word:
            low = word & -word
            yield base + low.bit_length() - 1
            word ^= low
        base += 64


def first(nodes: int) -> int:
    """Return the lowest member of a set of nodes that is not empty."""
    return (nodes & -nodes).bit_length() - 1
