"""The process of one emulated rank: put the device in place, run the script, write the trace.

python -m ersatz.sim.emulate.virtual.rank SEAT -- [-m] SCRIPT ARGUMENTS
"""

from __future__ import annotations

import faulthandler
import math
import os
import resource
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ersatz.device_models.text.units import format_bytes
from ersatz.sim.emulate.allocator import configured
from ersatz.sim.emulate.network import Network
from ersatz.sim.emulate.timing import kernel_timer, own_operators
from ersatz.sim.emulate.trace import Trace, save
from ersatz.sim.emulate.virtual_device import (
    STANDINS,
    WHERE,
    Seat,
    host_defaults,
    seated_node,
    shown_as,
    usable_memory,
)
from ersatz.sim.errors import EXIT_BAD_INPUT, InputError
from ersatz.sim.hil.device.operators import key_of, told

KEPT_STEPS = 2  # whole steps in the trace


def main(words: Sequence[str]) -> int:
    """Run a script as one rank; returns its exit status."""
    seat = Seat.of_json(words[0])
    script = list(words[words.index("--") + 1 :])
    os.environ.update(TORCH_DEVICE_BACKEND_AUTOLOAD="0", TORCHDYNAMO_DISABLE="1",
                      HF_HUB_OFFLINE=os.environ.get("HF_HUB_OFFLINE", "1"))  # fmt: skip
    where = Path(seat.out + WHERE).open("w")  # noqa: SIM115  # as long as the process lives
    faulthandler.register(signal.SIGUSR1, where, all_threads=False)
    try:
        machine, mode = put_in_place(seat)
    except InputError as error:  # of what was asked for, before the script began
        print(error, file=sys.stderr, flush=True)
        os._exit(EXIT_BAD_INPUT)
    status = 0
    from ersatz.sim.emulate.virtual.machine import EnoughSteps

    try:
        with mode:
            run_script(script)
    except EnoughSteps:
        pass
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else int(left.code is not None)
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
    except BaseException as error:  # whatever a script ends with is its answer, an interrupt, too
        show_error()
        machine.error = f"{type(error).__name__}: {words_of(error)}{remedy(error)}"
        status = 1
    save(trace_of(machine), Path(seat.out))
    sys.stdout.flush()
    sys.stderr.flush()
    mode.world.exchange.leave()
    os._exit(status)  # workers and threads of the script are not waited for


def words_of(error: BaseException) -> str:
    """Return what an error says; a package that is kept out of sight is one that is not there."""
    name = getattr(error, "name", None)
    hidden = isinstance(error, ModuleNotFoundError) and name and sys.modules.get(name, name) is None
    return f"No module named '{name}' on this device" if hidden else str(error)


