"""What the members of many groups can send over a fabric when all groups talk at once.

A ring enters and leaves each domain (node or supernode) as often as it has members there, each time by
the card of the member. An exchange sends every member's bytes to all other domains. The slowest flow
counts: pieces are equal and a group waits for its last one.

A card's traffic is spread over its ports and, where routing hashes, over `connections` of each; what a
dead port carried moves to the live ones. Not modelled: the order of a collective's steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ersatz.device_models.networks.fabric import Fabric, mixed_hash
from ersatz.device_models.networks.sharing import NO_LINK, Rates, Routes, max_min_rates

SHIFTS = 16  # of the distances between domains in an exchange, spread evenly


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """Where the members of groups sit: arrays of shape (groups, members)."""

    domain: Routes  # scale-up domain
    node: Routes
    card: Routes  # first network card of the member's device

    def sorted_by_domain(self) -> Members:
        """Return the members of each group with those of one domain side by side."""
        if (np.diff(self.domain, axis=1) >= 0).all():
            return self
        order = np.argsort(self.domain, axis=1, kind="stable")
        take = [np.take_along_axis(x, order, axis=1) for x in (self.domain, self.node, self.card)]
        return Members(*take)

    @property
    def per_domain(self) -> int:
        """Members of a group in the emptiest domain that holds any."""
        return int(self._meetings()[1].min())

    @property
    def groups_per_domain(self) -> int:
        """The most groups that meet in one domain."""
        domains = int(self.domain.max()) + 1
        return int(np.bincount(self._meetings()[0] % domains).max())

    @property
    def even(self) -> bool:
        """Whether every group has as many members in each of its domains."""
        counts = self._meetings()[1]
        return bool((counts == counts[0]).all())

    def _meetings(self) -> tuple[Routes, Routes]:
        """Return every pair of group and domain, as one number, and its members."""
        domains = int(self.domain.max()) + 1
        pairs = np.arange(self.domain.shape[0])[:, None] * domains + self.domain
        keys, counts = np.unique(pairs, return_counts=True)
        return keys, counts


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes/s per direction that the slowest member gets into the network, and what holds it."""

    rate: float
    link: int = NO_LINK  # its narrowest link; NO_LINK when nothing crosses the network
    above: float = 0.0  # use of the fullest link above the leaves, as a share of its capacity


def ring_share(
    fabric: Fabric, members: Members, *, connections: int = 1, per_card: int = 1, seed: int = 0,
    pairs: bool = False,
) -> Share:  # fmt: skip
    """Return what rings through all groups at once get per member (`per_card` cards for each).

    `pairs`: neighbours only send messages now and then. Those of other groups share the cards with
    them but are seldom on the same link above, and a group's pairs do not wait for each other: its
    (harmonic) mean pair counts, that of the slowest group. Infinite when no group leaves its domain; 0
    when a member is cut off.
    """
    group, source, target, card = _ring_flows(members)
    if not source.size:
        return Share(np.inf)
    routes, alive = _spread(fabric, source, target, card, connections, per_card, seed)
    ways = alive.shape[1]
    bounds = np.where(alive.ravel(), np.inf, 0.0)
    shared = routes
    if pairs:
        shared = np.where(routes < fabric.first[2], routes, NO_LINK)
        wide = np.append(fabric.capacity, np.inf)
        bounds = np.minimum(bounds, wide[np.where(routes < 0, -1, routes)].min(axis=1))
    rates = max_min_rates(shared, fabric.capacity, bounds=bounds).reshape(alive.shape)
    worst = np.where(alive, rates, np.inf).min(axis=1, initial=np.inf)
    live = np.where(alive.any(axis=1), worst, 0.0) * alive.sum(axis=1)
    slowest = int(np.argmin(live))
    way = int(np.argmin(np.where(alive[slowest], rates[slowest], np.inf)))
    flat = np.repeat(np.where(np.isfinite(rates), rates, 0.0).ravel(), routes.shape[1])
    used = _loads(fabric, routes, flat)
    links = routes[slowest * ways + way]
    links = links[links >= 0]
    rate = float(live[slowest])
    if pairs and rate > 0:
        _, group, flows = np.unique(group, return_inverse=True, return_counts=True)
        rate = float((flows / np.bincount(group, 1.0 / live)).min())
    return Share(rate, int(links[int(np.argmax(used[links]))]), _above(fabric, used))


