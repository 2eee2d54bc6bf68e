"""Experts of Transformer Engine: each its own rows, by one of its recipes for eight bits."""

import sys

import torch
import transformer_engine.pytorch as te
from transformer_engine.common import recipe

chosen = getattr(recipe, sys.argv[1])() if len(sys.argv) > 1 else None
experts = te.GroupedLinear(3, 256, 512, bias=False)
optimizer = torch.optim.SGD(experts.parameters())
for _ in range(3):
    x = torch.randn(256, 256, device="cuda", requires_grad=True)
    with te.fp8_autocast(enabled=chosen is not None, fp8_recipe=chosen):
        y = experts(x, [100, 28, 128])
    y.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
