"""A set of Megatron's flags, wherever they come from, as a scenario."""

from __future__ import annotations

from collections.abc import Callable

from ersatz.sim.importing.flags import Flags
from ersatz.sim.importing.known import flag_table, sort_rest
from ersatz.sim.importing.megatron.chunks import read_chunks
from ersatz.sim.importing.megatron.keeping import read_keeping
from ersatz.sim.importing.megatron.layout import read_degrees, read_layout, settle_shard
from ersatz.sim.importing.megatron.sizes import read_sizes
from ersatz.sim.importing.megatron.training import (
    read_steps,
    read_training,
    replicas,
    settle_batch,
)

GRAPHS = ("enable_cuda_graph", "external_cuda_graph", "cuda_graph_impl")
ASCEND_OVERLAP = ("use_ascend_coc", "use_ascend_mc2")
OVERLAPS = (
    ("overlap_grad_reduce", "sums of gradients"),
    ("overlap_param_gather", "gathered weights"),
)


def translate(flags: Flags, stack: str, sizes: Callable[[Flags], None] = read_sizes) -> None:
    """Fill the draft from the flags; machines must stand in it already. Nothing is dropped.

    `sizes` reads the model: from the flags, or from a name.
    """
    draft = flags.draft
    read_degrees(flags)
    read_training(flags)
    sizes(flags)
    read_chunks(flags)
    read_layout(flags)
    read_keeping(flags)
    settle_batch(flags)
    read_steps(flags)
    dp = replicas(draft.devices, draft.values)
    settle_shard(flags, dp)
    _stack(flags, stack, dp)
    sort_rest(flags, flag_table("megatron"))


def _stack(flags: Flags, stack: str, dp: int | None) -> None:
    draft = flags.draft
    graphs = flags.find(*GRAPHS)
    if stack == "megatron-core" and graphs and graphs.value.lower() not in ("none", "0"):
        stack = "megatron-core-graphs"
    if stack == "mindspeed" and flags.find(*ASCEND_OVERLAP):
        stack = "mindspeed-mc2"
    if stack == "primus" and flags.find("use_turbo_deepep", "moe_enable_deepep"):
        stack = "primus-deepep"
        if flags.find("turbo_sync_free_moe_stage"):
            stack = "primus-sync-free"
    draft.put("stack", stack)
    for name, what in OVERLAPS:
        absent = flags.find(name) is None
        if absent and (dp is None or dp > 1) and (name == OVERLAPS[0][0] or
                                                  draft.values.get("parallel.zero")):  # fmt: skip
            draft.assume(f"stack ({name})", "on", f"{name} is not given, so {what} travel in the"
                         f" open; {stack} hides them: the step is up to 10 % longer than predicted (an"
                         " estimate)")  # fmt: skip
