"""The layout and the batch that a row describes, its blanks filled from the stack's habits."""

from __future__ import annotations

import math
import re

from ersatz.device_models.catalog.stack import Stack
from ersatz.device_models.text.digits import DECIMAL
from ersatz.sim.plan.layout import cost_split, even_split
from ersatz.sim.scenario.scenario import Parallel, Training
from ersatz.sim.validation.reading.rules import Filling, Refused, fits, is_lora, rules
from ersatz.sim.validation.reading.table import Run
from ersatz.sim.workload.model import Model

HARDWARE = re.compile(rf"MFU/HFU=({DECIMAL})/({DECIMAL})")
EXPERT_TP = re.compile(r"\bETP=(\d+)")
MICRO_BATCHES = (8, 4, 2, 1)  # that a blank cell may mean
MOST_CHUNKS = 12  # per stage, where a blank cell means a layer or so each
SHARDINGS = (
    (r"zero-?0|\bnone\b|no sharding|^ddp$", 0),
    (r"not resharded|shard_grad_op|zero-?2", 2),
    (r"optimizer[_ ]parallel", 2),  # of MindSpore: gradients are scattered, too
    (r"fsdp|hsdp|zero-?3|full_shard|fully", 3),
    (r"zero-?1|optim|dist", 1),
)
RECOMPUTES = (
    (r"^(none|false|no|off)\b", "none"),
    (r"selective|up-proj|norm|per-op|\bop\b|module", "selective"),
    (r"^(full|true|other|yes)", "full"),
)
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
    zero = _pipeline_zero(fill, stack, _zero(fill, stack), pp)
    batch, micro = _batch(fill, dp, pp, stack, decides=zero == 3 or model.experts is not None)
    count = batch // (micro * dp)
    schedule, vp = _schedule(fill, stack, model.layers, pp, count)
    ep, etp = _expert_degrees(fill, model, tp, tp * cp * dp)
    positions = pp * vp
    chunks = () if model.layers % positions == 0 else even_split(model.layers, positions)
    if stack.defaults.get("split") == "cost" and pp > 1:
        chunks = cost_split(model, pp)
    parallel = Parallel(
        tp=tp, pp=pp, vp=vp, cp=cp, ep=ep, etp=etp, dp=dp,
        sequence_parallel=tp > 1 and _sequence_parallel(fill, stack),
        zero=zero, shard=_shard(run, dp), schedule=schedule,  # type: ignore[arg-type]
        recompute=_recompute(fill, stack), chunk_layers=chunks,  # type: ignore[arg-type]
        cp_comm=stack.defaults.get("cp_comm", "p2p"),  # type: ignore[arg-type]
    )  # fmt: skip
    document = _document(fill)
    return parallel, Training(sequence, batch, micro, precision, 0.0, document)  # type: ignore[arg-type]


def _sequence_parallel(fill: Filling, stack: Stack) -> bool:
    """Tell whether norms and the like are split over tp; where the row does not say, the stack's habit."""
    text = fill.run.text("seq_parallel").lower()
    if text:
        return "yes" in text or text == "true"
    usual = stack.defaults.get("sequence_parallel") == "true"
    return bool(fill.assume("seq_parallel", usual, "the stack's habit"))


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


