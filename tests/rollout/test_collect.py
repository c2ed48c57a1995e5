import random
import threading
import time

import pytest

from lightning_mem1.context.contexts import drift
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.seeds import turn_seed
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import StepResult, StopReason
from tiny import WordEnv, task, tiny_policy, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
BRIEF = RolloutSettings(prompt="brief", max_new_tokens=40)
GOOD = "<summary>red</summary><answer>click[red]</answer>"


def play(env, script, max_turns=8, settings=BRIEF, mode="mem1"):
    lines = iter(script)
    engine = ScriptedEngine(TOKENIZER, [lambda context: next(lines)])
    return collect([Episode(task(max_turns=max_turns), env)], engine, TOKENIZER, settings, mode)[0]


def text(ids):
    return TOKENIZER.decode(ids)


def test_an_episode_is_written_down_turn_by_turn():
    env = WordEnv(["one", "two", ""])
    trajectory = play(env, [GOOD] * 3)
    assert env.actions == ["click[red]"] * 3
    assert [text(turn.action_ids) for turn in trajectory.turns] == [GOOD] * 3
    assert [text(turn.information_ids) for turn in trajectory.turns] == [
        "<state>7 turns left\none</state>",
        "<state>6 turns left\ntwo</state>",
        "",
    ]
    assert trajectory.stop_reason == StopReason.DONE
    assert (trajectory.reward, trajectory.success) == (1.0, 1.0)


