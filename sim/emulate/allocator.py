"""PyTorch's caching allocator, replayed: which block an allocation gets, and when memory is full.

Sizes are rounded to 512 bytes. Up to 1 MiB comes from segments of 2 MiB, up to 10 MiB from segments
of 20 MiB, more from a segment of its own in whole 2 MiB. A stream reuses its own free blocks, the
best fit first; what is left over is split off, and free neighbours merge again. Where the device is
full, whole free segments are given back before the allocation fails. With `expandable` segments a
pool has one segment that grows by pages of 2 MiB (20 MiB for large ones), so nothing is lost between.

Source: PyTorch's documentation of its memory management, and the behaviour of its snapshots.
Not modelled: workspaces of libraries, `record_stream`, garbage collection thresholds.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

MIB = 2**20
ROUND = 512
SMALL = MIB  # largest allocation of the small pool
SMALL_SEGMENT = 2 * MIB
LARGE = 10 * MIB  # from here on a segment of its own
LARGE_SEGMENT = 20 * MIB
LARGE_ROUND = 2 * MIB
FIRST_ADDRESS = 0x7F00_0000_0000
ADDRESS_GAP = 32 * MIB


class Full(Exception):
    """The device has no room; `wanted` bytes were asked for, rounded."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        super().__init__(f"{wanted} bytes")


@dataclass(slots=True, eq=False)
class Block:
    """A piece of a segment."""

    address: int
    size: int
    pool: tuple[int, bool]  # stream and whether small
    segment: int  # address of its segment
    used: bool = False
    asked: int = 0
    before: Block | None = None
    behind: Block | None = None


