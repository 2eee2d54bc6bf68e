"""What the wrapper of a language model says of it, or of more: sizes beside those of the part within.

Keys that the part lacks are the wrapper's; where both have a size, the part's is taken. Both are said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ersatz.sim.workload.configs.config import PARTS, Config
from ersatz.sim.workload.configs.special import TOWERS

OTHER_PARTS = re.compile(
    r"visi|visual|image|img|mm_|audio|speech|video|project|patch|pixel|spatial|downsample|token|tokens|frame"
    r"|resampler|perceiver|merger|tts|talker|codec|merge|crop|grid|tile|resolution|vit_|anyres"
)
TOWER = re.compile(
    r"(?:vision|visual|image|audio|speech)_?(?:tower|encoder|backbone|model)(?:_name)?$"
)
SIZES = re.compile(
    r"^(?:hidden_size|d_model|n_embd|vocab_size|.*_layers|n_layer|.*heads|head_dim|.*experts.*|intermediate_size)$"
)


def wrapper_words(config: Config, shapes: Callable[[str], bool]) -> Iterator[str]:
    """Yield what a wrapper says that the language part does not, or says otherwise."""
    own, outer = config.own, config.outer
    if not outer:
        return
    for key, value in outer.items():
        if isinstance(value, str) and TOWER.search(key):
            yield f"model: {key} {value[:40]}: a tower of a size that no key tells, left out"
    unlike = [key for key, value in outer.items() if SIZES.search(key) and isinstance(value, int)
              and isinstance(own.get(key), int) and own[key] != value]  # fmt: skip
    for key in unlike:
        yield f"model: {key} is {own[key]} in the language part, which is taken, and {outer[key]} outside"
    taken = [
        key for key in outer if key in config.read and key not in own and _is_size(key, outer[key])
    ]
    if taken:
        yield f"model: not in the language part, so the wrapper's: {', '.join(taken[:12])}"
    left = [key for key, value in outer.items()
            if key not in config.read and key not in own and shapes(key) and _is_size(key, value)
            and not config.family.is_harmless(key)]  # fmt: skip
    if left:
        yield f"model: keys of the wrapper that are not read: {', '.join(left[:12])}"


def _is_size(key: str, value: Any) -> bool:
    """Tell whether a key of a wrapper may be a size of the language model, and not of another part."""
    plain = (
        isinstance(value, (int, float, list, str))
        and not isinstance(value, bool)
        and value not in (0, "", [])
    )
    named = OTHER_PARTS.search(key) or key in (*PARTS, *TOWERS)
    return bool(plain and not named and not isinstance(value, (Mapping, str)))
