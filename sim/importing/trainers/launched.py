"""Scripts that start a trainer: what its launcher says beside its own arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ersatz.sim.importing.cluster import read_machines
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Flags, Given, key_of
from ersatz.sim.importing.shell.launches import Launch
from ersatz.sim.importing.shell.machine import Followed
from ersatz.sim.importing.shell.pieces import Value
from ersatz.sim.importing.trainers.accelerate import of_launcher, put_sharding
from ersatz.sim.importing.trainers.deepspeed import arguments_beside
from ersatz.sim.importing.trainers.recipes import put_axolotl, put_llamafactory
from ersatz.sim.importing.trainers.trainer import Names, settings_of, translate_trainer

RECIPE = ("config", "config_yaml")  # flags that name a file of the trainer's arguments
ENDS = (".yaml", ".yml", ".json")


def read_trainer(draft: Draft, launch: Launch, head: dict[str, Given], followed: Followed) -> Draft:
    """Return the draft of a script that starts a trainer; its own arguments win over its launcher's."""
    draft.format = "trainer-sh"
    written = followed.state.written
    machines, training = of_launcher(draft, launch, written)
    recipe = _recipe(draft, launch, written)
    own = {key: given for key, given in launch.flags.items() if key not in RECIPE or not recipe}
    flags = Flags({**training, **recipe, **own, **_assigned(launch)}, draft)
    read_machines(draft, machines, head, written=written)
    if own_reader := _reader(flags):
        own_reader(flags, written)
        return draft
    settings = settings_of(flags, written)
    if settings is None and training:
        settings = put_sharding(flags, written)
    translate_trainer(flags, settings, Names())
    return draft


def _assigned(launch: Launch) -> dict[str, Given]:
    """Return arguments without dashes, `NAME=value`, which win over a recipe's."""
    found = {}
    for word in launch.words:
        name, equals, value = word.partition("=")
        if equals and name.lstrip("+").replace(".", "_").isidentifier():
            key = key_of(name.lstrip("+"))
            found[key] = Given(key, name, (value,) if value else (), launch.line)
    return found


def _reader(flags: Flags) -> Callable[[Flags, Mapping[str, Value]], None] | None:
    """Return what reads the arguments of a trainer that has names and defaults of its own."""
    if "base_model" in flags.given:
        return put_axolotl
    own = ("cutoff_len", "finetuning_type", "stage")
    return put_llamafactory if any(name in flags.given for name in own) else None


def _recipe(draft: Draft, launch: Launch, written: Mapping[str, Value]) -> dict[str, Given]:
    """Return the trainer's arguments that stand in a file of their own; the command line wins over it."""
    given = next((launch.flags[key] for key in RECIPE if key in launch.flags), None)
    named = next((word for word in launch.words if word.endswith(ENDS)), "")
    if given is not None and given.value.endswith(ENDS):
        named = given.value
    if not named:
        return {}
    found = arguments_beside(draft, named, written)
    if found is not None:
        return found
    for key, choices in (("training.micro_batch", ()), ("training.precision", ("bf16", "fp16", "fp8")),
                         ("parallel.recompute", ("none", "full"))):  # fmt: skip
        draft.ask(key, f"{named} cannot be read, which holds arguments of the trainer", choices)
    return {}
