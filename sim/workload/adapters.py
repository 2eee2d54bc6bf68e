"""LoRA: which products have adapters, how many weights these have, and what work they are.

An adapter of rank r beside a product (n, k) is two matrices, (r, k) and (n, r); its result is added to
the product's. Frozen products have no weight gradients, so that their inputs are kept only where an
adapter reads them. Modules: q, k, v and o of attention, gate, up and down of an MLP or of every expert;
recurrences have none (Hu et al. 2021; modules as PEFT names them).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import read_yaml
from ersatz.sim.workload.layer import Layer
from ersatz.sim.workload.linear import Linear, elementwise, linear
from ersatz.sim.workload.model import Model
from ersatz.sim.workload.pieces import PartWork, Piece, Shard

MODULES = ("q", "k", "v", "o", "gate", "up", "down")


class Adapted(NamedTuple):
    """A product with an adapter: n columns from k, in `copies`; experts are apart."""

    module: str
    n: int
    k: int
    copies: int = 1
    routed: bool = False
    into: bool = True  # its columns are split over a tensor group; else its rows


def targets_of(model: Model) -> tuple[str, ...]:
    """Return the modules with adapters: those that are named, else all."""
    named = model.lora_targets.replace(",", " ").split()
    return tuple(named) or MODULES


class Usual(NamedTuple):
    """The modules that a framework takes where none are named."""

    framework: str
    launch: str  # how importers call it
    stacks: tuple[str, ...]  # how the names of its stacks begin
    targets: str


@lru_cache(maxsize=1)
def _usual() -> tuple[Usual, ...]:
    rows: Any = read_yaml(DATA / "adapters.yaml").data["frameworks"]
    return tuple(
        Usual(row["name"], row["launch"], tuple(row["stacks"]), row["targets"]) for row in rows
    )


def usual_targets(*, stack: str = "", launch: str = "") -> Usual:
    """Return what the framework of a stack, or a launch file's, takes; PEFT's where neither is known."""
    rows = _usual()
    named = (row for row in rows if launch and row.launch == launch)
    runs = (row for row in rows if stack and any(stack.startswith(one) for one in row.stacks))
    return next(named, None) or next(runs, rows[-1])


def with_usual_targets(model: Model, stack: str) -> Model:
    """Return a LoRA model with the modules that a stack's framework takes where none are named, and said."""
    if not model.lora_rank or model.lora_targets:
        return model
    usual = usual_targets(stack=stack)
    said = (f"model.lora_targets is not given: {usual.targets}, the default of {usual.framework}; each takes"
            " time of its own")  # fmt: skip
    return replace(model, lora_targets=usual.targets, notes=(*model.notes, said))


def adapted(layer: Layer, modules: tuple[str, ...]) -> Iterator[Adapted]:
    """Yield the products of a layer that have adapters."""
    found = [*_of_attention(layer), *_of_mlp(layer)]
    yield from (product for product in found if product.module in modules and product.n)


def _of_attention(layer: Layer) -> Iterator[Adapted]:
    h, a = layer.hidden, layer.heads
    if not a or layer.compressed:
        return
    if m := layer.latent:
        if m.q_rank:
            yield Adapted("q", m.q_rank, h)
        yield Adapted("q", a * layer.qk_dim, m.q_rank or h)
        yield Adapted("k", m.kv_rank + m.rope_dim, h)
        yield Adapted("v", a * (m.nope_dim + m.v_dim), m.kv_rank)
    else:
        yield Adapted("q", a * layer.head_dim, h)
        if not layer.shares_keys:
            yield Adapted("k", layer.kv_heads * layer.head_dim, h)
            yield Adapted("v", 0 if layer.keys_are_values else layer.kv_heads * layer.v_dim, h)
    yield Adapted("o", h, a * layer.v_dim, into=False)


def _of_mlp(layer: Layer) -> Iterator[Adapted]:
    h, e = layer.hidden, layer.experts
    sizes = [(layer.ffn_hidden, 1, h, False)]
    if e:
        sizes = [(e.shared_inner, 1, h, False), (e.hidden, e.routed, e.latent or h, True)]
    for inner, count, width, routed in sizes if layer.has_mlp else ():
        if layer.gated:
            yield Adapted("gate", inner, width, count, routed)
        yield Adapted("up", inner, width, count, routed)
        yield Adapted("down", width if inner else 0, inner, count, routed, into=False)


def adapter_params(model: Model) -> int:
    """Return the weights of all adapters of a model, 0 where all of it is trained."""
    modules = targets_of(model)
    return model.lora_rank * sum(
        count * product.copies * (product.n + product.k)
        for kind, count in model.runs for product in adapted(kind, modules)
    )  # fmt: skip


def trained_share(model: Model) -> float:
    """Return the weights that are trained / those of the model: 1, or those of LoRA's adapters."""
    return adapter_params(model) / model.params() if model.lora_rank else 1.0


def adapter_work(shard: Shard) -> PartWork:
    """Return the work of a layer's adapters, where the model names their modules.

    A scenario always names them (`with_usual_targets`). Of measured runs nobody says which they were;
    stacks were fitted with these left out.
    """
    model = shard.model
    if not (model.lora_rank and model.lora_targets):
        return PartWork((), (), ())
    forward: list[Piece] = []
    backward: list[Piece] = []
    weights: list[Piece] = []
    for product in adapted(shard.layer, targets_of(model)):
        down, up = _pair(shard, product)
        add = elementwise(shard, "adapter sum", 3, up.tokens * up.groups, up.n)
        forward += [down.forward(), up.forward(), add]
        back = elementwise(shard, "adapter sum", 3, down.tokens * down.groups, down.k)
        backward += [up.input_grad(), down.input_grad(), back]
        weights += [up.weight_grad(), down.weight_grad()]
    return PartWork(tuple(forward), tuple(backward), tuple(weights))


def _pair(shard: Shard, product: Adapted) -> tuple[Linear, Linear]:
    """Return an adapter's two products on one rank, never in 8 bits."""
    rows, groups, ways = shard.tokens, 1, shard.tp
    if product.routed:
        assert shard.layer.experts is not None
        groups, ways = max(product.copies // shard.ep, 1), shard.etp
        rows = rows * shard.layer.experts.visited * shard.etp / shard.tp / groups
    n, k = (product.n / ways, product.k) if product.into else (product.n, product.k / ways)
    rank, wide = shard.model.lora_rank, shard.wide
    return (linear(shard, "adapter down", rows, rank, k, dtype=wide, groups=groups),
            linear(shard, "adapter up", rows, n, rank, dtype=wide, groups=groups))  # fmt: skip
