"""Turn a measured row into a scenario: device, stack, model and layout, blanks filled and stated.

Blanks are filled from the stack's defaults and from the row's other cells, each filling with a
sentence. A row is refused only for a stated reason (`Refused`): its device is not modelled, or its
shape or layout cannot be known.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

from device_models.catalog import list_nodes, load_device, load_node, load_scale_out, load_stack
from device_models.device import Node
from device_models.problems import InputError
from device_models.stack import Stack
from device_models.yamltext import parse_yaml
from sim.plan.layout import cost_split, even_split
from sim.scenario import Parallel, Pool, Scenario, Training
from sim.validation.table import Run
from sim.workload.model import Experts, LatentAttention, Model

PLAIN_MLP = re.compile(r"gpt|mpt|bloom|nemotron|opt|falcon|megatron|gemma-plain|starcoder", re.I)
PLAIN_EXCEPTIONS = re.compile(r"gpt[ -]?oss|nemotron_3", re.I)
ALIBI = re.compile(r"bloom", re.I)  # no fused kernel takes its bias on Ascend
CLAMPED = re.compile(r"gpt[-_ ]?oss", re.I)  # biased, clamped gate: no fused kernel
LORA = re.compile(r"\blora\b|task=lora|peft", re.I)


class Refused(Exception):
    """A row that is not predicted; the message says why."""


@dataclass(slots=True)
class Filling:
    """Collects what was assumed while a row is read."""

    run: Run
    assumptions: list[str] = field(default_factory=list)

    def assume(self, key: str, value: object, why: str) -> Any:
        """Note that a blank cell is taken to be `value`."""
        self.assumptions.append(f"{key} is blank: {value} ({why})")
        return value

    def count(self, key: str, default: object, why: str) -> int:
        """Return a whole number of the row, or the stated default."""
        value = self.run.number(key)
        return int(value if value else self.assume(key, default, why))


def scenario_of(run: Run, *, oddities: bool = False) -> Scenario:
    """Return the scenario that a row describes; raises `Refused` with the reason when it cannot.

    With `oddities`, known faults of single clusters are modelled, too.
    """
    fill = Filling(run)
    node = node_of(run.text("device"))
    precision = _precision(run, node)
    stack = stack_of(run)
    model = _model(fill)
    parallel, training = _layout(fill, model, node, stack, precision)
    devices = run.count("n_devices")
    node = trimmed(with_network(node, run, oddities=oddities), devices)
    nodes = devices // node.devices
    return Scenario(
        name=run.id, question="", seed=0, model=model,
        pools=(Pool("", node, nodes, stack),), training=training, parallel=parallel,
        assumptions=tuple(fill.assumptions),
    )  # fmt: skip


@lru_cache(maxsize=256)
def node_of(device: str) -> Node:
    """Return the usual node of a device named as in the table; raises `Refused`."""
    try:
        wanted = load_device(device).name
    except InputError as error:
        raise Refused(f"device {device!r} is not modelled") from error
    known = load_device(device)
    if not known.trains:
        raise Refused(f"{known.title} cannot train: {known.why_not}")
    for name in list_nodes():
        node = load_node(name)
        if node.device.name == wanted:
            return node
    raise Refused(f"no node with {known.title} is modelled")


def _in_slow_mode(run: Run) -> bool:
    """Tell which layouts of the sweep mostly ran in its slow mode (found by looking at it)."""
    devices, tp, micro = run.count("n_devices"), run.count("tp", 1), run.count("micro_batch", 1)
    wide = devices == 256 and micro >= 2 and tp <= 16
    return run.count("pp", 1) > 1 and (devices == 512 or tp == 32 or wide)


def with_network(node: Node, run: Run, *, oddities: bool) -> Node:
    """Return the node with the network that the row's note names; `oddities`: with its faults."""
    text = f"{run.text('interconnect_note')} | {run.text('framework')}"
    for rule in _rules("networks"):
        if "oddity" in rule and not (oddities and _in_slow_mode(run)):
            continue
        if re.search(rule["pattern"], text, re.I) and rule.get("device", "") in node.device.name:
            nics = int(rule["nics"]) if "nics" in rule else node.nics
            return replace(node, scale_out=load_scale_out(rule["network"]), nics=nics)
    return node


