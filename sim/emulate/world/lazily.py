"""What libraries do once per rank of the world, done once per rank that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

FEW = 8  # ranks: below it, do as the library does


class Pieces(Sequence[Any]):
    """The pieces of a tensor along an axis, cut when they are looked at."""

    def __init__(self, tensor: Any, number: int, axis: int) -> None:
        self.tensor, self.number, self.axis = tensor, number, axis
        self.size = -(-tensor.size(axis) // number)

    def __len__(self) -> int:
        return self.number

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.number))]
        if not -self.number <= index < self.number:
            raise IndexError(index)
        whole = self.tensor.size(self.axis)
        begin = min(index % self.number * self.size, whole)
        return self.tensor.narrow(self.axis, begin, min(self.size, whole - begin))

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(self.number))


def install() -> None:
    """Let FSDP2 cut only the piece that it keeps."""
    from torch.distributed.fsdp._fully_shard import _fsdp_common, _fsdp_param

    cut = _fsdp_common._chunk_with_empty

    def pieces(tensor: Any, count: int, dim: int) -> Any:
        return cut(tensor, count, dim) if count <= FEW else Pieces(tensor, count, dim)

    _fsdp_common._chunk_with_empty = _fsdp_param._chunk_with_empty = pieces
