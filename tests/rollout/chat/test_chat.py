"""A served agent over HTTP: plain clients, OpenAI's own, and those that do not behave."""

import asyncio
import json
import socket
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from foreign import chat_policy
from lightning_mem1.rollout.chat.agent import ChatAgent, Talk
from lightning_mem1.rollout.chat.sessions import Sessions
from lightning_mem1.rollout.gateway.refused import Refused
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import Completion

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from lightning_mem1.rollout.chat.app import ChatEndpoint, ChatSettings  # noqa: E402  (imports a web server)

TOKENIZER = chat_policy().tokenizer
TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": {key: {"type": "string"}}}},
    }
    for name, key in (("search", "q"), ("answer", "text"))
]


class Served:
    """A server on loopback whose agent writes what a function says of the context."""

    def __init__(self, write, max_turns=6, max_sessions=8, timeout_s=60.0, key="", memory="mem1"):
        self.now, self.seen, self.held, self.entered = 0.0, [], threading.Event(), threading.Event()
        self.held.set()

        async def generate(request):
            context = TOKENIZER.decode(request.context_ids)
            self.seen.append(context)
            self.entered.set()
            while not self.held.is_set():
                await asyncio.sleep(0.005)
            text = write(context)
            if text == "broken":
                return Completion(0, [], [], error="the machine is gone")
            ids = [*TOKENIZER.encode(text, add_special_tokens=False), TOKENIZER.eos_token_id]
            return Completion(0, ids, [-0.5] * len(ids))

        settings = RolloutSettings(format="qa", prompt="brief", max_new_tokens=60)
        agent = ChatAgent(generate, TOKENIZER, settings, memory, 1024)
        self.sessions = Sessions(max_sessions, timeout_s, lambda: self.now)
        chat = ChatSettings("mine", key, max_turns, {TOKENIZER.eos_token_id})
        config = uvicorn.Config(
            ChatEndpoint(agent, self.sessions, chat).app(), log_config=None, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server, self._socket = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._server.serve(sockets=[self._socket])), daemon=True
        )

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.held.set()
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def ask(self, content="who?", role="user", path="/chat/completions", method="POST", headers=(), data=None, **body):
        """Status, and body or error, of an answer."""
        chat = {"model": "any", "messages": [{"role": role, "content": content}], **body}
        sent = None if method != "POST" else data if data is not None else json.dumps(chat).encode()
        request = urllib.request.Request(self.url + path, sent, dict(headers), method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())["error"]


def write(context):
    """Searches first, answers what it was shown."""
    if "page" in context:
        return "<think>a page</think><answer>red</answer>"
    return "<think>nothing yet</think><search>red shoes</search>"


def content(found):
    return found["choices"][0]["message"]["content"]


def test_a_client_sends_the_newest_message_and_the_server_keeps_the_constant_context():
    with Served(write) as served:
        status, first = served.ask("who?")
        assert status == 200 and content(first) == "<think>nothing yet</think><search>red shoes</search>"
        assert first["agent"] == {
            "internal_state": "nothing yet", "action": "search[red shoes]", "problem": "", "turns_left": 5
        }  # fmt: skip
        name = first["session_id"]
        _, second = served.ask("a page", session_id=name)
        assert content(second) == "<think>a page</think><answer>red</answer>"
        assert second["choices"][0]["finish_reason"] == "stop"
        served.ask("another page", session_id=name)
        before, last = served.seen[1:]
        assert "who?" in last and "another page" in last and "red shoes" not in last  # mem1: the last turn alone
        assert "red shoes" in before
        assert (
            second["usage"]["total_tokens"] == second["usage"]["prompt_tokens"] + second["usage"]["completion_tokens"]
        )


