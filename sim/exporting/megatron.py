"""A scenario as Megatron's flags: only what it says, each flag once."""

from __future__ import annotations

from collections.abc import Iterator

from ersatz.sim.exporting.phases import grows, phases_unsaid, tokens_said
from ersatz.sim.exporting.record import Option
from ersatz.sim.plan.layout import even_or_by_load, pipeline_length
from ersatz.sim.plan.orders import V_SHAPED
from ersatz.sim.scenario.scenario import Scenario
from ersatz.sim.workload.adapters import targets_of
from ersatz.sim.workload.model import Model

MODULES = {"core_attn": "core_attn", "mla_up_proj": "mla_up_proj", "layernorm": "layernorm",
           "activation": "moe_act", "mlp": "mlp", "experts": "moe"}  # fmt: skip
CONTEXT = {"p2p": "p2p", "a2a": "a2a", "all_gather": "allgather", "a2a+p2p": "a2a+p2p"}
ALGORITHMS = {"p2p": "megatron_cp_algo", "a2a": "ulysses_cp_algo", "all_gather": "kvallgather_cp_algo",
              "a2a+p2p": "hybrid_cp_algo"}  # fmt: skip
FUSED = {"linear_qkv": ("q", "k", "v"), "linear_proj": ("o",), "linear_fc1": ("gate", "up"),
         "linear_fc2": ("down",)}  # fmt: skip
SHARDING = {2: "optim_grads", 3: "optim_grads_params"}


def model_options(model: Model, tp: int, *, mindspeed: bool = False) -> Iterator[Option]:
    """Yield the flags of the model's sizes."""
    yield Option("num_layers", model.layers)
    yield Option("hidden_size", model.hidden)
    yield Option("num_attention_heads", model.heads)
    yield Option("kv_channels", model.head_dim)
    if model.kv_heads != model.heads:
        yield Option("group_query_attention")
        yield Option("num_query_groups", model.kv_heads)
    experts = model.experts
    yield Option("ffn_hidden_size", model.ffn_hidden or (experts.hidden if experts else 0))
    if model.gated:
        yield Option("swiglu")
    if not model.tied:
        yield Option("untie_embeddings_and_output_weights")
    if mindspeed or model.vocab % tp:
        yield Option("padded_vocab_size", model.vocab)
    else:
        yield Option("vocab_size", model.vocab)
    yield Option("make_vocab_size_divisible_by", 1)
    yield from _latent(model)
    yield from _experts(model)
    if model.predict_layers:
        yield Option("mtp_num_layers", model.predict_layers)
    if not model.fused_attention:
        yield Option("attention_backend", "unfused")
    if model.lora_rank:
        yield Option("lora_r", model.lora_rank)
    if model.lora_rank and model.lora_targets:
        yield Option("lora_target_modules", _targets(model))


def _targets(model: Model) -> str:
    """Return Megatron's fused products all of whose modules have adapters."""
    named = set(targets_of(model))
    return " ".join(name for name, parts in FUSED.items() if named.issuperset(parts))


def _latent(model: Model) -> Iterator[Option]:
    latent = model.latent
    if latent is None:
        return
    yield Option("multi_latent_attention")
    if latent.q_rank:
        yield Option("q_lora_rank", latent.q_rank)
    yield Option("kv_lora_rank", latent.kv_rank)
    yield Option("qk_head_dim", latent.nope_dim)
    yield Option("qk_pos_emb_head_dim", latent.rope_dim)
    yield Option("v_head_dim", latent.v_dim)


def _experts(model: Model) -> Iterator[Option]:
    experts = model.experts
    if experts is None:
        return
    yield Option("num_experts", experts.routed)
    yield Option("moe_router_topk", experts.top_k)
    yield Option("moe_ffn_hidden_size", experts.hidden)
    if experts.shared_inner:
        yield Option("moe_shared_expert_intermediate_size", experts.shared_inner)
    if experts.latent:
        yield Option("moe_latent_size", experts.latent)
    if experts.zero:
        yield Option("num_zero_experts", experts.zero)
    if experts.dense_layers:
        rest = model.layers - experts.dense_layers
        yield Option("moe_layer_freq", f"([0]*{experts.dense_layers}+[1]*{rest})")
    if experts.groups_limit:
        yield Option(
            "moe_router_num_groups", 8 if experts.groups_limit < 8 else experts.groups_limit + 1
        )
        yield Option("moe_router_group_topk", experts.groups_limit)
    yield Option("moe_grouped_gemm")
    yield Option("moe_token_dispatcher_type", "alltoall")


