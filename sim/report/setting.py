"""What a scenario simulates, as part of its record: in words, and pool by pool."""

from __future__ import annotations

from typing import Any

from ersatz.device_models.text.units import format_count
from ersatz.sim.plan.layout import shown_split
from ersatz.sim.scenario.scenario import Scenario


def setting(scenario: Scenario) -> dict[str, Any]:
    """Return what a scenario simulates, in words and with its pools, for a record."""
    p, t, model = scenario.parallel, scenario.training, scenario.model
    layout = (
        f"tp {p.tp}, pp {p.pp} x {p.vp} chunks, cp {p.cp}, ep {p.ep}, dp {p.dp}, ZeRO {p.zero},"
        f" {p.schedule}, recompute {p.recompute}"
    )
    return {
        "model": f"{model.name}: {format_count(model.params())} parameters,"
                 f" {format_count(model.params(active=True))} active; {t.precision}",
        "layout": "; ".join(own_layouts(scenario)) if p.pools else layout,
        "batch": f"{t.global_batch:,} sequences of {t.sequence_length:,}, micro-batch {t.micro_batch}"
                 + (f"; {t.tokens / 1e12:g} T tokens in all" if t.tokens else "")
                 + (f", in {len(scenario.phases)} phases of which this is one" if scenario.phases else ""),
        "pools": [{"name": pool.name, "device": pool.node.device.name, "devices": pool.devices,
                   "node": pool.node.title, "stack": pool.stack.title} for pool in scenario.pools],
    }  # fmt: skip


def own_layouts(scenario: Scenario) -> list[str]:
    """Write the layouts that pools have of their own: what they share, then one after the other."""
    p = scenario.parallel
    stages = p.mixed == "stages"
    found = []
    for one in p.pools:
        own = one.parallel
        words = [f"{name} {value}" for name, value in (("tp", own.tp), ("cp", own.cp), ("ep", own.ep),
                 ("etp", own.etp)) if value > 1]  # fmt: skip
        many = p.stage_pools.count(one.pool) if stages else own.pp
        words += [f"{many} stage{'s' * (many > 1)}"] if stages or many > 1 else []
        words += [f"{own.schedule} x {own.vp}"] if not stages and many > 1 else []
        words += [f"dp {own.dp}, ZeRO {own.zero}"]
        words += [f"recompute {own.recompute}"] if own.recompute != "none" else []
        found.append(f"{one.pool or 'all'}: {', '.join(words)}, micro-batch {one.micro_batch}")
    shared = f"{p.pp} stages, {p.schedule}" if stages else "replicas, batch by speed"
    split = f", layers {shown_split(p.chunk_layers)}" if stages and p.chunk_layers else ""
    return [shared + split, *found]
