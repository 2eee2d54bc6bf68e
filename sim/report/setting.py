"""What a scenario simulates, as part of its record: in words, and pool by pool."""

from __future__ import annotations

from typing import Any

from ersatz.device_models.text.units import format_count
from ersatz.sim.scenario.scenario import Scenario


def setting(scenario: Scenario) -> dict[str, Any]:
    """Return what a scenario simulates, in words and with its pools, for a record."""
    p, t, model = scenario.parallel, scenario.training, scenario.model
    return {
        "model": f"{model.name}: {format_count(model.params())} parameters,"
                 f" {format_count(model.params(active=True))} active; {t.precision}",
        "layout": f"tp {p.tp}, pp {p.pp} x {p.vp} chunks, cp {p.cp}, ep {p.ep}, dp {p.dp}, ZeRO {p.zero},"
                  f" {p.schedule}, recompute {p.recompute}",
        "batch": f"{t.global_batch:,} sequences of {t.sequence_length:,}, micro-batch {t.micro_batch}"
                 + (f"; {t.tokens / 1e12:g} T tokens in all" if t.tokens else "")
                 + (f", in {len(scenario.phases)} phases of which this is one" if scenario.phases else ""),
        "pools": [{"name": pool.name, "device": pool.node.device.name, "devices": pool.devices,
                   "node": pool.node.title, "stack": pool.stack.title} for pool in scenario.pools],
    }  # fmt: skip
