"""The devices that a live simulation asks, from words: `cuda`, `h800=cuda:1`, `ascend-910b3=npu@ray`.

    [NAME=|NAME~]BACKEND[:INDEX][@ray]

NAME is the device of the catalogue that it is, where its driver does not tell; what the driver says
has to agree. With `~` the device only pretends to be NAME. `@ray` reaches a device of any host of a
Ray cluster (`ersatz.sim.hil.actors`).
"""

from __future__ import annotations

from collections.abc import Sequence

from ersatz.sim.hil.device.attached import attach
from ersatz.sim.hil.live import LocalSource, Source


def open_sources(words: Sequence[str]) -> dict[str, Source]:
    """Return what answers for each device; raises `InputError` for one that is not there."""
    found: dict[str, Source] = {}
    for word in words:
        pretend = "~" in word
        name, _, backend = word.rpartition("~" if pretend else "=")
        backend, _, place = backend.partition("@")
        if place == "ray":
            from ersatz.sim.hil.actors import start_actor

            actor = start_actor(backend, name, pretend=pretend)
            found[actor.device] = actor
        else:
            attached = attach(backend, catalog_name=name, pretend=pretend)
            found[attached.catalog_name] = LocalSource(attached)
    return found
