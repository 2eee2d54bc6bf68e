"""Fit links to measured collectives: latency per hop, rates of rings and exchanges, crowding, a knee.

The model that is fitted is the one that predicts (`device_models.networks.collectives`), so that a
fitted network gives the measured times back. Residuals are logarithms of predicted / measured,
soft-L1; sizes count alike. Groups of one size cannot tell crowding, which then stays 0. A knee, beyond
which buffers go slower, is kept where one line does not say what was measured and two parameters
more are worth their while (Schwarz's criterion). Rows that are held out are predicted, not fitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ersatz.device_models.catalog.device import Node, ScaleOut, ScaleUp
from ersatz.device_models.networks.collectives import collective_time
from ersatz.device_models.networks.group import Group
from ersatz.sim.hil.links.timing import Timing

ROBUST = 0.1  # logarithmic residual from which a row counts less
STRAIGHT = 0.02  # logarithmic residual up to which one line says it all
BESIDE_KNEE = 2  # sizes that a knee needs on either side

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LinkFit:
    """What one tier of links was found to be; rates in bytes/s per member and direction."""

    tier: str  # inside (a node's links) or network
    latency_s: float
    ring: float
    exchange: float  # of an all-to-all; the ring's where none was measured
    crowding: float
    errors: dict[str, float]  # mean |predicted / measured - 1| by kind
    worst: float
    rows: int
    exchanged: bool  # an all-to-all was measured
    knee_bytes: float = 0.0  # buffer from which on the rate falls; 0: it does not
    beyond_knee: float = 1.0  # share of the rate that buffers of twice that size sustain
    held_out: float | None = None  # mean |predicted / measured - 1| of rows that no fit has seen
    held_out_worst: float | None = None

    def apply(self, node: Node) -> Node:
        """Return a node with these links."""
        rate = max(self.ring, self.exchange)
        if self.tier == "inside":
            up = replace(_plain(node.scale_up), kind="switched", links=1, link_bandwidth=rate,
                         efficiency=self.ring / rate, all_to_all=self.exchange / rate,
                         in_switch=0.0, latency_s=self.latency_s)  # fmt: skip
            return replace(node, scale_up=up)
        out = replace(_plain(node.scale_out), nic_bandwidth=rate, efficiency=self.ring / rate,
                      all_to_all=self.exchange / rate, latency_s=self.latency_s,
                      oversubscription=1.0, crowding=self.crowding, knee_bytes=self.knee_bytes,
                      beyond_knee=self.beyond_knee)  # fmt: skip
        return replace(node, scale_out=out)


Tier = TypeVar("Tier", ScaleUp, ScaleOut)


def _plain(links: Tier) -> Tier:
    """Return links without what a catalogue may say of them beyond a rate and a latency.

    The file of a measurement says no more; what other libraries cost is in neither.
    """
    said = {f.name: f.default for f in fields(links) if f.default is not MISSING}
    return replace(links, **said)


def plain_node(node: Node, per_node: int) -> Node:
    """Return a node of `per_node` devices on one switch, each with a card, to be fitted."""
    up = replace(node.scale_up, kind="switched", domain=max(per_node, 1))
    return replace(node, devices=max(per_node, 1), nics=max(per_node, 1), scale_up=up)


def predicted_seconds(fit: LinkFit, node: Node, row: Timing) -> float:
    """Return what a fitted link says of a measured row."""
    return all_predicted(fit, node, [row])[0]


def all_predicted(fit: LinkFit, node: Node, rows: Sequence[Timing]) -> list[float]:
    """Return what a fitted link says of measured rows, in seconds."""
    made = {per: fit.apply(plain_node(node, per)) for per in {r.per_node for r in rows}}
    return [
        collective_time(
            r.kind, float(r.nbytes), Group(r.members, r.per_node, 1), made[r.per_node]
        ).seconds
        for r in rows
    ]


def fit_links(node: Node, rows: Sequence[Timing], tier: str) -> LinkFit:
    """Return the fit of one tier; raises `ValueError` without two sizes of a collective.

    Rings are fitted to the all-reduces where there are enough of them: that is what most of training
    waits for, and libraries do not run every collective at one rate. What the others then err by is
    kept in `errors`. Exchanges are fitted to the all-to-alls, with the latency that was found.
    """
    seen = [r for r in rows if not r.held_out]
    rings = _deciding(seen)
    if len({r.nbytes for r in rings}) < 2:
        raise ValueError(
            f"{tier}: expected at least two sizes of a collective to fit latency and rate"
        )
    fit = _rings(replace(NOTHING, tier=tier, rows=len(seen)), node, rings)
    exchanges = [r for r in seen if r.kind == "all_to_all"]
    if exchanges:

        def exchanged(x: Array) -> LinkFit:
            return replace(fit, exchange=math.exp(x[0]), exchanged=True)

        x, _ = _least(exchanged, node, exchanges, [math.log(fit.ring)], [(9.0, 32.0)])
        fit = exchanged(x)
    return _judged(fit, node, rows)


NOTHING = LinkFit("network", 1.0, 1.0, 1.0, 0.0, {}, 0.0, 0, False)


def _rings(plain: LinkFit, node: Node, rows: Sequence[Timing]) -> LinkFit:
    """Return latency, ring rate, crowding and, where it is worth its while, a knee."""
    network = plain.tier == "network"
    crowds = network and len({r.members for r in rows}) > 1

    def line(x: Array) -> LinkFit:
        rate = math.exp(x[1])
        crowding = float(x[2]) if crowds else 0.0
        return replace(plain, latency_s=math.exp(x[0]), ring=rate, exchange=rate, crowding=crowding)

    bounds = [(-18.0, 0.0), (9.0, 32.0), (0.0, 1.0)]
    x, cost = _least(line, node, rows, [*_start(rows), 0.01], bounds)
    fit, count = line(x), len(rows)
    if not network or cost <= 0.5 * count * STRAIGHT**2:
        return fit
    worth = cost * count ** (-2.0 / count)  # what two parameters more have to come below
    for knee in _knees(r.nbytes for r in rows):

        def bent(x: Array, knee: int = knee) -> LinkFit:
            return replace(line(x), knee_bytes=float(knee), beyond_knee=math.exp(x[3]))

        found, cost = _least(bent, node, rows, [*x, -0.5], [*bounds, (-4.0, 0.0)])
        if cost < worth:
            fit, worth = bent(found), cost
    return fit


def _knees(sizes: Iterable[int]) -> Iterator[int]:
    """Yield where a knee may lie: at a size, some at most as large and some twice as large or more."""
    known = sorted(set(sizes))
    for place, size in enumerate(known):
        beyond = sum(other >= 2 * size for other in known)
        if place + 1 >= BESIDE_KNEE and beyond >= BESIDE_KNEE:
            yield size


def _deciding(rows: Sequence[Timing]) -> list[Timing]:
    """Return the rows that decide latency and ring rate."""
    reduces = [r for r in rows if r.kind == "all_reduce"]
    enough = len({r.nbytes for r in reduces}) > 1
    return reduces if enough else [r for r in rows if r.kind != "all_to_all"]


def _least(
    made: Callable[[Array], LinkFit], node: Node, rows: Sequence[Timing], start: Sequence[float],
    bounds: Sequence[tuple[float, float]],
) -> tuple[Array, float]:  # fmt: skip
    """Return the parameters that bring the model nearest to the rows, and the loss that is left."""
    from scipy.optimize import least_squares

    measured = np.log([r.seconds for r in rows])

    def residuals(x: Array) -> Array:
        return np.log(all_predicted(made(x), node, rows)) - measured

    low, high = (np.array(side) for side in zip(*bounds, strict=True))
    inside = np.clip(start, low + 1e-6, high - 1e-6)
    found = least_squares(residuals, inside, bounds=(low, high), loss="soft_l1", f_scale=ROBUST,
                          diff_step=1e-4, x_scale=np.maximum(np.abs(inside), 0.1))  # fmt: skip
    return np.asarray(found.x), float(found.cost)


def _start(rows: Sequence[Timing]) -> list[float]:
    """Guess: the quickest row is latency, the fastest is rate."""
    latency = min(r.seconds for r in rows) / 2
    rate = max(r.nbytes / r.seconds for r in rows)
    return [math.log(latency), math.log(rate)]


def _judged(fit: LinkFit, node: Node, rows: Sequence[Timing]) -> LinkFit:
    off: dict[str, list[float]] = {}
    held: list[float] = []
    for row, seconds in zip(rows, all_predicted(fit, node, rows), strict=True):
        error = abs(seconds / row.seconds - 1)
        (held if row.held_out else off.setdefault(row.kind, [])).append(error)
    means = {kind: float(np.mean(values)) for kind, values in off.items()}
    fit = replace(fit, errors=means, worst=max(x for values in off.values() for x in values))
    return replace(fit, held_out=float(np.mean(held)), held_out_worst=max(held)) if held else fit
