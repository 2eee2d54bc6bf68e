"""A Llama as torchtitan trains it: FSDP2 by block, checkpoints of every second product, rotation in fp32."""

import argparse
import os
from collections import defaultdict

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

parser = argparse.ArgumentParser()
parser.add_argument("--layers", type=int, default=32)
parser.add_argument("--hidden", type=int, default=4096)
parser.add_argument("--heads", type=int, default=32)
parser.add_argument("--kv-heads", type=int, default=8)
parser.add_argument("--inner", type=int, default=14336)
parser.add_argument("--vocab", type=int, default=128256)
parser.add_argument("--sequence", type=int, default=8192)
parser.add_argument("--batch", type=int, default=2)
parser.add_argument("--compile", action="store_true")
args = parser.parse_args()
head = args.hidden // args.heads
KEPT = {torch.ops.aten._scaled_dot_product_flash_attention.default,
        torch.ops.aten._scaled_dot_product_efficient_attention.default}  # fmt: skip


def turned(x, angles):
    """Turn positions into angles."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * angles).flatten(3).type_as(x)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(args.hidden), nn.RMSNorm(args.hidden)
        self.q = nn.Linear(args.hidden, args.hidden, bias=False)
        self.k = nn.Linear(args.hidden, args.kv_heads * head, bias=False)
        self.v = nn.Linear(args.hidden, args.kv_heads * head, bias=False)
        self.o = nn.Linear(args.hidden, args.hidden, bias=False)
        self.gate = nn.Linear(args.hidden, args.inner, bias=False)
        self.up = nn.Linear(args.hidden, args.inner, bias=False)
        self.down = nn.Linear(args.inner, args.hidden, bias=False)

    def forward(self, x, angles):
        b, t, _ = x.shape
        y = self.norm1(x)
        q, k, v = (p(y).view(b, t, -1, head) for p in (self.q, self.k, self.v))
        q, k = turned(q, angles), turned(k, angles)
        q, k, v = (z.transpose(1, 2) for z in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, -1))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(args.vocab, args.hidden)
        self.blocks = nn.ModuleList(Block() for _ in range(args.layers))
        self.norm = nn.RMSNorm(args.hidden)
        self.output = nn.Linear(args.hidden, args.vocab, bias=False)

    def forward(self, ids, angles):
        x = self.tokens(ids)
        for block in self.blocks:
            x = block(x, angles)
        return self.output(self.norm(x))


def every_second_product():
    """Keep attention and every second product; compute the others again."""
    counts = defaultdict(int)

    def policy(context, operator, *given, **named):
        phase = "again" if context.is_recompute else "first"
        if operator is torch.ops.aten.mm.default:
            counts[phase] += 1
        second = operator is torch.ops.aten.mm.default and counts[phase] % 2
        kept = operator in KEPT or second
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)


def loss_of(logits, target):
    return F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(0, 1))


dist.init_process_group("nccl")
device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
torch.cuda.set_device(device)
with torch.device("meta"):
    model = Llama()
for name, block in model.blocks.named_children():
    wrapped = checkpoint_wrapper(block, context_fn=every_second_product, preserve_rng_state=False)
    if args.compile:
        wrapped.compile(fullgraph=True)
    model.blocks.register_module(name, wrapped)
mesh = init_device_mesh("cuda", (dist.get_world_size(),))
policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
for unit in (model.tokens, *model.blocks, [model.norm, model.output]):
    fully_shard(unit, mesh=mesh, mp_policy=policy)
fully_shard(model, mesh=mesh, mp_policy=policy)
model.to_empty(device=device)
loss_function = torch.compile(loss_of) if args.compile else loss_of
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
turns = torch.outer(torch.arange(args.sequence, device=device),
                    500000.0 ** -(torch.arange(0, head, 2, device=device) / head))  # fmt: skip
angles = torch.polar(torch.ones_like(turns), turns).view(1, args.sequence, 1, head // 2)
for step in range(100):
    ids = torch.randint(0, args.vocab, (args.batch, args.sequence + 1), device=device)
    loss = loss_function(model(ids[:, :-1], angles), ids[:, 1:])
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
    optimizer.step()
    optimizer.zero_grad()
    print(
        f"step {step} loss {loss.item():.3f} memory {torch.cuda.max_memory_reserved() / 2**30:.2f} GiB"
    )
