"""The remote retriever against a server that is right, wrong, late, half or dead; our own server over a socket."""

import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from faulty import dead, drip, half, slow, whole
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.environments.qa.env import RetrievalEnv
from lightning_mem1.environments.qa.retrieval.passage import Passage, RetrievalError
from lightning_mem1.environments.qa.retrieval.remote import RemoteRetriever
from lightning_mem1.environments.qa.retrieval.server import server as serving
from lightning_mem1.environments.qa.retrieval.service import RetryPolicy, ask
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import Objective, StopReason, Task
from tiny import tiny_tokenizer

QUICK = RetryPolicy(timeout_s=1.0, num_retries=1, pause_s=0.01)
PATIENT = RetryPolicy(timeout_s=60.0, num_retries=1, pause_s=0.01)  # a busy machine may need more than QUICK gives
HIT = {"document": {"contents": '"Ulm"\nA town.'}, "score": 1.5}
GOOD = whole({"result": [[HIT]]})


def remote(server, patience=PATIENT):
    return RemoteRetriever(f"{server.origin}/retrieve", patience)


def test_a_question_and_its_reply_are_those_of_the_protocol(server):
    server.replies = [GOOD]
    assert remote(server).search(["where is ulm"], 3) == [[Passage("Ulm", "A town.", score=1.5)]]
    assert server.questions == [{"queries": ["where is ulm"], "topk": 3, "return_scores": True}]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (dead, "RemoteDisconnected|BadStatusLine"),
        (slow, "timed out"),
        (drip, "did not end in time"),
        (half, "IncompleteRead|cut short"),
        (whole("no json"), "JSONDecodeError"),
        (whole("[" * 100_000), "RecursionError|JSONDecodeError"),
        (whole(b'\xff\xfe{"result": [[]]}'), "Error"),
        (whole({"result": []}), "one list for each of 1 queries, got 0 lists"),
        (whole({"result": [[], []]}), "one list for each of 1 queries, got 2 lists"),
        (whole({"result": None}), "got NoneType"),
        (whole([1]), "expected 'result'"),
        (whole({"result": [[HIT] * 9]}), "at most 3 documents"),
        (whole({"result": [[{"document": {}, "score": 1}]]}), "document with 'contents'"),
        (whole({"result": [[{**HIT, "score": "high"}]]}), "number as score, got 'high'"),
        (whole({}, status=503), "status 503"),
    ],
)
def test_a_bad_reply_is_asked_for_again_and_then_told(server, fault, reason):
    patience = QUICK if fault in (slow, drip) else PATIENT
    server.replies = [fault]
    with pytest.raises(RetrievalError, match=rf"(?s)no good reply from .*{reason}.* after 2 tries"):
        remote(server, patience).search(["ulm"])
    assert len(server.questions) == 2
    server.replies = [fault, GOOD]
    again_and_again = replace(patience, num_retries=20)  # what is good may be late as well where there is little time
    assert remote(server, again_and_again).search(["ulm"]) == [[Passage("Ulm", "A town.", score=1.5)]]


def test_a_server_that_failed_for_good_is_tried_once_per_search_until_it_answers(server):
    asking = remote(server)
    server.replies = [dead, dead, dead, GOOD, dead]
    for tries in (2, 1):
        with pytest.raises(RetrievalError, match=f"after {tries} tries"):
            asking.search(["ulm"])
    assert asking.search(["ulm"])
    with pytest.raises(RetrievalError, match="after 2 tries"):
        asking.search(["ulm"])


def test_a_refusal_is_final(server):
    server.replies = [whole({"error": "no"}, status=400)]
    with pytest.raises(RetrievalError, match="status 400 after 1 tries"):
        remote(server).search(["ulm"])


def test_a_redirect_is_not_followed(server):
    server.replies = [whole("", status=302, Location=f"{server.origin}/elsewhere")]
    with pytest.raises(RetrievalError, match="status 302"):
        remote(server).search(["ulm"])
    assert all(isinstance(question, dict) for question in server.questions)


def test_a_reply_without_end_is_cut_off(server):
    server.replies = [whole("x" * 10_000)]
    with pytest.raises(RetrievalError, match="reply too long: expected at most 100 bytes"):
        ask(server.origin, {}, lambda reply: reply, RetryPolicy(60.0, 0, max_bytes=100))


def test_pauses_grow(server):
    server.replies, pauses = [whole({}, status=500)], []
    with pytest.raises(RetrievalError):
        ask(server.origin, {}, lambda reply: reply, RetryPolicy(60.0, 3, 0.25), sleep=pauses.append)
    assert pauses == [0.25, 0.5, 1.0]


def test_nobody_at_the_address_is_told():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/retrieve"
    with pytest.raises(RetrievalError, match="Connection refused.* is the server up"):
        RemoteRetriever(address, PATIENT).search(["ulm"])


def test_whoever_answers_something_else_is_asked_about_and_not_whether_it_is_up(server):
    server.replies = [whole("nonsense")]
    with pytest.raises(RetrievalError, match="is it the right service"):
        remote(server).search(["ulm"])


