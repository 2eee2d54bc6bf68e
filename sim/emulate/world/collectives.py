"""Collectives of an emulated rank: what they move, when they end, and what values come of them.

All members are taken to hold what this rank holds (they run the same program on other data), unless
they run as processes of their own, which then exchange small values for real (`exchange`).
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

from ersatz.sim.emulate.trace import Ranks, ranks_of
from ersatz.sim.emulate.virtual.known import forget, keep, values_of
from ersatz.sim.emulate.virtual.machine import Machine
from ersatz.sim.emulate.virtual.nature import nature
from ersatz.sim.emulate.world.exchange import Exchange

Tensor: TypeAlias = torch.Tensor
KINDS = {
    "allreduce_": "all_reduce", "allreduce_coalesced_": "all_reduce", "all_reduce": "all_reduce",
    "all_reduce_": "all_reduce", "all_reduce_coalesced": "all_reduce", "reduce_": "reduce",
    "allgather_": "all_gather", "_allgather_base_": "all_gather",
    "all_gather_into_tensor": "all_gather", "all_gather_into_tensor_out": "all_gather",
    "all_gather_into_tensor_coalesced": "all_gather", "allgather_into_tensor_coalesced_": "all_gather",
    "allgather_coalesced_": "all_gather", "reduce_scatter_": "reduce_scatter",
    "_reduce_scatter_base_": "reduce_scatter", "reduce_scatter_tensor": "reduce_scatter",
    "reduce_scatter_tensor_out": "reduce_scatter", "reduce_scatter_tensor_coalesced": "reduce_scatter",
    "reduce_scatter_tensor_coalesced_": "reduce_scatter", "alltoall_base_": "all_to_all",
    "alltoall_": "all_to_all", "all_to_all_single": "all_to_all", "broadcast_": "broadcast",
    "broadcast": "broadcast", "gather_": "gather", "scatter_": "scatter", "barrier": "barrier",
    "send": "send", "recv_": "recv",
}  # fmt: skip
KEPT = 8  # works that C++ knows by their address until it has given them back


class Pending(torch._C._distributed_c10d.Work):
    """A collective on its way: who waits for it lets the current stream wait."""

    def __init__(self, machine: Machine, entry: int, result: list[Tensor]) -> None:
        super().__init__()
        self.machine, self.entry = machine, entry
        self.tensors = [weakref.ref(t) for t in result]  # a work on its way holds no memory

    def wait(self, timeout: Any = None) -> bool:
        """Let what follows on the current stream wait for it."""
        if self.entry >= 0:
            self.machine.clock.wait(self.machine.stream, [self.entry])
        return True

    def is_completed(self) -> bool:
        """Tell whether it has ended by the host's clock."""
        clock = self.machine.clock
        return self.entry < 0 or clock.ends[self.entry] <= clock.host

    def is_success(self) -> bool:
        """Tell whether it ended well: always."""
        return True

    def result(self) -> list[Tensor]:
        """Return what it gave."""
        return [t for ref in self.tensors if (t := ref()) is not None]

    def get_future(self) -> Any:
        """Return a future that is done; the current stream waits."""
        self.wait()
        future = torch.futures.Future()
        future.set_result(self.result())
        return future


class Arriving(Pending):
    """A message to this rank: it is there when its sender, by its own clock, has sent it."""

    def __init__(
        self, machine: Machine, entry: int, tensor: Tensor, exchange: Exchange, sender: int
    ) -> None:
        super().__init__(machine, entry, [tensor])
        self.exchange, self.sender, self.arrived = exchange, sender, False

    def wait(self, timeout: Any = None) -> bool:
        """Wait for the sender's process, then let what follows wait for the message."""
        if not self.arrived:
            self.arrived = True
            self._arrive()
        return super().wait(timeout)

    def is_completed(self) -> bool:
        """Tell whether it has come, which needs the sender."""
        self.wait()
        return super().is_completed()

    def _arrive(self) -> None:
        try:
            sent_s, values = self.exchange.receive("message", self.sender)
        except LookupError:
            self.machine.note(
                f"rank {self.sender} sends to rank {self.machine.seat.rank} and was not run: what it sends"
                f" is taken to come at once; --ranks {self.machine.seat.rank},{self.sender} counts the wait"
            )
            return
        self.machine.arrive(self.entry, sent_s)
        if values is not None:
            for tensor in self.result():
                _write(tensor, values)


