"""Where pods stand in the levels of a network: Kueue's topology-aware scheduling.

Best fit: a domain that holds everything, the fullest that does; else whole domains from the largest on,
the last again the fullest that suffices. Where nothing is asked, the least free ones first. Then down the
levels by the same rule. See `pkg/cache/scheduler/tas_flavor_snapshot.go` and docs/keps/2724 of Kueue.

The domains of a level are numbered in the order of their paths, so that those of a parent lie together
and a number breaks ties as a path would; what is free and what fits are arrays over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ersatz.sim.fleet.kueue.objects import PODS, Domain, PodSet, Wish

HOSTNAME = ("kubernetes.io/hostname", "node")
Path = tuple[str, ...]
Asked = tuple[tuple[str, int], ...]  # of each resource, not zero
Whole = NDArray[np.int64]
Chosen = list[tuple[int, int, bool]]  # domain, pods or slices in it, whether it has the leader
MANY = np.iinfo(np.int64).max


@dataclass(slots=True, eq=False)
class Host:
    """A node, with what pods may take of it."""

    labels: Mapping[str, str]
    capacity: Mapping[str, int]
    up: bool = True
    flavors: tuple[str, ...] | None = None  # None: by labels


@dataclass(frozen=True, slots=True)
class Need:
    """What is to be placed: pods in slices, perhaps with a leader."""

    count: int
    each: Mapping[str, int]
    wish: Wish
    leader: Mapping[str, int] | None = None
    sizes: tuple[int, ...] = ()  # by level: pods of a slice there; 1 where none is

    @property
    def least_free(self) -> bool:
        """Tell whether the emptiest places are spared."""
        return not (self.wish.required or self.wish.preferred) and not self.wish.slices


@dataclass(frozen=True, slots=True)
class Fits:
    """What fits into each domain of a level: pods, whole slices, and both beside the leader."""

    pods: Whole
    slices: Whole
    pods_led: Whole
    slices_led: Whole
    leads: NDArray[np.bool_]  # the leader fits

    def order(self, among: Whole, *, least_free: bool) -> Whole:
        """Return domains in the order in which whole ones are taken."""
        slices = self.slices[among] if least_free else -self.slices[among]
        return among[np.lexsort((among, self.pods[among], slices))]

    def order_led(self, among: Whole) -> Whole:
        """Return domains in the order in which the leader looks at them."""
        keys = among, self.pods_led[among], -self.slices_led[among], ~self.leads[among]
        return among[np.lexsort(keys)]


class Topology:
    """The domains of one flavor, and what is free in them."""

    def __init__(self, levels: Sequence[str], hosts: Sequence[Host], unit: int = 1) -> None:
        self.levels, self.unit = tuple(levels), unit  # unit: of one pod in `pods`
        self.by_host = self.levels[-1] in HOSTNAME
        self.hosts = [h for h in hosts if all(level in h.labels for level in levels)]
        paths = [tuple(host.labels[level] for level in levels) for host in self.hosts]
        self.paths = [sorted({path[: depth + 1] for path in paths}) for depth in range(len(levels))]
        self.parts = [
            _starts(self.paths[depth], self.paths[depth + 1]) for depth in range(len(levels) - 1)
        ]
        leaves = {path: i for i, path in enumerate(self.paths[-1])}
        self.leaf_of = {host: leaves[path] for host, path in zip(self.hosts, paths, strict=True)}
        self.number = {self._name(path): i for path, i in leaves.items()}
        self.free: dict[str, Whole] = {}  # resource -> by leaf
        self.up: Whole = np.zeros(len(leaves), np.int64)  # hosts that are
        for host in self.hosts:
            if host.up:
                self.turn(host, 1)

    def turn(self, host: Host, sign: int) -> None:
        """Take in a host that has come back; with sign -1, leave one out that has gone."""
        leaf = self.leaf_of.get(host)
        if leaf is not None:
            self.up[leaf] += sign
            for resource, amount in host.capacity.items():
                self._of(resource)[leaf] += sign * amount

    def _of(self, resource: str) -> Whole:
        if resource not in self.free:
            self.free[resource] = np.zeros(len(self.paths[-1]), np.int64)
        return self.free[resource]

    def _name(self, path: Path) -> Path:
        return path[-1:] if self.by_host else path

    def overdrawn(self) -> bool:
        """Tell whether more is booked somewhere than there is."""
        return any(bool(((free < 0) & (self.up > 0)).any()) for free in self.free.values())

    def book(self, each: Mapping[str, int], domains: Iterable[Domain], sign: int = 1) -> None:
        """Take what pods need from where they stand; with sign -1 give it back."""
        known = [(self.number[at], count) for at, count in domains if at in self.number]
        if known:
            at, pods = np.array(known, np.int64).T
            for resource, amount in {**each, PODS: self.unit}.items():
                np.subtract.at(self._of(resource), at, sign * amount * pods)

    # -- finding places --------------------------------------------------------------------------------

    def place(
        self, podsets: Sequence[PodSet], counts: Mapping[str, int]
    ) -> dict[str, tuple[Domain, ...]] | None:
        """Return domains for podsets that go together, or None."""
        leader = min(podsets, key=lambda p: counts[p.name]) if len(podsets) == 2 else None
        workers = next(p for p in podsets if p is not leader)
        need = self._need(workers, counts[workers.name], leader)
        if need is None or not self.hosts:
            return None
        fits = self._fits(need)
        found = self._choose(need, fits)
        if found is None:
            return None
        chosen = self._descend(need, fits, *found)
        result = {workers.name: self._told(chosen, led=False)}
        if leader is not None:
            result[leader.name] = self._told(chosen, led=True)
        return result

    def _told(self, chosen: Chosen, *, led: bool) -> tuple[Domain, ...]:
        return tuple((self._name(self.paths[-1][at]), 1 if led else count)
                     for at, count, leads in sorted(chosen) if (leads if led else count))  # fmt: skip

    def _need(self, podset: PodSet, count: int, leader: PodSet | None) -> Need | None:
        wish = podset.wish or Wish()
        sizes = [1] * len(self.levels)
        for level, size in wish.slices:
            if level not in self.levels or size <= 0 or count % size:
                return None
            sizes[self.levels.index(level)] = size
        return Need(count, podset.each, wish, leader.each if leader else None, tuple(sizes))

    def _slice_level(self, need: Need) -> int:
        """The level within which slices stay: the outermost."""
        asked = [self.levels.index(level) for level, _ in need.wish.slices]
        return min(asked, default=len(self.levels) - 1)

    def _level(self, need: Need) -> int:
        wish = need.wish
        if wish.required or wish.preferred:
            return self.levels.index(wish.required or wish.preferred)
        return 0 if wish.slices else len(self.levels) - 1

    # -- what fits where -------------------------------------------------------------------------------

    def _fits(self, need: Need) -> list[Fits]:
        """Return by level how many pods and slices fit, with and without the leader."""
        at = self._slice_level(need)
        found: list[Fits] = []  # from the leaves upwards
        for depth in range(len(self.levels) - 1, -1, -1):
            size = need.sizes[depth]
            here = self._added_up(found[-1], self.parts[depth]) if found else self._leaves(need)
            pods, led = here.pods, here.pods_led
            if depth == at:
                here = Fits(pods, pods // size, led, led // size, here.leads)
            elif depth > at:  # within a slice the emptiest come first
                none = np.zeros_like(pods)
                here = Fits(pods - pods % size, none, led - led % size, none, here.leads)
            found.append(here)
        return found[::-1]

    def _leaves(self, need: Need) -> Fits:
        each, led = self._asked(need.each), dict(self._asked(need.leader or {}))
        pods = self._pods(each, {})
        none = np.zeros_like(pods)
        if need.leader is None:
            return Fits(pods, none, none, none, none > 0)
        leads = self._pods(tuple(led.items()), {}) > 0
        return Fits(pods, none, np.where(leads, self._pods(each, led), 0), none, leads)

    def _pods(self, asked: Asked, taken: Mapping[str, int]) -> Whole:
        """Return how many pods fit into each leaf beside what is taken."""
        rooms = [np.maximum(self._of(r) - taken.get(r, 0), 0) // amount for r, amount in asked]
        return np.where(self.up > 0, np.minimum.reduce(rooms), 0)

    def _added_up(self, below: Fits, parts: Whole) -> Fits:
        """Add up what fits into the parts of each domain; the leader stands where it costs least."""
        starts = parts[:-1]
        pods, slices = (np.add.reduceat(own, starts) for own in (below.pods, below.slices))
        leads = np.logical_or.reduceat(below.leads, starts)
        lost = [
            np.minimum.reduceat(np.where(below.leads, alone - beside, MANY), starts)
            for alone, beside in ((below.pods, below.pods_led), (below.slices, below.slices_led))
        ]
        return Fits(pods, slices, np.where(leads, pods - lost[0], 0),
                    np.where(leads, slices - lost[1], 0), leads)  # fmt: skip

    def _asked(self, each: Mapping[str, int]) -> Asked:
        """Return what a pod takes of each resource, that of its own place included."""
        return tuple((r, v) for r, v in {**each, PODS: self.unit}.items() if v)

    # -- the level where it fits -----------------------------------------------------------------------

    def _choose(self, need: Need, fits: Sequence[Fits]) -> tuple[int, Chosen] | None:
        """Return the level and the domains, each with its slices and whether it has the leader."""
        at, level = self._slice_level(need), self._level(need)
        if at < level:
            return None
        slices = need.count // need.sizes[at]
        wish = need.wish
        while True:
            if (one := _one(need, fits[level], slices)) is not None:
                return level, [one]
            if wish.required:
                return None
            if level == 0 or not wish.preferred:
                among = np.arange(len(self.paths[level]))
                here = fits[level]
                chosen = _several(here, among, slices, (here.slices, here.slices_led),
                                  least_free=need.least_free, led=need.leader is not None)  # fmt: skip
                return None if chosen is None else (level, chosen)
            level -= 1

    # -- downwards ---------------------------------------------------------------------------------------

    def _descend(self, need: Need, fits: Sequence[Fits], level: int, chosen: Chosen) -> Chosen:
        """Spread what the domains of a level hold over those below them, down to the leaves."""
        at = self._slice_level(need)
        while level < at:
            among = np.concatenate([self._below(level, place) for place, _, _ in chosen])
            level += 1
            here = fits[level]
            chosen = _several(here, among, sum(n for _, n, _ in chosen), (here.slices, here.slices_led),
                              least_free=need.least_free, led=any(c[2] for c in chosen)) or []  # fmt: skip
        chosen = [(place, n * need.sizes[at], leads) for place, n, leads in chosen]
        while level + 1 < len(self.levels):
            level += 1
            here, spread = fits[level], Chosen()
            for place, count, leads in chosen:
                spread += _several(here, self._below(level - 1, place), count, (here.pods, here.pods_led),
                                   least_free=need.least_free, led=leads) or []  # fmt: skip
            chosen = spread
        return chosen

    def _below(self, level: int, place: int) -> Whole:
        return np.arange(*self.parts[level][place : place + 2])


def _starts(above: Sequence[Path], below: Sequence[Path]) -> Whole:
    """Return where the parts of each domain begin among those of the next level, and their number."""
    number = {path: i for i, path in enumerate(above)}
    parents = np.array([number[path[:-1]] for path in below], np.int64)
    return np.searchsorted(parents, np.arange(len(above) + 1))


def _one(need: Need, fits: Fits, slices: int) -> tuple[int, int, bool] | None:
    """Return the fullest domain that holds everything."""
    led = need.leader is not None
    held, pods = (fits.slices_led, fits.pods_led) if led else (fits.slices, fits.pods)
    able = np.flatnonzero((held >= slices) & fits.leads if led else held >= slices)
    if not len(able):
        return None
    return int(able[np.lexsort((able, pods[able], held[able]))[0]]), slices, led


def _several(
    fits: Fits, among: Whole, count: int, held: tuple[Whole, Whole], *, least_free: bool, led: bool
) -> Chosen | None:
    """Take whole domains in order until the rest fits into one; None if there are too few.

    `held` is what a domain holds in the unit of `count`, without and with the leader.
    """
    size, size_led = held
    rest, chosen = count, Chosen()
    if led:
        order = fits.order_led(among)
        if not len(order) or not fits.leads[order[0]]:
            return None
        able = order[fits.leads[order] & (size_led[order] >= rest)]
        enough = order[fits.leads[order]
                       & (size[among].sum() - size[order] + size_led[order] >= rest)]  # fmt: skip
        first = able[np.argmin(size_led[able])] if len(able) else [*enough, order[0]][0]
        chosen.append((int(first), int(min(rest, size_led[first])), True))
        rest -= chosen[0][1]
        among = among[among != first]
    if rest <= 0:
        return chosen
    order = fits.order(among, least_free=least_free)
    sums = np.cumsum(size[order])
    last = int(np.searchsorted(sums, rest))
    if last == len(order):
        return None
    chosen += [(int(i), int(size[i]), False) for i in order[:last] if size[i] > 0]
    rest -= int(sums[last - 1]) if last else 0
    able = order[last:][size[order[last:]] >= rest]
    best = able[0] if least_free else able[np.argmin(size[able])]
    return [*chosen, (int(best), rest, False)]
