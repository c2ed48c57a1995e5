"""Cloning of a task of one's own: a scripted expert, recorded episodes."""

import json
from dataclasses import replace

import pytest
import torch

from lantern import Lanterns
from lightning_mem1.cli.warmstart import main
from lightning_mem1.context.contexts import drift
from lightning_mem1.policy.policy import Policy
from lightning_mem1.warmstart.demonstrations import Demonstrations
from lightning_mem1.warmstart.model import make_tokenizer
from lightning_mem1.warmstart.own.byte_tokenizer import byte_tokenizer
from lightning_mem1.warmstart.own.rehearsal import changed_action, rehearsed, texts_of, too_long
from lightning_mem1.warmstart.own.settings import OwnDemonstrations
from lightning_mem1.warmstart.settings import Architecture, DemonstrationSettings, Stage, WarmStart
from lightning_mem1.warmstart.train import train
from tiny import tiny_tokenizer

SMALL = Architecture(vocab_size=420, hidden_size=32, num_layers=2, num_heads=2, num_kv_heads=2, intermediate_size=32)
ACT = "<summary>{}</summary><answer>{}</answer>"


def warm_start(folder, own, **overrides):
    data = DemonstrationSettings(own=own, min_reward=overrides.pop("min_reward", None))
    given = {"stages": [Stage(2, episodes=4)], "num_val_tasks": 2, "num_workers": 0, **overrides}
    return WarmStart(str(folder), model=SMALL, data=data, **given)


def by_expert(folder, expert="lantern.expert", **overrides):
    return warm_start(folder, OwnDemonstrations(Lanterns(), expert=expert), **overrides)


def by_file(folder, lines, source=None, **overrides):
    path = folder / "episodes.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return warm_start(folder / "policy", OwnDemonstrations(source, file=str(path)), **overrides)


def played(config, tokenizer=None):
    return [t for step in Demonstrations(config, tokenizer or own_tokenizer(config)) for t in step]


def own_tokenizer(config):
    return make_tokenizer(config, texts_of(rehearsed(config)))


def written(trajectories, tokenizer):
    return [[tokenizer.decode(turn.ids) for turn in t.acts] for t in trajectories]


@pytest.mark.parametrize("mode", ["mem1", "full", "summary", "fold", "edit"])
def test_an_expert_of_ones_own_is_played_in_any_memory_mode_with_the_ids_of_a_rollout(tmp_path, mode):
    config = by_expert(tmp_path, memory=mode)
    trajectories = played(config)
    assert len(trajectories) == 8 and all(turn.valid for t in trajectories for turn in t.turns)
    assert [drift(t, mode) for t in trajectories] == [0] * 8
    assert {t.reward for t in trajectories} == {0.0, 1.0}
    actions = [[turn.action for turn in t.acts] for t in trajectories]
    assert actions == [[turn.action for turn in t.acts] for t in played(by_expert(tmp_path))]
    full = next(t for t in trajectories if len(t.acts) == 3)
    place, sign = full.task.data["place"], full.task.data["sign"]
    assert [turn.action for turn in full.acts] == ["read[note]", f"go[{place}]", f"say[{sign}]"]


def test_a_step_of_the_own_expert_depends_on_the_seed_and_its_number_alone(tmp_path):
    first, again, other = (played(by_expert(tmp_path, seed=seed), byte_tokenizer()) for seed in (0, 0, 1))
    ids = [[[turn.action_ids for turn in t.turns] for t in steps] for steps in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]


def test_the_tokenizer_of_a_task_keeps_its_capital_letters_and_gives_its_turns_back(tmp_path):
    config = by_expert(tmp_path)
    shown = rehearsed(config)
    tokenizer = make_tokenizer(config, texts_of(shown))
    turn = ACT.format("in Attic", "go[Attic]")
    assert tokenizer.decode(tokenizer.encode(turn, add_special_tokens=False)) == turn
    assert changed_action(shown, config, tokenizer) is None
    attic = tokenizer.encode("Attic", add_special_tokens=False)
    assert len(attic) == 1 and attic[0] in tokenizer.encode(turn, add_special_tokens=False)
    # the bundled ones set a space behind words that they do not know to act
    assert changed_action(shown, config, tiny_tokenizer()) == ("read[note]", "read [note]")


