"""The layout and the batch that a row describes, its blanks filled from the stack's habits."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from ersatz.device_models.catalog.stack import Stack
from ersatz.sim.plan.layout import cost_split, even_split
from ersatz.sim.plan.orders import V_SHAPED
from ersatz.sim.scenario.scenario import Parallel, Training
from ersatz.sim.validation.reading.recomputing import (
    modules_of,
    recompute_layers,
    recompute_of,
)
from ersatz.sim.validation.reading.rules import (
    Filling,
    Refused,
    fits,
    is_lora,
    rules,
    stated_in,
)
from ersatz.sim.validation.reading.state import pipeline_zero, shard_of, zero_of
from ersatz.sim.validation.reading.table import MOST
from ersatz.sim.validation.reading.words import says
from ersatz.sim.workload.model import Model

EXPERT_TP = re.compile(
    r"\bETP\s?=?\s?(\d{1,6})|expert[- ](?:tensor[- ]?parallel\w*|TP)(?: size| degree)?\s?[=:]?\s?(\d+)",
    re.I,
)
MICRO_BATCHES = (8, 4, 2, 1)  # that a blank cell may mean
MOST_CHUNKS = 12  # per stage, where a blank cell means a layer or so each
ACCUMULATION = re.compile(
    r"(?:grad\w*[ _-]?acc(?:um\w*)?|accumulation|\bgas|\bga(?=\s?[=:]))(?:[ _](?:steps?|over))?"
    r"\s*(?:=|:|of|is|x)?\s*(?P<after>\d{1,9})\b"
    r"|\b(?P<before>\d{1,6})[ -](?:steps? of )?(?:grad\w*[ _-]?)?accum\w*(?:[ -](?:steps?|rounds?"
    r"|micro-?\w+))?"
    r"|accumulat\w* (?:over |for |across )?(?P<over>\d{1,6})(?: micro| steps| rounds)",
    re.I,
)
_COUNT = r"~?(?<![\d^])(\d[\d,]{0,15}(?:\.\d{1,9})?) ?(k|m|million|thousand|)i?"
TOKENS = re.compile(
    rf"(?:batch|\bGBS)(?:[-_ ]size)?(?: of| is| ?=|:)? ?\(?{_COUNT}[- ]?tok"
    rf"|{_COUNT}[- ]?tok\w*(?: per | ?/ ?| in (?:a|each) | global | )(?:batch|step|iteration)\b"
    rf"|tok\w*(?: per | ?/ ?)(?:global )?(?:batch|step|iteration)(?: of| is|=|:)? ?{_COUNT}(?![\w.])",
    re.I,
)
# Chunks of a pipeline, not layers of two kinds that take turns.
INTERLEAVED = (
    r"^(?!.*(?:moe|dense|window|rope|modal|expert|text|image|attention))"
    r".*(?:interleav|1f1b-?i\b|looped pipe)"
)
DOCUMENT = re.compile(
    r"(?:avg\.?|average|mean)(?: (?:doc\w{0,9}|sample|sequence|example|length|len|tokens|of|is)|[:=~]){0,5}"
    r" ?~?(\d[\d,]{0,9}(?:\.\d{1,3})?) ?(k)?\b|documents? of (?:about |~)?(\d[\d,]{0,9})(k)?",
    re.I,
)
ULYSSES = re.compile(r"ulysses(?:[- ](?:SP|degree|size))*[ =:]*(\d+)\b", re.I)
YES, NO = r"yes|true|on|1|y|enabled?", r"no|none|false|off|0|n|disabled?|not used|without"
PRODUCT = re.compile(r"2\^(\d\d)\b|(\d[\d,]{0,9}) ?[x×*] ?(\d[\d,]{0,9})(?= ?tok)", re.I)
DROPPED = re.compile(
    r"capacity(?: factor)?[ =:]*\d+\.?\d*|capacity factor|token[- ]drop\w*|drop (?:tokens|policy)",
    re.I,
)
STRIDED = re.compile(r"strided expert|unfolded", re.I)
SEQUENCE_PARALLEL = r"sequence[- ]parallel|(?-i:\bSP\b)"
# Beside a yes or no: another yes or no, or another way of dividing sequences.
OTHER_SEQUENCE = re.compile(
    r"ulysses|\bring\b|context|\bcp ?=?\d|\b(?:yes|true|on|no|false|off)\b(?! ?=)|\?"
)
NO_EXPERT_GROUPS = r"expert[- ]parallel|\bEP\b"
ROUNDED = 0.06  # a million may be 2^20


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
    zero = pipeline_zero(fill, stack, zero_of(fill, stack), pp)
    batch, micro = _batch(fill, dp, pp, stack, decides=zero == 3 or model.experts is not None)
    count = batch // (micro * dp)
    schedule, vp = _schedule(fill, stack, model.layers, pp, count)
    ep, etp = _expert_degrees(fill, model, tp, tp * cp * dp)
    positions = pp * vp
    chunks = () if model.layers % positions == 0 else even_split(model.layers, positions)
    if stack.defaults.get("split") == "cost" and pp > 1:
        chunks = cost_split(model, pp)
    comm, inner = _context_exchange(fill, stack, cp)
    parallel = Parallel(
        tp=tp, pp=pp, vp=vp, cp=cp, ep=ep, etp=etp, dp=dp,
        sequence_parallel=tp > 1 and _sequence_parallel(fill, stack),
        zero=zero, shard=shard_of(fill, dp), schedule=schedule,  # type: ignore[arg-type]
        recompute=recompute_of(fill, stack), chunk_layers=chunks,  # type: ignore[arg-type]
        expert_layout="strided" if _is_strided(fill) else "folded",
        cp_comm=comm, cp_inner=inner,  # type: ignore[arg-type]
    )  # fmt: skip
    if parallel.recompute == "selective":
        parallel = replace(parallel, recompute_modules=modules_of(fill, stack))
    if parallel.recompute == "full":
        parallel = replace(
            parallel, recompute_layers=recompute_layers(fill, model.layers, positions)
        )
    document = _document(fill)
    return parallel, Training(sequence, batch, micro, precision, 0.0, document)  # type: ignore[arg-type]


def _sequence_parallel(fill: Filling, stack: Stack) -> bool:
    """Tell whether norms and the like are split over tp; where the row does not say, the stack's habit."""
    text = fill.run.text("seq_parallel").strip().lower()
    usual = stack.defaults.get("sequence_parallel") == "true"
    if not text:
        said = says(SEQUENCE_PARALLEL, fill.run.text("notes"))
        if said is not None:
            return bool(fill.assume("seq_parallel", said, "as the notes say"))
        return bool(fill.assume("seq_parallel", usual, "the stack's habit"))
    for pattern, value in ((NO, False), (YES, True)):
        if re.match(rf"({pattern})\b", text):
            if other := OTHER_SEQUENCE.search(text, 1):
                words = f"seq_parallel {text!r} also says {other[0]!r}: {{}}"
                return bool(fill.note("seq_parallel", value, words, [not value]))
            return value
    words = f"seq_parallel {text!r} is not understood: {{}} (the stack's habit)"
    return bool(fill.note("seq_parallel", usual, words, [not usual]))


