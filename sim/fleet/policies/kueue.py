"""Kueue's configuration rehearsed on a fleet: quota first, by its rules, then devices.

Jobs enter the queue that their tenant names. A job that has quota but finds no devices together holds its
quota and waits, as pods do that stay pending. Assumed: pods are as large as divides the gang and fits a
node; what a lost node takes gives its quota back and returns to its old place in the queue.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ersatz.sim.fleet.cluster import FleetNode, Placement, lowest
from ersatz.sim.fleet.kueue.cycle import Cycle, Outcome
from ersatz.sim.fleet.kueue.documents import UNIT
from ersatz.sim.fleet.kueue.flavors import Assigner
from ersatz.sim.fleet.kueue.objects import PODS, Config, Domain, PodSet, Wish, Workload
from ersatz.sim.fleet.kueue.places import Places
from ersatz.sim.fleet.kueue.quota import Node, Tree
from ersatz.sim.fleet.kueue.reading import KueueConfig
from ersatz.sim.fleet.kueue.topology import HOSTNAME, Host
from ersatz.sim.fleet.log import RELEASES, Claims, Record
from ersatz.sim.fleet.policies.placement import Placer
from ersatz.sim.fleet.protocol import Decision, Preempt, SchedulerFault, Start, View
from ersatz.sim.fleet.workload.jobs import Job

TYPE = "ersatz/type"  # the label by which flavors and hosts meet
OF_HOSTS = frozenset(
    {"cpu", "memory", PODS, "ephemeral-storage"}
)  # every other resource is a device
PODS_PER_NODE = 110  # as the kubelet has it by default
NODE_EVENTS = frozenset({"down", "up", "drain", "undrain"})
MOST_CYCLES = 10_000  # in one instant


class KueueScheduler:
    """Implements `ersatz.sim.fleet.protocol.Scheduler` with Kueue's cycle."""

    def __init__(self, given: KueueConfig, placer: Placer) -> None:
        self.name, self.given, self.placer = "kueue", given, placer
        self.claims = Claims(preempts="any", own_rules="Kueue")
        self.config: Config = given.config
        self.tree = Tree(self.config.queues, self.config.cohorts)
        self.places = Places({}, {})
        self._hosts: list[Host] = []  # by node, where a flavor has a topology
        self._gone: set[int] = set()  # nodes that take no jobs, when last looked at
        self._nodes_in: dict[tuple[str, str], list[int]] = {}  # type, domain -> nodes
        self.lines: dict[str, list[tuple[Any, str]]] = {q.name: [] for q in self.config.queues}
        self.parked: dict[str, list[tuple[Any, str]]] = {name: [] for name in self.lines}
        self.sticky: dict[str, str] = {}  # queue -> the job whose victims are leaving
        self.jobs: dict[str, Workload] = {}  # waiting or admitted
        self.pending: dict[str, Workload] = {}  # admitted, and without devices
        self.held: dict[str, Workload] = {}  # admitted
        self.type_of: dict[str, str] = {}  # flavor -> accelerator type
        self._largest: dict[str, int] = {}  # type -> devices of its largest node
        self._device: dict[str, str] = {}  # queue -> the resource that is its devices
        self._assigners: dict[str, Assigner] = {}
        self._arrivals = 0

    # -- what the configuration means on this fleet ------------------------------------------------------

    def on_start(self, view: View) -> None:
        """Find the types of the flavors; raises `SchedulerFault` for one that is nowhere."""
        for queue in self.config.queues:
            devices = [r for g in queue.groups for r in g.resources if r not in OF_HOSTS]
            if len(devices) > 1:
                raise SchedulerFault(f"queue {queue.name} covers {', '.join(devices)}; expected one"
                                     " resource that is devices")  # fmt: skip
            self._device[queue.name] = devices[0] if devices else ""
            for group in queue.groups:
                if devices and devices[0] in group.resources:
                    self._find_types(view, group.flavors)
        flavors = {name: replace(f, labels={**f.labels, TYPE: self.type_of[name]})
                   if name in self.type_of else f for name, f in self.config.flavors.items()}  # fmt: skip
        self.config = replace(self.config, flavors=flavors)
        for node in view.cluster.nodes:
            self._largest[node.type] = max(self._largest.get(node.type, 0), node.devices)
        self._stand(view)

    def _find_types(self, view: View, flavors: Sequence[str]) -> None:
        for name in flavors:
            flavor = self.config.flavors[name]
            found = [t for t in view.cluster.types if t == name or t in flavor.labels.values()]
            if not found:
                raise SchedulerFault(f"flavor {name} is no pool of the fleet, by its name or a label's value;"
                                     f" expected one of {', '.join(view.cluster.types)}")  # fmt: skip
            self.type_of[name] = found[0]

    def _stand(self, view: View) -> None:
        """Note which nodes a topology has: all of them, until some go."""
        if any(f.topology for f in self.config.flavors.values()):
            self._hosts = [self._host(node) for node in view.cluster.nodes]
            self.places = Places(self.config.flavors, self.config.levels, self._hosts, UNIT)
            for i, node in enumerate(view.cluster.nodes):
                for name in (node.name, f"leaf-{node.leaf}", f"pod-{node.pod}"):
                    self._nodes_in.setdefault((node.type, name), []).append(i)
            self._look_at_nodes(view)

    def _host(self, node: FleetNode) -> Host:
        labels = {TYPE: node.type}
        for levels in self.config.levels.values():
            names = (node.name, f"leaf-{node.leaf}", f"pod-{node.pod}")
            labels |= dict(
                zip(levels[::-1], names if levels[-1] in HOSTNAME else names[1:], strict=False)
            )
            labels |= {level: "all" for level in levels if level not in labels}
        devices = set(self._device.values()) - {""}
        capacity = dict.fromkeys(devices, node.devices * UNIT) | {PODS: PODS_PER_NODE * UNIT}
        own = tuple(f for f, kind in self.type_of.items() if kind == node.type)
        return Host(labels, capacity, flavors=own)

    def _look_at_nodes(self, view: View) -> None:
        """Note which nodes have come or gone since the last look."""
        if self._hosts:
            closed = set(view.free.closed)
            for i in self._gone ^ closed:
                self.places.turn(self._hosts[i], -1 if i in closed else 1)
            self._gone = closed

    def _workload(self, view: View, job: Job) -> Workload:
        """Return a job as Kueue sees it: pods that ask for devices."""
        queue = self.given.local.get(job.tenant, job.tenant)
        if queue not in self.lines:
            raise SchedulerFault(f"has no queue {job.tenant!r} for job {job.id};"
                                 f" expected one of {', '.join(self.lines)}")  # fmt: skip
        kinds = tuple(k for k in (job.types or view.cluster.types) if view.rate_on(job, k) > 0)
        node = min((self._largest[kind] for kind in kinds if kind in self._largest), default=1)
        per = job.devices if job.devices <= node else math.gcd(job.devices, node)
        each = {self._device[queue]: per * job.milli} if self._device[queue] and job.devices else {}
        podset = PodSet("main", max(job.devices // max(per, 1), 1), each, None, {TYPE: kinds},
                        wish=self._wish(job, queue))  # fmt: skip
        self._arrivals += 1
        return Workload(
            job.id, queue, (podset,), job.priority, job.submit_s, (self._arrivals, job.id)
        )

    def _wish(self, job: Job, queue: str) -> Wish | None:
        """Return what a job's limits ask of the topology of its queue, if that has one."""
        node = self.tree.queues[queue]
        groups = node.queue.groups if node.queue else ()
        names = {self.config.flavors[f].topology for g in groups for f in g.flavors}
        levels = next((self.config.levels[n] for n in names if n), ())
        if not levels:
            return None
        inner = 0 if levels[-1] in HOSTNAME else 1  # what the last level is: a node, or a leaf
        for depth, limit in enumerate((job.max_nodes, job.max_leaves, job.max_pods)):
            if limit == 1 and 0 <= depth - inner < len(levels):
                return Wish(required=levels[::-1][depth - inner])
        return Wish(unconstrained=True)

    # -- the scheduler -----------------------------------------------------------------------------------

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        """Take note of what has ended and come, then run cycles until nothing more is admitted."""
        if any(r.event in NODE_EVENTS for r in events):
            self._look_at_nodes(view)
            for name in self.lines:
                self._unpark(self.tree.queues[name])
        for record in events:
            if (
                record.event in RELEASES
                and record.job in self.held
                and record.job not in view.running
            ):
                self._leave(record.job)
        for job in view.arrived:
            self._enter(view, job, now)
        yield from self._start_pending(view)
        for _ in range(MOST_CYCLES):
            heads = self._heads()
            if not heads:
                return
            done = Cycle(self.config, self.tree, self.places, self._assigners).run(heads)
            moved = bool(done.admitted)
            self._settle(done, now)
            yield from self._start_pending(view)
            for target, _ in done.preempted:
                yield from self._evict(view, target, done.preemptors[target.id])
                moved = moved or target.id not in view.running
            for job in view.arrived if done.preempted and moved else ():
                self._enter(view, job, now)
            if not moved:
                return

    def _enter(self, view: View, job: Job, now: float) -> None:
        if job.id in self.held or job.id not in view.waiting:
            return
        known = self.jobs.get(job.id)
        if known is None:
            known = self.jobs[job.id] = self._workload(view, job)
        entry = known.order, job.id
        line = self.lines[known.queue]
        if entry not in line and entry not in self.parked[known.queue]:
            insort(line, entry)

    def _leave(self, name: str) -> None:
        """Give quota and places back, and let those look again who wait in the same tree."""
        job = self.held.pop(name)
        self.pending.pop(name, None)
        self.tree.evict(job)
        self.places.book(job, -1)
        self.jobs[name] = replace(job, given={}, evicting=False)
        self._unpark(self.tree.queues[job.queue])

    def _unpark(self, node: Node) -> None:
        for queue in node.root.queues():
            for entry in self.parked[queue.name]:
                insort(self.lines[queue.name], entry)
            self.parked[queue.name].clear()

    def _heads(self) -> list[Workload]:
        """Return the first job of every queue that admits any."""
        found = []
        for name, line in self.lines.items():
            spec = self.tree.queues[name].queue
            if line and spec is not None and not spec.hold:
                sticky = self.sticky.get(name)
                first = sticky if sticky and any(n == sticky for _, n in line) else line[0][1]
                found.append(self.jobs[first])
        return found

    def _settle(self, done: Outcome, now: float) -> None:
        for job in done.admitted:
            self._drop(self.lines, job)
            held = replace(job, reserved_at=now)
            self.tree.queues[job.queue].jobs[job.id] = held
            self.held[job.id] = self.pending[job.id] = held
            self._forget_sticky(job.queue, job.id)
        for name in done.parked:
            job = self.jobs[name]
            self.parked[job.queue].append(self._drop(self.lines, job))
            self._forget_sticky(job.queue, name)
        for victim, name in done.preemptors.items():
            if victim in self.held and not self._is_strict(self.jobs[name].queue):
                self.sticky[self.jobs[name].queue] = name

    def _is_strict(self, queue: str) -> bool:
        spec = self.tree.queues[queue].queue
        return spec is not None and spec.strict

    def _forget_sticky(self, queue: str, name: str) -> None:
        if self.sticky.get(queue) == name:
            del self.sticky[queue]

    def _drop(self, lines: dict[str, list[tuple[Any, str]]], job: Workload) -> tuple[Any, str]:
        line, entry = lines[job.queue], (job.order, job.id)
        return line.pop(bisect_left(line, entry))

    # -- devices -----------------------------------------------------------------------------------------

    def _start_pending(self, view: View) -> Iterator[Decision]:
        """Start jobs that have quota, as soon as their devices are there."""
        for name, job in list(self.pending.items()):
            if name not in view.waiting:
                continue
            found = self._devices_for(view, view.waiting[name], job)
            if found and view.rate(view.waiting[name], found) > 0:
                del self.pending[name]
                yield Start(name, found)

    def _devices_for(self, view: View, job: Job, given: Workload) -> Placement | None:
        got = next(iter(given.given.values()))
        flavor = next((f for f, _ in got.use.values() if f in self.type_of), "")
        kind = self.type_of.get(flavor, "")
        if not got.domains:
            return (
                self.placer.fill(view.free, job, kind)
                if job.devices
                else self.placer.find(view, job)
            )
        per = job.devices // got.count
        taken: dict[int, int] = {}
        for domain in got.domains:
            self._fill_domain(view, kind, domain, per, taken)
        whole = sum(mask.bit_count() for mask in taken.values()) == job.devices
        return tuple(sorted(taken.items())) if whole else None

    def _fill_domain(
        self, view: View, kind: str, domain: Domain, per: int, taken: dict[int, int]
    ) -> None:
        """Take whole pods on the nodes of a domain."""
        at, count = domain
        for i in self._nodes_in.get((kind, at[-1]), ()):
            while count and (free := view.free.masks[i] & ~taken.get(i, 0)).bit_count() >= per:
                taken[i] = taken.get(i, 0) | lowest(free, per)
                count -= 1

    def _evict(self, view: View, target: Workload, for_job: str) -> Iterator[Decision]:
        """Let a job go; one that only has quota goes at once."""
        if target.id in self.pending:
            self._leave(target.id)
            self._enter(view, view.waiting[target.id], view.now)
        elif target.id in view.running and not target.evicting:
            marked = replace(target, evicting=True)
            self.tree.queues[target.queue].jobs[target.id] = self.held[target.id] = marked
            yield Preempt(target.id, for_job=for_job)
            if target.id not in view.running:
                self._leave(target.id)
                self._enter(view, view.waiting[target.id], view.now)

    def on_end(self, view: View) -> None:
        """Nothing to let go."""