def test_a_session_is_named_by_a_header_the_body_or_the_user_and_others_are_not_touched():
    with Served(write) as served:
        for number, how in enumerate(({"headers": {"X-Session-ID": "a"}}, {"session_id": "b"}, {"user": "c"}), start=1):
            assert served.ask(**how)[1]["session_id"] == "abc"[number - 1]
            assert served.ask("a page", **how)[1]["agent"]["action"] == "answer[red]"
            assert len(served.sessions) == number
        assert served.ask("a page", user="c", headers={"X-Session-ID": "d"})[1]["session_id"] == "d"


def test_an_action_is_a_call_of_a_tool_that_was_offered():
    with Served(write) as served:
        _, first = served.ask("who?", tools=TOOLS, user="me")
        (choice,) = first["choices"]
        (call,) = choice["message"]["tool_calls"]
        assert (choice["finish_reason"], call["function"]["name"]) == ("tool_calls", "search")
        assert json.loads(call["function"]["arguments"]) == {"q": "red shoes"}
        reply = [{"role": "tool", "tool_call_id": call["id"], "content": "a page"}]
        _, second = served.ask(user="me", messages=reply)
        assert second["choices"][0]["finish_reason"] == "stop" and "tool_calls" not in second["choices"][0]["message"]
        assert "a page" in served.seen[1]


def test_a_turn_without_an_action_says_so_and_the_agent_reads_it_with_the_next_message():
    with Served(lambda context: "hm" if "hm" not in context else write(context)) as served:
        _, first = served.ask("who?", user="me")
        assert first["agent"]["problem"] == "expected exactly one <search>...</search> or <answer>...</answer>, got 0"
        served.ask("go on", user="me")
        assert "or ‹answer>...‹/answer>, got 0" in served.seen[1]


def test_what_a_client_does_wrong_is_a_status_and_a_line_and_leaves_the_session_as_it_was():
    with Served(lambda context: "broken" if "break" in context else write(context), max_turns=2) as served:
        assert served.ask("who?", user="me")[0] == 200
        found = [
            served.ask(data=b'{"messages": ['),
            served.ask(data=b'{"messages": [{"role": "user", "content": "a \\ud83d b"}]}'),
            served.ask(data=b"[" * 100_000),
            served.ask(data=json.dumps({"messages": [{"role": "user", "content": "a" * 10_000_000}]}).encode()),
            served.ask("a" * 200_000, user="me"),
            served.ask(user="me", messages=[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]),
            served.ask("be kind", role="system", user="me"),
            served.ask("a page", role="tool", user="nobody"),
            served.ask("  ", user="new"),
            served.ask(user="x" * 201),
            served.ask(user=7),
            served.ask(temperature=-1),
            served.ask(seed=0.5),
            served.ask(max_turns=0),
            served.ask(stop=["x"]),
            served.ask(n=2),
            served.ask("break it", user="me"),
            served.ask(method="GET"),
            served.ask(path="/completions"),
            served.ask(path="/sessions/nobody", method="DELETE"),
        ]
        assert [status for status, _ in found] == [*[400] * 3, 413, *[400] * 3, 404, *[400] * 8, 500, 405, 404, 404]
        assert found[4][1]["code"] == "context_length_exceeded"
        assert found[5][1]["message"].startswith("expected 'messages' to hold the newest message alone, got 2")
        assert found[16][1]["message"] == "engine: the machine is gone"
        assert len(served.sessions) == 1  # calls that failed begin none
        assert served.ask("a page", user="me")[1]["agent"] == {
            "internal_state": "a page", "action": "answer[red]", "problem": "", "turns_left": 0
        }  # fmt: skip
        assert served.ask("more", user="me")[1]["code"] == "turns_spent"


def test_who_lacks_the_key_is_refused_but_may_ask_whether_it_is_up():
    with Served(write, key="secret") as served:
        assert served.ask(headers={"Authorization": "Bearer wrong"})[0] == served.ask()[0] == 401
        assert served.ask(headers={"Authorization": "Bearer secret"})[0] == 200
        with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/health", timeout=20) as answer:
            assert json.loads(answer.read()) == {"status": "up", "sessions": 1}


