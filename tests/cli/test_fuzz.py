"""Configs that are wrong in every way that a seed can think of, and turns that no parser expects: no crash, no hang."""

import os
import random
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lightning_mem1.cli import errors, lightning_cli
from lightning_mem1.cli import fit as command
from lightning_mem1.context.formats import PromptFormat
from lightning_mem1.context.tags import (
    QA_TAGS,
    Tags,
    exact_format,
    parse_turn,
    printable,
    read_action,
)

NUM_CONFIGS = int(os.environ.get("LIGHTNING_MEM1_FUZZ", "25"))
JUNK = [
    None,
    [],
    {},
    "",
    "x",
    -1,
    0,
    1e308,
    float("nan"),
    float("inf"),
    True,
    [1, [2]],
    {"a": 1},
    10**30,
    "${model.lr}",
    "${nowhere}",
    "${oc.env:NOT_SET_ANYWHERE}",
    "${",
    "../..",
    "\u202e\u0000",
    "1e5",
    "2020-01-01",
    "a" * 10_000,
]
LINES = [
    "model: !!python/object/apply:os.mkdir [made]\n",
    "x: &a [*a]\n",
    "? {a: b}\n: c\n",
    "\tmodel: 1\n",
    "model: {lr: 1\n",
    "a: " + "[" * 3000 + "\n",
    "model:\n  lr: 1\n  lr: 2\nmodel: 3\n",
    "%YAML 9.9\n---\nmodel: 1\n",
    "--- 1\n--- 2\n",
    "\ufeff\u0085\u2028: 1\n",
    "<<: {model: 1}\n",
    "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
]


def places(content, path=()):
    """Every place in nested dicts, as the keys that lead there."""
    for key, value in content.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


def spoilt(base, rng):
    """The text of a config with one to three things wrong with it."""
    content = yaml.safe_load(yaml.safe_dump(base))
    for _ in range(rng.randint(1, 3)):
        *above, key = rng.choice(list(places(content)) or [("model",)])
        inner = content
        for name in above:
            inner = inner[name]
        kind = rng.choice(["junk", "junk", "key", "gone"])
        if kind == "junk":
            inner[key] = rng.choice(JUNK)
        elif kind == "key":
            inner["".join(rng.sample(f"{key}_xyz", 4))] = inner.get(key)
        else:
            inner.pop(key, None)
    text = yaml.safe_dump(content, allow_unicode=True)
    kind = rng.choice(["as it is", "as it is", "cut", "sign", "line"])
    place = rng.randrange(len(text) + 1)
    if kind == "cut":
        return text[:place]
    if kind == "sign":
        return text[:place] + rng.choice(":{}[]!&*#|>%@`\t\"'\x00-?,\\") + text[place:]
    return text + rng.choice(LINES) if kind == "line" else text


NOTHING_TO_TRAIN = [  # whatever a config has left out: what is right by chance meets a source without tasks in the end
    "--data.class_path=lightning_mem1.data.task_data.TaskDataModule",
    "--data.init_args.source.class_path=tiny_tasks.NoTasks",
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
]


def test_a_config_that_is_wrong_in_any_way_is_one_line(config, capsys, tmp_path):
    base, rng = yaml.safe_load(Path(config).read_text()), random.Random(0)
    for number, text in enumerate([*LINES, *(spoilt(base, rng) for _ in range(NUM_CONFIGS))]):
        path = tmp_path / f"fuzz{number}.yaml"
        path.write_text(text, encoding="utf-8")
        code = command.main([str(path), *NOTHING_TO_TRAIN])
        lines = capsys.readouterr().err.splitlines()
        assert code == 1 and len(lines) == 1 and lines[0].startswith("error: "), (code, lines, text)
    assert not (tmp_path / "made").exists()


IMPOSSIBLE = [
    ".nan",
    ".inf",
    "-.inf",
    "null",
    "1:30",
    "1e400",
    "-1e30",
    "9" * 400,
    "x",
    "[]",
    "{}",
    "true",
    "2020-01-01",
    "''",
]


def numeric_keys(parser):
    """Every key of a real parser whose default is a number, as it is typed."""
    flat = lightning_cli.flat(parser.get_defaults().as_dict())
    return sorted(key for key, value in flat.items() if isinstance(value, int | float) and not isinstance(value, bool))


def test_a_number_that_cannot_be_is_one_line_whatever_its_key(config, capsys):
    keys = numeric_keys(command.TrainingCommandLine.full_parser())
    keys = [key for key in keys if not key.startswith("data.")] + ["data.tasks_per_step", "data.group_size"]
    keys += ["data.num_val_tasks", "data.val_batch_size", "data.num_rl_steps"]
    assert len(keys) > 50 and {"model.lr", "model.optim.num_epochs", "model.rollout.temperature"} <= set(keys)
    for number in range(NUM_CONFIGS):
        rng = random.Random(f"numbers/{number}")
        option = f"--{rng.choice(keys)}={rng.choice(IMPOSSIBLE)}"
        code = command.main([config, option, *NOTHING_TO_TRAIN])
        lines = capsys.readouterr().err.splitlines()
        assert code == 1 and len(lines) == 1 and lines[0].startswith("error: "), (code, lines, option)
        key = option[2:].partition("=")[0].rpartition(".")[2]
        assert key in lines[0] or "no train tasks" in lines[0], (option, lines)


@pytest.mark.parametrize("text", [line for line in LINES if line[0] not in "m<"])
def test_yaml_that_cannot_be_a_config_is_refused_before_anything_is_loaded(text, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="^config (is not YAML|is too large|is nested too deeply|must hold keys)"):
        errors.check_config(str(path))


TAGGED = st.lists(
    st.one_of(
        st.sampled_from(
            [
                f"{a}{name}{b}"
                for name in ("answer", "search", "think", "summary", "state")
                for a in ("<", "</", "< / ")
                for b in (">", " >", "")
            ]
        ),
        st.text(max_size=5),
        st.sampled_from(["[", "]", "click[", "\n", "<|im_end|>", "\x1b[2J", "\ud800", "<", ">"]),
    ),
    max_size=30,
).map("".join)


@given(TAGGED, st.sampled_from([Tags(), QA_TAGS]))
def test_any_turn_is_taken_apart(text, tags):
    parsed = parse_turn(text, tags)
    assert (parsed.action is None) == bool(parsed.problem)
    if parsed.action is not None and tags.actions:
        assert read_action(parsed.action)[0] in tags.actions
    if exact_format(text, tags):
        assert parsed.action is not None


@given(TAGGED)
def test_an_action_is_a_name_and_an_argument_or_nothing(text):
    found = read_action(text)
    if found:
        assert f"{found[0]}[{found[1]}]" == text and re.fullmatch(r"\w+", found[0])


@given(TAGGED, st.integers(0, 99))
def test_no_reply_can_end_its_block_or_begin_a_turn(text, turns):
    block = PromptFormat(QA_TAGS).block(text, turns)
    inside = block.removeprefix("<information>").removesuffix("</information>")
    assert not re.search(r"<\s*/?\s*(information|search|answer|think)\s*>", inside)
    assert "<|" not in inside


@given(TAGGED)
def test_what_is_printed_holds_no_control_character(text):
    assert all(c == "\n" or c.isprintable() for c in printable(text))


@pytest.mark.parametrize("opening", ["<answer>", "<summary>", "<", "[", "click["])
def test_a_turn_of_nothing_but_openings_is_read_in_reasonable_time(opening):
    text = opening * 2000
    assert parse_turn(text, Tags()).action is None
    assert not exact_format(text, Tags())
    assert read_action(text) is None
