"""What recomputation repeats of a layer, whole or by modules.

Modules are one list, which the time and the memory of a layer read:

| module | repeated | not kept |
|---|---|---|
| core_attn | the attention core and its exchanges | the score matrix, where it is not fused |
| mla_up_proj | latent up-projections and rotation | queries, keys and values |
| layernorm | norms | their results |
| activation | activations | their results |
| permute | bringing tokens into the order of the experts | the ordered tokens |
| experts | all of the routed part (Megatron's `moe`) | all that it keeps |
| mlp | the dense MLP | all that it keeps |
| every_second_product | out-projection and gate: every second product of PyTorch's list | their results |

Whole layers are run again to their end by reentrant checkpoints (Megatron's). Those of
PyTorch without reentry, and graph compilers, stop at the last tensor that a gradient needs: the input
of the last product, which is then not computed, nor is what follows it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from ersatz.device_models.kernels.kernel import Kernel
from ersatz.sim.workload.pieces import HostWork, Join, Piece

_NAMES = {
    "core_attn": {"attention", "scores", "softmax", "ring merge", "context gather", "context ring",
                  "context exchange"},
    "mla_up_proj": {"latent gather", "q up", "q", "kv up", "rope"},
    "layernorm": {"norm"},
    "activation": {"activation"},
    "permute": {"permute"},
    "experts": {"router", "expert latent", "permute", "dispatch", "expert gather", "experts up",
                "activation", "experts down", "expert sum", "combine", "unpermute",
                "expert latent out", "expert rows"},
    "mlp": {"up", "down", "activation"},
    "every_second_product": {"out", "up", "shared up"},
}  # fmt: skip


def repeated(forward: tuple[Piece, ...], modules: Collection[str], *, moe: bool) -> Iterator[Piece]:
    """Yield the pieces of a layer's forward pass that are run again for `modules`."""
    other = {"mlp"} if moe else {"experts", "permute"}
    names = set().union(*(_NAMES[module] for module in modules if module not in other))
    halves = "every_second_product" in modules and "mlp" not in modules
    for piece in forward:
        if isinstance(piece, Join):
            if "experts" in modules and moe:
                yield piece
        elif isinstance(piece, HostWork):
            if "experts" in modules:
                yield piece
        elif piece.name in names:
            gate = halves and piece.name in ("up", "shared up")
            yield _half(piece) if gate and isinstance(piece, Kernel) else piece


def all_again(forward: tuple[Piece, ...], *, stops_early: bool) -> tuple[Piece, ...]:
    """Return the pieces of a layer's forward pass that full recomputation runs again."""
    if not stops_early:
        return forward
    products = [i for i, p in enumerate(forward) if isinstance(p, Kernel) and p.kind == "matmul"]
    return forward[: products[-1]] if products else forward


def _half(product: Kernel) -> Kernel:
    """Half of the columns of a product: the gate's."""
    return replace(product, n=product.n / 2, flop=product.flop / 2, nbytes=product.nbytes / 2,
                   padding=product.padding / 2)  # fmt: skip
