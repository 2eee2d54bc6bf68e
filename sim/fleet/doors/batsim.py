"""The second door: a scheduler in a process of its own, which speaks Batsim's protocol over ZeroMQ.

To the fleet it is a scheduler like any other. Each call is a request with what is new; simulated time
stands still until the reply, whose events are the decisions. ersatz asks (REQ), the scheduler answers
(REP) at an endpoint where it binds, as unmodified pybatsim schedulers do.

A job that comes back after an interruption is a new job to Batsim: `w0!7`, then `w0!7#1`; one whose id is no
number, as schedulers expect, is given one and told with its `name`. `KILL_JOB` is
a preemption without a new checkpoint; the job comes back. Decisions dated later are carried out then.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence

from ersatz.sim.fleet.cluster import Cluster, Placement, devices_text, parse_devices
from ersatz.sim.fleet.doors.batsim_messages import (
    CLOCK_S,
    STATES,
    WORKLOAD,
    Event,
    Order,
    ProtocolError,
    begins,
    completed,
    decode,
    encode,
    event,
    shown,
    submitted,
)
from ersatz.sim.fleet.doors.peer import Peer
from ersatz.sim.fleet.log import Claims, Record
from ersatz.sim.fleet.protocol import (
    Decision,
    Preempt,
    Reject,
    Reserve,
    SchedulerFault,
    Start,
    View,
    WakeAt,
)

MACHINES = {
    "down": "event_machine_unavailable", "drain": "event_machine_unavailable",
    "up": "event_machine_available", "undrain": "event_machine_available",
}  # fmt: skip
OWN_NUMBERS = 10**9  # from which on jobs are numbered whose ids are no numbers
MOST_ORDERS = 100_000  # of one reply, and of its future
STATE = re.compile(r"[0-9]{1,9}", re.ASCII)
FORWARDED = frozenset({"slow", "rate", "notice"})


class BatsimScheduler:
    """Asks a scheduler behind ZeroMQ.

    `peer` is how it is reached. `jobs` is the size of the workload, after which the scheduler hears
    that no more will come (0: it does not hear). `forward` tells it of slow nodes as well,
    `state_numbers` states of devices as numbers: the protocol has texts, with which some do not compare.
    """

    def __init__(
        self, peer: Peer, *, name: str = "", claims: Claims | None = None, jobs: int = 0,
        forward: bool = False, state_numbers: bool = False,
    ) -> None:  # fmt: skip
        self.peer, self.forward, self.state_numbers = peer, forward, state_numbers
        self.name = name or peer.name
        self.claims = claims or Claims()
        self.to_come = jobs
        self.messages = 0
        self._jobs: dict[str, str] = {}  # Batsim's id -> job
        self._ids: dict[str, str] = {}  # job -> Batsim's id of its present attempt
        self._attempts: dict[str, int] = {}
        self._numbers: dict[str, int] = {}  # of jobs whose ids are none
        self._calls: list[float] = []  # times at which it wants to be called
        self._later: list[tuple[float, int, Order]] = []  # orders of its future
        self._unasked: list[float] = []  # times of orders for which no call was asked for yet
        self._count = 0
        self._unsent: list[Event] = []
        self._cluster = Cluster(())
        self._ready = False

    def on_start(self, view: View) -> None:
        """Reach the scheduler and tell it about the fleet."""
        self._cluster = view.cluster
        self.peer.open()
        self._ready = True
        self._keep(0.0, self._ask(0.0, [begins(view.cluster, forward=self.forward)]))

    def on_event(self, now: float, events: Sequence[Record], view: View) -> Iterator[Decision]:
        """Tell what is new, and pass on what the scheduler decides."""
        yield from self._due(now)
        news = self._news(now, events, view)
        if news:
            self._keep(now, self._ask(now, news))
            yield from self._due(now)
        times, self._unasked = self._unasked, []
        for at_s in times:
            yield WakeAt(at_s)

    def on_end(self, view: View) -> None:
        """Say that the simulation is over, if there is still somebody to hear it."""
        if self._ready:
            self._ready = False
            self.peer.close(encode(view.now, [event(view.now, "SIMULATION_ENDS")]))
        else:
            self.peer.close()

    # -- what is told ------------------------------------------------------------------------------

    def _news(self, now: float, events: Sequence[Record], view: View) -> list[Event]:
        """Return what happened since the last call, in Batsim's words."""
        news, self._unsent = self._unsent, []
        for record in events:
            news += self._told(now, record)
        for job in view.arrived:
            attempt = self._attempts[job.id] = self._attempts.get(job.id, -1) + 1
            name = f"{WORKLOAD}!{self._number(job.id)}" + (f"#{attempt}" if attempt else "")
            self._ids[job.id], self._jobs[name] = name, job.id
            self._jobs[f"{WORKLOAD}!{job.id}"] = job.id  # who knows its own id may say that
            news.append(submitted(now, name, job))
            if not attempt:
                self.to_come -= 1
                if self.to_come == 0:
                    news.append(event(now, "NOTIFY", type="no_more_static_job_to_submit"))
        while self._calls and self._calls[0] <= now:
            heapq.heappop(self._calls)
            news.append(event(now, "REQUESTED_CALL"))
        return news

    def _number(self, job: str) -> str:
        """Return a job's id as Batsim's own are: a number, beyond those that jobs may have themselves."""
        if job.isascii() and job.isdigit() and len(job) < len(str(OWN_NUMBERS)):
            return job
        return str(self._numbers.setdefault(job, OWN_NUMBERS + len(self._numbers)))

    def _told(self, now: float, record: Record) -> list[Event]:
        """Return one record in Batsim's words; some it has no word for."""
        kind = record.event
        if kind in STATES:
            name = self._ids[record.job]
            alloc = devices_text(self._cluster, record.placement)
            news = [completed(now, name, STATES[kind], alloc)]
            if kind == "preempt":
                progress = {name: {"profile": "training", "progress": 0.0}}
                news.append(event(now, "JOB_KILLED", job_ids=[name], job_progress=progress))
            return news
        if kind in MACHINES:
            first = self._cluster.first[record.node]
            last = first + self._cluster.nodes[record.node].devices - 1
            text = f"{first}-{last}" if last > first else f"{first}"
            return [event(now, "NOTIFY", type=MACHINES[kind], resources=text)]
        if kind in FORWARDED and self.forward:
            node = self._cluster.nodes[record.node].name if record.node >= 0 else ""
            return [event(now, "NOTIFY", type=kind, job_id=self._ids.get(record.job, ""),
                          node=node, value=record.value)]  # fmt: skip
        return []

    def _ask(self, now: float, news: list[Event]) -> list[Order]:
        self.messages += 1
        try:
            return decode(self.peer.ask(encode(now, news)), now)
        except ProtocolError as error:
            self._ready = False
            raise SchedulerFault(f"answered nonsense: its reply {error}") from None
        except SchedulerFault:
            self._ready = False
            raise

    # -- what is decided -----------------------------------------------------------------------------

    def _keep(self, now: float, orders: list[Order]) -> None:
        """Put orders in line by their time, those of one time as they came."""
        if len(orders) + len(self._later) > MOST_ORDERS:
            raise SchedulerFault(f"has more than {MOST_ORDERS:,} orders in line")
        for order in orders:
            self._count += 1
            heapq.heappush(self._later, (order.at_s, self._count, order))
            if order.at_s > now:
                self._unasked.append(order.at_s)

    def _due(self, now: float) -> Iterator[Decision]:
        """Yield the decisions whose time has come."""
        while self._later and self._later[0][0] <= now:
            yield from self._decisions(now, heapq.heappop(self._later)[2])

    def _decisions(self, now: float, order: Order) -> Iterator[Decision]:
        data = order.data
        if order.type == "EXECUTE_JOB":
            yield Start(self._job(data["job_id"]), self._placement(data["alloc"]))
        elif order.type == "REJECT_JOB":
            yield Reject(self._job(data["job_id"]), shown(data.get("reason", "")))
        elif order.type == "KILL_JOB":
            for name in data["job_ids"]:
                yield Preempt(
                    self._job(name), "kill", self._jobs.get(shown(data.get("for", "")), "")
                )
        elif order.type == "CALL_ME_LATER":
            at_s = float(data["timestamp"])
            at_s = now if now - CLOCK_S <= at_s < now else at_s
            heapq.heappush(self._calls, at_s)
            if len(self._calls) > MOST_ORDERS:
                raise SchedulerFault(f"has asked for more than {MOST_ORDERS:,} calls")
            yield WakeAt(at_s)
        elif order.type == "RESERVE":
            placement = self._placement(data["alloc"] if isinstance(data.get("alloc"), str) else "")
            yield Reserve(self._job(data["job_id"]), float(data["at"]), placement)
        elif order.type == "SET_RESOURCE_STATE":  # devices have no states here: done at once
            state = data["state"]
            told = int(state) if self.state_numbers and STATE.fullmatch(state) else state
            self._unsent.append(event(now, "RESOURCE_STATE_CHANGED", **{**data, "state": told}))
            yield WakeAt(now)

    def _placement(self, alloc: str) -> Placement:
        try:
            return parse_devices(self._cluster, alloc.replace(",", " "))
        except ValueError as error:
            raise SchedulerFault(f"answered nonsense: as alloc, {error}") from None

    def _job(self, name: object) -> str:
        if not isinstance(name, str) or name not in self._jobs:
            raise SchedulerFault(f"answered nonsense: it was never told of a job {shown(name)!r}")
        return self._jobs[name]
