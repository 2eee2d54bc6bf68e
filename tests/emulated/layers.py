"""Layers of Transformer Engine: two products, the first behind a norm, and attention; maybe in eight bits."""

import argparse

import torch
import transformer_engine.pytorch as te
from transformer_engine.common.recipe import DelayedScaling

parser = argparse.ArgumentParser()
parser.add_argument("--fp8", action="store_true")
args = parser.parse_args()
first, second = te.LayerNormLinear(256, 1024), te.Linear(1024, 256)
attention = te.DotProductAttention(4, 64)
weights = [*first.parameters(), *second.parameters()]
optimizer = torch.optim.AdamW(weights, fused=True)
for _ in range(3):
    x = torch.randn(512, 1, 256, device="cuda")
    with te.fp8_autocast(enabled=args.fp8, fp8_recipe=DelayedScaling(margin=0)):
        heads = second(first(x)).view(512, 1, 4, 64)
    attention(heads, heads, heads).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
