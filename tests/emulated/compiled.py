"""Two blocks of a transformer, compiled or not; a compiler cannot trace a block that prints a value."""

import argparse

import torch
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--compile", action="store_true")
parser.add_argument("--print", dest="prints", action="store_true")
args = parser.parse_args()


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = torch.nn.RMSNorm(512), torch.nn.RMSNorm(512)
        self.qkv = torch.nn.Linear(512, 1536, bias=False)
        self.out = torch.nn.Linear(512, 512, bias=False)
        self.gate = torch.nn.Linear(512, 1024, bias=False)
        self.up = torch.nn.Linear(512, 1024, bias=False)
        self.down = torch.nn.Linear(1024, 512, bias=False)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, 4, 128).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        if args.prints:
            print(x.sum().item())
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


model = torch.nn.Sequential(Block(), Block()).cuda().bfloat16()
if args.compile:
    for block in model:
        block.compile()
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
for _ in range(3):
    x = torch.randn(4, 1024, 512, device="cuda", dtype=torch.bfloat16)
    model(x).float().pow(2).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
