import json
import re

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from lightning_mem1.cli.warmstart import main
from lightning_mem1.context.contexts import drift
from lightning_mem1.environments.qa.scripted_researcher.researcher import EXPERT_RESEARCHER
from lightning_mem1.environments.reading.scripted_reader import EXPERT_READER
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.warmstart.demonstrations import Demonstrations, qa_play
from lightning_mem1.warmstart.model import make_model, make_tokenizer, save
from lightning_mem1.warmstart.model_card import made_before
from lightning_mem1.warmstart.module import SftModule, cloned
from lightning_mem1.warmstart.settings import (
    Architecture,
    DemonstrationSettings,
    Optimisation,
    QADemonstrations,
    ShopDemonstrations,
    Stage,
    WarmStart,
)
from lightning_mem1.warmstart.train import clone, train
from tiny import tiny_tokenizer

SMALL = Architecture(vocab_size=600, hidden_size=32, num_layers=2, num_heads=2, num_kv_heads=2, intermediate_size=32)


def warm_start(folder, **overrides):
    shop, qa = ShopDemonstrations(num_products=40), QADemonstrations(num_passages=60)
    data = DemonstrationSettings(steps_per_world=2, shop=shop, qa=qa)
    stages = [Stage(2, 2, 1, 3, objectives=[1, 2]), Stage(1, 2, 1, 5, passages=1, objectives=[3])]
    return WarmStart(str(folder), model=SMALL, data=data, stages=stages, num_val_tasks=2, **overrides)


def test_a_step_of_the_expert_stream_depends_on_the_seed_and_its_number_alone(tmp_path):
    first, again = (list(Demonstrations(warm_start(tmp_path), tiny_tokenizer())) for _ in range(2))
    assert [len(trajectories) for trajectories in first] == [3, 3, 3]
    ids = [[turn.action_ids for t in step for turn in t.turns] for step in first]
    assert ids == [[turn.action_ids for t in step for turn in t.turns] for step in again]
    other = list(Demonstrations(warm_start(tmp_path, seed=1), tiny_tokenizer()))
    assert ids != [[turn.action_ids for t in step for turn in t.turns] for step in other]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_loader_workers_take_turns_so_that_no_step_is_played_twice(tmp_path, workers):
    alone = list(Demonstrations(warm_start(tmp_path), tiny_tokenizer()))
    loader = DataLoader(Demonstrations(warm_start(tmp_path), tiny_tokenizer()), batch_size=None, num_workers=workers)
    shared = list(loader)
    ids = [[[turn.action_ids for turn in t.turns] for step in steps for t in step] for steps in (alone, shared)]
    assert len(shared) == 3 and ids[0] == ids[1]


def test_an_adapter_is_trained_in_place_of_the_weights_and_merged_into_what_is_written(tmp_path):
    base = Policy(make_model(SMALL, len(tiny_tokenizer())), tiny_tokenizer())
    save(base, str(tmp_path / "base"))
    config = warm_start(tmp_path / "policy", init_from=str(tmp_path / "base"), num_workers=0)
    config.lora, config.optim.lr = LoraSettings(r=4), 0.01
    assert set(train(config)) >= {"shop_reward", "qa_valid"}
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "policy"))
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "model.layers.0.mlp.down_proj.weight" in moved
    assert not {name for name in moved if "norm" in name or "embed" in name}  # no linear layers: they have no adapter


def test_a_warm_start_ends_when_its_seconds_are_over_and_its_rate_falls_with_them(tmp_path):
    config = warm_start(tmp_path, optim=Optimisation(lr=1.0, warmup_steps=1, max_seconds=1e-6))
    module = SftModule(Policy(make_model(SMALL, len(tiny_tokenizer())), tiny_tokenizer()), config)
    (optimizer,), (schedule,) = module.configure_optimizers()
    assert schedule.get_last_lr() == [0.1, 0.1, 1.0, 1.0]  # the clock begins here
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.005, 0.005, 0.05, 0.05])  # a twentieth
    config.stages = [Stage(10_000, 1, 0)]
    config.num_workers, config.optim.max_seconds = 0, 0.5
    assert 0 < clone(module.policy, config, Demonstrations(config, tiny_tokenizer())).global_step < 10_000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accelerator": "mps"}, "unknown accelerator: expected one of cpu, cuda, auto, got 'mps'; set warmstart.acc"),
        ({"num_workers": -1}, "warmstart.num_workers too small: expected at least 0, got -1"),
    ],
)
def test_a_machine_that_cannot_be_is_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        WarmStart(str(tmp_path), **settings)
    with pytest.raises(ValueError, match="max_seconds too small: expected more than 0, got 0.0"):
        WarmStart(str(tmp_path), optim=Optimisation(max_seconds=0.0))


