"""What kernels and collectives of others are by their names: the same causes as a predicted step has.

A name tells less than a shape: a product of an expert that is not grouped is a product. What no rule knows
moves bytes ("elementwise"), which is what most kernels without a name of their own do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# The first that is found in a name wins. CUDA, HIP and CANN kernels; PyTorch operators.
KERNELS = tuple((category, re.compile(words, re.I)) for category, words in (
    ("optimizer", r"adam|multi_tensor_apply|lamb|_fused_sgd|applyadam"),
    ("attention", r"flash|fmha|attention|sdpa|attn"),
    ("experts", r"grouped|group_gemm|groupedmatmul|moe_gemm|_grouped_mm"),
    ("permute", r"permut|moe.*(sort|combine|dispatch|routing)|index_select|scatter|sort"),
    ("vocabulary", r"cross_?entropy|log_?softmax|nll_loss|embedding"),
    ("matrix", r"gemm|matmul|cutlass|cublas|cijk|xmma|nvjet|addmm|\bmm\b|bmm|linear|conv(olution)?[23]d"),
    ("cast", r"cast|convert|quant|transdata|_to_copy|copy_kernel|direct_copy"),
))  # fmt: skip
WAITS = re.compile(
    r"event_?wait|notify_?wait|event_?record|notify_?record|capture_wait|profiler", re.I
)
TALKS = re.compile(r"nccl|rccl|hccl|hcom|oneccl|mccl|c10d::", re.I)
COLLECTIVES = tuple((kind, re.compile(words, re.I)) for kind, words in (
    ("reduce_scatter", r"reduce_?scatter"), ("all_reduce", r"all_?reduce"), ("all_gather", r"all_?gather"),
    ("all_to_all", r"all_?to_?all|alltoall"), ("broadcast", r"broadcast"), ("barrier", r"barrier"),
    ("recv", r"\b(i?recv|receive)\b|_(batch)?(i?recv|receive)_"), ("send", r"send|point_?to_?point"),
    ("reduce", r"reduce"), ("gather", r"gather"), ("scatter", r"scatter"),
))  # fmt: skip
GROUPS = tuple((category, re.compile(words, re.I)) for category, words in (
    ("expert parallel", r"expert(?!.*data)|(^|_)ep(_|$)|moe"),
    ("pipeline", r"pipeline|(^|_)pp(_|$)|embedding"),
    ("data parallel", r"data|(^|_)dp(_|$)|fsdp|zero|shard|replicate"),
    ("context parallel", r"context|(^|_)cp(_|$)|ulysses"),
    ("tensor parallel", r"tensor|(^|_)tp(_|$)|model"),
))  # fmt: skip
SIZES = {"float": 4, "float32": 4, "bfloat16": 2, "half": 2, "float16": 2, "bf16": 2, "fp16": 2, "fp32": 4,
         "int": 4, "int32": 4, "long": 8, "int64": 8, "double": 8, "byte": 1, "char": 1, "int8": 1, "bool": 1,
         "uint8": 1, "float8_e4m3fn": 1, "float8_e5m2": 1}  # fmt: skip


def category_of(name: str) -> str:
    """Return what a kernel does."""
    return next((category for category, rule in KERNELS if rule.search(name)), "elementwise")


def collective_of(name: str) -> str:
    """Return the kind of a collective; nothing for what says none."""
    return next((kind for kind, rule in COLLECTIVES if rule.search(name)), "")


def cause_of(kind: str, group: str, size: int, sizes: Mapping[int, str]) -> str:
    """Return which parallelism a collective serves: by its group's name, by its kind, by the group's size.

    `sizes` are the parallelisms of a layout by the members of their groups, where just one has so many.
    """
    named = next((category for category, rule in GROUPS if rule.search(group)), "")
    if named:
        return named
    if kind == "all_to_all":
        return "expert parallel"
    if kind in ("send", "recv"):
        return "pipeline"
    return sizes.get(size) or (f"{kind} among {size}" if size else kind or "collective")
