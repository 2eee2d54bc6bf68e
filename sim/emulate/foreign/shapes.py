"""What a kernel computes, from the operator of PyTorch that launched it and the shapes of its inputs.

Products and attention are counted by their shapes, everything else by the bytes of its inputs and of a result
as large as the largest of them. Without shapes (`record_shapes=False`) there is nothing to count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ersatz.device_models.kernels.kernel import Kernel, matmul, memory_kernel
from ersatz.sim.emulate.foreign.names import SIZES, category_of
from ersatz.sim.emulate.replaying.believed import is_kernel

FORMATS = {"c10::bfloat16": "bf16", "c10::half": "fp16", "float": "fp32", "double": "fp64",
           "c10::float8_e4m3fn": "fp8", "c10::float8_e5m2": "fp8", "signed char": "int8"}  # fmt: skip
BYTES = {"bf16": 2, "fp16": 2, "fp32": 4, "fp64": 8, "fp8": 1, "int8": 1}


def kernel_of(operator: str, dims: Any, types: Any) -> Kernel | None:
    """Return the kernel of an operator; None where its shapes do not tell it."""
    shapes = (
        [tuple(int(n) for n in d) for d in dims if _is_shape(d)] if isinstance(dims, list) else []
    )
    if not shapes:
        return None
    words = [str(t).lower() for t in types] if isinstance(types, list) else []
    dtype = next((FORMATS[t] for t in words if t in FORMATS), "bf16")
    dtype = "fp32" if dtype == "fp64" else dtype
    name = operator.removeprefix("aten::")
    try:
        made = _product(name, shapes, dtype) or _attention(name, shapes, dtype)
        if made and is_kernel(made):
            return made
        size = _sizes(words)
        read = [math.prod(shape) * size for shape in shapes]
        moved = memory_kernel(
            name, float(sum(read) + max(read)), category_of(operator), dtype="bf16"
        )
    except OverflowError:  # a shape of which nothing was ever made
        return None
    return moved if is_kernel(moved) else None


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(n, int) and n >= 0 for n in value)
    )


def _sizes(words: Sequence[str]) -> int:
    found = [SIZES.get(w.rpartition("::")[2], 0) for w in words]
    return next((size for size in found if size), 2)


def _product(name: str, shapes: Sequence[tuple[int, ...]], dtype: str) -> Kernel | None:
    plain = name.rstrip("_")
    if plain in ("mm", "addmm", "linear", "matmul", "_scaled_mm", "mv"):
        pair = shapes[1:3] if plain == "addmm" else shapes[:2]
        if len(pair) < 2 or len(pair[0]) < 1 or len(pair[1]) != 2:
            return None
        a, b = pair
        n = b[0] if plain == "linear" else b[1]
        return matmul(name, float(math.prod(a[:-1])), float(n), float(a[-1]), dtype)
    if plain in ("bmm", "baddbmm"):
        pair = shapes[1:3] if plain == "baddbmm" else shapes[:2]
        if len(pair) < 2 or len(pair[0]) != 3 or len(pair[1]) != 3:
            return None
        (groups, m, k), (_, _, n) = pair
        return matmul(name, float(m), float(n), float(k), dtype, groups=max(groups, 1))
    return None


def _attention(name: str, shapes: Sequence[tuple[int, ...]], dtype: str) -> Kernel | None:
    """Return attention over (batch, heads, tokens, size), taken to be causal: half of the scores."""
    if category_of(name) != "attention" or len(shapes) < 3 or len(shapes[0]) != 4:
        return None
    back = "backward" in name
    q, k = (shapes[1], shapes[2]) if back and len(shapes) > 3 else (shapes[0], shapes[1])
    if len(q) != 4 or len(k) != 4:
        return None
    if name.startswith(
        ("_flash_attention", "_efficient_attention")
    ):  # these put heads after tokens
        q, k = (q[0], q[2], q[1], q[3]), (k[0], k[2], k[1], k[3])
    batch, heads, tokens, size = q
    flop = (
        (2.5 if back else 1.0) * 2.0 * batch * heads * tokens * k[2] * size
    )  # two products, halved
    nbytes = BYTES[dtype] * 4.0 * math.prod(q) * (2 if back else 1)
    rows, width = float(batch * tokens), float(heads * size)
    return Kernel(name, "attention", "attention", dtype, flop, nbytes, rows, width, float(size), k[1],
                  back, k[2])  # fmt: skip