@dataclass(slots=True)
class CachingAllocator:
    """The memory of one device."""

    capacity: int  # bytes that PyTorch may reserve
    expandable: bool = False
    max_split: int = 0  # blocks beyond it are not split; 0: no limit
    allocated: int = 0
    reserved: int = 0
    peak_allocated: int = 0
    peak_reserved: int = 0
    retries: int = 0
    ooms: int = 0
    segments: dict[int, int] = field(default_factory=dict)  # size by address
    spare: dict[tuple[int, bool], list[tuple[int, int]]] = field(default_factory=dict)
    blocks: dict[int, Block] = field(default_factory=dict)  # by address
    next_address: int = FIRST_ADDRESS
    tails: dict[tuple[int, bool], Block] = field(default_factory=dict)  # of expandable segments

    def allocate(self, nbytes: int, stream: int = 0) -> int:
        """Return the address of a new block; raises `Full` when the device has no room."""
        size = rounded(nbytes)
        pool = (stream, size <= SMALL)
        block = self._best_fit(pool, size) or self._new_segment(pool, size)
        self._split(block, size)
        block.used, block.asked = True, nbytes
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return block.address

    def free(self, address: int) -> None:
        """Give a block back to its pool, where it merges with free neighbours."""
        block = self.blocks[address]
        block.used = False
        self.allocated -= block.size
        for other in (block.before, block.behind):
            if other is not None and not other.used:
                self._take(other)
                block = self._merge(block, other)
        insort(self.spare.setdefault(block.pool, []), (block.size, block.address))

    def empty_cache(self) -> None:
        """Give every segment that holds nothing back to the device."""
        for pool in list(self.spare):
            for _, address in list(self.spare[pool]):
                block = self.blocks[address]
                if block.before is None and block.behind is None:
                    self._release(block)
                elif self.expandable and block.behind is None:
                    self._shrink(block)

    def reset_peaks(self) -> None:
        """Let the peaks begin at what is held now."""
        self.peak_allocated, self.peak_reserved = self.allocated, self.reserved

    def snapshot(self) -> list[dict[str, object]]:
        """Return the segments with their blocks, as PyTorch's memory page reads them."""
        found: list[dict[str, object]] = []
        for address, size in sorted(self.segments.items()):
            rows, block = [], self.blocks.get(address)
            while block is not None:
                state = "active_allocated" if block.used else "inactive"
                rows.append({"size": block.size, "requested_size": block.asked, "state": state,
                             "address": block.address, "frames": []})  # fmt: skip
                block = block.behind
            stream, small = self.blocks[address].pool
            held = sum(int(str(r["size"])) for r in rows if r["state"] == "active_allocated")
            found.append({"device": 0, "address": address, "total_size": size, "stream": stream,
                          "allocated_size": held, "active_size": held, "requested_size": held,
                          "segment_type": "small" if small else "large", "segment_pool_id": (0, 0),
                          "is_expandable": self.expandable, "frames": [],
                          "blocks": rows})  # fmt: skip
        return found

    def _best_fit(self, pool: tuple[int, bool], size: int) -> Block | None:
        free = self.spare.get(pool, [])
        at = bisect_left(free, (size, 0))
        if at == len(free):
            return None
        found, address = free[at]
        too_large = self.max_split and size < self.max_split <= found
        if too_large and not self.expandable:
            return None
        del free[at]
        return self.blocks[address]

    def _new_segment(self, pool: tuple[int, bool], size: int) -> Block:
        if self.expandable:
            return self._grow(pool, size)
        wanted = segment_size(size)
        self._make_room(wanted, size)
        address = self.next_address
        self.next_address += -(-wanted // ADDRESS_GAP) * ADDRESS_GAP
        self.segments[address] = wanted
        self._reserve(wanted)
        block = self.blocks[address] = Block(address, wanted, pool, address)
        return block

    def _grow(self, pool: tuple[int, bool], size: int) -> Block:
        """Map so many more pages at the end of the pool's segment."""
        page = SMALL_SEGMENT if pool[1] else LARGE_SEGMENT
        tail = self.tails.get(pool)
        spare = tail.size if tail is not None and not tail.used else 0
        more = -(-(size - spare) // page) * page
        self._make_room(more, size)
        if tail is None:
            address = self.next_address
            self.next_address += -(-self.capacity // ADDRESS_GAP + 1) * ADDRESS_GAP
            self.segments[address] = 0
            tail = Block(address, 0, pool, address)
        elif tail.used:
            new = Block(tail.address + tail.size, 0, pool, tail.segment, before=tail)
            tail.behind, tail = new, new
        elif (tail.size, tail.address) in self.spare.get(pool, []):
            self._take(tail)
        tail.size += more
        self.blocks[tail.address] = tail
        self.tails[pool] = tail
        self.segments[tail.segment] += more
        self._reserve(more)
        return tail

    def _make_room(self, wanted: int, size: int) -> None:
        if self.reserved + wanted <= self.capacity:
            return
        self.retries += 1
        self.empty_cache()
        if self.reserved + wanted > self.capacity:
            self.ooms += 1
            raise Full(size)

    def _reserve(self, nbytes: int) -> None:
        self.reserved += nbytes
        self.peak_reserved = max(self.peak_reserved, self.reserved)

    def _split(self, block: Block, size: int) -> None:
        left = block.size - size
        least = ROUND if block.pool[1] or self.expandable else SMALL + 1
        if left < least or (self.max_split and size >= self.max_split and not self.expandable):
            return
        rest = Block(block.address + size, left, block.pool, block.segment, before=block)
        rest.behind = block.behind
        if rest.behind is not None:
            rest.behind.before = rest
        block.behind, block.size = rest, size
        self.blocks[rest.address] = rest
        insort(self.spare.setdefault(block.pool, []), (rest.size, rest.address))
        if self.tails.get(block.pool) is block:
            self.tails[block.pool] = rest

    def _merge(self, one: Block, other: Block) -> Block:
        first, second = (one, other) if one.address < other.address else (other, one)
        first.size += second.size
        first.behind = second.behind
        if first.behind is not None:
            first.behind.before = first
        del self.blocks[second.address]
        if self.tails.get(first.pool) is second:
            self.tails[first.pool] = first
        return first

    def _take(self, block: Block) -> None:
        free = self.spare[block.pool]
        del free[bisect_left(free, (block.size, block.address))]

    def _release(self, block: Block) -> None:
        self._take(block)
        self.reserved -= self.segments.pop(block.segment)
        del self.blocks[block.address]
        if self.tails.get(block.pool) is block:
            del self.tails[block.pool]

    def _shrink(self, block: Block) -> None:
        """Unmap whole pages at the end of an expandable segment."""
        page = SMALL_SEGMENT if block.pool[1] else LARGE_SEGMENT
        less = block.size // page * page
        if not less:
            return
        self._take(block)
        block.size -= less
        self.segments[block.segment] -= less
        self.reserved -= less
        if block.size:
            insort(self.spare[block.pool], (block.size, block.address))
        elif block.before is not None:
            block.before.behind = None
            del self.blocks[block.address]
            self.tails[block.pool] = block.before


def configured(capacity: int, options: str) -> tuple[CachingAllocator, list[str]]:
    """Return an allocator by PyTorch's options (`name:value` by comma), and those it does not replay."""
    found = dict(part.strip().partition(":")[::2] for part in options.split(",") if part.strip())
    expandable = found.pop("expandable_segments", "") == "True"
    limit = found.pop("max_split_size_mb", "0")
    memory = CachingAllocator(capacity, expandable, int(limit) * MIB if limit.isdigit() else 0)
    return memory, sorted(found)


def rounded(nbytes: int) -> int:
    """Return the size of the block for so many bytes."""
    return max(-(-nbytes // ROUND) * ROUND, ROUND)


def segment_size(size: int) -> int:
    """Return the size of the segment that is asked of the driver for a block."""
    if size <= SMALL:
        return SMALL_SEGMENT
    if size < LARGE:
        return LARGE_SEGMENT
    return -(-size // LARGE_ROUND) * LARGE_ROUND
