"""The dense MLP block of a layer, also what experts that every token visits are."""

from __future__ import annotations

from ersatz.sim.workload.linear import (
    Edge,
    activations,
    casts,
    linear,
    norm,
    norm_back,
    residual,
    weight_grads,
)
from ersatz.sim.workload.pieces import PartWork, Piece, Shard


def mlp_block(shard: Shard) -> PartWork:
    """Return the dense MLP block of a layer."""
    return gated_mlp(shard, shard.tokens, shard.layer.ffn_hidden / shard.tp, "")


def gated_mlp(shard: Shard, t: float, inner: float, prefix: str) -> PartWork:
    """A whole dense MLP block with its norm, collectives and residual."""
    model = shard.model
    ways = 2 if shard.layer.gated else 1
    up = linear(shard, f"{prefix}up", t, ways * inner, model.hidden)
    down = linear(shard, f"{prefix}down", t, model.hidden, inner)
    activation, activation_back = activations(shard, t, inner)
    edge = Edge(shard, model.hidden)
    forward: list[Piece] = [
        norm(shard),
        *casts(shard, "cast", shard.cast_rows * up.k + t * down.k),
        *edge.gather(up.forward()),
        up.forward(),
        activation,
        down.forward(),
        *edge.sum(down.forward()),
        residual(shard),
    ]
    backward: list[Piece] = [
        *casts(shard, "cast", t * up.n + shard.cast_rows * down.n),
        *edge.gather(down.input_grad()),
        down.input_grad(),
        activation_back,
        *edge.gather_again(up.input_grad()),
        up.input_grad(),
        *edge.sum_gradients(up),
        norm_back(shard),
    ]
    return PartWork(tuple(forward), tuple(backward), weight_grads(shard, down, up))
