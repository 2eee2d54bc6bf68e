"""What of a job may leave for the host: ways to keep its tensors, as keys of a scenario's `memory`.

A way is the state of the optimiser (or none of it) and activations (or none), each whole. The number of a
way is a column of a row; what a stack has of them says `device_models/data/planning.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ersatz.device_models.catalog.stack import Stack
from ersatz.sim.kept import Kept
from ersatz.sim.scenario.keeping import kept
from ersatz.sim.scenario.scenario import Pool, Scenario
from ersatz.sim.scenario.schema import MemorySection

KEYS = ("optimizer_offload", "optimizer_update", "activation_offload", "weights_offload")


@dataclass(frozen=True, slots=True)
class Part:
    """Something that may leave, and which layouts may have it leave."""

    words: str = ""
    keys: Mapping[str, Any] = field(default_factory=dict)  # of a scenario's `memory`
    beyond: tuple[str, ...] = ()  # parts all of which it does, and more
    zero: int = 0  # the least ZeRO stage: a host updates what is this rank's own
    recompute: tuple[str, ...] = ("none", "selective", "full")


OPTIMIZER: Mapping[str, Part] = {
    "none": Part(),
    "optimizer": Part("optimiser on the host", {"optimizer_offload": 1.0}, ("none",), 1),
    "swapped": Part("optimiser swapped to the host", {"optimizer_offload": 1.0,
                    "optimizer_update": "device"}, ("none",), 1),
    "weights": Part("optimiser and weights on the host", {"optimizer_offload": 1.0,
                    "weights_offload": 1.0}, ("none", "optimizer"), 3),
}  # fmt: skip
KEPT: Mapping[str, Part] = {
    "none": Part(),
    "activations": Part("activations on the host", {"activation_offload": 1.0}, ("none",)),
    "checkpoints": Part("checkpoints on the host", {"activation_offload": 1.0}, ("none",), 0, ("full",)),
}  # fmt: skip
WAYS = tuple((state, acts) for state in OPTIMIZER for acts in KEPT)  # the first: nothing leaves
PARTS = ({*OPTIMIZER} | {*KEPT}) - {"none"}
_POOLS: Kept[tuple[Pool, ...]] = Kept(64)


def ways_of(parts: Sequence[str], stack: Stack) -> tuple[int, ...]:
    """Return the ways that a stack with such parts has, the one that keeps most here first.

    What a stack has leave in any case is no choice.
    """
    there = bool(stack.optimizer_offload or stack.weights_offload), bool(stack.activation_offload)
    state = {"none", *(() if there[0] else parts)}
    acts = {"none", *(() if there[1] else parts)}
    return tuple(way for way, (s, a) in enumerate(WAYS) if way and s in state and a in acts)


def parts_of(way: int) -> tuple[Part, Part]:
    """Return what leaves in a way: of the optimiser, and of activations."""
    state, acts = WAYS[way]
    return OPTIMIZER[state], KEPT[acts]


def keys_of(way: int) -> dict[str, Any]:
    """Return a way as keys of a scenario's `memory`."""
    state, acts = parts_of(way)
    return {**state.keys, **acts.keys}


def words_of_way(way: int) -> str:
    """Say what leaves."""
    return ", ".join(part.words for part in parts_of(way) if part.words)


def suits(way: int, zero: int, recompute: str) -> bool:
    """Tell whether layouts of a ZeRO stage and a kind of recomputation go a way."""
    return all(part.zero <= zero and recompute in part.recompute for part in parts_of(way))


def lesser(way: int) -> Iterator[int]:
    """Yield the ways in which less leaves: all that does so leaves in this one, too."""
    state, acts = WAYS[way]
    states, others = (state, *OPTIMIZER[state].beyond), (acts, *KEPT[acts].beyond)
    for less in ((s, a) for s in states for a in others):
        if less != (state, acts):
            yield WAYS.index(less)


def same_activations(one: int, other: int) -> bool:
    """Tell whether two ways treat activations and weights alike: they differ in the update alone."""
    ways = [(WAYS[way][0] == "weights", WAYS[way][1]) for way in (one, other)]
    return ways[0] == ways[1]


def updates_alone(way: int) -> bool:
    """Tell whether what leaves does so for the update alone, after all passes."""
    return same_activations(way, 0)


def put_away(scenario: Scenario, way: int) -> Scenario:
    """Return a scenario in which something leaves, as its section `memory` would have it."""
    if not way:
        return scenario
    section = MemorySection(**keys_of(way))

    def made() -> tuple[Pool, ...]:
        return tuple(replace(p, stack=kept(p.stack, section)) for p in scenario.pools)

    return replace(scenario, pools=_POOLS.get(scenario.pools, way, made))


def assumed(scenario: Scenario, way: int) -> list[str]:
    """Return what is taken for granted of a way in a scenario that goes it."""
    if not way:
        return []
    stack, keys = scenario.pools[0].stack, keys_of(way)
    rates = []
    if "optimizer_offload" in keys and not stack.updates_on_device:
        rates.append(f"it updates weights at {stack.optimizer_bandwidth / 1e9:g} GB/s per device")
    if len(keys) > 1 or "activation_offload" in keys:
        rates.append(f"copies at {stack.host_bandwidth / 1e9:g} GB/s each way per device")
    rates.append("it has the memory for that")
    return [f"{words_of_way(way)}: {', '.join(rates)}"]