def test_the_prompt_is_the_chat_message_with_the_task_the_page_and_the_turns():
    trajectory = play(WordEnv([""]), [GOOD])
    assert text(trajectory.prompt_ids) == (
        "<|im_start|>user\ncount to 0\nsearch page\n8 turns left<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_context_of_each_turn_is_what_the_memory_mode_keeps():
    seen = []

    def write(context):
        seen.append(context)
        return GOOD

    engine = ScriptedEngine(TOKENIZER, [write])
    collect([Episode(task(), WordEnv(["one", "two", "three", ""]))], engine, TOKENIZER, BRIEF, "mem1")
    assert seen[3].endswith(GOOD + "<state>5 turns left\nthree</state>")
    assert "one" not in seen[3]
    assert "two" not in seen[3]


def test_a_reply_of_ten_megabytes_keeps_its_beginning_and_its_end():
    huge = "begin " + "x" * 10_000_000 + " end"
    turn = play(WordEnv([huge, ""]), [GOOD] * 2).turns[0]
    assert len(turn.information) == BRIEF.max_information_tokens * 64
    assert turn.information.startswith("begin x") and turn.information.endswith("x end")
    assert len(turn.information_ids) == BRIEF.max_information_tokens
    assert text(turn.information_ids).startswith("<state>7 turns left\nbegin x")
    assert text(turn.information_ids).endswith("x end</state>")


def test_a_malformed_turn_costs_the_turn_and_is_told_why():
    env = WordEnv(["page", "page", ""])
    trajectory = play(env, ["<summary>lost</summary>", GOOD, GOOD])
    assert [turn.valid for turn in trajectory.turns] == [False, True, True]
    assert trajectory.turns[0].action is None
    assert "expected exactly one" in trajectory.turns[0].information
    assert trajectory.turns[0].information.endswith("page")
    assert trajectory.stop_reason == StopReason.DONE


def test_the_turn_budget_ends_an_episode():
    trajectory = play(WordEnv(["page"] * 9), [GOOD] * 3, max_turns=3)
    assert len(trajectory.turns) == 3
    assert trajectory.stop_reason == StopReason.MAX_TURNS
    assert trajectory.turns[-1].information_ids == []


class Broken(WordEnv):
    def step(self, action: str) -> StepResult:
        if len(self.actions) == 1:
            raise RuntimeError("the shop\nburned down")
        return super().step(action)


class Unseen(WordEnv):
    def observe(self) -> str:
        raise OSError("no page")


def test_an_environment_that_fails_ends_its_own_trajectory_and_no_other():
    script = [GOOD] * 2
    engine = ScriptedEngine(TOKENIZER, [lambda c: GOOD, lambda c: GOOD, lambda c: GOOD])
    episodes = [Episode(task(), env) for env in (Broken(["a", "b", ""]), Unseen(["a"]), WordEnv(["a", ""]))]
    broken, unseen, good = collect(episodes, engine, TOKENIZER, BRIEF)
    assert broken.stop_reason == unseen.stop_reason == StopReason.ERROR
    assert broken.error == "RuntimeError: the shop burned down"
    assert (len(broken.turns), len(unseen.turns), len(good.turns)) == (2, 0, len(script))
    assert good.stop_reason == StopReason.DONE


def test_long_information_loses_its_middle_and_keeps_its_closing_tag():
    settings = RolloutSettings(prompt="brief", max_new_tokens=40, max_information_tokens=30)
    words = " ".join(str(n) for n in range(500))
    ids = play(WordEnv([words, ""]), [GOOD] * 2, settings=settings).turns[0].information_ids
    assert len(ids) == 30
    assert text(ids).startswith("<state>7 turns left\n0 1 2")
    assert text(ids).endswith("99</state>")


def test_a_context_that_outgrows_the_engine_ends_the_episode():
    policy = tiny_policy()
    engine = LocalEngine(policy, EngineSettings(num_slots=1, max_context_tokens=120))
    episode = Episode(task(max_turns=50), WordEnv(["red " * 10] * 50))
    settings = RolloutSettings(prompt="brief", max_new_tokens=8)
    trajectory = collect([episode], engine, policy.tokenizer, settings, "full")[0]
    assert trajectory.stop_reason == StopReason.CONTEXT
    assert 1 <= len(trajectory.turns) < 50


def test_a_trajectory_depends_on_its_own_seed_only():
    policy = tiny_policy()
    engine = LocalEngine(policy, EngineSettings(num_slots=4, max_context_tokens=256))
    settings = RolloutSettings(prompt="brief", max_new_tokens=8)

    def sampled(seeds):
        episodes = [Episode(task(), WordEnv(["red", "shoes", ""]), 0, seed) for seed in seeds]
        found = collect(episodes, engine, policy.tokenizer, settings)
        return {t.seed: [turn.action_ids for turn in t.turns] for t in found}

    many = sampled(range(10))
    assert sampled([7]) == {7: many[7]}
    assert len({str(v) for v in many.values()}) > 5


class Slow(WordEnv):
    """Waits before each reply, by a time of its own."""

    def __init__(self, words, pauses):
        super().__init__(words)
        self.pauses = list(pauses)

    def step(self, action):
        time.sleep(self.pauses.pop(0))
        return super().step(action)


def slowly(env_threads, env_passes, seed=0):
    """Turns of nine episodes whose environments reply after times that `seed` shuffles."""
    policy, rng = tiny_policy(), random.Random(seed)
    engine = LocalEngine(policy, EngineSettings(num_slots=4, max_context_tokens=256))
    settings = RolloutSettings(prompt="brief", max_new_tokens=8, env_threads=env_threads, env_passes=env_passes)
    envs = [Slow(["red", "shoes", ""], [rng.random() / 50 for _ in range(3)]) for _ in range(9)]
    played = collect([Episode(task(), env, 0, i) for i, env in enumerate(envs)], engine, policy.tokenizer, settings)
    assert all(env.pauses == [] for env in envs)
    return [[(turn.action_ids, turn.action_logprobs, turn.information) for turn in t.turns] for t in played], played


@pytest.mark.parametrize("env_passes", [0, 3])
def test_environments_in_threads_give_the_same_trajectories_to_the_last_digit_whatever_they_take(env_passes):
    first, played = slowly(3, env_passes, seed=1)
    assert slowly(3, env_passes, seed=2)[0] == slowly(8, env_passes, seed=3)[0] == first
    in_line, _ = slowly(0, 0)
    assert [[turn[::2] for turn in each] for each in first] == [[turn[::2] for turn in each] for each in in_line]
    assert {t.stop_reason for t in played} == {StopReason.DONE}


def test_environments_in_threads_are_asked_at_the_same_time():
    together = threading.Barrier(3, timeout=60)

    class Meeting(WordEnv):
        def step(self, action):
            together.wait()  # in line the first would wait for ever
            return super().step(action)

    engine = ScriptedEngine(TOKENIZER, [lambda context: GOOD] * 3)
    settings = RolloutSettings(prompt="brief", max_new_tokens=40, env_threads=3)
    played = collect([Episode(task(), Meeting(["a", ""])) for _ in range(3)], engine, TOKENIZER, settings)
    assert [(len(t.turns), t.stop_reason) for t in played] == [(2, StopReason.DONE)] * 3


def test_an_environment_that_fails_in_a_thread_ends_its_own_episode():
    class Broken(WordEnv):
        def step(self, action):
            raise OSError("the line is dead")

    engine = ScriptedEngine(TOKENIZER, [lambda context: GOOD] * 2)
    settings = RolloutSettings(prompt="brief", max_new_tokens=40, env_threads=2)
    ended = []
    episodes = [Episode(task(), Broken(["a"])), Episode(task(), WordEnv(["a", ""]))]
    collect(
        episodes, engine, TOKENIZER, settings, on_end=lambda place, t: ended.append((place, t.stop_reason, t.error))
    )
    assert ended == [(0, StopReason.ERROR, "OSError: the line is dead"), (1, StopReason.DONE, "")]


def test_a_number_of_threads_below_zero_is_refused():
    with pytest.raises(
        ValueError, match="model.rollout.env_threads too small: expected at least 0, got -1; set model.rollout"
    ):
        RolloutSettings(env_threads=-1)


def test_turn_seeds_differ_between_turns_and_trajectories():
    assert len({turn_seed(s, t) for s in range(20) for t in range(20)}) == 400


class Generous(WordEnv):
    def step(self, action: str) -> StepResult:
        return StepResult("more", reward=float("nan"))


def test_a_reward_that_is_no_number_is_an_error_of_that_episode():
    trajectory = play(Generous(["a", "b"]), [GOOD] * 2)
    assert trajectory.stop_reason == StopReason.ERROR
    assert (
        trajectory.error
        == "ValueError: expected an environment's reward to be a finite number of at most 1e+09, got nan (float)"
    )
    assert trajectory.reward == 0.0


def test_drift_counts_the_turns_whose_context_is_no_longer_what_the_engine_saw():
    trajectory = play(WordEnv(["one", "two", "three", ""]), [GOOD] * 4)
    assert drift(trajectory) == 0
    assert drift(trajectory, "full") == 2  # the first two contexts are the same in both modes
    trajectory.turns[1].information_ids[3] += 1
    assert drift(trajectory) == 1  # turn 2 saw it, turn 3 did not
    trajectory.prompt_ids[0] += 1
    assert drift(trajectory) == 4


def test_an_unknown_memory_mode_is_refused_before_anything_is_played():
    with pytest.raises(ValueError, match="unknown memory mode"):
        play(WordEnv([""]), [], mode="elephant")


def test_the_end_of_every_episode_is_told_once_however_it_came():
    class Closed:
        def observe(self):
            raise RuntimeError("closed")

    told = []
    engine = ScriptedEngine(TOKENIZER, [lambda context: GOOD] * 3)
    envs = [WordEnv(["one", ""]), Closed(), WordEnv(["one", "two", "three"])]
    episodes = [Episode(task(max_turns=2), env) for env in envs]
    found = collect(episodes, engine, TOKENIZER, BRIEF, on_end=lambda place, t: told.append((place, t)))
    assert [(place, t.stop_reason) for place, t in told] == [
        (1, StopReason.ERROR),
        (0, StopReason.DONE),
        (2, StopReason.MAX_TURNS),
    ]
    assert all(found[place] is trajectory for place, trajectory in told)


ACT, MEMORY = "go on <answer>click[red]</answer>", "red</summary>"


def staged(env, script, **more):
    """An episode in which the memory is written apart, and the contexts that it was played in."""
    seen, lines = [], iter(script)

    def write(context):
        seen.append(context)
        return next(lines)

    engine = ScriptedEngine(TOKENIZER, [write])
    episode = Episode(task(**more), env)
    (trajectory,) = collect([episode], engine, TOKENIZER, BRIEF, "summary")
    return trajectory, [context.rpartition("assistant\n")[2] for context in seen]


def test_a_memory_is_asked_for_after_each_reply_and_what_acts_sees_it_and_the_reply():
    trajectory, seen = staged(WordEnv(["one", "two", ""]), [ACT, "a</summary>", ACT, "b</summary>", ACT])
    assert seen == [
        "",
        f"{ACT}<state>7 turns left\none</state><summary>",
        "<summary>a</summary><state>7 turns left\none</state>",
        f"<summary>a</summary>{ACT}<state>6 turns left\ntwo</state><summary>",
        "<summary>b</summary><state>6 turns left\ntwo</state>",
    ]
    assert [turn.kind for turn in trajectory.turns] == ["act", "memory", "act", "memory", "act"]
    memory = trajectory.turns[1]
    assert (text(memory.opening_ids), text(memory.action_ids)) == ("<summary>", "a</summary>")
    assert (memory.valid, memory.action, memory.information_ids, memory.reward) == (True, None, [], 0.0)
    assert (trajectory.stop_reason, trajectory.reward, trajectory.success) == (StopReason.DONE, 1.0, 1.0)
    assert drift(trajectory, "summary") == 0
    assert drift(trajectory) == 3  # the first act and the first memory see the same in both modes


def test_memories_written_apart_cost_no_turns_and_need_not_be_closed():
    env = WordEnv(["page"] * 9)
    trajectory, _ = staged(env, [ACT, " lost", ACT, MEMORY, ACT], max_turns=3)
    assert (len(env.actions), len(trajectory.acts), len(trajectory.turns)) == (3, 3, 5)
    assert [turn.valid for turn in trajectory.turns] == [True, False, True, True, True]
    assert trajectory.stop_reason == StopReason.MAX_TURNS


def test_an_engine_ends_a_memory_at_its_closing_tag_and_an_act_at_its_own():
    policy = tiny_policy()
    asked = []

    class Watched(LocalEngine):
        def submit(self, request):
            asked.append((request.stop, request.max_new_tokens))
            super().submit(request)

    engine = Watched(policy, EngineSettings(num_slots=1, max_context_tokens=300))
    settings = RolloutSettings(prompt="brief", max_new_tokens=8)
    collect([Episode(task(), WordEnv(["red", ""]))], engine, policy.tokenizer, settings, "summary")
    assert asked == [(("</answer>",), 8), (("</summary>",), 8), (("</answer>",), 8)]


def test_a_prompt_that_explains_the_format_explains_memory_written_apart():
    encoder = RolloutSettings(prompt="full").encoder(TOKENIZER)
    both, apart = (text(encoder.prompt_ids(task(), "page", staged)) for staged in (False, True))
    assert "your memory and reasoning in one" in both and "two kinds of turns alternate" in apart
    assert apart.endswith("count to 0\npage\n8 turns left<|im_end|>\n<|im_start|>assistant\n")


def test_a_turn_that_begins_with_the_state_is_read_with_the_tag_that_it_was_given():
    written = ["found red</summary><answer>click[red]</answer>", "<summary>again</summary><answer>click[blue]</answer>"]
    said = iter(written)
    engine = ScriptedEngine(tiny_tokenizer(), [lambda context: next(said)])
    env = WordEnv(["red", ""])
    settings = RolloutSettings(max_new_tokens=40, prompt="brief", begin_with_state=True)
    (trajectory,) = collect([Episode(task(), env)], engine, tiny_tokenizer(), settings)
    assert env.actions == ["click[red]", "click[blue]"]  # a tag that is written a second time is not there twice
    decode = tiny_tokenizer().decode
    assert [decode(turn.opening_ids) for turn in trajectory.turns] == ["<summary>", "<summary>"]
    assert all("<summary>" not in decode(turn.action_ids) for turn in trajectory.turns)
    assert [turn.valid for turn in trajectory.turns] == [True, True]
