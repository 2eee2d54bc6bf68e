"""What would make a plan fit: the smallest sets of changes, the quickest first.

A set is as small as can be: of single changes those that fit, else pairs, else triples. Among sets of
one size what usually costs least time comes first; `sim/run.py` times each and orders them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations

from ersatz.sim.plan.layout import rank_shape
from ersatz.sim.plan.memory.peaks import StagePeak, stage_peaks
from ersatz.sim.plan.memory.verdict import judge
from ersatz.sim.scenario.scenario import Scenario

MOST = 5  # sets that are named
LARGEST = 3  # changes of a set
OFFLOAD_BANDWIDTH = 15e9  # bytes/s per device where the host updates the weights

Change = Callable[[Scenario], Scenario | None]


def advice(scenario: Scenario) -> Iterator[str]:
    """Yield in words what would make a plan fit for sure; last, the devices that would."""
    for words, _ in remedies(scenario):
        yield words
    yield f"devices with at least {least_capacity(scenario) / 2**30:.0f} GiB"


def remedies(scenario: Scenario) -> list[tuple[str, Scenario]]:
    """Return the smallest sets of changes with which a plan fits for sure, and the changed plans."""
    singles = [(words, change) for words, change in CHANGES if change(scenario) is not None]
    for size in range(1, LARGEST + 1):
        found = []
        for chosen in combinations(singles, size):
            changed: Scenario | None = scenario
            for _, change in chosen:
                changed = change(changed) if changed is not None else None
            if changed is not None and fits_for_sure(changed):
                found.append((_words(scenario, changed), changed))
        if found:
            return list(dict(found).items())[:MOST]
    return []


def fits_for_sure(scenario: Scenario) -> bool:
    """Tell whether the verdict on a plan is `fits`; False where there is no such plan."""
    try:
        return all(_verdict(peak) == "fits" for peak in stage_peaks(scenario))
    except ValueError:
        return False


def _verdict(peak: StagePeak) -> str:
    return judge(peak.total, peak.pool.node.device.memory_bytes)[0]


def least_capacity(scenario: Scenario) -> float:
    """Return the bytes that a device needs to hold the fullest rank."""
    return max(peak.total for peak in stage_peaks(scenario))


def _words(before: Scenario, after: Scenario) -> str:
    """Say what differs between two plans, as keys of a scenario."""
    texts = []
    for part, names in (("parallel", ("zero", "recompute", "tp", "pp", "ep")),
                        ("training", ("micro_batch",))):  # fmt: skip
        for name in names:
            old, new = (getattr(getattr(s, part), name) for s in (before, after))
            texts += [f"{name}: {new}"] if old != new else []
    old_stack, new_stack = before.pools[0].stack, after.pools[0].stack
    if new_stack.optimizer_offload > old_stack.optimizer_offload:
        texts.append("memory.optimizer_offload: 1")
    if new_stack.loss_chunks > old_stack.loss_chunks:
        texts.append(f"memory.loss_chunks: {new_stack.loss_chunks:.0f}")
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
        parallel, model = scenario.parallel, scenario.model
        value = getattr(parallel, name) * factor
        if name == "ep":
            whole = model.experts and model.experts.routed % value == 0
            return _with(scenario, ep=value) if whole and _shaped(scenario, ep=value) else None
        if parallel.dp % factor or parallel.stage_pools or len(scenario.pools) > 1:
            return None
        if name == "tp" and (model.heads % value or value > scenario.pools[0].node.devices):
            return None
        return _with(scenario, **{name: value, "dp": parallel.dp // factor})

    return change


def _shaped(scenario: Scenario, **changes: int) -> bool:
    return bool(rank_shape(replace(scenario.parallel, **changes))[3])  # type: ignore[arg-type]


def _stack(**changes: float) -> Change:
    def change(scenario: Scenario) -> Scenario | None:
        pools = tuple(
            replace(p, stack=replace(p.stack, **_better(p.stack, changes)))  # type: ignore[arg-type]
            for p in scenario.pools
        )
        return replace(scenario, pools=pools) if pools != scenario.pools else None

    return change


def _better(stack: object, changes: dict[str, float]) -> dict[str, float]:
    better = {k: v for k, v in changes.items() if v > getattr(stack, k)}
    if "optimizer_offload" in better and not stack.optimizer_bandwidth:
        better["optimizer_bandwidth"] = OFFLOAD_BANDWIDTH
    return better


def _with(scenario: Scenario, **changes: object) -> Scenario:
    return replace(scenario, parallel=replace(scenario.parallel, **changes))  # type: ignore[arg-type]


# Changes in the order of what they usually cost in time.
CHANGES: tuple[tuple[str, Change], ...] = (
    ("zero 1", _zero(1)), ("loss", _stack(loss_chunks=8.0)), ("selective", _recompute("selective")),
    ("zero 2", _zero(2)), ("half", _half_batch), ("zero 3", _zero(3)), ("one", _one_sequence),
    *((f"ep {f}", _degree("ep", f)) for f in (2, 4, 8)),
    *((f"pp {f}", _degree("pp", f)) for f in (2, 4, 8)),
    *((f"tp {f}", _degree("tp", f)) for f in (2, 4, 8)),
    ("full", _recompute("full")), ("offload", _stack(optimizer_offload=1.0)),
)  # fmt: skip
