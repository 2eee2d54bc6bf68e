"""Small real values among the ranks that run as processes; the others hold what this rank holds."""

from __future__ import annotations

import io
import pickle
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch

WAIT = timedelta(minutes=10)


@dataclass(slots=True)
class Exchange:
    """Gives each member's value of a collective: its own process's, or this rank's where it has none."""

    rank: int
    represented: tuple[int, ...]
    store: Any = None  # of torch.distributed; None: alone
    rounds: dict[tuple[object, ...], int] = field(default_factory=lambda: defaultdict(int))
    assumed: int = 0  # values of other ranks that were taken to be this rank's

    def of_all(self, what: str, value: Any, members: Sequence[int]) -> list[Any]:
        """Return the values of all members, in their order."""
        present = [m for m in members if m in self.represented and m != self.rank]
        if self.store is None or not present:
            self.assumed += len(members) > 1
            return [value] * len(members)
        key = what, tuple(members)
        turn = self.rounds[key]
        self.rounds[key] += 1
        name = f"{what}/{hash_of(members)}/{turn}"
        self.store.set(f"{name}/{self.rank}", written(value))
        others = {m: read(self.store.get(f"{name}/{m}")) for m in present}
        self.assumed += len(present) + 1 < len(members)
        return [others.get(m, value) for m in members]

    def send(self, what: str, value: Any, to: int) -> None:
        """Leave a value for one rank that runs as a process; for others it goes nowhere."""
        if self.store is not None and to in self.represented:
            key = what, self.rank, to
            self.store.set(f"{what}/{self.rank}>{to}/{self.rounds[key]}", written(value))
            self.rounds[key] += 1

    def receive(self, what: str, sender: int) -> Any:
        """Return what one rank left for this one; raises `LookupError` where it has no process."""
        if self.store is None or sender not in self.represented:
            raise LookupError(sender)
        key = what, sender, self.rank
        found = self.store.get(f"{what}/{sender}>{self.rank}/{self.rounds[key]}")
        self.rounds[key] += 1
        return read(found)

    def leave(self) -> None:
        """Say that this rank needs nobody any more; who serves the store stays until all have said so."""
        if self.store is None:
            return
        with suppress(RuntimeError):  # who served it may have failed and be gone
            self.store.set(f"left/{self.rank}", b"1")
            if self.rank == self.represented[0]:
                self.store.wait([f"left/{r}" for r in self.represented], WAIT)


def hash_of(members: Sequence[int]) -> str:
    """Return a short name of a group that all of its members find alike."""
    import hashlib

    return hashlib.sha256(repr(tuple(members)).encode()).hexdigest()[:16]


def written(value: Any) -> bytes:
    """Return a value as bytes."""
    stream = io.BytesIO()
    pickle.dump(_plain(value), stream)
    return stream.getvalue()


def read(text: bytes) -> Any:
    """Return what `written` wrote, by a process of this same emulation."""
    return _tensors(pickle.loads(bytes(text)))


class _Array(tuple[Any, ...]):
    """A tensor as (dtype, shape, values)."""


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _Array(
            (str(value.dtype).removeprefix("torch."), tuple(value.shape), value.flatten().tolist())
        )
    return [_plain(v) for v in value] if type(value) is list else value


def _tensors(value: Any) -> Any:
    if isinstance(value, _Array):
        dtype, shape, values = value
        return torch.tensor(values, dtype=getattr(torch, dtype), device="cpu").reshape(shape)
    return [_tensors(v) for v in value] if type(value) is list else value


def open_store(rank: int, represented: tuple[int, ...], port: int) -> Any:
    """Return the store of an emulation: the first of its ranks serves it."""
    from torch.distributed import TCPStore

    if not port or len(represented) < 2:
        return None
    return TCPStore("127.0.0.1", port, len(represented), rank == represented[0], WAIT,
                    wait_for_workers=False)  # fmt: skip
