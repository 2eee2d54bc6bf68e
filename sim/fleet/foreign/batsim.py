"""What Batsim says of jobs that have run: its _jobs.csv, of any of its versions.

One machine is one device. Without a list of nodes the machines are those that were used, each a node.
"""

from __future__ import annotations

import math
from pathlib import Path

from ersatz.sim.fleet.cluster import Cluster, FleetNode, parse_devices, slots
from ersatz.sim.fleet.foreign.stories import Foreign, Ran, Story, make_log
from ersatz.sim.fleet.workload.traces.rows import CellError, Row, csv_rows, items_of

NEEDED = ("job_id", "submission_time", "requested_number_of_resources", "starting_time", "finish_time",
          "allocated_resources")  # fmt: skip
STATES = {
    "COMPLETED_SUCCESSFULLY": "finish", "COMPLETED_FAILED": "abandon", "COMPLETED_KILLED": "abandon",
    "COMPLETED_WALLTIME_REACHED": "timeout", "": "",
}  # fmt: skip
MOST_MACHINES = 200_000
SLACK_S = 1e-3  # older versions write six digits


def read_batsim_jobs(path: Path, fleet: Cluster | None = None) -> Foreign:
    """Read a _jobs.csv; raises `InputError` with every row that cannot be read."""
    rows = list(csv_rows(path, NEEDED))
    whole = Cluster(tuple(FleetNode(f"machine-{i}", "machine", 1) for i in range(_machines(rows))))
    stories = items_of(path, rows, lambda row: _story(row, whole if fleet is None else fleet))
    about = {"policy": path.name.removesuffix(".gz").removesuffix(".csv"), "workload": path.name,
             "door": "batsim jobs"}  # fmt: skip
    return make_log(path, stories, whole if fleet is None else fleet, about, slack_s=SLACK_S,
                    notes=["" if fleet else "machines are those that were used, from 0 on"])  # fmt: skip


def _machines(rows: list[Row]) -> int:
    """Return one more than the highest machine that is named."""
    most = 0
    for row in rows:
        for part in row.text("allocated_resources").replace("-", " ").replace(",", " ").split():
            if part.isascii() and part.isdigit() and len(part) < 7:
                most = max(most, int(part))
    return min(most + 1, MOST_MACHINES)


def _story(row: Row, fleet: Cluster) -> Story:
    name = row.text("job_id").replace("!", "-")
    submit, devices = row.number("submission_time"), row.count("requested_number_of_resources")
    limit = row.number("requested_time", math.inf, least=-math.inf)
    limit = limit if limit > 0 else math.inf
    state = row.text("final_state")
    text = row.text("allocated_resources").replace(",", " ")
    start = row.number("starting_time", math.inf, least=-math.inf)
    if not text or start < 0 or "REJECTED" in state:
        return Story(name, row.line, submit, devices, limit_s=limit, gone_s=submit, gone="reject",
                     why=state.lower())  # fmt: skip
    try:
        placement = parse_devices(fleet, text)
    except ValueError as error:
        raise CellError("allocated_resources", text, str(error)) from None
    if state not in STATES:
        raise CellError("final_state", state, f"expected one of {', '.join(STATES)}")
    how = STATES[state] or ("finish" if row.text("success") in ("1", "") else "timeout")
    masks = {fleet.nodes[node].name: mask for node, mask in placement}
    on = {name: sum(1 for _ in slots(mask)) for name, mask in masks.items()}
    ran = Ran(start, row.number("finish_time"), how, on, state.lower(), masks)
    if ran.end_s < start:
        raise CellError("finish_time", row.text("finish_time"), "expected not before its start")
    return Story(name, row.line, submit, devices, (ran,), limit_s=limit)
