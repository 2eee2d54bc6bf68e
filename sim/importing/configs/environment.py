"""Values of the environment in configurations: `${NAME:default}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from ersatz.sim.importing.draft import Draft
from ersatz.sim.importing.flags import Given

_VARIABLE = re.compile(r"\$\{(?:oc\.env:)?(\w+)(?:[:,]-?([^}]*))?\}")


def filled_in(given: Given, defines: Mapping[str, str], draft: Draft) -> Given:
    """Return a value with its variables filled in: as defined, by their defaults, or not known."""
    missing = ""

    def fill(found: re.Match[str]) -> str:
        nonlocal missing
        name, default = found[1], found[2]
        if name in defines:
            return defines[name]
        if default is None:
            missing = f"the environment variable {name} is not given (--define {name}=...)"
            return ""
        draft.assume(f"${name}", f"{default!r}, the file's default", f"line {given.line}; --define"
                     f" {name}=... says otherwise")  # fmt: skip
        return default

    if "$" not in given.value:
        return given
    words = tuple(_VARIABLE.sub(fill, word) for word in given.words)
    return replace(given, words=words or ("",), unknown=missing)
