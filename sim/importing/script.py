"""Launch scripts: what a shell would start, found without one, and handed to its framework's reader."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ersatz.device_models.text.files import read_text_file
from ersatz.device_models.text.problems import InputError, Problem
from ersatz.sim.importing.cluster import read_machines
from ersatz.sim.importing.configs.torchtitan import read_toml
from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Flags, Given
from ersatz.sim.importing.known import flag_table
from ersatz.sim.importing.megatron.swift import read_swift
from ersatz.sim.importing.megatron.translate import translate
from ersatz.sim.importing.shell.launches import Launch, launches, merge_launches
from ersatz.sim.importing.shell.machine import Followed, follow
from ersatz.sim.importing.shell.pieces import shown, text_of, unknown_of
from ersatz.sim.importing.shell.slurm import device_type, slurm_head, slurm_variables
from ersatz.sim.importing.trainers.deepspeed import settings_beside
from ersatz.sim.importing.trainers.fsdp2 import PROGRAM, read_fsdp2
from ersatz.sim.importing.trainers.launched import ENDS

CORE_2026 = "megatron core, August 2026"
# Marks of a framework: flags that only it has. The first that fits counts.
MARKS: tuple[tuple[str, str, frozenset[str]], ...] = (
    ("mindspeed-sh", "mindspeed", frozenset({
        "use_mc2", "noop_layers", "swap_optimizer", "reuse_fp32_param", "context_parallel_algo",
        "use_ascend_coc", "use_ascend_mc2", "model_type_hf", "no_shared_storage", "moe_fb_overlap",
        "use_fused_rmsnorm", "use_fused_swiglu", "padded_vocab_size", "handler_name",
        "num_layer_list", "first_k_dense_replace", "enable_hf2mg_convert", "use_fused_rotary_pos_emb",
        "swap_attention", "recompute_activation_function", "schedules_method", "prompt_type"})),
    ("megatron-deepspeed-sh", "megatron-deepspeed", frozenset({
        "deepspeed", "zero_stage", "deepspeed_config", "deepspeed_activation_checkpointing",
        "no_pipeline_parallel", "ds_sequence_parallel_size", "checkpoint_activations"})),
    ("megatron-sh", "megatron-core", frozenset({"num_layers", "tensor_model_parallel_size",
        "pipeline_model_parallel_size", "micro_batch_size", "use_mcore_models", "use_checkpoint_args"})),
)  # fmt: skip
TRAINER = frozenset(
    {
        "job.config_file",
        "model_name_or_path",
        "dataset",
        "per_device_train_batch_size",
        "output_dir",
    }
)


def read_script(
    path: Path, text: str, defines: Mapping[str, str], arguments: Sequence[str] | None
) -> Draft:
    """Return the draft of a launch script; raises `InputError` where it starts no training."""
    head = slurm_head(text)
    followed = follow(text, str(path), {**slurm_variables(head), **defines}, arguments)
    found, head = _found(path, followed, head, defines, arguments)
    if not found:
        raise _no_training(path, followed)
    launch = merge_launches(found)
    draft = Draft(str(path), "")
    draft.device_hint = device_type(head)
    _tell_taken(draft, followed, launch)
    return _translated(draft, path, launch, head, followed)


def _found(
    path: Path, followed: Followed, head: dict[str, Given], defines: Mapping[str, str],
    arguments: Sequence[str] | None,
) -> tuple[list[Launch], dict[str, Given]]:  # fmt: skip
    """Return the launches that train; a batch script that is written inside is followed, too."""
    found = _training(launches(followed.commands, _is_switch))
    if found:
        return found, head
    inner = [(c.here, c.here_line) for c in followed.commands if c.here and "#SBATCH" in c.here]
    inner += [(shown(body), 1) for body in followed.state.written.values()
              if any("#SBATCH" in p.text or ".py" in p.text for p in body)]  # fmt: skip
    for text, line in inner:
        head = slurm_head(text, line)
        variables = {**_texts(followed), **slurm_variables(head), **defines}
        more = follow("\n" * (line - 1) + text.replace("\\$", "$"), str(path), variables, arguments)
        if found := _training(launches(more.commands, _is_switch)):
            return found, head
    return [], head


def _texts(followed: Followed) -> dict[str, str]:
    """Return the variables of a script that are known texts."""
    return {name: text_of(held) for name, held in followed.state.variables.items()
            if isinstance(held, tuple) and not unknown_of(held)}  # fmt: skip


def _is_switch(key: str) -> bool:
    return key in SWITCHES


# Flags that take no value; a word after them that is not known may be more flags.
SWITCHES = frozenset({
    "bf16", "fp16", "swiglu", "sequence_parallel", "use_distributed_optimizer", "use_mcore_models",
    "overlap_grad_reduce", "overlap_param_gather", "group_query_attention", "disable_bias_linear",
    "untie_embeddings_and_output_weights", "use_flash_attn", "moe_grouped_gemm", "mock_data",
    "multi_latent_attention", "recompute_activations", "no_load_optim", "no_load_rng", "finetune",
    "no_masked_softmax_fusion", "attention_softmax_in_fp32", "qk_layernorm", "manual_gc",
    "use_rotary_position_embeddings", "reset_attention_mask", "reset_position_ids", "log_throughput",
})  # fmt: skip


def _training(found: Sequence[Launch]) -> list[Launch]:
    """Return the launches that say most about a training."""
    score = {id(launch): _marks(launch) for launch in found}
    best = max(score.values(), default=0)
    return [launch for launch in found if score[id(launch)] and score[id(launch)] * 2 > best]


def _marks(launch: Launch) -> int:
    table = flag_table("megatron")
    known = sum(key in _LAYOUT or key in TRAINER for key in launch.flags)
    if launch.program.endswith(PROGRAM):
        known += sum(key.startswith(("parallel.", "training.")) for key in launch.flags)
    if known == 0 and set(launch.tools) & _STARTERS and any(w.endswith(ENDS) for w in launch.words):
        return 1  # arguments that stand in a file beside it
    return known or int(len(launch.flags) > 5 and sum(table.kind(k)[0] != "unknown"
                                                      for k in launch.flags) > 5)  # fmt: skip


_LAYOUT = frozenset({"num_layers", "hidden_size", "seq_length", "micro_batch_size", "global_batch_size",
                     "tensor_model_parallel_size", "pipeline_model_parallel_size", "train_iters",
                     "train_samples", "use_checkpoint_args", "deepspeed", "fsdp", "sequence_parallel",
                     "gradient_accumulation_steps", "max_steps"})  # fmt: skip


_OF_MEGATRON = frozenset({"num_layers", "tensor_model_parallel_size", "use_mcore_models"})
_STARTERS = frozenset({"torchrun", "deepspeed", "accelerate", "llamafactory-cli", "axolotl"})
_ASSIGNED = re.compile(r"\+{0,2}[A-Za-z_][\w.]*=")
MANY_ASSIGNED = 2


def _no_training(path: Path, followed: Followed) -> InputError:
    words = ("starts no training that is known: expected torchrun, python -m, deepspeed, accelerate or srun"
             " with a program and its flags")  # fmt: skip
    for launch in launches(followed.commands, _is_switch):
        if sum(bool(_ASSIGNED.match(word)) for word in launch.words) > MANY_ASSIGNED:
            words = (f"{launch.program} has its arguments as key=value (Hydra, MaxText), which are not read:"
                     " import the configuration that they change, or flags of Megatron's names")  # fmt: skip
            break
    problems = [Problem(str(path), 0, 0, "", "", words)]
    problems += [Problem(str(path), line, 1, "", "", remark) for remark, line in followed.remarks]
    return InputError(problems)


def _tell_taken(draft: Draft, followed: Followed, launch: Launch) -> None:
    """Say what was taken for granted of variables, and what could not be followed."""
    for name, value, line in followed.taken:
        draft.assume(
            f"${name}", value, f"line {line}; --define {name}=... (or --args) says otherwise"
        )
    for name, old, new in launch.twice:
        draft.assume(
            name, "the last one", f"it stands twice (lines {old} and {new}): the last one counts"
        )
    for unknown in launch.loose:
        draft.assume(
            "flags", "none more", f"{unknown.reason} (line {unknown.line}): nothing is taken for it"
        )
    for remark, line in followed.remarks:
        draft.assume(f"line {line}", "passed over", remark)


# Words of programs that work on a model, and do not train it.
_ELSE = frozenset({"inference", "evaluation", "evaluate", "eval", "generate", "generation", "convert",
                   "preprocess", "export", "quantize", "prune", "chat", "server", "validate", "mmlu",
                   "checkpoint"})  # fmt: skip
_TRAINS = frozenset({"pretrain", "train", "finetune", "posttrain", "sft", "tune"})
_APART = ("llm_tp", "encoder_tp", "llm_dp")  # layouts of the models of one job
_LEARNING = frozenset({"grpo", "ppo", "dpo", "rlhf", "reinforce", "gspo", "dapo"})
_OTHER_MODELS = {"bert": "an encoder (BERT)", "t5": "an encoder and decoder (T5)", "ict": "a retriever",
                 "vision": "a model of images", "retro": "a retriever (RETRO)"}  # fmt: skip


def _refuse_other_models(draft: Draft, launch: Launch) -> None:
    """Encoders and learning by reward are not simulated: the name of the program tells them."""
    words = re.split(r"[_.-]", launch.program.rsplit("/", 1)[-1].removesuffix(".py").lower())
    words += [word.lower() for word in launch.words[:1] if launch.program == "trl"]
    if not _TRAINS.intersection(words) and (found := _ELSE.intersection(words)):
        draft.refuse(
            launch.line,
            launch.program,
            f"trains nothing ({min(found)}): training alone is simulated",
        )
    if apart := next((launch.flags[key] for key in _APART if key in launch.flags), None):
        draft.refuse(apart.line, apart.shown, "several models in one job, each with a layout of its own, are"
                     " not simulated; say the language model's as a script of its own")  # fmt: skip
    if given := launch.flags.get("yaml_cfg"):
        draft.refuse(given.line, given.shown, "Megatron then takes all arguments from that file, which is not"
                     " read; say them as flags")  # fmt: skip
    if _LEARNING.intersection(words):
        draft.refuse(launch.line, launch.program, "reinforcement learning and preference training are not"
                     " simulated; what can be asked instead is the training step of the policy: its model,"
                     " length and batch, as a script of fine-tuning")  # fmt: skip
    for word in words if "pretrain" in words else ():
        if word in _OTHER_MODELS:
            draft.refuse(launch.line, launch.program, f"trains {_OTHER_MODELS[word]}, which is not simulated;"
                         " decoders are")  # fmt: skip


def _translated(
    draft: Draft, path: Path, launch: Launch, head: dict[str, Given], followed: Followed
) -> Draft:
    keys = set(launch.flags)
    _refuse_other_models(draft, launch)
    if "xtuner" in launch.tools:
        draft.refuse(launch.line, launch.program, "xtuner's settings are a program in Python, which is not"
                     " read; say them as a script of a trainer with flags")  # fmt: skip
    given = {
        key: flag if flag.file else replace(flag, file="") for key, flag in launch.flags.items()
    }
    if launch.program.endswith(PROGRAM):
        return read_fsdp2(draft, path, launch, head)
    if "job.config_file" in keys or "job.config-file" in keys:
        return _job_file(draft, path, launch, head)
    if launch.tools[-1:] == ("megatron",) or "swift" in launch.tools:
        whole = replace(launch, environment={**_texts(followed), **launch.environment})
        return read_swift(draft, whole, head)
    beside = any(word.endswith(ENDS) for word in launch.words)
    alone = beside and bool(set(launch.tools) & _STARTERS) and not keys & _OF_MEGATRON
    if (keys & TRAINER or alone) and "num_layers" not in keys:
        from ersatz.sim.importing.trainers.launched import read_trainer

        return read_trainer(draft, launch, head, followed)
    for word in launch.words:
        if _ASSIGNED.match(word):
            draft.leave_out(word, "", launch.line, "unknown")
    for format_, stack, marks in MARKS:
        if keys & marks:
            draft.format = format_
            draft.version = CORE_2026 if format_ != "mindspeed-sh" else "mindspeed-llm, August 2026"
            read_machines(draft, launch.launcher, head, written=followed.state.written)
            if stack == "megatron-deepspeed":
                given |= _stage(draft, given, followed)
            translate(Flags(given, draft), stack)
            return draft
    raise _no_training(path, followed)


def _stage(draft: Draft, given: dict[str, Given], followed: Followed) -> dict[str, Given]:
    """Return the stage of ZeRO that DeepSpeed's settings say, where the flags do not."""
    named = given.get("deepspeed_config")
    if named is None or named.unknown:
        return {}
    settings = settings_beside(draft, named, followed.state.written) or {}
    stage = settings.get("zero_optimization.stage")
    for flag, key in (("zero_stage", "zero_optimization.stage"), ("global_batch_size", "train_batch_size"),
                      ("micro_batch_size", "train_micro_batch_size_per_gpu")):  # fmt: skip
        own, other = given.get(flag), settings.get(key)
        if own and other and not own.unknown and other.value not in (own.value, "auto"):
            draft.contradict(
                f"{own.shown} is {own.value}, and {key} of {named.value} {other.value}"
            )
    if "zero_stage" in given:
        return {}
    if stage is None:
        draft.assume("parallel.zero", 0, f"{named.value}: no stage of ZeRO can be read of it")
        return {}
    return {"zero_stage": replace(stage, key="zero_stage", file=Path(named.value).name)}


def _job_file(draft: Draft, path: Path, launch: Launch, head: dict[str, Given]) -> Draft:
    """torchtitan's job file beside the script; the command line wins over it."""
    given = launch.flags.get("job.config_file") or launch.flags["job.config-file"]
    beside = path.parent / Path(given.value).name
    inner = read_toml(read_text_file(beside, "TOML"), str(beside), launch.flags)
    nodes = Draft(str(path), "")
    read_machines(nodes, launch.launcher, head)
    if nodes.devices and not (inner.devices and inner.devices != nodes.devices):
        inner.devices, inner.devices_per_node = nodes.devices, nodes.devices_per_node
        inner.put("cluster.nodes", nodes.values.get("cluster.nodes"))
    elif nodes.devices:
        inner.contradict(
            f"the launcher starts {nodes.devices} devices, the job file has {inner.devices}"
        )
    return inner
