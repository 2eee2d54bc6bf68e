"""A small decoder-only transformer that really trains: what a prediction is held against.

It is the network that `sim.workload` describes, written in plain PyTorch: packed projections,
rotary embedding, causal attention, gated or plain MLP, RMS norms, untied vocabulary, AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.hil.parts import Heads, activate, attend, loss, norm, rotary_table, rotate
from sim.workload.model import Model


def training_step(
    model: Model, batch: int, sequence: int, *, device: Any, dtype: Any, seed: int = 0
) -> Callable[[], float]:
    """Build weights, data and optimiser; return a function that runs one training step."""
    import torch
    from torch.nn.functional import embedding, linear

    generator = torch.Generator().manual_seed(seed)

    def weight(*shape: int) -> Any:
        value = torch.randn(shape, generator=generator) * shape[-1] ** -0.5
        return value.to(device, dtype).requires_grad_()

    heads = Heads(batch, sequence, model.heads, model.kv_heads, model.head_dim)
    ways, h = (2 if model.gated else 1), model.hidden
    table = weight(model.vocab, h)
    layers = [
        (weight(1, h), weight(heads.packed, h), weight(h, heads.count * heads.dim),
         weight(1, h), weight(ways * model.ffn_hidden, h), weight(h, model.ffn_hidden))
        for _ in range(model.layers)
    ]  # fmt: skip
    last, head = weight(1, h), weight(model.vocab, h)
    weights = [table, *(w for layer in layers for w in layer), last, head]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)
    places = rotary_table(heads, device, dtype)
    tokens, targets = (
        torch.randint(model.vocab, (batch * sequence,), generator=generator).to(device)
        for _ in range(2)
    )

    def step() -> float:
        x = embedding(tokens, table)
        for norm1, qkv, out, norm2, up, down in layers:
            packed = linear(norm(x, norm1[0]), qkv)
            x = x + linear(attend(*rotate(packed, places, heads)), out)
            x = x + linear(activate(linear(norm(x, norm2[0]), up), model.gated), down)
        value = loss(linear(norm(x, last[0]), head), targets)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        return float(value.item())

    return step
