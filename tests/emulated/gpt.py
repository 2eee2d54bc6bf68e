"""A small GPT on made-up data, in the style of public training scripts; nothing of an emulator is in it."""

import argparse
import os
import time
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed import destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

parser = argparse.ArgumentParser()
parser.add_argument("--device", default="cuda")
parser.add_argument("--layers", type=int, default=4)
parser.add_argument("--width", type=int, default=384)
parser.add_argument("--heads", type=int, default=6)
parser.add_argument("--block", type=int, default=256)
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--iters", type=int, default=100_000)
parser.add_argument("--dtype", default="float32")
parser.add_argument("--accumulate", type=int, default=1)
parser.add_argument("--vocab", type=int, default=256)
parser.add_argument("--survive", action="store_true", help="halve the batch when memory is full")
args = parser.parse_args()

ddp = int(os.environ.get("RANK", -1)) != -1
device = args.device
if ddp:
    init_process_group(backend="nccl")
    device = f"cuda:{os.environ['LOCAL_RANK']}"
    torch.cuda.set_device(device)
master = int(os.environ.get("RANK", 0)) == 0
torch.manual_seed(1337)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(args.width, 3 * args.width, bias=False)
        self.out = nn.Linear(args.width, args.width, bias=False)

    def forward(self, x):
        b, t, c = x.size()
        q, k, v = self.qkv(x).split(c, dim=2)
        q, k, v = (z.view(b, t, args.heads, c // args.heads).transpose(1, 2) for z in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).contiguous().view(b, t, c))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(args.width), nn.LayerNorm(args.width)
        self.attention = Attention()
        self.up = nn.Linear(args.width, 4 * args.width, bias=False)
        self.down = nn.Linear(4 * args.width, args.width, bias=False)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(args.vocab, args.width)
        self.places = nn.Embedding(args.block, args.width)
        self.blocks = nn.ModuleList(Block() for _ in range(args.layers))
        self.norm = nn.LayerNorm(args.width)
        self.head = nn.Linear(args.width, args.vocab, bias=False)
        self.tokens.weight = self.head.weight

    def forward(self, ids, targets):
        x = self.tokens(ids) + self.places(torch.arange(ids.size(1), device=ids.device))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


data = torch.randint(0, args.vocab, (100_000,))


def batch(size):
    at = torch.randint(len(data) - args.block, (size,))
    x = torch.stack([data[i : i + args.block] for i in at])
    y = torch.stack([data[i + 1 : i + 1 + args.block] for i in at])
    if "cuda" in device:
        return tuple(z.pin_memory().to(device, non_blocking=True) for z in (x, y))
    return x, y


model = raw = GPT().to(device)
if ddp:
    model = DistributedDataParallel(model, device_ids=[int(os.environ["LOCAL_RANK"])])
optimizer = torch.optim.AdamW(raw.parameters(), lr=1e-3, betas=(0.9, 0.95))
plain = args.dtype == "float32"
context = nullcontext() if plain else torch.autocast("cuda", dtype=getattr(torch, args.dtype))
size, before, step = args.batch, time.time(), 0
while step < args.iters:
    try:
        for micro in range(args.accumulate):
            if ddp:
                model.require_backward_grad_sync = micro == args.accumulate - 1
            x, y = batch(size)
            with context:
                loss = model(x, y) / args.accumulate
            loss.backward()
    except torch.OutOfMemoryError as error:
        if not args.survive:
            raise
        print(f"out of memory with {size}: {str(error)[:40]}")
        size, x, y, loss = size // 2, None, None, None
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        continue
    torch.nn.utils.clip_grad_norm_(raw.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    value, now = loss.item(), time.time()
    if master:
        print(f"iter {step}: loss {value:.4f}, time {1e3 * (now - before):.3f} ms, batch {size}")
    before, step = now, step + 1
if ddp:
    destroy_process_group()
