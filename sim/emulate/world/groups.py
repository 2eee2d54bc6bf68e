"""`torch.distributed` as an emulated rank sees it: every backend is there, and nobody is waited for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from ersatz.sim.emulate.virtual.machine import Machine
from ersatz.sim.emulate.world.collectives import World
from ersatz.sim.emulate.world.objects import objects_of

Function = Callable[..., Any]


def set_environment(rank: int, world: int, per_node: int) -> None:
    """Set the variables that torchrun sets."""
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank % per_node),
        LOCAL_WORLD_SIZE=str(min(per_node, world)), GROUP_RANK=str(rank // per_node),
        GROUP_WORLD_SIZE=str(-(-world // per_node)), ROLE_RANK=str(rank), ROLE_WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1", MASTER_PORT="29500", TORCHELASTIC_RUN_ID="ersatz",
        TORCHELASTIC_RESTART_COUNT="0", TORCHELASTIC_MAX_RESTARTS="0",
    )  # fmt: skip


def install(machine: Machine, world: World) -> None:
    """Replace what starts process groups and what sends objects among hosts."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    seat = machine.seat
    begin, add = c10d.init_process_group, c10d.new_group

    def init_process_group(backend: Any = None, *args: Any, **kwargs: Any) -> None:
        asked = kwargs.get("world_size", -1)
        if asked not in (-1, None, seat.world):
            machine.note(f"the script asks for a world of {asked}; it gets {seat.world}")
        kept = {k: v for k, v in kwargs.items() if k == "group_name"}
        begin("fake", rank=seat.rank, world_size=seat.world, store=FakeStore(), **kept)

    def new_group(ranks: Any = None, *args: Any, **kwargs: Any) -> Any:
        kept = {k: v for k, v in kwargs.items() if k in ("use_local_synchronization", "group_desc")}
        return add(ranks, backend="fake", **kept)

    replaced: dict[str, Function] = {
        "init_process_group": init_process_group,
        "new_group": new_group,
        **objects_of(world),
    }
    for name in ("is_nccl_available", "is_gloo_available", "is_xccl_available"):
        replaced[name] = _yes
    for name in ("monitored_barrier", "set_timeout"):
        replaced[name] = _nothing
    _replace(replaced)


def _yes() -> bool:
    return True


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _replace(functions: dict[str, Function]) -> None:
    """Put functions in the place of others, also where modules have taken them by name."""
    import sys

    old = {
        id(getattr(m, n)): f for n, f in functions.items() for m in (c10d, dist) if hasattr(m, n)
    }
    for name, function in functions.items():
        setattr(c10d, name, function)
        setattr(dist, name, function)
    for module in list(sys.modules.values()):
        if module is None or not module.__name__.startswith("torch"):
            continue
        for name, value in list(vars(module).items()):
            if id(value) in old:
                setattr(module, name, old[id(value)])
