"""A simulated fleet for monitors: Prometheus metrics under the names of NVIDIA's DCGM exporter.

The log of a run is walked again under a clock of its own, `speed` simulated seconds in each real one, and
`/metrics` says what every device does at that moment:

| metric | value |
|---|---|
| DCGM_FI_DEV_GPU_UTIL | 100 where a job runs, else 0, % |
| DCGM_FI_DEV_POWER_USAGE | by the catalogue's device, busy or idle, W; absent for others |
| DCGM_FI_DEV_GPU_TEMP, FB_USED | absent: a fleet's run knows neither |
| ersatz_simulated_seconds | the clock |

Labels are the exporter's: gpu, UUID, device, modelName, Hostname, and pod for the job. A node that is down
says nothing, as in life.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer

from ersatz.device_models.catalog.power import device_power
from ersatz.device_models.catalog.reading import list_devices, load_device
from ersatz.device_models.text.problems import InputError, Problem
from ersatz.sim.fleet.cluster import FleetNode
from ersatz.sim.fleet.log import RELEASES, Log

BUSY = 100
HELP = {
    "DCGM_FI_DEV_GPU_UTIL": "GPU utilization (in %).",
    "DCGM_FI_DEV_POWER_USAGE": "Power draw (in W).",
}


@dataclass(slots=True)
class Moment:
    """The fleet at one time of its run; only goes forward."""

    log: Log
    at: int = 0  # records that were walked
    jobs: dict[tuple[int, int], str] = field(default_factory=dict)  # by node and slot
    down: set[int] = field(default_factory=set)

    def advance(self, now_s: float) -> None:
        """Walk the records up to a time."""
        records = self.log.records
        while self.at < len(records) and records[self.at].time_s <= now_s:
            record = records[self.at]
            self.at += 1
            if record.event == "start" or record.event in RELEASES:
                for node, mask in record.placement:
                    for slot in _slots(mask):
                        if record.event == "start":
                            self.jobs[node, slot] = record.job
                        else:
                            self.jobs.pop((node, slot), None)
            elif record.event == "down":
                self.down.add(record.node)
            elif record.event == "up":
                self.down.discard(record.node)

    def metrics(self, now_s: float) -> str:
        """Return what Prometheus reads at a time."""
        self.advance(now_s)
        lines = ["# TYPE ersatz_simulated_seconds gauge", f"ersatz_simulated_seconds {now_s:.3f}"]
        for name, words in HELP.items():
            lines += [f"# HELP {name} {words}", f"# TYPE {name} gauge"]
            lines += self._values(name)
        return "\n".join(lines) + "\n"

    def _values(self, name: str) -> Iterator[str]:
        for index, node in enumerate(self.log.cluster.nodes):
            if index in self.down:
                continue
            powers = _powers(node.type)
            for slot in range(node.devices):
                job = self.jobs.get((index, slot), "")
                if name == "DCGM_FI_DEV_GPU_UTIL":
                    yield f"{name}{{{_labels(node, slot, job)}}} {BUSY if job else 0}"
                elif powers:
                    yield f"{name}{{{_labels(node, slot, job)}}} {powers[bool(job)]:.1f}"


def _slots(mask: int) -> Iterator[int]:
    slot = 0
    while mask:
        if mask & 1:
            yield slot
        mask >>= 1
        slot += 1


@cache
def _powers(kind: str) -> Mapping[bool, float]:
    """Return the power of a device idle and busy; nothing for one that the catalogue does not know."""
    if kind not in list_devices():
        return {}
    device = load_device(kind)
    return {busy: device_power(device, float(busy)) for busy in (False, True)}


def _labels(node: FleetNode, slot: int, job: str) -> str:
    pairs = {"gpu": str(slot), "UUID": f"GPU-ersatz-{node.name}-{slot}", "device": f"nvidia{slot}",
             "modelName": node.type, "Hostname": node.name, **({"pod": job} if job else {})}  # fmt: skip
    return ",".join(f'{k}="{_escaped(v)}"' for k, v in pairs.items())


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def exporter(
    log: Log, port: int, speed: float, clock: Callable[[], float] = time.monotonic
) -> HTTPServer:
    """Return a server of a run's metrics on this machine; `serve_forever` starts it, and time with it.

    Raises `InputError` where the port cannot be had.
    """
    begin, moment = clock(), Moment(log)

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.split("?")[0] == "/metrics"
            body = b"metrics are at /metrics\n"
            if found:
                body = moment.metrics(min((clock() - begin) * speed, log.end_s)).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return None

    try:
        return HTTPServer(("127.0.0.1", port), Metrics)
    except (OSError, OverflowError) as error:
        words = f"cannot listen there: {error}"
        raise InputError([Problem("--exporter", 0, 0, "port", str(port), words)]) from None
