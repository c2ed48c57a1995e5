"""What a user reads is plain English: messages, docstrings, help, comments of configs, pages.

The words below are not used in them.

Each has a plain word in its place. Prompts are left out (policies were trained on them), and so are names of things.
"""

import ast
import json
import re
from pathlib import Path

import pytest

from lightning_mem1.cli import help_pages
from lightning_mem1.cli.main import main, usage

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_mem1"
INSTEAD = {  # a word of this project's dialect: what everybody says
    r"told|tells?": "reports, logs, shows, says",
    r"mend|mends|mended": "fix, repair, normalise",
    r"go on|goes on|going on|gone on": "continues, resumes",
    r"stands? (?:in|beside)": "is in, is next to",
    r"anew|written again": "again, rewritten, retried",
    r"heard|loud|loudly|silent": "has signal, has no signal",
    r"as a whole(?! model)|whole files?": "atomic, complete",
    r"written apart": "staged",
    r"what is left is": "remaining",
    r"nobody to be compared with": "no baseline in the group",
    r"trouble|young enough": "unhealthy, fresh",
    r"reinforcement(?! learning)": "RL",
    r"worth nothing|not worth": "has no effect, not useful",
    r"beside": "next to, during, together with",
}
PATTERN = re.compile(rf"\b(?:{'|'.join(INSTEAD)})\b", re.IGNORECASE)
PROMPTS = ("context/prompts.py", "context/formats.py")  # policies were trained on their words
NAMES = re.compile(
    r"`[^`]*`|\"[^\"\n]{1,20}\"|Trouble:|\btell:|Silent Harbor|Silent Silver|reinforcement-learning|\[[^\]]*\]\([^)]*\)"
)  # code, quoted words, parameters, invented titles, a tag of the hub, links


def found(text: str) -> list[str]:
    """The words of a text that have a plain one in their place, each with what surrounds it."""
    text = NAMES.sub("", text)
    return [" ".join(text[max(0, m.start() - 30) : m.end() + 30].split()) for m in PATTERN.finditer(text)]


def strings(path: Path) -> str:
    """All texts of a Python file: docstrings, messages and what stands between the values of f-strings."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def prose(page: Path) -> str:
    """A page without its blocks of code; of a notebook the prose."""
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text())["cells"]
        return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if not str(path).endswith(PROMPTS)]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "notebooks").glob("*.md")),
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
    *sorted((PACKAGE / "policy" / "assets").glob("*/README.md")),
]


def test_the_words_are_found_where_they_are_and_names_of_things_are_left_out():
    assert found("the run goes on, as it was told") == ["the run goes on, as it was told"] * 2
    assert found("reinforcement learning is RL; `beside` is a name; a Silent Harbor") == []
    assert [bool(found(word)) for word in ("beside", "besides", "Tells", "intellect", "loud", "aloud")] == [
        True,
        False,
        True,
        False,
        True,
        False,
    ]


def test_messages_and_docstrings_of_the_package_are_plain():
    assert len(MODULES) > 200
    assert {str(path.relative_to(ROOT)): words for path in MODULES if (words := found(strings(path)))} == {}


def test_the_short_help_is_plain():
    shown = [usage(), *map(help_pages.page, help_pages.PAGES)]
    assert [words for text in shown if (words := found(text))] == []


@pytest.mark.parametrize("part", ["model", "data"])
def test_the_full_help_of_the_settings_is_plain(part, capsys):
    assert main(["fit", f"--{part}.help"]) == 0
    text = capsys.readouterr().out
    assert len(text) > 5000 and found(text) == []


def test_comments_of_experiments_are_plain():
    configs = sorted((ROOT / "experiments").rglob("*.yaml"))
    comments = {path: "\n".join(re.findall(r"#.*", path.read_text())) for path in configs}
    assert len(configs) > 15
    assert {path.name: words for path, text in comments.items() if (words := found(text))} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_are_plain(page):
    assert found(prose(page)) == []
