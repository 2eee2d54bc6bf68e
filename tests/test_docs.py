"""The documentation holds: commands run, links lead somewhere, quoted tests exist."""

import doctest
import re
from pathlib import Path

import pytest

import ersatz.sim.job.cost

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_quoted_files_and_tests_exist(page: Path) -> None:
    text = page.read_text()
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}" in sources, f"{page.name} quotes {name}"
    for name in re.findall(r"`((?:tests|sim|device_models|scenarios|docs)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"{page.name} quotes {name}"


def test_readme_sample_is_the_stored_output() -> None:
    sample = re.search(
        r"<!-- sample -->\n```text\n(.*?)```", (ROOT / "README.md").read_text(), re.S
    )
    assert sample
    assert sample[1] in (ROOT / "scenarios/ling-plus-substitution.out").read_text()


def test_readme_python_runs() -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert code
    exec(compile(code[1], "README.md", "exec"), {})


def test_docstring_examples() -> None:
    assert doctest.testmod(ersatz.sim.job.cost).failed == 0


def test_nothing_names_a_machine_or_a_registry() -> None:
    pattern = re.compile(
        r"(?<![\w.<>{}$-])/(?:home|root|tmp|opt|srv|mnt|work)/|https?://\S+\.(?:whl|tar\.gz)"
    )
    for path in [*ROOT.glob("*.*"), *(ROOT / "sim").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]:
        if path.is_file() and path.suffix in (".py", ".md", ".toml", ".txt", ".yaml"):
            assert not pattern.search(path.read_text()), path
