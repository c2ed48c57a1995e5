"""The pages of the documentation: found, read first things first, their code run, their commands understood."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lightning_mem1.cli import compare, fit, init, serve_openenv, serve_retriever, serve_shop
from lightning_mem1.cli.commands import COMMANDS
from lightning_mem1.cli.main import main as mem1
from pages import PAGES, ROOT, blocks, commands

README = (ROOT / "README.md").read_text()
WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
WITH_YAML = [page for page in PAGES if blocks(page, "yaml")]
OPTIONAL = {"verifiers"}  # packages that a page imports and the tests do without
QUESTIONS = {  # what a newcomer asks -> a page that the README links to
    "7B on one GPU": "docs/how-to/hub_model_on_one_gpu.md",
    "own task": "docs/tutorials/your_own_task.md",
    "own environment": "docs/tutorials/your_own_environment.md",
    "own questions": "docs/how-to/your_own_questions.md",
    "vLLM": "docs/how-to/servers.md",
    "8 GPUs": "docs/how-to/several_gpus.md",
    "peft and hub": "docs/how-to/export.md",
    "memory modes": "docs/tutorials/comparing_memory_modes.md",
}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT / "docs"))


def ours() -> list[list[str]]:
    """Every command of this package in any page, once."""
    found = {tuple(words) for page in PAGES for words in commands(page) if words[0] == "mem1"}
    return sorted(list(words[1:]) for words in found)


def other_commands() -> list[list[str]]:
    return [words for page in PAGES for words in commands(page) if words[0] != "mem1"]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_begins_with_what_its_reader_can_do(page):
    title, first = page.read_text().split("\n\n")[:2]
    assert title.startswith("# ") and first.startswith("After this page you ")


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_a_newcomer_asks_is_one_click_from_the_readme(question):
    assert f"]({QUESTIONS[question]})" in README and (ROOT / QUESTIONS[question]).is_file()


def test_every_page_is_in_the_table_of_contents_once():
    listed = re.findall(r"file: docs/(\S+)", (ROOT / "docs" / "toc.yml").read_text())
    assert sorted(listed) == sorted(name(page).removesuffix(".md") for page in PAGES if page.name != "README.md")


def test_the_glossary_has_at_most_fifteen_terms():
    glossary = (ROOT / "docs/explanation/architecture.md").read_text().split("## Glossary")[1].split("\n## ")[0]
    assert 10 < len(re.findall(r"^\| (?!word|---)", glossary, re.MULTILINE)) <= 15


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict = {"__name__": page.stem}
    for number, block in enumerate(blocks(page, "python")):
        if block.file:
            Path(block.file).write_text(block.text)
            names["__name__"] = block.file.removesuffix(".py")
        for package in OPTIONAL & set(re.findall(r"^import (\w+)", block.text, re.MULTILINE)):
            pytest.importorskip(package, reason=f"{package} is not installed (an extra of its name)")
        exec(compile(block.text, f"{name(page)}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", WITH_YAML, ids=name)
def test_the_configs_of_a_page_are_understood(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for block in blocks(page, "python"):
        if block.file:
            Path(block.file).write_text(block.text)
    for number, block in enumerate(blocks(page, "yaml")):
        config = tmp_path / (block.file or f"{number}.yaml")
        config.write_text(block.text)
        command = compare if "compare" in yaml.safe_load(block.text) else fit
        assert command.main([str(config), "--print_config"]) == 0
        shown = yaml.safe_load(capsys.readouterr().out)
        assert all(key in shown for key in yaml.safe_load(block.text))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with what the commands name: files of the pages and experiments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for page in PAGES:
        for block in [*blocks(page, "python"), *blocks(page, "yaml")]:
            if block.file:
                (tmp_path / block.file).write_text(block.text)
    for file, text in init.files("vault").items():  # what `mem1 init vault` writes, where its pages are
        (tmp_path / file).write_text(text)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    return tmp_path


@pytest.mark.parametrize("words", ours(), ids=" ".join)
def test_a_command_of_a_page_is_understood(words, folder, capsys):
    command = next((word for word in words if word in COMMANDS), None)
    if command in ("fit", "evaluate", "play", "export", "warmstart") and words[1].startswith("--"):
        assert words[1] in ("--help", "--ckpt_path")
    elif command in ("fit", "evaluate", "play", "export", "warmstart") or words[:2] == ["serve", "webshop"]:
        assert mem1([*words, "--print_config"]) == 0
        assert ("warmstart:" if command == "warmstart" else "num_rl_steps") in capsys.readouterr().out
    elif command == "compare":
        assert mem1([*words, "--print_config"]) == 0 and "compare:" in capsys.readouterr().out
    elif command == "experiments":
        assert mem1(words) == 0
    elif command in ("serve-retriever", "serve-shop", "serve-openenv"):
        served = {"serve-retriever": serve_retriever, "serve-shop": serve_shop, "serve-openenv": serve_openenv}
        module = served[command]
        assert module.parser().parse_args(words[1:])
    else:
        assert words == ["--help"] or command in ("serve", "make-encyclopedia", "init")


@pytest.mark.parametrize("words", other_commands(), ids=" ".join)
def test_another_command_of_a_page_names_files_and_modules_that_exist(words):
    words = [word for word in words if not re.fullmatch(r"[A-Z_0-9]+=.*", word)]
    assert words[0] in ("pip", "python", "mlflow", "torchrun", "vllm", "cd", "pytest")
    named = [word for word in words if re.fullmatch(r"(benchmarks|experiments|docs|notebooks|tests)/[\w./-]+", word)]
    outputs = {words[number + 1] for number, word in enumerate(words[:-1]) if word == "--output"}
    assert [word for word in named if not (ROOT / word).exists() and word not in outputs] == []


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash")], ids=name)
def test_the_scripts_of_a_page_are_shell(page, tmp_path):
    for block in blocks(page, "bash"):
        done = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="the extra docs is not installed")
    for needed in ("myst_nb", "sphinx_external_toc", "sphinx_copybutton", "furo"):
        pytest.importorskip(needed, reason="the extra docs is not installed")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(tmp_path / "trees")]
    command += ["-c", "docs", ".", str(tmp_path / "html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {str(path.relative_to(tmp_path / "html")) for path in (tmp_path / "html").rglob("*.html")}
    assert {"docs/README.html", "docs/reference/python_api.html", "notebooks/4_algorithms.html"} <= pages
    api = (tmp_path / "html/docs/reference/python_api.html").read_text()
    assert "Trains a policy on its own trajectories" in api and "lightning_mem1.check_memory" in api
    shutil.rmtree(tmp_path / "html")
