"""A pipeline by hand, replicated: all forwards, then all backwards, then sums; no emulator in it."""

import argparse
import os

import torch
import torch.distributed as dist

parser = argparse.ArgumentParser()
parser.add_argument("--stages", type=int, default=2)
args = parser.parse_args()

dist.init_process_group("nccl")
rank, world = dist.get_rank(), dist.get_world_size()
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
replicas = world // args.stages
place = rank // replicas
groups = [dist.new_group(range(i * replicas, (i + 1) * replicas)) for i in range(args.stages)]
WIDTH, MICRO = 4096, 4
stage = (
    torch.nn.Sequential(*[torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2)])
    .cuda()
    .bfloat16()
)
optimizer = torch.optim.SGD(stage.parameters(), lr=1e-3)
names = [None] * world
dist.all_gather_object(names, f"stage {place}")
assert names[rank] == f"stage {place}"


def received(peer):
    buffer = torch.empty(2048, WIDTH, device="cuda", dtype=torch.bfloat16)
    dist.recv(buffer, peer)
    return buffer


for step in range(100):
    kept = []
    for _ in range(MICRO):
        if place == 0:
            x = torch.randn(2048, WIDTH, device="cuda", dtype=torch.bfloat16)
        else:
            x = received(rank - replicas)
        x.requires_grad_()
        y = stage(x)
        if place < args.stages - 1:
            dist.send(y.detach(), rank + replicas)
        kept.append((x, y))
    for x, y in kept:
        if place == args.stages - 1:
            y.float().pow(2).mean().backward()
        else:
            y.backward(received(rank + replicas))
        if place > 0:
            dist.send(x.grad, rank - replicas)
    if replicas > 1:
        for p in stage.parameters():
            dist.all_reduce(p.grad, group=groups[place])
    optimizer.step()
    optimizer.zero_grad()
    torch.cuda.synchronize()
    print("step", step)
