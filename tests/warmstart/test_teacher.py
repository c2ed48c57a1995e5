"""A teacher behind an endpoint, on loopback: what it plays is kept, what earns enough is cloned."""

import json
import re
import threading
from pathlib import Path

import pytest

from faulty import dead, faulty, whole
from lantern import Lanterns
from lightning_mem1.context.contexts import drift
from lightning_mem1.engine.serving.endpoint import EndpointHandler
from lightning_mem1.engine.serving.loop import EngineLoop
from lightning_mem1.engine.serving.text import TextCodec
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.io.chat_client import EndpointSettings
from lightning_mem1.io.json_server import server as http_server
from lightning_mem1.warmstart.demonstrations import Demonstrations
from lightning_mem1.warmstart.own.byte_tokenizer import byte_tokenizer
from lightning_mem1.warmstart.own.settings import OwnDemonstrations, TeacherSettings
from lightning_mem1.warmstart.own.teacher import teach
from lightning_mem1.warmstart.settings import Architecture, DemonstrationSettings, Stage, WarmStart
from lightning_mem1.warmstart.train import train
from tiny import tiny_policy, tiny_tokenizer

SMALL = Architecture(vocab_size=420, hidden_size=32, num_layers=2, num_heads=2, num_kv_heads=2, intermediate_size=32)
KEY = "sk-a-secret-of-the-teacher-000000"


@pytest.fixture
def server():
    with faulty() as state:
        yield state


def warm_start(folder, server, memory="mem1", **teacher):
    given = {"num_tasks": 6, "samples": 2, "parallel": 1, **teacher}
    endpoint = EndpointSettings(f"{server.origin}/v1", "wise", num_retries=1, pause_s=0.0, timeout_s=60.0)
    own = OwnDemonstrations(Lanterns(), teacher=TeacherSettings(endpoint, **given))
    data = DemonstrationSettings(own=own, min_reward=1.0)
    settings = {"stages": [Stage(1, episodes=4)], "num_val_tasks": 2, "num_workers": 0}
    return WarmStart(str(folder), model=SMALL, data=data, memory=memory, **settings)


def wise(question, skill=lambda sign: sign) -> str:
    """A teacher that reads its one message, and goes by what is last in it."""
    (message,) = question["messages"]
    context = message["content"]
    last = context.rpartition("<state>")[2]
    state = "<summary>so far</summary>"
    if found := re.search(r"note: look in (\w+)", last):
        return f"{state}<answer>go[{found[1]}]"
    if found := re.search(r"the sign is (\w+)", last):
        return f"{state}<answer>say[{skill(found[1])}]"
    return f"{state}<answer>read[note]"


def answering(answer):
    def send(handler, question):
        text = answer(question)
        ended = [stop for stop in question["stop"] if text.endswith(stop)]
        text = text.removesuffix(ended[0]) if ended else text
        whole({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]})(
            handler, question
        )

    return send