def _context_exchange(fill: Filling, stack: Stack, cp: int) -> tuple[str, int]:
    """Return how attention is spread over cp, as the row says or as the stack does, and the inner ranks."""
    usual = stack.defaults.get("cp_comm", "p2p")
    if cp == 1:
        return usual, 1
    said = f"{fill.run.text('seq_parallel')} ; {fill.run.text('notes')}"
    rule = next((rule for rule in rules("context_exchange") if says(rule["pattern"], said)), None)
    if rule is None or rule["comm"] == usual:
        return usual, 1
    if rule["comm"] != "a2a+p2p":
        fill.assumptions.append(f"cp exchanges by {rule['comm']}, as the row says")
        return rule["comm"], 1
    inner = re.search(r"ulysses\D{0,3}(\d+)|\[(\d+),", said, re.I)
    ranks = int(inner[1] or inner[2]) if inner else 2
    if not 1 < ranks < cp or cp % ranks:
        raise Refused(f"cp {cp} of both kinds: {ranks} ranks that exchange heads do not fit")
    fill.note(
        "cp_inner", ranks, "cp exchanges by a2a+p2p, as the row says: {} ranks exchange heads"
    )
    return "a2a+p2p", ranks


def _degrees(fill: Filling) -> tuple[int, int, int, int]:
    """Return tp, pp, cp and dp; raises `Refused` when they do not make the device count."""
    run = fill.run
    devices = run.count("n_devices")
    if not devices:
        raise Refused("the device count is blank")
    usual = next((rule["tp"] for rule in rules("adapter_degrees")
                  if is_lora(run) and fits(rule, run) and devices % rule["tp"] == 0), 1)  # fmt: skip
    usual, why = _left_by_dp(fill, "tp") or (
        usual,
        "the submissions' habit for LoRA" if usual > 1 else "not split",
    )
    tp = fill.count("tp", usual, why)
    pp = fill.count("pp", *(_left_by_dp(fill, "pp") or (1, "not split")))
    batch, rows = run.count("global_batch_seqs"), devices // (tp * pp)
    spread = rows // batch if batch and rows > batch and rows % batch == 0 else 1
    ulysses = ULYSSES.search(f"{run.text('seq_parallel')} ; {run.text('notes')}")
    if ulysses and rows % int(ulysses[1]) == 0:
        spread = int(ulysses[1])
        habit = (spread, f"the row says {ulysses[0]!r}")
    else:
        habit = (spread, "what a batch smaller than dp leaves" if spread > 1 else "not split")
    cp = fill.count("cp", *(_left_by_dp(fill, "cp") or habit))
    if devices % (tp * pp * cp):
        raise Refused(f"tp {tp} x pp {pp} x cp {cp} does not divide {devices} devices")
    dp = devices // (tp * pp * cp)
    if _stated_dp(fill, dp) != dp:
        stated = f"tp {tp} x pp {pp} x cp {cp} x dp {_stated_dp(fill, dp)}"
        raise Refused(f"{stated} does not make {devices} devices")
    return tp, pp, cp, dp


