"""Messages a second through the Batsim door: a whole run with a scheduler that hardly thinks.

python tests/benchmarks/doors.py     a message is a request or a reply; the clock of the wall
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from ersatz.sim.fleet.cluster import make_cluster, make_pool
from ersatz.sim.fleet.doors.batsim import BatsimScheduler
from ersatz.sim.fleet.doors.peer import Peer
from ersatz.sim.fleet.engine.fleet import FleetSpec, run_fleet
from ersatz.sim.fleet.workload.jobs import Job, Workload

JOBS = 5000
# Starts job n on device n mod 16 at once: jobs come every 10 s and last 100 s.
SCHEDULER = """
import json, sys, zmq
socket = zmq.Context().socket(zmq.REP)
socket.bind(sys.argv[1])
over = False
while not over:
    message = json.loads(socket.recv())
    now, orders = message["now"], []
    for event in message["events"]:
        over = over or event["type"] == "SIMULATION_ENDS"
        if event["type"] == "JOB_SUBMITTED":
            name = event["data"]["job_id"]
            orders.append({"timestamp": now, "type": "EXECUTE_JOB",
                           "data": {"job_id": name, "alloc": str(int(name[3:]) % 16)}})
    socket.send_string(json.dumps({"now": now, "events": orders}))
"""


def main() -> None:
    """Print the rate of a run, from the first answer on."""
    workload = Workload(tuple(Job(str(i), 10.0 * i, 1, 100.0) for i in range(JOBS)))
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "quick.py"
        script.write_text(SCHEDULER)
        door = BatsimScheduler(Peer(f"{sys.executable} {script} {{endpoint}}"))
        door.peer.open()
        door.peer.ask(b'{"now": 0, "events": []}')  # it is up
        door.peer.open = lambda: None  # type: ignore[method-assign]
        begin, cpu = time.perf_counter(), time.process_time()
        run_fleet(FleetSpec(make_cluster(make_pool("h800", 2)), workload), door)
        wall = time.perf_counter() - begin
    count = 2 * door.messages
    print(f"{count:,} messages in {wall:.2f} s: {count / wall:,.0f} a second;"
          f" {1e6 * (time.process_time() - cpu) / count:.0f} us of processor each in ersatz")  # fmt: skip


if __name__ == "__main__":
    main()
