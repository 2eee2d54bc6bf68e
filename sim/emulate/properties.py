"""What PyTorch tells a script of a device: what is known of it, what is assumed, and what is not known.

Figures of an architecture come from `data/properties.yaml`, those of the device from its file in the
catalogue. A property that stands in neither is not made up: reading it is an `AttributeError` that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ersatz.device_models.catalog.device import Device
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import read_yaml
from ersatz.sim.emulate.virtual_device import Shown

FILE = "properties.yaml"
ASSUMED = ("low", "assumed")  # confidences of what a script is told and nobody has confirmed
# Properties of PyTorch 2.13 that a script may ask for, by surface; others are on no device.
FIELDS = {
    "cuda": (
        "max_threads_per_multi_processor", "max_threads_per_block", "regs_per_multiprocessor",
        "shared_memory_per_block", "shared_memory_per_block_optin", "shared_memory_per_multiprocessor",
        "memory_clock_rate", "memory_bus_width", "gcnArchName",
    ),
    "npu": ("vector_core_num",),
}  # fmt: skip
OF_DEVICE = {
    "multi_processor_count": "compute_units", "cube_core_num": "compute_units",
    "L2_cache_size": "cache_bytes", "clock_rate": "clock_hz", "total_memory": "memory_bytes",
}  # fmt: skip  # properties by the key of a device's file


@dataclass(frozen=True, slots=True)
class Known:
    """Properties by name; `assumed` says of some what they rest on."""

    values: Mapping[str, Any]
    assumed: Mapping[str, str]


def known_properties(device: Device, shown: Shown) -> Known:
    """Return what is known of a device as PyTorch names it."""
    major, minor = shown.capability
    values: dict[str, Any] = {
        "name": shown.name, "major": major, "minor": minor, "total_memory": int(device.memory_bytes),
        "multi_processor_count": device.compute_units, "warp_size": shown.warp,
        "L2_cache_size": int(device.cache_bytes), "clock_rate": int(device.clock_hz / 1e3),
        "is_integrated": False, "is_multi_gpu_board": False,
    }  # fmt: skip
    if shown.surface == "npu":
        values["cube_core_num"] = device.compute_units
    elif not shown.hip:
        values["gcnArchName"] = shown.name  # PyTorch on CUDA answers with the name
    assumed = dict(_doubtful(device, values))
    if shown.warp_assumed:
        assumed["warp_size"] = "as CUDA's"
    for name, value, confidence in _of_architecture(device, shown):
        values[name] = value
        if confidence in ASSUMED:
            assumed[name] = confidence
    return Known(values, assumed)


def _doubtful(device: Device, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield properties that the device's own file assumes or hardly trusts."""
    for name in values:
        fact = device.facts.get(OF_DEVICE.get(name, ""))
        if fact is not None and fact.confidence in ASSUMED:
            yield name, fact.note or fact.confidence


def _of_architecture(device: Device, shown: Shown) -> Iterator[tuple[str, Any, str]]:
    data: Any = read_yaml(DATA / FILE).data
    for row in data["architectures"]:
        if row["vendor"] == device.vendor and tuple(row["capability"]) == shown.capability:
            yield row["property"], row["value"], row["confidence"]
    for row in data["vector_cores"]:
        if device.name in row["devices"]:
            yield "vector_core_num", row["value"] * device.compute_units, row["confidence"]


class Properties:
    """The properties of a device; what is assumed is told to `policy` when it is read.

    Raises `AttributeError` for what is not known.
    """

    def __init__(
        self, title: str, surface: str, known: Known, policy: Callable[[str], None], **more: Any
    ) -> None:
        self._title, self._surface, self._known, self._policy = title, surface, known, policy
        self.__dict__.update(more)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        known = self._known
        if name in known.values:
            value = known.values[name]
            if name in known.assumed:
                self._policy(f"{name} of the device, {value} ({known.assumed[name]})")
            return value
        if name in FIELDS[self._surface]:
            raise AttributeError(
                f"{name} of {self._title} is not known to the emulator (data/{FILE})"
            )
        raise AttributeError(f"the properties of a device have no {name!r}")

    def __dir__(self) -> list[str]:
        own = [name for name in self.__dict__ if not name.startswith("_")]
        return sorted([*own, *self._known.values])

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={self._known.values[name]!r}" for name in self._known.values)
        return f"_DeviceProperties({told})"