def remedy(error: BaseException) -> str:
    """Return what would help: a stand-in where a compiled package is missing."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and name in STANDINS:
        return f"; --with {name} puts a stand-in in its place"
    return ""


def show_error() -> None:
    """Print where the script failed, without the lines of the emulator."""
    kind, error, trace = sys.exc_info()
    own = str(Path(__file__).parents[1])
    rows = [
        f
        for f in traceback.extract_tb(trace)
        if own not in f.filename and "runpy" not in f.filename
    ]
    sys.stderr.write("Traceback (most recent call last):\n")
    sys.stderr.write("".join(traceback.format_list(rows)))
    sys.stderr.write("".join(traceback.format_exception_only(kind, error)))
    if os.environ.get("ERSATZ_DEBUG"):
        traceback.print_exc()


def run_script(words: list[str]) -> None:
    """Run a script, or a module after `-m`, as the main program."""
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).resolve().parent))
    runpy.run_path(words[0], run_name="__main__")


def put_in_place(seat: Seat) -> tuple[Any, Any]:
    """Build the machine and replace what the script would find of a real one."""
    import torch

    from ersatz.sim.emulate.surface import npu
    from ersatz.sim.emulate.virtual import compiled, shim
    from ersatz.sim.emulate.virtual.mode import Emulation, shapes_only
    from ersatz.sim.emulate.world import exchange, groups
    from ersatz.sim.emulate.world.collectives import World

    if seat.under_torchrun:
        groups.set_environment(seat.rank, seat.world, seat.per_node)
    machine = machine_of(seat)
    store = exchange.open_store(seat.rank, seat.represented, seat.store_port)
    if machine.shown.surface == "npu":
        npu.name_device()
    else:
        shim.believe_in_cuda(seat.per_node)
    shapes = shapes_only()
    world = World(machine, shapes, exchange.Exchange(seat.rank, seat.represented, store))
    mode = Emulation(machine, shapes, world)
    put_surfaces(machine, mode, world)
    compiled.install(machine, mode)
    steps(machine)
    torch.manual_seed(seat.seed)
    return machine, mode


def machine_of(seat: Seat) -> Any:
    """Return the machine of a rank: its device, host, network and memory."""
    from ersatz.sim.emulate.measured import Measurer
    from ersatz.sim.emulate.virtual.machine import Machine

    node, stack = seated_node(seat.node, seat.nodes, seat.stack)
    timer = kernel_timer(seat.timer, seat.calibration, node.device)
    host = host_defaults()
    live = Measurer(seat.attach) if seat.timer == "live" else None
    launch_s = 0.0 if live or (stack.launch_s == 0 and node.device.name == "cpu") else host.launch_s
    memory, left = configured(usable_memory(node, stack), seat.allocator)
    machine = Machine(
        seat, node, stack, shown_as(node.device), host, timer, Network(node, stack, seat.world),
        memory, launch_s, live,
    )  # fmt: skip
    if live:
        held = machine.cache.capacity = live.cache_holds()
        what = format_bytes(held) if math.isfinite(held) else "whatever"
        machine.note(
            f"operators are timed with {what} of what was touched last in the cache of {seat.attach}"
        )
    own = own_operators(seat.timer, seat.calibration, node.device)
    if own:
        machine.measure = lambda asked: own.get(key_of(told((asked[0], asked[1], asked[2]))))
    machine.real_clock = time.process_time
    if stack.step_host_s:
        machine.note(
            f"{1e3 * stack.step_host_s:.0f} ms of the host beside the operators of each step (data, logs), as"
            f" the stack {stack.name} says, where the host next waits for the device"
        )
    if left:
        machine.note(f"options of PyTorch's allocator that are not replayed: {', '.join(left)}")
    return machine


def put_surfaces(machine: Any, mode: Any, world: Any) -> None:
    """Put in place what a script sees: device, tensors, packages, files, processes, ranks, threads, time."""
    from ersatz.sim.emulate.standins import launched, place
    from ersatz.sim.emulate.surface import (
        attention,
        cuda,
        files,
        npu,
        processes,
        profiling,
        tensors,
        threads,
        times,
    )
    from ersatz.sim.emulate.virtual import kernels, shapes
    from ersatz.sim.emulate.world import groups, lazily, reducer

    if machine.shown.surface == "npu":
        npu.install(machine, mode.shapes)
    else:
        cuda.install(machine)
        own = kernels.CPU if machine.device.name == "cpu" else kernels.CUDA
        kernels.install("CUDA", own, mode.shapes)
        attention.install(("AutogradCUDA", "CUDA"))
    shapes.install()
    tensors.install(machine, mode)
    place.install(machine, machine.seat.standins)
    files.install(machine)
    processes.install(machine)
    profiling.install(machine)
    launched.install(machine)
    groups.install(machine, world)
    reducer.install(machine)
    lazily.install()
    threads.install(mode)
    times.install(machine.clock)


def steps(machine: Any) -> None:
    """Note when optimizers step."""
    import torch
    import torch.nn.utils.clip_grad
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.optim import optimizer

    if machine.device.name != "cpu":  # where optimizers go through parameters one by one
        optimizer._foreach_supported_types.append(FakeTensor)
    torch.nn.utils.clip_grad._has_foreach_support = lambda tensors, device: True

    def before(found: Any, args: Any, kwargs: Any) -> None:
        machine.phase = "optimizer"

    def after(found: Any, args: Any, kwargs: Any) -> None:
        machine.phase = ""
        machine.step_done(found)

    backward = torch.autograd.backward

    def passed(*args: Any, **kwargs: Any) -> None:
        backward(*args, **kwargs)
        machine.backward_done()

    torch.autograd.backward = passed
    optimizer.register_optimizer_step_pre_hook(before)
    optimizer.register_optimizer_step_post_hook(after)


def trace_of(machine: Any) -> Trace:
    """Return the trace of what the script did: its last whole steps."""
    recorder, memory = machine.recorder, machine.memory
    machine.count_backwards()
    marks = recorder.marks[-KEPT_STEPS - 1 :]
    marks = [0, *marks] if len(marks) == 1 else marks  # the only step begins with the script
    begin = marks[0] if marks else 0
    kept = recorder.clock.entries[begin : marks[-1]] if marks else []
    entries = tuple(e._replace(after=tuple(i - begin for i in e.after if i >= begin)) for e in kept)
    drained = recorder.drained
    return Trace(
        rank=machine.seat.rank, table=tuple(recorder.table), entries=entries,
        marks=tuple(m - begin for m in marks),
        step_s=tuple(b - a for a, b in zip([0.0, *drained], drained, strict=False)),
        streams=machine.streams,
        memory={"peak_allocated": memory.peak_allocated, "peak_reserved": memory.peak_reserved,
                "allocated": memory.allocated, "capacity": memory.capacity,
                "retries": memory.retries, "ooms": memory.ooms},
        facts={"dispatches": machine.dispatches, "reads": dict(machine.reads.most_common(20)),
               "policies": dict(machine.policies.most_common(20)), "unknown": dict(machine.unknown),
               "notes": list(machine.notes), "virtual_s": recorder.clock.drained,
               "cpu_s": machine.real_clock(), "steps": max(len(recorder.marks), 0),
               "error": machine.error, "parameters": machine.parameters,
               "started": dict(machine.started),
               "surface_assumed": machine.shown.assumed,
               **({"modelled": machine.modelled} if machine.seat.timer == "live" else {}),
               "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024},
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
