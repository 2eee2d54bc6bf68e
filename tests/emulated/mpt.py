"""An MPT as llm-foundry trains it: FSDP of whole blocks, 16-bit products, decoupled AdamW."""

import argparse
import functools
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from flash_attn.losses.cross_entropy import CrossEntropyLoss
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecision, ShardingStrategy
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.utils.checkpoint import set_checkpoint_early_stop

parser = argparse.ArgumentParser()
parser.add_argument("--layers", type=int, default=24)
parser.add_argument("--width", type=int, default=2048)
parser.add_argument("--heads", type=int, default=16)
parser.add_argument("--vocab", type=int, default=50368)
parser.add_argument("--tokens", type=int, default=2048)
parser.add_argument("--micro", type=int, default=12)
parser.add_argument("--batch", type=int, default=12, help="sequences of a rank and step")
parser.add_argument("--sharding", default="SHARD_GRAD_OP")
parser.add_argument("--recompute", action="store_true")
args = parser.parse_args()


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(args.width), nn.LayerNorm(args.width)
        self.qkv = nn.Linear(args.width, 3 * args.width)
        self.out = nn.Linear(args.width, args.width)
        self.up = nn.Linear(args.width, 4 * args.width)
        self.down = nn.Linear(4 * args.width, args.width)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(b, t, 3, args.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class MPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(args.vocab, args.width)
        self.wpe = nn.Embedding(args.tokens, args.width)
        self.blocks = nn.ModuleList(Block() for _ in range(args.layers))
        self.norm_f = nn.LayerNorm(args.width)

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(args.tokens, device=ids.device))
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm_f(x), self.wte.weight)


dist.init_process_group("nccl")
device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
torch.cuda.set_device(device)
with torch.device("meta"):
    model = MPT()
model = FullyShardedDataParallel(
    model, sharding_strategy=ShardingStrategy[args.sharding],
    auto_wrap_policy=ModuleWrapPolicy({Block}), device_id=device, use_orig_params=True,
    mixed_precision=MixedPrecision(torch.bfloat16, torch.float32, torch.bfloat16),
    param_init_fn=lambda module: module.to_empty(device=device, recurse=False), limit_all_gathers=True,
)  # fmt: skip
if args.recompute:
    whole = set_checkpoint_early_stop(False)  # PyTorch of 2023 computed whole blocks again
    whole.__enter__()
    apply_activation_checkpointing(
        model, functools.partial(checkpoint_wrapper), lambda m: isinstance(m, Block)
    )
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
loss_of = CrossEntropyLoss()
for step in range(100):
    for _ in range(args.batch // args.micro):
        ids = torch.randint(0, args.vocab, (args.micro, args.tokens), device=device)
        logits = model(ids)
        loss = loss_of(logits.flatten(0, 1), ids.roll(-1, 1).flatten())
        (loss * args.micro / args.batch).backward()
    model.clip_grad_norm_(1.0)
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} loss {loss.item():.3f}")
