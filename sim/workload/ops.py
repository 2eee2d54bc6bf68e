"""The work of a part of the model for one micro-batch on one rank: kernels and collectives in order.

`kind_work`, `embedding_work`, `head_work` and `predict_work` give the forward pass, the input
gradient and the weight gradient of a part of the model. FLOPs and bytes follow from shapes alone;
element-wise bytes are those of fully fused kernels times the stack's `elementwise_traffic`.

Not modelled: dropout, biases, and the small tensors of the router's balance loss.
"""

from __future__ import annotations

from dataclasses import replace

from ersatz.device_models.kernels.kernel import kernel_constants, memory_kernel
from ersatz.sim.workload.adapters import adapter_work
from ersatz.sim.workload.attention import mixer_block
from ersatz.sim.workload.experts import expert_block
from ersatz.sim.workload.linear import (
    Edge,
    last_norm_back,
    linear,
    norm,
    norm_back,
    weight_grads,
)
from ersatz.sim.workload.mlp import mlp_block
from ersatz.sim.workload.pieces import Comm, PartWork, Piece, Shard


def layer_work(shard: Shard, *, moe: bool) -> PartWork:
    """Return the work of a layer of the model's own sizes, with experts or a dense MLP."""
    return kind_work(replace(shard, kind=shard.model.layer(moe=moe)))


def kind_work(shard: Shard) -> PartWork:
    """Return the work of the shard's layer: a mixer block and an MLP block, or one of them."""
    layer, none = shard.layer, PartWork((), (), ())
    mixer = mixer_block(shard) if layer.has_mixer else none
    mlp = (expert_block(shard) if layer.experts else mlp_block(shard)) if layer.has_mlp else none
    adapters = adapter_work(shard)
    return PartWork(
        mixer.forward + mlp.forward + adapters.forward,
        adapters.input_grad + mlp.input_grad + mixer.input_grad,
        mlp.weight_grad + mixer.weight_grad + adapters.weight_grad,
    )


def embedding_work(shard: Shard) -> PartWork:
    """Look tokens up in this rank's slice of the table, and add their gradients into it."""
    model, t = shard.model, shard.tokens
    moved = shard.element_bytes * t * model.hidden
    sizes = {"dtype": shard.wide, "m": t, "n": float(model.hidden), "k": model.vocab / shard.tp}
    look_up = memory_kernel("embedding", 2 * moved, **sizes)  # type: ignore[arg-type]
    add = memory_kernel("embedding back", 4 * moved, **sizes)  # type: ignore[arg-type]
    edge = Edge(shard, model.hidden, narrow=False)
    sums = tuple(replace(comm, chunks=1) for comm in edge.sum(look_up))
    if not shard.trains:
        return PartWork((look_up, *sums), (), ())
    gathers = tuple(replace(comm, chunks=1) for comm in edge.gather(add))
    return PartWork((look_up, *sums), gathers, (add,))


def head_work(shard: Shard) -> PartWork:
    """Final norm, vocabulary projection and loss, never in 8 bits."""
    model, t = shard.model, shard.tokens
    head = linear(shard, "head", t, model.vocab / shard.tp, model.hidden, dtype=shard.wide,
                  category="vocabulary")  # fmt: skip
    traffic = shard.stack.loss_bytes_per_logit * t * model.vocab / shard.tp
    edge = Edge(shard, model.hidden, narrow=False)
    forward: list[Piece] = [norm(shard), *edge.gather(head.forward()), head.forward()]
    forward_share = kernel_constants().loss_forward_share
    loss, loss_back = (
        memory_kernel(name, share * traffic, "vocabulary", dtype=shard.wide, m=t, n=head.n)
        for name, share in (("loss", forward_share), ("loss back", 1.0 - forward_share))
    )
    forward.append(loss)
    if shard.tp > 1:  # in fp32, one after the other: maximum, logit of the target, sum
        forward += [Comm("loss reduce", "tensor parallel", "all_reduce", 4.0 * t, "tp")] * 3
    backward: list[Piece] = [loss_back, *edge.gather_again(head.input_grad())]
    backward += [head.input_grad(), *edge.sum_gradients(head), last_norm_back(shard)]
    return PartWork(tuple(forward), tuple(backward), weight_grads(shard, head))


def predict_work(shard: Shard) -> PartWork:
    """One multi-token prediction module: two norms, a projection, a layer and the shared head.

    The projection takes whole rows of the hidden state and of the next token's embedding, and its
    result, sliced by columns, is gathered.
    """
    h = shard.model.hidden
    project = linear(shard, "predict", shard.tokens, h / shard.tp, 2 * h)
    into = Edge(shard, 2 * h)
    layer = kind_work(replace(shard, kind=shard.model.predict_layer))
    head = head_work(shard)
    columns = _columns(shard, h)
    again = columns if shard.sequence_parallel else ()  # of the gradient's rows
    before: list[Piece] = [
        norm(shard),
        norm(shard),
        *into.gather(project.forward()),
        project.forward(),
    ]
    after: list[Piece] = [*again, *into.gather_again(project.input_grad()), project.input_grad()]
    after += [*into.sum_gradients(project), norm_back(shard), norm_back(shard)]
    return PartWork(
        (*before, *columns, *layer.forward, *head.forward),
        (*head.input_grad, *layer.input_grad, *after),
        (*head.weight_grad, *layer.weight_grad, *weight_grads(shard, project)),
    )


def _columns(shard: Shard, width: float) -> tuple[Comm, ...]:
    """Gather the columns of a result that a tensor group holds in slices."""
    if shard.tp == 1:
        return ()
    nbytes = shard.element_bytes * shard.tokens * width
    return (Comm("predict gather", "tensor parallel", "all_gather", nbytes, "tp"),)
