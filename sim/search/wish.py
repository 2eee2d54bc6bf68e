"""What is wished for: the fastest, the cheapest, the fewest devices for a date, the soonest for a budget.

Each choice of device and number is searched for its fastest layout, which is then run as a job: on the
same machines a faster step is cheaper, too. Energy is compared between these fastest layouts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.catalog.reading import load_node
from ersatz.device_models.kernels.kernel import calibrated_time, sixteen_bit_peak
from ersatz.device_models.text.problems import InputError, Problem
from ersatz.device_models.text.units import format_duration, format_money
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.records import RunResult
from ersatz.sim.run import run_case
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.search.best import KINDS, Found, search
from ersatz.sim.search.choices import Choices, choices_of
from ersatz.sim.search.finer.chosen import TRIED, Chosen, finer
from ersatz.sim.search.host.away import assumed
from ersatz.sim.search.least.bounds import Bounds
from ersatz.sim.search.least.prices import ShardPrices
from ersatz.sim.search.pricing import InPlace, Pricer
from ersatz.sim.search.reading import Question, at, own_devices, placed
from ersatz.sim.search.space import HOST, make_space
from ersatz.sim.step.step import shares_links

Objective = Literal["time", "money", "energy", "devices"]
MOST_DEVICES = 65_536  # that are looked at where no number is given
GUESS = 0.35  # of the peak, to begin with
Pricers = Callable[[Scenario, str], Pricer]


@dataclass(frozen=True, slots=True)
class Wish:
    """What the best is measured by, and what it must keep to."""

    objective: Objective = "time"
    by_s: float = math.inf  # of the whole job
    budget: float = math.inf  # in the currency of the scenario's costs
    most_devices: int = MOST_DEVICES
    least: str = "fits"  # verdict on the memory
    everything: bool = False  # schedules and ZeRO stages that the stack is not known to run, too
    kinds: int = KINDS
    shard: tuple[int, int] | None = None  # of how many: only every so many-th layout


@dataclass(frozen=True, slots=True)
class Option:
    """One choice of devices with the layouts found for it, and the job under the fastest."""

    found: Found
    choices: Choices
    scenario: Scenario
    result: RunResult
    data: Mapping[str, Any]  # of its file, without the layout
    chosen: tuple[
        Chosen, ...
    ]  # the layouts, the best few with other splits and places where faster
    tried: int  # of these splits and places

    @property
    def devices(self) -> int:
        """Devices that train."""
        return self.scenario.devices

    @property
    def wall_s(self) -> float:
        """Seconds of the whole job; of a step where no number of tokens is given."""
        return self.result.job.wall_s if self.result.job else self.result.step.duration_s


@dataclass(frozen=True, slots=True)
class Planned:
    """The options, the best first, and what cannot be."""

    question: Question
    wish: Wish
    options: tuple[Option, ...]  # that keep to the wish
    others: tuple[Option, ...]  # that were looked at and do not
    failed: tuple[str, ...]


def in_place(scenario: Scenario, least: str) -> Pricer:
    """Return what prices layouts in this process."""
    return InPlace(scenario, least)


@dataclass(slots=True)
class Seeker:
    """Looks at choices of devices for one question; what they share is priced once."""

    question: Question
    wish: Wish
    pricers: Pricers = in_place
    prices: dict[str, ShardPrices] | None = None
    seen: dict[tuple[str, int, int], Option | str] | None = None

    def __post_init__(self) -> None:
        self.prices, self.seen = {}, {}

    def look(self, node: Node | None, nodes: int | None, kinds: int = 0) -> Option | str:
        """Return the option of so many nodes of a kind, or why there is none.

        `kinds` is how many layouts are told, by default as many as are wished for.
        """
        assert self.seen is not None
        kinds = kinds or self.wish.kinds
        key = node.name if node else "", nodes or 0, kinds
        if key not in self.seen:
            self.seen[key] = self._look(node, nodes, kinds)
        return self.seen[key]

    def _look(self, node: Node | None, nodes: int | None, kinds: int) -> Option | str:
        name = f"{nodes * node.devices:,} x {node.device.name}" if node and nodes else "as given"
        try:
            base, data = placed(self.question, node, nodes)
            choices = choices_of(base, everything=self.wish.everything)
            space = make_space(base, choices, self.question.held)
            if self.wish.shard:
                part, parts = self.wish.shard
                space.rows = space.rows[part - 1 :: parts]
            bounds, pricer = self._bounds(base), self.pricers(base, self.wish.least)
            try:
                found = search(space, bounds, pricer, least=self.wish.least,
                               kinds=kinds)  # fmt: skip
            finally:
                pricer.close()
            chosen, tried = self._finer(found, bounds, choices, kinds)
            first = chosen[0]
            told = assumed(first.scenario, first.priced.row[HOST])
            best = replace(first.scenario, open=(), assumptions=(*told, *base.assumptions))
            return Option(found, choices, best, run_case(best), data, chosen, tried)
        except InfeasibleError as error:
            return f"{name}: {error}"

    def _finer(
        self, found: Found, bounds: Bounds, choices: Choices, kinds: int
    ) -> tuple[tuple[Chosen, ...], int]:
        """Return the layouts as they are best; where only the number of devices is asked, as found."""
        fabric = self.question.case.data.get("fabric") or {}
        few = 0 if kinds < self.wish.kinds else 1 if shares_links(found.scenario) else TRIED
        return finer(found, bounds, self.wish.least, uneven=choices.uneven, given=frozenset(fabric),
                     few=few)  # fmt: skip

    def _bounds(self, base: Scenario) -> Bounds:
        """Return bounds that share the prices of shards with other numbers of the same devices."""
        assert self.prices is not None
        pool = base.pools[0]
        held = self.prices.get(pool.node.name)
        if held is None or (held.pool.node, held.pool.stack) != (pool.node, pool.stack):
            held = self.prices[pool.node.name] = ShardPrices(base.model, pool, calibrated_time)
        return Bounds(base, prices=held)


def seek(
    question: Question, wish: Wish, devices: Sequence[int] = (), pricers: Pricers = in_place
) -> Planned:
    """Return the options for a question, the best first.

    `devices` are numbers to be looked at; without them the fewest for the date, the most for the budget,
    or as many as the scenario has. Raises `InputError` for numbers that are no whole nodes, and where
    nothing says how many.
    """
    seeker = Seeker(question, wish, pricers)
    kinds: list[Node | None] = list(question.nodes) or [None]
    looked = [one for node in kinds for one in _looked(seeker, node, devices)]
    options = list({id(one): one for one in looked if isinstance(one, Option)}.values())
    good = [one for one in options if keeps(one, wish) is None]
    failed = [one for one in looked if isinstance(one, str)]
    ranked = sorted(good, key=lambda one: _measure(one, wish))
    rest = [one for one in options if keeps(one, wish) is not None]
    return Planned(question, wish, tuple(ranked), tuple(rest), tuple(dict.fromkeys(failed)))


def _looked(seeker: Seeker, node: Node | None, devices: Sequence[int]) -> Iterator[Option | str]:
    question, wish = seeker.question, seeker.wish
    if devices:
        kind = _kind(question, node)
        yield from (seeker.look(kind, _whole(kind, count)) for count in devices)
    elif wish.by_s < math.inf or wish.budget < math.inf:
        yield from _numbers(seeker, _kind(question, node))
    elif node is None:
        yield seeker.look(None, None)
    else:
        count = own_devices(question)
        if count is None:
            words = "how many devices? say --devices N, --by DAYS or --budget AMOUNT"
            raise InputError([Problem("--on", 0, 0, "", node.name, words)])
        yield seeker.look(node, max(round(count / node.devices), 1))


def _kind(question: Question, node: Node | None) -> Node:
    """Return the kind of node: as asked, else the file's."""
    if node is not None:
        return node
    if question.own_node is None:
        words = "names no kind of node: say --on NODE"
        raise InputError([question.case.place(("cluster",), None, words)])
    return load_node(question.own_node)


