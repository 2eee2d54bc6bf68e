"""Set the widths of the 80 % intervals from held-out errors, and measure their coverage.

    python -m ersatz.sim.validation.errors.widths

Conformal: the half width of a class is the 80 % quantile of |log error| over its runs, each predicted
without its model or without its source. Coverage is measured the same way, each family judged by a
quantile that does not contain it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.whole import write_whole
from ersatz.sim.uncertainty.intervals import UNMEASURED
from ersatz.sim.validation.errors.heldout import Judged, judge, predict_shipped, weighted_quantiles
from ersatz.sim.validation.errors.predict import Prediction
from ersatz.sim.validation.fit.folds import groups_by

LEAST = 12  # runs of at least two families that make a class of its own
LEVEL = 0.80
WIDER = 0.90  # quantile of unseen sources' errors that a device without any run gets


def quantile(errors: Sequence[float], level: float = LEVEL) -> float:
    """Return the conformal quantile of |log errors|: the ceil((n + 1) level)-th smallest."""
    ordered = np.sort(np.abs(np.asarray(errors, dtype=float)))
    return float(ordered[min(math.ceil((len(ordered) + 1) * level), len(ordered)) - 1])


def stack_class(j: Judged) -> str:
    """The class of a stack that was measured on this device."""
    return f"{j.stack}/{j.kind}"


def width_table(judged: Sequence[Judged]) -> dict[str, tuple[float, int]]:
    """Return half width and number of runs of each class."""
    held: dict[str, list[float]] = defaultdict(list)
    sources: dict[str, list[str]] = defaultdict(list)
    families: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for j in judged:
        held[stack_class(j)].append(j.family_error)
        for name in (f"{j.vendor}/{j.kind}", j.vendor):
            held[name].append(j.source_error)
            sources[name].append(j.source)  # an unseen source is as likely one as another
        for name in (stack_class(j), f"{j.vendor}/{j.kind}", j.vendor):
            families[name].add(j.family)
    table = {
        name: (math.expm1(_width(errors, sources[name])), len(errors))
        for name, errors in sorted(held.items())
        if len(errors) >= LEAST and len(families[name]) > 1
    }
    everything = [j.source_error for j in judged]
    (worst,) = weighted_quantiles(everything, [j.source for j in judged], [WIDER])
    widest = max(w for name, (w, _) in table.items() if "/" not in name)
    table[UNMEASURED] = max(math.expm1(worst), widest * 1.25), len(everything)
    return table


def _width(errors: Sequence[float], sources: Sequence[str]) -> float:
    """Return the quantile of a class; where sources are given, each weighs the same."""
    if not sources:
        return quantile(errors)
    return weighted_quantiles(errors, sources, [LEVEL])[0]


def coverage(judged: Sequence[Judged]) -> list[bool]:
    """Tell of every run whether its family-out error lies within a quantile without its family."""
    inside = [False] * len(judged)
    for places in groups_by([stack_class(j) for j in judged]).values():
        families = groups_by([judged[i].family for i in places])
        for members in families.values():
            mine = {places[m] for m in members}
            others = [judged[i].family_error for i in places if i not in mine]
            if len(others) < LEAST:
                vendor = judged[min(mine)].vendor
                others = [j.family_error for i, j in enumerate(judged)
                          if j.vendor == vendor and i not in mine]  # fmt: skip
            width = quantile(others)
            for i in mine:
                inside[i] = abs(judged[i].family_error) <= width
    return inside


def measured_devices(predictions: Iterable[Prediction]) -> dict[str, set[str]]:
    """Return the stacks with published runs by device; a 910B's bin is seldom told."""
    devices: dict[str, set[str]] = defaultdict(set)
    for p in predictions:
        if p.scenario and not p.reason:
            pool = p.scenario.pools[0]
            name = pool.node.device.name
            devices["ascend-910b" if name.startswith("ascend-910b") else name].add(pool.stack.name)
    return devices


def write_widths(judged: Sequence[Judged], devices: Mapping[str, set[str]], date: str) -> None:
    """Write data/intervals.yaml."""
    lines = [
        "# Half width of the 80 % interval of a predicted step time, as a factor minus one, by class of",
        "# alike runs (sim/uncertainty/intervals.py). Written by",
        "# `python -m ersatz.sim.validation.errors.widths`.",
        "sources:",
        "  HELD: \"quantiles of held-out errors on measured/training_runs.csv: a stack's classes with the",
        "    run's model left out of the fit, a vendor's with its whole source left out\"",
        '  WIDE: "assumption: a device without any published run errs like the worst tenth of unseen',
        "    sources, and at least a quarter more than any vendor's\"",
        "widths:",
    ]
    for name, (width, rows) in width_table(judged).items():
        origin = "WIDE" if name == UNMEASURED else "HELD"
        confidence = "assumed" if name == UNMEASURED else "high" if rows > 100 else "medium"
        lines.append(f"  {name}: {{value: {width:.3g}, source: {origin}, date: {date},"
                     f' confidence: {confidence}, note: "{rows} runs"}}')  # fmt: skip
    lines.append("measured:  # stacks with published runs, by device")
    lines += [f"  {d}: [{', '.join(sorted(devices[d]))}]" for d in sorted(devices)]
    write_whole(DATA / "intervals.yaml", "\n".join(lines) + "\n")


def main() -> None:
    """Judge the shipped table and write the widths."""
    predictions = predict_shipped()
    judged = judge(predictions)
    write_widths(judged, measured_devices(predictions), "2026-11")
    print(f"{len(judged)} runs, coverage {np.mean(coverage(judged)):.3f}")


if __name__ == "__main__":
    main()