def test_a_head_of_its_own_is_written_too(tmp_path):
    model = make_model(SMALL, len(tiny_tokenizer()))
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() + 1)
    save(Policy(model, tiny_tokenizer()), str(tmp_path))
    assert torch.equal(Policy.load(str(tmp_path)).causal_lm.lm_head.weight, model.lm_head.weight.half().float())


@pytest.mark.parametrize("slip", [0.0, 0.2])
def test_expert_trajectories_below_the_least_reward_are_not_cloned(tmp_path, slip):
    config = warm_start(tmp_path)
    config.data.slip = slip
    everything = [t for step in Demonstrations(config, tiny_tokenizer()) for t in step]
    config.data.min_reward = 1.0
    kept = [t for step in Demonstrations(config, tiny_tokenizer()) for t in step]
    ids = [[turn.action_ids for turn in t.turns] for t in everything if t.reward >= 1.0]
    assert [[turn.action_ids for turn in t.turns] for t in kept] == ids
    assert 0 < len(kept) < len(everything)
    assert bool(cloned(kept).all()) == (slip == 0)  # what slipped on the way to the reward is shown all the same


def test_every_turn_of_the_expert_is_well_formed_and_its_trajectories_drift_nowhere(tmp_path):
    trajectories = [t for step in Demonstrations(warm_start(tmp_path), tiny_tokenizer()) for t in step]
    assert all(turn.valid for t in trajectories for turn in t.turns)
    shop, qa = ([t for t in trajectories if t.task.id.startswith(name)] for name in ("webshop/train/", "qa/"))
    assert (len(shop), len(qa)) == (6, 3)
    assert [len(t.task.objectives) for t in qa] != [1, 1, 1]
    assert [drift(t) for t in trajectories] == [0] * len(trajectories)


def test_turns_that_slipped_are_shown_and_not_cloned(tmp_path):
    config = warm_start(tmp_path)
    config.data.slip = 0.4
    trajectories = [t for step in Demonstrations(config, tiny_tokenizer()) for t in step]
    turns = [turn for t in trajectories for turn in t.turns]
    slipped = [turn for turn in turns if not turn.valid]
    assert 0.2 < len(slipped) / len(turns) < 0.6
    assert all("expected exactly one" in turn.information for turn in slipped)
    assert any(t.turns[-1].valid and not all(turn.valid for turn in t.turns) for t in trajectories)
    assert cloned(trajectories).tolist() == [turn.valid for turn in turns for _ in turn.action_ids]

    config.optim.lr = config.optim.weight_decay = 0.0
    module = SftModule(Policy(make_model(SMALL, len(tiny_tokenizer())), tiny_tokenizer()), config)
    logprobs = module.policy.logprobs(collate(trajectories))[0]
    expected = -sum(float(lp) for lp, valid in zip(logprobs, cloned(trajectories), strict=True) if valid)
    expected /= int(cloned(trajectories).sum())
    assert float(module.loss(trajectories)) == pytest.approx(expected, rel=1e-5)


def test_the_expert_takes_the_same_turns_in_full_and_in_two_parts_where_memory_is_written_apart(tmp_path):
    played = {}
    for mode in ("mem1", "full", "summary"):
        stream = Demonstrations(warm_start(tmp_path, memory=mode), tiny_tokenizer())
        played[mode] = [t for step in stream for t in step]
        assert [drift(t, mode) for t in played[mode]] == [0] * len(played[mode])
        assert all(turn.valid for t in played[mode] for turn in t.turns)
    mem1 = [[turn.action_ids for turn in t.turns] for t in played["mem1"]]
    assert [[turn.action_ids for turn in t.turns] for t in played["full"]] == mem1
    for turns, t in zip(mem1, played["summary"], strict=True):
        memories = [turn for turn in t.turns if turn.kind == "memory"]
        first, *acts = t.acts
        assert turns[0][-len(first.action_ids) :] == first.action_ids  # no memory is asked for before it
        assert turns[1:] == [[*m.ids, *act.action_ids] for m, act in zip(memories, acts, strict=True)]
        assert [turn.reward for turn in t.acts] == [turn.reward for turn in played["mem1"].pop(0).turns]


