"""What an operator asks of a device: the `Kernel` that it is, from its arguments and results.

Products, convolutions and attention are counted by their shapes; everything else by the bytes that it
reads and writes, each distinct element once. Gathers and scatters touch what they move, not the table.

Not modelled: caches between kernels, the choice of an algorithm by a library (FFT or Winograd
convolutions), workspaces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from ersatz.device_models.catalog.stack import Stack, words_of
from ersatz.device_models.kernels.kernel import Kernel, matmul, memory_kernel
from ersatz.sim.emulate.virtual.nature import Nature
from ersatz.sim.hil.device.operators import Signature, rounded

Tensor: TypeAlias = torch.Tensor
OURS = frozenset({"aten", "prims", "prim", "fsdp", "inductor"})  # namespaces whose bytes are right
_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.int8: "int8"}


@dataclass(slots=True)
class Call:
    """One operator with what it was given and what came of it."""

    nature: Nature
    args: dict[str, Any]
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    stack: Stack

    def tensor(self, name: str) -> Tensor:
        """Return an argument that is a tensor."""
        found: Tensor = self.args[name]
        return found


def kernel_of(call: Call) -> tuple[Kernel, bool]:
    """Return the kernel of an operator, and whether a rule of its own gave it."""
    rule = RULES.get(call.nature.name)
    if rule is not None:
        return rule(call), True
    kernel = memory_kernel(call.nature.name, moved(call), _category(call), dtype="bf16")
    return kernel, call.nature.namespace in OURS


def _category(call: Call) -> str:
    name = call.nature.name
    if name.startswith("_fused_") or name.startswith("_foreach_"):
        return "optimizer" if name.startswith("_fused_") else "foreach"
    return "elementwise"


def dtype_name(dtype: torch.dtype) -> str:
    """Return the catalogue's name of a number format, in which products run."""
    if dtype in _NAMES:
        return _NAMES[dtype]
    if dtype.itemsize == 1:
        return "fp8"
    tf32 = torch.backends.cuda.matmul.allow_tf32 and dtype is torch.float32
    return "tf32" if tf32 else "fp32"


def touched(tensor: Tensor) -> int:
    """Return the bytes of the distinct elements of a tensor."""
    count = math.prod(
        n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or n == 0
    )
    return count * tensor.element_size()


def moved(call: Call) -> float:
    """Return the bytes that an operator reads and writes."""
    read = sum(map(touched, call.inputs))
    known = {id(t) for t in call.inputs}
    written = sum(touched(t) for t in call.outputs if id(t) not in known)
    changed = sum(map(touched, _changed(call)))
    if call.nature.overwrites:
        read -= changed
    return float(read + written + changed)


def _changed(call: Call) -> Iterable[Tensor]:
    for name in call.nature.written_names:
        value = call.args.get(name)
        yield from (t for t in (value if isinstance(value, (list, tuple)) else [value])
                    if isinstance(t, torch.Tensor))  # fmt: skip


def _product(
    name: str, m: float, n: float, k: float, a: Tensor, out: Tensor, groups: int = 1
) -> Kernel:
    return matmul(name, float(m), float(n), float(k), dtype_name(a.dtype), groups=groups,
                  output_bytes=float(out.element_size()))  # fmt: skip


def _mm(call: Call) -> Kernel:
    a, b = _operands(call)
    return _product(call.nature.name, a.shape[0], b.shape[1], a.shape[1], a, call.outputs[0])


def _bmm(call: Call) -> Kernel:
    a, b = _operands(call)
    return _product(
        call.nature.name, a.shape[1], b.shape[2], a.shape[2], a, call.outputs[0], a.shape[0]
    )


def _operands(call: Call) -> tuple[Tensor, Tensor]:
    matrices = [t for t in call.args.values() if isinstance(t, torch.Tensor)]
    if "mat1" in call.args:
        return call.tensor("mat1"), call.tensor("mat2")
    if "batch1" in call.args:
        return call.tensor("batch1"), call.tensor("batch2")
    return matrices[0], matrices[1]


def _mv(call: Call) -> Kernel:
    a, b = _operands(call) if "vec" not in call.args else (call.inputs[-2], call.inputs[-1])
    rows = a.shape[0] if a.dim() > 1 else 1
    return _product(call.nature.name, rows, 1, b.shape[0], a, call.outputs[0])