def test_demonstrated_turns_that_the_policy_may_not_write_to_their_ends_are_counted(tmp_path):
    config = by_expert(tmp_path)
    shown = rehearsed(config)
    tokenizer = make_tokenizer(config, texts_of(shown))
    assert too_long(shown, config, tokenizer) == ""
    lengths = sorted({len(tokenizer.encode(byte_tokenizer().decode(t.action_ids))) for s in shown for t in s.turns})
    tight = replace(config, rollout=replace(config.rollout, max_new_tokens=lengths[-1] - 1))
    line = too_long(shown, tight, tokenizer)
    assert f"expected at most {lengths[-1] - 1} tokens, got up to {lengths[-1]};" in line
    assert "raise warmstart.rollout.max_new_tokens" in line


def test_a_warm_start_of_ones_own_writes_a_policy_its_numbers_and_whom_it_was_cloned_from(tmp_path, capsys):
    config = by_expert(tmp_path / "policy", min_reward=1.0)
    numbers = train(config)
    assert set(numbers) == {"own_reward", "own_success", "own_turns", "own_valid"}
    card = (tmp_path / "policy" / "README.md").read_text()
    assert "cloned from the scripted expert `lantern.expert`" in card and "generated shops" not in card
    assert "256 episodes looked at, mean reward 0." in capsys.readouterr().out
    policy = Policy.load(str(tmp_path / "policy"))
    assert torch.isfinite(policy.causal_lm.model.embed_tokens.weight).all()


def test_episodes_below_the_least_reward_are_not_cloned(tmp_path):
    kept = played(by_expert(tmp_path, min_reward=1.0))
    assert 0 < len(kept) < 8 and {t.reward for t in kept} == {1.0}


def test_a_warm_start_runs_from_a_yaml_that_names_the_source_and_the_expert(tmp_path, capsys):
    sizes = {"vocab_size": 420, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 2}
    own = {"source": {"class_path": "lantern.Lanterns"}, "expert": "lantern.expert"}
    settings = {"output": str(tmp_path / "policy"), "model": sizes, "data": {"own": own}, "num_val_tasks": 2}
    config = tmp_path / "warmstart.yaml"
    config.write_text(
        json.dumps({"warmstart": {**settings, "stages": [{"steps": 1, "episodes": 2}], "num_workers": 0}})
    )
    assert main([str(config)]) == 0
    assert "own_reward 0." in capsys.readouterr().out


TURNS = [ACT.format("a", "read[note]"), ACT.format("b", "say[Moon]")]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Say the sign."},
    {"role": "assistant", "content": "read[note]", "reasoning_content": "nothing yet"},
    {"role": "user", "content": "note: look in Attic"},
    {"role": "assistant", "content": [{"type": "text", "text": TURNS[1]}]},
]


@pytest.mark.parametrize("mode", ["mem1", "full", "summary"])
def test_turns_of_a_file_are_played_again_in_their_task(tmp_path, mode):
    lines = [{"index": index, "turns": TURNS} for index in (3, 5)]
    config = by_file(tmp_path, lines, Lanterns(), memory=mode, stages=[Stage(1, episodes=2)])
    tokenizer = own_tokenizer(config)
    trajectories = played(config, tokenizer)
    assert sorted(t.task.id for t in trajectories) == ["lantern/train/3", "lantern/train/5"]
    assert [drift(t, mode) for t in trajectories] == [0, 0]
    for t in trajectories:
        assert [turn.action for turn in t.acts] == ["read[note]", "say[Moon]"]
        assert t.reward == float(t.task.data["sign"] == "Moon")
        assert t.acts[0].information == f"note: look in {t.task.data['place']}"


def test_turns_that_stop_before_the_end_of_the_task_end_the_episode_there(tmp_path):
    config = by_file(tmp_path, [{"index": 3, "turns": TURNS[:1]}], Lanterns(), stages=[Stage(1, episodes=1)])
    (t,) = played(config)
    assert [turn.action for turn in t.turns] == ["read[note]"] and t.turns[0].valid


def test_a_conversation_is_cloned_without_any_environment(tmp_path):
    config = by_file(tmp_path, [{"messages": CHAT, "reward": 0.5}], stages=[Stage(1, episodes=1)])
    tokenizer = own_tokenizer(config)
    (t,) = played(config, tokenizer)
    expected = [ACT.format("nothing yet", "read[note]"), ACT.format("b", "say[Moon]")]
    assert written([t], tokenizer) == [expected] and t.reward == 0.5
    assert "Be brief.\nSay the sign." in tokenizer.decode(t.prompt_ids)
    assert t.turns[0].information == "note: look in Attic" and drift(t) == 0
    assert train(config) == {}  # no task source, nothing to play


