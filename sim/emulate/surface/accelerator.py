"""The functions of `torch.cuda` (or `torch.npu`) as the virtual device answers them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from ersatz.sim.emulate.properties import Properties, known_properties
from ersatz.sim.emulate.surface import graphs
from ersatz.sim.emulate.surface.memory import memory_of
from ersatz.sim.emulate.surface.streams import Event, Stream, StreamContext
from ersatz.sim.emulate.virtual.machine import Machine

Function = Callable[..., Any]


def surface_of(machine: Machine) -> dict[str, Any]:
    """Return what the module of the virtual device offers, by name."""
    return {**_devices(machine), **memory_of(machine), **_streams(machine), **_random(machine),
            **graphs.surface_of(machine)}  # fmt: skip


def properties(machine: Machine) -> Properties:
    """Return the properties of the device as PyTorch gives them."""
    known = known_properties(machine.device, machine.shown)
    return Properties(
        machine.device.title, machine.shown.surface, known, machine.policy,
        uuid=f"GPU-ersatz-{machine.seat.rank:012d}", pci_bus_id=0,
    )  # fmt: skip


def _devices(machine: Machine) -> dict[str, Any]:
    count = machine.seat.per_node if machine.seat.world > 1 else 1
    found = properties(machine)

    def get_device_properties(device: Any = None) -> Properties:
        return found

    def get_device_name(device: Any = None) -> str:
        return machine.shown.name

    def get_device_capability(device: Any = None) -> tuple[int, int]:
        return machine.shown.capability

    def set_device(device: Any) -> None:
        machine.device_index = _index(device, machine.device_index)

    def synchronize(device: Any = None) -> None:
        machine.synchronize()

    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return machine.device.supports("bf16") or including_emulation

    def get_arch_list() -> list[str]:
        if machine.shown.hip:
            return [found.gcnArchName.partition(":")[0]]
        return ["sm_{}{}".format(*machine.shown.capability)]

    def can_device_access_peer(device: Any, peer: Any) -> bool:
        return True

    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "init": lambda: None,
        "_lazy_init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "_is_compiled": lambda: True,
        "device_count": lambda: count,
        "_device_count_nvml": lambda: count,
        "current_device": lambda: machine.device_index,
        "get_arch_list": get_arch_list,
        "get_device_properties": get_device_properties,
        "_get_device_properties": get_device_properties,
        "get_device_name": get_device_name,
        "get_device_capability": get_device_capability,
        "set_device": set_device,
        "synchronize": synchronize,
        "is_bf16_supported": is_bf16_supported,
        "can_device_access_peer": can_device_access_peer,
        "device": _device_context(machine),
        "_DeviceGuard": _device_context(machine),
        "ipc_collect": lambda: None,
        **_sensors(machine),
        "_sleep": lambda cycles: machine.clock.spend(cycles / machine.device.clock_hz),
    }


def _sensors(machine: Machine) -> dict[str, Any]:
    """Return what a device that is not there would sense; each answer is a policy of the report."""

    def sensed(what: str, value: int) -> Callable[..., int]:
        def told(device: Any = None) -> int:
            machine.policy(f"{what} of the device, {value}: no such device is there")
            return value

        return told

    return {
        "utilization": sensed("utilization in %", 100),
        "temperature": sensed("temperature in C", 60),
        "power_draw": sensed("power in mW", int(1000 * machine.device.power_max_w)),
        "clock_rate": lambda device=None: int(machine.device.clock_hz / 1e6),
    }


def _index(device: Any, current: int) -> int:
    if device is None:
        return current
    if isinstance(device, int):
        return device
    found = torch.device(device).index
    return current if found is None else found


def _device_context(machine: Machine) -> type:
    class device:
        """Context in which a device is the current one."""

        def __init__(self, index: Any) -> None:
            self.index = index

        def __enter__(self) -> None:
            self.before = machine.device_index
            machine.device_index = _index(self.index, machine.device_index)

        def __exit__(self, *error: object) -> None:
            machine.device_index = self.before

    return device


def _streams(machine: Machine) -> dict[str, Any]:
    def current_stream(device: Any = None) -> Any:
        return Stream.of(machine.stream)

    def default_stream(device: Any = None) -> Any:
        return Stream.of(0)

    def set_stream(stream: Any) -> None:
        if stream is not None:
            machine.stream = stream.number

    return {
        "Stream": Stream,
        "ExternalStream": Stream,
        "Event": Event,
        "stream": lambda stream: StreamContext(stream),
        "StreamContext": StreamContext,
        "current_stream": current_stream,
        "default_stream": default_stream,
        "set_stream": set_stream,
        "get_stream_from_external": lambda pointer, device=None: Stream.of(0),
    }


def _random(machine: Machine) -> dict[str, Any]:
    """Return the random numbers' state: a seed and an offset, as Philox generators on devices keep it."""
    held = [machine.seat.seed, 0]

    def seed_with(seed: int) -> None:
        held[:] = [int(seed), 0]

    def get_state(device: Any = None) -> torch.Tensor:
        packed = bytearray(struct.pack("<QQ", held[0] % 2**64, held[1] % 2**64))
        return torch.frombuffer(packed, dtype=torch.uint8).clone()

    def set_state(state: torch.Tensor, device: Any = None) -> None:
        held[:] = struct.unpack("<QQ", bytes(state.cpu().to(torch.uint8).tolist()[:16]))

    generator = SimpleNamespace(
        get_state=get_state, set_state=set_state, manual_seed=seed_with, seed=lambda: seed_with(0),
        initial_seed=lambda: held[0], get_offset=lambda: held[1], clone_state=get_state,
        graphsafe_get_state=get_state, graphsafe_set_state=set_state,
        device=torch.device(machine.shown.surface, 0),
    )  # fmt: skip

    def set_all(states: Sequence[torch.Tensor]) -> None:
        set_state(states[0])

    return {
        "manual_seed": seed_with,
        "manual_seed_all": lambda seed: seed_with(seed),
        "seed": lambda: seed_with(0),
        "seed_all": lambda: seed_with(0),
        "initial_seed": lambda: held[0],
        "get_rng_state": get_state,
        "get_rng_state_all": lambda: [get_state()],
        "set_rng_state": set_state,
        "set_rng_state_all": set_all,
        "default_generators": (generator,) * max(machine.seat.per_node, 1),
    }


def install(machine: Machine, module: Any) -> None:
    """Put the surface into a module: `torch.cuda`, or that of a private device."""
    Stream.machine = Event.machine = StreamContext.machine = machine
    for name, value in surface_of(machine).items():
        setattr(module, name, value)
    memory = getattr(module, "memory", None)
    if memory is not None:
        for name, value in memory_of(machine).items():
            setattr(memory, name, value)
    parts = {"random": _random, "streams": _streams, "graphs": graphs.surface_of}
    for name, offered in parts.items():
        part = getattr(module, name, None)
        if part is not None:
            for key, value in offered(machine).items():
                setattr(part, key, value)
