"""One emulated rank: its device, clock, memory and trace, and the counts that a report needs."""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch.utils._pytree import tree_leaves

from ersatz.device_models.catalog.device import Device, Node
from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.kernels.kernel import Kernel, Timer
from ersatz.sim.emulate.allocator import CachingAllocator, Full
from ersatz.sim.emulate.clock import Clock
from ersatz.sim.emulate.network import Network
from ersatz.sim.emulate.trace import CONTENTION, Ranks, Recorder, Task
from ersatz.sim.emulate.virtual import shim
from ersatz.sim.emulate.virtual.residency import Residency, in_order
from ersatz.sim.emulate.virtual_device import Host, Seat, Shown
from ersatz.sim.hil.device.operators import Signature, told

GIB = 2.0**30
Found: TypeAlias = tuple[
    tuple[bool, ...], bool
]  # operands in the cache; results that find a place there
OWN = ("/sim/emulate/", "/torch/", "site-packages", "dist-packages", f"{sys.base_prefix}/lib")


MOST_BACKWARDS = 64  # without an optimizer's step, after which a script is stopped


class EnoughSteps(BaseException):
    """The script has made as many steps as were asked for."""


@dataclass(slots=True, weakref_slot=True)
class Machine:
    """What one rank is made of. One per process."""

    seat: Seat
    node: Node
    stack: Stack
    shown: Shown
    host: Host
    timer: Timer
    network: Network
    memory: CachingAllocator
    launch_s: float
    # seconds of an operator by signature and what is in the cache, measured live or before (None: it
    # was not); or why they cannot be measured
    measure: Callable[[tuple[Any, ...]], float | str | None] | None = None
    cache: Residency = field(default_factory=lambda: Residency(0.0))  # asked for by a live timer
    recorder: Recorder = field(default_factory=Recorder)
    stream: int = 0  # current
    streams: dict[int, str] = field(default_factory=lambda: {0: "compute"})
    storages: dict[int, int] = field(default_factory=dict)  # address by storage
    finalizers: dict[int, weakref.ref[Any]] = field(default_factory=dict)
    addresses: int = 1 << 40  # of storages on the host
    used: set[int] = field(default_factory=set)  # indices of devices that hold tensors
    capturing: bool = False  # a graph
    silent: int = 0  # inside a kernel that is charged as a whole
    history: list[dict[str, Any]] | None = None  # of memory, while the script records it
    history_length: int = 0
    phase: str = ""  # "optimizer" inside an optimizer's step
    owed_s: float = 0.0  # of the host beside the operators of a step, until it waits
    first_optimizer: int = 0
    parameters: int = 0  # that it holds
    dispatches: int = 0
    reads: Counter[str] = field(default_factory=Counter)
    policies: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)  # operators without a rule, in seconds
    notes: dict[str, None] = field(default_factory=dict)
    modelled: list[int] = field(default_factory=list)  # numbers of work that was not timed live
    times: dict[Kernel, float] = field(default_factory=dict)
    backwards: list[tuple[int, float]] = field(default_factory=list)  # passes: entries, clock
    started: Counter[str] = field(
        default_factory=Counter
    )  # processes of the script's own, by place
    error: str = ""  # that ended the script
    real_clock: Callable[[], float] = field(default=lambda: 0.0)

    @property
    def clock(self) -> Clock:
        """The live clock."""
        return self.recorder.clock

    @property
    def device(self) -> Device:
        """The catalogue's device."""
        return self.node.device

    @property
    def device_index(self) -> int:
        """Index of the current device."""
        return shim.current.index

    @device_index.setter
    def device_index(self, index: int) -> None:
        shim.current.index = index

    def note(self, words: str) -> None:
        """Keep a sentence for the report, once."""
        self.notes.setdefault(words)

    # ---- work

    def run_kernel(
        self, kernel: Kernel, name: str, known: bool, signature: Signature | None = None,
        found: Found = ((), False),
    ) -> int:  # fmt: skip
        """Launch a kernel on the current stream; returns its entry."""
        category = self.phase or kernel.category
        key = (kernel, category, signature, found)
        number = self.recorder.numbers.get(key)
        if number is None:
            measured = self._measured(signature, found)
            seconds = self._modelled(kernel) if measured is None else measured
            text = told(signature) if signature else ""
            task = Task(name, category, seconds, kernel, known=known, signature=text)
            number = self.recorder.number(key, task)
            if self.seat.timer == "live" and measured is None:
                self.modelled.append(number)
        seconds = self.recorder.table[number].seconds
        if not known:
            self.unknown[name] += seconds  # type: ignore[assignment]
        entry = self.clock.run(self.stream, number, seconds, self.launch_s)
        self.contend()
        return entry

    def contend(self) -> None:
        """Charge what collectives that ended took from the kernels beside them."""
        clock, share = self.clock, self.stack.overlap_contention
        if not clock.ended or self.capturing:
            return
        seconds = share * clock.charged()
        if seconds > 0:
            task = Task(CONTENTION, CONTENTION, seconds)
            clock.run(self.stream, self.recorder.number((CONTENTION, seconds), task), seconds, 0.0)

    def _measured(self, signature: Signature | None, found: Found) -> float | None:
        """Return the seconds of an operator that was timed, live or before; None where it was not."""
        if not (self.measure and signature):
            return None
        measured = self.measure((*signature, *found))
        if isinstance(measured, str):
            self.note(f"{signature[0]} cannot be timed live ({measured}): its time is modelled")
            return None
        return measured

    def _modelled(self, kernel: Kernel) -> float:
        known = self.times.get(kernel)
        if known is None:
            known = self.times[kernel] = self.timer(self.device, kernel)
        return known

    def copy(self, nbytes: float, name: str, *, waits: bool) -> None:
        """Move bytes between host and device on the current stream."""
        seconds = nbytes / self.host.copy_bandwidth
        number = self.recorder.number((name, nbytes), Task(name, "copy", seconds, nbytes=nbytes))
        entry = self.clock.run(self.stream, number, seconds, self.launch_s)
        if waits:
            self.clock.wait_on_host([entry])

    def read(self, what: str) -> None:
        """Let the host wait for the current stream, as for a value that it reads."""
        self.reads[f"{what} at {place()}"] += 1
        self.clock.wait_on_host(self.clock.mark(self.stream))
        self.pay()

    def synchronize(self) -> None:
        """Let the host wait for every stream."""
        self.clock.synchronize()
        self.pay()

    def pay(self) -> None:
        """Let the host do what the stack says that it does beside the operators of a step.

        Data, logs and the loop itself come when the host has waited for the step, and are seen then; where
        it never waits they hide behind the device, as far as that is behind.
        """
        owed, self.owed_s = self.owed_s, 0.0
        if owed:
            self.clock.spend(owed)

    def collective(
        self,
        kind: str,
        nbytes: float,
        ranks: Ranks,
        *,
        beside: bool,
        name: str = "",
        peer: int = -1,
    ) -> int:
        """Launch a collective: on the group's own stream if `beside`, else on the current one."""
        seconds = self.network.seconds(kind, nbytes, ranks)
        task = Task(
            name or kind, kind, seconds, collective=kind, nbytes=nbytes, ranks=ranks, peer=peer
        )
        number = self.recorder.number((name, kind, nbytes, ranks), task)
        stream = self.group_stream(ranks) if beside else self.stream
        after = self.clock.mark(self.stream) if beside else ()
        launch = self.host.collective_launch_s if self.launch_s else 0.0
        return self.clock.run(stream, number, seconds, launch, after, talks=task.talks)

    def arrive(self, entry: int, sent_s: float) -> None:
        """Let a message end when its sender has sent it: what it waits for is time of its own."""
        clock = self.clock
        late = sent_s - clock.ends[entry]
        if late <= 0:
            return
        old = clock.entries[entry]
        task = self.recorder.table[old.work]
        longer = replace(task, seconds=task.seconds + late, waited=late)
        number = self.recorder.number(("arrival", len(self.recorder.table)), longer)
        clock.entries[entry] = old._replace(work=number)
        clock.ends[entry] = sent_s
        clock.free[old.stream] = max(clock.free[old.stream], sent_s)

    def group_stream(self, ranks: Ranks) -> int:
        """Return the stream on which a group's collectives run beside others."""
        words = f"group {ranks.start}+{ranks.stride}x{ranks.size}{ranks.irregular or ''}"
        known = next((s for s, w in self.streams.items() if w == words), None)
        return self.new_stream(words) if known is None else known

    def new_stream(self, words: str = "") -> int:
        """Return a stream that nothing has used."""
        number = len(self.streams)
        self.streams[number] = words or f"stream {number}"
        return number

    # ---- memory

    def track(self, tensor: torch.Tensor) -> None:
        """Give the storage of a tensor on the device its memory, once."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.storages:
            self._of_another_device(tensor.device.index)
            self._allocate(storage, key, storage.nbytes())

    def _of_another_device(self, index: int | None) -> None:
        """Say so where a process uses more than one device."""
        if index is None or index in self.used:
            return
        self.used.add(index)
        if len(self.used) > 1:
            self.note(
                f"{place()} uses device {index} beside others: work and memory of all devices of a process"
                " are counted as one device's, so that both are above those of each"
            )

    def retrack(self, storage: Any) -> None:
        """Follow a storage that changed its size."""
        key = storage._cdata
        if key in self.storages:
            self._free(key)
        self._allocate(storage, key, storage.nbytes())

    def _allocate(self, storage: Any, key: int, nbytes: int) -> None:
        if nbytes:
            self.storages[key] = self._block(nbytes)
        else:
            self.storages[key] = 0
        if key not in self.finalizers:
            self.finalizers[key] = weakref.ref(storage, lambda _: self._gone(key))

    def _block(self, nbytes: int) -> int:
        try:
            address = self.memory.allocate(nbytes, self.stream)
        except Full as full:
            self._remember("oom", 0, full.wanted)
            raise torch.OutOfMemoryError(self._out_of_memory(full.wanted)) from None
        self._remember("alloc", address, nbytes)
        return address

    def _remember(self, action: str, address: int, nbytes: int) -> None:
        """Note what happens to memory, as PyTorch's history does."""
        if self.history is None:
            return
        file, _, line = place().rpartition(":")
        frames = [
            {"filename": file or line, "line": int(line) if line.isdigit() else 0, "name": ""}
        ]
        self.history.append({
            "action": action, "addr": address, "size": nbytes, "stream": self.stream, "frames": frames,
            "time_us": int(1e6 * self.clock.host), "device_free": self.memory.capacity - self.memory.reserved,
        })  # fmt: skip
        del self.history[: -self.history_length]

    def _gone(self, key: int) -> None:
        self.finalizers.pop(key, None)
        if key in self.storages:
            self._free(key)

    def _free(self, key: int) -> None:
        address = self.storages.pop(key)
        if address:
            size = self.memory.blocks[address].asked
            self._remember("free_requested", address, size)
            self._remember("free_completed", address, size)
            self.memory.free(address)

    def _out_of_memory(self, wanted: int) -> str:
        memory, total = self.memory, self.device.memory_bytes
        free = memory.capacity - memory.reserved
        used = total - free
        kind = {"cuda": "CUDA", "npu": "NPU"}[self.shown.surface]
        return (
            f"{kind} out of memory. Tried to allocate {size(wanted)}. GPU {self.device_index} has a"
            f" total capacity of {size(total)} of which {size(free)} is free. Including non-PyTorch"
            f" memory, this process has {size(used)} memory in use. Of the allocated memory"
            f" {size(memory.allocated)} is allocated by PyTorch, and"
            f" {size(memory.reserved - memory.allocated)} is reserved by PyTorch but unallocated."
            " (an emulated device)"
        )

    def address(self, storage: Any) -> int:
        """Return where a storage lies: of the device, or a made-up place on the host."""
        key = storage._cdata
        found = self.storages.get(key)
        if found is None:
            found = self.storages[key] = 0
            self.finalizers[key] = weakref.ref(storage, lambda _: self._gone(key))
        return found or (key & ~511)

    def found_in_cache(
        self, values: Iterable[Any], made: Iterable[torch.Tensor]
    ) -> tuple[tuple[bool, ...], bool]:
        """Touch what an operator reads and makes; tells what of it the cache held."""
        read = list(in_order(values))
        known = {id(t) for t in read}
        there = {id(t): self._touch(t) for t in read}
        fresh = [self._touch(t) for t in made if id(t) not in known]
        return tuple(there[id(t)] for t in tensors_in(values)), all(fresh)

    def _touch(self, tensor: torch.Tensor) -> bool:
        nbytes = tensor.numel() * tensor.element_size()
        return self.cache.touch(self.address(tensor.untyped_storage()), nbytes)

    # ---- steps

    def step_done(self, optimizer: object) -> None:
        """Note the end of a step: whenever the script's first optimizer has stepped."""
        if not self.first_optimizer:
            self.first_optimizer = id(optimizer)
            self.parameters = count_of(optimizer)
        if id(optimizer) != self.first_optimizer:
            return
        self.pay()
        self.owed_s = self.stack.step_host_s
        self.recorder.end_step()
        if self.seat.steps and len(self.recorder.marks) > self.seat.steps:
            raise EnoughSteps

    def backward_done(self) -> None:
        """Note the end of a backward pass, as long as no optimizer has stepped."""
        if self.first_optimizer:
            return
        self.backwards.append((len(self.clock.entries), self.clock.drained))
        if self.seat.steps and len(self.backwards) > MOST_BACKWARDS:
            raise EnoughSteps

    def count_backwards(self) -> None:
        """Take backward passes for steps where a script steps by itself, without `torch.optim`."""
        if self.recorder.marks or not self.backwards:
            return
        self.recorder.marks = [entries for entries, _ in self.backwards]
        self.recorder.drained = [seconds for _, seconds in self.backwards]
        self.note(
            "no optimizer of torch.optim has stepped: a step is taken to end with each backward pass, so that"
            " gradient accumulation counts as many steps, and what follows the last pass as none"
        )

    def policy(self, what: str) -> None:
        """Count a value that nobody knows and that was answered by policy."""
        self.policies[f"{what} at {place()}"] += 1


