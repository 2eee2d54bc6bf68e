"""Operators of PyTorch as a script calls them: told by a signature, and run with made-up operands.

A signature is (name, arguments, named arguments), a tensor being ("tensor", shape, strides, dtype,
place). It holds what an operator's time depends on and none of its values; floats, which change
from step to step, are kept to one digit. As text it is JSON, so that a trace can carry it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from ersatz.sim.hil.device.attached import Attached

Signature: TypeAlias = tuple[str, tuple[Any, ...], tuple[tuple[str, Any], ...]]
SPREAD, TINY = 0.02, 1e-4  # of made-up floats: positive, for roots of negative numbers take longer
HIGHEST = 50  # of made-up integers
MOST_OF_MEMORY = 0.5  # of a host's, that the operands of one operator may take
TENSOR = 5  # parts of a tensor's form
WIDEST = 4  # bytes of a made-up number before it takes its format


def rounded(value: float) -> float:
    """Return a float to one digit: factors of a schedule change, the time does not."""
    return float(f"{value:.1g}")


def told(signature: Signature) -> str:
    """Return a signature as text; numbers that JSON lacks become words."""

    def form(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [form(x) for x in value]
        if isinstance(value, float) and not math.isfinite(value):
            return ["float", str(value)]
        return value

    return json.dumps(form(signature), separators=(",", ":"), allow_nan=False)


def heard(text: str) -> Signature:
    """Return the signature of a text; raises `ValueError` where it is none."""
    parts = _form(json.loads(text))
    if not isinstance(parts, tuple) or len(parts) != 3:
        raise ValueError("is no signature")
    name, args, kwargs = parts
    if not (isinstance(name, str) and isinstance(args, tuple) and isinstance(kwargs, tuple)):
        raise ValueError("is no signature")
    pairs = all(isinstance(k, tuple) and len(k) == 2 and isinstance(k[0], str) for k in kwargs)
    if name.count(".") != 2 or not pairs:
        raise ValueError("is no signature")
    return name, args, kwargs


def _form(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    if len(value) == 2 and value[0] == "float" and isinstance(value[1], str):
        return float(value[1])
    return tuple(_form(x) for x in value)


def key_of(text: str) -> str:
    """Return a short name of a signature: the operator, and twelve digits of its text's hash."""
    name = str(json.loads(text)[0]) if text else ""
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def prepared(
    attached: Attached, signature: Signature
) -> tuple[Callable[[], object], list[Any]]:  # fmt: skip
    """Return a call of the operator with made-up operands, and these; raises what PyTorch raises."""
    import torch

    name, args, kwargs = signature
    operands: list[Any] = []
    made = [_made(attached, value, operands) for value in args]
    named = {k: _made(attached, v, operands) for k, v in kwargs}
    if attached.backend == "cpu" and "_scaled_dot_product" in name:
        return _cpu_attention(name, made), operands
    space, op, overload = name.split(".")
    function = getattr(getattr(getattr(torch.ops, space), op), overload)
    if not isinstance(function, torch._ops.OpOverload):
        raise ValueError(f"{name}: PyTorch has no such operator")
    return lambda: function(*made, **named), operands


def refuse_strange(signature: Signature) -> None:
    """Raise `ValueError` for what no training step calls, where a file names the operator.

    That is other namespaces than PyTorch's own, and words without a tensor: names of files. Operands
    beyond half of the host's memory raise `MemoryError`.
    """
    name, args, kwargs = signature
    tensors = [part for part in _parts((args, kwargs)) if _is_tensor(part)]
    words = [v for v in (*args, *(v for _, v in kwargs)) if isinstance(v, str)]
    if not name.startswith("aten.") or (words and not tensors):
        raise ValueError(f"{name}: is no operator of a training step")
    held = sum(_extent(part[1], part[2]) for part in tensors) * WIDEST
    if held > MOST_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise MemoryError("the memory is too small")


def _parts(value: Any) -> Iterator[Any]:
    """Yield every tuple in a form, from the outside."""
    if isinstance(value, tuple):
        yield value
        for part in value:
            yield from _parts(part)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == TENSOR and value[0] == "tensor"


def _made(attached: Attached, value: Any, operands: list[Any]) -> Any:
    import torch

    if not isinstance(value, tuple) or not value:
        return list(value) if isinstance(value, tuple) else value
    if _is_tensor(value):
        tensor = _operand(attached, *value[1:4])
        operands.append(tensor)
        return tensor
    if value[0] == "dtype":
        return getattr(torch, value[1])
    if value[0] == "device":
        return attached.device
    if value == ("left out",):
        return None
    return [_made(attached, v, operands) for v in value]


def _extent(shape: Any, stride: Any) -> int:
    """Return the elements that a tensor's memory spans."""
    extent = 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) if shape else 1
    return max(int(extent), 1)


def _operand(attached: Attached, shape: Any, stride: Any, dtype: str) -> Any:
    import torch

    kind = getattr(torch, dtype)
    extent = _extent(shape, stride)
    if kind.is_floating_point:
        base = (torch.rand(extent) * SPREAD + TINY).to(kind)
    elif kind == torch.bool:
        base = torch.zeros(extent, dtype=kind)
    else:
        base = torch.randint(0, HIGHEST, (extent,)).to(kind)
    return base.to(attached.device).as_strided(shape, stride)


def _cpu_attention(name: str, args: list[Any]) -> Callable[[], object]:
    """Return the CPU's own fused attention in place of an accelerator's."""
    import torch

    forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if not name.split(".")[1].endswith("backward"):
        q, k, v = args[:3]
        causal = next((a for a in reversed(args) if isinstance(a, bool)), True)
        return lambda: forward(q, k, v, 0.0, causal)
    grad, q, k, v = args[:4]
    causal = next((a for a in reversed(args) if isinstance(a, bool)), True)
    out, sums = forward(q, k, v, 0.0, causal)
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return lambda: backward(grad, q, k, v, out, sums, 0.0, causal)
