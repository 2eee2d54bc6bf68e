"""Which mix: pools as a scenario or a command line names them, all of them or as many as serve best.

Where any number of each may be taken, mixes are first ordered by the rates that the pools reach alone,
which add up but for a few percent; the best of that order are then searched exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from ersatz.device_models.text.digits import whole
from ersatz.device_models.text.problems import InputError, Problem
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.job.chance import cost_draws, difference
from ersatz.sim.records import Difference, RunResult
from ersatz.sim.run import run_case
from ersatz.sim.scenario.case_file import Case
from ersatz.sim.scenario.file import scenario_of
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.search.mix.mix import Alone, FoundMix, alone_mix, search_mix
from ersatz.sim.search.mix.parts import MOST_ZERO
from ersatz.sim.search.reading import Question, find_node, without_cluster
from ersatz.sim.search.wish import Wish

PARTS = 4  # quarters of each pool's nodes that are tried where any number may be taken
LOST = 0.95  # of the rates alone that a mix is taken to reach, before it is searched
MOST_MIXES = 5  # that are searched
MOST_POOLS = 4
MOST_NODES = 100_000  # of a pool
Counts = Mapping[str, int]  # nodes by pool


@dataclass(frozen=True, slots=True)
class MixOption:
    """One mix with the best layout that was found, and the job under it."""

    counts: Counts
    found: FoundMix
    scenario: Scenario
    result: RunResult
    data: Mapping[str, Any]
    saves: Difference | None = None  # against the first pool alone

    @property
    def devices(self) -> int:
        """Devices that train."""
        return self.scenario.devices

    @property
    def wall_s(self) -> float:
        """Seconds of the whole job; of a step where no number of tokens is given."""
        return self.result.job.wall_s if self.result.job else self.result.step.duration_s

    @property
    def cost(self) -> float:
        """The whole cost; infinite where nothing is priced."""
        return self.result.cost.total if self.result.cost else math.inf


@dataclass(frozen=True, slots=True)
class PlannedMix:
    """Mixes and single pools, the best first; what does not keep to the wish; what cannot be."""

    question: Question
    wish: Wish
    options: tuple[MixOption, ...]
    others: tuple[MixOption, ...]
    failed: tuple[str, ...]
    reach: tuple[str, ...]  # how far it was looked


def read_mix(text: str) -> list[tuple[str, int]]:
    """Return names and numbers of nodes of a text such as "h800:64,910B2:64"; raises `InputError`."""
    found = []
    for word in filter(None, (one.strip() for one in text.split(","))):
        name, colon, count = word.rpartition(":")
        nodes = whole(count)
        if not colon or not name or nodes is None or not 0 < nodes <= MOST_NODES:
            raise InputError([Problem("--mix", 0, 0, "", word[:60],
                              "expected a node or device and how many nodes, such as h800:64")])  # fmt: skip
        found.append((name, nodes))
    return found


def with_pools(question: Question, pools: Sequence[tuple[str, int]]) -> None:
    """Put a question on pools of these nodes; what belonged to other machines is left out, and said."""
    nodes = [(find_node(name), count) for name, count in pools]
    names = [node.device.name for node, _ in nodes]
    if len(set(names)) < len(names) or not 2 <= len(names) <= MOST_POOLS:
        raise InputError([Problem("--mix", 0, 0, "", ", ".join(names)[:60],
                          f"expected 2 to {MOST_POOLS} different devices")])  # fmt: skip
    question.case.data["cluster"] = without_cluster(question, [
        {"name": node.device.name, "node": node.name, "nodes": count} for node, count in nodes
    ])  # fmt: skip


def pool_names(question: Question) -> list[str]:
    """Return the names of the pools that the case of a question has."""
    cluster = question.case.data.get("cluster")
    pools = cluster.get("pools") if isinstance(cluster, dict) else None
    return [str(pool.get("name")) for pool in pools or () if isinstance(pool, dict)]


def on_counts(question: Question, counts: Counts) -> tuple[Scenario, dict[str, Any]]:
    """Return the open scenario on so many nodes of each pool, and its data; raises `InputError`."""
    case = question.case
    data = dict(case.data)
    cluster = dict(data["cluster"])
    cluster["pools"] = [{**pool, "nodes": counts[str(pool["name"])]} for pool in cluster["pools"]
                        if counts.get(str(pool["name"]))]  # fmt: skip
    if len(cluster["pools"]) < 2:
        cluster.pop("joint", None)
    data["cluster"] = cluster
    for section, keys in (("cost", ("rent", "server_price")), ("job", ("spare_nodes",))):
        if isinstance(data.get(section), dict):
            data[section] = {key: _kept(value, counts) if key in keys else value
                             for key, value in data[section].items()}  # fmt: skip
    moved = Case(case.name, case.text, data, set(case.overridden))
    found = scenario_of(moved, question.folder, plans=True)
    if found is None:
        raise InputError(moved.problems)
    return replace(found, open=("parallel", "micro_batch"),
                   assumptions=(*question.notes, *found.assumptions)), data  # fmt: skip


def _kept(value: Any, counts: Counts) -> Any:
    """Return what is said pool by pool for those that are there."""
    if not isinstance(value, dict):
        return value
    return {name: one for name, one in value.items() if counts.get(name)}


def seek_mix(
    question: Question, wish: Wish, *, some: bool = False,
    tell: Callable[[str], None] = lambda words: None,
) -> PlannedMix:  # fmt: skip
    """Return the best mixes of the pools of a question beside each pool alone, the best first.

    With `some` any number of nodes of each may be taken, up to those given. Raises `InputError` for what
    is wrong in the case, and `InfeasibleError` where nothing can be run.
    """
    whole = _as_given(question)
    _check(whole, question)
    counts = {pool.name: pool.nodes for pool in whole.pools}
    options: list[MixOption] = []
    failed: list[str] = []

    def look(some_counts: Counts) -> None:
        try:
            known = [one for option in options for one in option.found.alone]
            options.append(_option(question, wish, some_counts, known))
        except InfeasibleError as error:
            failed.append(f"{_named(some_counts)}: {error}")
        tell(f"{_named(some_counts)} looked at")

    for name, count in counts.items():
        look({name: count})
    singles = {next(iter(one.counts)): one for one in options}
    mixes = _promising(singles, counts, wish) if some else [counts]
    reach = [
        f"pools share a job by stages under 1F1B or by replicas; ZeRO up to {MOST_ZERO}, also alone"
    ]
    if some:
        reach.append(f"each pool by quarters of its nodes; of all mixes the {len(mixes)} that the pools' own"
                     " rates put first were searched")  # fmt: skip
    for mix in mixes:
        look(mix)
    options = _compared(options, singles.get(whole.pools[0].name))
    good = [one for one in options if keeps(one, wish) is None]
    rest = [one for one in options if keeps(one, wish) is not None]
    good.sort(key=lambda one: _measure(one, wish))
    return PlannedMix(question, wish, tuple(good), tuple(rest), tuple(failed), tuple(reach))


def _as_given(question: Question) -> Scenario:
    """Return the open scenario on all nodes of its pools; raises `InputError` with every fault of it."""
    case = question.case
    own = Case(case.name, case.text, dict(case.data), set(case.overridden))
    found = scenario_of(own, question.folder, plans=True)
    if found is None:
        raise InputError(own.problems)
    return found


def _check(scenario: Scenario, question: Question) -> None:
    if not 2 <= len(scenario.pools) <= MOST_POOLS:
        raise InputError([question.case.place(("cluster", "pools"), None,
                          f"expected 2 to {MOST_POOLS} pools to mix")])  # fmt: skip


def _named(counts: Counts) -> str:
    return " + ".join(f"{count} nodes of {name}" for name, count in counts.items() if count)


def _option(question: Question, wish: Wish, counts: Counts, known: Sequence[Alone]) -> MixOption:
    scenario, data = on_counts(question, counts)
    if len(scenario.pools) == 1:
        found = alone_mix(scenario, least=wish.least, everything=wish.everything)
    else:
        found = search_mix(scenario, least=wish.least, everything=wish.everything, known=known)
    best = found.best.scenario
    return MixOption(dict(counts), found, best, run_case(best), data)


def _promising(singles: Mapping[str, MixOption], counts: Counts, wish: Wish) -> list[Counts]:
    """Return the mixes that serve a wish best by the rates that their pools reach alone."""
    shares = range(PARTS + 1)
    found: dict[tuple[int, ...], tuple[tuple[float, ...], Counts]] = {}
    for place in product(*(shares if name in singles else (0,) for name in counts)):
        some = {name: max(counts[name] * part // PARTS, min(part, 1))
                for name, part in zip(counts, place, strict=True)}  # fmt: skip
        there = {name: nodes for name, nodes in some.items() if nodes}
        if not there or (len(there) == 1 and there.items() <= counts.items()):
            continue  # a whole pool alone was looked at
        measure = _guess(singles, there, counts, wish)
        found[tuple(some.values())] = measure, there
    ranked = sorted(found.items(), key=lambda one: (one[1][0], one[0]))
    return [there for _, (_, there) in ranked[:MOST_MIXES]]


def _guess(
    singles: Mapping[str, MixOption], some: Counts, counts: Counts, wish: Wish
) -> tuple[float, ...]:
    """Return what a mix is worth, by rates and rents that add up; what breaks the wish comes last."""
    rate = money = power = 0.0
    devices = 0
    for name, nodes in some.items():
        one, share = singles[name], nodes / counts[name]
        rate += share / one.wall_s
        money += share * one.cost / one.wall_s
        energy = one.result.energy
        power += share * (energy.kwh if energy else 0.0) / one.wall_s
        devices += int(one.devices * share)
    wall = 1.0 / rate / (LOST if len(some) > 1 else 1.0)
    late = wall > wish.by_s or wall * money > wish.budget or devices > wish.most_devices
    first = {"time": wall, "money": wall * money, "energy": wall * power, "devices": float(devices)}
    return float(late), first[wish.objective], wall


def keeps(option: MixOption, wish: Wish) -> str | None:
    """Return what of the wish an option does not keep to; None where it does."""
    if option.devices > wish.most_devices:
        return f"more than {wish.most_devices:,} devices"
    if option.wall_s > wish.by_s:
        return "too late"
    return "too dear" if option.cost > wish.budget else None


def _measure(option: MixOption, wish: Wish) -> tuple[float, ...]:
    energy = option.result.energy
    first = {"time": option.wall_s, "money": option.cost, "devices": float(option.devices),
             "energy": energy.kwh if energy else math.inf}  # fmt: skip
    return first[wish.objective], option.wall_s, float(option.devices)


def _compared(options: Sequence[MixOption], first: MixOption | None) -> list[MixOption]:
    """Return the options with what each saves against the first pool alone."""
    if first is None or first.result.job is None or first.result.cost is None:
        return list(options)
    base = _draws(first)
    return [
        one if one is first or one.result.cost is None else replace(
            one, saves=difference(_named(one.counts), _draws(one), _named(first.counts), base))
        for one in options
    ]  # fmt: skip


def _draws(option: MixOption) -> Any:
    result = option.result
    assert result.job
    assert result.cost
    tokens = option.scenario.training.tokens
    return cost_draws(option.scenario, result.step, result.job, result.cost) / tokens
