"""`torch.compile` without code generation: Dynamo and AOTAutograd trace, graphs run on the virtual device.

Inductor's decompositions and its way of choosing what to keep for the backward pass are used as they are;
what Inductor would make one kernel is one here by a stated rule (`fusing`). A function is compiled whole or,
where Dynamo finds what it cannot trace, not at all: then it runs operator by operator, and the report begins
with that.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FunctionType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_leaves

from ersatz.sim.emulate.trace import UNCOMPILED
from ersatz.sim.emulate.virtual.fusing import fused
from ersatz.sim.emulate.virtual.machine import Machine
from ersatz.sim.emulate.virtual.mode import Emulation

SWITCH = "TORCHDYNAMO_DISABLE"


class Graph(Interpreter):
    """Runs a traced graph; operators that share a kernel are charged once, and keep nothing inside it."""

    def __init__(self, graph: GraphModule, machine: Machine) -> None:
        super().__init__(graph)
        self.machine, self.groups = machine, fused(graph)
        self.last = {g: g.members[-1] for g in self.groups.values()}

    def run_node(self, n: Node) -> Any:
        """Run one operator."""
        group = self.groups.get(n)
        if group is None:
            return super().run_node(n)
        self.machine.silent += 1
        try:
            out = super().run_node(n)
        finally:
            self.machine.silent -= 1
        if n in group.escapes:
            for tensor in tree_leaves(out):
                if (
                    isinstance(tensor, FakeTensor)
                    and tensor.device.type == self.machine.shown.surface
                ):
                    self.machine.track(tensor)
        if n is self.last[group] and group.kernel is not None:
            self.machine.run_kernel(group.kernel, group.kernel.name, known=True)
        return out


def install(machine: Machine, mode: Emulation) -> None:
    """Put a compiler in the place of PyTorch's."""

    backend = backend_of(machine, mode)  # one for all: blocks alike are then traced once

    def compile_(model: Any = None, *, disable: bool = False, **options: Any) -> Any:
        if model is None:
            return lambda found: compile_(found, disable=disable, **options)
        if disable:
            return model
        owner = getattr(model, "__self__", None)
        if isinstance(model, torch.nn.Module):
            model.forward = compiled(model.forward, machine, backend)
        elif isinstance(owner, torch.nn.Module) and model.__name__ == "_call_impl":
            # hooks stay outside, as FSDP's must
            owner.forward = compiled(owner.forward, machine, backend)
        else:
            return compiled(model, machine, backend)
        return model

    torch.compile = compile_
    distinct()


def distinct() -> None:
    """Give each name of the surface a function of its own: Dynamo knows functions by identity."""
    seen: set[int] = set()
    for module in (torch.cuda, torch.accelerator, torch):
        for name, found in list(vars(module).items()):
            if not isinstance(found, FunctionType) or not found.__module__.startswith("ersatz."):
                continue
            if id(found) in seen:
                again = FunctionType(found.__code__, found.__globals__, found.__name__, found.__defaults__,
                                     found.__closure__)  # fmt: skip
                again.__kwdefaults__ = found.__kwdefaults__
                setattr(module, name, again)
            seen.add(id(found))


def compiled(
    function: Callable[..., Any], machine: Machine, backend: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a function that is traced when it is called first, and whenever its shapes are new."""
    made: list[Callable[..., Any]] = []
    refused: list[str] = []

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if refused or not any(isinstance(x, FakeTensor) for x in tree_leaves((args, kwargs))):
            return function(*args, **kwargs)
        from torch._dynamo.exc import TorchDynamoException

        try:
            with tracing():
                if not made:
                    made.append(torch._dynamo.optimize(backend, nopython=True,
                                                       dynamic=False)(function))  # fmt: skip
                return made[0](*args, **kwargs)
        except TorchDynamoException as error:
            refused.append(str(error))
            name = getattr(function, "__qualname__", "a function")
            machine.note(f"{UNCOMPILED} ({name}: {str(error).strip().splitlines()[0][:120]})")
            return function(*args, **kwargs)

    return call


@contextmanager
def tracing() -> Iterator[None]:
    """Let Dynamo work, and nothing be charged that it does on the way."""
    before = os.environ.get(SWITCH, "")
    os.environ[SWITCH] = "0"
    try:
        with _disable_current_modes():
            yield
    finally:
        os.environ[SWITCH] = before


def backend_of(machine: Machine, mode: Emulation) -> Callable[..., Any]:
    """Return what Dynamo gives its graphs to."""
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor.decomposition import select_decomp_table

    def lower(graph: GraphModule, example: Any) -> Any:
        runner = Graph(graph, machine)

        def run(args: list[Any]) -> Any:
            active = any(isinstance(m, Emulation) for m in _get_current_dispatch_mode_stack())
            with nullcontext() if active else mode.another():
                return runner.boxed_run(args)  # which lets go of each as soon as it was used

        run._boxed_call = True  # type: ignore[attr-defined]
        return run

    partition = functools.partial(min_cut_rematerialization_partition, compiler="inductor")
    return aot_autograd(fw_compiler=lower, bw_compiler=lower, partition_fn=partition,
                        decompositions=select_decomp_table())  # fmt: skip
