"""The endpoint, called by OpenAI's own client and by clients that do not behave."""

import asyncio
import json
import socket
import urllib.error
import urllib.request
from contextlib import suppress

import pytest
import torch

from foreign import SpokenEngine, chat_policy, played, spelled
from lightning_mem1.context.contexts import drift
from lightning_mem1.context.continuation import continuing
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import StopReason

openai = pytest.importorskip("openai")

POLICY = chat_policy()
TOKENIZER = POLICY.tokenizer
EOS = TOKENIZER.eos_token
TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}


def spoken(agent, write, count=1, **settings):
    """Trajectories of an agent whose policy says what a function says, and the contexts that it saw."""
    engine = SpokenEngine(TOKENIZER, write)
    return played(agent, count, POLICY, engine, **settings), engine.seen


def said(*messages):
    return "".join(f"<|im_start|>{role}\n{text}{EOS}\n" for role, text in messages) + "<|im_start|>assistant\n"


def test_a_chat_becomes_turns_with_the_ids_that_were_sampled():
    async def agent(task, client):
        messages = [{"role": "user", "content": "red?"}]
        for reply in ("no", None):
            answer = await client.chat.completions.create(model="any", messages=messages)
            choice = answer.choices[0]
            assert (choice.message.content, choice.finish_reason) == ("shoes", "stop")
            messages += [choice.message.model_dump(exclude_none=True), {"role": "user", "content": reply}]
        return 0.25

    (trajectory,), seen = spoken(agent, lambda context: "shoes")
    first, second = trajectory.turns
    assert seen == [
        said(("user", "red?")),
        said(("user", "red?"), ("assistant", "shoes"), ("user", "no")),
    ]
    sampled = [*spelled(TOKENIZER, "shoes"), TOKENIZER.eos_token_id]
    assert sampled != TOKENIZER.encode(f"shoes{EOS}", add_special_tokens=False)  # as text it would be other ids
    assert first.action_ids == second.action_ids == sampled
    assert first.action_logprobs == [-0.5] * len(sampled)
    assert list(second.context_ids) == [*first.context_ids, *sampled, *first.information_ids]
    assert first.information == f"\n<|im_start|>user\nno{EOS}\n<|im_start|>assistant\n"
    assert (trajectory.reward, trajectory.stop_reason) == (0.25, StopReason.DONE)
    assert trajectory.prompt_ids == list(first.context_ids)
    assert drift(trajectory, "recorded") == 0


def test_of_two_messages_that_say_the_same_the_one_after_the_same_messages_is_meant():
    async def agent(task, client):
        async def ask(*messages):
            sent = [{"role": role, "content": text} for role, text in messages]
            return (await client.chat.completions.create(model="m", messages=sent)).choices[0].message.content

        assert [await ask(("user", "a")), await ask(("user", "b"))] == ["same", "same"]
        await ask(("user", "a"), ("assistant", " same\n"), ("user", "on"))  # spaces at the ends do not matter
        await ask(("user", "c"), ("assistant", "same"), ("user", "on"))  # after neither: the latest
        return 1

    class Twice(SpokenEngine):
        """Writes the same word in other ids each time."""

        def step(self):
            (done,) = super().step()
            whole = TOKENIZER.encode("same", add_special_tokens=False)
            ids = [*(whole if len(self.seen) == 2 else spelled(TOKENIZER, "same")), TOKENIZER.eos_token_id]
            return [type(done)(done.session, ids, [-0.5] * len(ids))]

    (trajectory,) = played(agent, 1, POLICY, Twice(TOKENIZER, lambda context: "same"))
    letters, whole = trajectory.turns[0].action_ids, trajectory.turns[1].action_ids
    assert letters != whole

    def holds(turn, ids):
        context = list(turn.context_ids)
        return any(context[start : start + len(ids)] == ids for start in range(len(context)))

    assert (holds(trajectory.turns[2], letters), holds(trajectory.turns[2], whole)) == (True, False)
    assert (holds(trajectory.turns[3], letters), holds(trajectory.turns[3], whole)) == (True, False)
    assert drift(trajectory, "recorded") == 0