def _stated_dp(fill: Filling, default: int = 0) -> int:
    """Return the replicas that a row's cell or its notes state."""
    said = stated_in(fill.run.text("notes"), "dp")
    return fill.run.count("dp") or (said[0] if said else default)


def _left_by_dp(fill: Filling, key: str) -> tuple[int, str] | None:
    """Return what a stated dp leaves for the first blank degree, with the reason; None without one."""
    run = fill.run
    notes = run.text("notes")
    blank = [n for n in ("pp", "tp", "cp") if not run.number(n) and not stated_in(notes, n)]
    dp = _stated_dp(fill)
    if not dp or not blank or key != blank[0]:
        return None
    said = (stated_in(notes, name) for name in ("tp", "pp", "cp") if not run.number(name))
    stated = dp * math.prod(run.count(name, 1) for name in ("tp", "pp", "cp"))
    stated *= math.prod(found[0] for found in said if found)
    if stated < 1:  # a degree below one, which is refused where it is read
        return None
    left, over = divmod(run.count("n_devices"), stated)
    return (left, "what the stated dp leaves") if left > 1 and not over else None


def _document(fill: Filling) -> float:
    """Mean length of the documents that fine-tuning packs into a sequence; 0: not packed."""
    run = fill.run
    for rule in rules("packed"):
        if fits(rule, run):
            tokens = float(rule["tokens"])
            fill.assumptions.append(f"packed documents of {tokens:g} tokens (the recipes' data)")
            return tokens
    notes = run.text("notes")
    if not any(says(rule["pattern"], notes) for rule in rules("packed_words")):
        return 0.0
    said = DOCUMENT.search(notes)
    if said is None:
        fill.assumptions.append(
            "the notes speak of packed documents and not of their length: one fills a sequence"
        )
        return 0.0
    tokens = float((said[1] or said[3]).replace(",", "")) * (1000 if said[2] or said[4] else 1)
    fill.assumptions.append(
        f"packed documents of {tokens:g} tokens (the notes say {said[0].strip(' ,')!r})"
    )
    return tokens if tokens < run.count("seq_len") else 0.0


