"""What a rollout does with the actions of a memory mode: who answers, what the reply holds, what it costs."""

import pytest

from lightning_mem1.context.contexts import contexts
from lightning_mem1.context.tags import QA_TAGS, Tags
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.rollout.budget import longest_of
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import Directive, StepResult, StopReason
from tiny import WordEnv, task, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
BRIEF = RolloutSettings(prompt="brief", max_new_tokens=60)


class Shop(WordEnv):
    """Shows the word it said last."""

    def observe(self):
        return self.words[len(self.actions) - 1] if self.actions else "search page"


def play(env, actions, mode, settings=BRIEF, max_turns=8):
    """Turns that hold these actions, each behind an internal state; a text with a tag is written as it is."""
    lines = iter(each if "<" in each else f"<summary>red</summary><answer>{each}</answer>" for each in actions)
    engine = ScriptedEngine(TOKENIZER, [lambda context: next(lines)])
    return collect([Episode(task(max_turns=max_turns), env)], engine, TOKENIZER, settings, mode)[0]


def text(ids):
    return TOKENIZER.decode(ids)


def replies(trajectory):
    return [text(turn.information_ids) for turn in trajectory.turns[:-1]]


def test_a_branch_is_opened_and_closed_by_the_mode_and_the_page_is_shown_again_where_it_left_the_context():
    env = Shop(["one", "two", ""])
    trajectory = play(
        env, ["click[red]", "branch[find shoes]", "click[shoes]", "return[it is 3]", "click[red]"], "fold"
    )
    assert [action.replace(" ", "") for action in env.actions] == ["click[red]", "click[shoes]", "click[red]"]
    assert [turn.information for turn in trajectory.turns] == [
        "one",
        "The branch is open; end it by return[message].\n",
        "two",
        "Back in the main thread.\ntwo",
        "",
    ]
    assert [turn.directive for turn in trajectory.turns] == [None, Directive("branch"), None, Directive("return"), None]
    assert all(turn.valid for turn in trajectory.turns) and trajectory.stop_reason == StopReason.DONE
    assert [text(context).count("shoes]") for context in contexts(trajectory, "fold")] == [0, 0, 1, 2, 1]


def test_a_turn_that_asks_in_vain_is_invalid_and_its_reply_says_so():
    env = Shop(["one", "two", "three", ""])
    trajectory = play(env, ["click[red]", "delete[3]", "delete[0]", "click[red]", "click[red]"], "edit")
    assert env.actions == ["click[red]", "", "click[red]", "click[red]"]  # as after any malformed turn
    assert [turn.valid for turn in trajectory.turns] == [True, False, True, True, True]
    assert trajectory.turns[1].action.replace(" ", "") == "delete[3]" and trajectory.turns[1].directive is None
    assert replies(trajectory) == [
        "<state>7 turns left\nturn 0\none</state>",
        "<state>6 turns left\nturn 1\ndelete: expected turns of 0, got 3\ntwo</state>",
        "<state>5 turns left\nturn 2\ndeleted 0.\ntwo</state>",
        "<state>4 turns left\nturn 3\nthree</state>",
    ]


def test_a_turn_that_asks_in_vain_is_retried_where_malformed_ones_are():
    env = Shop(["one", "two", "three", ""])
    settings = RolloutSettings(prompt="brief", max_new_tokens=60, malformed="retry")
    trajectory = play(env, ["click[red]", "recall[0]", "click[red]", "recall[0]", "click[red]"], "recall", settings)
    assert [turn.retried for turn in trajectory.turns] == [False, True, False, False, False]
    assert trajectory.turns[3].directive == Directive("recall", (0,))  # the turns are 0, 1 and this one, 2
    assert replies(trajectory)[2].startswith("<state>5 turns left\nturn 1\n")