def test_what_the_policy_did_not_say_so_is_read_as_text_and_counted():
    async def agent(task, client):
        sent = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "made up"}]
        await client.chat.completions.create(model="m", messages=[*sent, {"role": "user", "content": "b"}])
        return 1

    (trajectory,), seen = spoken(agent, lambda context: "ok")
    assert seen == [said(("user", "a"), ("assistant", "made up"), ("user", "b"))]
    assert trajectory.turns[0].num_unmatched == 1
    assert drift(trajectory, "recorded") == 1


def test_tools_are_offered_called_and_answered():
    async def agent(task, client):
        messages = [{"role": "user", "content": "find"}]
        answer = await client.chat.completions.create(model="m", messages=messages, tools=[TOOL], tool_choice="auto")
        message = answer.choices[0].message
        assert answer.choices[0].finish_reason == "tool_calls"
        (call,) = message.tool_calls
        assert (message.content, call.function.name, json.loads(call.function.arguments)) == ("hm", "look", {"at": "x"})
        messages += [
            message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": "a hat"},
        ]
        await client.chat.completions.create(model="m", messages=messages, tools=[TOOL])
        dropped = [
            messages[0],
            {**messages[1], "content": None},
            messages[2],
        ]  # some clients drop the text beside calls
        await client.chat.completions.create(model="m", messages=dropped, tools=[TOOL])
        return 1

    written = 'hm<tool_call>{"name": "look", "arguments": {"at": "x"}}</tool_call>'
    (trajectory,), seen = spoken(agent, lambda context: "done" if "hat" in context else written)
    assert seen[0].startswith('<|im_start|>system\ntools: {"type": "function"')
    assert f"<|im_start|>assistant\n{written}{EOS}\n<|im_start|>tool\na hat{EOS}" in seen[1]
    assert seen[2] == seen[1]
    assert list(trajectory.turns[2].context_ids) == list(trajectory.turns[1].context_ids)
    assert [turn.valid for turn in trajectory.turns] == [True, True, True]
    assert drift(trajectory, "recorded") == 0


def test_a_tool_call_that_cannot_be_read_is_text_and_an_invalid_turn():
    async def agent(task, client):
        sent = [{"role": "user", "content": "find"}]
        answer = await client.chat.completions.create(model="m", messages=sent, tools=[TOOL])
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("<tool_call>look", "stop")
        return 0

    (trajectory,), _ = spoken(agent, lambda context: "<tool_call>look")
    assert [turn.valid for turn in trajectory.turns] == [False]


def test_a_stream_says_the_same_in_pieces():
    async def agent(task, client):
        sent = [{"role": "user", "content": "find"}]
        events = await client.chat.completions.create(
            model="m", messages=sent, tools=[TOOL], stream=True, stream_options={"include_usage": True}
        )
        text, calls, ends, usage = "", [], [], None
        async for event in events:
            usage = event.usage or usage
            for choice in event.choices:
                text += choice.delta.content or ""
                calls += choice.delta.tool_calls or []
                ends += [choice.finish_reason] if choice.finish_reason else []
        assert (text, [call.function.name for call in calls], ends) == ("hm", ["look"], ["tool_calls"])
        assert usage.completion_tokens == len(spelled(TOKENIZER, WRITTEN)) + 1
        async with client.chat.completions.stream(model="m", messages=sent, tools=[TOOL]) as helper:
            final = await helper.get_final_completion()
        assert final.choices[0].message.tool_calls[0].function.arguments == "{}"
        return 1

    WRITTEN = 'hm<tool_call>{"name": "look", "arguments": {}}</tool_call>'
    (trajectory,), _ = spoken(agent, lambda context: WRITTEN)
    assert (trajectory.error, len(trajectory.turns)) == ("", 2)


