"""How long the collectives of an emulated world take, by the ranks that take part."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.kernels.kernel import calibrated_time
from ersatz.device_models.networks.group import Group, ceil_div, group_of, wiring_of
from ersatz.sim.emulate.trace import Ranks
from ersatz.sim.plan.layout import Communicator
from ersatz.sim.step.assemble import Times, Transfer

KINDS = {
    "reduce": "all_reduce",
    "gather": "all_gather",
    "scatter": "broadcast",
    "barrier": "all_reduce",
}


@dataclass(slots=True)
class Network:
    """The network of one kind of node; ranks fill the nodes in order."""

    node: Node
    stack: Stack
    world: int
    times: Times = field(init=False)
    known: dict[Ranks, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.times = Times(self.node, self.stack, {}, calibrated_time)

    def seconds(self, kind: str, nbytes: float, ranks: Ranks) -> float:
        """Return the time of a collective, or of a `send`, among ranks."""
        return self.transfer(kind, nbytes, ranks).seconds

    def transfer(self, kind: str, nbytes: float, ranks: Ranks) -> Transfer:
        """Return the time and the traffic of a collective: bytes as `collective_time` counts them."""
        if ranks.size == 1:
            return Transfer(0.0)
        return self.times.collective(KINDS.get(kind, kind), max(nbytes, 1.0), self._name(ranks))

    def _name(self, ranks: Ranks) -> str:
        if ranks not in self.known:
            name = self.known[ranks] = f"group {len(self.known)}"
            group = group_among(self.node, ranks, self.world)
            communicators = {**self.times.communicators, name: Communicator(group, (), self.node)}
            self.times.communicators = communicators
        return self.known[ranks]


def group_among(node: Node, ranks: Ranks, world: int) -> Group:
    """Return where the members of a group sit; all groups like it talk at the same time.

    A group that does not stand in even steps is taken by the emptiest node, alone on its cards.
    """
    domain = wiring_of(node).domain
    if not ranks.irregular:
        if ranks.size == 2 and world > 2 and ranks.stride * 2 > world:  # a message round the end
            return Group(2, 1 if ranks.stride >= domain else 2, min(domain, world))
        return group_of(node, ranks.stride, ranks.size, world)
    members = Counter(rank // domain for rank in ranks.irregular)
    fewest = min(members.values())
    spans = len(members)
    together = 1 if spans == 1 else max(ceil_div(domain, max(members.values())), 1)
    return Group(ranks.size, fewest, together, 0 if spans * fewest == ranks.size else spans)
