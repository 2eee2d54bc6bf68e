"""How layers lie in the chunks of a pipeline: virtual stages, fillers, uneven ends, layouts."""

from __future__ import annotations

from ersatz.sim.importing.flags import Flags
from ersatz.sim.importing.megatron.layout import layer_list
from ersatz.sim.importing.megatron.patterns import PatternError, pipeline_layout
from ersatz.sim.importing.megatron.sizes import filler_layers
from ersatz.sim.plan.orders import V_SHAPED

_VIRTUAL = ("num_virtual_stages_per_pipeline_rank", "virtual_pipeline_model_parallel_size",
            "num_layers_per_virtual_pipeline_stage")  # fmt: skip


def read_chunks(flags: Flags) -> None:
    """Put vp, the schedule and uneven chunks into the draft."""
    draft = flags.draft
    pp = draft.values.get("parallel.pp")
    layers = draft.values.get("model.layers")
    if layout := flags.take("parallel.chunk_layers", "pipeline_model_parallel_layout"):
        if layout.unknown or pp is None:
            return
        _from_layout(flags, layout.value, layout.line, pp)
        return
    if pp is None or layers is None:
        if flags.take("parallel.vp", *_VIRTUAL):
            draft.ask("parallel.vp", "it depends on layers and stages that are not known")
        return
    fillers = filler_layers(flags)
    ends = _ends(flags)
    whole = layers + len(fillers) + sum(ends)
    vp = _virtual(flags, whole, pp)
    _put_schedule(flags, pp, vp)
    if (
        (named := layer_list(flags))
        and pp > 1
        and draft.values.get("parallel.schedule") not in V_SHAPED
    ):
        draft.put("parallel.chunk_layers", list(named))
        return
    if draft.values.get("parallel.schedule") in V_SHAPED:
        vp = 2  # by nature
    chunks = _chunks(flags, whole, pp, vp, fillers, ends)
    if chunks and len(set(chunks)) > 1:
        draft.put("parallel.chunk_layers", chunks)


def _ends(flags: Flags) -> tuple[int, int]:
    """Return 1 where the embedding, or the loss, counts as a layer of its stage."""
    names = (("account_for_embedding_in_pipeline_split",), ("account_for_loss_in_pipeline_split",))
    first, last = (int(flags.on("parallel.chunk_layers", *name)) for name in names)
    method = flags.text("parallel.chunk_layers", "pp_partition_method")
    if method and "embedding" in method.lower():
        return 1, 1
    return first, last


def _virtual(flags: Flags, whole: int, pp: int) -> int:
    """Return the chunks of a stage."""
    draft, key = flags.draft, "parallel.vp"
    direct = flags.whole(key, "num_virtual_stages_per_pipeline_rank",
                         "virtual_pipeline_model_parallel_size")  # fmt: skip
    each = flags.whole(key, "num_layers_per_virtual_pipeline_stage")
    if direct:
        return direct
    if not each or draft.asked(key):
        return 1
    if whole % (pp * each):
        draft.contradict(f"num_layers_per_virtual_pipeline_stage {each}: {whole} layers over {pp} stages do"
                         " not divide into chunks of that")  # fmt: skip
        return 1
    return whole // pp // each


def _put_schedule(flags: Flags, pp: int, vp: int) -> None:
    draft = flags.draft
    method = flags.find("schedules_method", "dualpipev")
    v_shaped = method is not None and "dualpipev" in (method.value.lower(), method.key)
    draft.put("parallel.vp", 1 if v_shaped else vp)
    if pp == 1:
        return
    if v_shaped:
        flags.take("parallel.schedule", "schedules_method", "dualpipev")
        draft.put("parallel.schedule", "dualpipev")
        return
    draft.put("parallel.schedule", "interleaved" if vp > 1 else "1f1b")


def _chunks(
    flags: Flags, whole: int, pp: int, vp: int, fillers: tuple[int, ...], ends: tuple[int, int]
) -> list[int]:
    """Return the layers of each chunk in model order, without what only takes a place."""
    first = flags.whole("parallel.chunk_layers", "decoder_first_pipeline_num_layers")
    last = flags.whole("parallel.chunk_layers", "decoder_last_pipeline_num_layers")
    if first or last:
        return _uneven_ends(flags, whole, pp, vp, first, last)
    length = pp * vp
    if whole % length:
        flags.draft.contradict(f"{whole} layers do not divide over pipeline {pp} x {vp} chunks")
        return []
    chunks = [whole // length] * length
    for place in fillers:
        chunks[min((place + ends[0]) // chunks_size(whole, length), length - 1)] -= 1
    chunks[0] -= ends[0]
    chunks[-1] -= ends[1]
    return chunks


def chunks_size(whole: int, length: int) -> int:
    """Return the places of a chunk."""
    return max(whole // length, 1)


def _uneven_ends(
    flags: Flags, whole: int, pp: int, vp: int, first: int | None, last: int | None
) -> list[int]:
    """The first and the last stage have layers of their own; the others share the rest."""
    given = [n for n in (first, last) if n]
    middle = pp - len(given)
    rest = whole - sum(given)
    stages = [first] if first else []
    if middle < 0 or (middle and rest % middle) or rest < 0 or (not middle and rest):
        flags.draft.contradict(f"{rest} layers do not divide over the {middle} stages between the first and"
                               " the last")  # fmt: skip
        return []
    stages += [rest // middle] * middle if middle else []
    stages += [last] if last else []
    if any((n or 0) % vp for n in stages):
        flags.draft.contradict(f"a stage's layers do not divide into {vp} chunks")
        return []
    return [int(n or 0) // vp for _ in range(vp) for n in stages]


def _from_layout(flags: Flags, text: str, line: int, pp: int) -> None:
    draft = flags.draft
    try:
        stages = pipeline_layout(text)
    except PatternError as error:
        draft.blame(
            "parallel.chunk_layers", line, "pipeline_model_parallel_layout", text, str(error)
        )
        return
    if len(stages) % pp:
        draft.contradict(
            f"pipeline_model_parallel_layout has {len(stages)} stages, no multiple of {pp}"
        )
        return
    layers = [stage.count("t") for stage in stages]
    if sum(layers) != draft.values.get("model.layers", sum(layers)):
        draft.contradict(f"pipeline_model_parallel_layout has {sum(layers)} layers, the model"
                         f" {draft.values.get('model.layers')}")  # fmt: skip
        return
    _put_schedule(flags, pp, len(stages) // pp)
    draft.put("parallel.chunk_layers", layers)


__all__ = ["read_chunks"]
