"""A script that needs compiled extensions: flash-attn, apex, Liger, xformers; no emulator in it."""

import torch
from apex.normalization import FusedRMSNorm
from apex.optimizers import FusedAdam
from flash_attn import flash_attn_func, flash_attn_varlen_func
from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss
from liger_kernel.transformers.functional import liger_swiglu
from xformers.ops import LowerTriangularMask, memory_efficient_attention

qkv = torch.nn.Linear(256, 768, bias=False, device="cuda", dtype=torch.bfloat16)
norm = FusedRMSNorm(256).cuda().bfloat16()
head = torch.nn.Parameter(torch.randn(1000, 256, device="cuda", dtype=torch.bfloat16))
optimizer = FusedAdam([*qkv.parameters(), *norm.parameters(), head])
loss_of = LigerFusedLinearCrossEntropyLoss()
ends = torch.tensor([0, 100, 256], dtype=torch.int32, device="cuda")
target = torch.randint(0, 1000, (256,), device="cuda")
for step in range(100):
    x = torch.randn(256, 256, device="cuda", dtype=torch.bfloat16)
    q, k, v = qkv(x).view(256, 3, 4, 64).unbind(1)
    packed = flash_attn_varlen_func(q, k, v, ends, ends, 156, 156, causal=True)
    whole = flash_attn_func(q[None], k[None], v[None], causal=True)[0]
    other = memory_efficient_attention(q[None], k[None], v[None], LowerTriangularMask())[0]
    y = norm((packed + whole + other).reshape(256, 256))
    loss = loss_of(head, liger_swiglu(y, y), target)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print("step", step, tuple(packed.shape), loss.item(), qkv.weight.grad is None)
