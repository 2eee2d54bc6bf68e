"""Write fitted links as a file of the catalogue, each value with where it comes from.

The network between nodes is what `cluster.network` of a scenario takes; the links inside a node make
a scale-up file, for `scale_up` of a node file. What a measurement does not tell (tiers, blocking)
is written as assumed. Measured rows lie beside it as CSV.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ersatz.device_models.text.whole import write_whole
from ersatz.sim.hil.links.fit import LinkFit
from ersatz.sim.hil.links.timing import Timing, timings_csv


@dataclass(frozen=True, slots=True)
class LinkOrigin:
    """Who measured, with what, and when."""

    library: str  # gloo, nccl, rccl, hccl, or the program of a table
    hardware: str
    framework: str
    layout: str  # 2 hosts x 8 processes
    date: str
    contention: str = ""  # what a product beside an all-reduce costs either
    clock: str = ""  # how time was told, where not by the wall

    @property
    def words(self) -> str:
        """Return the provenance in one line."""
        parts = (f"ersatz calibrate --links: {self.library}", self.hardware, self.framework,
                 self.layout, self.date, self.contention, self.clock)  # fmt: skip
        return ", ".join(p for p in parts if p).replace('"', "'")


def link_file(name: str, fit: LinkFit, origin: LinkOrigin, members: int) -> str:
    """Return the text of a network file (tier network) or of a scale-up file (tier inside)."""
    return "".join(f"{line}\n" for line in _lines(name, fit, origin, members))


def _lines(name: str, fit: LinkFit, origin: LinkOrigin, members: int) -> Iterator[str]:
    rate = max(fit.ring, fit.exchange)
    errors = ", ".join(f"{kind} {100 * e:.0f} %" for kind, e in fit.errors.items())
    network = fit.tier == "network"
    yield f"# Written by ersatz calibrate --links; mean error of the fit: {errors};"
    yield f"# worst row {100 * fit.worst:.0f} %."
    if fit.held_out is not None and fit.held_out_worst is not None:
        yield (f"# All-reduces that no fit has seen: mean error {100 * fit.held_out:.0f} %, worst"
               f" {100 * fit.held_out_worst:.0f} %.")  # fmt: skip
    yield f"name: {name}"
    yield f'title: "Measured {"network" if network else "links"}: {origin.library}"'
    yield f"kind: {'rail' if network else 'switched'}"
    yield "sources:"
    yield f'  MEASURED: "{origin.words}"'
    yield '  ASSUMED: "not told by the measurement"'

    def measured(key: str, value: str, note: str) -> str:
        where = f"source: MEASURED, date: {origin.date}, confidence: medium"
        return f'{key}: {{value: {value}, {where}, note: "{note}"}}'

    def assumed(key: str, value: str, note: str) -> str:
        where = f"source: ASSUMED, date: {origin.date}, confidence: assumed"
        return f'{key}: {{value: {value}, {where}, note: "{note}"}}'

    bandwidth = f"{rate / 1e9:.6g} GB/s"
    if network:
        yield assumed("tiers", "1", "not seen from the ends")
        yield measured(
            "nic_bandwidth", bandwidth, "best rate of a process that was seen, per direction"
        )
    else:
        yield assumed("domain", str(members), "as many as were measured")
        yield assumed("links", "1", "all links of a device as one")
        yield measured("link_bandwidth", bandwidth, "best rate of a process that was seen")
        yield assumed("in_switch", "0", "part of the rate, where a switch reduces")
    yield measured("efficiency", f"{fit.ring / rate:.4f}", "ring collectives")
    exchange = f"{fit.exchange / rate:.4f}"
    yield (measured("all_to_all", exchange, "exchanges") if fit.exchanged
           else assumed("all_to_all", exchange, "no all-to-all was measured: as rings"))  # fmt: skip
    yield measured("latency_s", f"{fit.latency_s * 1e6:.5g} us", "per hop, library included")
    if network:
        yield assumed(
            "oversubscription", "1", "what blocks is in the rates, for groups as measured"
        )
        if fit.crowding:
            yield measured("crowding", f"{fit.crowding:.4f}", "groups of different size")
        if fit.knee_bytes:
            yield measured("knee_bytes", f"{fit.knee_bytes:.0f} B", "larger buffers go slower")
            yield measured("beyond_knee", f"{fit.beyond_knee:.4f}", "from twice the knee on")


def write_links(path: Path, text: str, rows: Sequence[Timing]) -> None:
    """Write the file and its rows beside it; raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, content in ((path, text), (path.with_suffix(".csv"), timings_csv(rows))):
        write_whole(target, content)