def test_a_dead_retriever_ends_the_trajectory_and_invents_nothing(server):
    server.replies = [GOOD, dead]
    task = Task("qa/0", "1 Where is Ulm?", (Objective("Where is Ulm?", ("Bavaria",)),), 6)
    engine = ScriptedEngine(tiny_tokenizer(), [lambda context: "<think>1 ?</think><search>ulm</search>"])
    episode = Episode(task, RetrievalEnv(task, remote(server)))
    (played,) = collect([episode], engine, tiny_tokenizer(), RolloutSettings(format="qa", prompt="brief"))
    assert played.stop_reason == StopReason.ERROR and played.error.startswith("RetrievalError: no good reply from")
    assert [turn.information for turn in played.turns] == ["1 Ulm: A town.", ""]
    assert played.turns[-1].information_ids == [] and played.reward == 0


@pytest.fixture
def own(library):
    running = serving(library)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


def test_our_server_speaks_the_protocol_that_our_client_speaks(own, library):
    names = [passage.title for passage in library.passages[:20]]
    found = RemoteRetriever(f"{own}/retrieve").search(names, 3)
    assert [[p.title for p in passages] for passages in found] == [
        [p.title for p in passages] for passages in library.search(names, 3)
    ]


@pytest.mark.parametrize(
    "question",
    [{}, [], {"queries": "ulm"}, {"queries": [1]}, {"queries": ["a"], "topk": 0}, {"queries": ["a"], "topk": "3"},
     {"queries": ["a"] * 2000}],
)  # fmt: skip
def test_our_server_refuses_what_is_not_the_protocol(own, question):
    with pytest.raises(RetrievalError, match="status 400 after 1 tries"):
        ask(f"{own}/retrieve", question, lambda reply: reply, PATIENT)


@pytest.mark.parametrize("question", [[], {"q": 5}, {"q": "a", "num": 1000}])
def test_our_server_refuses_a_web_search_that_is_none(own, question):
    with pytest.raises(RetrievalError, match="status 400 after 1 tries"):
        ask(f"{own}/search", question, lambda reply: reply, PATIENT)


def test_our_server_outlives_a_retriever_that_fails():
    class Failing:
        passages = ()

        def search(self, queries, top_k=3):
            raise RuntimeError("disk gone")

    running = serving(Failing())
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        for _ in range(2):
            with pytest.raises(RetrievalError, match="status 500 after 2 tries"):
                RemoteRetriever(f"http://127.0.0.1:{running.server_port}/retrieve", PATIENT).search(["a"])
    finally:
        running.shutdown()
        running.server_close()


def test_our_server_has_nothing_at_other_addresses(own):
    with pytest.raises(RetrievalError, match="status 404"):
        ask(f"{own}/etc/passwd", {"queries": ["a"]}, lambda reply: reply, PATIENT)


def test_without_scores_documents_stand_alone(own):
    asked = {"queries": ["zebra", "a"], "topk": 1}
    assert ask(f"{own}/retrieve", asked, lambda reply: len(reply["result"])) == 2


def test_the_command_serves_a_corpus_from_another_process(tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        '{"id": "0", "contents": "\\"Ulm\\"\\nA town."}\n{"id": "1", "title": "Rom", "text": "A city."}\n'
    )
    command = [
        sys.executable,
        "-m",
        "lightning_mem1",
        "serve-retriever",
        "--corpus",
        str(corpus),
        "--port",
        "0",
    ]
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [*command, "--index", str(tmp_path / "i")], cwd=root, stdout=subprocess.PIPE, text=True
    ) as run:
        try:
            line = run.stdout.readline()
            assert line.startswith("serving 2 passages at http://127.0.0.1:"), line
            address = line.split()[4]
            time.sleep(0.1)
            assert RemoteRetriever(address).search(["city"], 1)[0][0].title == "Rom"
        finally:
            run.terminate()
    assert (tmp_path / "i" / "passages.json").is_file()


def test_the_command_says_what_is_missing(capsys, tmp_path):
    from lightning_mem1.cli.serve_retriever import main

    assert main([]) == 1
    assert "expected --corpus or --index, got neither" in capsys.readouterr().err
    assert main(["--index", str(tmp_path / "none")]) == 1
    assert "give --corpus as well" in capsys.readouterr().err


def test_a_server_that_drops_half_of_its_answers_costs_some_episodes_and_holds_up_none(server):
    """Of two tries one comes through in three of four searches; the others end their own trajectories."""
    drops = random.Random(0)

    def one_of_two(handler, question):
        (dead if drops.random() < 0.5 else GOOD)(handler, question)

    server.replies = [one_of_two]
    task = Task("qa/0", "1 Where is Ulm?", (Objective("Where is Ulm?", ("Bavaria",)),), 4)
    asking = remote(server)
    engine = ScriptedEngine(tiny_tokenizer(), [lambda context: "<think>1 ?</think><search>ulm</search>"] * 32)
    episodes = [Episode(task, RetrievalEnv(task, asking)) for _ in range(32)]
    played = collect(episodes, engine, tiny_tokenizer(), RolloutSettings(format="qa", prompt="brief"))
    ends = Counter(str(trajectory.stop_reason) for trajectory in played)
    assert set(ends) == {"error", "max_turns"} and min(ends.values()) >= 4
    for trajectory in played:
        heard = [turn.information for turn in trajectory.turns]
        lost = trajectory.stop_reason == StopReason.ERROR
        assert lost == trajectory.error.startswith("RetrievalError: no good reply from")
        assert heard == ["1 Ulm: A town."] * (len(heard) - 1) + [""]  # a search in the last turn is not carried out
        assert lost or len(heard) == 4
