"""ms-swift: Megatron's flags under `megatron pt` and `megatron sft`, with defaults of its own."""

from __future__ import annotations

from collections.abc import Mapping

from ersatz.sim.importing.cluster import read_machines
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Flags, Given
from ersatz.sim.importing.megatron.sizes import named_sizes, read_sizes
from ersatz.sim.importing.megatron.translate import translate
from ersatz.sim.importing.shell.launches import Launch

_OWN = "is not given: the default of ms-swift"
DEFAULTS = {
    "micro_batch_size": ("1", f"micro_batch_size {_OWN}"),
    "global_batch_size": ("16", f"global_batch_size {_OWN}"),
    "recompute_granularity": ("selective", f"recompute_granularity {_OWN}"),
    "use_distributed_optimizer": ("true", f"use_distributed_optimizer {_OWN}"),
    "expert_tensor_parallel_size": ("1", f"expert_tensor_parallel_size {_OWN}"),
    "bf16": ("true", f"bf16 {_OWN}"),
}


def _of_environment(launch: Launch) -> dict[str, Given]:
    """Return the machines that ms-swift takes from its environment."""
    return {
        name.lower(): Given(name.lower(), name, (launch.environment[name],), launch.line)
        for name in ("NPROC_PER_NODE", "NNODES")
        if name in launch.environment
    }


def read_swift(draft: Draft, launch: Launch, head: Mapping[str, Given]) -> Draft:
    """Return the draft of `megatron pt` or `megatron sft`; `swift sft` alone is a trainer, and refused."""
    draft.format, draft.version = "swift-sh", "ms-swift, August 2026"
    if launch.tools[-1:] != ("megatron",):
        draft.refuse(
            launch.line, "swift", "only its Megatron commands are read (megatron pt, megatron sft)"
        )
    if launch.program == "rlhf":
        draft.refuse(launch.line, "rlhf", "reinforcement learning is not simulated; what can be asked instead"
                     " is the training step of the policy, as megatron sft")  # fmt: skip
    given = dict(launch.flags)
    length = given.get("max_length")
    if length and "seq_length" not in given:
        given["seq_length"] = given.pop("max_length")
    read_machines(draft, {**_of_environment(launch), **launch.launcher}, head)
    model = given.get("model") or given.get("load")
    sizes = read_sizes if "num_layers" in given else named_sizes(model)
    flags = Flags(given, draft, DEFAULTS)
    flags.used.update(name for name in ("model", "load") if given.get(name) is model)
    translate(flags, "megatron-core", sizes)
    return draft