def training_options(scenario: Scenario) -> Iterator[Option]:
    """Yield the flags of length, batch, precision and steps."""
    training = scenario.training
    yield Option("seq_length", training.sequence_length)
    yield Option("max_position_embeddings", training.sequence_length)
    yield Option("micro_batch_size", training.micro_batch)
    yield Option("global_batch_size", training.global_batch)
    samples = tokens_said(scenario, ramp=True) / training.sequence_length
    if ramp := grows(scenario):
        yield Option("rampup_batch_size", f"{ramp.start} {ramp.increment} {ramp.sequences}")
        yield Option("train_samples", round(samples))
    elif samples >= training.global_batch:
        yield Option("train_iters", round(samples / training.global_batch))
    if training.precision in ("bf16", "fp16", "fp8", "fp4"):
        yield Option("fp16" if training.precision == "fp16" else "bf16")
    if training.precision == "fp8":
        yield Option("fp8_format", "hybrid")
        if training.recipe:
            yield Option("fp8_recipe", training.recipe)
    if training.precision == "fp4":
        yield Option("fp4_format", "e2m1")
        yield Option("fp4_recipe", training.recipe)
    if scenario.model.experts and scenario.pools[0].stack.expert_imbalance == 1.0:
        yield Option("moe_router_force_load_balancing")


def layout_options(scenario: Scenario, *, mindspeed: bool = False) -> Iterator[Option]:
    """Yield the flags of the layout."""
    parallel = scenario.parallel
    yield Option("tensor_model_parallel_size", parallel.tp)
    yield Option("pipeline_model_parallel_size", parallel.pp)
    yield Option("context_parallel_size", parallel.cp)
    if parallel.cp > 1 and mindspeed:
        yield Option("context_parallel_algo", ALGORITHMS[parallel.cp_comm])
    elif parallel.cp > 1:
        yield Option("cp_comm_type", CONTEXT[parallel.cp_comm])
    if parallel.cp > 1 and parallel.cp_comm == "a2a+p2p":
        yield Option("ulysses_degree_in_cp", parallel.cp_inner)
    if scenario.model.experts:
        yield Option("expert_model_parallel_size", parallel.ep)
        yield Option("expert_tensor_parallel_size", parallel.etp)
    if parallel.sequence_parallel and parallel.tp > 1:
        yield Option("sequence_parallel")
    yield from _chunks(scenario)
    if mindspeed and parallel.schedule == "dualpipev":
        yield Option("schedules_method", "dualpipev")
    yield from _host(scenario, mindspeed=mindspeed)
    yield from _sharding(scenario)
    yield from _recompute(scenario)


def _chunks(scenario: Scenario) -> Iterator[Option]:
    """Chunks as layers per virtual stage where they are even, else as a layout."""
    parallel, model = scenario.parallel, scenario.model
    length = pipeline_length(parallel)
    chunks = list(parallel.chunk_layers or even_or_by_load(model, length))
    if (
        parallel.schedule in V_SHAPED
    ):  # a stage has its chunk on the way down and that on the way up
        chunks = [a + b for a, b in zip(chunks[: parallel.pp], reversed(chunks), strict=False)]
    if len(set(chunks)) == 1:
        if parallel.vp > 1:
            yield Option("num_layers_per_virtual_pipeline_stage", chunks[0])
        return
    stages = [f"t*{n}" if n else "" for n in chunks]
    stages[0] = f"E{stages[0]}"
    stages[-1] += "m" * model.predict_layers + "L"
    yield Option("pipeline_model_parallel_layout", "|".join(stages))


