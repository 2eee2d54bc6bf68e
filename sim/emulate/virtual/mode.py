"""The heart of an emulated rank: every operator that PyTorch dispatches comes through here.

What touches no virtual device runs for real. The rest runs on shapes (`FakeTensorMode`), on real
values where they are known (`known`), and is charged to the machine: time, memory, trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ersatz.sim.emulate.virtual.costs import Call, kernel_of, signature_of, touched
from ersatz.sim.emulate.virtual.flexible import higher_order
from ersatz.sim.emulate.virtual.known import (
    by_policy,
    cell_of,
    forget,
    keep,
    most_of,
    values_of,
)
from ersatz.sim.emulate.virtual.machine import Found, Machine, on_device
from ersatz.sim.emulate.virtual.nature import Nature, is_integer, nature
from ersatz.sim.emulate.virtual.real import RealValues, is_whole, shapeless

aten = torch.ops.aten
MANY = 32  # tensors of one operator
_DEVICE = torch.ops.prim.device.default
LARGE = 1 << 20  # floats on the host beyond it are virtual, too
COLLECTIVES = frozenset({"c10d", "_c10d_functional", "_c10d_functional_autograd"})
_PLAIN = frozenset({torch.Tensor, FakeTensor, torch.nn.Parameter, torch.nn.Buffer})
_active = torch._C._get_dispatch_mode
_FAKE = torch._C._TorchDispatchModeKey.FAKE
Handler = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


def shapes_only() -> FakeTensorMode:
    """Return the mode in which operators run on shapes; one per process."""
    mode = FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False)
    mode.allow_scalar_outputs = False
    FakeTensorMode.avoid_device_init = property(lambda self: True)
    FakeTensor.constant = property(
        lambda self: None if self.fake_mode is mode else self.__dict__.get("_constant"),
        lambda self, value: self.__dict__.__setitem__("_constant", value),
    )
    torch._C._set_only_lift_cpu_tensors(True)
    return mode


class Emulation(TorchDispatchMode):
    """Sends what runs on the virtual device to the machine. Each thread enters one of its own."""

    supports_higher_order_operators = True

    def __init__(self, machine: Machine, shapes: FakeTensorMode, world: Handler) -> None:
        super().__init__()
        self.machine, self.shapes, self.world = machine, shapes, world
        self.kind = machine.shown.surface
        self.values = RealValues(machine)
        self.fresh: dict[torch.device, dict[str, Any]] = {}  # attributes of a new tensor

    def another(self) -> Emulation:
        """Return a mode for another thread."""
        return Emulation(self.machine, self.shapes, self.world)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """Run one operator."""
        kwargs = kwargs or {}
        if func is _DEVICE:
            first = args[0]
            return first.device if isinstance(first, FakeTensor) else func(*args, **kwargs)
        if not _PLAIN.issuperset(types):
            return NotImplemented
        other = _active(_FAKE)
        if other is not None and other is not self.shapes:
            return func(*args, **kwargs)  # somebody else asks for shapes: not the script's work
        if isinstance(func, HigherOrderOperator):
            return higher_order(self.machine, self.shapes, func, args, kwargs)
        kind = nature(func)
        if kind.composite:
            with self:
                return func.decompose(*args, **kwargs)
        return self._dispatch(func, kind, args, kwargs)

    def _dispatch(
        self, func: Any, kind: Nature, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if kind.view and _is_unknown(args[0], self.shapes):
            return self._view(func, args, kwargs)
        leaves = tree_leaves((args, kwargs))
        inputs = [x for x in leaves if isinstance(x, torch.Tensor)]
        device = next((x for x in leaves if isinstance(x, torch.device)), None)
        virtual = any(isinstance(x, FakeTensor) for x in inputs)
        if not virtual and (device is None or device.type != self.kind):
            return self._for_real(func, kind, args, kwargs, inputs, device)
        self.machine.dispatches += 1
        if kind.namespace in COLLECTIVES:
            return self.world(func, args, kwargs)
        special = getattr(self, f"_on_{kind.name}", None)
        if special is not None:
            return special(func, args, kwargs, inputs)
        return self._run(func, kind, args, kwargs, inputs)

    def _view(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """Return a view. Every second operator is one, and `FakeTensorMode` takes 0.2 ms for each."""
        if args[0].device.type == self.kind:
            self.machine.dispatches += 1
            self.machine.track(args[0])
        return self._shaped(func, args, kwargs, args[0].device)

    def _shaped(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: torch.device
    ) -> torch.Tensor:
        """Run an operator on the shapes alone, without what `FakeTensorMode` remembers of earlier ones."""
        with in_kernel_invocation_manager(self.shapes):
            made = func(*args, **kwargs)
            found = self.fresh.get(device)
            if found is None:
                one = FakeTensor(self.shapes, torch.empty((), device="meta"), device)
                found = self.fresh[device] = dict(one.__dict__)
            out = torch.Tensor._make_subclass(FakeTensor, made, made.requires_grad, dispatch_device=True,
                                              device_for_backend_keys=device)  # fmt: skip
        torch._C._set_throw_on_mutable_data_ptr(out)
        out.__dict__.update(found)  # what its constructor would set, twenty attributes one by one
        return out

    def _on__grouped_mm(self, func: Any, args: Any, kwargs: Any, inputs: Any) -> Any:
        """Multiply groups: kernels take every float format, PyTorch's rule for shapes bf16 alone."""
        kind, plain = nature(func), args[0].dtype
        if plain is torch.bfloat16:
            return self._run(func, kind, args, kwargs, inputs)
        with self.shapes:
            narrow = [x.to(torch.bfloat16) for x in args[:2]]
            made: torch.Tensor = func(*narrow, *args[2:], **kwargs).to(plain)
        self.machine.track(made)
        self._charge(kind, args, kwargs, inputs, [made], func)
        return made

    def _on_cat(self, func: Any, args: Any, kwargs: Any, inputs: Any) -> Any:
        """Join pieces; of one for each of many ranks `FakeTensorMode` would look at each several times."""
        many = len(inputs) > MANY and not kwargs.get("out")
        if not many or not all(_is_unknown(x, self.shapes) for x in inputs):
            return self._run(func, nature(func), args, kwargs, inputs)
        made = self._shaped(func, args, kwargs, inputs[0].device)
        self.machine.track(made)
        self._charge(nature(func), args, kwargs, inputs, [made], func)
        return made

    def _for_real(
        self, func: Any, kind: Nature, args: tuple[Any, ...], kwargs: dict[str, Any],
        inputs: Sequence[torch.Tensor], device: torch.device | None,
    ) -> Any:  # fmt: skip
        """Run what touches no virtual device; large floats on the host become virtual."""
        if kind.namespace in COLLECTIVES:
            return self.world(func, args, kwargs)
        if kwargs.get("pin_memory"):
            kwargs = {**kwargs, "pin_memory": False}
        if (
            not inputs
            and (device is None or device.type == "cpu")
            and _is_large(kind, args, kwargs)
        ):
            with self.shapes:
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    # ---- operators that need more than their shapes

    def _on__local_scalar_dense(self, func: Any, args: Any, kwargs: Any, inputs: Any) -> Any:
        if args[0].device.type == self.kind:
            self.machine.read("item()")
        return self.real(args[0], "item()").item()

    def _on_equal(self, func: Any, args: Any, kwargs: Any, inputs: Any) -> bool:
        self.machine.read("equal()")
        one, other = values_of(args[0]), values_of(args[1])
        if one is None or other is None:
            self.machine.policy("equal() taken as true")
            return True
        return torch.equal(one, other)

    def _on__pin_memory(self, func: Any, args: Any, kwargs: Any, inputs: Any) -> Any:
        return args[0]

    def _on_is_pinned(self, func: Any, args: Any, kwargs: Any, inputs: Any) -> bool:
        return False

    def _on_record_stream(self, func: Any, args: Any, kwargs: Any, inputs: Any) -> None:
        return None

    def _on__amp_foreach_non_finite_check_and_unscale_(
        self, func: Any, args: Any, kwargs: Any, inputs: Any
    ) -> None:
        """Gradients are finite: unscale them, and leave the flag at zero."""
        self._charge(nature(func), args, kwargs, inputs, [], None)
        for tensor in args[0]:
            forget(tensor)
        keep(args[1], torch.zeros(args[1].shape, dtype=args[1].dtype))

    def _on__to_copy(self, func: Any, args: Any, kwargs: Any, inputs: Any) -> Any:
        target = kwargs.get("device")
        source = args[0]
        if target is None or source.device.type == torch.device(target).type:
            return self._run(func, nature(func), args, kwargs, inputs)
        if torch.device(target).type == self.kind:
            return self._to_device(func, args, kwargs)
        return self._to_host(func, args, kwargs)

    def _to_device(self, func: Any, args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        with self.shapes:
            made: torch.Tensor = func(*args, **kwargs)
        self.machine.track(made)
        values = values_of(args[0])
        if values is not None and values.numel() <= most_of(made.dtype):
            keep(made, func(values, **{**kwargs, "device": torch.device("cpu")}))
        self.machine.copy(touched(made), "host to device", waits=not kwargs.get("non_blocking"))
        return made

    def _to_host(self, func: Any, args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        source = args[0]
        if source.device.type == self.kind:
            self.machine.copy(
                touched(source), "device to host", waits=not kwargs.get("non_blocking")
            )
        if values_of(source) is None and source.numel() > LARGE:
            with self.shapes:
                made: torch.Tensor = func(*args, **kwargs)
            return made
        plain = {
            k: v for k, v in kwargs.items() if k not in ("device", "non_blocking", "pin_memory")
        }
        real: torch.Tensor = func(self.real(source, "copy to the host"), **plain)
        return real

    def _on_copy_(self, func: Any, args: Any, kwargs: Any, inputs: Any) -> Any:
        target, source = args[0], args[1]
        waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        if not isinstance(target, FakeTensor):
            if source.device.type == self.kind:
                self.machine.copy(touched(source), "device to host", waits=waits)
            values = values_of(source)
            if values is None and source.numel() > LARGE:
                return target  # what nobody can know is not written
            return func(target, self.real(source, "copy to the host") if values is None else values)
        if target.device.type != source.device.type:
            self.machine.copy(touched(target), "between host and device", waits=waits)
            self._copy_values(func, target, source)
            return target
        out = self._run(func, nature(func), args, kwargs, inputs)
        return out

    def _copy_values(self, func: Any, target: torch.Tensor, source: torch.Tensor) -> None:
        new, old = values_of(source), values_of(target)
        if new is not None and old is not None:
            func(old, new)
        elif new is not None and is_whole(target) and target.numel() <= most_of(target.dtype):
            keep(target, new.to(target.dtype).expand(target.shape).clone())
        else:
            forget(target)

    def _on_histc(self, func: Any, args: Any, kwargs: Any, inputs: Any) -> Any:
        """Count integers as floats: the CPU has no other histogram, an accelerator has."""
        values = values_of(args[0])
        if values is None or not is_integer(values.dtype):
            return self._run(func, nature(func), args, kwargs, inputs)
        counts = func(values.float(), *args[1:], **kwargs).to(values.dtype)
        self._charge(nature(func), args, kwargs, inputs, [], None)
        return self.lift(counts)

    def _on_index(self, func: Any, args: Any, kwargs: Any, inputs: Any) -> Any:
        """Masks have become places, for how many there are is a value."""
        places = [self._unmasked(i) for i in args[1]]
        flat = [p for group in places for p in group]
        shaped = (args[0], flat)
        return self._run(
            func, nature(func), shaped, kwargs, [args[0], *(p for p in flat if p is not None)]
        )

    def _unmasked(self, mask: torch.Tensor | None) -> list[torch.Tensor | None]:
        if mask is None or mask.dtype not in (torch.bool, torch.uint8):
            return [mask]
        self.machine.read("a mask")
        values = values_of(mask)
        if values is None:
            self.machine.policy("a mask taken as every second")
            values = (torch.arange(mask.numel()) % 2 == 0).reshape(mask.shape)
        return [self.lift(p) for p in values.nonzero(as_tuple=True)]

    # ---- the ordinary way

    def _run(
        self, func: Any, kind: Nature, args: tuple[Any, ...], kwargs: dict[str, Any],
        inputs: Sequence[torch.Tensor],
    ) -> Any:  # fmt: skip
        real = self.values.result(func, kind, args, kwargs, inputs)
        if kind.dynamic:
            if real is None:
                self.machine.policy(f"{kind.name} of unknown values, drawn")
                real = self.values.by_chance(func, args, kwargs)
            self.machine.read(kind.name)
            out = tree_map(lambda x: self.lift(x) if isinstance(x, torch.Tensor) else x, real)
        else:
            out = self._result(func, kind, args, kwargs, real)
        outputs = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        self._keep_values(kind, args, kwargs, inputs, outputs, real)
        mine = on_device(outputs, self.kind)
        if self.machine.silent:
            return out
        for tensor in mine:
            self.machine.track(tensor)
        if not kind.free and (mine or on_device(inputs, self.kind)):
            self._charge(kind, args, kwargs, inputs, outputs, func)
        return out

    def _result(
        self, func: Any, kind: Nature, args: tuple[Any, ...], kwargs: dict[str, Any], real: Any
    ) -> Any:
        """Return virtual results: by the operator's shapes, or by running it where nobody wrote them."""
        try:
            with self.shapes:
                return func(*args, **kwargs)
        except (NotImplementedError, RuntimeError) as error:
            if not shapeless(error):
                raise
        made = self.values.for_shapes(func, kind, args, kwargs) if real is None else real
        self.machine.policy(f"shapes of {kind.full} found by running it on the CPU")
        return tree_map(lambda x: self.lift(x) if isinstance(x, torch.Tensor) else x, made)

    def _keep_values(
        self, kind: Nature, args: tuple[Any, ...], kwargs: dict[str, Any],
        inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor], real: Any,
    ) -> None:  # fmt: skip
        if real is None:
            named = kind.bound(args, kwargs) if kind.written_names else {}
            for name in kind.written_names:
                for tensor in tree_leaves(named.get(name)):
                    if kind.name == "copy_" and values_of(args[1]) is not None:
                        self._copy_values(aten.copy_.default, tensor, args[1])
                    else:
                        forget(tensor)
            return
        values = [x for x in tree_leaves(real) if isinstance(x, torch.Tensor)]
        for tensor, value in zip(outputs, values, strict=False):
            if kind.written and values_of(tensor) is value:
                continue
            keep(tensor, value, cell_of(value, inputs) if kind.aliases else None)

    def _charge(
        self, kind: Nature, args: tuple[Any, ...], kwargs: dict[str, Any],
        inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor], func: Any,
    ) -> None:  # fmt: skip
        call = Call(kind, kind.bound(args, kwargs), on_device(inputs, self.kind),
                    on_device(outputs, self.kind), self.machine.stack)  # fmt: skip
        kernel, known = kernel_of(call)
        signature = signature_of(kind, args, kwargs) if func else None
        found: Found = ((), False)
        if self.machine.measure and func:
            given = [*args, *(v for _, v in sorted(kwargs.items()))]
            found = self.machine.found_in_cache(given, outputs)
        self.machine.run_kernel(kernel, kind.full, known, signature, found)

    # ---- values

    def real(self, tensor: torch.Tensor, what: str) -> torch.Tensor:
        """Return the values of a tensor, by policy where nobody knows them."""
        values = values_of(tensor)
        if values is None:
            self.machine.policy(f"{what} of an unknown {str(tensor.dtype).removeprefix('torch.')}")
            values = by_policy(tensor, self.machine.seat.unknown_float)
        return values

    def lift(self, values: torch.Tensor) -> torch.Tensor:
        """Return a virtual tensor with real values."""
        with self.shapes:
            made: torch.Tensor = torch.empty_strided(
                values.size(), values.stride(), dtype=values.dtype, device=self.kind
            )
        self.machine.track(made)
        keep(made, values)
        return made


def _is_unknown(tensor: object, shapes: FakeTensorMode) -> bool:
    """Tell whether a tensor is a virtual one of the script's whose values nobody knows."""
    if not isinstance(tensor, FakeTensor) or type(tensor) is not FakeTensor:
        return False
    return tensor.fake_mode is shapes and values_of(tensor) is None


def _is_large(kind: Nature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether a factory makes so many floats on the host that they are better virtual."""
    if kind.namespace != "aten":
        return False
    named = kind.bound(args, kwargs)
    dtype = named.get("dtype") or torch.get_default_dtype()
    shape = named.get("size")
    whole = isinstance(dtype, torch.dtype) and is_integer(dtype)
    return not whole and isinstance(shape, (list, tuple)) and math.prod(shape) > LARGE
