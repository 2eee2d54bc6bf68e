"""A scenario without a layout, planned: the fastest one that fits, said as an assumption."""

from __future__ import annotations

from dataclasses import replace

from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.search.best import search
from ersatz.sim.search.choices import choices_of, with_defaults
from ersatz.sim.search.space import make_space

MOST_TIMED = 200  # exact steps: whoever asks for one answer does not wait for a proof


def planned(scenario: Scenario) -> Scenario:
    """Return a scenario with the layout that was left open; one that leaves nothing open as it is.

    Raises `InfeasibleError` where no layout can be run.
    """
    if "parallel" not in scenario.open:
        return scenario
    stack = scenario.pools[0].stack
    base = replace(scenario, parallel=with_defaults(scenario.parallel, stack))
    held: dict[str, object] = {}
    if "micro_batch" not in scenario.open:
        held["micro_batch"] = scenario.training.micro_batch
    choices = choices_of(base)
    found = search(make_space(base, choices, held), kinds=1, most=MOST_TIMED)
    best = found.best
    unproved = (
        f" of {found.timed:,} that were timed, others could be {100 * found.left:.0f} % faster at most"
        if found.left > 0.0
        else ""
    )
    words = (
        f"parallel is not given: {layout_words(best)}; of {found.layouts:,} layouts that {stack.name}"
        f" runs the fastest that fits for sure{unproved} (ersatz plan shows others)"
    )
    return replace(best, open=(), assumptions=(words, *scenario.assumptions))


def layout_words(scenario: Scenario) -> str:
    """Write a layout in short, as keys of a scenario.

    What is 1 or none is left out.
    """
    p, t = scenario.parallel, scenario.training
    words = [f"{name} {value}" for name, value in (("tp", p.tp), ("cp", p.cp), ("pp", p.pp))
             if value > 1]  # fmt: skip
    if p.pp > 1:
        words.append(p.schedule if p.vp == 1 else f"{p.schedule} x {p.vp}")
    words += [f"ep {p.ep}"] if p.ep > 1 else []
    words += [f"etp {p.etp}"] if p.etp > 1 else []
    words += [f"dp {p.dp}"] if p.dp > 1 else []
    words += [f"zero {p.zero}"] if p.dp > 1 or p.zero else []
    words += [f"shard {p.shard}"] if p.shard else []
    words += [f"recompute {p.recompute}"] if p.recompute != "none" else []
    words += ["without sequence parallelism"] if p.tp > 1 and not p.sequence_parallel else []
    return ", ".join([*words, f"micro_batch {t.micro_batch}"])
