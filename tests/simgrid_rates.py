"""A program for an interpreter that has SimGrid: cases of flows on standard input, rates on output.

Every case gets links and hosts of its own in one platform, so that one run serves them all. SimGrid's
network model is set to its raw form: no latency, no TCP windows, no cross traffic.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import simgrid as sg

PRECISION = "maxmin/precision" if sg.simgrid_version < "3.34" else "precision/work-amount"
RAW = ("network/model:CM02", "network/bandwidth-factor:1", "network/latency-factor:1",
       "network/weight-S:0", "network/TCP-gamma:0", "network/crosstraffic:0",
       f"{PRECISION}:1e-9")  # fmt: skip
SECONDS = 1.0
SIZE = 10**12  # bytes, more than any flow moves


def main() -> None:
    """Print the rate of each flow of each case, measured over one second."""
    cases: list[dict[str, Any]] = json.load(sys.stdin)
    options = [f"--cfg={option}" for option in RAW]
    engine = sg.Engine(["rates", *options, "--log=root.thres:critical"])
    zone = sg.NetZone.create_full_zone("zone")
    pairs = [pair for number, case in enumerate(cases) for pair in _flows(zone, str(number), case)]
    watcher = zone.create_host("watcher", 1e9).seal()
    zone.seal()
    sg.Actor.create("watch", watcher, _watch, pairs, [len(case["routes"]) for case in cases])
    engine.run()


def _flows(zone: Any, name: str, case: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Create the links and the flows' ends of a case."""
    links = [
        zone.create_link(f"{name}-link{i}", float(capacity)).seal()
        for i, capacity in enumerate(case["capacity"])
    ]
    pairs = []
    for flow, route in enumerate(case["routes"]):
        ends = [zone.create_host(f"{name}-{flow}-{end}", 1e9).seal() for end in ("from", "to")]
        used = [sg.LinkInRoute(links[i]) for i in route]
        zone.add_route(ends[0].netpoint, ends[1].netpoint, None, None, used, False)
        pairs.append((ends[0], ends[1]))
    return pairs


def _watch(pairs: list[tuple[Any, Any]], counts: list[int]) -> None:
    """Start all flows, look at them after a while, print, and end without tidying up."""
    comms = [sg.Comm.sendto_async(source, target, SIZE) for source, target in pairs]
    sg.this_actor.sleep_until(SECONDS)
    rates = iter([(SIZE - comm.remaining) / SECONDS for comm in comms])
    print(json.dumps([[next(rates) for _ in range(count)] for count in counts]), flush=True)
    os._exit(0)  # SimGrid complains of flows that nobody waits for


if __name__ == "__main__":
    main()
