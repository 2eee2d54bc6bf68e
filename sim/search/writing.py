"""A planned layout as a scenario file of its own, ready to be run, changed and compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ersatz.sim.scenario.scenario import Parallel, Scenario, layout_words


def scenario_text(
    data: Mapping[str, Any],
    scenario: Scenario,
    step_s: float,
    beside: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Return the text of a scenario file with a layout; `data` is the case without it.

    `beside` has keys that the layout needs in other sections: `memory`, `fabric`.
    """
    for section, keys in (beside or {}).items():
        data = {**data, section: {**(data.get(section) or {}), **keys}} if keys else data
    training = {**dict(data["training"]), "micro_batch": scenario.training.micro_batch}
    order = [*(key for key in data if key not in ("job", "cost", "energy", "cases")), "parallel"]
    order += [key for key in ("job", "cost", "energy") if key in data]
    found = {**data, "training": training, "parallel": parallel_keys(scenario.parallel)}
    head = f"# Planned: {layout_words(scenario)}; a step of {step_s:.4g} s.\n"
    shown: dict[str, Any] = {key: found[key] for key in order}
    return head + yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=98)


def parallel_keys(p: Parallel) -> dict[str, Any]:
    """Return a layout as the keys of a scenario's `parallel`; what is 1 is left out."""
    if p.pools:
        return _pool_keys(p)
    degrees = {"tp": p.tp, "pp": p.pp, "vp": p.vp, "cp": p.cp, "ep": p.ep, "etp": p.etp}
    found: dict[str, Any] = {name: value for name, value in degrees.items() if value > 1}
    found |= {"dp": p.dp, "zero": p.zero, "recompute": p.recompute}
    if p.shard:
        found["shard"] = p.shard
    if p.pp > 1:
        found["schedule"] = p.schedule
    if p.chunk_layers:
        found["chunk_layers"] = list(p.chunk_layers)
    if p.tp > 1:
        found["sequence_parallel"] = p.sequence_parallel
    if p.cp > 1:
        found["cp_comm"] = p.cp_comm
    if p.ep > 1 and p.tp * p.cp > 1:
        found["expert_layout"] = p.expert_layout
    return found


def _pool_keys(p: Parallel) -> dict[str, Any]:
    """Return layouts that pools have of their own as keys: what they share, then each pool's."""
    stages = p.mixed == "stages"
    shared: dict[str, Any] = {"mixed": p.mixed}
    if stages:
        shared |= {"pp": p.pp, "schedule": p.schedule, "stage_pools": list(p.stage_pools)}
        shared |= {"chunk_layers": list(p.chunk_layers)} if p.chunk_layers else {}
    own = {}
    for one in p.pools:
        keys = parallel_keys(one.parallel)
        gone = {"dp", "shard", "cp_comm", "expert_layout"} | (
            {"pp", "schedule", "chunk_layers"} if stages else set()
        )
        own[one.pool] = {key: value for key, value in keys.items() if key not in gone}
        own[one.pool]["micro_batch"] = one.micro_batch
    return {**shared, "pools": own}