def test_plain_completions_go_on_from_the_sampled_ids_of_what_they_begin_with():
    def agent(task, client):
        first = client.completions.create(model="m", prompt="red", logprobs=1, extra_body={"return_token_ids": True})
        choice = first.choices[0]
        assert (choice.text, choice.logprobs.token_logprobs[0]) == ("shoes", -0.5)
        assert choice.token_ids == [*spelled(TOKENIZER, "shoes"), TOKENIZER.eos_token_id]
        client.completions.create(model="m", prompt="redshoes and")
        client.completions.create(model="m", prompt=[5, 6, 7])
        client.completions.create(model="m", prompt="state red shoes? search")  # in the middle of another text
        return 1

    (trajectory,), _ = spoken(agent, lambda context: "red shoes" if "and" in context else "shoes")
    first, second, third, fourth = (list(turn.context_ids) for turn in trajectory.turns)
    before = TOKENIZER.encode("state ", add_special_tokens=False)
    behind = continuing(TOKENIZER).encode("? search", add_special_tokens=False)
    assert fourth == [*before, *spelled(TOKENIZER, "red shoes"), *behind]
    assert second == [
        *first,
        *spelled(TOKENIZER, "shoes"),
        *continuing(TOKENIZER).encode(" and", add_special_tokens=False),
    ]
    assert third == [5, 6, 7]
    assert trajectory.prompt_ids == []


def test_a_stop_string_ends_the_turn_and_is_left_out_of_the_text():
    async def agent(task, client):
        sent = [{"role": "user", "content": "a"}]
        answer = await client.chat.completions.create(model="m", messages=sent, stop=[" shoes"], max_tokens=7)
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("red", "stop")
        kept = await client.completions.create(
            model="m", prompt="a", stop=["shoes"], extra_body={"include_stop_str_in_output": True}
        )
        assert kept.choices[0].text == "red shoes"
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        return 1

    (trajectory,), _ = spoken(agent, lambda context: "red shoes")
    assert trajectory.error == ""


def test_the_models_are_listed_and_any_name_is_answered():
    def agent(task, client):
        assert [model.id for model in client.models.list().data] == ["policy"]
        assert client.models.retrieve("gpt-9/mini").id == "gpt-9/mini"
        assert client.completions.create(model="gpt-9/mini", prompt="red").model == "gpt-9/mini"
        return 1

    (trajectory,), _ = spoken(agent, lambda context: "ok")
    assert trajectory.error == ""


def test_calls_beside_each_other_in_one_episode_are_sampled_alike_in_whatever_order_they_come():
    async def agent(task, client):
        async def ask(text):
            sent = [{"role": "user", "content": text}]
            return (await client.chat.completions.create(model="m", messages=sent)).choices[0].message.content

        await asyncio.gather(*(ask(text) for text in ("red", "blue", "red", "state")))
        return 1

    def run():
        (trajectory,) = played(agent, 1, POLICY)
        return sorted((tuple(turn.context_ids), tuple(turn.action_ids)) for turn in trajectory.turns)

    found = run()
    assert found == run()
    assert len(found) == 4 and len(set(found)) == 4  # asked the same twice, it samples twice


class Raw:
    """A client without manners."""

    def __init__(self, client):
        self.url, self.key = str(client.base_url).rstrip("/"), client.api_key

    def ask(self, path, data, key=None, method="POST", url=None):
        """Status and error, or body, of an answer."""
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        headers = {"Authorization": f"Bearer {self.key if key is None else key}", "Content-Type": "application/json"}
        request = urllib.request.Request((url or self.url) + path, None if method == "GET" else body, headers)
        request.method = method
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())["error"]


CHAT = {"model": "m", "messages": [{"role": "user", "content": "a"}]}


