"""Where a job is put: functions from (view, job) to a placement, or None if it does not fit now.

Each honours the job's wishes (types, one type, spans, processors). A gang is put together node by
node, in the order that its policy prefers; the first accelerator type on which it fits is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sim.fleet.cluster import Placement, lowest
from sim.fleet.free import Free, first, members
from sim.fleet.jobs import Job
from sim.fleet.protocol import View

Place = Callable[[View, Job], Placement | None]


def first_fit(view: View, job: Job) -> Placement | None:
    """Take the first free devices of the first type that has enough of them."""
    for kind in kinds_of(view, job):
        if found := gather(view.free, job, members(view.free.nodes_with(kind, 1))):
            return found
    return None


def kinds_of(view: View, job: Job) -> Iterable[str]:
    """Return the accelerator types that a job may use and that have enough free devices."""
    total = view.free.total
    return [kind for kind in (job.types or view.cluster.types) if total.get(kind, 0) >= job.devices]


def gather(free: Free, job: Job, nodes: Iterable[int]) -> Placement | None:
    """Fill nodes in the given order until the gang is whole; None if it does not get whole."""
    missing, parts = job.devices, []
    for node in nodes:
        if not free.has_room(job, node):
            continue
        mask = lowest(free.masks[node], missing)
        parts.append((node, mask))
        missing -= mask.bit_count()
        if not missing:
            return tuple(sorted(parts))
    return None


__all__ = ["Place", "first", "first_fit", "gather", "kinds_of"]
