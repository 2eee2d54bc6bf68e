"""Launch files as scenarios: `read_launch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ersatz.sim.answers.answer import Answer, Overrides, by_name, override_texts
from ersatz.sim.importing.formats import import_file
from ersatz.sim.importing.record import Imported
from ersatz.sim.importing.writing import scenario_yaml
from ersatz.sim.report.launch.importing import render_imports


def read_launch(
    *files: str | Path, overrides: Overrides = (), defines: Mapping[str, str] | None = None,
    arguments: Sequence[str] | None = None,
) -> Answer[Imported]:  # fmt: skip
    """Read launch scripts, configurations or logs of trainers as scenarios; nothing of them is run.

    `defines` are variables of a script's environment, `arguments` its positional parameters; `overrides`
    win over all that is read. The answer is infeasible where a file contradicts itself. Raises
    `InputError` for a file of no known format.
    """
    changed = override_texts(overrides)
    found = [import_file(file, changed, defines, arguments) for file in files]
    return Answer(
        "import", by_name((Path(one.file).name, one) for one in found),
        view=lambda: render_imports(found),
        record=lambda: found[0].to_dict() if len(found) == 1 else [one.to_dict() for one in found],
        reasons=tuple(f"{Path(one.file).name}: {words}" for one in found for words in one.wrong),
        files=lambda: {f"{Path(one.file).stem}.yaml": scenario_yaml(one) for one in found},
    )  # fmt: skip
