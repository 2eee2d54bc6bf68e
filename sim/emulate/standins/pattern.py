"""The pattern of every stand-in: what comes of an operator, and the one kernel that it is each way.

    RMS_NORM = Rule("rms_norm", lambda x, weight: torch.empty_like(x))
    y = RMS_NORM(x, weight)

Without more, a kernel moves what it reads and makes, each element once; `kernel` says otherwise. Backward
reads what came in and the gradient, and makes a gradient for each input that wants one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch

from ersatz.device_models.kernels.kernel import Kernel, memory_kernel
from ersatz.sim.emulate.virtual.costs import touched
from ersatz.sim.emulate.virtual.machine import Machine

Tensor: TypeAlias = torch.Tensor
KernelOf = Callable[[Sequence[Tensor], Tensor, bool], Kernel]  # given, made, backward?


@dataclass(frozen=True, slots=True)
class Rule:
    """A fused operator: its name, the result of its inputs, and its kernel."""

    machine: ClassVar[Machine]
    name: str
    shape: Callable[..., Tensor]
    kernel: KernelOf | None = None

    def __call__(self, *given: Any) -> Any:
        """Run it on tensors of the device."""
        return _Fused.apply(self, *given)

    def charge(self, given: Sequence[Tensor], made: Sequence[Tensor], *, backward: bool) -> None:
        """Launch its kernel: forward, or backward with the gradient among what is given."""
        name = f"{self.name} back" if backward else self.name
        if self.kernel is None:
            kernel = memory_kernel(name, float(sum(map(touched, (*given, *made)))))
        else:
            kernel = self.kernel(given, made[0], backward)
        self.machine.run_kernel(kernel, name, known=True)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rule: Rule, *given: Any) -> Any:
        out = rule.shape(*given)
        tensors = [t for t in given if isinstance(t, torch.Tensor)]
        rule.charge(tensors, [out], backward=False)
        ctx.rule, ctx.wants = rule, [isinstance(t, torch.Tensor) and t.requires_grad for t in given]
        ctx.save_for_backward(*tensors)
        ctx.places = [i for i, t in enumerate(given) if isinstance(t, torch.Tensor)]
        return out

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        given = ctx.saved_tensors
        made: list[Any] = [None] * len(ctx.wants)
        for place, tensor in zip(ctx.places, given, strict=True):
            if ctx.wants[place]:
                made[place] = torch.empty_like(tensor)
        fresh = [t for t in made if t is not None]
        if fresh:
            ctx.rule.charge([*given, grad], fresh, backward=True)
        return (None, *made)


RMS_NORM = Rule("rms_norm", lambda x, *weights: torch.empty_like(x))
LAYER_NORM = Rule("layer_norm", lambda x, *weights: torch.empty_like(x))
SWIGLU = Rule("swiglu", lambda gate, up: torch.empty_like(gate))
GEGLU = Rule("geglu", lambda gate, up: torch.empty_like(gate))
ROPE = Rule("rope", lambda x, cos, sin: torch.empty_like(x))
CROSS_ENTROPY = Rule(
    "cross_entropy", lambda logits, target: logits.new_empty((), dtype=torch.float32)
)