def _whole(node: Node, count: int) -> int:
    nodes, rest = divmod(count, node.devices)
    if rest or not nodes:
        near = max(nodes, 1) * node.devices
        words = (
            f"is no whole number of nodes of {node.devices} devices ({node.name}); {near} would be"
        )
        raise InputError([Problem("--devices", 0, 0, "", str(count), words)])
    return nodes


def _numbers(seeker: Seeker, node: Node) -> Iterator[Option | str]:
    """Look for the fewest nodes that are done in time, or the most that the budget pays for."""
    wish = seeker.wish
    counts = list(round_numbers(wish.most_devices // node.devices))
    if not counts:
        yield f"{node.name}: a node has {node.devices} devices, more than {wish.most_devices:,}"
        return
    timely = wish.by_s < math.inf

    def enough(place: int) -> bool:
        """Tell whether so many are done in time, or are more than is paid for."""
        found = seeker.look(node, counts[place], kinds=1)
        if isinstance(found, str):  # too few to hold the model
            return False
        if timely:
            return found.wall_s <= wish.by_s
        return found.result.cost is not None and found.result.cost.total > wish.budget

    place = _first(enough, len(counts), _begin(seeker, node, counts))
    if not timely:
        place -= 1
    if place < 0:  # even one node costs too much: it says how much
        yield seeker.look(node, counts[0])
    for near in (place - 1, place):  # the one that just fails, and the answer
        if 0 <= near < len(counts):
            yield seeker.look(node, counts[near])
    step = -1 if timely else 1
    near = place - 1 if timely else place + 1
    while (
        0 <= near < len(counts)
    ):  # layouts that are tried otherwise may suffice where others just fail
        found = seeker.look(node, counts[near])
        if isinstance(found, str) or keeps(found, wish) is not None:
            break
        yield found
        near += step
        if timely and near >= 0:
            yield seeker.look(node, counts[near])


def round_numbers(most: int) -> Iterator[int]:
    """Yield numbers of nodes with few digits in binary: 1 to 8, then 10, 12, 14, 16, 20, ...

    >>> list(round_numbers(24))
    [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24]
    """
    number, step = 1, 1
    while number <= most:
        yield number
        if number >= 8 * step:
            step *= 2
        number += step


def _begin(seeker: Seeker, node: Node, counts: Sequence[int]) -> int:
    """Return the place of the number that the FLOPs ask for, at a usual share of the peak."""
    base = at(seeker.question, node, counts[-1])
    if not base.training.tokens:
        words = "the job has no length: say --tokens or set training.tokens"
        raise InputError([Problem("--by", 0, 0, "training.tokens", "", words)])
    flop = base.model.flop_per_token(base.training.sequence_length, causal=True)
    seconds = flop * base.training.tokens / (GUESS * sixteen_bit_peak(node.device))
    limit = seeker.wish.by_s if seeker.wish.by_s < math.inf else 90 * 86_400.0
    wanted = seconds / limit / node.devices
    return next((i for i, n in enumerate(counts) if n >= wanted), len(counts) - 1)


def _first(holds: Callable[[int], bool], count: int, begin: int) -> int:
    """Return the first place at which something holds that holds from there on; `count`: nowhere."""
    low, high, step = -1, count, 1
    place = min(begin, count - 1)
    while low < place < high:  # gallop away from the guess
        if holds(place):
            high, place = place, place - step
        else:
            low, place = place, place + step
        step *= 2
        if low >= 0 and high < count:
            break
        place = max(low + 1, min(place, high - 1))
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def keeps(option: Option, wish: Wish) -> str | None:
    """Return what of the wish an option does not keep to; None where it does."""
    if option.devices > wish.most_devices:
        return f"{option.devices:,} devices are more than {wish.most_devices:,}"
    if option.wall_s > wish.by_s:
        return f"takes {format_duration(option.wall_s)}"
    cost = option.result.cost
    if wish.budget < math.inf and (cost is None or cost.total > wish.budget):
        return f"costs {format_money(cost.total, cost.currency)}" if cost else "has no price"
    return None


def _measure(option: Option, wish: Wish) -> tuple[float, ...]:
    """Return what options are ordered by, the least first."""
    cost, energy = option.result.cost, option.result.energy
    money = cost.total if cost else math.inf
    power = energy.kwh if energy else math.inf
    first = {"time": option.wall_s, "money": money, "energy": power, "devices": option.devices}
    return first[wish.objective], option.wall_s, option.devices


def front(options: Sequence[Option]) -> list[Option]:
    """Return the options that no other beats in both time and money, the fastest first."""
    priced = [one for one in options if one.result.cost and one.result.job]
    found: list[Option] = []
    for one in sorted(priced, key=lambda one: (one.wall_s, _total(one))):
        if not found or _total(one) < _total(found[-1]):
            found.append(one)
    return found


def _total(option: Option) -> float:
    return option.result.cost.total if option.result.cost else math.inf
