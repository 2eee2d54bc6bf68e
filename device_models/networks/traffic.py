"""What the members of many groups can send over a fabric when all groups talk at once.

A ring enters and leaves each domain (node or supernode) as often as it has members there, each time by
the card of the member. An exchange sends every member's bytes to all other domains. The slowest flow
counts: pieces are equal and a group waits for its last one.

A card's traffic is spread over its ports and, where routing hashes, over `connections` of each; what a
dead port carried moves to the live ones, and what a dead card carried to the next card of its node whose
other end lives. Not modelled: the order of a collective's steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ersatz.device_models.networks.fabric import Fabric, mixed_hash
from ersatz.device_models.networks.sharing import NO_LINK, Rates, Routes, max_min_rates

SHIFTS = 16  # of the distances between domains in an exchange, spread evenly
MEMBER_SHIFTS = 64  # of those between members, where domains hold different numbers of them


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
    def spans(self) -> int:
        """The most domains that one group reaches."""
        return int(np.bincount(self._meetings()[0] // self._domains).max())

    @property
    def groups_per_domain(self) -> int:
        """Groups of `per_domain` members that would keep the busiest domain's cards as busy.

        Members of a group that stays in its domain need no cards.
        """
        keys, counts = self._meetings()
        group, domain = np.divmod(keys, self._domains)
        leaves = np.bincount(group)[group] > 1
        if not leaves.any():
            return int(np.bincount(domain).max())
        busiest = int(np.bincount(domain[leaves], counts[leaves]).max())
        return -(-busiest // self.per_domain)

    @property
    def even(self) -> bool:
        """Whether every group has as many members in each of its domains."""
        counts = self._meetings()[1]
        return bool((counts == counts[0]).all())

    @property
    def _domains(self) -> int:
        return int(self.domain.max()) + 1

    def _meetings(self) -> tuple[Routes, Routes]:
        """Return every pair of group and domain, as one number, and its members."""
        pairs = np.arange(self.domain.shape[0])[:, None] * self._domains + self.domain
        keys, counts = np.unique(pairs, return_counts=True)
        return keys, counts


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes/s per direction that the slowest member gets into the network, and what holds it."""

    rate: float
    link: int = NO_LINK  # its narrowest link; NO_LINK when nothing crosses the network
    above: float = 0.0  # use of the fullest link above the leaves, as a share of its capacity


def ring_share(
    fabric: Fabric, members: Members, *, connections: int = 1, per_card: int = 1, seed: int = 0
) -> Share:
    """Return what rings through all groups at once get per member (`per_card` cards for each).

    Infinite when no group leaves its domain; 0 when a member is cut off.
    """
    source, target, card = _ring_flows(members)
    if not source.size:
        return Share(np.inf)
    ways = _spread(fabric, source, target, card, connections, per_card, seed)
    rates = max_min_rates(ways.routes, fabric.capacity, bounds=ways.bounds)
    live = ways.joined(rates)
    used = _loads(fabric, ways.routes, np.where(np.isfinite(rates), rates, 0.0))
    slowest = int(np.argmin(live))
    return Share(float(live[slowest]), ways.narrowest(slowest, rates, used), _above(fabric, used))


def message_shares(
    fabric: Fabric, members: Members, steps: Sequence[tuple[int, int]], *,
    connections: int = 1, per_card: int = 1, seed: int = 0,
) -> tuple[Share, ...]:  # fmt: skip
    """Return what messages get between the members of each step (from column, to column), there and back.

    All groups send at the same time, as replicas of one schedule do. A card sends one way at a time;
    links above the leaves carry the messages of all steps in both directions together. A group's
    messages do not wait for other groups: those of the slowest group count.
    """
    found = []
    directions = [steps, [(b, a) for a, b in steps]]
    flows = [_step_flows(members, pairs) for pairs in directions]
    ways = [_spread(fabric, *flow, connections, per_card, seed) for _, flow in flows]
    load = sum((_loads(fabric, w.routes, w.weights) for w in ways), np.zeros(fabric.capacity.size))
    load[: fabric.first[2]] = 0.0  # below the leaves max-min sharing tells
    for (crosses, _), way in zip(flows, ways, strict=True):
        found.append(_messages(fabric, way, load, crosses))
    return tuple(min(pair, key=lambda share: share.rate) for pair in zip(*found, strict=True))


