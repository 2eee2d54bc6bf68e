"""From a configuration file to a model: sizes, a kind for every layer, and what is said about it.

A key that shapes the model is read, or said as an assumption, or refused by name; see
`device_models/data/families.yaml` for what is known of each family. The vision or audio part of a
wrapper is left out and said, with its size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from ersatz.device_models.text.files import read_text_file
from ersatz.device_models.text.problems import InputError, Problem
from ersatz.sim.workload.configs.config import MAX_LAYERS, Config, make_config
from ersatz.sim.workload.configs.families import family_names
from ersatz.sim.workload.configs.parts import (
    EXPERT_INNER,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    INNER,
    KV_HEADS,
    SHARED,
    TOP_K,
    feed_sizes,
    mixer_sizes,
)
from ersatz.sim.workload.configs.patterns import (
    EXPERTS,
    feeds,
    indexer_rows,
    mixers,
    one_block_pattern,
    settled,
)
from ersatz.sim.workload.configs.special import nas_layers, vision_words
from ersatz.sim.workload.configs.strange import refuse_other_attention, strange_words
from ersatz.sim.workload.configs.switches import (
    is_gated,
    is_tied,
    said_of_switches,
    switched_off,
    switched_on,
)
from ersatz.sim.workload.configs.wrappers import wrapper_words
from ersatz.sim.workload.layer import Layer
from ersatz.sim.workload.model import Model

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
MOST_DIGITS = 100  # of a whole number: products of three such are numbers still
VOCAB = ("vocab_size", "padded_vocab_size")
PREDICTS = (
    "num_nextn_predict_layers",
    "num_mtp_modules",
    "mtp_num_hidden_layers",
    "num_mtp_layers",
)
ALIKE = (
    HIDDEN,
    LAYERS,
    EXPERTS,
    TOP_K,
    KV_HEADS,
    HEAD_DIM,
    INNER,
    EXPERT_INNER,
    SHARED,
    ("num_attention_heads", "n_head", "n_heads", "attention_heads"),
)  # of one size each
POSITIONS = ("n_positions", "max_position_embeddings", "max_seq_len", "seq_length")
BAICHUAN_13B = 5120  # its hidden size: positions by ALiBi, where the 7 B model has rotary ones
SHAPES = re.compile(
    r"(^layers|^blocks|_sizes?|_dims?|_ranks?|_heads|_head|_experts|_pattern|_types|_type_list|_freq|_period|_layers|_layer"
    r"|_ratios?|_groups?|_factor|_streams|_loops|_cycles|_multiplier|_share|_skip)$|moe|expert|lora|mamba"
    r"|ut_steps|hyper_conn|window|sparse|linear_|altup|laurel|cross_|recurr|loop|conv|latent|repeat|sharing|^ssm_|first_k|^mtp_|nextn|ngram|word_group|cla$|^index_"
)


def read_config(path: Path) -> Model:
    """Read a Hugging Face config.json. Raises `InputError` with file, line, key, value, expectation."""
    text = _text(path)
    config = make_config(str(path), text, _parsed(path, text))
    _refuse_strangers(config)
    model = _model(config, path)
    _blame_unread(config)
    if config.problems:
        raise InputError(config.problems)
    assert model is not None
    return model


def _text(path: Path) -> str:
    return read_text_file(path, "JSON")


def _parsed(path: Path, text: str) -> Mapping[str, Any]:
    try:
        pairs = partial(_once, path, text)
        values = json.loads(text, object_pairs_hook=pairs, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise _fault(path, error.lineno, f"is no valid JSON: {error.msg}") from error
    except InputError:
        raise
    except ValueError as error:
        raise _fault(path, 0, "holds a number that is too large") from error
    except RecursionError as error:
        raise _fault(path, 0, "is nested too deeply") from error
    if not isinstance(values, dict) or not values:
        raise _fault(path, 1, "is no model config: expected keys and values")
    return values


def _whole(text: str) -> int:
    """Return a whole number; raises `ValueError` for one that no product of sizes could hold."""
    if len(text) > MOST_DIGITS:
        raise ValueError(text[:MOST_DIGITS])
    return int(text)


def _once(path: Path, text: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the keys of a mapping, none of which stands twice with two values."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values and values[key] != value:
            places = [text.count("\n", 0, m.start()) + 1
                      for m in re.finditer(rf'"{re.escape(key)}"\s*:', text)]  # fmt: skip
            line = places[-1] if places else 0
            raise InputError(
                [Problem(str(path), line, 1, key, str(value)[:60], "stands twice, with two values")]
            )
        values[key] = value
    return values


def _fault(path: Path, line: int, expected: str) -> InputError:
    return InputError([Problem(str(path), line, 1 if line else 0, "", "", expected)])


def _refuse_strangers(config: Config) -> None:
    """Refuse what is no decoder, and families that are known not to be modelled."""
    family, path = config.family, Path(config.file)
    if family.refused:
        config.blame(("model_type",), family.name, family.refused)
        raise InputError(config.problems)
    if not any(config.given(name) for name in (*HIDDEN, *LAYERS, "model_type")):
        shown = ", ".join((*HIDDEN, *LAYERS))
        raise _fault(
            path, 1, f"is no model config: none of {shown} is there, nor a part that has them"
        )
    if config.own.get("add_cross_attention"):
        config.blame(("add_cross_attention",), True, "attention to an encoder is not modelled")
        raise InputError(config.problems)
    config.read.add("add_cross_attention")
    for key in ("is_encoder_decoder", "encoder_layers"):
        if config.own.get(key) or config.outer.get(key):
            config.blame(
                (key,), config.own.get(key), "encoders are not modelled: expected a decoder"
            )
            raise InputError(config.problems)


def _model(config: Config, path: Path) -> Model | None:
    name = config.family.name or path.parent.name or path.stem
    if not config.family.known:
        shown = f"model_type {name} is" if config.family.name else "the file names no model_type:"
        config.notes.append(f"{shown} not known: its keys are read as those of the known families;"
                            " gates, ties and layers that no key tells are taken as Llama's")  # fmt: skip
    refuse_other_attention(config)
    for names in ALIKE:
        _agree(config, names)
    _note_vocabularies(config)
    hidden = config.needed("hidden", *HIDDEN)
    layers = _layers(config, hidden)
    vocab = config.needed("vocab", *VOCAB)
    if config.get("word_embed_proj_dim", default=hidden) != hidden:
        config.blame(("word_embed_proj_dim",), config.get("word_embed_proj_dim"),
                     f"an embedding of another width than {hidden} is not modelled")  # fmt: skip
    predict = _predict_layers(config)
    streams = config.whole("hc_mult", default=1, least=1)
    tied = is_tied(config)
    if config.problems or not layers:
        return None
    runs = tuple((kind, len(list(same))) for kind, same in groupby(layers))
    return _assemble(config, name, runs, hidden, vocab, predict, streams, tied)


def _agree(config: Config, names: tuple[str, ...]) -> None:
    """Blame keys that say one thing under two names, with two values."""
    said = {name: config.own[name] for name in names if isinstance(config.own.get(name), int)}
    if len(set(said.values())) > 1:
        first, *others = said
        words = ", ".join(f"{name} says {said[name]}" for name in others)
        config.blame((first,), said[first], f"{words}: they mean the same")


def _note_vocabularies(config: Config) -> None:
    """Note a vocabulary that is also given padded: which of the two has weights, no key tells."""
    rows, padded = (config.own.get(name) for name in VOCAB)
    if isinstance(padded, int) and isinstance(rows, int) and padded != rows:
        config.notes.append(f"vocab_size {rows} is taken, not padded_vocab_size {padded}")


def _assemble(
    config: Config, name: str, runs: tuple[tuple[Layer, int], ...], hidden: int, vocab: int,
    predict: int, streams: int, tied: bool,
) -> Model:  # fmt: skip
    kinds = [kind for kind, _ in runs]
    lead = next((kind for kind in kinds if kind.heads), kinds[0])
    routed = next((kind.experts for kind in kinds if kind.experts), None)
    dense = next((kind.ffn_hidden for kind in kinds if kind.ffn_hidden), 0)
    return Model(
        name, sum(count for _, count in runs), hidden, lead.heads or 1, lead.kv_heads or 1,
        lead.head_dim or hidden, dense, vocab, gated=lead.gated, tied=tied, experts=routed,
        latent=lead.latent, predict_layers=predict, fused_attention=lead.fused_attention,
        streams=streams, tables=_tables(config, hidden), blocks=runs,
        notes=tuple(_notes(config, runs)), source=f"config.json of {name}",
    )  # fmt: skip


def _layers(config: Config, hidden: int) -> list[Layer]:
    """Return the layers in order: their words first, then the sizes of each."""
    nas = nas_layers(config, hidden)
    if nas is not None:
        return nas
    single = one_block_pattern(config)
    config.layers = len(single) if single is not None else _count(config)
    if config.problems:
        return []
    if single is not None:
        config.read.update(LAYERS)
        words = single
        stated = config.get(*LAYERS)
        if config.given(LAYERS[0]) and stated != len(single):
            config.blame(LAYERS, stated, f"the pattern has {len(single)} layers")
    else:
        seen = mixers(config)
        feed = ["none"] * config.layers if config.family.defaults.get("no_mlp") else feeds(config)
        if config.problems:
            return []
        words = list(zip(seen, feed, strict=True))
    settled(config, words)
    return list(_sized(config, words, hidden))


def _count(config: Config) -> int:
    named = config.get(*LAYERS)
    if named is None:
        rows = config.get("layer_types", "layers_block_type")
        if isinstance(rows, list):
            named = len(rows)
        else:
            config.needed("layers", *LAYERS)
            return 1
    else:
        named = config.whole(*LAYERS, least=1)
    if named > MAX_LAYERS:
        config.blame(LAYERS, named, f"expected 1 to {MAX_LAYERS}")
        return 1
    return int(named)


def _sized(config: Config, words: list[tuple[str, str]], hidden: int) -> Iterator[Layer]:
    made: dict[Any, Layer] = {}
    varies = bool(config.get("per_layer_config")) or _has_rows(config)
    streams = config.whole("hc_mult", default=1, least=1)
    varies = varies or config.get("use_cla") is True or config.get("kv_source_layers") is not None
    tail = config.layers - config.whole("num_kv_shared_layers")
    shared = indexer_rows(config)
    both = config.family.defaults.get("both_mixers")
    for place, (mixer, feed) in enumerate(words):
        word = "both" if both and mixer == "full" else mixer
        index = shared[place] if isinstance(shared, list) and place < len(shared) else ""
        key = word, feed, place if varies else place >= tail, str(index)
        if key not in made:
            view = config.at(place)
            sizes = mixer_sizes(view, word, hidden) | feed_sizes(view, feed, hidden)
            if config.problems:
                return
            made[key] = Layer(hidden, gated=is_gated(config), streams=streams,
                              fused_attention=not _alibi(config), **sizes)  # fmt: skip
            _check(config, made[key])
            if config.problems:
                return
        yield made[key]
        if config.family.name == "longcat_flash":  # two of each: the second without experts
            yield _second(config, made[key], hidden)


def _second(config: Config, first: Layer, hidden: int) -> Layer:
    return Layer(hidden, first.heads, first.kv_heads, first.head_dim, gated=first.gated,
                 latent=first.latent, ffn_hidden=config.whole("ffn_hidden_size", least=1))  # fmt: skip


def _has_rows(config: Config) -> bool:
    """Tell whether a size has a value for each layer."""
    return any(
        isinstance(rows, list) and len(rows) == config.layers and len({str(row) for row in rows}) > 1
        and all(row is None or isinstance(row, (int, float)) for row in rows)
        for rows in config.own.values()
    )  # fmt: skip


def _check(config: Config, kind: Layer) -> None:
    if kind.heads and not kind.latent and kind.heads % kind.kv_heads:
        config.blame(("num_key_value_heads", "num_kv_heads"), kind.kv_heads,
                     f"expected a divisor of the {kind.heads} heads")  # fmt: skip


def _alibi(config: Config) -> bool:
    if config.family.name == "baichuan" and config.get(*HIDDEN) == BAICHUAN_13B:
        return True  # no key tells
    if not config.family.known and config.get("position_embedding_type") == "alibi":
        return True
    return config.flag("alibi", "attn_config.alibi", "use_alibi")


def _predict_layers(config: Config) -> int:
    if switched_off(config, "mtp"):
        config.read.update(PREDICTS)
        return 0
    said = {name: config.whole(name) for name in PREDICTS if config.get(name)}
    on = switched_on(config, "mtp")
    if on and not said:
        config.notes.append(
            f"{on} is true and no key says how many prediction modules: none are taken"
        )
    if len(set(said.values())) > 1:
        words = ", ".join(f"{name} {count}" for name, count in said.items())
        config.notes.append(f"prediction modules: {words}; the first is taken")
    layers = next(iter(said.values()), 0)
    if "num_mtp_modules" in said:
        layers *= config.whole("mtp_transformer_layers", default=1, least=1)
    for name, usual in (
        ("mtp_layers_block_type", ["attention", "moe"]),
        ("mtp_hybrid_override_pattern", "*E"),
    ):
        if layers and (own := config.get(name)) not in (None, usual):
            config.notes.append(
                f"{name} {own}: a prediction module is taken as attention and experts"
            )
    return layers


def _tables(config: Config, hidden: int) -> int:
    """Weights of look-ups beside the vocabulary: learned positions, embeddings of layers."""
    tables = 0
    if config.family.defaults.get("learned_positions"):
        tables += (
            config.whole(*POSITIONS) + config.family.defaults["learned_positions"] - 1
        ) * hidden
    width = config.whole("hidden_size_per_layer_input")
    if width:
        own = config.get("vocab_size_per_layer_input") is not None
        rows = config.whole(*(("vocab_size_per_layer_input",) if own else VOCAB))
        tables += config.layers * width * (rows + 3 * hidden)
    return tables


def _notes(config: Config, runs: tuple[tuple[Layer, int], ...]) -> Iterator[str]:
    """What is assumed, left out or not read, in words."""
    name = config.family.name
    if config.assumed:
        shown = ", ".join(f"{key} {value}" for key, value in config.assumed.items()
                          if not isinstance(value, (dict, list)) and key not in _MARKS)  # fmt: skip
        if shown:
            yield f"model: not in the file, so the class default of {name}: {shown}"
    yield from (f"model: {words}" for words in config.notes)
    yield from vision_words(config)
    yield from strange_words(config)
    yield from wrapper_words(config, lambda key: SHAPES.search(key) is not None)
    yield from said_of_switches(config)
    for key, words in config.family.says.items():
        if config.given(key):
            config.read.add(key)
            yield f"model: {key}: {words}"
    left = [key for key, _ in config.left()]
    if left:
        more = f" and {len(left) - 12} more" if len(left) > 12 else ""
        yield ("model: keys not read, taken to change neither weights nor work:"
               f" {', '.join(left[:12])}{more}")  # fmt: skip
    unmeasured = sum(count for kind, count in runs if kind.recurrence or kind.indexer)
    if unmeasured:
        total = sum(count for _, count in runs)
        yield (f"model: {unmeasured} of {total} layers have a recurrence or sparse attention, whose"
               " kernels nobody has measured here: they run as products of their sizes do")  # fmt: skip


_MARKS = (
    "halved_inner",
    "learned_positions",
    "both_mixers",
    "no_mlp",
    "shared_like_expert",
    "never_tied",
    "needs_types",
    "floor_head_dim",
)


def _blame_unread(config: Config) -> None:
    """Refuse keys that look like sizes and that nobody read."""
    if config.problems:
        return
    for key, value in list(config.left()):
        if _shapes(key, value):
            config.blame((key,), value, "seems to shape the model and is not understood")


def _shapes(key: str, value: Any) -> bool:
    """Tell whether a key that nobody read, or one in its section, looks like one that shapes a model."""
    if isinstance(value, Mapping):
        return SHAPES.search(key) is not None or any(
            _shapes(str(k), v) for k, v in value.items() if v
        )
    pattern = key.endswith("_pattern") and isinstance(value, str)
    return pattern or (SHAPES.search(key) is not None and not isinstance(value, str))


def known_families() -> list[str]:
    """Return the `model_type`s that are read or refused by name."""
    return family_names()


__all__ = ["HEADS", "known_families", "read_config"]