def _batch(fill: Filling, dp: int, pp: int, stack: Stack, *, decides: bool) -> tuple[int, int]:
    """Return the global batch and the micro-batch, made to divide.

    A blank micro-batch `decides` where weights are gathered or tokens routed for each of them.
    """
    run = fill.run
    micro = run.count("micro_batch")
    accumulation = re.search(r"grad_accum=(\d+)", run.text("notes"))
    batch = run.count("global_batch_seqs")
    if not batch and accumulation and micro:
        batch = int(accumulation[1]) * micro * dp
    if not batch:
        batch = (micro or 1) * dp * (4 * pp if pp > 1 else 1)
        batch = fill.assume("global_batch_seqs", batch, "four micro-batches per stage")
    if not micro and pp > 1 and stack.defaults.get("pipeline_batches") == "stages":
        share = max(batch // (dp * pp), 1)
        micro = fill.assume("micro_batch", share, "a replica's batch cut into as many as stages")
    if not micro:
        most = max((m for m in MICRO_BATCHES if batch % (m * dp) == 0), default=1)
        micro = fill.assume("micro_batch", 1, "the least", [most] if decides else ())
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
        most = min(max(layers // pp, 1), MOST_CHUNKS)
        if "interleaved" in run.text("notes").lower():
            vp = fill.assume("vpp", 2, "the notes say interleaved", [most])
        elif stack.defaults.get("vp") == "layers":
            vp = fill.assume("vpp", most, "a layer or so per chunk, the recipes' habit", [1])
        else:
            others = [most] if run.count("n_experts") > 1 else []
            vp = fill.assume("vpp", 1, "not interleaved", others)
    if vp > 1 and count % pp == 0 and layers >= pp * vp:
        return "interleaved", vp
    return "1f1b", 1


def _expert_degrees(fill: Filling, model: Model, tp: int, ranks: int) -> tuple[int, int]:
    """Return the degrees over which experts, and the weights of each, are spread."""
    if not model.experts:
        return 1, 1
    ep = fill.run.count("ep") or fill.assume(
        "ep", math.gcd(model.experts.routed, ranks, 8), "a node"
    )
    if ranks % ep or model.experts.routed % ep:
        raise Refused(f"ep {ep} does not divide {ranks} ranks or {model.experts.routed} experts")
    stated = EXPERT_TP.search(fill.run.text("notes"))
    if stated:
        etp = int(stated[1])
    elif tp > 1 and ranks % (ep * tp) == 0:
        etp = fill.assume("etp", 1, "experts are whole", [tp])
    else:
        etp = 1
    if etp not in (1, tp) or ranks % (ep * etp):
        raise Refused(f"etp {etp} does not fit tp {tp}, ep {ep} and {ranks} ranks")
    return int(ep), etp


def _zero(fill: Filling, stack: Stack) -> int:
    """Return how much of the state is sharded; words that are not understood are an assumption."""
    text = fill.run.text("sharding").lower()
    for pattern, level in SHARDINGS:
        if re.search(pattern, text):
            return level
    usual = int(stack.defaults.get("zero", "1"))
    words = f"sharding {text!r} is not understood" if text else "sharding is blank"
    fill.assumptions.append(f"{words}: zero {usual} (the stack's habit)")
    return usual


def _pipeline_zero(fill: Filling, stack: Stack, zero: int, pp: int) -> int:
    """Return the ZeRO stage under a pipeline, where some frameworks do not reshard weights."""
    usual = stack.defaults.get("pipeline_zero")
    if not usual or zero != 3 or pp == 1:
        return zero
    fill.assumptions.append(f"zero {usual} for 3: {stack.name} does not reshard under a pipeline")
    return int(usual)


def _shard(run: Run, dp: int) -> int:
    """Return over how many ranks state is sharded; 0: over all of dp."""
    match = re.search(r"fsdp(\d+)|group[= ](\d+)", run.text("sharding").lower())
    ranks = int(match[1] or match[2]) if match else 0
    return ranks if 2 < ranks < dp else 0


def _recompute(fill: Filling, stack: Stack) -> str:
    run = fill.run
    text = run.text("recompute").lower()
    stated = HARDWARE.search(run.text("notes"))
    if stated and float(stated[2]) > FULL_RATIO * float(stated[1]):
        return "full"  # the row's own rates count a third more than the model's products
    if not text:
        usual = stack.defaults.get("recompute", "none")
        return str(fill.assume("recompute", usual, "the stack's habit", ["none", "full"]))
    for pattern, kind in RECOMPUTES:
        if re.search(pattern, text):
            return kind
    words = f"recompute {text!r} is not understood: {{}}"
    return str(fill.note("recompute", "selective", words, ["none", "full"]))