def _step_flows(
    members: Members, steps: Sequence[tuple[int, int]]
) -> tuple[npt.NDArray[np.bool_], tuple[Routes, Routes, Routes]]:
    """Return which messages leave their domain, shape (steps, groups), and their source, target, card."""
    starts, ends = (list(columns) for columns in zip(*steps, strict=True))
    crosses = (members.domain[:, starts] != members.domain[:, ends]).T
    flow = (members.node[:, starts], members.node[:, ends], members.card[:, starts])
    source, target, card = (x.T[crosses] for x in flow)
    return crosses, (source, target, card)


def _messages(
    fabric: Fabric, ways: Ways, load: Rates, crosses: npt.NDArray[np.bool_]
) -> list[Share]:
    """Return the share of each step in one direction, by the slowest group."""
    fullest = np.append(load, 0.0)[ways.routes].max(axis=1, initial=0.0)
    own = np.full(fullest.shape, np.inf)
    np.divide(ways.weights, fullest, out=own, where=fullest > 0)
    bounds = np.minimum(ways.bounds, own)
    below = np.where(ways.routes < fabric.first[2], ways.routes, NO_LINK)
    rates = max_min_rates(below, fabric.capacity, bounds=bounds)
    used = _loads(fabric, ways.routes, np.where(np.isfinite(rates), rates, 0.0))
    live = np.full(crosses.shape, np.inf)
    live[crosses] = ways.joined(rates)
    number = np.full(crosses.shape, NO_LINK)
    number[crosses] = np.arange(int(crosses.sum()))
    with np.errstate(divide="ignore"):
        slowest = int(np.argmax((1.0 / live).sum(axis=0)))
    links = [NO_LINK if n < 0 else ways.narrowest(n, rates, used) for n in number[:, slowest]]
    return [
        Share(float(rate), link, _above(fabric, used))
        for rate, link in zip(live[:, slowest], links, strict=True)
    ]


def exchange_share(
    fabric: Fabric, members: Members, *, connections: int = 1, per_card: int = 1, seed: int = 0
) -> Share:
    """Return what an all-to-all among the domains of every group gets per member of its emptiest domain.

    All bytes together are laid on the links; the fullest link tells when the last has passed.
    """
    ordered = members.sorted_by_domain()
    size, inside = ordered.domain.shape[1], members.per_domain
    if members.spans < 2:
        return Share(np.inf)
    unit, most = (inside, SHIFTS) if members.even else (1, MEMBER_SHIFTS)
    places = size // unit
    shifts = np.unique(np.linspace(1, places - 1, min(most, places - 1)).round().astype(int))
    load = np.zeros(fabric.capacity.size)
    for shift in shifts:
        away = np.roll(ordered.domain, -int(shift) * unit, axis=1) != ordered.domain
        moved = np.roll(ordered.node, -int(shift) * unit, axis=1)
        ways = _spread(fabric, ordered.node[away], moved[away], ordered.card[away], connections,
                       per_card, seed + int(shift))  # fmt: skip
        if ways.cut:
            return Share(0.0)
        load += _loads(fabric, ways.routes, ways.weights) / shifts.size
    fullest = int(np.argmax(load))
    crossing = (size - inside) / (size - unit)  # of a member's pieces that leave its domain
    return Share(float(crossing / load[fullest]), fullest, _above(fabric, load / load[fullest]))


def _ring_flows(members: Members) -> tuple[Routes, Routes, Routes]:
    """Return source node, target node and card of every crossing between domains."""
    ordered = members.sorted_by_domain()
    size = ordered.domain.shape[1]
    step = members.per_domain if members.even else 1
    target = np.roll(ordered.node, -step, axis=1)
    crosses = np.roll(ordered.domain, -step, axis=1) != ordered.domain
    if size == step:
        crosses = np.zeros_like(crosses)
    return ordered.node[crosses], target[crosses], ordered.card[crosses]


@dataclass(frozen=True, slots=True, eq=False)
class Ways:
    """The ways of flows: one for each port or connection, cut into the bundles of uplinks on it."""

    routes: Routes  # links of each way, shape (flows x ways x bundles, hops)
    alive: npt.NDArray[np.bool_]  # whether a bundle of it carries anything, shape (flows, ways)
    weights: Rates  # share of its flow's bytes on each, shape (flows x ways x bundles,)
    bundles: int

    @property
    def cut(self) -> bool:
        """Whether a flow has no way, or one whose uplinks lead nowhere."""
        carried = self.weights.reshape(*self.alive.shape, self.bundles).any(axis=2)
        return bool((self.alive & ~carried).any() or not self.alive.any(axis=1).all())

    @property
    def bounds(self) -> Rates:
        """The most that each may take: nothing where it is dead."""
        return np.where(self.weights > 0, np.inf, 0.0)

    def joined(self, rates: Rates) -> Rates:
        """Return the rate of each flow: its live ways carry equal parts, bundles what they can."""
        each = rates.reshape(*self.alive.shape, self.bundles).sum(axis=2)
        worst = np.where(self.alive, each, np.inf).min(axis=1, initial=np.inf)
        ways = self.alive.sum(axis=1)
        return np.asarray(np.where(ways > 0, worst, 0.0) * ways, dtype=np.float64)

    def narrowest(self, flow: int, rates: Rates, used: Rates) -> int:
        """Return the fullest link on the slowest way of a flow."""
        each = np.where(self.weights > 0, rates, np.inf).reshape(self.alive.shape[0], -1)[flow]
        links = self.routes.reshape(self.alive.shape[0], -1, self.routes.shape[1])[flow]
        links = links[int(np.argmin(each))]
        links = links[links >= 0]
        return int(links[int(np.argmax(used[links]))]) if links.size else NO_LINK