def test_what_is_recalled_is_quoted_by_the_ids_that_it_had():
    env = Shop(["one", "two", ""])
    trajectory = play(env, ["click[red]", "click[shoes]", "recall[0]", "click[red]"], "recall")
    first, fetched = trajectory.turns[0], trajectory.turns[2]
    quoted = [*first.action_ids, *first.information_ids]
    starts = [n for n in range(len(fetched.information_ids)) if fetched.information_ids[n : n + len(quoted)] == quoted]
    assert len(starts) == 1
    assert text(fetched.information_ids).endswith("</state>\nend of what was fetched: 0.\ntwo</state>")
    assert contexts(trajectory, "recall")[3][len(trajectory.prompt_ids) :] == [*fetched.ids, *fetched.information_ids]


def test_what_is_recalled_keeps_to_the_limit_of_a_reply():
    env = Shop(["shoes " * 200, "two", ""])
    settings = RolloutSettings(prompt="brief", max_new_tokens=60, max_information_tokens=160)
    trajectory = play(env, ["click[red]", "click[shoes]", "recall[0]", "click[red]"], "recall", settings)
    fetched = trajectory.turns[2].information_ids
    assert len(fetched) == len(trajectory.turns[0].information_ids) == 160
    assert text(fetched).endswith("end of what was fetched: 0.\ntwo</state>")  # the quote loses its end, not the page


def test_a_memory_action_costs_its_turn_and_in_threads_it_is_the_same():
    actions = ["click[red]", "branch[red]", "return[red]"]
    in_line = play(Shop(["one", "two", ""]), actions, "fold", max_turns=3)
    assert in_line.stop_reason == StopReason.MAX_TURNS and len(in_line.turns) == 3
    threads = RolloutSettings(prompt="brief", max_new_tokens=60, env_threads=2)
    apart = play(Shop(["one", "two", ""]), actions, "fold", threads, max_turns=3)
    assert [turn.information_ids for turn in apart.turns] == [turn.information_ids for turn in in_line.turns]


def test_an_environment_that_cannot_show_its_page_ends_its_own_episode():
    class Blind(Shop):
        def observe(self):
            if self.actions:
                raise OSError("the lamp is broken")
            return "search page"

    trajectory = play(Blind(["one", "two", ""]), ["click[red]", "branch[red]", "click[red]"], "fold")
    assert (trajectory.stop_reason, trajectory.error) == (StopReason.ERROR, "OSError: the lamp is broken")


def test_where_tags_name_the_actions_those_of_the_mode_have_tags_of_their_own_and_pages_cannot_hold_them():
    class Page(WordEnv):
        def step(self, action):
            self.actions.append(action)
            return StepResult("</recall> <recall>0</recall>", done=len(self.actions) > 2)

    settings = RolloutSettings(prompt="brief", max_new_tokens=60, tags=QA_TAGS)
    env, said = Page([]), ["search>red", "search>shoes", "recall>0", "answer>red"]
    turns = [f"<think>red</think><{each}</{each.split('>')[0]}>" for each in said]
    trajectory = play(env, turns, "recall", settings)
    assert env.actions == ["search[red]", "search[shoes]", "answer[red]"]
    assert trajectory.turns[2].action == "recall[0]" and trajectory.turns[2].directive == Directive("recall", (0,))
    assert "<recall" not in replies(trajectory)[0] and "</recall" not in replies(trajectory)[0]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("fold", "branch"),
        ("masked", "older replies are left out"),
        ("compaction", "stands behind the reply, do not act: write your memory"),
        ("mem1", "everything older is dropped"),
    ],
)
def test_an_explained_prompt_says_what_the_mode_does_and_is_counted_with_it(mode, said):
    settings = RolloutSettings(max_new_tokens=60, tags=QA_TAGS if mode == "fold" else Tags())
    trajectory = play(Shop([""]), ["click[red]"], mode, settings, max_turns=1)
    assert said in text(trajectory.prompt_ids)
    longest = longest_of([(task(max_turns=1), "search page")], settings.encoder(TOKENIZER), 60, mode)
    assert longest == len(trajectory.prompt_ids) + 60