def _host(scenario: Scenario, *, mindspeed: bool) -> Iterator[Option]:
    """State of the optimiser with the host: by share, or all of it that comes back for the update."""
    stack = scenario.pools[0].stack
    if not stack.optimizer_offload:
        return
    if mindspeed and stack.updates_on_device:
        yield Option("swap_optimizer")
    elif not stack.updates_on_device:
        yield Option("optimizer_cpu_offload")
        yield Option("optimizer_offload_fraction", f"{stack.optimizer_offload:g}")
        yield Option("use_precision_aware_optimizer")  # the only one that Megatron-Core offloads


def _sharding(scenario: Scenario) -> Iterator[Option]:
    parallel, stack = scenario.parallel, scenario.pools[0].stack
    if parallel.zero == 1:
        yield Option("use_distributed_optimizer")
    elif parallel.zero > 1:
        yield Option("use_megatron_fsdp")
        yield Option("data_parallel_sharding_strategy", SHARDING[parallel.zero])
    if parallel.shard and parallel.shard < parallel.dp:
        yield Option("num_distributed_optimizer_instances", parallel.dp // parallel.shard)
    if stack.overlap_grad_reduce:
        yield Option("overlap_grad_reduce")
    if stack.overlap_param_gather and parallel.zero:
        yield Option("overlap_param_gather")


def _recompute(scenario: Scenario) -> Iterator[Option]:
    parallel = scenario.parallel
    if parallel.recompute == "none":
        return
    yield Option("recompute_granularity", parallel.recompute)
    if parallel.recompute == "selective":
        named = [MODULES[m] for m in parallel.recompute_modules if m in MODULES]
        if named:
            yield Option("recompute_modules", " ".join(named))
        return
    layers = getattr(parallel, "recompute_layers", 0)
    yield Option("recompute_method", "block" if layers else "uniform")
    yield Option("recompute_num_layers", layers or getattr(parallel, "recompute_group", 1))


def unsaid(scenario: Scenario, *, mindspeed: bool = False) -> Iterator[str]:
    """Yield what of model, training and layout Megatron's flags cannot say."""
    parallel, model, stack = scenario.parallel, scenario.model, scenario.pools[0].stack
    yield from phases_unsaid(scenario, ramp=True)
    if (
        len(model.kinds) > 1 + bool(model.experts and model.experts.dense_layers)
        and not model.window
    ):
        yield "model.blocks: layers of several kinds; the flags say those of the first alone"
    if any(kind.recurrence or kind.indexer or kind.compressed for kind in model.kinds):
        yield "model: recurrences and sparse attention have flags of each version's own"
    away = (("memory.activation_offload", stack.activation_offload),
            ("memory.weights_offload", stack.weights_offload),
            ("memory.optimizer_update device", stack.updates_on_device and not mindspeed))  # fmt: skip
    yield from (f"{key}: no flag says it" for key, there in away if there)
    named = set(targets_of(model)) if model.lora_targets else set()
    whole = {part for parts in FUSED.values() if named.issuperset(parts) for part in parts}
    if named - whole:
        yield f"model.lora_targets {' '.join(sorted(named - whole))}: Megatron's products are fused"
    if len(scenario.pools) > 1:
        yield "cluster.pools: several kinds of node in one job"
    if scenario.training.document_tokens:
        yield "training.document_tokens: --reset-attention-mask says that documents end attention, not where"
    if scenario.training.precision == "fp32":
        yield "training.precision fp32: it is what neither --bf16 nor --fp16 means"
    if parallel.schedule not in ("1f1b", "interleaved", *(["dualpipev"] if mindspeed else [])):
        yield f"parallel.schedule {parallel.schedule}: not among the schedules of Megatron"
    lost = [m for m in parallel.recompute_modules if m not in MODULES]
    if lost:
        yield f"parallel.recompute_modules: {', '.join(lost)}"
    if parallel.expert_layout == "strided":
        yield "parallel.expert_layout strided: expert groups are of neighbouring ranks"
    if model.window:
        yield "model.window: say --window-size and --window-attn-skip-freq for the layers that have it"
    if model.experts and model.experts.groups_limit:
        yield "model.experts.groups_limit: 8 groups are taken; the scenario says only how many are visited"
    if scenario.fabric:
        yield "fabric: where the job stands in its network"
