"""The layout and the batch that a row describes, its blanks filled from the stack's habits."""

from __future__ import annotations

import math
import re

from ersatz.device_models.catalog.stack import Stack
from ersatz.sim.plan.layout import cost_split, even_split
from ersatz.sim.scenario.scenario import Parallel, Training
from ersatz.sim.validation.reading.rules import Filling, Refused, fits, is_lora, rules
from ersatz.sim.validation.reading.table import Run
from ersatz.sim.workload.model import Model

HARDWARE = re.compile(r"MFU/HFU=([\d.]+)/([\d.]+)")
FULL_RATIO = 1.2  # HFU / MFU: 4/3 with all layers computed again


def layout_of(
    fill: Filling, model: Model, stack: Stack, precision: str
) -> tuple[Parallel, Training]:
    """Return degrees, schedule and batch of a row; raises `Refused` when they contradict."""
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
    etp = _slices(run, tp, ep, tp * cp * dp)
    positions = pp * vp
    chunks = () if model.layers % positions == 0 else even_split(model.layers, positions)
    if stack.defaults.get("split") == "cost" and pp > 1:
        chunks = cost_split(model, pp)
    sharded = "yes" in run.text("seq_parallel").lower() or run.text("seq_parallel") == "True"
    stated = bool(run.text("seq_parallel"))
    default = stack.defaults.get("sequence_parallel") == "true"
    parallel = Parallel(
        tp=tp, pp=pp, vp=vp, cp=cp, ep=ep, etp=etp, dp=dp,
        sequence_parallel=(sharded if stated else default) and tp > 1,
        zero=_zero(run, stack), shard=_shard(run), schedule=schedule,  # type: ignore[arg-type]
        recompute=_recompute(run, stack), chunk_layers=chunks,  # type: ignore[arg-type]
        cp_comm=stack.defaults.get("cp_comm", "p2p"),  # type: ignore[arg-type]
    )  # fmt: skip
    document = _document(fill)
    return parallel, Training(sequence, batch, micro, precision, 0.0, document)  # type: ignore[arg-type]


def _degrees(fill: Filling) -> tuple[int, int, int, int]:
    """Return tp, pp, cp and dp; raises `Refused` when they do not make the device count."""
    run = fill.run
    devices = run.count("n_devices")
    if not devices:
        raise Refused("the device count is blank")
    usual = next((rule["tp"] for rule in rules("adapter_degrees")
                  if is_lora(run) and fits(rule, run) and devices % rule["tp"] == 0), 1)  # fmt: skip
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


def _document(fill: Filling) -> float:
    """Mean length of the documents that fine-tuning packs into a sequence; 0: not packed."""
    run = fill.run
    for rule in rules("packed"):
        if fits(rule, run):
            tokens = float(rule["tokens"])
            fill.assumptions.append(f"packed documents of {tokens:g} tokens (the recipes' data)")
            return tokens
    return 0.0


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
    if batch < micro * dp and batch % dp == 0:
        micro = batch // dp
        fill.assumptions.append(f"micro-batch {micro}: the batch holds no more for each replica")
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


def _slices(run: Run, tp: int, ep: int, ranks: int) -> int:
    """Return the tensor-parallel degree inside an expert that a row's notes state; else 1."""
    stated = re.search(r"\bETP ?= ?(\d+)", run.text("notes"))
    etp = int(stated[1]) if stated else 1
    if etp not in (1, tp) or ranks % (ep * etp):
        raise Refused(f"etp {etp} does not fit tp {tp}, ep {ep} and {ranks} ranks")
    return etp


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
    stated = HARDWARE.search(run.text("notes"))
    if stated and float(stated[2]) > FULL_RATIO * float(stated[1]):
        return "full"  # the row's own rates count a third more than the model's products
    if not text:
        return stack.defaults.get("recompute", "none")
    if re.match(r"full|true|other|yes", text):
        return "full"
    return "none" if re.match(r"none|false|no$", text) else "selective"
