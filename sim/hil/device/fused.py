"""Fused kernels of the stack: what training on Ascend and ROCm runs in the place of PyTorch's own pieces.

| backend | library | pieces |
|---|---|---|
| npu | torch_npu | norm, rotary, swiglu, fusion attention, grouped matmul |
| rocm | AITER | norm, flash attention, grouped matmul; its rotary and swiglu have no backward pass |
| rocm | hipBLASLt | products, by PyTorch's choice of a library |

A library counts when it can be imported, a piece of it when it gives PyTorch's results, forward and
backward, on the attached device. What was used and what was refused, with versions, is provenance.
Sources: the public documentation of torch_npu, AITER and PyTorch, read in November 2026; none of it
was at hand when this was written, so the check of every piece is what it rests on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module, metadata
from typing import Any

from ersatz.sim.hil.device.parts import (
    PLAIN,
    Heads,
    Pieces,
    Tensor,
    activate,
    rotary_table,
    split_heads,
)

AGREES = 0.02  # relative error of bf16 results and gradients, in the root mean square
EPSILON = 1e-5
MASK = 2048  # edge of the mask that torch_npu's causal attention asks for

Maker = Callable[[Any], Mapping[str, Callable[..., Any]]]  # of a library's module


@dataclass(frozen=True, slots=True)
class Library:
    """A library of fused kernels: how it is imported, and what makes its pieces."""

    name: str
    module: str
    packages: tuple[str, ...]  # that may tell its version
    makers: Mapping[str, Maker]  # by what a person calls the piece


def _npu_norm(npu: Any) -> Mapping[str, Callable[..., Any]]:
    call = npu.npu_rms_norm
    return {"norm": lambda x, weight: call(x, weight, epsilon=EPSILON)[0]}


def _npu_rotary(npu: Any) -> Mapping[str, Callable[..., Any]]:
    call = npu.npu_rotary_mul

    def rotate(
        qkv: Tensor, table: tuple[Tensor, Tensor], heads: Heads
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, v = split_heads(qkv, heads)
        turned = call(x, table[0].unsqueeze(0), table[1].unsqueeze(0))
        q, k = turned.split([heads.count, heads.kv], dim=2)
        return q, k, v

    return {"rotate": rotate}


def _npu_swiglu(npu: Any) -> Mapping[str, Callable[..., Any]]:
    call = npu.npu_swiglu
    return {"activate": lambda x, gated: call(x, dim=-1) if gated else activate(x, gated)}


def _npu_attention(npu: Any) -> Mapping[str, Callable[..., Any]]:
    call = npu.npu_fusion_attention

    @lru_cache(maxsize=1)
    def mask(device: Any) -> Tensor:
        import torch

        return torch.ones(MASK, MASK, dtype=torch.bool, device=device).triu(1)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, sequence, count, dim = q.shape
        out = call(q, k, v, count, "BSND", atten_mask=mask(q.device), scale=dim**-0.5,
                   sparse_mode=2)[0]  # fmt: skip
        return out.reshape(batch * sequence, count * dim)

    return {"attend": attend}


def _npu_grouped(npu: Any) -> Mapping[str, Callable[..., Any]]:
    call = npu.npu_grouped_matmul

    def multiply(x: Tensor, weight: Tensor) -> Tensor:
        groups, rows, _ = x.shape
        ends = _ends(groups, rows, x.device)
        done = call([x.flatten(0, 1)], [weight], group_list=ends, split_item=3, group_type=0)[0]
        return done.view(groups, rows, -1)

    def transposed(x: Tensor, grad: Tensor) -> Tensor:
        ends = _ends(x.shape[0], x.shape[1], x.device)
        left, right = x.flatten(0, 1).t(), grad.flatten(0, 1)
        done: Tensor = call([left], [right], group_list=ends, split_item=3, group_type=2)[0]
        return done

    return _with_gradient(multiply, transposed)


def _aiter_norm(aiter: Any) -> Mapping[str, Callable[..., Any]]:
    call = import_module("aiter.ops.triton.rmsnorm").rms_norm
    return {"norm": lambda x, weight: call(x, weight, EPSILON)}


def _aiter_attention(aiter: Any) -> Mapping[str, Callable[..., Any]]:
    call = aiter.flash_attn_func

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = call(q, k, v, causal=True)
        return (out[0] if isinstance(out, tuple) else out).flatten(0, 1).flatten(1)

    return {"attend": attend}


def _aiter_grouped(aiter: Any) -> Mapping[str, Callable[..., Any]]:
    module = import_module("aiter.ops.triton.gmm")

    def multiply(x: Tensor, weight: Tensor) -> Tensor:
        sizes = _sizes(x.shape[0], x.shape[1], x.device)
        return module.gmm(x.flatten(0, 1), weight, sizes, x.dtype).view(*x.shape[:2], -1)

    def transposed(x: Tensor, grad: Tensor) -> Tensor:
        sizes = _sizes(x.shape[0], x.shape[1], x.device)
        return module.ptgmm(x.flatten(0, 1).t(), grad.flatten(0, 1), sizes, x.dtype)

    return _with_gradient(multiply, transposed)


@lru_cache(maxsize=64)
def _ends(groups: int, rows: int, device: Any) -> Tensor:
    """Return where each group's rows end; kept, so that no call waits for the host."""
    import torch

    return torch.arange(1, groups + 1, device=device) * rows


@lru_cache(maxsize=64)
def _sizes(groups: int, rows: int, device: Any) -> Tensor:
    import torch

    return torch.full((groups,), rows, dtype=torch.int32, device=device)


