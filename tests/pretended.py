"""Pretended devices: an accelerator with a timeline of its own, and a host whose clock is its work.

The accelerator: kernels of known length, queued behind each other. Its tensors live on the host. Every
operation that PyTorch dispatches is queued at the host's time of issue and takes what `seconds` says of
it; events mark places in the queue. So a host that is late leaves the device idle between two events,
as on a real one, and a queue that is full hides the host.
"""

from __future__ import annotations

import time
import types
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

FREE = ("view", "t", "transpose", "detach", "alias", "split", "slice", "expand", "permute", "select",
        "unsqueeze", "squeeze", "as_strided", "_unsafe_view", "_reshape_alias")  # fmt: skip


class Timeline(TorchDispatchMode):
    """The queue of one device; `seconds` gives an operation's time by its name and arguments.

    The host's time is made up, too: `host_s` for every operation that it issues, and what it waits.
    """

    def __init__(
        self, seconds: Callable[[str, tuple[Any, ...]], float], host_s: float = 5e-6
    ) -> None:
        super().__init__()
        self.seconds, self.host_s = seconds, host_s
        self.now, self.free_at = 0.0, 0.0
        self.log: list[tuple[str, float]] = []

    def queue(self, name: str, seconds: float) -> float:
        """Append work; returns when it will be done."""
        self.now += self.host_s
        self.free_at = max(self.free_at, self.now) + seconds
        self.log.append((name, seconds))
        return self.free_at

    def wait(self, until: float) -> None:
        """Let the host wait for a moment of the device."""
        self.now = max(self.now, until)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in FREE:
            done = self.queue(name, self.seconds(name, args))
            if name == "_local_scalar_dense":  # .item(): the host has to have the number
                self.wait(done)
        return func(*args, **(kwargs or {}))

    def clock(self) -> Any:
        """What `time` has of what an attached device uses."""
        return types.SimpleNamespace(perf_counter_ns=lambda: round(self.now * 1e9))

    def module(self, name: str, **properties: Any) -> Any:
        """What PyTorch's module of this accelerator has of what we use."""
        timeline = self

        class Event:
            def __init__(self, enable_timing: bool = False) -> None:
                self.at = 0.0

            def record(self) -> None:
                self.at = timeline.queue("event", 0.0)

            def synchronize(self) -> None:
                timeline.wait(self.at)

            def elapsed_time(self, other: Event) -> float:
                return (other.at - self.at) * 1e3

        return types.SimpleNamespace(
            Event=Event, synchronize=lambda *args: timeline.wait(timeline.free_at),
            is_available=lambda: True, device_count=lambda: 1,
            set_device=lambda index: None, get_device_name=lambda index: name,
            get_device_properties=lambda index: types.SimpleNamespace(**properties),
            empty_cache=lambda: None,
        )  # fmt: skip


class HostClock(TorchDispatchMode):
    """A host whose process time is what its operations say (`work_of`), whatever runs beside them.

    `slowness` multiplies the times of either class, as a busy or a hot machine would.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.slowness = {"compute": 1.0, "others": 1.0}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind, seconds = work_of(func.overloadpacket.__name__, args)
        self.seconds += self.slowness[kind] * seconds
        return func(*args, **(kwargs or {}))

    def module(self) -> Any:
        """What `time` has of what an attached device uses."""
        return types.SimpleNamespace(
            process_time_ns=lambda: round(self.seconds * 1e9),
            perf_counter_ns=time.perf_counter_ns,
        )


def work_of(name: str, args: tuple[Any, ...]) -> tuple[str, float]:
    """Class and seconds of an operation: 0.1 ns a FLOP of a product, else 1 us and 1 ns a number."""
    numbers = [a.numel() for a in args if torch.is_tensor(a)]
    if name in ("mm", "bmm"):
        return "compute", 2e-10 * numbers[0] * args[1].shape[-1]
    if "attention" in name:
        return "compute", 1e-8 * sum(numbers)
    if name in FREE:
        return "others", 0.0
    lists = (a for a in args if isinstance(a, list | tuple))
    listed = [x.numel() for some in lists for x in some if torch.is_tensor(x)]
    return "others", 1e-6 + 1e-9 * (sum(listed) or max(numbers, default=1))


def pretended_torch(module: Any, *, hip: str | None = None, cuda: str | None = "12.8") -> Any:
    """A PyTorch whose only accelerator is `module`; the flush buffer is cut to what a test needs."""
    sizes: list[int] = []

    def zeros(size: int, device: Any = None) -> Any:
        sizes.append(size)
        return torch.zeros(1024)

    return types.SimpleNamespace(
        cuda=module, __version__="2.13.0+pretended", backends=torch.backends, zeros=zeros,
        version=types.SimpleNamespace(hip=hip, cuda=cuda), sizes=sizes,
        device=lambda kind, index=0: torch.device("cpu"),
    )  # fmt: skip
