"""Run a fleet's workload through one of the doors; all give the same kind of log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ersatz.sim.errors import InputError, Problem
from ersatz.sim.fleet.doors.batsim import BatsimScheduler
from ersatz.sim.fleet.doors.peer import Peer
from ersatz.sim.fleet.doors.slurm.accounts import Accounts, read_accounts
from ersatz.sim.fleet.doors.slurm.carried import Carried, carry
from ersatz.sim.fleet.doors.slurm.given import Given, read_conf
from ersatz.sim.fleet.doors.slurm.replay import replay_on_slurm
from ersatz.sim.fleet.engine.fleet import FleetSpec, run_fleet
from ersatz.sim.fleet.log import Claims, Log, Rules


@dataclass(frozen=True, slots=True)
class Door:
    """A way to a scheduler, mostly one outside. `scheduler` is a command, `speed` that of Slurm's clock."""

    kind: Literal["process", "batsim", "slurm"]
    scheduler: str = ""
    endpoint: str = ""
    timeout_s: float = 30.0  # of real time, for an answer
    speed: float = 200.0
    forward: bool = False  # tell it of slow nodes as well
    state_numbers: bool = False  # and states of devices as numbers
    preempt: bool = False  # Slurm may requeue jobs of lower priority
    claims: Claims | None = None
    conf: str = ""  # a slurm.conf of the user's
    assoc: str = ""  # and its accounts, as sacctmgr dumps them


def run_at_door(
    spec: FleetSpec, door: Door, advance: Callable[[str], None] = lambda _: None
) -> Log:
    """Run a workload under a scheduler outside.

    Raises `InputError` for what the door cannot do, and `InfeasibleError` (as `RunEndedError`, with the
    log so far) when the scheduler fails. `advance` is told of each job that Slurm has done with.
    """
    if door.kind == "batsim":
        try:
            peer = Peer(door.scheduler, door.endpoint, timeout_s=door.timeout_s)
        except ValueError as error:
            option = "--endpoint" if door.endpoint and not door.scheduler else "--scheduler"
            raise InputError([Problem("--door batsim", 0, 0, option, "", str(error))]) from None
        scheduler = BatsimScheduler(peer, claims=door.claims, jobs=len(spec.workload.jobs),
                                    forward=door.forward, state_numbers=door.state_numbers)  # fmt: skip
        return run_fleet(replace(spec, about=(*spec.about, ("door", "batsim"))), scheduler)
    if not 1.0 <= door.speed <= 1000.0:
        expected = "expected 1 (real time) to 1000; 60 to 200 keep its scheduler in time"
        raise InputError([Problem("--door slurm", 0, 0, "--speed", f"{door.speed:g}", expected)])
    told = told_to_slurm(spec, door)
    return replay_on_slurm(
        spec.cluster, told.carried.workload, speed=door.speed, rules=told.rules, preempt=door.preempt,
        outages=told.carried.outages, seed=spec.seed, advance=advance, about=dict(spec.about),
        given=told.given, accounts=told.accounts, rates=told.carried.rates,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Told:
    """What Slurm is told of a fleet, and of the user's own files."""

    carried: Carried
    rules: Rules
    given: Given | None
    accounts: Accounts | None  # of a file; None: of the fleet's tenants, if of any

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what is told otherwise than it is, or not at all."""
        return (*self.carried.notes, *(self.given.notes if self.given else ()),
                *(self.accounts.notes if self.accounts else ()))  # fmt: skip


def told_to_slurm(spec: FleetSpec, door: Door) -> Told:
    """Return what Slurm is told; raises `InputError` with what cannot be carried over.

    A file of accounts stands in place of the fleet's quotas.
    """
    given = read_conf(door.conf, spec.cluster) if door.conf else None
    if not door.assoc:
        return Told(carry(spec), spec.rules, given, None)
    accounts = read_accounts(door.assoc, spec.cluster, spec.workload)
    if spec.rules.quotas:
        note = (
            f"{Path(door.assoc).name}: its accounts stand in place of the fleet's shares and limits"
        )
        accounts = replace(accounts, notes=(*accounts.notes, note))
    bare = replace(spec, rules=replace(spec.rules, quotas={}))
    return Told(carry(bare), bare.rules, given, accounts)
