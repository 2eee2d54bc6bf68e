"""What export rules read of a device: its legal figures, computed from the catalogue.

TPP is the largest over formats of bit length x dense tera-operations per second; performance
density (PD) is TPP per mm2 of the logic dies on 16 nm or below. Parts that ersatz cannot train on
and that rules are known for (RTX 4090, L20, ...) have short files of their own in `data/parts`.
Not here: the rules themselves, dates, places.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path

from ersatz.device_models.catalog.device import Fact
from ersatz.device_models.catalog.identities import BITS, total_processing_performance
from ersatz.device_models.catalog.reading import EXPORT_LEAVES, find_file, list_devices, load_device
from ersatz.device_models.catalog.sheet import Schema, read_sheet
from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.files import read_text_file, remembered
from ersatz.device_models.text.problems import InputError, Problem, did_you_mean

PART = Schema(
    header={"name": "text", "title": "text", "description": "text", "based_on": "text",
            "aliases": "list", "sources": "mapping", "vendor": "text", "released": "text"},
    leaves={"memory_bandwidth": "bandwidth", "die_area_m2": "area", "io_bandwidth": "bandwidth",
            **EXPORT_LEAVES},
    maps={"datasheet_peak": "flop_rate"},
    optional=frozenset({"datasheet_peak", "transistors", "sold_as", "die_area_least_m2", "die_area_most_m2"}),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """A device as export rules see it. None means that nobody published the value."""

    name: str
    title: str
    vendor: str
    designer: str  # country of the designer's headquarters, two letters
    released: str
    data_centre: bool  # designed or marketed for data centres
    sold_in_us: bool  # commercially available in the United States
    peaks: Mapping[str, float] = field(hash=False)  # FLOP/s by dtype, dense, as claimed
    die_area_m2: float | None  # logic dies on non-planar nodes
    die_area_least_m2: float | None
    die_area_most_m2: float | None
    memory_bandwidth: float  # bytes/s
    io_bandwidth: float  # bytes/s, both directions, without memory
    process_nm: float
    foundry: str
    transistors: float | None
    facts: Mapping[str, Fact] = field(default_factory=dict, repr=False, hash=False, compare=False)
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False, compare=False)

    @property
    def tpp(self) -> float:
        """Total processing performance: bits x dense TFLOP/s, the largest over formats."""
        return round(total_processing_performance(self.peaks), 1)

    @property
    def tpp_format(self) -> str:
        """The format that decides the TPP, the widest of several; empty for memory stacks."""
        known = [dtype for dtype in self.peaks if dtype != "tf32"]
        return max(
            known, key=lambda d: (round(BITS[d] * self.peaks[d] / 1e12, 1), BITS[d]), default=""
        )

    def assumes(self, *keys: str) -> bool:
        """Tell whether a legal figure is an assumption of the catalogue, known from no source."""
        return any(fact.confidence == "assumed" for key, fact in self.facts.items()
                   if key.split(".")[0] in keys)  # fmt: skip

    @property
    def known_area_m2(self) -> float | None:
        """The die area, or None where it is assumed without the least and the most that it may be."""
        bounded = self.die_area_least_m2 and self.die_area_most_m2
        return self.die_area_m2 if bounded or not self.assumes("die_area_m2") else None

    def stack_density(self, area_m2: float | None) -> float | None:
        """GB/s per mm2 of a memory stack sold as such; 0 for memory packaged with a logic die."""
        if self.peaks:
            return 0.0
        return self.memory_bandwidth / 1e9 / (area_m2 * 1e6) if area_m2 else None

    def on_sale(self, day: date) -> bool:
        """Tell whether it had been released by a day, as finely as its release is known."""
        quarter = re.match(r"(\d{4})-Q(\d)", self.released)
        used = re.search(r"in use since (\d{4})", self.released)
        if used:
            known = used[1]
        elif quarter:
            known = f"{quarter[1]}-{3 * int(quarter[2]) - 2:02d}"
        else:
            match = re.match(r"\d{4}(-\d\d(-\d\d)?)?(?!\d)", self.released)
            known = match[0] if match else ""
        return bool(known) and known <= day.isoformat()[: len(known)]

    def density(self, area_m2: float | None) -> float | None:
        """Performance density at a die area: TPP per mm2, or None where the area is unknown."""
        return self.tpp / (area_m2 * 1e6) if area_m2 else None


def list_parts() -> list[str]:
    """Return the names of all devices that rules can be asked about, as they are sold."""
    own = [path.stem for path in (DATA / "parts").glob("*.yaml")]
    whole = [name for name in list_devices() if load_part(name).name == name]
    return sorted([*whole, *own])


def knows_part(name: str) -> bool:
    """Tell whether a name or alias is one of the catalogue; paths are not."""
    try:
        load_part(name)
    except InputError:
        return False
    return "/" not in name and not name.endswith((".yaml", ".yml"))


@remembered
def load_part(name: str) -> Part:
    """Return a device by catalogue name, alias or path, a die as the package that is sold.

    Raises `InputError` for an unknown one and for a device whose file lacks what rules read.
    """
    wanted = name.strip().lower()
    own = _own_parts()
    if wanted in own:
        return _read_part(own[wanted])
    try:
        path = find_file(name, "devices")
    except InputError as error:
        hint = (
            did_you_mean(wanted, [*list_devices(), *own])
            or "; `ersatz legal all` names those that rules know"
        )
        raise InputError([Problem("device", 0, 0, "", name, f"no such device{hint}")]) from error
    return _read_part(path) if _is_short(path, own) else _of_device(name)


def _is_short(path: Path, own: Mapping[str, Path]) -> bool:
    """Tell whether a user's file is a part's short one: no matrix peaks, and no device as its base."""
    if not os.path.exists(path):
        return False
    text = read_text_file(path, "YAML")
    base = re.search(r"^based_on: *(.+)$", text, re.M)
    if base:
        return base[1].strip(" \"'").lower() in own
    return "matrix_peak:" not in text


def own_parts() -> dict[str, str]:
    """Return the devices that only rules know: each name and other name, and the name."""
    return {name: path.stem for name, path in _own_parts().items()}


@lru_cache(maxsize=1)
def _own_parts() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted((DATA / "parts").glob("*.yaml")):
        found[path.stem] = path
        for line in path.read_text("utf-8").splitlines()[:8]:
            if line.startswith("aliases:"):
                names = line.removeprefix("aliases:").strip().strip("[]").split('", "')
                found.update({alias.strip(' "').lower(): path for alias in names})
    return found


def _read_part(path: Path) -> Part:
    sheet = read_sheet(path, PART, lambda name, _: find_file(name, "parts"))
    sheet.finish()
    peaks = sheet.values.get("datasheet_peak", {})
    return _part(path.stem, sheet.header, sheet.values, peaks, sheet.facts, sheet.sources)


def _of_device(name: str) -> Part:
    """See a device of the catalogue as a part; what its file lacks is a fault of the file."""
    device = load_device(name)
    key = "datasheet_peak."
    stated = {k.removeprefix(key): float(fact.value)
              for k, fact in device.facts.items() if k.startswith(key)}  # fmt: skip
    values = {k: fact.value for k, fact in device.facts.items()}
    if "sold_as" in values:
        return load_part(str(values["sold_as"]))
    missing = [k for k in EXPORT_LEAVES if k not in values and k not in PART.optional]
    if missing:
        expected = f"rules need {', '.join(missing)} of a device: add them to its file"
        raise InputError([Problem(name, 0, 0, "", "", expected)])
    header = {"title": device.title, "vendor": device.vendor, "released": device.released}
    return _part(
        device.name, header, values, stated or device.matrix_peak, device.facts, device.sources
    )


def _part(
    name: str, header: Mapping[str, object], values: Mapping[str, object],
    peaks: Mapping[str, float], facts: Mapping[str, Fact], sources: Mapping[str, str],
) -> Part:  # fmt: skip
    def number(key: str) -> float | None:
        value = values.get(key)
        return float(value) if isinstance(value, int | float) and value else None

    return Part(
        name=name, title=str(header.get("title", name)), vendor=str(header.get("vendor", "")),
        released=str(header.get("released", "")), designer=str(values["designer"]),
        data_centre=bool(values["data_centre"]), sold_in_us=bool(values["sold_in_us"]),
        peaks=dict(peaks), die_area_m2=number("die_area_m2"),
        die_area_least_m2=number("die_area_least_m2"), die_area_most_m2=number("die_area_most_m2"),
        memory_bandwidth=float(str(values["memory_bandwidth"])),
        io_bandwidth=float(str(values["io_bandwidth"])),
        process_nm=float(str(values["process_nm"])), foundry=str(values["foundry"]),
        transistors=number("transistors"), facts=facts, sources=sources,
    )  # fmt: skip