def test_whatever_a_client_does_wrong_is_answered_with_a_status_and_a_line_and_ends_nothing():
    found = []

    def agent(task, client):
        raw = Raw(client)
        base = raw.url.removesuffix("/v1")
        post = "/chat/completions"
        found.extend(
            [
                raw.ask(post, CHAT, key="wrong"),
                raw.ask(post, CHAT, url=f"{base}/episodes/nobody/v1"),
                raw.ask(post, b'{"messages": ['),
                raw.ask(post, b"\xff\xfe"),
                raw.ask(post, b"[" * 100_000),
                raw.ask(post, []),
                raw.ask(post, {"messages": []}),
                raw.ask(post, {"messages": [{"role": "king", "content": "a"}]}),
                raw.ask(post, {"messages": [{"role": "user", "content": 7}]}),
                raw.ask(post, {**CHAT, "n": 2}),
                raw.ask(post, {**CHAT, "max_tokens": 0}),
                raw.ask(post, {**CHAT, "tools": [{"type": "function"}]}),
                raw.ask(post, {**CHAT, "stop": [""]}),
                raw.ask(post, {**CHAT, "response_format": {"type": "json_object"}}),
                raw.ask(post, {"messages": [{"role": "user", "content": "a" * 10_000_000}]}),
                raw.ask(post, {"messages": [{"role": "user", "content": "a" * 200_000}]}),
                raw.ask("/completions", {"prompt": [1, 10**6]}),
                raw.ask("/completions", {}),
                raw.ask(post, CHAT, method="GET"),
                raw.ask("/embeddings", CHAT),
            ]
        )
        assert raw.ask(post, CHAT)[0] == 200
        assert raw.ask(post, CHAT, key="", url=f"{base}/episodes/{raw.key}/v1")[0] == 200
        return 1

    (trajectory,), _ = spoken(agent, lambda context: "ok")
    assert (trajectory.error, trajectory.reward, len(trajectory.turns)) == ("", 1.0, 2)
    assert [status for status, _ in found] == [401, 404, *[400] * 12, 413, 400, 400, 400, 405, 404]
    messages = [error["message"] for _, error in found]
    assert messages[0] == "expected the key of an episode that is open in 'Authorization: Bearer KEY'"
    assert messages[2].startswith("expected JSON, got JSONDecodeError: Expecting value")
    assert messages[10] == "expected 'max_tokens' to be a whole number from 1 up, got 0"
    assert messages[6] == "expected 'messages' to be a list of at least one message, got []"
    assert messages[7].startswith(
        "expected messages[0] to have a role, one of system, developer, user, assistant, tool"
    )
    assert messages[9] == "expected 'n' to be 1 or left out, got 2"
    assert messages[14] == "expected a body of at most 1310720 bytes, got more"
    assert messages[15].startswith("prompt is too long: expected at most 4096 tokens, got more in 2000")
    assert found[0][1]["type"] == "authentication_error"


def test_a_context_that_does_not_fit_is_said_as_openai_says_it_and_ends_the_episode_by_context():
    def agent(task, client):
        client.completions.create(model="m", prompt="red")
        client.completions.create(model="m", prompt=[5] * 60)

    engine = LocalEngine(POLICY, EngineSettings(num_slots=2, max_context_tokens=64))
    (trajectory,) = played(agent, 1, POLICY, engine)
    assert trajectory.stop_reason == StopReason.CONTEXT
    assert "BadRequestError: Error code: 400 - the context does not fit: expected at most 64" in trajectory.error
    assert len(trajectory.turns) == 1


def test_more_calls_than_are_allowed_are_refused_and_end_the_episode_by_turns():
    def agent(task, client):
        while True:
            client.completions.create(model="m", prompt="red")

    (trajectory,), _ = spoken(agent, lambda context: "ok", max_calls=3)
    assert (trajectory.stop_reason, len(trajectory.turns)) == (StopReason.MAX_TURNS, 3)


def test_a_turn_that_the_engine_cannot_generate_is_the_clients_error():
    def agent(task, client):
        client.with_options(max_retries=0).completions.create(model="m", prompt="red")

    (trajectory,), _ = spoken(agent, lambda context: "broken")
    assert trajectory.stop_reason == StopReason.ERROR
    assert "InternalServerError" in trajectory.error and "engine: the machine is gone" in trajectory.error
    assert trajectory.turns == []


