"""Collectives of Python objects, which the processes of an emulation exchange for real."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from ersatz.sim.emulate.trace import ranks_of
from ersatz.sim.emulate.world.collectives import World, members

Function = Callable[..., Any]


def objects_of(world: World) -> dict[str, Function]:
    """Return the collectives of objects by name."""
    found = (*_gathering(world), *_spreading(world), *_messages(world))
    return {function.__name__: function for function in found}


def _group_of(group: Any) -> list[int]:
    found = c10d._get_default_group() if group is None else group
    return members(ranks_of(dist.get_process_group_ranks(found)))


def _of_all(world: World, what: str, value: Any, ranks: list[int]) -> list[Any]:
    """Return the objects of all ranks of a group; those that did not run are taken to have this one's."""
    exchange = world.exchange
    if not set(ranks) <= {exchange.rank, *exchange.represented}:
        world.machine.note(
            f"{what}: objects of ranks that were not run are taken to be those of rank {exchange.rank}"
        )
    return exchange.of_all(what, value, ranks)


def _gathering(world: World) -> tuple[Function, ...]:
    def all_gather_object(object_list: list[Any], obj: Any, group: Any = None) -> None:
        object_list[:] = _of_all(world, "all_gather_object", obj, _group_of(group))

    def gather_object(obj: Any, object_gather_list: Any = None, dst: Any = 0, group: Any = None,
                      **kwargs: Any) -> None:  # fmt: skip
        found = _of_all(world, "gather_object", obj, _group_of(group))
        if object_gather_list is not None:
            object_gather_list[:] = found

    return all_gather_object, gather_object


def _spreading(world: World) -> tuple[Function, ...]:
    def broadcast_object_list(object_list: list[Any], src: Any = None, group: Any = None,
                              device: Any = None, group_src: Any = None) -> None:  # fmt: skip
        ranks = _group_of(group)
        source = ranks[group_src] if group_src is not None else (src or 0)
        found = _of_all(world, "broadcast_object_list", list(object_list), ranks)
        if source in ranks:
            object_list[:] = found[ranks.index(source)]

    def scatter_object_list(
        scatter_object_output_list: list[Any], scatter_object_input_list: Any = None, src: Any = None,
        group: Any = None, group_src: Any = None,
    ) -> None:  # fmt: skip
        ranks = _group_of(group)
        place = group_src or 0 if src is None else ranks.index(src)
        row = _of_all(world, "scatter_object_list", scatter_object_input_list, ranks)[place]
        if row is None:
            raise NotImplementedError(
                "objects are scattered from a rank that is not emulated: --ranks"
            )
        scatter_object_output_list[0] = row[ranks.index(world.machine.seat.rank)]

    return broadcast_object_list, scatter_object_list


def _messages(world: World) -> tuple[Function, ...]:
    exchange = world.exchange

    def send_object_list(
        object_list: list[Any], dst: Any = None, group: Any = None, **kwargs: Any
    ) -> None:
        exchange.send("object", list(object_list), int(dst if dst is not None else 0))

    def recv_object_list(
        object_list: list[Any], src: Any = None, group: Any = None, **kwargs: Any
    ) -> int:
        try:
            object_list[:] = exchange.receive("object", int(src or 0))
        except LookupError:
            raise NotImplementedError(
                f"rank {src} sends objects and is not emulated: name it by --ranks"
            ) from None
        return int(src or 0)

    return send_object_list, recv_object_list
