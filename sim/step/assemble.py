"""Turn the kernels and collectives of a chunk into ops with times.

An `Assembler` collects consecutive kernels into one compute op, puts collectives where the stack
puts them (on the compute stream when they block, on a stream of their own when they overlap) and
notes the dependencies between streams.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.kernels.kernel import Kernel, Timer
from ersatz.device_models.kernels.operations import operation_of
from ersatz.device_models.networks.collectives import Collective, collective_time
from ersatz.device_models.networks.group import lanes_of, remote_copies, thin_copies, wiring_of
from ersatz.sim.plan.borders import Border
from ersatz.sim.plan.layout import Communicator
from ersatz.sim.step.program import (
    COMPUTE,
    EXPERT,
    INPUT,
    Block,
    Op,
    Sent,
    Uses,
    Work,
    make_op,
    ticks,
)
from ersatz.sim.workload.pieces import Comm, HostWork, Join, Piece


class Transfer(NamedTuple):
    """How long data moves, the shares of the links that it uses meanwhile, and what moves."""

    seconds: float
    uses: Uses = ()
    sent: Sent | None = None
    flight_s: float = 0.0  # a message's way on, when the sender is free again
    channels: float = 1.0  # that it holds on the device / those of a collective inside a node


NOTHING = Transfer(0.0)
RING_TURNS = {"all_gather": 1, "reduce_scatter": 1, "all_reduce": 2}


def _at_most_one(shares: tuple[tuple[str, float], ...]) -> Uses:
    return tuple((kind, min(share, 1.0)) for kind, share in shares if share > 0)


@dataclass(slots=True)
class Times:
    """Seconds of kernels and collectives on one kind of node under one stack."""

    node: Node
    stack: Stack
    communicators: Mapping[str, Communicator]
    timer: Timer
    kernels: dict[Kernel, float] = field(default_factory=dict)
    issued: dict[tuple[int, str], tuple[Kernel, Work]] = field(default_factory=dict)
    exchanged: dict[int, tuple[Comm, Transfer]] = field(default_factory=dict)

    def work(self, kernel: Kernel, phase: str) -> Work:
        """Return one kernel as the host issues it; equal ones of other layers are the same object."""
        key = id(kernel), phase
        known = self.issued.get(key)
        if known is None:  # the kernel is held, so that its identity stays its own
            work = Work(ticks(self.launch(kernel)), ticks(self.kernel(kernel)), kernel.category,
                        kernel, phase)  # fmt: skip
            known = self.issued[key] = kernel, work
        return known[1]

    def kernel(self, kernel: Kernel) -> float:
        """Seconds of one kernel on the device."""
        seconds = self.kernels.get(kernel)
        if seconds is None:
            seconds = self.kernels[kernel] = self.timer(self.node.device, kernel)
        return seconds

    def kernels_of(self, pieces: Iterable[Piece]) -> float:
        """Seconds of all kernels among pieces of work."""
        return math.fsum(self.kernel(piece) for piece in pieces if isinstance(piece, Kernel))

    def collective(
        self, kind: str, nbytes: float, group: str, crossing: float | None = None
    ) -> Transfer:
        """Time and traffic of one collective of the named group."""
        if nbytes <= 0:
            return NOTHING
        communicator = self.communicators[group]
        done = collective_time(
            kind, nbytes, communicator.group, communicator.node, crossing=crossing
        )
        seconds = done.seconds
        if communicator.group.nodes > 1:
            pieces = RING_TURNS.get(kind, 0) * (communicator.group.size - 1)
            seconds += pieces * self.node.scale_out.piece_s
        sent = Sent(kind, nbytes, group, communicator.group, done)
        uses, channels = self._uses(done, seconds, communicator), self._channels(kind, communicator)
        return Transfer(seconds, uses, sent, channels=channels)

    def _channels(self, kind: str, communicator: Communicator) -> float:
        """Share of the channels that a ring holds on every device which it passes.

        Libraries open as many as feed the narrowest place: the cards of a node against the links inside
        (NCCL's search for rings). Each is a block of the device, busy for as long as the collective
        lasts, however slow it is. That a group with few members in a node opens fewer is left out.
        """
        inside, cards = (
            self.node.scale_up.bandwidth,
            self.node.nics * self.node.scale_out.nic_bandwidth,
        )
        if communicator.group.nodes == 1 or kind not in RING_TURNS or not inside:
            return 1.0
        return min(cards / inside, 1.0)

    def message(self, nbytes: float, border: Border) -> Transfer:
        """Time and traffic of a message of each rank to another stage."""
        if border.rate == math.inf:
            return NOTHING
        stall_s = self.node.scale_out.message_stall_s if self._messages_cross_nodes else 0.0
        seconds = border.latency_s + nbytes / border.rate + stall_s
        share = nbytes / border.link_rate / seconds
        shares = (("up", share),) if border.inside else (
            ("out", share), ("in", share),
            ("above", nbytes / border.rate / seconds * border.above))  # fmt: skip
        inside, network = (nbytes, 0.0) if border.inside else (0.0, nbytes)
        done = Collective(seconds, "point_to_point", inside, network)
        sent = Sent("send", nbytes, "pp", self.communicators["pp"].group, done)
        return Transfer(seconds, _at_most_one(shares), sent, border.flight_s)

    def _uses(self, done: Collective, seconds: float, communicator: Communicator) -> Uses:
        """Shares of the links that a collective uses on average while it runs alone.

        Above the leaves it uses what all groups do at the rate that they really get.
        """
        if seconds <= 0:
            return ()
        up, out = self.node.scale_up, self.node.scale_out
        inside = done.inside_bytes / (up.bandwidth * up.efficiency) / seconds
        cards = self.node.nic_bandwidth_per_device * out.efficiency
        network = done.network_bytes / cards / seconds if cards else 0.0
        above = 0.0
        if done.network_bytes and communicator.above:
            lanes = lanes_of(communicator.group, wiring_of(communicator.node))
            rate = lanes.network_exchange if communicator.exchanges else lanes.network
            above = min(done.network_bytes / rate / seconds, 1.0) * communicator.above
        shares = (("up", inside), ("out", network), ("in", network), ("above", above))
        return _at_most_one(shares)

    @property
    def _messages_cross_nodes(self) -> bool:
        """Pipeline messages leave the node, where the network's software has to serve them."""
        pipeline, world = self.communicators["pp"].group, self.communicators["world"].group
        return pipeline.size > 1 and world.nodes > 1

    def exposed(self, comm: Comm) -> Transfer:
        """What a collective adds to the step beside its partner.

        Cut into c chunks the product and the collective pipeline: together they take
        max(product, collective) + min(product, collective) / c. Messages that follow one another
        run beside a cth of it each, and the next step waits for both.
        """
        known = self.exchanged.get(id(comm))
        if known is None:
            known = self.exchanged[id(comm)] = comm, self._exposed(comm)
        return known[1]

    def _exposed(self, comm: Comm) -> Transfer:
        alone = self._exchange(comm) if comm.top_k else self._alone(comm)
        if comm.partner is None or comm.chunks <= 1:
            return alone
        product = self.kernel(comm.partner)
        if comm.kind == "ring_shift":
            late = max(alone.seconds - product / comm.chunks, 0.0)
            sent = alone.sent._replace(steps=comm.steps) if alone.sent else None
            return alone._replace(seconds=comm.steps * late, sent=sent)
        both = max(product, alone.seconds) + min(product, alone.seconds) / comm.chunks
        return alone._replace(seconds=both - product)

    def _alone(self, comm: Comm) -> Transfer:
        return self.collective(comm.kind, comm.nbytes, comm.group)

    def _exchange(self, comm: Comm) -> Transfer:
        """An expert all-to-all; tokens go to a rank or node once where the stack sees to it."""
        group = self.communicators[comm.group].group
        if group.nodes == 1 and self.stack.rank_limited_dispatch:
            everything = comm.top_k * (group.size - 1) / group.size
            share = remote_copies(group.size, comm.top_k) / everything
            return self.collective(comm.kind, share * comm.nbytes, comm.group)
        if not self.stack.node_limited_dispatch or group.nodes == 1:
            return self._alone(comm)
        copies = remote_copies(group.nodes, comm.top_k, comm.node_limit or None)
        if not group.even:  # the thinnest place takes in more than it sends
            copies = max(copies, thin_copies(group.size, group.per_node, comm.top_k))
        share = min(copies / comm.top_k, 1.0)
        return self.collective("node_limited_all_to_all", comm.nbytes, comm.group, share)

    def launch(self, kernel: Kernel | None) -> float:
        """Host seconds to issue one kernel: as measured with its operation, else the device's."""
        device = self.node.device
        measured = device.launches.get(operation_of(kernel)) if kernel and device.launches else None
        return self.stack.launch_s + (device.kernel_launch_s if measured is None else measured)

    def collective_launch(self, group: str) -> float:
        """Host seconds to issue one collective; some networks hold the host up meanwhile."""
        launch = self.stack.collective_launch_s + self.node.device.kernel_launch_s
        if group == "tp" and self._messages_cross_nodes:
            launch += self.node.scale_out.group_stall_s * self.communicators["tp"].group.size
        return launch


@dataclass(slots=True)
class Assembler:
    """Builds the ops of one block."""

    times: Times
    overlaps: bool = False  # the block runs beside another: its collectives take compute from it
    phase: str = ""  # of what is added: forward, recompute, backward, optimizer
    ops: list[Op] = field(default_factory=list)
    flop: float = 0.0
    _work: list[Work] = field(default_factory=list)
    _after: list[int] = field(default_factory=lambda: [INPUT])
    _pending: int | None = None
    _last: int | None = None  # latest op of the compute stream

    def resume(self, last: int) -> None:
        """Go on after an op of another assembler, which `last` stands for."""
        self._after, self._last = [], last

    def repeat(self, pieces: Iterable[Piece]) -> None:
        """Append what is computed and sent a second time, to spare memory."""
        phase, self.phase = self.phase, "recompute"
        self.add(pieces)
        self.phase = phase

    def add(self, pieces: Iterable[Piece]) -> None:
        """Append kernels and collectives in order."""
        for piece in pieces:
            if isinstance(piece, Kernel):
                self.flop += piece.flop
                self._work.append(self.times.work(piece, self.phase))
            elif isinstance(piece, Comm):
                self._communicate(piece)
            elif isinstance(piece, Join):
                self.join()
            elif isinstance(piece, HostWork):
                stack = self.times.stack
                waits = stack.moe_host_sync
                each = stack.local_expert_host_s * piece.local if waits else 0.0
                self.compute(0.0, "launch", stack.expert_host_s + each)
                if piece.reads:
                    self.flush(host_waits=True)

    def compute(
        self, seconds: float, category: str, launch: float | None = None,
        kernel: Kernel | None = None,
    ) -> None:  # fmt: skip
        """Append one kernel to the current compute op."""
        launch = self.times.launch(kernel) if launch is None else launch
        self.flop += kernel.flop if kernel else 0.0
        self._work.append(Work(ticks(launch), ticks(seconds), category, kernel, self.phase))

    def tax(self, moved: Iterable[Transfer], beside: float = math.inf) -> None:
        """Append what transfers take from the compute beside them, of which there are `beside` s."""
        found = list(moved)
        whole = math.fsum(transfer.seconds for transfer in found)
        held = math.fsum(transfer.seconds * transfer.channels for transfer in found)
        seconds = held * min(beside / whole, 1.0) if whole else 0.0
        if seconds > 0 and self.times.stack.overlap_contention > 0:
            self.compute(seconds * self.times.stack.overlap_contention, "contention", 0.0)

    def flush(self, host_waits: bool = False) -> int | None:
        """Close the current compute op; returns the index of the latest compute op."""
        if self._work:
            op = make_op("compute", COMPUTE, self._work, after=self._after, host_waits=host_waits)
            self._last = self._append(op)
            self._work, self._after = [], []
        return self._last

    def blocking(
        self, name: str, category: str, moved: Transfer, sync: tuple[int, ...], group: str = "",
        to: int = 0, host_waits: bool = False,
    ) -> int:  # fmt: skip
        """Append a collective that holds the compute stream; the host may wait for its end."""
        self.flush()
        work = self._transfer(group, category, moved)
        op = make_op(name, COMPUTE, [work], after=self._after, sync=sync, scales=False,
                     host_waits=host_waits, uses=moved.uses, to=to, flight_s=moved.flight_s)  # fmt: skip
        self._last, self._after = self._append(op), []
        return self._last

    def beside(
        self, name: str, stream: int, category: str, moved: Transfer, sync: tuple[int, ...],
        after: int | None, to: int = 0,
    ) -> int:  # fmt: skip
        """Append a collective on a stream of its own; returns its index."""
        work = self._transfer("", category, moved)
        waits = () if after is None else (after,)
        return self._append(make_op(name, stream, [work], after=waits, sync=sync, scales=False,
                                    uses=moved.uses, to=to, flight_s=moved.flight_s))  # fmt: skip

    def _transfer(self, group: str, category: str, moved: Transfer) -> Work:
        launch = ticks(self.times.collective_launch(group))
        return Work(launch, ticks(moved.seconds), category, None, self.phase, moved.sent)

    def join(self, index: int | None = None) -> None:
        """Make the next compute op wait for op `index`, or for the pending collective."""
        index = self._pending if index is None else index
        if index is not None:
            self.flush()
            self._after.append(index)
        self._pending = None

    def block(self, sends: tuple[tuple[int, int], ...] = ()) -> Block:
        """Return the finished block."""
        self.flush()
        return Block(tuple(self.ops), sends)

    def _append(self, op: Op) -> int:
        self.ops.append(op)
        return len(self.ops) - 1

    def _communicate(self, comm: Comm) -> None:
        moved = self.times.exposed(comm)
        sync = self.times.communicators[comm.group].sync
        if comm.group == "ep" and self.times.stack.overlap_expert:
            if self.overlaps:
                self.tax([moved])
            before = self.flush()
            after = INPUT if before is None else before
            self._pending = self.beside(comm.name, EXPERT, comm.category, moved, sync, after)
        else:
            self.blocking(comm.name, comm.category, moved, sync, comm.group)