def _grouped(call: Call) -> Kernel:
    """One product per group, of ragged rows where an operand has no group axis."""
    a, b, out = call.inputs[0], call.inputs[1], call.outputs[0]
    groups = next((t.shape[0] for t in (a, b, out) if t.dim() == 3), 1)
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    if a.dim() == 2 and b.dim() == 3:
        m = max(m // groups, 1)
    elif a.dim() == 2 and b.dim() == 2:
        k = max(k // groups, 1)
    elif b.dim() == 2:
        n = max(n // groups, 1)
    return _product("grouped product", m, n, k, a, out, groups)


def _convolution(call: Call) -> Kernel:
    x, weight, out = call.tensor("input"), call.tensor("weight"), call.outputs[0]
    inner = math.prod(weight.shape[1:])
    pixels = out.shape[0] * math.prod(out.shape[2:])
    groups = int(call.args.get("groups", 1))
    return _product("convolution", pixels, weight.shape[0] / groups, inner, x, out, groups)


def _convolution_backward(call: Call) -> Kernel:
    grad, x, weight = call.tensor("grad_output"), call.tensor("input"), call.tensor("weight")
    wanted = sum(call.args["output_mask"][:2])
    inner = math.prod(weight.shape[1:])
    pixels = grad.shape[0] * math.prod(grad.shape[2:])
    groups = int(call.args.get("groups", 1))
    return _product("convolution back", pixels, weight.shape[0] / groups, inner * max(wanted, 1), x,
                    grad, groups)  # fmt: skip


def attention_kernel(
    stack: Stack, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, backward: bool = False,
    mean_keys: float = 0.0,
) -> Kernel:  # fmt: skip
    """Return the kernel of fused attention over (batch, heads, tokens, size).

    `mean_keys` is what a query sees on average, where a mask says it; else half of them under the
    causal mask. Five products backward for two forward, since scores are computed again.
    """
    batch, heads, rows, size = q.shape
    keys, values = k.shape[2], v.shape[3]
    reach = mean_keys or ((keys + 1) / 2 if causal and rows == keys else float(keys))
    width = (3 * size + 2 * values) if backward else size + values
    flop = 2.0 * batch * heads * rows * reach * width
    nbytes = (touched(q) + touched(k) + touched(v) + touched(q)) * (2.5 if backward else 1.0)
    return Kernel("attention back" if backward else "attention", "attention", "attention",
                  dtype_name(q.dtype), flop, nbytes, m=float(batch * rows), n=float(heads * values),
                  k=float(size), groups=k.shape[1], backward=backward, sequence=round(2 * reach),
                  versions=words_of(stack.attention_kernel), slowdown=1.0 / stack.attention_factor,
                  portable=stack.portable_attention, aligned=size * q.element_size() % 16 == 0,
                  repeated=flop * size / width if backward else 0.0)  # fmt: skip


def _attention(call: Call) -> Kernel:
    return attention_kernel(call.stack, call.tensor("query"), call.tensor("key"), call.tensor("value"),
                            causal=bool(call.args.get("is_causal", False)),
                            backward=call.nature.name.endswith("backward"))  # fmt: skip


def _gather(call: Call) -> Kernel:
    out = sum(map(touched, call.outputs))
    chosen = sum(touched(t) for t in call.inputs if not t.is_floating_point())
    return memory_kernel(call.nature.name, 2.0 * out + chosen)


def _scatter(call: Call) -> Kernel:
    """What is written stays; the source is read, its places read and written."""
    given = call.inputs[1:] or call.inputs
    source = sum(touched(t) for t in given if t.is_floating_point())
    chosen = sum(touched(t) for t in given if not t.is_floating_point())
    fresh = 0 if call.nature.written_names else sum(map(touched, call.outputs)) * 2
    return memory_kernel(call.nature.name, 3.0 * source + chosen + fresh)


def _embedding_back(call: Call) -> Kernel:
    grad = touched(call.inputs[0])
    return memory_kernel("embedding back", 3.0 * grad + sum(map(touched, call.outputs)))


Rule = Callable[[Call], Kernel]
RULES: dict[str, Rule] = {
    **dict.fromkeys(("mm", "addmm", "_scaled_mm", "_int_mm", "_addmm_activation"), _mm),
    **dict.fromkeys(("bmm", "baddbmm"), _bmm),
    **dict.fromkeys(("mv", "addmv", "dot", "vdot"), _mv),
    **dict.fromkeys(("_grouped_mm", "_scaled_grouped_mm"), _grouped),
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    **{f"_scaled_dot_product_{kind}_attention{back}": _attention
       for kind in ("flash", "efficient", "cudnn", "fused") for back in ("", "_backward")},
    **dict.fromkeys(("embedding", "index", "index_select", "gather", "take", "_unsafe_index"), _gather),
    **dict.fromkeys(("index_put_", "index_add_", "scatter_", "scatter_add_", "scatter_add", "index_put",
                     "index_add", "_index_put_impl_", "index_copy_", "scatter"), _scatter),
    "embedding_dense_backward": _embedding_back,
}  # fmt: skip


def signature_of(kind: Nature, args: Any, kwargs: dict[str, Any]) -> Signature:
    """Return what makes an operator take the time that it takes: shapes, strides, formats, options."""

    def form(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return ("tensor", tuple(value.shape), value.stride(), str(value.dtype).removeprefix("torch."),
                    value.device.type)  # fmt: skip
        if isinstance(value, (list, tuple)):
            return tuple(form(x) for x in value)
        if isinstance(value, torch.dtype):
            return ("dtype", str(value).removeprefix("torch."))
        if isinstance(value, torch.device):
            return ("device",)
        if isinstance(value, float):
            return rounded(value)
        return value if isinstance(value, (int, bool, str, type(None))) else ("left out",)

    return (kind.full, form(args), tuple((k, form(v)) for k, v in sorted(kwargs.items())))