def test_a_client_that_goes_before_its_answer_comes_leaves_no_turn_and_disturbs_nobody():
    def agent(task, client):
        if task.id == "tiny/1":
            return [client.completions.create(model="m", prompt="blue").choices[0].text for _ in range(5)] and 1
        raw, host = Raw(client), client.base_url.host
        body = json.dumps({"prompt": "gone", "stream": True}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {raw.key}\r\n"
        with socket.create_connection((host, client.base_url.port)) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            waited(lambda: "gone" in SEEN)
        client.completions.create(model="m", prompt="still here")
        return 1

    SEEN = []

    def write(context):
        SEEN.append(context)
        if context == "gone":
            GONE.wait(0.3)  # the client leaves meanwhile
        return "ok"

    import threading

    GONE = threading.Event()
    trajectories, _ = spoken(agent, write, count=3)
    assert [(t.error, t.reward) for t in trajectories] == [("", 1.0)] * 3
    assert [turn.context_ids == TOKENIZER.encode("gone") for turn in trajectories[0].turns].count(True) == 0
    assert len(trajectories[2].turns) == 5


def waited(ready, seconds=10.0):
    import time

    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_temperature_and_nucleus_are_the_trainers_whatever_a_client_asks_for():
    async def agent(task, client):
        sent = [{"role": "user", "content": "a"}]
        await client.chat.completions.create(model="m", messages=sent, temperature=0.0, top_p=0.1, seed=3)
        return 1

    hot = played(agent, 4, POLICY, rollout=RolloutSettings(max_new_tokens=8, temperature=1.0))
    assert len({tuple(each.turns[0].action_ids) for each in hot}) > 1  # greedily they would be the same
    with torch.no_grad(), suppress(StopIteration):
        cold = played(agent, 4, POLICY, rollout=RolloutSettings(max_new_tokens=8, temperature=0.0))
    assert len({tuple(each.turns[0].action_ids) for each in cold}) == 1


def test_text_that_is_no_unicode_and_numbers_that_are_none_are_the_clients_mistake():
    found = []

    def agent(task, client):
        raw = Raw(client)
        half = b'{"messages": [{"role": "user", "content": "a \\ud83d b"}]}'
        found.append(raw.ask("/chat/completions", half))
        found.append(raw.ask("/completions", b'{"prompt": "a \\ud83d b"}'))
        found.append(raw.ask("/chat/completions", b'{"messages": [{"role": "user", "content": NaN}]}'))
        found.append(raw.ask("/chat/completions", {**CHAT, "tools": [{"function": {"name": "\ud83d"}}]}))
        found.append(raw.ask("/chat/completions", {**CHAT, "chat_template_kwargs": {"messages": []}}))
        assert raw.ask("/chat/completions", CHAT)[0] == 200
        return 1

    (trajectory,), _ = spoken(agent, lambda context: "ok")
    assert (trajectory.error, len(trajectory.turns)) == ("", 1)
    assert [status for status, _ in found] == [400] * 5


def test_a_stream_that_is_cancelled_half_way_ends_nothing_else():
    async def agent(task, client):
        for _ in range(3):
            pieces = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "find"}], stream=True
            )
            async for _piece in pieces:
                break
            await pieces.close()
        sent = [{"role": "user", "content": "more"}]
        return float(
            (await client.chat.completions.create(model="m", messages=sent)).choices[0].message.content == "ok"
        )

    trajectories, _ = spoken(agent, lambda context: "ok", count=2)
    assert [(each.error, each.reward, len(each.turns)) for each in trajectories] == [("", 1.0, 4)] * 2


def test_a_body_that_does_not_come_is_waited_for_no_longer_than_a_limit(monkeypatch):
    monkeypatch.setattr("lightning_mem1.rollout.gateway.exchange.BODY_S", 0.05)

    def agent(task, client):
        key, address = client.api_key, (client.base_url.host, client.base_url.port)
        head = f"POST /v1/completions HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {key}\r\n"
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(f"{head}Content-Length: 99\r\n\r\n{{".encode())
            assert b" 408 " in connection.recv(1024)
        client.completions.create(model="m", prompt="red")
        return 1

    (trajectory,), _ = spoken(agent, lambda context: "ok")
    assert (trajectory.error, len(trajectory.turns)) == ("", 1)
