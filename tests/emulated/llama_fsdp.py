"""A Llama-like model under FSDP2, layer by layer; nothing of an emulator is in it."""

import argparse
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

parser = argparse.ArgumentParser()
parser.add_argument("--layers", type=int, default=32)
parser.add_argument("--hidden", type=int, default=4096)
parser.add_argument("--heads", type=int, default=32)
parser.add_argument("--kv-heads", type=int, default=8)
parser.add_argument("--inner", type=int, default=14336)
parser.add_argument("--vocab", type=int, default=128256)
parser.add_argument("--block", type=int, default=4096)
args = parser.parse_args()

dist.init_process_group("nccl")
local = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(local)
device = torch.device("cuda", local)
head = args.hidden // args.heads


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(args.hidden), nn.RMSNorm(args.hidden)
        self.q = nn.Linear(args.hidden, args.hidden, bias=False)
        self.k = nn.Linear(args.hidden, args.kv_heads * head, bias=False)
        self.v = nn.Linear(args.hidden, args.kv_heads * head, bias=False)
        self.o = nn.Linear(args.hidden, args.hidden, bias=False)
        self.gate = nn.Linear(args.hidden, args.inner, bias=False)
        self.up = nn.Linear(args.hidden, args.inner, bias=False)
        self.down = nn.Linear(args.inner, args.hidden, bias=False)

    def forward(self, x):
        b, t, _ = x.shape
        y = self.norm1(x)
        q, k, v = (p(y).view(b, t, -1, head).transpose(1, 2) for p in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, -1))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(args.vocab, args.hidden)
        self.layers = nn.ModuleList(Layer() for _ in range(args.layers))
        self.norm = nn.RMSNorm(args.hidden)
        self.head = nn.Linear(args.hidden, args.vocab, bias=False)

    def forward(self, ids):
        x = self.tokens(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


with torch.device("meta"):
    model = Llama()
mesh = init_device_mesh("cuda", (dist.get_world_size(),))
policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
for layer in model.layers:
    fully_shard(layer, mesh=mesh, mp_policy=policy)
fully_shard(model, mesh=mesh, mp_policy=policy)
model.to_empty(device=device)
for p in model.parameters():
    nn.init.normal_(p, std=0.02)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
for step in range(100):
    ids = torch.randint(0, args.vocab, (1, args.block + 1), device=device)
    loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    print(
        f"step {step} loss {loss.item():.3f} memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    )
