"""Memory of the virtual device as a script asks for it: amounts, statistics, snapshots for PyTorch's page."""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from ersatz.sim.emulate.virtual.machine import Machine

Surface = dict[str, Any]
ALLOCATOR = {
    "PYTORCH_CUDA_ALLOC_CONF": "",
    "max_split_size": -1,
    "garbage_collection_threshold": 0.0,
}
AMOUNTS = (("allocated", "allocated"), ("reserved", "reserved"), ("cached", "reserved"))


def memory_of(machine: Machine) -> Surface:
    """Return the functions of memory by name."""
    return {**_amounts(machine), **_limits(machine), **_statistics(machine), **_snapshots(machine)}


def _amounts(machine: Machine) -> Surface:
    """Return what is held now and at most."""
    memory = machine.memory

    def reader(attribute: str) -> Callable[..., int]:
        return lambda device=None: int(getattr(memory, attribute))

    now = {f"memory_{name}": reader(held) for name, held in AMOUNTS}
    most = {f"max_memory_{name}": reader(f"peak_{held}") for name, held in AMOUNTS}
    return {**now, **most}


def _limits(machine: Machine) -> Surface:
    """Return what is free, and what sets limits."""
    memory = machine.memory

    def mem_get_info(device: Any = None) -> tuple[int, int]:
        return int(memory.capacity - memory.reserved), int(machine.device.memory_bytes)

    def set_fraction(fraction: float, device: Any = None) -> None:
        memory.capacity = min(memory.capacity, int(fraction * machine.device.memory_bytes))

    return {
        "mem_get_info": mem_get_info,
        "empty_cache": lambda: memory.empty_cache(),
        "set_per_process_memory_fraction": set_fraction,
        "device_memory_used": lambda device=None: machine.device.memory_bytes - mem_get_info()[0],
    }


def _statistics(machine: Machine) -> Surface:
    """Return counts, and what begins them again."""
    memory = machine.memory

    def memory_stats(device: Any = None) -> dict[str, int]:
        found: dict[str, int] = defaultdict(int)
        for kind in ("allocated_bytes", "active_bytes", "requested_bytes"):
            found[f"{kind}.all.current"] = memory.allocated
            found[f"{kind}.all.peak"] = memory.peak_allocated
        found["reserved_bytes.all.current"] = memory.reserved
        found["reserved_bytes.all.peak"] = memory.peak_reserved
        found["inactive_split_bytes.all.current"] = memory.reserved - memory.allocated
        found["num_alloc_retries"], found["num_ooms"] = memory.retries, memory.ooms
        found["segment.all.current"] = len(memory.segments)
        return found

    def summary(device: Any = None, abbreviated: bool = False) -> str:
        rows = (("allocated", memory.allocated, memory.peak_allocated),
                ("reserved", memory.reserved, memory.peak_reserved))  # fmt: skip
        return "\n".join(f"{n:10} {now / 2**20:12,.0f} MiB  peak {top / 2**20:12,.0f} MiB"
                         for n, now, top in rows)  # fmt: skip

    again = ("reset_peak_memory_stats", "reset_max_memory_allocated", "reset_max_memory_cached")
    return {
        "memory_stats": memory_stats,
        "memory_stats_as_nested_dict": lambda device=None: {},
        "memory_summary": summary,
        "reset_accumulated_memory_stats": lambda device=None: None,
        **{name: lambda device=None: memory.reset_peaks() for name in again},
    }


def _snapshots(machine: Machine) -> Surface:
    """Return snapshots, and the history that they carry while a script records it."""

    def record(enabled: Any = "all", *args: Any, max_entries: int = 1 << 20, **kwargs: Any) -> None:
        machine.history = [] if enabled else None
        machine.history_length = max_entries

    def snapshot(*args: Any, **kwargs: Any) -> Surface:
        return {"segments": machine.memory.snapshot(), "device_traces": [list(machine.history or ())],
                "allocator_settings": ALLOCATOR, "external_annotations": []}  # fmt: skip

    def dump_snapshot(filename: str = "dump_snapshot.pickle", *args: Any, **kwargs: Any) -> None:
        with open(filename, "wb") as file:
            pickle.dump(snapshot(), file)

    return {
        "memory_snapshot": lambda *args, **kwargs: machine.memory.snapshot(),
        "_record_memory_history": record,
        "_snapshot": snapshot,
        "_dump_snapshot": dump_snapshot,
    }