@dataclass(slots=True)
class World:
    """Handles the collectives of one rank."""

    machine: Machine
    shapes: FakeTensorMode
    exchange: Exchange
    waiting: dict[int, int] = field(default_factory=dict)  # entry by storage, of functional ones
    kept: list[Pending] = field(default_factory=list)  # C++ holds them by address alone
    groups: dict[str, Ranks] = field(default_factory=dict)
    counts: dict[tuple[str, Ranks], int] = field(default_factory=lambda: defaultdict(int))

    def __call__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator of c10d or of the functional collectives."""
        name = nature(func).name
        if func.namespace != "c10d":
            return self._functional(func, name, args, kwargs)
        named = nature(func).bound(args, kwargs)
        ranks = self._ranks(dist.ProcessGroup.unbox(named["process_group"]))
        kind = KINDS.get(name)
        if kind is None:
            raise NotImplementedError(f"the collective {name} is not emulated")
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if kind in ("send", "recv"):
            member = int(named["dst" if kind == "send" else "src"])
            work = self.message(kind, tensors[0], members(ranks)[member])
        else:
            beside = bool(named.get("async_op", True))
            entry = self._run(kind, name, named, tensors, ranks, beside=beside)
            work = Pending(self.machine, entry, tensors)
        self.kept.append(work)
        del self.kept[:-KEPT]
        boxed = work.boxed()
        return boxed if len(func._schema.returns) == 1 else (args[0], boxed)

    def _functional(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if name == "wait_tensor":
            return self._wait(args[0])
        with self.shapes:
            out = func(*args, **kwargs)
        results = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        kind = KINDS.get(name)
        if kind is None:
            if name != "_wrap_tensor_autograd":  # what moves nothing
                self.machine.note(f"the collective {name} is taken to cost nothing")
            return out
        named = nature(func).bound(args, kwargs)
        group = dist.distributed_c10d._resolve_process_group(named["group_name"])
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        for tensor in results:
            if tensor.device.type == self.machine.shown.surface:
                self.machine.track(tensor)
        named = {**named, "results": results}
        entry = self._run(kind, name, named, [*inputs, *results], self._ranks(group), beside=True)
        for tensor in results:
            self.waiting[tensor.untyped_storage()._cdata] = entry
        return out

    def _wait(self, tensor: Tensor) -> Tensor:
        entry = self.waiting.pop(tensor.untyped_storage()._cdata, None)
        if entry is not None and entry >= 0:
            self.machine.clock.wait(self.machine.stream, [entry])
        return tensor

    def _run(
        self, kind: str, name: str, named: dict[str, Any], tensors: Sequence[Tensor], ranks: Ranks,
        *, beside: bool,
    ) -> int:  # fmt: skip
        given, made = _sides(kind, name, named, tensors)
        virtual = [t for t in tensors if t.device.type == self.machine.shown.surface]
        nbytes = float(max(_bytes(given), _bytes(made)))
        self._values(kind, named, given, made, ranks)
        if not virtual and kind != "barrier":
            return -1  # among hosts: not on the device, and small
        self.counts[kind, ranks] += 1
        return self.machine.collective(kind, nbytes, ranks, beside=beside, name=kind)

    def message(self, kind: str, tensor: Tensor, peer: int) -> Pending:
        """Send a tensor to a rank, or receive one."""
        own = self.machine.seat.rank
        pair = ranks_of(sorted((own, peer)))
        nbytes = float(tensor.numel() * tensor.element_size())
        self.counts[kind, pair] += 1
        entry = self.machine.collective("send", nbytes, pair, beside=True, name=kind, peer=peer)
        if kind == "send":
            self.exchange.send("message", [self.machine.clock.ends[entry], values_of(tensor)], peer)
            return Pending(self.machine, entry, [tensor])
        forget(tensor)
        return Arriving(self.machine, entry, tensor, self.exchange, peer)

    def _ranks(self, group: Any) -> Ranks:
        name = group.group_name
        if name not in self.groups:
            self.groups[name] = ranks_of(dist.get_process_group_ranks(group))
        return self.groups[name]

    # ---- values

    def _values(
        self,
        kind: str,
        named: dict[str, Any],
        given: list[Tensor],
        made: list[Tensor],
        ranks: Ranks,
    ) -> None:
        known = [values_of(t) for t in given]
        if any(v is None for v in known) or not given:
            for tensor in made:
                forget(tensor)
            return
        values = [v for v in known if v is not None]
        combine = _COMBINE.get(kind)
        if combine is None:
            for tensor in made:
                forget(tensor)
            return
        all_values = self.exchange.of_all(kind, values, members(ranks))
        operation = _operation(named)
        root = int(named.get("root_rank", 0) or 0)
        results = combine(
            all_values, members(ranks).index(self.machine.seat.rank), operation, root, named
        )
        for tensor, result in zip(made, results, strict=False):
            _write(tensor, result)


def members(ranks: Ranks) -> list[int]:
    """Return the ranks of a group in order."""
    if ranks.irregular:
        return list(ranks.irregular)
    return [ranks.start + i * ranks.stride for i in range(ranks.size)]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _sides(
    kind: str, name: str, named: dict[str, Any], tensors: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the tensors that a collective reads and those that it writes."""
    results = named.get("results")
    if results is not None:
        return [t for t in tensors if all(t is not r for r in results)], results

    def flat(*keys: str) -> list[Tensor]:
        return [t for k in keys for t in tree_leaves(named.get(k)) if isinstance(t, torch.Tensor)]

    read = flat("input_tensor", "input_tensors", "inputs", "input")
    written = flat("output_tensor", "output_tensors", "outputs", "output")
    both = flat("tensors", "tensor")
    return (read or both), (written or both)