def test_a_second_call_of_a_busy_session_is_refused_and_other_sessions_are_served_meanwhile():
    with Served(write) as served, ThreadPoolExecutor(2) as pool:
        served.held.clear()
        first = pool.submit(served.ask, "who?", user="me")
        assert served.entered.wait(20)
        status, error = served.ask("and?", user="me")
        assert (status, error["code"]) == (409, "session_busy")
        other = pool.submit(served.ask, "who?", user="you")
        served.held.set()
        assert first.result(20)[0] == other.result(20)[0] == 200
        assert served.ask("a page", user="me")[0] == 200


def test_a_client_that_goes_before_its_answer_comes_leaves_its_session_as_it_was():
    with Served(write) as served:
        assert served.ask("who?", user="me")[0] == 200
        served.held.clear(), served.entered.clear()
        body = json.dumps({"user": "me", "stream": True, "messages": [{"role": "user", "content": "lost"}]}).encode()
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            assert served.entered.wait(20)
        served.held.set()
        while (found := served.ask("a page", user="me"))[0] == 409:  # until the server has seen that it is gone
            pass
        assert found[1]["agent"]["turns_left"] == 4 and "lost" not in served.seen[-1]


def test_a_body_that_does_not_come_is_waited_for_no_longer_than_a_limit(monkeypatch):
    monkeypatch.setattr("lightning_mem1.rollout.gateway.exchange.BODY_S", 0.05)
    with Served(write) as served, socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Length: 99\r\n\r\n{")
        assert b" 408 " in connection.recv(1024)
        assert served.ask()[0] == 200


def test_sessions_that_are_not_used_end_and_no_reply_begins_one_again():
    with Served(write, max_sessions=2, timeout_s=10.0) as served:
        assert [served.ask("who?", user=name)[0] for name in ("a", "b")] == [200, 200]
        assert served.ask("who?", user="c")[1]["code"] == "too_many_sessions"
        served.now = 8.0
        assert served.ask("a page", user="b")[0] == 200
        served.now = 12.0
        status, error = served.ask("a page", user="a")
        assert (status, error["code"]) == (410, "session_over")
        assert served.ask("who?", user="c")[0] == 200  # there is room again
        assert served.ask(path="/sessions/b", method="DELETE")[1] == {"id": "b", "deleted": True}
        assert served.ask("a page", user="b")[0] == 410


def test_a_session_that_failed_before_its_first_answer_may_begin_again():
    sessions = Sessions(1, 10.0, lambda: 0.0)
    for _ in range(3):
        with pytest.raises(RuntimeError), sessions.entered("a", lambda: Talk(3)):
            raise RuntimeError
    with sessions.entered("a", lambda: Talk(3)) as session:
        session.talk = Talk(2)
        with pytest.raises(Refused, match="one at a time"), sessions.entered("a", lambda: Talk(3)):
            pass
    assert len(sessions) == 1


def test_openais_own_client_talks_to_it():
    openai = pytest.importorskip("openai")
    with Served(write) as served:
        client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0)
        assert [model.id for model in client.models.list().data] == ["mine"]
        first = client.chat.completions.with_raw_response.create(
            model="mine", messages=[{"role": "user", "content": "who?"}], tools=TOOLS
        )
        name, answer = first.headers["X-Session-ID"], first.parse()
        assert answer.agent["turns_left"] == 5 and answer.session_id == name
        (call,) = answer.choices[0].message.tool_calls
        reply = {"role": "tool", "tool_call_id": call.id, "content": "a page"}
        pieces = client.chat.completions.create(
            model="mine", messages=[reply], stream=True, extra_headers={"X-Session-ID": name}
        )
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        assert text == "<think>a page</think><answer>red</answer>"
        with pytest.raises(openai.BadRequestError, match="newest message alone, got 2"):
            client.chat.completions.create(model="mine", messages=[reply, reply], user=name)
        client.close()
