"""What would make a plan fit: the smallest sets of changes, the quickest first.

A set is as small as can be: of single changes those that fit, else pairs, else triples. Among sets of
one size what usually costs least time comes first; `sim/run.py` times each and orders them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from ersatz.device_models.catalog.stack import Stack
from ersatz.sim.errors import LayoutError
from ersatz.sim.plan.layout import rank_shape
from ersatz.sim.plan.memory.facts import allocator_waste, host_update, loss_bytes
from ersatz.sim.plan.memory.peaks import StagePeak, stage_peaks
from ersatz.sim.plan.memory.verdict import judge, room_for_sure
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.workload.layer import Layer

MOST = 6  # sets that are named
ENOUGH = 3  # single changes that make pairs needless
LARGEST = 3  # changes of a set

Change = Callable[[Scenario], Scenario | None]


def advice(scenario: Scenario) -> Iterator[str]:
    """Yield in words what would make a plan fit for sure; last, the devices that would."""
    for words, _ in remedies(scenario):
        yield words
    yield f"devices with at least {least_capacity(scenario) / 2**30:.0f} GiB"


def remedies(scenario: Scenario) -> list[tuple[str, Scenario]]:
    """Return the smallest sets of changes with which a plan fits for sure, and the changed plans.

    Of each kind of change the mildest that suffices counts. Where single changes are few, which may be
    slow ones, pairs of other kinds are named beside them.
    """
    found: dict[str, Scenario] = {}
    if scenario.parallel.pools:
        return []  # each pool has its own: a search finds what fits
    left = [(kind, change) for kind, change in CHANGES if change(scenario) is not None]
    for size in range(1, LARGEST + 1):
        if len(found) >= ENOUGH or (found and size > 2):
            break
        for chosen in combinations(left, size):
            kinds = {kind for kind, _ in chosen}
            if len(kinds) < size or (size == 1 and kinds & found.keys()):
                continue
            changed = _all_of(scenario, [change for _, change in chosen])
            if changed is not None and fits_for_sure(changed):
                found.setdefault(" ".join(sorted(kinds)), changed)
        left = [(kind, change) for kind, change in left if kind not in found]
    return [(_words(scenario, changed), changed) for changed in list(found.values())[:MOST]]


def _all_of(scenario: Scenario, changes: Sequence[Change]) -> Scenario | None:
    """Return a plan with some changes, one after the other; None where one cannot be made."""
    changed: Scenario | None = scenario
    for change in changes:
        changed = change(changed) if changed is not None else None
    return changed


def fits_for_sure(scenario: Scenario) -> bool:
    """Tell whether the verdict on a plan is `fits`; False where there is no such plan."""
    try:
        return all(_verdict(peak) == "fits" for peak in stage_peaks(scenario))
    except LayoutError:
        return False


def _verdict(peak: StagePeak) -> str:
    return judge(peak.total, peak.pool.node.device.memory_bytes)[0]


def least_capacity(scenario: Scenario) -> float:
    """Return the bytes that a device needs so that the fullest rank fits for sure."""
    return room_for_sure(max(peak.total for peak in stage_peaks(scenario)))


def _words(before: Scenario, after: Scenario) -> str:
    """Say what differs between two plans, as keys of a scenario."""
    texts = []
    for part, names in (("parallel", ("zero", "recompute", "tp", "pp", "ep")),
                        ("training", ("micro_batch",))):  # fmt: skip
        for name in names:
            old, new = (getattr(getattr(s, part), name) for s in (before, after))
            texts += [f"{name}: {new}"] if old != new else []
    old, new = before.pools[0].stack, after.pools[0].stack
    texts += [f"memory.{key}: {shown(getattr(new, name))}" for key, name, shown in KEYS
              if getattr(new, name) != getattr(old, name)]  # fmt: skip
    return " + ".join(texts)


def _zero(level: int) -> Change:
    def change(scenario: Scenario) -> Scenario | None:
        parallel = scenario.parallel
        if parallel.zero >= level or (level == 3 and parallel.pp > 1):
            return None  # gathering for each micro-batch of a pipeline is not what anybody runs
        return _with(scenario, zero=level)

    return change


def _recompute(mode: str) -> Change:
    def change(scenario: Scenario) -> Scenario | None:
        order = ("none", "selective", "full")
        later = order.index(mode) > order.index(scenario.parallel.recompute)
        return _with(scenario, recompute=mode) if later else None

    return change


def _half_batch(scenario: Scenario) -> Scenario | None:
    training = scenario.training
    if training.micro_batch % 2:
        return None
    return replace(scenario, training=replace(training, micro_batch=training.micro_batch // 2))


def _one_sequence(scenario: Scenario) -> Scenario | None:
    if scenario.training.micro_batch == 1:
        return None
    return replace(scenario, training=replace(scenario.training, micro_batch=1))


def _degree(name: str, factor: int) -> Change:
    def change(scenario: Scenario) -> Scenario | None:
        parallel, kinds = scenario.parallel, scenario.model.kinds
        value = getattr(parallel, name) * factor
        if name == "ep":
            routed = {kind.experts.routed for kind in kinds if kind.experts}
            whole = routed and all(count % value == 0 for count in routed)
            return _with(scenario, ep=value) if whole and _shaped(scenario, ep=value) else None
        if parallel.dp % factor or parallel.stage_pools or len(scenario.pools) > 1:
            return None
        if name == "pp" and parallel.zero == 3:
            return None
        if name == "tp" and (not _divides(kinds, value) or value > scenario.pools[0].node.devices):
            return None
        degrees = {name: value, "dp": parallel.dp // factor}
        return _with(scenario, **degrees) if _shaped(scenario, **degrees) else None

    return change


def _divides(kinds: Sequence[Layer], tp: int) -> bool:
    heads = [kind.heads for kind in kinds]
    heads += [kind.recurrence.heads for kind in kinds if kind.recurrence]
    return not any(count % tp for count in heads)


def _shaped(scenario: Scenario, **changes: int) -> bool:
    """Tell whether replicas are left over which the experts' groups spread."""
    return bool(rank_shape(replace(scenario.parallel, **changes))[3])  # type: ignore[arg-type]