def _with_gradient(
    multiply: Callable[..., Tensor], transposed: Callable[..., Tensor]
) -> Mapping[str, Callable[..., Any]]:
    """Return grouped products whose gradients are grouped products of the same library."""
    import torch

    class Grouped(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
            ctx.save_for_backward(x, weight)
            return multiply(x, weight)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
            x, weight = ctx.saved_tensors
            grad = grad.contiguous()
            return multiply(grad, weight.transpose(1, 2)), transposed(x, grad)

    return {"grouped": Grouped.apply, "grouped_weights": transposed}


LIBRARIES: Mapping[str, tuple[Library, ...]] = {
    "npu": (Library("torch_npu", "torch_npu", ("torch_npu",), {
        "norm": _npu_norm, "rotary": _npu_rotary, "swiglu": _npu_swiglu,
        "fusion attention": _npu_attention, "grouped matmul": _npu_grouped,
    }),),
    "rocm": (Library("AITER", "aiter", ("amd-aiter", "aiter"), {
        "norm": _aiter_norm, "flash attention": _aiter_attention, "grouped matmul": _aiter_grouped,
    }),),
}  # fmt: skip


def fused_pieces(torch: Any, backend: str, device: Any) -> Pieces:
    """Return the pieces to run on a device: the stack's fused ones where they are present and right."""
    pieces = PLAIN
    for library in LIBRARIES.get(backend, ()):
        with suppress(ImportError):
            pieces = _taken(library, import_module(library.module), pieces, device)
    blas = _preferred_blas(torch) if backend == "rocm" else ""
    return replace(pieces, libraries="; ".join(p for p in (pieces.libraries, blas) if p))


def _taken(library: Library, module: Any, pieces: Pieces, device: Any) -> Pieces:
    """Return the pieces with those of a library that agree with PyTorch."""
    used, refused = [], []
    for name, make in library.makers.items():
        try:
            changes: dict[str, Any] = dict(make(module))
            candidate = replace(pieces, **changes)
            off = disagreement(candidate, device)
        except Exception as error:  # a library that does not fit the device raises what it likes
            reason = (str(error) or type(error).__name__).splitlines()[0]
            refused.append(f"{name} ({reason[:80]})")
            continue
        if off > AGREES:
            refused.append(f"{name} (is {100 * off:.0f} % off PyTorch's result)")
        else:
            pieces = candidate
            used.append(name)
    words = f"{library.name} {_version(library, module)}: {', '.join(used) or 'nothing'}"
    words += f"; not {', '.join(refused)}" if refused else ""
    return replace(pieces, libraries="; ".join(p for p in (pieces.libraries, words) if p))


def _version(library: Library, module: Any) -> str:
    told = getattr(module, "__version__", "")
    for package in () if told else library.packages:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(package)
    return str(told) or "of unknown version"


def _preferred_blas(torch: Any) -> str:
    """Let products run on hipBLASLt, as training stacks on ROCm do; says so with its version."""
    try:
        chosen = torch.backends.cuda.preferred_blas_library("hipblaslt")
        told = dict(row[:2] for row in torch.cuda.tunable.get_validators())
    except (RuntimeError, AttributeError, TypeError, ValueError):
        return ""
    if not str(chosen).lower().endswith("lt"):
        return ""
    return f"hipBLASLt {told.get('HIPBLASLT_VERSION', 'of unknown version')}: products"


def disagreement(pieces: Pieces, device: Any) -> float:
    """Return the largest relative error of the pieces' results and gradients against PyTorch's own."""
    return max(_apart(case, pieces, device) for case in CASES)


Case = tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]


def _case_rotate(pieces: Pieces, device: Any, qkv: Tensor) -> Any:
    heads = Heads(1, 64, 4, 2, 64)
    return pieces.rotate(qkv, rotary_table(heads, device, qkv.dtype), heads)[:2]


CASES: tuple[Case, ...] = (
    (lambda pieces, device, x, w: pieces.norm(x, w), ((64, 256), (256,))),
    (_case_rotate, ((64, 512),)),
    (lambda pieces, device, x: pieces.activate(x, True), ((64, 256),)),
    (lambda pieces, device, q, k, v: pieces.attend(q, k, v),
     ((1, 64, 4, 64), (1, 64, 2, 64), (1, 64, 2, 64))),
    (lambda pieces, device, x, w: pieces.grouped(x, w), ((4, 64, 128), (4, 128, 64))),
    (lambda pieces, device, x, g: pieces.grouped_weights(x, g), ((4, 64, 128), (4, 64, 64))),
)  # fmt: skip


def _apart(case: Case, pieces: Pieces, device: Any) -> float:
    call, shapes = case
    ours, theirs = (_results(call, shapes, p, device) for p in (PLAIN, pieces))
    return max(
        float((a - b).norm() / a.norm().clamp_min(1e-12)) for a, b in zip(ours, theirs, strict=True)
    )


def _results(
    call: Callable[..., Any], shapes: tuple[tuple[int, ...], ...], pieces: Pieces, device: Any
) -> list[Tensor]:  # fmt: skip
    """Return results and gradients of one piece, in fp32 on the host."""
    import torch

    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(shape, generator=generator).to(device, torch.bfloat16).requires_grad_()
        for shape in shapes
    ]
    found = call(pieces, device, *inputs)
    outputs = found if isinstance(found, tuple) else (found,)
    # Squares, so that gradients depend on every number.
    total = sum((part.float() ** 2).sum() for part in outputs)
    grads = torch.autograd.grad(total, inputs, allow_unused=True)
    return [x.detach().float().cpu() for x in (*outputs, *grads) if x is not None]