def test_what_slips_where_memory_is_written_apart_is_the_act(tmp_path):
    config = warm_start(tmp_path, memory="summary")
    config.data.slip = 0.4
    trajectories = [t for step in Demonstrations(config, tiny_tokenizer()) for t in step]
    assert all(turn.valid for t in trajectories for turn in t.turns if turn.kind == "memory")
    acts = [turn for t in trajectories for turn in t.acts]
    assert 0.2 < sum(not turn.valid for turn in acts) / len(acts) < 0.6

    module = SftModule(Policy(make_model(SMALL, len(tiny_tokenizer())), tiny_tokenizer()), config)
    logprobs = module.policy.logprobs(collate(trajectories, memory="summary"))[0]
    kept = cloned(trajectories)
    assert float(module.loss(trajectories)) == pytest.approx(-float(logprobs[kept].mean()), rel=1e-5)


@pytest.mark.parametrize("mode", ["full", "summary"])
def test_a_warm_start_in_another_memory_mode_writes_a_policy_and_validates_it_there(tmp_path, mode):
    config = warm_start(tmp_path / "policy", memory=mode, tokenizer=str(tmp_path))
    tiny_tokenizer().save_pretrained(tmp_path)
    numbers = train(config)
    assert numbers["shop_turns"] >= 1 and 0 <= numbers["qa_valid"] <= 1
    assert f"| memory mode | {mode} |" in (tmp_path / "policy" / "README.md").read_text()


def test_the_tokenizer_holds_each_tag_as_one_token_and_gives_back_any_text(tmp_path):
    tokenizer = make_tokenizer(warm_start(tmp_path))
    for tag in ("<summary>", "</answer>", "<state>"):
        assert len(tokenizer.encode(tag, add_special_tokens=False)) == 1
    text = "café ★ 12.50 [b0x1]\n\ttwo  spaces"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert tokenizer.encode("Trail SHOES") == tokenizer.encode("trail shoes")


