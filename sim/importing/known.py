"""What is known of flags, models and tokenizers by name: the files of `device_models/data/launch`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import read_yaml
from ersatz.sim.importing.flags import Flags, Given

LAUNCH = DATA / "launch"
SHORTEST = 4  # letters of a flag's beginning


@dataclass(frozen=True, slots=True)
class Effect:
    """What a flag without a key is likely worth; `harmless` values change nothing."""

    words: str
    harmless: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FlagTable:
    """Flags of a framework by what becomes of them: exact names first, then patterns in order."""

    exact: Mapping[str, tuple[str, Effect | None]]
    patterns: Sequence[tuple[re.Pattern[str], tuple[str, Effect | None]]]

    def kind(self, key: str) -> tuple[str, Effect | None]:
        """Return "stack", "effect" or "ignored" with the effect, or "unknown"."""
        if key in self.exact:
            return self.exact[key]
        return next(
            (kind for pattern, kind in self.patterns if pattern.match(key)), ("unknown", None)
        )


@lru_cache(maxsize=8)
def flag_table(name: str) -> FlagTable:
    """Return the table of a framework."""
    data: Any = read_yaml(LAUNCH / f"{name}.yaml").data
    rows: list[tuple[Sequence[str], tuple[str, Effect | None]]] = [
        (data.get("stack", ()), ("stack", None)),
        *((row["flags"], ("effect", _effect(row))) for row in data.get("not_modelled", ())),
        (data.get("ignored", ()), ("ignored", None)),
    ]
    exact = {flag: kind for flags, kind in reversed(rows) for flag in flags if "*" not in flag}
    patterns = [(re.compile("|".join(map(fnmatch.translate, stars))), kind)
                for flags, kind in rows if (stars := [f for f in flags if "*" in f])]  # fmt: skip
    return FlagTable(exact, patterns)


def _effect(row: Mapping[str, Any]) -> Effect:
    """Return an effect in words; the marks of sources stay in the table."""
    words = re.sub(
        r"; OWN(?=\))", "; an estimate", str(row["effect"]).replace("(OWN)", "(an estimate)")
    )
    return Effect(
        re.sub(r" \((MCORE|MSLLM|PRIMUS)\)", "", words),
        tuple(str(value).lower() for value in row.get("harmless", ())),
    )


def sort_rest(flags: Flags, table: FlagTable) -> None:
    """Put every flag that nothing has read where it belongs; an unknown one is named, never dropped."""
    draft = flags.draft
    for given in flags.unread():
        kind, effect = table.kind(given.key)
        if given.absent and (without := table.kind(f"no_{given.key}"))[0] == "effect":
            kind, effect = without  # `masked_softmax_fusion: false` is --no-masked-softmax-fusion
            if effect:
                draft.leave_out(given.shown, given.value, given.line, effect.words, given.file)
                continue
        if kind == "stack":
            draft.note("stack", given.shown, given.value, given.line, given.file)
        elif kind == "effect" and effect and not _harmless(given, effect):
            draft.leave_out(given.shown, given.value, given.line, effect.words, given.file)
        elif kind == "unknown" and (whole := _written_out(flags, given)):
            words = f"argparse takes it for --{whole.replace('_', '-')}: write it in full"
            draft.ask(flags.wanted[whole], f"{given.shown}: {words}", (), given.line)
        elif kind == "unknown" and not given.absent:
            draft.leave_out(given.shown, given.value, given.line, "unknown", given.file)
        else:
            draft.ignore(given.shown, given.line, given.file)


def _written_out(flags: Flags, given: Given) -> str:
    """Return the one flag, of those that readers look for, that a flag begins; empty: none or several."""
    if not given.shown.startswith("--") or len(given.key) < SHORTEST:
        return ""
    found = [
        name for name in flags.wanted if name.startswith(given.key) and name not in flags.given
    ]
    return found[0] if len(found) == 1 else ""


def _harmless(given: Given, effect: Effect) -> bool:
    return given.absent or given.value.lower() in effect.harmless


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model that others call by name: its sizes as a scenario takes them, and where from."""

    name: str
    sizes: Mapping[str, Any]


@lru_cache(maxsize=1)
def _names() -> Mapping[str, Any]:
    data: Any = read_yaml(LAUNCH / "models.yaml").data
    return data  # type: ignore[no-any-return]


def plain_name(name: str) -> str:
    """Return a name without its owner, ending and punctuation: meta-llama/Llama-2-13b-hf is llama213b."""
    last = name.rstrip("/").rsplit("/", 1)[-1].lower()
    last = last.removesuffix(".yaml").removesuffix(".json")
    last = re.sub(r"^(meta|mistralai|hf)[-_]", "", last)
    last = re.sub(
        r"[-_](hf|base|instruct|chat|it|pretrain|v0\.1|fp8|bf16|25\d\d)(?=[-_]|$)", "", last
    )
    return re.sub(r"[-_ ]", "", last)


def named_model(name: str) -> NamedModel | None:
    """Return the model that a name means, if it is known."""
    for known, row in _names()["models"].items():
        spelled = {plain_name(known), *map(plain_name, row.get("names", ()))}
        if plain_name(name) in spelled:
            return NamedModel(known, _sizes(known, row))
    return None


def _sizes(known: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
    if "sizes" in row:
        return {**row["sizes"], "source": row["source"]}
    data: Any = read_yaml(DATA / "models" / f"{row.get('catalogue', known)}.yaml").data
    return {key: value for key, value in data.items() if key != "name"}


def tokenizer_size(name: str) -> int | None:
    """Return the words of a tokenizer's vocabulary, where a model of its name is known."""
    sizes = _names()["tokenizers"]
    if name in sizes:
        return int(sizes[name])
    model = named_model(name)
    return int(model.sizes["vocab"]) if model else None


def known_names() -> list[str]:
    """Return the names of the models that launch files may call."""
    return list(_names()["models"])