def kept(config):
    return [json.loads(line) for line in Path(config.output, "demonstrations.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("mode", ["mem1", "full"])
def test_a_teacher_plays_and_its_turns_are_cloned_with_the_ids_of_a_rollout(tmp_path, server, mode, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.replies = [answering(wise)]
    config = warm_start(tmp_path / "policy", server, mode)
    numbers = train(config)
    assert set(numbers) == {"own_reward", "own_success", "own_turns", "own_valid"}
    lines = kept(config)
    assert len(lines) == 6 and {line["reward"] for line in lines} == {1.0}
    assert len({line["index"] for line in lines}) == 6
    assert lines[0]["turns"][0] == "<summary>so far</summary><answer>read[note]</answer>"
    (t, *_), *_ = list(Demonstrations(config, byte_tokenizer()))
    assert t.reward == 1.0 and drift(t, mode) == 0 and len(t.turns) == 3
    asked = server.questions[0]
    assert asked["model"] == "wise" and "Say the sign." in asked["messages"][0]["content"]
    assert "<summary>...</summary>" in asked["messages"][0]["content"]  # the format is explained to it
    seen = [question["messages"][0]["content"] for question in server.questions[:18]]
    third = next(text for text in seen if "the sign is" in text)
    assert ("note: look in" in third) == (mode == "full")
    assert {each.get("Authorization") for each in server.headers} == {f"Bearer {KEY}"}
    everything = "".join(path.read_text(errors="replace") for path in (tmp_path / "policy").iterdir())
    assert KEY not in everything and "the teacher wise" in everything


def test_a_staged_memory_is_asked_of_the_teacher_too_and_begins_the_act_behind_it(tmp_path, server):
    def staged(question):
        context = question["messages"][0]["content"]
        return "note read</summary>" if context.endswith("<summary>") else wise(question).partition("</summary>")[2]

    server.replies = [answering(staged)]
    config = warm_start(tmp_path / "policy", server, "summary", num_tasks=2)
    teach(config)
    lines = kept(config)
    assert [len(line["turns"]) for line in lines] == [3, 3] and {line["reward"] for line in lines} == {1.0}
    assert lines[0]["turns"][0] == "<answer>read[note]</answer>"
    assert lines[0]["turns"][1].startswith("<summary>note read</summary><answer>go[")
    (played,) = list(Demonstrations(config, byte_tokenizer()))
    assert {t.reward for t in played} == {1.0} and [drift(t, "summary") for t in played] == [0] * len(played)
    assert [turn.kind for turn in played[0].turns] == ["act", "memory", "act", "memory", "act"]


def test_a_task_is_played_again_until_it_is_solved_or_its_samples_are_spent(tmp_path, server, capsys):
    tries = {}

    def now_and_then(question):
        def skill(sign):
            seed = question["seed"]
            tries[sign] = tries.get(sign, 0) + 1
            return sign if seed % 2 else "Mud"

        return wise(question, skill)

    server.replies = [answering(now_and_then)]
    config = warm_start(tmp_path / "policy", server, samples=3)
    teach(config)
    lines = kept(config)
    solved = {line["index"] for line in lines if line["reward"] == 1}
    failed = {line["index"] for line in lines} - solved
    counts = {index: sum(line["index"] == index for line in lines) for index in solved | failed}
    assert all(counts[index] == 3 for index in failed)
    assert all([line["reward"] for line in lines if line["index"] == index][-1] == 1 for index in solved)
    assert f"{len(lines)} episodes, {len(solved)} reach 1, in {len(solved)} of 6 tasks" in capsys.readouterr().out
    asked = len(server.questions)
    teach(config)  # all is there: nobody is asked
    assert len(server.questions) == asked and kept(config) == lines


def test_an_interrupted_teacher_resumes_with_what_is_in_the_file(tmp_path, server):
    server.replies = [answering(wise)]
    config = warm_start(tmp_path / "policy", server)
    teach(config)
    path = tmp_path / "policy" / "demonstrations.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]))
    server.questions.clear()
    teach(config)
    assert sorted(path.read_text().splitlines()) == sorted("".join(lines).splitlines())
    assert len(server.questions) == 2 * 3


def test_a_turn_that_is_not_given_ends_its_episode_and_nothing_else(tmp_path, server, capsys):
    server.replies = [whole({}, 400), *[answering(wise)] * 40]
    config = warm_start(tmp_path / "policy", server, samples=1)
    teach(config)
    assert len(kept(config)) == 5
    shown = capsys.readouterr().out
    assert "teacher: no good reply from" in shown and "got status 400 after 1 tries" in shown
    assert "6 episodes, 5 reach 1, in 5 of 6 tasks; 16 turns asked for, 1 not given" in shown


@pytest.mark.parametrize("reply", [whole({}, 401), dead, whole({"choices": []}), whole({"choices": [{"message": {}}]})])
def test_a_teacher_that_gives_nothing_is_one_line_and_the_key_is_not_in_it(
    tmp_path, server, reply, monkeypatch, capsys
):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.replies = [reply]
    with pytest.raises(ValueError, match="the teacher gave no episode: expected turns from http://127.0.0.1") as error:
        teach(warm_start(tmp_path / "policy", server, num_tasks=2, samples=1))
    shown = str(error.value) + capsys.readouterr().out
    assert KEY not in shown and "see that it is up" in shown


def test_a_teacher_without_a_least_reward_or_an_address_is_refused(tmp_path, server):
    config = warm_start(tmp_path, server)
    config.data.min_reward = None
    with pytest.raises(ValueError, match="expected warmstart.data.min_reward, got null; set it"):
        teach(config)
    config.data.min_reward, config.data.own.teacher.endpoint.url = 1.0, "127.0.0.1:8000"
    with pytest.raises(ValueError, match="expected an address like http://127.0.0.1:8000/v1"):
        teach(config)
    config.data.own.teacher.endpoint.url, config.data.own.teacher.endpoint.model = "http://me:pa55word@x/v1", "m"
    with pytest.raises(ValueError, match="without a password") as error:
        teach(config)
    assert "pa55word" not in str(error.value)


def test_a_policy_that_mem1_serves_can_be_the_teacher(tmp_path):
    loop = EngineLoop(tiny_policy(), EngineSettings(8, 1024))
    shared = {"loop": loop, "text": TextCodec(tiny_tokenizer(), 1024), "name": "wise", "key": ""}
    serving = http_server(EndpointHandler, **shared, allow_adapters=False)
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        endpoint = EndpointSettings(f"http://127.0.0.1:{serving.server_port}/v1", "wise", "completions", timeout_s=60.0)
        given = TeacherSettings(endpoint, num_tasks=2, samples=1, max_new_tokens=12, parallel=2)
        own = OwnDemonstrations(Lanterns(), teacher=given)
        config = WarmStart(str(tmp_path / "policy"), model=SMALL, data=DemonstrationSettings(own=own, min_reward=1.0))
        teach(config)
    finally:
        serving.shutdown()
        serving.server_close()
    lines = kept(config)
    assert [line["reward"] for line in lines] == [0.0, 0.0]  # it has random weights
    assert all(len(line["turns"]) == 5 and all(line["turns"]) for line in lines)
