"""A small decoder-only transformer that really trains: what a prediction is held against.

It is the network that `ersatz.sim.workload` describes, written in plain PyTorch: packed projections,
rotary embedding, causal attention, gated or plain MLP, routed and shared experts, RMS norms, untied
vocabulary, AdamW. Tokens are dealt evenly over the experts, as published benchmarks do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ersatz.sim.hil.device.filling import normal_numbers
from ersatz.sim.hil.device.parts import (
    PLAIN,
    Heads,
    Pieces,
    Routing,
    Tensor,
    even_routing,
    loss,
    permute,
    rotary_table,
    unpermute,
)
from ersatz.sim.workload.model import Model


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer: norms, projections, and an MLP or experts beside a shared one."""

    norms: tuple[Tensor, Tensor]
    qkv: Tensor
    out: Tensor
    up: Tensor = None  # of the dense MLP or of the shared experts
    down: Tensor = None
    router: Tensor = None
    experts_up: Tensor = None  # (experts, hidden, inner)
    experts_down: Tensor = None

    def weights(self) -> list[Tensor]:
        """Return all weights of the layer."""
        named = (self.qkv, self.out, self.up, self.down, self.router, self.experts_up,
                 self.experts_down)  # fmt: skip
        return [*self.norms, *(w for w in named if w is not None)]


@dataclass(frozen=True, slots=True)
class Network:
    """All weights, and what does not change from step to step."""

    model: Model
    heads: Heads
    table: Tensor
    layers: tuple[Layer, ...]
    last: Tensor
    head: Tensor
    places: tuple[Tensor, Tensor]
    routing: Routing | None
    pieces: Pieces = PLAIN

    def weights(self) -> list[Tensor]:
        """Return everything that is trained."""
        return [self.table, *(w for x in self.layers for w in x.weights()), self.last, self.head]

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Run the forward pass."""
        from torch.nn.functional import embedding, linear

        x, run = embedding(tokens, self.table), self.pieces
        for layer in self.layers:
            packed = linear(run.norm(x, layer.norms[0]), layer.qkv)
            x = x + linear(run.attend(*run.rotate(packed, self.places, self.heads)), layer.out)
            x = x + self.mlp(run.norm(x, layer.norms[1]), layer)
        return loss(linear(run.norm(x, self.last), self.head), targets)

    def mlp(self, x: Tensor, layer: Layer) -> Tensor:
        """Run the dense MLP, or the experts and the shared one."""
        from torch.nn.functional import linear

        dense = None
        if layer.up is not None:
            inner = self.pieces.activate(linear(x, layer.up), self.model.gated)
            dense = linear(inner, layer.down)
        if layer.router is None or self.routing is None:
            return dense
        routed = self.experts(x, layer, self.routing)
        return routed if dense is None else routed + dense

    def experts(self, x: Tensor, layer: Layer, routing: Routing) -> Tensor:
        """Run the routed experts on evenly dealt tokens, gated by the router."""
        from torch.nn.functional import linear

        gates = linear(x, layer.router).softmax(dim=-1).gather(1, routing.expert)
        dealt = permute(x, routing)
        each = dealt.view(layer.experts_up.shape[0], -1, x.shape[-1])
        inner = self.pieces.activate(self.pieces.grouped(each, layer.experts_up), self.model.gated)
        done = self.pieces.grouped(inner, layer.experts_down)
        return unpermute(done.view(dealt.shape), gates, routing)


def build_network(
    model: Model, batch: int, sequence: int, *, device: Any, dtype: Any, seed: int = 0,
    pieces: Pieces = PLAIN,
) -> Network:  # fmt: skip
    """Return a network with random weights; tokens must deal evenly over the experts."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def weight(*shape: int) -> Tensor:
        return normal_numbers(shape, generator, device, dtype).requires_grad_()

    heads = Heads(batch, sequence, model.heads, model.kv_heads, model.head_dim)
    experts = model.experts
    routing = None
    if experts:
        routing = even_routing(batch * sequence, experts.routed, experts.top_k, device)
    return Network(
        model, heads, weight(model.vocab, model.hidden),
        tuple(_layer(model, heads, number, weight) for number in range(model.layers)),
        weight(model.hidden), weight(model.vocab, model.hidden),
        rotary_table(heads, device, dtype), routing, pieces,
    )  # fmt: skip


def _layer(model: Model, heads: Heads, number: int, weight: Callable[..., Tensor]) -> Layer:
    ways, h, experts = (2 if model.gated else 1), model.hidden, model.experts
    routed = experts if experts and number >= experts.dense_layers else None
    inner = routed.shared * routed.hidden if routed else model.ffn_hidden
    layer = Layer(
        (weight(h), weight(h)), weight(heads.packed, h), weight(h, heads.count * heads.dim)
    )
    if inner:
        layer = replace(layer, up=weight(ways * inner, h), down=weight(h, inner))
    if routed is None:
        return layer
    return replace(
        layer, router=weight(routed.routed, h),
        experts_up=weight(routed.routed, h, ways * routed.hidden),
        experts_down=weight(routed.routed, routed.hidden, h),
    )  # fmt: skip


@dataclass(slots=True)
class Trained:
    """A network with its data and its optimiser; a step has three parts."""

    network: Network
    optimizer: Any
    tokens: Tensor
    targets: Tensor
    value: Tensor = None  # of the loss

    def forward(self) -> None:
        """Run the forward pass."""
        self.value = self.network.loss(self.tokens, self.targets)

    def backward(self) -> None:
        """Run the backward pass, without the gradients of the step before."""
        self.optimizer.zero_grad(set_to_none=True)
        self.value.backward()

    def update(self) -> float:
        """Run the optimiser; returns the loss."""
        self.optimizer.step()
        return float(self.value.item())

    def step(self) -> float:
        """Run one training step; returns the loss."""
        self.forward()
        self.backward()
        return self.update()


def training(
    model: Model, batch: int, sequence: int, *, device: Any, dtype: Any, seed: int = 0,
    pieces: Pieces = PLAIN,
) -> Trained:  # fmt: skip
    """Build weights, data and optimiser, ready to train."""
    import torch

    network = build_network(
        model, batch, sequence, device=device, dtype=dtype, seed=seed, pieces=pieces
    )
    optimizer = torch.optim.AdamW(network.weights(), lr=1e-4, fused=True)
    generator = torch.Generator().manual_seed(seed + 1)
    tokens, targets = (
        torch.randint(model.vocab, (batch * sequence,), generator=generator).to(device)
        for _ in range(2)
    )
    return Trained(network, optimizer, tokens, targets)


def training_step(
    model: Model, batch: int, sequence: int, *, device: Any, dtype: Any, seed: int = 0,
    pieces: Pieces = PLAIN,
) -> Callable[[], float]:  # fmt: skip
    """Build weights, data and optimiser; return a function that runs one training step."""
    return training(
        model, batch, sequence, device=device, dtype=dtype, seed=seed, pieces=pieces
    ).step