def _stack(**changes: float) -> Change:
    """A change of how tensors are kept, where it is one for the better."""

    def change(scenario: Scenario) -> Scenario | None:
        pools = tuple(replace(p, stack=_better(p.stack, changes)) for p in scenario.pools)
        return replace(scenario, pools=pools) if pools != scenario.pools else None

    return change


def _expandable(scenario: Scenario) -> Scenario | None:
    return _stack(memory_fragmentation=allocator_waste("expandable"))(scenario)


def _fused(scenario: Scenario) -> Scenario | None:
    return _stack(loss_memory_bytes=loss_bytes("fused"))(scenario)


def _better(stack: Stack, changes: dict[str, float]) -> Stack:
    better = {k: v for k, v in changes.items() if (v < getattr(stack, k)) == (k in LESS)}
    better = {k: v for k, v in better.items() if v != getattr(stack, k)}
    if "optimizer_offload" in better and not stack.optimizer_bandwidth:
        better["optimizer_bandwidth"] = host_update()
    return replace(stack, **better) if better else stack  # type: ignore[arg-type]


def _with(scenario: Scenario, **changes: object) -> Scenario:
    return replace(scenario, parallel=replace(scenario.parallel, **changes))  # type: ignore[arg-type]


LESS = ("memory_fragmentation", "loss_memory_bytes", "keeps_results")  # of which less is better
# Keys of a scenario's `memory`, the values of a stack that they change, and how these are said.
KEYS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("results", "keeps_results", lambda _: "dropped"),
    ("allocator", "memory_fragmentation", lambda _: "expandable"),
    ("loss", "loss_memory_bytes", lambda _: "fused"),
    ("loss_chunks", "loss_chunks", "{:.0f}".format),
    ("optimizer_offload", "optimizer_offload", "{:g}".format),
)
# Changes by kind, in the order of what they usually cost in time; of a kind the mildest first.
CHANGES: tuple[tuple[str, Change], ...] = (
    ("results", _stack(keeps_results=False)), ("allocator", _expandable), ("loss", _fused),
    ("chunks", _stack(loss_chunks=8.0)), ("zero", _zero(1)), ("recompute", _recompute("selective")),
    ("zero", _zero(2)), ("batch", _half_batch), ("zero", _zero(3)), ("batch", _one_sequence),
    *((name, _degree(name, factor)) for name in ("ep", "pp", "tp") for factor in (2, 4, 8)),
    ("recompute", _recompute("full")),
    *(("offload", _stack(optimizer_offload=share)) for share in (0.25, 0.5, 1.0)),
)  # fmt: skip
