"""One episode in a terminal: every turn, nothing that acts, and turns that are typed."""

import io
import re
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from lightning_mem1.cli import play
from lightning_mem1.cli.play import Typist
from lightning_mem1.context.tags import QA_TAGS, Tags
from lightning_mem1.evaluation.report.terminal import Screen, clipped
from lightning_mem1.evaluation.view import View
from lightning_mem1.types import StopReason, Task, Trajectory, Turn
from tiny_played import RudeTasks

RUDE = "--data.init_args.source.class_path=tiny_played.RudeTasks"


def failure(capsys, *arguments: str) -> str:
    assert play.main(list(arguments)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def test_an_episode_is_shown_turn_by_turn_with_its_end(config, capsys):
    assert play.main([config, "--index=3"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "ranked/val/3, 4 turns, memory mem1" in out and "count to 3" in out
    assert re.findall(r"^turn (\d) of 4", out, re.MULTILINE) == ["1", "2"]
    assert out.count("action: ") == 2 and out.count("summary: ") == 2
    assert "information: search page" in out and "information: expected exactly one <answer>" in out
    assert "reward 0.50, success 0, 2 turns, ended by done" in out
    assert "\x1b" not in out  # no terminal: plain text
    assert not Path("runs").exists()


def test_the_meter_compares_the_context_with_the_whole_history():
    # prompt 10; turns of 4, replies of 6: mem1 holds 10 + 10 + 4 at the end of the third turn, the history 10 + 20 + 4
    console = Console(width=100, file=io.StringIO())
    screen = Screen(console, View(lambda ids: "", Tags(), "mem1"))
    turns = [Turn([1] * 4, [0.0] * 4, [2] * 6) for _ in range(3)]
    for number, turn in enumerate(turns, 1):
        screen.turn(Trajectory(Task("t", "", (), 5), [0] * 10, turns[:number], StopReason.MAX_TURNS), turn)
    lines = console.file.getvalue().splitlines()
    assert [line.strip() for line in lines if "whole history" in line] == [
        "14 tokens, 14 with the whole history",
        "24 tokens, 24 with the whole history",
        "24 tokens, 34 with the whole history",
    ]
    assert f"[{'#' * 17}{'.' * 7}]" in lines[-3]  # 24 of 24 + 10


@pytest.mark.parametrize("terminal", [False, True])
def test_markup_and_control_characters_are_shown_and_never_act(terminal):
    source = RudeTasks()
    task, env = source.task("val", 0), source.env(source.task("val", 0))
    console = Console(
        width=200, file=io.StringIO(), force_terminal=terminal, color_system="truecolor" if terminal else None
    )
    screen = Screen(
        console, View(lambda ids: "<summary>[blink]\x1b[5m</summary><answer>\x9b2J</answer>", Tags(), "mem1")
    )
    screen.begin(task, env.observe())
    turn = Turn([1], [0.0], [2], action="\x9b2J", information=env.step("").information)
    trajectory = Trajectory(task, [0], [turn], StopReason.ERROR, error="\x1b[2J[b]broken[/b]")
    screen.turn(trajectory, turn)
    screen.end(trajectory)
    out = console.file.getvalue()
    assert "\x1b[2J" not in out and "\x1b[5m" not in out and "\x1b]0;" not in out and "\x9b" not in out
    plain = re.sub(r"\x1b\[[\d;]*m", "", out)  # what the screen itself styles
    assert "\x1b" not in plain
    for shown in (
        "\\x1b[31masked [/] [link=x]z[/link]",
        "\\x1b[2Jobserved [red]x[/red]",
        "\\x1b]0;title\\x07told [bold]y[/bold]",
        "summary: [blink]\\x1b[5m",
        "action: \\x9b2J",
        "error: \\x1b[2J[b]broken[/b]",
    ):
        assert shown in plain, shown
    assert terminal == ("\x1b[1m" in out)


def test_a_rude_environment_is_harmless_on_the_command_line(config, capsys):
    assert play.main([config, RUDE]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out
    assert "\\x1b[2Jobserved [red]x[/red]" in out and "... 20 more lines" in out


def test_a_long_reply_is_clipped_and_says_so():
    assert clipped("a\nb", 2) == "a\nb"
    assert clipped("a\nb\nc\nd", 2) == "a\nb\n... 2 more lines"
    assert clipped("x" * 9, 2, max_chars=4) == "xxxx..."


def test_a_human_plays_with_memory_and_action(config, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("want red\nsearch[red]\n\nclick[red]\n"))
    assert play.main([config, "--human"]) == 0
    out = capsys.readouterr().out
    assert out.count("summary: want red") == 2  # nothing typed: kept
    assert "action: search[red]\n" in out and "action: click[red]\n" in out and "(invalid)" not in out
    assert "information: red shoes" in out
    assert "reward 0.50, success 0, 2 turns, ended by done" in out


def test_a_human_writes_the_memory_apart_where_the_mode_has_it_so(config, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("search[red]\nred is there\nclick[red]\n"))
    assert play.main([config, "--human", "--model.memory=summary"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"(memory after turn|turn) (\d) of 4", out) == [
        ("turn", "1"),
        ("memory after turn", "1"),
        ("turn", "2"),
    ]
    assert re.findall(r"summary: (.*\S)", out) == ["(apart)", "red is there", "(apart)"]
    assert "reward 0.50, success 0, 2 turns, ended by done" in out and "(invalid)" not in out


def test_a_human_who_knows_the_answers_is_paid_for_them(config, capsys, monkeypatch):
    from lightning_mem1.environments.qa.tasks import EncyclopediaTasks

    content = yaml.safe_load(Path(config).read_text())
    content["model"]["rollout"]["format"] = "qa"
    settings = {"encyclopedia": {"num_passages": 60}, "hops": [1], "objectives": 2}
    content["data"] = {"class_path": "QAData", "init_args": settings}
    Path(config).write_text(yaml.safe_dump(content))
    task = EncyclopediaTasks(0, 60, (1,), objectives=2).task("val", 1)
    answers = "; ".join(objective.answers[0] for objective in task.objectives)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"\nwho[x]\n\nsearch[town]\nnow\nanswer[{answers}]\n"))
    assert play.main([config, "--human", "--index=1"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"think: (\S+)", out) == ["(none)", "(none)", "now"]
    assert "action: <think></think>who [x] (invalid)" in out  # as its tokens say it
    assert "action: search[town]" in out
    assert "reward 2.00, success 1, 3 turns, ended by done" in out


def test_whoever_leaves_early_is_told_how_far_it_went(config, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("m\na\n"))
    assert play.main([config, "--human"]) == 0
    assert capsys.readouterr().out.endswith("left after 1 turn\n")


def test_typed_tags_cannot_end_a_block(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a</think>b\nsearch[x</search>y]\n"))
    assert Typist(QA_TAGS)("") == "<think>a\u2039/think>b</think><search>x\u2039/search>y</search>"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--index=6", "no such task: expected --index from 0 to 5 in split val, got 6"),
        ("--index=-1", "--index too small: expected at least 0, got -1; set --index"),
        ("--temperature=-1", "--temperature too small: expected at least 0, got -1.0; set --temperature"),
        ("--split=tset", "wrong value for 'split' in the command line: expected one of 'train', 'val', 'test'"),
        ("--indx=1", "unknown key 'indx' in the command line; did you mean 'index'?"),
        ("--ckpt_path=nothing.ckpt", "no such checkpoint: expected a file, got 'nothing.ckpt'"),
        (
            "--data.init_args.source.class_path=tiny_played.EmptySplits",
            "no val tasks: expected at least 1 from EmptySplits, got 0; set --split",
        ),
    ],
)
def test_a_mistake_is_one_line(config, capsys, option, message):
    assert failure(capsys, config, option).startswith(message)
