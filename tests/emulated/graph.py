"""A step in a CUDA graph beside the same step launched one by one; no emulator in it."""

import torch

model = torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(8)]).cuda()
optimizer = torch.optim.SGD(model.parameters())
x = torch.randn(64, 256, device="cuda")


def work():
    model(x).sum().backward()


work()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph, pool=torch.cuda.graph_pool_handle()):
    work()
for name, run in (("eager", work), ("graph", graph.replay)):
    torch.cuda.synchronize()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    print(name, begin.elapsed_time(end))
for _ in range(3):
    graph.replay()
    optimizer.step()
    torch.cuda.synchronize()
