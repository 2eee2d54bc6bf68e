"""What is known of each family of models: `device_models/data/families.yaml`, one entry each.

An entry has the class defaults of the keys that shape a model (an absent key means these), what no
key says (a gate, two matrices, tied embeddings), and the keys that are known to be harmless.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ersatz.device_models.shipped import DATA
from ersatz.device_models.text.yamltext import parse_yaml

COUNTS = re.compile(
    r"^num_|^n_|experts|_size|_layers|_heads|_rank|ffn_dim|window|chunk|local_|cache_share"
    r"|(?:ffn|hidden|inner|intermediate|expansion|width|depth|mlp)_?\w*multiplier$|interleave"
)  # no ending makes these harmless


@dataclass(frozen=True, slots=True)
class Family:
    """One `model_type`."""

    name: str
    known: bool = False
    refused: str = ""  # why no model of it is read
    plain: bool = False  # two matrices in the MLP, not three
    gate: str = ""  # of the attention's result
    recurrence: str = ""  # kind of its linear layers
    all_windows: bool = False  # a window is that of every layer
    defaults: Mapping[str, Any] = field(default_factory=dict)
    says: Mapping[str, str] = field(default_factory=dict)  # keys that are an assumption, in words
    harmless: frozenset[str] = frozenset()
    endings: tuple[str, ...] = ()
    without: frozenset[str] = frozenset()  # keys that its class does not have

    def is_harmless(self, key: str) -> bool:
        """Tell whether a key is known to shape neither weights nor work."""
        return key in self.harmless or (key.endswith(self.endings) and not COUNTS.search(key))


@lru_cache(maxsize=1)
def _table() -> Mapping[str, Any]:
    return dict(parse_yaml((DATA / "families.yaml").read_text(), "families.yaml").data)


@lru_cache(maxsize=256)
def family_of(name: str) -> Family:
    """Return what is known of a `model_type`; of an unknown one only what is common to all."""
    table = _table()
    entry = table["families"].get(name, {})
    while isinstance(entry, str):  # another name of the same
        entry = table["families"][entry]
    harmless = frozenset((*table["harmless"], *entry.get("harmless", ())))
    return Family(
        name, name in table["families"], entry.get("refused", ""), entry.get("plain", False),
        entry.get("gate", ""), entry.get("recurrence", ""), entry.get("all_windows", False),
        entry.get("defaults", {}), entry.get("says", {}), harmless, tuple(table["harmless_endings"]),
        frozenset(key for key, names in table["without"].items() if name in names),
    )  # fmt: skip


def family_names() -> list[str]:
    """Return the `model_type`s that are read or refused by name."""
    return sorted(_table()["families"])
