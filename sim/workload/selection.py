"""The indexer of sparse attention: scores over all earlier tokens, of which it picks some.

Index heads are not divided over a tensor group, since a score sums over all of them: each rank
scores its own rows. Scores go through memory once, to be written and to be picked from. Its
gradient is that of the tokens picked (DeepSeek-V3.2 trains it apart, on these alone).
Not modelled: the exchange of index keys over context parallelism (one head of a key's size).
"""

from __future__ import annotations

from ersatz.device_models.kernels.kernel import matmul, memory_kernel
from ersatz.sim.workload.pieces import Piece, Shard

SCORE_BYTES = 4.0  # scores are kept in fp32


def index_core(shard: Shard, *, backward: bool) -> tuple[Piece, ...]:
    """Return the kernels that score and pick, none where a layer has no indexer of its own."""
    layer, indexer = shard.layer, shard.layer.indexer
    reach = layer.index_reach(shard.span)
    if not indexer or not reach:
        return ()
    rows, width = shard.tokens / shard.spread, float(indexer.heads * indexer.dim)
    if backward:
        picked = layer.reach(shard.span).chosen
        return (matmul("index back", rows, picked, 2 * width, shard.wide, category="attention"),)
    scores = matmul("index scores", rows, reach, width, shard.precision, category="attention",
                    output_bytes=SCORE_BYTES)  # fmt: skip
    traffic = SCORE_BYTES * rows * reach
    return scores, memory_kernel("index choice", traffic, "attention", dtype=shard.wide)