def test_a_warm_start_writes_a_policy_that_loads_and_a_card_that_tells_its_making(tmp_path, capsys):
    sizes = [
        "vocab_size=600",
        "hidden_size=32",
        "num_layers=2",
        "num_heads=2",
        "num_kv_heads=2",
        "intermediate_size=32",
    ]
    argv = [f"--warmstart.model.{size}" for size in sizes]
    argv += ["--warmstart.data.shop.num_products=40", "--warmstart.data.qa.num_passages=60"]
    argv += ["--warmstart.num_val_tasks=2", "--warmstart.data.min_reward=0.4"]
    config = tmp_path / "warmstart.yaml"
    config.write_text(
        json.dumps({"warmstart": {"output": str(tmp_path / "policy"), "stages": [{"steps": 2, "shop_episodes": 2}]}})
    )
    assert main([str(config), *argv]) == 0
    assert re.search(r"shop_reward \d\.\d{3}  shop_success.*  qa_reward \d\.\d{3}", capsys.readouterr().out)
    weights = load_file(tmp_path / "policy" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    policy = Policy.load(str(tmp_path / "policy"))
    trajectories = next(iter(Demonstrations(warm_start(tmp_path), policy.tokenizer)))
    assert torch.isfinite(policy.logprobs(collate(trajectories))[0]).all()
    card = (tmp_path / "policy" / "README.md").read_text()
    assert f"`mem1 warmstart {config} --warmstart.model.vocab_size=600" in card
    assert "| seed | 0 |" in card and "before that" not in card
    measured = ModelCard(card).data.eval_results
    assert [each.dataset_type for each in measured] == ["shop"] * 3 + ["qa"] * 3
    assert ("seed", "0") in made_before(str(tmp_path / "policy")) and made_before(str(tmp_path)) == []
    assert "4 trajectories in 1 generated shops (train goals), 16 in 1 generated encyclopedias" in card
    assert 0 < int(re.search(r"\| cloned \| those with a reward of at least 0\.4: (\d+) \|", card)[1]) < 20


@pytest.mark.parametrize(("min_reward", "slip"), [(9.0, 0.0), (None, 1.0)])
def test_a_warm_start_that_clones_nothing_says_so(tmp_path, min_reward, slip):
    config = warm_start(tmp_path / "policy")
    config.data.min_reward, config.data.slip, config.tokenizer = min_reward, slip, str(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=f"nothing to clone: .* at least {min_reward}, got none; lower warmstart.data.min_reward"
    ):
        train(config)
    assert not (tmp_path / "policy").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("warmstart: {outputs: x}", "unknown key 'warmstart.outputs'"),
        ("warmstart: {output: x, seed: many}", "wrong value for 'warmstart.seed'"),
        ("warmstart: {output: x, memory: mem2}", "unknown memory mode: expected one of mem1, full, window, none, summ"),
        ("warmstart: [", "config is not YAML"),
    ],
)
def test_a_wrong_config_is_one_clear_line(tmp_path, capsys, content, message):
    config = tmp_path / "wrong.yaml"
    config.write_text(content)
    assert main([str(config)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_a_missing_config_is_one_clear_line(capsys):
    assert main(["experiments/warmstrat.yaml"]) == 1
    assert "did you mean 'experiments/warmstart.yaml'" in capsys.readouterr().err


@pytest.mark.parametrize(("wording", "named"), [("question", "the answer to question"), ("topic", "answer")])
def test_training_tasks_are_numbered_from_anywhere_on_and_others_from_one(tmp_path, wording, named):
    config = warm_start(tmp_path)
    config.data.qa = QADemonstrations(60, EXPERT_RESEARCHER, notation="next", largest_first=9, wording=wording)
    stage = Stage(1, 0, 1, objectives=[3], hops=[1], compose="interdependent")
    source, settings, writer = qa_play(config, stage, 1000, 60)
    tasks = [source.task("train", index) for index in range(20)]
    firsts = {int(task.prompt.split()[0]) for task in tasks}
    assert len(firsts) > 4 and min(firsts) >= 1 and max(firsts) <= 9
    assert all(source.task("val", index).prompt.startswith("1 ") for index in range(source.size("val")))
    task = next(task for task in tasks if not task.prompt.startswith("1 "))
    numbers = [int(line.split()[0]) for line in task.prompt.split("\n")]
    needed = [int(found) for found in re.findall(rf"{named} (\d+)", task.prompt)]
    assert numbers == list(range(numbers[0], numbers[0] + 3)) and needed and set(needed) < set(numbers)
    config.stages = [Stage(3, 0, 4, objectives=[3], hops=[1], compose="interdependent")]
    played = [t for step in Demonstrations(config, tiny_tokenizer()) for t in step]
    assert len(played) == 12 and sum(t.reward for t in played) >= 33  # of 36 answers


@pytest.mark.parametrize("mode, notation", [("mem1", "next"), ("full", "next"), ("summary", "next"), ("full", "react")])
def test_a_list_to_be_carried_on_is_shown_and_only_carrying_it_on_is_cloned(tmp_path, mode, notation):
    config = warm_start(tmp_path, memory=mode)
    config.data.qa = QADemonstrations(60, EXPERT_RESEARCHER, notation=notation, largest_first=9, carried=1.0)
    config.stages = [Stage(4, 0, 4, objectives=[3], hops=[1])]
    tokenizer = tiny_tokenizer()
    played = [t for step in Demonstrations(config, tokenizer) for t in step]
    carried = [t for t in played if "carried" in t.task.data]
    assert {"carried" in t.task.data for t in played} == {"first" in t.task.data for t in played} == {True, False}
    for t in carried:
        states = [turn for turn in t.turns if turn.kind == ("memory" if mode == "summary" else "act")]
        assert [turn.valid for turn in states] == [False] + [True] * (len(states) - 1)
        told = [" ".join(tokenizer.decode(turn.action_ids).split()) for turn in states]
        lists = told if notation == "next" else [told[0], told[-1]]  # nothing is restated between
        assert [t.task.data["carried"] in each for each in lists] == [True] * len(lists)
        numbers = [int(line.split()[0]) for line in t.task.prompt.split("\n")]
        assert numbers == list(range(numbers[0], t.task.data["first"] + 3)) and numbers[0] in (1, t.task.data["first"])
    assert {t.task.prompt.startswith("1 ") for t in carried} == {True, False}
    listed = [re.split(r" ?\b\d\b ", t.task.data["carried"])[1:] for t in carried]
    assert any(len(set(answers)) < len(answers) for answers in listed)
    assert sum(t.reward for t in played) >= 0.9 * 3 * len(played)


def test_a_turn_slips_only_where_a_policy_can_tell_how_to_begin_again(tmp_path):
    config = warm_start(tmp_path)
    config.data.qa = QADemonstrations(60, EXPERT_RESEARCHER, notation="next", largest_first=9, carried=1.0)
    config.data.slip = 0.5
    config.stages = [Stage(8, 0, 4, objectives=[3], hops=[1])]
    played = [t for step in Demonstrations(config, tiny_tokenizer()) for t in step]
    behind_others = [t for t in played if not t.task.prompt.startswith(f"{t.task.data.get('first', 1)} ")]
    slipped = {id(t): [turn for turn in t.turns if "expected exactly one" in turn.information] for t in played}
    assert behind_others and not any(slipped[id(t)] for t in behind_others)
    assert sum(len(each) for each in slipped.values()) > 20


def test_answers_are_left_in_the_history_only_where_it_is_seen(tmp_path):
    with pytest.raises(ValueError, match="react leaves the answers in the history, got warmstart.memory mem1"):
        WarmStart(str(tmp_path), data=DemonstrationSettings(qa=QADemonstrations(notation="react")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"carried": 1.5, "notation": "next", "largest_first": 4}, "carried too large: expected at most 1, got 1.5"),
        ({"carried": 0.5}, "needs notation next or react and largest_first above 1, got every and 1"),
    ],
)
def test_carried_lists_need_numbers_to_stand_behind(settings, message):
    with pytest.raises(ValueError, match=message):
        QADemonstrations(**settings)


