"""What is modelled: the list of accelerators, and one explained with its sources."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ersatz.device_models.catalog.device import Device
from ersatz.device_models.catalog.identities import device_tpp
from ersatz.device_models.catalog.reading import list_devices, list_nodes, load_device, load_node
from ersatz.device_models.kernels.kernel import sixteen_bit_peak
from ersatz.device_models.text.units import format_bytes, format_si
from ersatz.sim.finding.hardware import device_entry, month
from ersatz.sim.report.finding import render_entry
from ersatz.sim.report.json_out import plain


def device_list_records() -> list[dict[str, Any]]:
    """Return one flat record per accelerator of the catalogue."""
    return [_summary(load_device(name)) for name in list_devices()]


def _summary(device: Device) -> dict[str, Any]:
    return {
        "name": device.name, "title": device.title, "vendor": device.vendor,
        "released": device.released, "trains": device.trains,
        "peak_16bit_flop_per_s": sixteen_bit_peak(device),
        "memory_bytes": device.memory_bytes, "memory_bandwidth": device.memory_bandwidth,
        "power_max_w": device.power_max_w,
        "tpp": device_tpp(device),
    }  # fmt: skip


def device_record(name: str) -> dict[str, Any]:
    """Return everything known of one accelerator, with facts, sources and nodes; may raise."""
    device = load_device(name)
    nodes = [n for n in list_nodes() if load_node(n).device.name == device.name]
    record = plain(device)
    return {**record, **_summary(device), "nodes": nodes}


def render_device_list() -> RenderableType:
    """Return the table of all accelerators; it fits 100 columns."""
    table = Table(box=None, pad_edge=False)
    for column in ("name", "title", "released"):
        table.add_column(column, no_wrap=True)
    for column in ("16-bit peak", "memory", "bandwidth", "power"):
        table.add_column(column, justify="right", no_wrap=True)
    for name in list_devices():
        d = load_device(name)
        title = d.title if d.trains else f"{d.title} (no training)"
        table.add_row(
            d.name, title[:28], month(d.released), format_si(sixteen_bit_peak(d), "FLOP/s"),
            format_bytes(d.memory_bytes), format_si(d.memory_bandwidth, "B/s"),
            f"{d.power_max_w:.0f} W",
        )  # fmt: skip
    return Group(table, Text(""), Text("ersatz devices NAME explains one with its sources."))


def render_device(name: str) -> RenderableType:
    """Return one accelerator with every value, its source, date and confidence; may raise."""
    return render_entry(device_entry(name))
