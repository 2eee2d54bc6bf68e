"""The core of a recurrence: convolution, chunked state, gate; and what context parallelism passes.

Matrix work of the chunked form is a batch of small products (a chunk's rows by a head's values);
nobody has measured these kernels here, so they run at the rate of any batch of products of that
size. Recurrences without matrix work are priced by their traffic. Over context parallelism every
rank gathers the others' states (one per sequence and head) instead of keys and values; where heads
are exchanged for tokens, what enters and leaves the core travels. Backward the forward states are
computed again. Not modelled: the few tokens of the convolution at a rank's edge.
"""

from __future__ import annotations

from ersatz.device_models.kernels.kernel import Kernel, memory_kernel
from ersatz.sim.workload.linear import elementwise
from ersatz.sim.workload.pieces import Comm, Piece, Shard
from ersatz.sim.workload.recurrence import MATRIX_KINDS, Recurrence

STATE_BYTES = 4.0  # states are kept in fp32
AGAIN = 3.0  # backward: the forward pass again, and two products for each of its


def recurrent_core(shard: Shard, *, backward: bool) -> tuple[Piece, ...]:
    """Return the pieces between the products of a layer's recurrence, in the order of execution."""
    r = shard.layer.recurrence
    assert r is not None
    t, suffix = shard.tokens, " back" if backward else ""
    gate = elementwise(shard, f"state gate{suffix}", 5 if backward else 3, t, r.values / shard.tp)
    core = (_core(shard, r, backward=backward), *_states(shard, r))
    conv = (elementwise(shard, f"convolution{suffix}", 4 if backward else 2, t,
                        r.convolved / shard.tp),) if r.convolved else ()  # fmt: skip
    before = _exchange(shard, r.values if backward else _width(r))
    after = _exchange(shard, _width(r) if backward else r.values)
    if backward:
        return (gate, *before, *core, *after, *conv)
    return (*conv, *before, *core, *after, gate)


def _width(r: Recurrence) -> float:
    """Columns that enter the core."""
    return 2.0 * r.keys + r.values + r.heads


def _core(shard: Shard, r: Recurrence, *, backward: bool) -> Kernel:
    t, heads = shard.tokens, r.heads / shard.tp
    name, times = ("state back", AGAIN) if backward else ("state", 1.0)
    nbytes = shard.element_bytes * t * r.touched / shard.tp * times
    if r.kind not in MATRIX_KINDS:
        return memory_kernel(name, nbytes, "attention", dtype=shard.wide)
    chunks = max(t / r.chunk, 1.0)
    nbytes += 2.0 * STATE_BYTES * chunks * r.state / shard.tp * times
    flop = t * r.core_flop / shard.tp
    groups = max(round(chunks * heads), 1)
    inner = times * flop / (2.0 * groups * r.chunk * r.value_dim)
    return Kernel(name, "attention", "matmul", shard.wide, times * flop, nbytes, m=r.chunk,
                  n=r.value_dim, k=inner, groups=groups, backward=backward,
                  repeated=flop if backward else 0.0)  # fmt: skip


def _states(shard: Shard, r: Recurrence) -> tuple[Comm, ...]:
    """The states of a ring's ranks, gathered by all of them."""
    if shard.ring == 1:
        return ()
    sequences = shard.tokens * shard.cp / shard.sequence
    nbytes = STATE_BYTES * sequences * r.state / shard.tp * shard.ring
    return (Comm("context state", "context parallel", "all_gather", nbytes, "cp"),)


def _exchange(shard: Shard, width: float) -> tuple[Comm, ...]:
    if shard.heads_spread == 1:
        return ()
    nbytes = shard.element_bytes * shard.tokens * width / shard.tp
    group = "cp" if shard.cp_comm == "a2a" else "ulysses"
    return (Comm("context exchange", "context parallel", "all_to_all", nbytes, group),)
