"""What it costs to interrupt a job of a fleet: saving its state, and starting again from it.

As a training job's checkpoint (`sim.job.checkpoint`): bytes over the bandwidth of the storage, or of all
nodes together into it. Not modelled: jobs that save at the same time share that storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ersatz.device_models.text.units import format_duration
from ersatz.sim.job.checkpoint import checkpoint_cost
from ersatz.sim.scenario.defaults import job_defaults
from ersatz.sim.scenario.scenario import CheckpointSpec
from ersatz.sim.scenario.sections.job import CheckpointSection, JobSection


@dataclass(frozen=True, slots=True)
class Interruption:
    """Seconds without progress, and where they come from."""

    save_s: float
    restart_s: float
    save_words: str
    restart_words: str


@lru_cache(maxsize=4096)
def interruption(devices: int, per_node: int, params: float | None) -> Interruption:
    """Return the cost of interrupting a job on so many devices; `params` are its weights, if known."""
    known, usual = job_defaults(), CheckpointSection()
    nodes = max(-(-devices // max(per_node, 1)), 1)
    spec = CheckpointSpec(
        storage_bandwidth=usual.storage_bandwidth, node_bandwidth=known["node_bandwidth"].value,
        bytes_per_param=usual.bytes_per_param,
    )  # fmt: skip
    if params is None:
        nbytes, start_s = known["state_per_device"].value * devices, known["fleet_restart"].value
        what, start = "16 GB a device, as its model is not known", known["fleet_restart"].words
    else:
        nbytes, start_s = params * spec.bytes_per_param, JobSection.model_fields["restart"].default
        what, start = f"{spec.bytes_per_param:g} bytes a weight", f"{format_duration(start_s)}"
    cost = checkpoint_cost(spec, nbytes / spec.bytes_per_param, nodes)
    path = f"{spec.storage_bandwidth / 1e9:g} GB/s, and {spec.node_bandwidth / 1e9:g} GB/s a node"
    return Interruption(
        cost.stop_s, start_s + cost.load_s,
        f"saving before a preemption takes its state ({what}) over the storage (at most {path})",
        f"each start but the first takes {start} and reading its state ({what})",
    )  # fmt: skip
