"""Which device of the catalogue is attached: its name in whole words, confirmed by memory and units.

A driver's name alone misleads: "NVIDIA RTX A1000" holds the letters of an A100, "NVIDIA H100 PCIe"
the word of another board. So every word of a name has to be known (data/driver_names.yaml), and what
the driver says of memory and compute units has to agree with the catalogue. What `--as` names is
checked the same way; `--pretend` is for those who mean it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ersatz.device_models.calibration.measured import Point
from ersatz.device_models.catalog.device import Device
from ersatz.device_models.catalog.reading import load_device
from ersatz.device_models.kernels.operations import operation_of
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.units import format_si
from ersatz.device_models.text.yamltext import parse_yaml

VENDORS = {"cuda": ("nvidia", "alibaba"), "rocm": ("amd",), "npu": ("huawei",), "cpu": ("generic",)}
KNOWN = frozenset(vendor for vendors in VENDORS.values() for vendor in vendors)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a driver says of an attached device; zero where it does not say."""

    backend: str
    hardware: str
    memory_bytes: float = 0.0
    units: int = 0
    cache_bytes: float = 0.0

    @property
    def words(self) -> list[str]:
        """The words of the driver's name, without the vendor's mark before them."""
        parts = re.split(r"[\s/(),]+|-(?=SXM|PCIE|\d+GB|ZW)", self.hardware.upper())
        return [p.removeprefix("ASCEND") or p for p in parts if p]


def seen_of(backend: str, hardware: str, properties: object) -> Seen:
    """Return what a driver says, from PyTorch's device properties."""

    def told(*names: str) -> float:
        return next((float(v) for n in names if (v := getattr(properties, n, 0))), 0.0)

    units = told("multi_processor_count", "cube_core_num")
    return Seen(backend, hardware, told("total_memory"), int(units), told("L2_cache_size"))


@lru_cache(maxsize=1)
def driver_names() -> Mapping[str, Any]:
    """Read data/driver_names.yaml once."""
    text = parse_yaml((DATA / "driver_names.yaml").read_text(), "driver_names.yaml")
    return text.data  # type: ignore[no-any-return]


def named_devices(seen: Seen) -> list[str]:
    """Return the catalogue's devices that a driver's name may mean; none when a word is unknown."""
    table = driver_names()
    left = [w for w in seen.words if not any(re.fullmatch(h, w) for h in table["harmless"])]
    said = " ".join(left)
    row = next((r for r in table["names"] if re.fullmatch(str(r["word"]), said)), None)
    return list(row["devices"]) if row else []


def recognise(seen: Seen) -> tuple[str, str]:
    """Return (catalogue name, "") of a device, or ("", why nobody can tell)."""
    named = named_devices(seen)
    if not named:
        return "", f"{seen.hardware!r} is no device of the catalogue"
    seen = replace(seen, memory_bytes=seen.memory_bytes or _memory_in_name(seen))
    faults = {name: list(disagreements(seen, load_device(name))) for name in named}
    fitting = _same_cache(seen, [name for name, found in faults.items() if not found])
    if len(fitting) == 1:
        return fitting[0], ""
    if fitting:
        return (
            "",
            f"{seen.hardware!r} may be {', '.join(fitting)}: nothing that the driver says tells them apart",
        )
    words = "; ".join(f"{name}: {', '.join(found)}" for name, found in faults.items())
    return "", f"{seen.hardware!r} agrees with no device of that name ({words})"


def catalog_device(hardware: str) -> str:
    """Return the catalogue's name of what a driver calls a device, or an empty text."""
    named = named_devices(Seen("cpu", hardware))
    vendor = load_device(named[0]).vendor if named else ""
    backend = next((b for b, vendors in VENDORS.items() if vendor in vendors), "cpu")
    return recognise(Seen(backend, hardware))[0]


def _memory_in_name(seen: Seen) -> float:
    """Bytes that the name tells ("40GB"), where the driver does not; 0 if neither does."""
    sizes = [int(w[:-2]) for w in seen.words if re.fullmatch(r"\d+GB", w)]
    return sizes[0] * 2.0**30 if sizes else 0.0


def _same_cache(seen: Seen, names: list[str]) -> list[str]:
    """Return the one whose cache is what the driver tells, if it is one; else all."""
    same = [
        n for n in names if seen.cache_bytes and _near(load_device(n).cache_bytes, seen.cache_bytes)
    ]
    return same if len(same) == 1 else names


def _near(catalogued: float, told: float) -> bool:
    return abs(told / catalogued - 1.0) < 0.1


def disagreements(seen: Seen, device: Device) -> Iterator[str]:
    """Yield in words where a driver and the catalogue contradict each other."""
    vendors = VENDORS[seen.backend]
    if device.vendor not in vendors and device.vendor in KNOWN:  # of others nobody can tell
        yield f"the vendor is {device.vendor}, {seen.backend} reaches {' or '.join(vendors)}"
    if seen.backend == "cpu":
        return
    allowed = driver_names()["memory_tolerance"]
    share = seen.memory_bytes / device.memory_bytes
    if seen.memory_bytes and not allowed["low"] <= share <= allowed["high"]:
        yield (f"the driver tells {format_si(seen.memory_bytes, 'B')} of memory, the catalogue"
               f" {format_si(device.memory_bytes, 'B')}")  # fmt: skip
    if seen.units and seen.units != device.compute_units:
        yield f"the driver counts {seen.units} compute units, the catalogue {device.compute_units}"


def wrong_name(seen: Seen, device: Device) -> list[str]:
    """Return why a device is not what `--as` calls it; empty where nothing speaks against it."""
    found = list(disagreements(seen, device))
    named = named_devices(seen)
    if named and device.name not in named:
        found.append(f"the driver calls it {seen.hardware!r}, which is {' or '.join(named)}")
    return found


def contradictions(backend: str, points: Iterable[Point], device: Device) -> list[str]:
    """Return why measurements cannot be of a device: its vendor, or a product rate it cannot have.

    The catalogue's CPU stands for any CPU; its peak is nobody's data sheet.
    """
    if backend not in VENDORS:
        return [f"the backend {backend!r} is unknown"]
    found = list(disagreements(Seen(backend, ""), device))
    rates: dict[str, float] = {}
    for point in points:
        if operation_of(point.kernel).startswith("product"):
            rate = point.kernel.flop / point.seconds
            rates[point.kernel.dtype] = max(rate, rates.get(point.kernel.dtype, 0.0))
    return found if device.vendor == "generic" else [*found, *implausible_rates(rates, device)]


def implausible_rates(rates: Mapping[str, float], device: Device) -> Iterator[str]:
    """Yield in words which best product rates (FLOP/s, by dtype) the device cannot have."""
    allowed = driver_names()["rates"]
    for dtype, rate in rates.items():
        peak = device.matrix_peak.get(dtype, 0.0)
        if peak and not allowed["low"] <= rate / peak <= allowed["high"]:
            yield (f"{dtype} products reach {format_si(rate, 'FLOP/s')}, {rate / peak:.2g} of the peak of"
                   f" {device.title} ({format_si(peak, 'FLOP/s')}); expected {allowed['low']:g} to"
                   f" {allowed['high']:g} of it")  # fmt: skip
