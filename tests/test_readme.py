"""The README keeps to its bounds, its Python runs as it is, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_readme_is_read_in_two_minutes():
    assert len(README.splitlines()) <= 150 and len(README.split()) <= 1200


def test_training_from_python_runs_as_it_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    training = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    exec(compile(training, "README.md, training", "exec"), {"__name__": "readme"})
    assert re.search(r"^\d\.\d+ \['", capsys.readouterr().out, re.MULTILINE)
    assert (tmp_path / "runs" / "python" / "checkpoints" / "last.ckpt").is_file()


def test_the_environment_of_the_readme_passes_the_checks():
    environment = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1]
    exec(compile(environment, "README.md, environment", "exec"), {"__name__": "readme"})


def headings(text: str) -> set[str]:
    """The anchors that a code host makes of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_project_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    broken = []
    for target, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
        file = (page.parent / target).resolve() if target else page
        if not file.exists():
            broken.append(target)
        elif anchor and file.suffix == ".md" and anchor not in headings(file.read_text()):
            broken.append(f"{target}#{anchor}")
    assert broken == []
