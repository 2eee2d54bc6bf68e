"""From a command line to a step: run the script's ranks, then their traces through the step engine."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ersatz.device_models.catalog.device import Node
from ersatz.device_models.text.digits import is_whole
from ersatz.sim.emulate.records import EmulateResult
from ersatz.sim.emulate.replaying.outcome import Setting, outcome
from ersatz.sim.emulate.replaying.together import together
from ersatz.sim.emulate.resting import rests_on
from ersatz.sim.emulate.starting.command import Command, parse_command
from ersatz.sim.emulate.starting.launch import run_ranks, torch_version, version_note
from ersatz.sim.emulate.trace import Trace
from ersatz.sim.emulate.virtual_device import STANDINS, Seat, seated_node, shown_as
from ersatz.sim.errors import InputError, Problem

STACK = "torch-eager"
TIMERS = ("calibrated", "roofline", "table", "live")
MOST_PROCESSES = 32
UNKNOWN_FLOAT = 1.0  # what the host reads of a float that nobody knows


@dataclass(frozen=True, slots=True)
class Request:
    """What an emulation is asked for."""

    node: str
    script: tuple[str, ...]
    nodes: int = 1
    stack: str = STACK
    ranks: str = "0"  # numbers by comma, or `all`
    steps: int = 4  # whole steps after which the script is stopped; 0: let it end
    timer: str = "calibrated"
    calibration: str = ""
    attach: str = "cpu"
    patience_s: float = 600.0
    seed: int = 0
    standins: tuple[str, ...] = ()  # packages for which one is put in place


@dataclass(frozen=True, slots=True)
class Emulation:
    """The answer with what it was made of."""

    result: EmulateResult
    traces: tuple[Trace, ...]
    node: Node
    request: Request


def emulate(request: Request) -> Emulation:
    """Run a script on virtual devices and time its step.

    Raises `InputError` for what cannot be run, `InfeasibleError` where memory is too small.
    """
    seats, command = seats_of(request)
    installed = torch_version()
    traces = run_ranks(seats, command.words, request.patience_s)
    node, stack = seated_node(request.node, request.nodes, request.stack)
    known = rests_on(request.timer, request.calibration, node.device, traces)
    traces = together(traces, stack.overlap_contention) if len(traces) > 1 else traces
    notes = [n for n in (version_note(installed), *known) if n]
    world = seats[0].world
    setting = Setting(" ".join(command.words), node, request.nodes, world, request.timer,
                      request.timer == "live" and world == 1)  # fmt: skip
    return Emulation(outcome(setting, traces, notes), tuple(traces), node, request)


def seats_of(request: Request) -> tuple[list[Seat], Command]:
    """Return a seat for each rank that runs as a process; raises `InputError` with every fault."""
    command = parse_command(request.script)
    node, _ = seated_node(request.node, request.nodes, request.stack)
    shown_as(node.device)
    launched = bool(command.launcher) or request.nodes > 1
    per_node = command.per_node or (node.devices if launched else 1)
    problems = []
    if not node.device.trains:
        problems.append(Problem("emulate", 0, 0, "device", node.device.name, node.device.why_not))
    if request.timer not in TIMERS:
        problems.append(
            Problem("--timer", 0, 0, "", request.timer, f"expected one of {', '.join(TIMERS)}")
        )
    if request.timer == "table" and not request.calibration:
        problems.append(
            Problem("--timer", 0, 0, "", "table", "expected --calibration FILE with it")
        )
    problems += [Problem("--with", 0, 0, "", n, f"expected one of {', '.join(STANDINS)}")
                 for n in request.standins if n not in STANDINS]  # fmt: skip
    if per_node > node.devices:
        problems.append(Problem("emulate", 0, 0, "processes per node", str(per_node),
                                f"expected at most the {node.devices} devices of {node.name}"))  # fmt: skip
    if command.nodes and command.nodes != request.nodes:
        problems.append(Problem("emulate", 0, 0, "nodes of the launcher", str(command.nodes),
                                f"expected the {request.nodes} of --nodes"))  # fmt: skip
    world = per_node * request.nodes
    ranks = _ranks(request.ranks, world, problems)
    if problems:
        raise InputError(problems)
    options = os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "")
    return [
        Seat(request.node, request.nodes, request.stack, rank, world, per_node, request.steps, ranks, 0,
             request.timer, request.calibration, request.attach, "", request.seed, UNKNOWN_FLOAT,
             launched, options, request.standins)
        for rank in ranks
    ], command  # fmt: skip


def _ranks(words: str, world: int, problems: list[Problem]) -> tuple[int, ...]:
    if words == "all":
        found = tuple(range(world))
    elif all(is_whole(part.strip()) for part in words.split(",")):
        found = tuple(sorted({int(part) for part in words.split(",")}))
    else:
        problems.append(Problem("--ranks", 0, 0, "", words, "expected numbers by comma, or all"))
        return (0,)
    if found[-1] >= world:
        problems.append(Problem("--ranks", 0, 0, "", words, f"expected ranks below {world}"))
    if len(found) > MOST_PROCESSES:
        expected = f"expected at most {MOST_PROCESSES} processes; name the ranks that differ"
        problems.append(Problem("--ranks", 0, 0, "", words, expected))
    return found