def test_each_recorded_episode_comes_once_before_any_comes_again(tmp_path):
    lines = [{"prompt": f"task {n}", "turns": ["go[Attic]"], "reward": 1} for n in range(5)]
    config = by_file(tmp_path, lines, stages=[Stage(5, episodes=2)])
    order = [t.task.prompt for t in played(config)]
    assert sorted(order[:5]) == sorted(order[5:]) == [f"task {n}" for n in range(5)]


def test_recorded_episodes_below_the_least_reward_are_left_out(tmp_path):
    lines = [{"prompt": f"task {n}", "turns": ["go[Attic]"], "reward": n} for n in range(3)]
    config = by_file(tmp_path, lines, min_reward=2, stages=[Stage(2, episodes=1)])
    assert {t.task.prompt for t in played(config)} == {"task 2"}
    with pytest.raises(ValueError, match="nothing to clone: expected an episode with a reward of at least 5 in"):
        rehearsed(by_file(tmp_path, lines, min_reward=5))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "expected an object with turns or messages, got list in '.*', line 1; correct that line"),
        ("{", r"no JSON \(Expecting .*\) in '.*', line 1"),
        ('{"turns": []}', "expected turns with at least one text"),
        ('{"turns": [1], "index": 0}', r"expected turns to be text, got \[1\]"),
        (
            '{"turns": ["a"]}',
            "expected the split and the index of a task, or its prompt, got split 'train' and index None",
        ),
        ('{"turns": ["a"], "index": 99}', "expected an index below 40 in split 'train', got 99 in '.*', line 1"),
        ('{"turns": ["a", "b"], "prompt": "p"}', "expected a reply to each of 2 turns but the last, got 0"),
        ('{"turns": ["a"], "prompt": "p", "reward": "high"}', "expected reward to be a number, got 'high'"),
        ('{"turns": ["a"], "prompt": "p", "max_turns": 0}', "expected max_turns from 1 to 10000, got 0"),
        ('{"messages": "hello"}', "expected messages to be a list of objects"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "expected a user's message and an assistant's behind it"),
        ('{"messages": [{"role": "judge", "content": "a"}]}', "expected the roles system, user, assistant and tool"),
        ('{"messages": [{"role": "user", "content": 1}]}', "expected the content of a message to be text, got 1"),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [1]}]}',
            r"got tool_calls; write each call as name\[argument\]",
        ),
        ("", "is empty: expected an episode a line, got none; set warmstart.data.own.file"),
    ],
)
def test_a_line_that_is_no_episode_is_named(tmp_path, line, message):
    config = by_file(tmp_path, [], Lanterns())
    (tmp_path / "episodes.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        rehearsed(config)


@pytest.mark.parametrize(
    ("expert", "message"),
    [
        (
            "lantern.broken_expert",
            r"expert 'lantern.broken_expert' failed in task .*KeyError: 'lamp' \('.*lantern.py', ",
        ),
        (
            "lantern.wordy_expert",
            r"gives no turn: expected a pair of texts, the memory and the action, got 'say\[Moon\]'",
        ),
        ("lantern.lost_expert", r"no turn of the demonstrations is valid: .*jump\[up\].*the reply 'not possible'"),
        ("lantern.experts", "no such expert: expected 'experts' in .*; did you mean 'lantern.expert'"),
        ("lantern.SIGNS", "expected warmstart.data.own.expert to name a function, got tuple"),
        ("lanten.expert", "there is no module 'lanten'; set warmstart.data.own.expert"),
    ],
)
def test_what_is_wrong_with_an_expert_is_one_line(tmp_path, expert, message):
    with pytest.raises(ValueError, match=message):
        rehearsed(by_expert(tmp_path, expert))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"expert": "a.b"}, "expected warmstart.data.own.source with a class_path, got null"),
        ({"source": Lanterns()}, "expected warmstart.data.own.expert, teacher or file, got none"),
        ({"source": Lanterns(), "expert": "a.b", "file": "c"}, "expected one of .* got expert and file"),
    ],
)
def test_own_demonstrations_come_from_one_place(own, message):
    with pytest.raises(ValueError, match=message):
        OwnDemonstrations(**own)


def test_a_missing_file_of_demonstrations_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="no such file: expected JSON lines of demonstrations, got 'none.jsonl'"
    ):
        rehearsed(warm_start(tmp_path, OwnDemonstrations(file="none.jsonl")))
