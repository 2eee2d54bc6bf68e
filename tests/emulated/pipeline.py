"""Two stages of a pipeline by hand: forwards of all micro-batches, then backwards; no emulator in it."""

import os

import torch
import torch.distributed as dist

dist.init_process_group("nccl")
rank, world = dist.get_rank(), dist.get_world_size()
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
WIDTH, MICRO = 4096, 4
stage = (
    torch.nn.Sequential(*[torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2)])
    .cuda()
    .bfloat16()
)
optimizer = torch.optim.SGD(stage.parameters(), lr=1e-3)
names = [None] * world
dist.all_gather_object(names, f"stage {rank}")
assert names == [f"stage {i}" for i in range(world)], names


def received(peer):
    buffer = torch.empty(2048, WIDTH, device="cuda", dtype=torch.bfloat16)
    dist.recv(buffer, peer)
    return buffer


for step in range(100):
    kept = []
    for _ in range(MICRO):
        first = rank == 0
        x = (
            torch.randn(2048, WIDTH, device="cuda", dtype=torch.bfloat16)
            if first
            else received(rank - 1)
        )
        x.requires_grad_()
        y = stage(x)
        if rank < world - 1:
            dist.send(y.detach(), rank + 1)
        kept.append((x, y))
    for x, y in kept:
        if rank == world - 1:
            y.float().pow(2).mean().backward()
        else:
            y.backward(received(rank + 1))
        if rank > 0:
            dist.send(x.grad, rank - 1)
    optimizer.step()
    optimizer.zero_grad()
    torch.cuda.synchronize()
    print("step", step)
