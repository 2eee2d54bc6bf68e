"""The documentation holds: commands run, links lead somewhere, quoted tests exist."""

import doctest
import re
from pathlib import Path

import pytest

import ersatz.sim.job.cost
from ersatz.sim.cli.pages.tours import refreshed, tour_files

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


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


@pytest.mark.heavy
@pytest.mark.parametrize("tour", tour_files(ROOT / "docs"), ids=lambda path: path.stem)
def test_a_tour_runs_in_an_empty_folder_and_quotes_what_it_prints(tour: Path) -> None:
    text = tour.read_text()
    assert text.count("$ ersatz ") >= 5
    assert "<!-- file: " in text  # it ends with an answer of the reader's own
    assert refreshed(text) == text, "python -m ersatz.sim.cli.generated, and read the difference"


def test_a_tour_that_quotes_something_else_is_found() -> None:
    """The answer is filled in anew, and files are there for the commands after them."""
    page = "<!-- file: m.yaml -->\n```yaml\nlayers: 2\nhidden: 64\nheads: 4\nvocab: 100\n```\n"
    page += "```console 4-4\n$ ersatz show m.yaml --kind model\nlayers  3\n```\n"
    assert re.search(r"^layers +2 +line 1$", refreshed(page), re.M)
    assert "layers  3" not in refreshed(page)


def test_the_changelog_begins_with_what_is_not_released() -> None:
    heads = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert heads[0] == "Unreleased"


def test_docstring_examples() -> None:
    assert doctest.testmod(ersatz.sim.job.cost).failed == 0


def test_nothing_names_a_machine_or_a_registry() -> None:
    pattern = re.compile(
        r"(?<![\w.<>{}$-])/(?:home|root|tmp|opt|srv|mnt|work)/|https?://\S+\.(?:whl|tar\.gz)"
    )
    for path in [*ROOT.glob("*.*"), *(ROOT / "sim").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]:
        if path.is_file() and path.suffix in (".py", ".md", ".toml", ".txt", ".yaml"):
            assert not pattern.search(path.read_text()), path
