"""Streams and events of the virtual device: what runs beside what, and simulated time between events."""

from __future__ import annotations

from typing import Any, ClassVar

from ersatz.sim.emulate.virtual.machine import Machine

MS = 1e3


class Stream:
    """An order of work on the device."""

    machine: ClassVar[Machine]
    _known: ClassVar[dict[int, Any]] = {}

    def __init__(self, device: Any = None, priority: int = 0, **kwargs: Any) -> None:
        self.number = self.machine.new_stream()
        self._known[self.number] = self

    @classmethod
    def of(cls, number: int) -> Any:
        """Return the stream of a number."""
        if number not in cls._known:
            stream = cls._known[number] = cls.__new__(cls)
            stream.number = number
        return cls._known[number]

    @property
    def stream_id(self) -> int:
        """Number of the stream."""
        return self.number

    @property
    def cuda_stream(self) -> int:
        """Handle of the stream."""
        return self.number

    npu_stream = cuda_stream

    @property
    def device(self) -> Any:
        """Device of the stream."""
        import torch

        return torch.device(self.machine.shown.surface, self.machine.device_index)

    device_index = property(lambda self: self.machine.device_index)
    device_type = property(lambda self: 1)
    priority = 0

    def wait_stream(self, other: Any) -> None:
        """Let what follows here wait for what is on another stream now."""
        self.machine.clock.wait(self.number, self.machine.clock.mark(other.number))

    def wait_event(self, event: Any) -> None:
        """Let what follows here wait for an event."""
        self.machine.clock.wait(self.number, event.entries)

    def record_event(self, event: Any = None) -> Any:
        """Record an event here."""
        made = Event() if event is None else event
        made.record(self)
        return made

    def synchronize(self) -> None:
        """Let the host wait for this stream."""
        clock = self.machine.clock
        clock.wait_on_host(clock.mark(self.number))

    def query(self) -> bool:
        """Tell whether all of it has ended."""
        clock = self.machine.clock
        return clock.time_of(clock.mark(self.number)) <= clock.host

    def is_capturing(self) -> bool:
        """Tell whether a graph is being captured."""
        return self.machine.capturing

    def __enter__(self) -> Any:
        self._before = self.machine.stream
        self.machine.stream = self.number
        return self

    def __exit__(self, *error: object) -> None:
        self.machine.stream = self._before

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.number == self.number

    def __hash__(self) -> int:
        return self.number


class StreamContext:
    """Context in which a stream is the current one."""

    machine: ClassVar[Machine]

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        self.before = self.machine.stream
        if self.stream is not None:
            self.machine.stream = self.stream.number

    def __exit__(self, *error: object) -> None:
        self.machine.stream = self.before


class Event:
    """A point in the order of a stream."""

    machine: ClassVar[Machine]

    def __init__(self, enable_timing: bool = False, **kwargs: Any) -> None:
        self.entries: tuple[int, ...] = ()
        self.at = 0.0

    def record(self, stream: Any = None) -> None:
        """Record it on a stream, by default the current one."""
        number = self.machine.stream if stream is None else stream.number
        self.entries = self.machine.clock.mark(number)
        self.at = self.machine.clock.host

    @property
    def seconds(self) -> float:
        """When it came to pass."""
        return max(self.machine.clock.time_of(self.entries), self.at)

    def wait(self, stream: Any = None) -> None:
        """Let a stream wait for it."""
        number = self.machine.stream if stream is None else stream.number
        self.machine.clock.wait(number, self.entries)

    def synchronize(self) -> None:
        """Let the host wait for it."""
        self.machine.clock.wait_on_host(self.entries)

    def query(self) -> bool:
        """Tell whether it came to pass."""
        return self.seconds <= self.machine.clock.host

    def elapsed_time(self, other: Any) -> float:
        """Return the simulated milliseconds from this event to another."""
        return MS * (other.seconds - self.seconds)

    cuda_event = npu_event = property(lambda self: id(self))
    event_id = property(lambda self: id(self))
