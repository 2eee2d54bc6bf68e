"""`nvidia-smi`, `npu-smi` and `rocm-smi` for a script that asks them: small programs on its PATH."""

from __future__ import annotations

import sys
from pathlib import Path

from ersatz.device_models.catalog.device import Device
from ersatz.sim.emulate.virtual_device import Shown

TOOLS = {"cuda": "nvidia-smi", "npu": "npu-smi", "hip": "rocm-smi"}
DRIVER = "580.00"  # a version that scripts accept; no driver is there
_PROGRAM = """#!{python}
import sys
rows = {rows!r}
words = sys.argv[1:]
query = next((w for w in words if w.startswith("--query-gpu=")), "")
if query:
    names = [n.strip() for n in query.partition("=")[2].split(",")]
    units = not any("nounits" in w for w in words)
    if not any("noheader" in w for w in words):
        print(", ".join(names))
    for row in rows:
        found = [row.get(n, "[N/A]") for n in names]
        print(", ".join(found if units else [f.partition(" ")[0] if n != "name" else f
                                             for n, f in zip(names, found)]))
elif words[:1] in (["-L"], ["-l"]):
    for row in rows:
        print(f"GPU {{row['index']}}: {{row['name']}} (UUID: {{row['uuid']}})")
else:
    print("{tool}: emulated devices (ersatz)")
    for row in rows:
        used = f"{{row['memory.used']}} of {{row['memory.total']}}"
        print(f"| {{row['index']:>3}}  {{row['name']:<32}} | {{used}} |")
"""


def write_tools(folder: Path, device: Device, shown: Shown, count: int) -> None:
    """Write the tool of a device's vendor into a folder."""
    tool = TOOLS["hip" if shown.hip else shown.surface]
    total = f"{device.memory_bytes / 2**20:.0f} MiB"
    rows = [{"index": str(i), "name": shown.name, "uuid": f"GPU-ersatz-{i:04d}", "memory.total": total,
             "memory.used": "0 MiB", "memory.free": total, "driver_version": DRIVER, "count": str(count),
             "utilization.gpu": "0 %", "power.limit": f"{device.power_max_w:.2f} W",
             "compute_cap": "{}.{}".format(*shown.capability), "pci.bus_id": f"00000000:{i:02X}:00.0"}
            for i in range(count)]  # fmt: skip
    path = folder / tool
    path.write_text(_PROGRAM.format(python=sys.executable, rows=rows, tool=tool), encoding="utf-8")
    path.chmod(0o755)
