"""Checkpoints of virtual tensors: their shapes are written, not their bytes, and the time is charged.

A virtual tensor is saved as a real one that repeats a single element, so that a file of a checkpoint is
small, and what is loaded from it has the right shapes.
"""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_map

from ersatz.sim.emulate.virtual.known import values_of
from ersatz.sim.emulate.virtual.machine import Machine

SHAPES = "ersatz.shapes"  # of tensors that a file holds one element of


def install(machine: Machine) -> None:
    """Replace `torch.save`, `torch.load` and their like."""
    save, load = torch.save, torch.load

    def save_shapes(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        charged, plain = _written(machine, obj)
        _spend(machine, charged)
        if outside(f):
            machine.note(f"a checkpoint outside the working folder was not written: {os.fspath(f)}")
            return
        with _no_modes():
            save(plain, f, *args, **kwargs)

    def load_shapes(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        with _no_modes():
            found = load(f, "cpu", *args, **kwargs)
        if map_location is None or not str(map_location).startswith(machine.shown.surface):
            return found
        return tree_map(lambda x: x.to(map_location) if isinstance(x, torch.Tensor) else x, found)

    _planned()
    torch.save = torch.serialization.save = save_shapes
    torch.load = torch.serialization.load = load_shapes
    _safetensors(machine)


def _planned() -> None:
    """Let a distributed checkpoint pass whose pieces are those of the ranks that were run alone."""
    from torch.distributed.checkpoint import default_planner

    told = default_planner._validate_global_plan.__annotations__.get("return")
    valid: Any = True if told in (bool, "bool") else []  # in newer ones a list of what is wrong
    default_planner._validate_global_plan = lambda *args: valid


def _no_modes() -> Any:
    from torch.utils._python_dispatch import _disable_current_modes

    return _disable_current_modes()


def _written(machine: Machine, obj: Any) -> tuple[float, Any]:
    """Return the bytes of the virtual tensors in an object, and the object with real ones."""
    total = [0.0]

    def shape_of(value: Any) -> Any:
        if not isinstance(value, FakeTensor):
            return value
        total[0] += value.numel() * value.element_size()
        known = values_of(value)
        if known is not None:
            return known
        with _no_modes():
            one = torch.zeros((1,) * max(value.dim(), 1), dtype=value.dtype)
            return one.expand(value.shape) if value.dim() else one.reshape(())

    plain = tree_map(shape_of, obj)
    return total[0], plain


def _spend(machine: Machine, nbytes: float) -> None:
    machine.clock.synchronize()
    machine.clock.spend(nbytes / machine.host.storage_bandwidth)


def outside(target: Any) -> bool:
    """Tell whether a path leads out of the working folder."""
    if not isinstance(target, (str, os.PathLike)):
        return False
    here, there = os.path.realpath(os.getcwd()), os.path.realpath(os.fspath(target))
    return os.path.commonpath([here, there]) != here


def _safetensors(machine: Machine) -> None:
    """Write an element for each tensor of this format, which stores whole ones, and its shape beside it."""
    try:
        from safetensors import safe_open
        from safetensors import torch as safe
    except ImportError:
        return
    save, load = safe.save_file, safe.load_file

    def save_shapes(
        tensors: Any, filename: Any, metadata: dict[str, str] | None = None, **kwargs: Any
    ) -> None:
        charged, plain = _written(machine, dict(tensors))
        _spend(machine, charged)
        if outside(filename):
            machine.note(f"a checkpoint outside the working folder was not written: {filename}")
            return
        with _no_modes():
            small, shapes = {}, {}
            for name, tensor in plain.items():
                if tensor.stride() and not any(tensor.stride()):
                    shapes[name] = list(tensor.shape)
                    small[name] = tensor.flatten()[:1].clone()
                else:
                    small[name] = tensor.contiguous()
            save(small, filename, {**(metadata or {}), SHAPES: json.dumps(shapes)}, **kwargs)

    def load_shapes(filename: Any, device: Any = "cpu", **kwargs: Any) -> Any:
        with _no_modes():
            found = load(filename, "cpu", **kwargs)
            with safe_open(filename, "pt") as opened:
                shapes = json.loads((opened.metadata() or {}).get(SHAPES, "{}"))
            found = {k: v.expand(shapes[k]) if k in shapes else v for k, v in found.items()}
        away = torch.device(device).type == machine.shown.surface
        return {k: v.to(device) for k, v in found.items()} if away else found

    safe.save_file, safe.load_file = save_shapes, load_shapes
