"""How much a host's last cache holds for one process: measured, for what a data sheet says is shared.

A virtual machine is told the whole last cache of its processor (8 MB to some hundred), and other machines
on the processor fill it too. A buffer that is read over and over tells what is left: below the cache's
size it is read at the cache's rate; a little above each line has just gone when its turn comes.
"""

from __future__ import annotations

import re
import statistics
import time
from pathlib import Path
from typing import Any

MIB = 2**20
TOLD = Path("/sys/devices/system/cpu/cpu0/cache")  # where Linux tells the caches of a processor
BEYOND = 2  # last caches that are written over so that nothing of before is left in them
LEAST_FLUSH, MOST_FLUSH = 64 * MIB, 512 * MIB
STEPS_PER_DOUBLING = 4  # sizes that are tried
READS = 5  # of each
NEAR_BYTES = MIB  # in every last cache
TELLING = 1.3  # times slower from memory; below it where operands lie does not matter


def told_bytes() -> int:
    """Return the last cache's bytes as the system tells them, 0 where it does not."""
    sizes = [0]
    for file in TOLD.glob("index*/size"):
        found = re.fullmatch(r"(\d+)([KM]?)\s*", file.read_text(encoding="ascii"))
        if found:
            sizes.append(int(found[1]) * {"": 1, "K": 1024, "M": MIB}[found[2]])
    return max(sizes)


def flush_bytes() -> int:
    """Return the bytes that have to be written over until the last cache holds nothing else."""
    return min(max(BEYOND * told_bytes(), LEAST_FLUSH), MOST_FLUSH)


def held_bytes(torch: Any) -> float:
    """Return the bytes that the last cache holds for this process; infinity where it saves nothing.

    It is the largest buffer whose repeated reading takes less than halfway from the cache's time to
    the memory's. Takes a tenth of a second, more where the cache is large.
    """
    largest = flush_bytes()
    near, far = _seconds_per_byte(torch, NEAR_BYTES), _seconds_per_byte(torch, largest)
    if far < TELLING * near:
        return float("inf")
    held, size = float(NEAR_BYTES), float(NEAR_BYTES)
    while (size := size * 2 ** (1 / STEPS_PER_DOUBLING)) < largest:
        if _seconds_per_byte(torch, int(size)) > (near + far) / 2:
            break
        held = size
    return held


def _seconds_per_byte(torch: Any, nbytes: int) -> float:
    """Return the median time of reading a buffer again, by the processor's clock."""
    buffer = torch.zeros(nbytes // 4)
    times = []
    for _ in range(READS + 1):
        before = time.process_time()
        buffer.sum()
        times.append(time.process_time() - before)
    return statistics.median(times[1:]) / nbytes