def _batch(fill: Filling, dp: int, pp: int, stack: Stack, *, decides: bool) -> tuple[int, int]:
    """Return the global batch and the micro-batch, made to divide.

    A blank micro-batch `decides` where weights are gathered or tokens routed for each of them.
    """
    run = fill.run
    micro = run.count("micro_batch") or int(fill.noted("micro_batch") or 0)
    found = ACCUMULATION.search(run.text("notes"))
    accumulation = int(next(n for n in found.groups() if n)) if found else 0
    batch = (
        run.count("global_batch_seqs")
        or int(fill.noted("global_batch_seqs") or 0)
        or _batch_of_tokens(fill)
    )
    rounds = stated_in(run.text("notes"), "micro_batches")
    if rounds and micro and not batch and not accumulation:
        batch = rounds[0] * micro * dp
        fill.assumptions.append(
            f"global batch {batch}: {rounds[1]!r} of {micro} in {dp} replicas, as noted"
        )
    each = stated_in(run.text("notes"), "per_device_batch")
    if each and accumulation and not micro:
        micro = each[0]
        fill.assumptions.append(f"micro_batch is blank: {micro} (the notes say {each[1]!r})")
    elif each and not batch and not accumulation:
        batch = each[0] * dp
        fill.assumptions.append(f"global batch {batch}: {each[1]!r} of the notes for each replica")
    if not batch and accumulation and micro:
        batch = accumulation * micro * dp
    if not batch:
        batch = (micro or 1) * dp * (4 * pp if pp > 1 else 1)
        batch = fill.assume("global_batch_seqs", batch, "four micro-batches per stage")
    if not micro and pp > 1 and stack.defaults.get("pipeline_batches") == "stages":
        share = max(batch // (dp * pp), 1)
        micro = fill.assume("micro_batch", share, "a replica's batch cut into as many as stages")
    if not micro:
        most = max((m for m in MICRO_BATCHES if batch % (m * dp) == 0), default=1)
        micro = fill.assume("micro_batch", 1, "the least", [most] if decides else ())
    short = found and found[0][:2].lower() == "ga" and run.count("global_batch_seqs")
    if found and short and accumulation * micro * dp != batch:
        fill.assumptions.append(f"global_batch_seqs is {batch} in its cell, which is taken; the notes say"
                                f" {found[0]!r}")  # fmt: skip
    elif accumulation and accumulation * micro * dp != batch:
        batch = accumulation * micro * dp
        fill.assumptions.append(f"global batch {batch} follows from grad_accum, not from its cell")
    if batch < micro * dp and batch % dp == 0:
        micro = batch // dp
        fill.assumptions.append(f"micro-batch {micro}: the batch holds no more for each replica")
    if says(r"grad\w* accumulation(?! fusion)", run.text("notes")) is False and batch > micro * dp:
        fill.assumptions.append(
            f"the notes say no accumulation: {batch} are {batch // (micro * dp)} rounds"
        )
    if batch % (micro * dp):
        rounded = max(round(batch / (micro * dp)), 1) * micro * dp
        fill.assumptions.append(f"global batch {batch} does not divide: {rounded} is simulated")
        batch = rounded
    return batch, micro


def _product(said: re.Match[str]) -> str:
    """Return a count that is written as a power or a product: 2^22, 1024 x 4096."""
    first, second = (int((text or "1").replace(",", "")) for text in said.groups()[1:])
    return str(2 ** int(said[1]) if said[1] else first * second)


def _batch_of_tokens(fill: Filling) -> int:
    """Return the sequences of a batch that the notes give in tokens; 0 where they do not."""
    said = TOKENS.search(PRODUCT.sub(_product, fill.run.text("notes")))
    if said is None:
        return 0
    number, unit = next(
        (n, u) for n, u in zip(said.groups()[::2], said.groups()[1::2], strict=True) if n
    )
    tokens = float(number.replace(",", "")) * {"m": 1e6, "k": 1e3, "t": 1e3}.get(
        unit[:1].lower(), 1.0
    )
    sequences = tokens / fill.run.count("seq_len")
    if sequences > MOST["global_batch_seqs"]:
        raise Refused(f"the notes say a batch of {tokens:.3g} tokens")
    exact = 2 ** round(math.log2(sequences)) if sequences >= 1 else 1  # 4M mostly means 4 x 2^20
    batch = exact if abs(exact / sequences - 1) < ROUNDED else round(sequences)
    fill.assumptions.append(f"global batch {batch}: what the notes' tokens make in sequences")
    return batch


def _schedule(fill: Filling, stack: Stack, layers: int, pp: int, count: int) -> tuple[str, int]:
    """Return the pipeline schedule and the chunks per stage."""
    run = fill.run
    if pp == 1:
        return "1f1b", 1
    default = stack.defaults.get("schedule", "1f1b")
    if default == "dualpipe" and pp % 2 == 0 and count % 2 == 0 and count >= 2 * pp:
        return "dualpipe", 1
    usual = run.count("vpp") or int(fill.noted("vpp") or 0) or _chunks_of_layers(fill, layers, pp)
    if named := _named_schedule(fill, layers, pp, count):
        if run.count("vpp") > 1 and named not in V_SHAPED:
            fill.assumptions.append(
                f"vpp is {run.count('vpp')} in its cell, which {named} has not: one chunk"
            )
        return named, 2 if named in V_SHAPED else 1
    vp = usual
    interleaved = says(INTERLEAVED, run.text("notes"))
    if not vp:
        most = min(max(layers // pp, 1), MOST_CHUNKS)
        if interleaved is False:
            vp = fill.assume("vpp", 1, "the notes say not interleaved")
        elif interleaved:
            vp = fill.assume("vpp", 2, "the notes say interleaved", [most])
        elif stack.defaults.get("vp") == "layers":
            vp = fill.assume("vpp", most, "a layer or so per chunk, the recipes' habit", [1])
        else:
            others = [most] if run.count("n_experts") > 1 else []
            vp = fill.assume("vpp", 1, "not interleaved", others)
    if vp > 1 and count % pp == 0 and layers >= pp * vp:
        return "interleaved", vp
    if vp > 1:
        fill.assumptions.append(f"vpp {vp} does not go with {count} micro-batches on {pp} stages of"
                                f" {layers} layers: 1f1b is simulated")  # fmt: skip
    return "1f1b", 1


def _named_schedule(fill: Filling, layers: int, pp: int, count: int) -> str:
    """Return the schedule that the notes name, or the nearest to it, which is said; empty: none."""
    notes = fill.run.text("notes")
    rule = next((rule for rule in rules("schedules") if says(rule["pattern"], notes)), None)
    if rule is None:
        return ""
    named = str(rule["schedule"])
    if named in V_SHAPED and layers < 2 * pp:
        raise Refused(
            f"the notes say {named}, which needs two chunks of layers in each of {pp} stages"
        )
    if "unlike" in rule:
        said = re.search(rule["pattern"], notes, re.I)
        words = f"the notes say {said[0] if said else named!r}, which is not simulated: {{}} is"
        others = [other for other in ("1f1b", "zb-h1") if other != named]
        return str(fill.note("schedule", named, words, others))
    if named == "dualpipe" and (pp % 2 or count % 2 or count < 2 * pp):
        fill.assumptions.append(f"the notes say dualpipe, which does not go with {count} micro-batches on"
                                f" {pp} stages: 1f1b is simulated")  # fmt: skip
        return "1f1b"
    fill.assumptions.append(f"schedule {named}, as the notes say")
    return named


def _chunks_of_layers(fill: Filling, layers: int, pp: int) -> int:
    """Return the chunks of a stage where the notes state how many layers each has; 0: they do not."""
    said = stated_in(fill.run.text("notes"), "layers_per_chunk")
    if said is None or layers % (pp * said[0]):
        return 0
    vp = layers // pp // said[0]
    fill.assumptions.append(f"vpp is blank: {vp} (the notes say {said[1]!r})")
    return vp


def _expert_degrees(fill: Filling, model: Model, tp: int, ranks: int) -> tuple[int, int]:
    """Return the degrees over which experts, and the weights of each, are spread."""
    if not model.experts:
        return 1, 1
    usual = math.gcd(model.experts.routed, ranks, 8)
    if says(NO_EXPERT_GROUPS, fill.run.text("notes")) is False:
        ep = fill.count("ep", 1, "the notes say no expert parallelism")
    else:
        ep = fill.count("ep", usual, "a node")
    if ranks % ep or model.experts.routed % ep:
        raise Refused(f"ep {ep} does not divide {ranks} ranks or {model.experts.routed} experts")
    stated = EXPERT_TP.search(fill.run.text("notes"))
    if stated:
        etp = int(stated[1] or stated[2])
    elif tp > 1 and ranks % (ep * tp) == 0:
        etp = fill.assume("etp", 1, "experts are whole", [tp])
    else:
        etp = 1
    if etp not in (1, tp) or ranks % (ep * etp):
        raise Refused(f"etp {etp} does not fit tp {tp}, ep {ep} and {ranks} ranks")
    notes = fill.run.text("notes")
    if dropped := DROPPED.search(notes):
        fill.assumptions.append(f"the notes say {dropped[0]!r}: no token is dropped here")
    return int(ep), etp


def _is_strided(fill: Filling) -> bool:
    """Tell whether the notes say that expert groups are not folded into the ranks of tp and cp."""
    notes = fill.run.text("notes")
    return bool(says(STRIDED.pattern, notes)) or says(r"\bfold(ed|ing)", notes) is False