def count_of(optimizer: Any) -> int:
    """Return the elements of an optimizer's parameters, of whole ones where they are sharded."""
    groups = getattr(optimizer, "param_groups", ())
    return sum(int(p.numel()) for group in groups for p in group["params"])


def size(nbytes: float) -> str:
    """Write bytes as PyTorch's errors do."""
    if nbytes >= GIB:
        return f"{nbytes / GIB:.2f} GiB"
    if nbytes >= 2**20:
        return f"{nbytes / 2**20:.2f} MiB"
    return f"{nbytes / 1024:.2f} KiB"


def place() -> str:
    """Return the line of the script, or of the package nearest to it, that is being run."""
    frame = sys._getframe(1)
    nearest = ""
    while frame is not None:
        name = frame.f_code.co_filename
        if not any(word in name for word in OWN) and not name.startswith("<"):
            return f"{Path(name).name}:{frame.f_lineno}"
        if not nearest and "-packages/" in name and "-packages/torch/" not in name:
            nearest = f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return nearest or "a thread of PyTorch"


def tensors_in(values: Iterable[Any]) -> list[torch.Tensor]:
    """Return the tensors among arguments, as they are nested."""
    return [v for v in tree_leaves(list(values)) if isinstance(v, torch.Tensor)]


def on_device(tensors: Iterable[object], kind: str) -> list[torch.Tensor]:
    """Return the tensors of the virtual device among values."""
    return [t for t in tensors if isinstance(t, torch.Tensor) and t.device.type == kind]
