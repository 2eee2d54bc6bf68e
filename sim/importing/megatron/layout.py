"""The layout of Megatron's flags: degrees, sharding, recomputation, exchanges of context."""

from __future__ import annotations

from ersatz.sim.importing.flags import Flags, whole_number
from ersatz.sim.importing.megatron.patterns import PatternError, number_list
from ersatz.sim.scenario.scenario import Parallel

DEGREES = {"tp": ("tensor_model_parallel_size", "model_parallel_size"),
           "pp": ("pipeline_model_parallel_size",),
           "cp": ("context_parallel_size", "ds_sequence_parallel_size")}  # fmt: skip
SHARDING = {"no_shard": 0, "optim": 1, "optim_grads": 2, "optim_grads_params": 3}
# What Megatron's modules are called here; without a name they are not computed again.
MODULES = {"core_attn": "core_attn", "mla_up_proj": "mla_up_proj", "layernorm": "layernorm",
           "moe_act": "activation", "mlp": "mlp", "moe": "experts"}  # fmt: skip
# What MindSpeed computes again where nothing else is.
APART = {"recompute_activation_function": "activation", "recompute_norm": "layernorm"}
CONTEXT = {"p2p": "p2p", "a2a": "a2a", "allgather": "all_gather", "all_gather": "all_gather",
           "a2a+p2p": "a2a+p2p", "megatron_cp_algo": "p2p", "ulysses_cp_algo": "a2a",
           "hybrid_cp_algo": "a2a+p2p", "kvallgather_cp_algo": "all_gather"}  # fmt: skip


def read_degrees(flags: Flags) -> None:
    """Put tp, pp and cp into the draft: other flags need them."""
    flat = flags.on("parallel.pp", "no_pipeline_parallel")
    for key, names in DEGREES.items():
        at = f"parallel.{key}"
        value = flags.whole(at, *names)
        if value is None and not flags.draft.asked(at):
            value = 1
        flags.draft.put(at, 1 if flat and key == "pp" else value)


def read_layout(flags: Flags) -> None:
    """Put the rest of the layout into the draft."""
    draft = flags.draft
    tp = draft.values.get("parallel.tp")
    sliced = flags.on("parallel.sequence_parallel", "sequence_parallel")
    draft.put("parallel.sequence_parallel", sliced and tp != 1)
    _expert_degrees(flags, tp)
    _context(flags)
    _sharding(flags)
    _recompute(flags)


def _expert_degrees(flags: Flags, tp: int | None) -> None:
    draft = flags.draft
    ep = flags.whole("parallel.ep", "expert_model_parallel_size", "moe_expert_parallel_size")
    etp = flags.whole("parallel.etp", "expert_tensor_parallel_size")
    if "model.experts.routed" not in draft.values and not (draft.asked("model") and ep != 1):
        return
    draft.put("parallel.ep", ep if ep is not None or draft.asked("parallel.ep") else 1)
    if etp is None and not draft.asked("parallel.etp"):
        etp = tp
        if tp and tp > 1:
            draft.assume("parallel.etp", tp, "expert_tensor_parallel_size is not given: it is tp")
    draft.put("parallel.etp", etp)


def _context(flags: Flags) -> None:
    """How attention is spread over context ranks; without them the flag has no effect."""
    draft, key = flags.draft, "parallel.cp_comm"
    given = flags.take(key, "cp_comm_type", "context_parallel_algo")
    inner = flags.whole("parallel.cp_inner", "ulysses_degree_in_cp") or _first_level(flags)
    if draft.values.get("parallel.cp") == 1:
        return
    if given is None and flags.find("ds_sequence_parallel_size"):  # DeepSpeed-Ulysses
        draft.put(key, "a2a")
        return
    if given is None:
        draft.put(key, "p2p")
        draft.assume(key, "p2p", "how context ranks exchange is not given: a ring, the default")
        return
    if given.unknown:
        return
    kinds = {CONTEXT.get(word.lower()) for word in given.value.split()}
    if kinds - {None} != kinds or len(kinds) != 1:
        draft.leave_out(given.shown, given.value, given.line, "how context ranks exchange: taken as a"
                        " ring; 0 to 20 % of a step at long sequences (an estimate)")  # fmt: skip
        draft.put(key, "p2p")
        return
    draft.put(key, kinds.pop())
    if draft.values[key] == "a2a+p2p":
        if inner is None:
            draft.ask(
                "parallel.cp_inner", f"{given.shown} {given.value}: how many ranks exchange heads"
            )
        draft.put("parallel.cp_inner", inner)


def _first_level(flags: Flags) -> int | None:
    """Return the ranks that exchange heads: the first of the sizes of a hierarchical group."""
    key = "parallel.cp_inner"
    given = flags.take(key, "hierarchical_context_parallel_sizes")
    if given is None or given.unknown:
        return None
    sizes = [whole_number(word) or 0 for word in given.value.replace(",", " ").split()]
    cp = flags.draft.values.get("parallel.cp", 0)
    if len(sizes) != 2 or min(sizes) < 1 or sizes[0] * sizes[1] != cp:
        flags.draft.blame(
            key, given.line, given.shown, given.value, f"expected two sizes that make cp {cp}"
        )
        return None
    return sizes[0]


