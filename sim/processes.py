"""The same work on many things at once, in helper processes that cannot outlive their parent.

`multiprocessing.Pool` waits for ever for a helper that was killed; here what such a one had is done
again in the parent's own process, which on a machine out of memory needs the least.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_all_start_methods, get_context
from typing import TypeVar

PROCESSES = 2
_PR_SET_PDEATHSIG = 1  # prctl(2)

Item = TypeVar("Item")
Result = TypeVar("Result")


def obey_parent(parent: int) -> None:
    """Begin a helper of a parent (its process id): an interrupt is the parent's, its end is one's own.

    SIGTERM ends a helper at once. A handler written in Python would not: what arrives just before a
    wait is not seen until the wait is over, and whoever ends the helper waits for it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, AttributeError):  # Linux alone has it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before it could be heard
        os._exit(1)


def helpers(
    count: int, begin: Callable[..., None] = obey_parent, *given: object
) -> ProcessPoolExecutor:
    """Return a pool of forked processes (where that is known), each begun by `begin(parent, *given)`."""
    method = "fork" if "fork" in get_all_start_methods() else None
    return ProcessPoolExecutor(count, get_context(method), begin, (os.getpid(), *given))


def side_by_side(
    work: Callable[[Item], Result], items: Sequence[Item], chunk: int = 1
) -> Iterator[Result]:
    """Yield `work(item)` for every item in order, from `PROCESSES` helpers that get `chunk` at a time.

    Raises what `work` raises.
    """
    done = 0
    pool = helpers(PROCESSES)
    try:
        for result in pool.map(work, items, chunksize=chunk):
            yield result
            done += 1
    except BrokenProcessPool:  # a helper was killed, as for memory: one at a time needs the least
        yield from map(work, items[done:])
    except BaseException:
        end_now(pool)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def end_now(pool: ProcessPoolExecutor) -> None:
    """End the helpers of a pool, whatever they are at; who waits for them hears `BrokenProcessPool`.

    By SIGKILL: a helper that has only just begun still has its parent's ear for SIGTERM, deaf perhaps.
    """
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=False, cancel_futures=True)
