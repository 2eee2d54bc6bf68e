"""Results kept for the next question: by the identity of what is large, and the values of what is small.

Descriptions (models, nodes, stacks) are frozen but large, and some hold mappings, so that they have no
hash. What is kept holds them, too: as long as an entry lives, their identities are nobody else's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """The latest `most` results; the one that was asked for least recently goes first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._held: OrderedDict[Hashable, tuple[Sequence[object], T]] = OrderedDict()

    def get(self, objects: Sequence[object], values: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` gives for these objects and values, made once while it is kept."""
        key = (*map(id, objects), values)
        found = self._held.get(key)
        if found is None:
            made = make()
            self._held[key] = objects, made
            if len(self._held) > self.most:
                self._held.popitem(last=False)
            return made
        self._held.move_to_end(key)
        return found[1]