def _operation(named: dict[str, Any]) -> str:
    found = named.get("reduce_op", named.get("reduceOp", "sum"))
    if not isinstance(found, str):
        found = str(dist.ReduceOp.RedOpType(found.op()) if hasattr(found, "op") else found)
    return found.rpartition(".")[2].lower()


def _write(tensor: Tensor, value: Tensor) -> None:
    if not isinstance(tensor, FakeTensor):
        tensor.copy_(value.reshape(tensor.shape))
        return
    old = values_of(tensor)
    shaped = value.reshape(tensor.shape).to(tensor.dtype)
    if old is not None:
        old.copy_(shaped)
    else:
        keep(tensor, shaped.clone())


AllValues = list[list[Tensor]]  # by member of the group, by tensor
Combine = Callable[[AllValues, int, str, int, dict[str, Any]], list[Tensor]]


def _reduced(
    parts: AllValues, place: int, operation: str, root: int, named: dict[str, Any]
) -> list[Tensor]:
    return [_reduce(rows, operation).to(rows[0].dtype) for rows in zip(*parts, strict=True)]


def _reduce(rows: Sequence[Tensor], operation: str) -> Tensor:
    """Reduce the same tensor of all members, floats in double precision."""
    stacked = torch.stack([r.double() if r.dtype.is_floating_point else r for r in rows])
    if operation == "avg":
        return stacked.double().mean(0)
    return {"max": stacked.amax, "min": stacked.amin, "product": stacked.prod}.get(
        operation, stacked.sum
    )(0)


def _gathered(
    parts: AllValues, place: int, operation: str, root: int, named: dict[str, Any]
) -> list[Tensor]:
    listed = [t for t in tree_leaves(named.get("output_tensors")) if isinstance(t, torch.Tensor)]
    if len(listed) > 1:
        return [values[0] for values in parts]
    return [torch.cat([v.reshape(-1) for v in rows]) for rows in zip(*parts, strict=True)]


def _scattered(
    parts: AllValues, place: int, operation: str, root: int, named: dict[str, Any]
) -> list[Tensor]:
    whole = _reduced(parts, place, operation, root, named)
    if len(whole) == len(parts) > 1:
        return [whole[place]]
    return [w.reshape(-1).chunk(len(parts))[place] for w in whole]


def _sent(
    parts: AllValues, place: int, operation: str, root: int, named: dict[str, Any]
) -> list[Tensor]:
    return parts[root]


def _exchanged(
    parts: AllValues, place: int, operation: str, root: int, named: dict[str, Any]
) -> list[Tensor]:
    """Each member keeps its piece of what every other sends."""
    size = len(parts)
    pieces = []
    for values in parts:
        if len(values) == size > 1:
            pieces.append(values[place])
            continue
        splits = named.get("input_split_sizes") or ()
        whole = values[0]
        own = list(splits) if splits else [whole.shape[0] // size] * size
        pieces.append(whole.split(own)[place] if sum(own) == whole.shape[0] else whole[:0])
    if len(parts[0]) == size > 1:
        return pieces
    return [torch.cat(pieces)]


_COMBINE: dict[str, Combine] = {
    "all_reduce": _reduced, "reduce": _reduced, "all_gather": _gathered, "reduce_scatter": _scattered,
    "broadcast": _sent, "all_to_all": _exchanged,
}  # fmt: skip
