"""What a device's cache still holds: memory that was touched last, as much as goes in.

A live timer runs an operator with operands where the script would find them. Which those are follows
from the order of the script alone: the least recently touched storage leaves first, and a result that gets
a freed block back finds that block as it was left.

Not modelled: levels of the cache, parts of a storage, what others on the same chip push out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import torch


@dataclass(slots=True)
class Residency:
    """Storages in the cache by address, the least recent first."""

    capacity: float
    held: OrderedDict[int, int] = field(default_factory=OrderedDict)
    total: int = 0

    def touch(self, address: int, nbytes: int) -> bool:
        """Touch memory; tells whether it was there already."""
        before = self.held.pop(address, None)
        self.total -= before or 0
        if nbytes > self.capacity:
            return False
        self.held[address] = nbytes
        self.total += nbytes
        while self.total > self.capacity:
            _, gone = self.held.popitem(last=False)
            self.total -= gone
        return before is not None and before >= nbytes


def in_order(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Yield the tensors of arguments as an operator comes to them: of lists each row, then the next."""
    given = list(values)
    yield from (v for v in given if isinstance(v, torch.Tensor))
    lists = [v for v in given if isinstance(v, (list, tuple))]
    for row in zip_longest(*lists):
        yield from (v for v in row if isinstance(v, torch.Tensor))
