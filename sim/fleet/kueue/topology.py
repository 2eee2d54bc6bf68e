"""Where pods stand in the levels of a network: Kueue's topology-aware scheduling.

Best fit: a domain that holds everything, the fullest that does; else whole domains from the largest on,
the last again the fullest that suffices. Where nothing is asked, the least free ones first. Then down the
levels by the same rule. See `pkg/cache/scheduler/tas_flavor_snapshot.go` and docs/keps/2724 of Kueue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ersatz.sim.fleet.kueue.objects import PODS, Domain, Given, PodSet, Wish

HOSTNAME = ("kubernetes.io/hostname", "node")
Path = tuple[str, ...]
Asked = tuple[tuple[str, int], ...]  # of each resource, not zero


@dataclass(slots=True)
class Host:
    """A node, with what pods may take of it."""

    labels: Mapping[str, str]
    capacity: Mapping[str, int]
    up: bool = True
    flavors: tuple[str, ...] | None = None  # None: by labels


@dataclass(slots=True, eq=False)
class Place:
    """A domain: a value of a level under its parents."""

    path: Path
    free: dict[str, int] = field(default_factory=dict)  # of leaves
    parts: list[Place] = field(default_factory=list)
    pods: int = 0  # that fit
    slices: int = 0  # whole ones that fit
    pods_led: int = 0  # that fit beside the leader
    slices_led: int = 0
    leads: bool = False  # the leader fits


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


class Topology:
    """The domains of one flavor, and what is free in them."""

    def __init__(
        self, levels: Sequence[str], hosts: Iterable[Host], unit: int = 1,
    ) -> None:  # fmt: skip
        self.levels, self.unit = tuple(levels), unit  # unit: of one pod in `pods`
        self.by_host = self.levels[-1] in HOSTNAME
        self.places: list[dict[Path, Place]] = [{} for _ in levels]
        for host in hosts:
            if host.up and all(level in host.labels for level in levels):
                self._add(tuple(host.labels[level] for level in levels), host.capacity)
        self.by_name = {self._name(path): place for path, place in self.places[-1].items()}

    def _add(self, path: Path, capacity: Mapping[str, int]) -> None:
        above: Place | None = None
        for depth in range(len(self.levels)):
            key = path[: depth + 1]
            if key not in self.places[depth]:
                self.places[depth][key] = Place(key)
                if above is not None:
                    above.parts.append(self.places[depth][key])
            above = self.places[depth][key]
        assert above is not None
        for resource, amount in capacity.items():
            above.free[resource] = above.free.get(resource, 0) + amount

    def _name(self, path: Path) -> Path:
        return path[-1:] if self.by_host else path

    def overdrawn(self) -> bool:
        """Tell whether more is booked somewhere than there is."""
        return any(v < 0 for place in self.by_name.values() for v in place.free.values())

    def book(self, each: Mapping[str, int], domains: Iterable[Domain], sign: int = 1) -> None:
        """Take what pods need from where they stand; with sign -1 give it back."""
        for at, count in domains:
            place = self.by_name.get(at)
            if place is not None:
                for resource, amount in {**each, PODS: self.unit}.items():
                    place.free[resource] = place.free.get(resource, 0) - sign * amount * count

    # -- finding places --------------------------------------------------------------------------------

    def place(
        self, podsets: Sequence[PodSet], counts: Mapping[str, int]
    ) -> dict[str, tuple[Domain, ...]] | None:
        """Return domains for podsets that go together, or None."""
        leader = min(podsets, key=lambda p: counts[p.name]) if len(podsets) == 2 else None
        workers = next(p for p in podsets if p is not leader)
        need = self._need(workers, counts[workers.name], leader)
        if need is None:
            return None
        self._fill_in(need)
        level = self._level(need)
        fit = self._fit(need, level)
        if fit is None:
            return None
        at, chosen = fit
        found = self._descend(need, at, chosen)
        result = {workers.name: self._told(found, led=False)}
        if leader is not None:
            result[leader.name] = self._told(found, led=True)
        return result

    def _told(self, found: Sequence[tuple[Place, int, bool]], *, led: bool) -> tuple[Domain, ...]:
        told = [(self._name(p.path), 1 if led else n) for p, n, leads in
                sorted(found, key=lambda f: f[0].path) if (leads if led else n)]  # fmt: skip
        return tuple(told)

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

    def _fill_in(self, need: Need) -> None:
        """Note in each domain how many pods and slices fit, with and without the leader."""
        at = self._slice_level(need)
        each = self._asked(need.each)
        led = self._asked(need.leader) if need.leader is not None else ()
        for depth in range(len(self.levels) - 1, -1, -1):
            size = need.sizes[depth]
            for place in self.places[depth].values():
                if depth == len(self.levels) - 1:
                    _count_leaf(place, each, led)
                else:
                    _add_up(place)
                if depth == at:
                    place.slices, place.slices_led = place.pods // size, place.pods_led // size
                elif depth > at:
                    place.pods -= place.pods % size
                    place.pods_led -= place.pods_led % size
                    place.slices = place.slices_led = 0  # within a slice the emptiest come first

    def _asked(self, each: Mapping[str, int]) -> Asked:
        """Return what a pod takes of each resource, that of its own place included."""
        return tuple((r, v) for r, v in {**each, PODS: self.unit}.items() if v)

    # -- the level where it fits -----------------------------------------------------------------------

    def _fit(self, need: Need, level: int) -> tuple[int, list[tuple[Place, int, bool]]] | None:
        """Return the level and the domains, each with its slices and whether it has the leader."""
        at = self._slice_level(need)
        if at < level:
            return None
        slices = need.count // need.sizes[at]
        wish = need.wish
        while True:
            places = list(self.places[level].values())
            several = level == 0 or not (wish.required or wish.preferred)
            if (found := self._one(need, places, slices)) is not None:
                return level, [found]
            if wish.required and not wish.slices:
                return None
            if wish.required:
                return None
            if several:
                chosen = self._several(need, places, slices)
                return None if chosen is None else (level, chosen)
            level -= 1

    def _sorted(self, need: Need, places: Iterable[Place], *, led: bool) -> list[Place]:
        if led:
            return sorted(places, key=lambda p: (not p.leads, -p.slices_led, p.pods_led, p.path))
        if need.least_free:
            return sorted(places, key=lambda p: (p.slices, p.pods, p.path))
        return sorted(places, key=lambda p: (-p.slices, p.pods, p.path))

    def _one(
        self, need: Need, places: Sequence[Place], slices: int
    ) -> tuple[Place, int, bool] | None:
        led = need.leader is not None
        able = [p for p in self._sorted(need, places, led=led)
                if (p.slices_led >= slices and p.leads if led else p.slices >= slices)]  # fmt: skip
        if not able:
            return None
        best = min(able, key=lambda p: p.slices_led if led else p.slices)
        return best, slices, led

    def _several(
        self, need: Need, places: Sequence[Place], count: int,
        held: Callable[[Place, bool], int] | None = None, led: bool | None = None,
    ) -> list[tuple[Place, int, bool]] | None:  # fmt: skip
        """Take whole domains in order until the rest fits into one; None if there are too few."""
        size = held or (lambda p, with_leader: p.slices_led if with_leader else p.slices)
        rest, chosen = count, list[tuple[Place, int, bool]]()
        left = list(places)
        if need.leader is not None if led is None else led:
            order = self._sorted(need, left, led=True)
            if not order or not order[0].leads:
                return None
            able = [p for p in order if p.leads and size(p, True) >= rest]
            whole = sum(size(p, False) for p in left)
            enough = [p for p in order if p.leads
                      and whole - size(p, False) + size(p, True) >= rest]  # fmt: skip
            first = min(able, key=lambda p: size(p, True)) if able else [*enough, order[0]][0]
            chosen.append((first, min(rest, size(first, True)), True))
            rest -= chosen[0][1]
            left = [p for p in left if p is not first]
        order = self._sorted(need, left, led=False)
        for i, place in enumerate(order):
            if rest <= 0:
                break
            if size(place, False) >= rest or need.least_free:
                able = [p for p in order[i:] if size(p, False) >= rest]
                if able and (not need.least_free or size(place, False) >= rest):
                    best = able[0] if need.least_free else min(able, key=lambda p: size(p, False))
                    return [*chosen, (best, rest, False)]
            if size(place, False) > 0:
                chosen.append((place, size(place, False), False))
                rest -= size(place, False)
        return chosen if rest <= 0 else None

    # -- downwards ---------------------------------------------------------------------------------------

    def _descend(
        self, need: Need, level: int, chosen: list[tuple[Place, int, bool]]
    ) -> list[tuple[Place, int, bool]]:
        """Spread what the domains of a level hold over those below them, down to the leaves."""
        at = self._slice_level(need)
        while level < at:
            below = [part for place, _, _ in chosen for part in place.parts]
            total = sum(n for _, n, _ in chosen)
            led = any(leads for _, _, leads in chosen)
            chosen = self._several(need, below, total, led=led) or []
            level += 1
        chosen = [(p, n * need.sizes[at], leads) for p, n, leads in chosen]
        while level + 1 < len(self.levels):
            level += 1
            spread = []
            for place, count, leads in chosen:
                spread += self._several(
                    need, place.parts, count, lambda p, with_leader: p.pods_led if with_leader else p.pods,
                    led=leads) or []  # fmt: skip
            chosen = spread
        return chosen


def _count_leaf(place: Place, each: Asked, led: Asked) -> None:
    """Note how many pods fit in a leaf, and how many beside the leader (`led`: empty without one)."""
    free = place.free
    place.pods = _fitting(free, each)
    place.leads = bool(led) and _fitting(free, led) > 0
    if not place.leads:
        place.pods_led = 0
        return
    taken = dict(led)
    place.pods_led = _fitting({r: v - taken.get(r, 0) for r, v in free.items()}, each)


def _fitting(free: Mapping[str, int], asked: Asked) -> int:
    least = -1
    for resource, amount in asked:
        fits = max(0, free.get(resource, 0)) // amount
        if least < 0 or fits < least:
            least = fits
    return least


def _add_up(place: Place) -> None:
    """Add up what fits into the parts; the leader stands where it costs least."""
    parts = place.parts
    place.pods = sum(p.pods for p in parts)
    place.slices = sum(p.slices for p in parts)
    able = [p for p in parts if p.leads]
    place.leads = bool(able)
    place.pods_led = place.pods - min((p.pods - p.pods_led for p in able), default=place.pods)
    place.slices_led = place.slices - min((p.slices - p.slices_led for p in able),
                                          default=place.slices)  # fmt: skip


def held_by(
    given: Mapping[str, Given], podsets: Sequence[PodSet]
) -> list[tuple[str, Mapping[str, int], tuple[Domain, ...]]]:
    """Return flavor, needs of a pod, and domains of each podset that has a place."""
    needs = {p.name: p.each for p in podsets}
    return [(next(iter(g.use.values()))[0], needs[name], g.domains)
            for name, g in given.items() if g.domains and g.use]  # fmt: skip