def _spread(
    fabric: Fabric, source: Routes, target: Routes, card: Routes, connections: int, per_card: int,
    seed: int,
) -> Ways:  # fmt: skip
    """Return the ways of flows between cards of nodes."""
    ports, bundles = fabric.network.ports, fabric.uplinks if fabric.spread else 1
    connections = 1 if fabric.spread else connections
    ways = per_card * ports * connections
    card = _live_cards(fabric, source, target, card, per_card)
    way = np.tile(np.repeat(np.arange(ways), bundles), source.size)
    from_, to = np.repeat(source, ways * bundles), np.repeat(target, ways * bundles)
    cards = (np.repeat(card, ways * bundles) + way // (ports * connections)) % fabric.cards
    port = way // connections % ports
    uplink = np.tile(np.arange(bundles), source.size * ways)
    if not fabric.spread and fabric.uplinks > 1:
        draw = mixed_hash(from_, to, cards, way, np.full_like(way, seed))
        uplink = fabric.choose_uplinks(from_, to, cards, port, draw)
    routes = fabric.routes(from_, to, cards, port, uplink)
    ends = np.append(fabric.capacity, np.inf)[routes]
    live = (ends[:, [0, 5]] > 0).all(axis=1)
    carried = np.where(live, ends[:, 1:5].min(axis=1), 0.0)  # inf where no uplink is needed
    if bundles == 1:
        carried = (carried > 0).astype(float)
    carried = np.where(np.isinf(carried), 1.0, carried).reshape(source.size, ways, bundles)
    each = carried.sum(axis=2, keepdims=True)
    whole = each * (each > 0).sum(axis=1, keepdims=True)
    weights = np.divide(carried, whole, out=np.zeros_like(carried), where=whole > 0)
    alive = np.asarray(live.reshape(source.size, ways, bundles).any(axis=2))
    return Ways(routes, alive, weights.ravel(), bundles)


def _live_cards(
    fabric: Fabric, source: Routes, target: Routes, card: Routes, per_card: int
) -> Routes:
    """Return the card of each flow: its own, or where that is dead the next that lives at both ends."""
    up = fabric.capacity[: fabric.first[1]].reshape(-1, fabric.cards, fabric.network.ports) > 0
    down = fabric.capacity[fabric.first[1] : fabric.first[2]].reshape(up.shape) > 0
    if up.all() and down.all():
        return card
    card = card.copy()
    own = [(card + more) % fabric.cards for more in range(per_card)]
    dead = ~np.any([(up[source, c] & down[target, c]).any(axis=1) for c in own], axis=0)
    for more in range(1, fabric.cards):
        if not dead.any():
            break
        other = (card[dead] + more) % fabric.cards
        lives = (up[source[dead], other] & down[target[dead], other]).any(axis=1)
        places = np.flatnonzero(dead)[lives]
        card[places] = other[lives]
        dead[places] = False
    return card


def _loads(fabric: Fabric, routes: Routes, amounts: Rates) -> Rates:
    """Return the sum of the ways' amounts over each link, as a share of its capacity."""
    crossed = np.where(routes < 0, fabric.capacity.size, routes).ravel()
    total = np.bincount(crossed, np.repeat(amounts, routes.shape[1]),
                        minlength=fabric.capacity.size + 1)[:-1].astype(float)  # fmt: skip
    shares = np.zeros_like(total)
    np.divide(total, fabric.capacity, out=shares, where=fabric.capacity > 0)
    return np.asarray(shares)


def _above(fabric: Fabric, shares: Rates) -> float:
    """Return the largest of the shares of links above the leaves."""
    return min(float(shares[fabric.first[2] :].max(initial=0.0)), 1.0)