def exchange_share(
    fabric: Fabric, members: Members, *, connections: int = 1, per_card: int = 1, seed: int = 0
) -> Share:
    """Return what an all-to-all among the domains of every group gets per member.

    All bytes together are laid on the links; the fullest link tells when the last has passed.
    """
    ordered = members.sorted_by_domain()
    size, inside = ordered.domain.shape[1], members.per_domain
    domains = size // inside
    if domains < 2 or not members.even:
        return ring_share(fabric, members, connections=connections, per_card=per_card, seed=seed)
    shifts = np.unique(np.linspace(1, domains - 1, min(SHIFTS, domains - 1)).round().astype(int))
    load = np.zeros(fabric.capacity.size)
    for shift in shifts:
        moved = np.roll(ordered.node, -int(shift) * inside, axis=1).ravel()
        routes, alive = _spread(fabric, ordered.node.ravel(), moved, ordered.card.ravel(),
                                connections, per_card, seed + int(shift))  # fmt: skip
        if not alive.any(axis=1).all():
            return Share(0.0)
        weight = np.repeat(1.0 / alive.sum(axis=1) / shifts.size, alive.shape[1]) * alive.ravel()
        load += _loads(fabric, routes, np.repeat(weight, routes.shape[1]))
    fullest = int(np.argmax(load))
    return Share(float(1.0 / load[fullest]), fullest, _above(fabric, load / load[fullest]))


def _ring_flows(members: Members) -> tuple[Routes, Routes, Routes, Routes]:
    """Return group, source node, target node and card of every crossing between domains."""
    ordered = members.sorted_by_domain()
    size = ordered.domain.shape[1]
    step = members.per_domain if members.even else 1
    target = np.roll(ordered.node, -step, axis=1)
    crosses = np.roll(ordered.domain, -step, axis=1) != ordered.domain
    if size == step:
        crosses = np.zeros_like(crosses)
    group = np.broadcast_to(np.arange(crosses.shape[0])[:, None], crosses.shape)
    return group[crosses], ordered.node[crosses], target[crosses], ordered.card[crosses]


def _spread(
    fabric: Fabric, source: Routes, target: Routes, card: Routes, connections: int, per_card: int,
    seed: int,
) -> tuple[Routes, npt.NDArray[np.bool_]]:  # fmt: skip
    """Return routes of all ways of all flows, (flows x ways, hops), and which ways live."""
    ports = fabric.network.ports
    ways = per_card * ports * connections
    way = np.tile(np.arange(ways), source.size)
    from_, to = np.repeat(source, ways), np.repeat(target, ways)
    cards = (np.repeat(card, ways) + way // (ports * connections)) % fabric.cards
    port = way // connections % ports
    uplink = np.zeros_like(way)
    if fabric.uplinks > 1:
        draw = mixed_hash(from_, to, cards, way, np.full_like(way, seed))
        uplink = fabric.choose_uplinks(from_, to, cards, port, draw)
    up = fabric.capacity[fabric.first[0] + fabric.port(from_, cards, port)]
    down = fabric.capacity[fabric.first[1] + fabric.port(to, cards, port)]
    alive = ((up > 0) & (down > 0)).reshape(source.size, ways)
    return fabric.routes(from_, to, cards, port, uplink), alive


def _loads(fabric: Fabric, routes: Routes, amounts: Rates) -> Rates:
    """Return the sum of amounts over each link, as a share of its capacity."""
    crossed = np.where(routes < 0, fabric.capacity.size, routes).ravel()
    total = np.bincount(crossed, amounts, minlength=fabric.capacity.size + 1)[:-1]
    return np.divide(total, fabric.capacity, out=np.zeros_like(total), where=fabric.capacity > 0)


def _above(fabric: Fabric, shares: Rates) -> float:
    """Return the largest of the shares of links above the leaves."""
    return min(float(shares[fabric.first[2] :].max(initial=0.0)), 1.0)
