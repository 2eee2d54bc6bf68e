"""The training of Megatron's flags: length, batch, precision, and how long it goes on."""

from __future__ import annotations

from collections.abc import Mapping

from ersatz.sim.importing.flags import Flags, Given
from ersatz.sim.importing.megatron.growing import put_growing_length, read_growth

RECIPES = {"delayed": "delayed", "tensorwise": "tensorwise", "current": "tensorwise",
           "rowwise": "rowwise", "blockwise": "blockwise", "mxfp8": "mxfp8"}  # fmt: skip
FORMATS = (
    "hybrid",
    "e4m3",
    "e2m1",
    "e5m2",
    "mxfp8",
    "hif8",
    "true",
    "",
)  # the last two: a switch in YAML
_LEARNING = ("perform_rl_step", "grpo_iterations", "rl_use_sequence_packing", "grpo_group_size")
_STAGES = ("dpo", "orm", "prm", "ppo", "grpo", "ray_ppo", "ray_grpo", "ray_online_dpo", "simpo", "rm",
           "kto", "trl_ppo")  # fmt: skip


def read_training(flags: Flags) -> None:
    """Put length, batch, precision and steps into the draft."""
    draft = flags.draft
    _refuse_reinforcement(flags)
    length = flags.whole(
        "training.sequence_length", "decoder_seq_length", "seq_length", "encoder_seq_length"
    )  # where the text has a length of its own, the others are those of pictures
    micro = flags.whole("training.micro_batch", "micro_batch_size", "batch_size")
    for key, value, name in (("sequence_length", length, "seq_length"),
                             ("micro_batch", micro, "micro_batch_size")):  # fmt: skip
        draft.put(f"training.{key}", value)
        if value is None:
            draft.ask(f"training.{key}", f"{name} is not given")
    draft.put("training.global_batch", flags.whole("training.global_batch", "global_batch_size"))
    draft.put("training.precision", _precision(flags))
    _imbalance(flags)
    _documents(flags)


def _refuse_reinforcement(flags: Flags) -> None:
    """Reinforcement learning has another shape than a training step."""
    words = ("reinforcement learning and preference training are not simulated; what can be asked instead is"
             " the training step of the policy: its model, the length of prompt and answer together, and the"
             " batch of an update, as a script of pre-training or fine-tuning")  # fmt: skip
    if given := flags.find(*_LEARNING):
        flags.draft.refuse(given.line, given.shown, words)
    stage = flags.find("stage", "rl_algorithm")
    if stage and stage.value.lower() in _STAGES:
        flags.draft.refuse(stage.line, f"{stage.shown} {stage.value}", words)


def _precision(flags: Flags) -> str:
    key = "training.precision"
    half = flags.on(key, "fp16")
    brain = flags.on(key, "bf16")
    four = flags.take(key, "fp4_format", "fp4")
    eight = flags.take(key, "fp8_format", "fp8")
    for given in (four, eight):
        _say_format(flags, given)
    if four and not four.unknown:
        _recipe(flags, "fp4_recipe", "nvfp4", {"nvfp4": "nvfp4"})
        return "fp4"
    if eight and not eight.unknown:
        _recipe(flags, "fp8_recipe", "delayed", RECIPES)
        return "fp8"
    if brain and half:
        flags.draft.contradict("bf16 and fp16 are both given")
    if brain or half:
        return "bf16" if brain else "fp16"
    flags.draft.assume(key, "fp32", "neither bf16 nor fp16 is given: Megatron's default")
    return "fp32"


def _say_format(flags: Flags, given: Given | None) -> None:
    """Say where a narrow format's own word is not one that Megatron knows: it would not begin."""
    if given and not given.unknown and given.value.lower() not in FORMATS:
        words = f"is none of {', '.join(FORMATS[:3])} that are known: taken as those are"
        flags.draft.assume(
            "training.precision", given.value, f"{given.shown} {given.value} {words}"
        )


def _recipe(flags: Flags, name: str, default: str, known: Mapping[str, str]) -> None:
    """How narrow formats are scaled, where the flag says it in a word that is known."""
    key = "training.recipe"
    given = flags.find(name)
    if given is None or given.unknown:
        flags.draft.assume(
            key, default, f"{name} is not given: the default; the stack's own passes count"
        )
        return
    if word := known.get(given.value.lower()):
        flags.take(key, name)
        flags.draft.put(key, word)
        return
    flags.draft.leave_out(given.shown, given.value, given.line, "a recipe of scales that is not known: the"
                          " passes are the stack's own", given.file)  # fmt: skip
    flags.used.add(name)


def _imbalance(flags: Flags) -> None:
    """Routing that is balanced by force, or experts that do a fixed work however tokens are routed."""
    key = "training.expert_imbalance"
    if flags.find("moe_router_force_load_balancing"):
        flags.take(key, "moe_router_force_load_balancing")
        flags.draft.put(key, 1.0)
    capacity, pads = (
        flags.find("moe_expert_capacity_factor"),
        flags.find("moe_pad_expert_input_to_capacity"),
    )
    try:
        factor = float(capacity.value) if capacity and not capacity.unknown else 0.0
    except ValueError:
        factor = 0.0
    if pads and factor >= 1:
        flags.take(key, "moe_expert_capacity_factor", "moe_pad_expert_input_to_capacity")
        flags.draft.put(key, factor)


def _documents(flags: Flags) -> None:
    """Packed documents: attention ends with each, so their mean length counts."""
    key = "training.document_tokens"
    given = flags.find("reset_attention_mask", "neat_pack")
    for name in ("reset_attention_mask", "neat_pack", "reset_position_ids", "pack"):
        flags.take(key, name)
    if given:
        flags.draft.ask(key, f"{given.shown}: attention ends with each document, whose mean length is in the"
                        " data", line=given.line)  # fmt: skip


def read_steps(flags: Flags) -> None:
    """Put how long the job goes on into the draft; needs the global batch."""
    draft = flags.draft
    grows = read_growth(flags)
    batch = draft.values.get("training.global_batch")
    steps = flags.whole("training.steps", "train_iters")
    samples = flags.whole("training.steps", "train_samples")
    tokens = flags.whole("training.tokens", "train_tokens")
    if not steps and tokens:  # Megatron-DeepSpeed's: samples beside them only bound the data
        draft.put("training.tokens", f"{tokens} tokens")
        return
    if grows:
        put_growing_length(flags, steps, samples)
        return
    if steps is None and samples and batch:
        steps = samples // batch
    draft.put("training.steps", steps or None)


def settle_batch(flags: Flags) -> None:
    """Where no global batch is given it is the micro-batch of every replica, as Megatron has it."""
    draft, key = flags.draft, "training.global_batch"
    if key in draft.values or draft.asked(key):
        return
    micro, dp = draft.values.get("training.micro_batch"), replicas(draft.devices, draft.values)
    if micro and dp:
        draft.put(key, micro * dp)
        draft.assume(
            key, micro * dp, f"global_batch_size is not given: micro-batch {micro} x dp {dp}"
        )
    else:
        draft.ask(key, "global_batch_size is not given: micro-batch x data-parallel degree")


def replicas(devices: int | None, values: dict[str, object]) -> int | None:
    """Return the data-parallel degree that the devices leave, or None where it is not whole."""
    column = 1
    for key in ("tp", "pp", "cp"):
        degree = values.get(f"parallel.{key}", 1)
        column *= degree if isinstance(degree, int) else 1
    whole = devices and column > 0 and devices % column == 0  # a degree of 0 is refused elsewhere
    return devices // column if devices and whole else None
