"""`torch.npu` of a virtual Ascend device, and a stand-in for the package `torch_npu`; CANN is not needed.

PyTorch lets a private device be named from Python. Its automatic casts are not PyTorch's to know, so
they are registered here: products in the low format, norms, sums, losses in fp32.
"""

from __future__ import annotations

import os
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ersatz.sim.emulate.surface import accelerator, attention
from ersatz.sim.emulate.virtual import kernels
from ersatz.sim.emulate.virtual.machine import Machine

NAME = "npu"
CANN = (
    "/usr/local/Ascend/ascend-toolkit/latest"  # where its installer puts it; nothing is read there
)
LOW = (
    "linear",
    "matmul",
    "mm",
    "bmm",
    "addmm",
    "baddbmm",
    "scaled_dot_product_attention",
    "einsum",
)
WIDE = ("layer_norm", "rms_norm", "exp", "log", "softmax.int", "log_softmax.int", "cross_entropy_loss",
        "nll_loss", "mse_loss", "norm.Scalar", "group_norm", "pow.Tensor_Scalar", "cumsum")  # fmt: skip
SETTINGS = ("set_compile_mode", "set_option", "enable_deterministic_with_backward", "set_aoe",
            "clear_npu_overflow_flag", "set_mm_bmm_format_nd")  # fmt: skip
AUTOCAST = "AutocastPrivateUse1"
_module = types.ModuleType("torch.npu")
_kept: list[Any] = []


def name_device() -> None:
    """Make `npu` a device of PyTorch."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _module.__dict__.update(
        _is_in_bad_fork=lambda: False, current_device=lambda: 0, device_count=lambda: 1,
        is_available=lambda: True, is_initialized=lambda: True, get_amp_supported_dtype=_low_formats,
        manual_seed_all=lambda seed: None, _lazy_init=lambda: None,
    )  # fmt: skip
    _setup_privateuseone_for_python_backend(NAME, backend_module=_module)


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Take a setting of the compiler of operators, which changes nothing here."""


def _optimizers() -> types.ModuleType:
    """Return `torch_npu.optim`: PyTorch's own, each step one kernel."""
    found = types.ModuleType("torch_npu.optim")

    def one_kernel(own: Any) -> type:
        class Fused(own):
            """An optimizer of Ascend's, which is PyTorch's in one kernel."""

            def __init__(self, params: Any, *args: Any, **kwargs: Any) -> None:
                super().__init__(params, *args, **{**kwargs, "fused": True})

        return Fused

    for name in ("AdamW", "Adam", "SGD"):
        setattr(found, f"NpuFused{name}", one_kernel(getattr(torch.optim, name)))
    return found


def _low_formats() -> list[Any]:
    return [torch.bfloat16, torch.float16]


def install(machine: Machine, shapes: FakeTensorMode) -> None:
    """Put the virtual device behind `torch.npu`, and a package `torch_npu` beside it."""
    os.environ.setdefault("ASCEND_HOME_PATH", CANN)
    accelerator.install(machine, _module)
    _module.__dict__.update(get_amp_supported_dtype=_low_formats, amp=_amp(), random=_module,
                            config=SimpleNamespace(allow_internal_format=True),
                            **dict.fromkeys(SETTINGS, _nothing))  # fmt: skip
    sys.modules["torch.npu"] = _module
    torch.npu = _module
    attention.install(("AutogradPrivateUse1", "PrivateUse1"))
    kernels.install("PrivateUse1", kernels.NPU, shapes)
    _casts()
    _package(machine)


def _amp() -> types.ModuleType:
    """Return `torch.npu.amp`."""
    found = types.ModuleType("torch.npu.amp")

    def autocast(
        enabled: bool = True, dtype: Any = torch.float16, cache_enabled: bool = True
    ) -> Any:
        return torch.autocast(NAME, dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)

    def GradScaler(*args: Any, **kwargs: Any) -> Any:
        return torch.amp.GradScaler(NAME, *args, **kwargs)

    found.__dict__.update(autocast=autocast, GradScaler=GradScaler)
    sys.modules["torch.npu.amp"] = found
    return found


def _casts() -> None:
    """Register which operators run in the low format under autocast, and which in fp32."""
    library = torch.library.Library("aten", "IMPL")
    for name in (*LOW, *WIDE):
        packet, _, overload = name.partition(".")
        op = getattr(torch.ops.aten, packet)
        found = getattr(op, overload or "default", None)
        if found is not None:
            library.impl(name, _cast(found, wide=name in WIDE), AUTOCAST)
    rest = torch.library.Library("_", "IMPL")
    rest.fallback(torch.library.fallthrough_kernel, AUTOCAST)
    _kept.extend((library, rest))


def _cast(op: Any, *, wide: bool) -> Any:
    """Return an operator whose floats are cast first."""
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def run(*args: Any, **kwargs: Any) -> Any:
        target = torch.float32 if wide else torch.get_autocast_dtype(NAME)

        def cast(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                floats = value.is_floating_point() and value.dtype != torch.float64
                return value.to(target) if floats else value
            return [cast(v) for v in value] if isinstance(value, (list, tuple)) else value

        named = {k: cast(v) if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}
        given = [cast(a) if isinstance(a, torch.Tensor) or _tensors(a) else a for a in args]
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return op(*given, **named)

    return run


def _tensors(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in value)


def _package(machine: Machine) -> None:
    """Put a stand-in for `torch_npu` in place: its device, its contributions, its common operators."""
    from ersatz.sim.emulate.surface import npu_operators, npu_transfer

    package = types.ModuleType("torch_npu")
    place = Path(torch.__file__).parents[1] / "torch_npu" / "__init__.py"  # where it would lie
    package.__dict__.update(
        __path__=[], __file__=str(place), __version__=torch.__version__.split("+")[0], npu=_module
    )
    contrib = types.ModuleType("torch_npu.contrib")
    contrib.__path__ = []
    transfer = npu_transfer.module(machine, _module)
    for name, value in npu_operators.operators(machine).items():
        setattr(package, name, value)
    package.__getattr__ = npu_operators.missing  # type: ignore[method-assign]
    package.contrib = contrib  # type: ignore[attr-defined]
    package.optim = _optimizers()  # type: ignore[attr-defined]
    for module in (
        package,
        contrib,
        package.optim,
        _module,
    ):  # packages ask for it before they import
        module.__spec__ = ModuleSpec(module.__name__, None, is_package=True)
    sys.modules.update(
        {
            "torch_npu": package,
            "torch_npu.contrib": contrib,
            "torch_npu.npu": _module,
            "torch_npu.npu.amp": _module.amp,
            "torch_npu.optim": package.optim,
        }
    )
    sys.meta_path.insert(0, npu_transfer.Finder(transfer))