def _sharding(flags: Flags) -> None:
    draft, key = flags.draft, "parallel.zero"
    distributed = flags.on(key, "use_distributed_optimizer")
    own = flags.on(key, "use_megatron_fsdp", "use_custom_fsdp")
    torch = flags.on(key, "use_torch_fsdp2")
    stage = flags.whole(key, "zero_stage")
    strategy = flags.choice(key, "data_parallel_sharding_strategy", SHARDING) if own else None
    zero = 1 if distributed else 0
    if torch:
        zero = 3
    elif own:
        if strategy is None:
            strategy = "optim_grads_params"
            draft.assume(key, 3, "data_parallel_sharding_strategy is not given: the newest default,"
                         " optim_grads_params; up to core 0.15 it was no_shard (0)")  # fmt: skip
        zero = SHARDING[strategy]
    elif stage is not None:
        zero = stage
        if stage == 0 and draft.values.get("training.precision") == "bf16":
            zero = 1
            draft.assume(key, 1, "zero_stage 0 with bf16: DeepSpeed's bf16 optimizer shards the state all the"
                         " same")  # fmt: skip
    draft.put(key, zero)
    instances = flags.whole("parallel.shard", "num_distributed_optimizer_instances")
    if instances and instances > 1:
        draft.values["instances"] = instances


def settle_shard(flags: Flags, dp: int | None) -> None:
    """Several instances of the distributed optimizer share the state among dp / instances each."""
    instances = flags.draft.values.pop("instances", None)
    if instances and dp and dp % instances == 0:
        flags.draft.put("parallel.shard", dp // instances)
    elif instances:
        flags.draft.ask("parallel.shard", f"num_distributed_optimizer_instances {instances}: replicas that"
                        " share one copy of the state (dp / instances)")  # fmt: skip


def _recompute(flags: Flags) -> None:
    draft, key = flags.draft, "parallel.recompute"
    granularity = flags.choice(key, "recompute_granularity", ("full", "selective"))
    older = flags.on(key, "recompute_activations")
    whole = flags.on(key, "checkpoint_activations", "deepspeed_activation_checkpointing",
                     "activations_checkpoint_method")  # fmt: skip
    if draft.asked(key):
        return
    if granularity == "selective" or (older and not granularity):
        draft.put(key, "selective")
        _modules(flags)
    elif granularity == "full" or whole:
        _whole_layers(flags)
    elif again := [word for name, word in APART.items() if flags.on(key, name)]:
        draft.put(key, "selective")
        draft.put("parallel.recompute_modules", again)
    else:
        draft.put(key, "none")


def _modules(flags: Flags) -> None:
    draft, key = flags.draft, "parallel.recompute_modules"
    given = flags.take(key, "recompute_modules")
    words = given.value.replace(",", " ").split() if given and not given.unknown else ["core_attn"]
    known = [MODULES[word] for word in words if word in MODULES]
    lost = [word for word in words if word not in MODULES]
    if lost and given:
        draft.leave_out(given.shown, " ".join(lost), given.line, "modules that are not computed again here:"
                        " less memory and up to 10 % of a step more (an estimate)")  # fmt: skip
    if given is None:
        draft.assume(key, "[core_attn]", "recompute_modules is not given: Megatron's default")
    draft.put(key, known or ["core_attn"])


def _whole_layers(flags: Flags) -> None:
    """`full`: uniform over all layers, or of the first n layers of each chunk (block)."""
    draft, key = flags.draft, "parallel.recompute"
    method = flags.choice(key, "recompute_method", ("uniform", "block"))
    number = flags.whole(key, "recompute_num_layers")
    per_chunk = _largest_chunk(flags)
    if method != "block" or number is None:
        draft.put(key, "full")
        if number and number > 1 and method:
            _some_layers(flags, "recompute_group", number, f"memory: one input is kept per {number} layers,"
                         " here per layer (a few GiB at most)")  # fmt: skip
        return
    if number == 0:
        draft.put(key, "none")
        return
    draft.put(key, "full")
    if per_chunk is None or number < per_chunk:
        _some_layers(flags, "recompute_layers", number, "only so many layers of a chunk are computed again,"
                     " here all: less time and more memory than predicted")  # fmt: skip


def _some_layers(flags: Flags, key: str, number: int, effect: str) -> None:
    """Put a count of recomputed layers where scenarios know the key, else name what it is worth."""
    if key in Parallel.__dataclass_fields__:
        flags.draft.put(f"parallel.{key}", number)
        return
    given = flags.find("recompute_num_layers")
    method = flags.find("recompute_method", "activations_checkpoint_method")
    for one in (given, method):
        if one:
            flags.draft.leave_out(one.shown, one.value, one.line, effect, one.file)


def _largest_chunk(flags: Flags) -> int | None:
    """Return the layers of the fullest chunk, where they are known."""
    values = flags.draft.values
    chunks = values.get("parallel.chunk_layers")
    if chunks:
        return int(max(chunks))
    layers, pp, vp = (values.get(k) for k in ("model.layers", "parallel.pp", "parallel.vp"))
    return -(-layers // (pp * (vp or 1))) if layers and pp else None


def layer_list(flags: Flags) -> tuple[int, ...]:
    """Return MindSpeed's layers of each stage, if they are given."""
    given = flags.take("parallel.chunk_layers", "num_layer_list")
    if given is None or given.unknown:
        return ()
    try:
        return number_list(given.value)
    except PatternError as error:
        flags.draft.blame("parallel.chunk_layers", given.line, given.shown, given.value, str(error))
        return ()
