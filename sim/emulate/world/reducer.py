"""DistributedDataParallel's reducer, in Python: gradients in buckets, summed while others still come.

Which parameters share a bucket is PyTorch's own function's to say; in the first pass there is one bucket
(unless unused parameters are looked for), after it buckets follow the order in which gradients came.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import distributed as ddp

from ersatz.sim.emulate.virtual.machine import Machine

FIRST_BUCKET = 1 << 20


class Reducer:
    """Sums gradients over the ranks of a data-parallel group. Made as `dist.Reducer` is."""

    machine: Machine

    def __init__(
        self, params: list[Any], buckets: list[list[int]], limits: list[int], group: Any,
        sparse: list[bool], cap: int = 25 << 20, find_unused: bool = False, as_view: bool = False,
        names: Any = None, first_cap: int = FIRST_BUCKET, *more: Any,
    ) -> None:  # fmt: skip
        self.params, self.group, self.sparse = list(params), group, list(sparse)
        self.caps, self.find_unused, self.as_view = [first_cap, cap], find_unused, as_view
        self.order: list[int] = []
        self.rebuilt, self.syncs, self.state = False, False, None
        self.hook: Any = None
        self.works: list[Any] = []
        self.handles = [
            p.register_post_accumulate_grad_hook(lambda p, i=i: self.arrived(i))
            for i, p in enumerate(self.params)
        ]
        self.arrange(buckets)

    def arrange(self, buckets: list[list[int]]) -> None:
        """Make the buckets, each with a flat buffer of its own."""
        self.buckets = [list(b) for b in buckets]
        self.bucket_of = {i: b for b, indices in enumerate(self.buckets) for i in indices}
        self.flat = []
        for indices in self.buckets:
            first = self.params[indices[0]]
            count = sum(self.params[i].numel() for i in indices)
            self.flat.append(torch.empty(count, dtype=first.dtype, device=first.device))
        self.machine.note(
            f"DDP: gradients in {len(self.buckets)} bucket{'s' * (len(self.buckets) > 1)}"
        )

    def prepare_for_forward(self) -> None:
        """Do nothing: buckets are ready."""

    def prepare_for_backward(self, outputs: list[Any]) -> None:
        """Expect every gradient once."""
        self.syncs = True
        self.left = [len(b) for b in self.buckets]
        self.next, self.works = 0, []
        self.order.clear()
        if self.find_unused:
            self._count_unused(outputs)

    def _count_unused(self, outputs: list[Any]) -> None:
        """Do not wait for parameters that no output depends on."""
        seen, used = set(), set()
        todo = [t.grad_fn for t in outputs if getattr(t, "grad_fn", None) is not None]
        while todo:
            node = todo.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            used.add(id(getattr(node, "variable", None)))
            todo += [parent for parent, _ in node.next_functions]
        for i, p in enumerate(self.params):
            if id(p) not in used:
                self.left[self.bucket_of[i]] -= 1

    def arrived(self, index: int) -> None:
        """Note that a gradient is there; buckets go in their order."""
        if not self.syncs:
            return
        if not self.rebuilt:
            self.order.append(index)
        self.left[self.bucket_of[index]] -= 1
        while self.next < len(self.buckets) and self.left[self.next] <= 0:
            self.launch(self.next)
            self.next += 1
        if self.next == len(self.buckets):
            self.finish()

    def launch(self, number: int) -> None:
        """Copy the gradients of a bucket together, and sum them over the ranks beside the rest."""
        flat, offset = self.flat[number], 0
        with torch.no_grad():
            for i in self.buckets[number]:
                grad, count = self.params[i].grad, self.params[i].numel()
                if grad is not None and not (self.as_view and self.rebuilt):
                    flat[offset : offset + count].view(grad.shape).copy_(grad)
                offset += count
            flat.div_(dist.get_world_size(self.group))
            if self.hook is None:
                self.works.append(dist.all_reduce(flat, group=self.group, async_op=True))
            else:
                self.works.append(self._by_hook(number, flat))

    def _by_hook(self, number: int, flat: Any) -> Any:
        future = self.hook(self.state, Bucket(self, number, flat))
        return future

    def finish(self) -> None:
        """Wait for the sums and give every gradient its part."""
        self.syncs = False
        for work in self.works:
            work.wait()
        with torch.no_grad():
            for number, indices in enumerate(self.buckets):
                offset = 0
                for i in indices:
                    p = self.params[i]
                    part = self.flat[number][offset : offset + p.numel()].view(p.shape)
                    offset += p.numel()
                    if self.as_view:
                        p.grad = part
                    elif p.grad is not None:
                        p.grad.copy_(part)

    def _rebuild_buckets(self) -> bool:
        if self.rebuilt or len(self.order) != len(self.params) or self.find_unused:
            return False
        ordered = [self.params[i] for i in self.order]
        buckets, _ = dist._compute_bucket_assignment_by_size(
            ordered, self.caps, [self.sparse[i] for i in self.order], list(self.order)
        )
        self.rebuilt = True
        self.arrange(buckets)
        return True

    def _register_comm_hook(self, state: Any, hook: Any) -> None:
        self.state, self.hook = state, hook

    def _set_static_graph(self) -> None:
        self.find_unused = False

    def set_logger(self, logger: Any) -> None:
        """Take no notice of a logger."""

    def _remove_autograd_hooks(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _get_local_used_map(self) -> Any:
        return torch.ones(len(self.params), dtype=torch.int32)

    def _set_forward_pass_work_handle(self, *args: Any) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotImplementedError(f"DistributedDataParallel uses {name}, which is not emulated")


class Bucket:
    """What a communication hook is given."""

    def __init__(self, reducer: Reducer, number: int, flat: Any) -> None:
        self.reducer, self.number, self.flat = reducer, number, flat

    def buffer(self) -> Any:
        """Return the flat gradients."""
        return self.flat

    def set_buffer(self, tensor: Any) -> None:
        """Put other gradients in their place."""
        self.reducer.flat[self.number] = self.flat = tensor

    def index(self) -> int:
        """Return the number of the bucket."""
        return self.number

    def is_last(self) -> bool:
        """Tell whether no other follows."""
        return self.number == len(self.reducer.buckets) - 1

    def parameters(self) -> list[Any]:
        """Return the parameters of the bucket."""
        return [self.reducer.params[i] for i in self.reducer.buckets[self.number]]

    def gradients(self) -> list[Any]:
        """Return the gradients of the bucket."""
        return [p.grad for p in self.parameters()]


class Logger:
    """Takes DDP's log and drops it."""

    def __init__(self, reducer: Any) -> None:
        self.reducer = reducer

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: {}


def install(machine: Machine) -> None:
    """Replace the reducer, and what reads values to check that ranks agree."""
    Reducer.machine = machine
    dist.Reducer, dist.Logger = Reducer, Logger
    ddp._verify_param_shape_across_processes = lambda *args, **kwargs: None
    ddp._sync_module_states = lambda *args, **kwargs: None
