"""What if: the best layout of an option again where its machine had another network, links or memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ersatz.device_models.catalog.device import Node
from ersatz.sim.errors import InfeasibleError
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.search.best import search
from ersatz.sim.search.choices import Held
from ersatz.sim.search.pricing import VERDICTS, InPlace, Price
from ersatz.sim.search.space import layout_of, make_space
from ersatz.sim.search.wish import Option

MOST_TIMED = 150  # exact steps of each change


def _network(times: float) -> Callable[[Node], Node]:
    def changed(node: Node) -> Node:
        out = node.scale_out
        return replace(node, scale_out=replace(out, nic_bandwidth=times * out.nic_bandwidth))

    return changed


def _links(times: float) -> Callable[[Node], Node]:
    def changed(node: Node) -> Node:
        up = node.scale_up
        return replace(node, scale_up=replace(up, link_bandwidth=times * up.link_bandwidth))

    return changed


def _memory(times: float) -> Callable[[Node], Node]:
    def changed(node: Node) -> Node:
        device = node.device
        return replace(node, device=replace(device, memory_bytes=times * device.memory_bytes))

    return changed


CHANGES: dict[str, Callable[[Node], Node]] = {
    "the network half as fast": _network(0.5),
    "the network twice as fast": _network(2.0),
    "links inside a domain half as fast": _links(0.5),
    "three quarters of the memory": _memory(0.75),
    "twice the memory": _memory(2.0),
}


@dataclass(frozen=True, slots=True)
class WhatIf:
    """One change of the machine: the fastest layout there, and what today's takes there."""

    words: str
    seconds: float  # of the fastest; infinite where none fits
    scenario: Scenario | None
    kept_s: (
        float  # of the layout that is the best without the change; infinite where it does not fit
    )
    left: float  # share by which a layout that was not timed could be faster at most


def what_ifs(option: Option, held: Held, least: str) -> Iterator[WhatIf]:
    """Yield what each change would do: all else, and what may be chosen, stays as it is."""
    base = option.found.scenario
    best = option.found.plans[0].row  # with layers and ranks as usual, as all that is searched here
    for words, change in CHANGES.items():
        pools = tuple(replace(pool, node=change(pool.node)) for pool in base.pools)
        if pools == base.pools or (words.startswith("the network") and base.pools[0].nodes == 1):
            continue
        other = replace(base, pools=pools)
        pricer = InPlace(other, least)
        kept = _kept(pricer.price(best), least)
        try:
            found = search(make_space(other, option.choices, held), pricer=pricer, least=least,
                           kinds=1, most=MOST_TIMED)  # fmt: skip
        except InfeasibleError:
            yield WhatIf(words, float("inf"), None, kept, 0.0)
            continue
        seconds = min(found.plans[0].price.seconds, kept)
        scenario = found.best if seconds < kept else layout_of(other, best)
        yield WhatIf(words, seconds, scenario, kept, found.left)


def _kept(price: Price, least: str) -> float:
    suffices = VERDICTS.index(price.verdict) >= VERDICTS.index(least)
    return price.seconds if suffices else float("inf")
