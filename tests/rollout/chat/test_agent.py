"""A served agent sees, turn for turn, the ids that a rollout would have shown it."""

import asyncio
from dataclasses import replace

import pytest

from foreign import chat_policy
from lightning_mem1.context.modes import MODES
from lightning_mem1.context.tags import QA_TAGS
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.rollout.chat.agent import ChatAgent, Sampling, Talk
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.gateway.refused import Refused
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import Completion
from tiny import WordEnv, task

TOKENIZER = chat_policy().tokenizer
WORDS = ["one red", "two", "three shoes", "four", "five", ""]


class Page(WordEnv):
    """Shows the word it said last, and a page before."""

    def observe(self):
        return self.words[len(self.actions) - 1] if self.actions else "search page"


class Recorded(ScriptedEngine):
    """Keeps the contexts that it was asked with."""

    def submit(self, request):
        self.__dict__.setdefault("contexts", []).append(list(request.context_ids))
        super().submit(request)


def writer(actions):
    """Writes turns with these actions, and memories wherever one is asked for."""
    lines = iter(actions)

    def write(context):
        if context.endswith("<think>"):
            return "<think>kept</think>"  # the opening is there already and is taken off
        text = next(lines)
        return text if "<" in text or " " in text else f"<think>red</think>{text_of(text)}"

    def text_of(action):
        name, _, argument = action.removesuffix("]").partition("[")
        return QA_TAGS.written(name, argument)

    return write


def agent_of(engine, settings, mode):
    async def generate(request):
        engine.submit(replace(request, session=0))
        (done,) = engine.step()
        return Completion(0, done.ids, done.logprobs)

    return ChatAgent(generate, TOKENIZER, settings, mode, engine.max_context_tokens)


def talked(agent, messages, max_turns):
    """The session after these messages, and what was sent back to each."""
    talk, actions = Talk(max_turns), []
    for message in messages:
        talk = asyncio.run(agent.answer(talk, message, Sampling()))
        actions.append(talk.turns[-1].action)
    return talk, actions


ACTIONS = ["search[a]", "no action at all", "search[b]", "search[c]", "search[d]", "answer[x]"]


@pytest.mark.parametrize("malformed", ["keep", "retry"])
@pytest.mark.parametrize("mode", list(MODES))
def test_every_context_is_the_one_of_a_rollout(mode, malformed):
    settings = RolloutSettings(format="qa", prompt="brief", max_new_tokens=90, malformed=malformed)
    first = Recorded(TOKENIZER, [writer(ACTIONS)])
    (played,) = collect([Episode(task(max_turns=6), Page(WORDS))], first, TOKENIZER, settings, mode)
    second = Recorded(TOKENIZER, [writer(ACTIONS)])
    agent = agent_of(second, settings, mode)
    messages = [f"{played.task.prompt}\nsearch page", *WORDS[:-1]]
    talk, actions = talked(agent, messages, 6)
    assert second.contexts == first.contexts
    assert [turn.action_ids for turn in talk.turns] == [turn.action_ids for turn in played.turns]
    assert [turn.context_hash for turn in talk.turns] == [turn.context_hash for turn in played.turns]
    assert actions == [turn.action for turn in played.acts]
    assert talk.turns_left == 0


@pytest.mark.parametrize(
    ("mode", "actions"),
    [
        ("recall", ["search[a]", "search[b]", "recall[0]", "answer[x]"]),
        ("fold", ["search[a]", "branch[find]", "search[b]", "return[found]", "answer[x]"]),
        ("edit", ["search[a]", "search[b]", "delete[0]", "answer[x]"]),
        ("edit", ["search[a]", "delete[7]", "search[b]", "answer[x]"]),
    ],
)
def test_what_the_memory_mode_answers_is_answered_by_the_server(mode, actions):
    settings = RolloutSettings(format="qa", prompt="brief", max_new_tokens=90)
    own = [each for each in actions if each.partition("[")[0] not in ("search", "answer")]
    first = Recorded(TOKENIZER, [writer(actions)])
    env = Page(["one red", "two", ""] if "7" not in str(own) else ["one red", "one red", "two", ""])
    (played,) = collect([Episode(task(max_turns=9), env)], first, TOKENIZER, settings, mode)
    second = Recorded(TOKENIZER, [writer(actions)])
    messages = [f"{played.task.prompt}\nsearch page", *env.words[:-1]]
    talk, seen = talked(agent_of(second, settings, mode), messages, 9)
    assert second.contexts == first.contexts
    assert [turn.directive for turn in talk.turns] == [turn.directive for turn in played.turns]
    assert seen[-1] == "answer[x]"


def test_a_session_that_has_had_its_turns_or_does_not_fit_is_refused_and_stays():
    settings = RolloutSettings(format="qa", prompt="brief", max_new_tokens=90)
    engine = Recorded(TOKENIZER, [writer(ACTIONS)])
    agent = agent_of(engine, settings, "mem1")
    talk, _ = talked(agent, ["who?", "a page"], 2)
    with pytest.raises(Refused, match="has had its 2 turns") as spent:
        asyncio.run(agent.answer(talk, "more", Sampling()))
    assert spent.value.status == 403
    agent.max_context_tokens = 100
    with pytest.raises(Refused, match="expected at most 100 tokens") as outgrown:
        asyncio.run(agent.answer(Talk(3), "who " * 50, Sampling()))
    assert (outgrown.value.status, outgrown.value.code) == (400, "context_length_exceeded")