def trimmed(node: Node, devices: int) -> Node:
    """Return the node with as many of its devices as fill whole nodes: 64 of a rack of 72."""
    used = max(d for d in range(1, node.devices + 1) if devices % d == 0)
    if used == node.devices:
        return node
    nics = max(node.nics * used // node.devices, 1)
    domain = min(node.scale_up.domain, used) if used < node.scale_up.domain else used
    return replace(node, devices=used, nics=nics, scale_up=replace(node.scale_up, domain=domain))


@lru_cache(maxsize=4)
def _rules(kind: str) -> list[dict[str, str]]:
    source = files("device_models") / "data" / "validation" / "reading.yaml"
    rules: list[dict[str, str]] = parse_yaml(source.read_text(), "reading.yaml").data[kind]
    return rules


def stack_of(run: Run) -> Stack:
    """Return the software stack that the row's framework means."""
    framework, vendor = run.text("framework"), run.text("vendor")
    for rule in _rules("stacks"):
        if (
            re.search(rule["pattern"], framework, re.I)
            and rule.get("vendor", "") in vendor
            and re.search(rule.get("source", ""), run.text("source"), re.I)
            and re.search(rule.get("precision", ""), run.text("precision"), re.I)
            and re.search(rule.get("sharding", ""), run.text("sharding"), re.I)
        ):
            return load_stack(rule["stack"])
    return load_stack("megatron-core")


def _precision(run: Run, node: Node) -> str:
    text = run.text("precision").lower()
    wanted = "bf16"
    if re.search(r"fp4", text):
        wanted = "fp4"
    elif re.search(r"fp8", text):
        wanted = "fp8"
    elif re.search(r"fp16|float16", text) and "bf" not in text:
        wanted = "fp16"
    if not text and "MLPerf" in run.text("source"):
        small = "8B" in run.text("model_name") and "v5.1" in run.text("source")
        wanted = "fp4" if small and node.device.supports("fp4") else "fp8"
    device = node.device
    if wanted in ("bf16", "fp16") and not device.supports(wanted):
        wanted = "fp16" if wanted == "bf16" else "bf16"
    if not device.supports(wanted):
        raise Refused(f"{device.title} has no {wanted} matrix units")
    return wanted


def _model(fill: Filling) -> Model:
    run = fill.run
    layers, hidden = run.count("layers"), run.count("hidden")
    if not layers or not hidden:
        raise Refused("no shape: layers or hidden is blank")
    heads = fill.count("heads", max(hidden // 128, 1), "heads of 128")
    latent = _latent(run)
    kv_heads = heads if latent else fill.count("kv_heads", heads, "as many as heads")
    head_dim = int(run.number("head_dim") or hidden // heads)
    vocab = fill.count("vocab", 64000, "a usual vocabulary")
    experts = _experts(fill)
    gated = not PLAIN_MLP.search(run.text("model_name")) or bool(
        PLAIN_EXCEPTIONS.search(run.text("model_name"))
    )
    ffn = run.number("ffn_hidden")
    if not ffn:
        usual = 256 * math.ceil(hidden * 8 / 3 / 256) if gated else 4 * hidden
        ffn = fill.assume("ffn_hidden", usual, "the usual ratio to hidden")
    lora = LORA.search(run.text("model_name") + " " + run.text("notes"))
    model = Model(
        name=run.text("model_name"), layers=layers, hidden=hidden, heads=heads, kv_heads=kv_heads,
        head_dim=head_dim, ffn_hidden=int(ffn), vocab=vocab, gated=gated,
        experts=experts, latent=latent,
        window=128 if "sliding" in run.text("attention_kind") else 0,
        predict_layers=_predict_layers(run),
        fused_attention=not (
            "alibi" in run.text("attention_kind")
            or (ALIBI.search(run.text("model_name")) and run.text("vendor") == "huawei")
        ),
        fused_activation=not CLAMPED.search(run.text("model_name")),
        lora_rank=16 if lora else 0,
    )  # fmt: skip
    return replace(model, tied=_is_tied(run, model))


def _is_tied(run: Run, model: Model) -> bool:
    """Tell whether the stated parameters count the vocabulary once; of no meaning when blank."""
    stated = (run.number("params_total_b") or 0.0) * 1e9
    once, twice = (replace(model, tied=tied).params() for tied in (True, False))
    return abs(stated - once) < 0.02 * once and abs(stated - once) < abs(stated - twice)


def _predict_layers(run: Run) -> int:
    deepseek = re.search(r"deepseek[-_ ]?v3", run.text("model_name"), re.I)
    return int(bool(deepseek) and "w/o mtp" not in run.text("notes").lower())


def _latent(run: Run) -> LatentAttention | None:
    """DeepSeek's sizes; the lite model projects queries directly."""
    if "mla" not in run.text("attention_kind"):
        return None
    lite = (run.number("hidden") or 0) <= 2048
    return LatentAttention(0 if lite else 1536, 512, 64, 128, 128)


def _experts(fill: Filling) -> Experts | None:
    run = fill.run
    routed = run.count("n_experts")
    if routed <= 1:
        return None
    hidden = run.number("moe_ffn_hidden") or run.number("ffn_hidden")
    if not hidden:
        raise Refused("no shape: the experts' inner size is blank")
    name = run.text("model_name").lower()
    dense = 3 if "deepseek" in name and run.count("layers") > 30 else int("deepseek" in name)
    dense = 1 if "kimi" in name else dense
    limit = 4 if re.search(r"deepseek[-_ ]?v3", name) else 0  # its router picks experts of 4 nodes
    shared = run.count("shared_experts")
    return Experts(routed, run.count("top_k", 2), int(hidden), shared, dense, limit)


def _degrees(fill: Filling) -> tuple[int, int, int, int]:
    """Return tp, pp, cp and dp; raises `Refused` when they do not make the device count."""
    run = fill.run
    devices = run.count("n_devices")
    if not devices:
        raise Refused("the device count is blank")
    lora = LORA.search(run.text("model_name") + " " + run.text("notes"))
    hopper = re.search(r"H100|H200|H800|A100", run.text("device"))
    usual = 4 if lora and hopper and devices % 4 == 0 else 1
    tp = fill.count("tp", usual, "the submissions' habit for LoRA" if usual > 1 else "not split")
    pp = fill.count("pp", 1, "not split")
    batch, rows = run.count("global_batch_seqs"), devices // (tp * pp)
    spread = rows // batch if batch and rows > batch and rows % batch == 0 else 1
    cp = fill.count(
        "cp", spread, "what a batch smaller than dp leaves" if spread > 1 else "not split"
    )
    if devices % (tp * pp * cp):
        raise Refused(f"tp {tp} x pp {pp} x cp {cp} does not divide {devices} devices")
    dp = devices // (tp * pp * cp)
    return tp, pp, cp, dp


def _layout(
    fill: Filling, model: Model, node: Node, stack: Stack, precision: str
) -> tuple[Parallel, Training]:
    run = fill.run
    tp, pp, cp, dp = _degrees(fill)
    sequence = run.count("seq_len")
    if not sequence:
        raise Refused("the sequence length is blank")
    if pp > model.layers:
        raise Refused(f"{pp} stages for {model.layers} layers")
    batch, micro = _batch(fill, dp, pp)
    count = batch // (micro * dp)
    schedule, vp = _schedule(fill, stack, model.layers, pp, count)
    ep = _expert_degree(fill, model, tp * cp * dp)
    positions = pp * vp
    chunks = () if model.layers % positions == 0 else even_split(model.layers, positions)
    if stack.defaults.get("split") == "cost" and pp > 1:
        chunks = cost_split(model, pp)
    sharded = "yes" in run.text("seq_parallel").lower() or run.text("seq_parallel") == "True"
    stated = bool(run.text("seq_parallel"))
    default = stack.defaults.get("sequence_parallel") == "true"
    parallel = Parallel(
        tp=tp, pp=pp, vp=vp, cp=cp, ep=ep, dp=dp,
        sequence_parallel=(sharded if stated else default) and tp > 1,
        zero=_zero(run, stack), shard=_shard(run), schedule=schedule,  # type: ignore[arg-type]
        recompute=_recompute(run, stack), chunk_layers=chunks,  # type: ignore[arg-type]
    )  # fmt: skip
    return parallel, Training(sequence, batch, micro, precision)  # type: ignore[arg-type]


def _batch(fill: Filling, dp: int, pp: int) -> tuple[int, int]:
    """Return the global batch and the micro-batch, made to divide."""
    run = fill.run
    micro = run.count("micro_batch")
    accumulation = re.search(r"grad_accum=(\d+)", run.text("notes"))
    batch = run.count("global_batch_seqs")
    if not batch and accumulation and micro:
        batch = int(accumulation[1]) * micro * dp
    if not batch:
        batch = (micro or 1) * dp * (4 * pp if pp > 1 else 1)
        batch = fill.assume("global_batch_seqs", batch, "four micro-batches per stage")
    if not micro:
        micro = fill.assume("micro_batch", 1, "the least")
    if accumulation and int(accumulation[1]) * micro * dp != batch:
        batch = int(accumulation[1]) * micro * dp
        fill.assumptions.append(f"global batch {batch} follows from grad_accum, not from its cell")
    if batch % (micro * dp):
        rounded = max(round(batch / (micro * dp)), 1) * micro * dp
        fill.assumptions.append(f"global batch {batch} does not divide: {rounded} is simulated")
        batch = rounded
    return batch, micro


def _schedule(fill: Filling, stack: Stack, layers: int, pp: int, count: int) -> tuple[str, int]:
    """Return the pipeline schedule and the chunks per stage."""
    run = fill.run
    if pp == 1:
        return "1f1b", 1
    default = stack.defaults.get("schedule", "1f1b")
    if default == "dualpipe" and pp % 2 == 0 and count % 2 == 0 and count >= 2 * pp:
        return "dualpipe", 1
    vp = run.count("vpp")
    if not vp:
        if "interleaved" in run.text("notes").lower():
            vp = 2
        elif stack.defaults.get("vp") == "layers" and not run.count("n_experts") > 1:
            vp = min(max(layers // pp, 1), 12)
            fill.assume("vpp", vp, "a layer or so per chunk, the recipes' habit")
        else:
            vp = 1
    if vp > 1 and count % pp == 0 and layers >= pp * vp:
        return "interleaved", vp
    return "1f1b", 1


def _expert_degree(fill: Filling, model: Model, ranks: int) -> int:
    if not model.experts:
        return 1
    ep = fill.run.count("ep") or fill.assume(
        "ep", math.gcd(model.experts.routed, ranks, 8), "a node"
    )
    if ranks % ep or model.experts.routed % ep:
        raise Refused(f"ep {ep} does not divide {ranks} ranks or {model.experts.routed} experts")
    return int(ep)


def _zero(run: Run, stack: Stack) -> int:
    text = run.text("sharding").lower()
    for pattern, level in (
        (r"zero0", 0), (r"not resharded|shard_grad_op|zero2", 2), (r"fsdp|hsdp|zero3|full_shard", 3),
        (r"zero1|optimizer|dist", 1),
    ):  # fmt: skip
        if re.search(pattern, text):
            return level
    return int(stack.defaults.get("zero", "1"))


def _shard(run: Run) -> int:
    match = re.search(r"fsdp(\d+)", run.text("sharding").lower())
    return int(match[1]) if match and int(match[1]) > 2 else 0


def _recompute(run: Run, stack: Stack) -> str:
    text = run.text("recompute").lower()
    if not text:
        return stack.defaults.get("recompute", "none")
    if re.match(r"full|true|other|yes", text):
        return "full"
    return "none" if re.match(r"none|false|no$", text) else "selective"
