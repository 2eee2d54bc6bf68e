"""Max-min fair sharing of links: a pure function from who uses what to rates.

Every flow crosses some links; no link carries more than its capacity; no flow can go faster without
slowing one that is no faster than itself. A link is a bottleneck as soon as it allows its flows less
than anything else on their way does, so all such links are settled at once, round by round, instead
of one level at a time (`tests/test_sharing.py` holds the result against SimGrid's solver).

Not modelled: packets, queues, the time that congestion control takes to find these rates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rates = npt.NDArray[np.float64]
Routes = npt.NDArray[np.int64]
NO_LINK = -1  # fills the rows of short routes
SLACK = 1e-12  # relative: links this close to each other are bottlenecks together


def max_min_rates(
    routes: Routes, capacity: Rates, *, bounds: Rates | None = None, uses: Rates | None = None
) -> Rates:
    """Return the max-min fair rate of every flow, shape (flows,), in the unit of `capacity`.

    `routes`, shape (flows, hops): the links of each flow, `NO_LINK` where a route is shorter.
    `capacity`, shape (links,): what each link carries; 0 stops its flows.
    `bounds`, shape (flows,): the most that a flow takes by itself; without any, a flow that crosses
    no link gets an infinite rate.
    `uses`, shape (flows, hops): capacity that a flow takes on each of its links per unit of rate; 1
    by default. The largest common rate is sought, not the largest common use.
    Raises `ValueError` for links that do not exist, negative capacities or uses, and odd shapes.
    """
    _check(routes, capacity, bounds, uses)
    flows, links = routes.shape[0], capacity.size
    rates = np.full(flows, np.inf) if bounds is None else bounds.astype(float)
    left = np.append(capacity.astype(float), np.inf)  # what short routes are filled with is free
    used = (routes >= 0).any(axis=0)  # columns that no route reaches cost time
    crossed = np.where(routes < 0, links, routes)[:, used]
    weight = None if uses is None else uses[:, used]
    if not used.any():
        return rates
    active = np.arange(flows)
    while active.size:
        level = left / _total(crossed, weight, links)
        hop_level = level[crossed]
        if weight is not None:
            hop_level[weight <= 0] = np.inf
        narrowest = hop_level.min(axis=1)
        allowed = np.minimum(narrowest, rates[active])
        held = hop_level <= (allowed * (1.0 + SLACK))[:, None]  # by this link, not by another
        narrow = _count(crossed, held, links) == _count(crossed, hop_level < np.inf, links)
        settled = (narrow[crossed] & held).any(axis=1) | (rates[active] <= narrowest)
        rates[active[settled]] = allowed[settled]
        used = np.repeat(
            np.where(np.isfinite(allowed[settled]), allowed[settled], 0.0), crossed.shape[1]
        )
        if weight is not None:
            used *= weight[settled].ravel()
            weight = weight[~settled]
        left -= np.bincount(crossed[settled].ravel(), used, minlength=links + 1)
        np.maximum(left, 0.0, out=left)
        left[links] = np.inf
        active, crossed = active[~settled], crossed[~settled]
    return rates


def _total(crossed: Routes, weight: Rates | None, links: int) -> Rates:
    """Return the use of each link at rate 1, nowhere zero."""
    total = np.bincount(
        crossed.ravel(), None if weight is None else weight.ravel(), minlength=links + 1
    ).astype(float)
    total[total <= 0] = 1.0
    return total


def _count(crossed: Routes, wanted: npt.NDArray[np.bool_], links: int) -> Routes:
    return np.bincount(crossed[wanted], minlength=links + 1)


def completion_times(
    routes: Routes, capacity: Rates, nbytes: Rates, *, quantum: float = 0.0
) -> Rates:
    """Return when each flow has moved its bytes, all starting at once, shape (flows,), seconds.

    Rates are shared anew at every completion. `quantum` is the accuracy knob for irregular sizes: rates
    stay as they are until all completions within that share of the time since the start are over;
    ends then come late, on random platforms by less than four times that share.
    Flows over links of no capacity never end (infinity).
    """
    if not 0.0 <= quantum < 1.0:
        raise ValueError(f"quantum is {quantum}: expected a share from 0 (exact) to below 1")
    left = nbytes.astype(float).copy()
    ends = np.where(left > 0, np.inf, 0.0)
    active = np.flatnonzero(left > 0)
    now = 0.0
    while active.size:
        rates = max_min_rates(routes[active], capacity)
        with np.errstate(divide="ignore"):
            still = np.where(rates > 0, left[active] / rates, np.inf)
        step = float(still.min())
        if step == np.inf:
            break
        horizon = max(step, (now + step) * (1.0 + quantum) - now)
        finished = still <= horizon * (1.0 + SLACK)
        ends[active[finished]] = now + still[finished]
        advance = float(still[finished].max())
        now += advance
        left[active] = np.maximum(left[active] - rates * advance, 0.0)
        active = active[~finished]
    return ends


def _check(routes: Routes, capacity: Rates, bounds: Rates | None, uses: Rates | None) -> None:
    if routes.ndim != 2 or capacity.ndim != 1:
        raise ValueError(f"routes {routes.shape}, capacity {capacity.shape}: expected 2 and 1 axes")
    if routes.size and (int(routes.max()) >= capacity.size or int(routes.min()) < NO_LINK):
        worst = int(routes.max()) if int(routes.max()) >= capacity.size else int(routes.min())
        raise ValueError(f"link {worst}: expected {NO_LINK} or one of {capacity.size} links")
    if capacity.size and not float(capacity.min()) >= 0:
        raise ValueError(f"capacity {float(capacity.min())}: expected 0 or more")
    if bounds is not None and bounds.shape != routes.shape[:1]:
        raise ValueError(f"bounds {bounds.shape}: expected one for each of {routes.shape[0]} flows")
    if uses is not None and (uses.shape != routes.shape or float(uses.min(initial=0.0)) < 0):
        raise ValueError(f"uses {uses.shape}: expected {routes.shape}, none negative")
