"""What kind of operator one is, asked once per operator: does it run, write, make or read values?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

aten = torch.ops.aten
INTEGERS = frozenset({torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})
_ALLOCATES = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})
_FREE = frozenset({"detach", "alias", "lift_fresh", "_unsafe_view", "_reshape_alias", "record_stream",
                   "resize_", "set_", "detach_"})  # fmt: skip
_CHOOSES = frozenset({"topk", "sort", "argsort", "argmax", "argmin", "multinomial", "bucketize",
                      "searchsorted", "max", "min", "kthvalue", "mode", "median"})  # fmt: skip
_FILLS: dict[str, float | None] = {
    "zeros_like": 0, "ones_like": 1, "new_zeros": 0, "new_ones": 1, "zero_": 0, "full_like": None,
    "new_full": None, "fill_": None,
}  # fmt: skip
_TESTS = {"isnan": False, "isinf": False, "isfinite": True}
_OVERWRITES = frozenset({"copy_", "zero_", "fill_", "normal_", "uniform_", "random_", "bernoulli_",
                         "exponential_", "_foreach_zero_", "_foreach_copy_", "log_normal_"})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Nature:
    """Facts of one operator that do not depend on its arguments."""

    name: str  # without overload: mm
    full: str  # aten.mm.default
    namespace: str
    composite: bool  # made of others, handed over whole
    free: bool  # costs nothing: views and allocations
    view: bool  # one result, which is a view of the only tensor among the arguments
    aliases: bool  # results share memory with arguments
    written: tuple[int, ...]  # positions of arguments that it writes
    written_names: tuple[str, ...]
    names: tuple[str, ...]  # of its arguments
    dynamic: bool  # the shape of its result depends on values
    chooses: bool  # makes integers of floats
    random: bool
    fills: bool  # with a value that is known whatever was there
    fill: float | None
    test: bool | None  # what a test of unknown floats answers
    overwrites: bool  # writes without reading what was there
    uninitialised: bool

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by name."""
        return {**dict(zip(self.names, args, strict=False)), **kwargs}


@cache
def nature(func: Any) -> Nature:
    """Return what kind of operator one is."""
    schema = func._schema
    name = func._overloadpacket.__name__
    returns = [r.alias_info for r in schema.returns]
    written = [i for i, a in enumerate(schema.arguments) if a.alias_info and a.alias_info.is_write]
    view = bool(returns) and all(r is not None and not r.is_write for r in returns)
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    own = any(has(func.name(), key) for key in ("CUDA", "PrivateUse1"))  # virtual.kernels
    composite = (
        func.namespace == "aten" and not own and has(func.name(), "CompositeImplicitAutograd")
    )
    return Nature(
        name=name,
        full=str(func),
        namespace=func.namespace,
        composite=composite,
        free=view or name in _FREE or name in _ALLOCATES,
        view=view and func.namespace == "aten" and _is_of_one(schema),
        aliases=any(r is not None for r in returns),
        written=tuple(i for i in written if not schema.arguments[i].kwarg_only),
        written_names=tuple(schema.arguments[i].name for i in written),
        names=tuple(a.name for a in schema.arguments),
        dynamic=_is_dynamic(func, name),
        chooses=(name in _CHOOSES and name != "max" and name != "min") or _pairs(func, name),
        random=torch.Tag.nondeterministic_seeded in func.tags,
        fills=name in _FILLS,
        fill=_FILLS.get(name),
        test=_TESTS.get(name),
        overwrites=name in _OVERWRITES,
        uninitialised=name in _ALLOCATES,
    )


def _is_of_one(schema: Any) -> bool:
    """Tell whether an operator takes one tensor, first, and returns one."""
    given = [str(a.type) for a in schema.arguments]
    return (
        len(schema.returns) == 1
        and str(schema.returns[0].type) == given[0] == "Tensor"
        and not any("Tensor" in kind for kind in given[1:])
    )


def _is_dynamic(func: Any, name: str) -> bool:
    shaped = torch.Tag.dynamic_output_shape in func.tags and func is not aten.index.Tensor
    return shaped or name == "bincount"


def _pairs(func: Any, name: str) -> bool:
    """Tell whether `max` or `min` returns where it found the value, too."""
    return name in ("max", "min") and len(func._schema.returns) == 2


def is_integer(dtype: torch.dtype) -> bool:
    """Tell whether values of a dtype are kept real."""
    return dtype in INTEGERS


Function = Callable[..., Any]