def test_a_warm_start_without_the_shop_tells_of_research_alone(tmp_path):
    config = warm_start(tmp_path / "policy", tokenizer=str(tmp_path))
    config.stages = [Stage(1, 0, 2, objectives=[1])]
    tiny_tokenizer().save_pretrained(tmp_path)
    assert set(train(config)) == {"qa_reward", "qa_success", "qa_turns", "qa_valid"}
    card = (tmp_path / "policy" / "README.md").read_text()
    assert "| QA: 2 validation tasks, greedy |" in card and "validation goals" not in card


def reads(folder, **settings):
    """A warm start on short documents."""
    config = warm_start(folder, **settings)
    config.stages = [Stage(1, 0, 0, reading_episodes=2, lengths=[30, 40], part=20)]
    return config


@pytest.mark.parametrize("mode", ["mem1", "full", "summary"])
def test_what_is_cloned_of_the_reader_answers_and_keeps_the_format(tmp_path, mode):
    config = reads(tmp_path, memory=mode)
    config.data.reading.skill = EXPERT_READER
    ((*trajectories,),) = Demonstrations(config, tiny_tokenizer())
    assert [t.success for t in trajectories] == [1.0, 1.0]
    assert all(turn.valid for t in trajectories for turn in t.turns)
    texts = [tiny_tokenizer().decode(t.turns[-1].action_ids) for t in trajectories]
    assert all("<answer>" in text and text.endswith("</answer>") for text in texts)


def test_a_warm_start_on_documents_tells_of_reading_alone(tmp_path):
    config = reads(tmp_path / "policy", tokenizer=str(tmp_path))
    tiny_tokenizer().save_pretrained(tmp_path)
    assert set(train(config)) == {"reading_reward", "reading_success", "reading_turns", "reading_valid"}
    card = (tmp_path / "policy" / "README.md").read_text()
    assert "| data | 2 trajectories with generated documents of 1 seeds |" in card
    assert "| reading: 2 validation documents, greedy | reward " in card
    assert "cloned from a scripted reader. It makes no mistakes in form" in card


def test_the_adapter_alone_is_written_and_is_the_same_policy_on_its_base(tmp_path):
    save(Policy(make_model(SMALL, len(tiny_tokenizer())), tiny_tokenizer()), str(tmp_path / "base"))
    given = {"init_from": str(tmp_path / "base"), "lora": LoraSettings(r=4)}
    for merged in (True, False):
        train(reads(tmp_path / str(merged), merged=merged, **given))
    files = sorted(path.name for path in (tmp_path / "False").iterdir())
    assert files == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    whole, alone = (dict(Policy.load(str(tmp_path / str(m))).causal_lm.named_parameters()) for m in (True, False))
    start = dict(Policy.load(str(tmp_path / "base")).causal_lm.named_parameters())
    assert whole.keys() == alone.keys()
    for name, weight in alone.items():
        torch.testing.assert_close(weight, whole[name], atol=2e-3, rtol=2e-3)  # one of them is stored in 16 bits
    assert any(not torch.equal(alone[name], start[name]) for name in alone)
    assert "a LoRA adapter" in (tmp_path / "False" / "README.md").read_text()


def test_an_adapter_without_a_base_of_its_own_is_refused(tmp_path):
    with pytest.raises(ValueError, match="merged false writes an adapter on its base: expected warmstart.lora"):
        reads(tmp_path, merged=False)
