"""The completions protocol, both ends, word for word: nothing here opens a socket."""

import pytest

from lightning_mem1.engine.protocol.client import Reply, question, read_reply, with_stop
from lightning_mem1.engine.protocol.server import answer, read_question
from lightning_mem1.engine.remote.server_list import base_url
from lightning_mem1.types import Completion, GenerationRequest

WORDS = {1: "<answer>", 2: "</answer>", 3: "red ", 4: "blue ", 5: "</search>", 6: "</ans", 7: "wer>"}
EOS = 0
REQUEST = GenerationRequest(
    session=4, context_ids=[1, 3], max_new_tokens=3, stop=("</answer>",), temperature=0.5, top_p=1.0, seed=(1 << 63) + 5
)
CHOICE = {
    "text": "red </answer>",
    "token_ids": [3, 2],
    "prompt_token_ids": [1, 3],
    "finish_reason": "stop",
    "stop_reason": "</answer>",
    "logprobs": {"token_logprobs": [-0.5, -0.25]},
}


def decode(ids):
    return "".join(WORDS.get(each, "") for each in ids)


def reply_of(**changes):
    return {"choices": [{**CHOICE, **changes}]}


def test_a_turn_is_asked_for_with_ids_and_with_nothing_left_to_the_servers_defaults():
    assert question(REQUEST, "base") == {
        "model": "base",
        "prompt": [1, 3],
        "max_tokens": 3,
        "stop": ["</answer>"],
        "temperature": 0.5,
        "top_p": 1.0,
        "seed": 5,
        "logprobs": 1,
        "return_token_ids": True,
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    }


def test_ends_of_turn_beyond_the_tokenizers_own_are_named_to_a_server_and_read_by_it():
    body = question(REQUEST, "base", end_ids=[5, 7])
    assert body["stop_token_ids"] == [5, 7]
    asked = read_question({**body, "skip_special_tokens": True}, list, vocabulary=8)
    assert asked.request.stop_ids == (5, 7)
    (choice,) = answer(asked, Completion(0, [3, 5], [-0.5, -0.25]), "base", decode, {EOS})["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("red ", "stop")


def test_a_text_server_is_asked_in_the_plain_protocol_alone():
    body = question(REQUEST, "base", "<answer>red ")
    assert body["prompt"] == "<answer>red "
    plain = {"model", "prompt", "max_tokens", "stop", "temperature", "top_p", "seed", "logprobs"}
    assert set(body) == plain


def test_an_answer_is_taken_apart():
    found = read_reply(reply_of(), REQUEST, vocabulary=8)
    assert found == Reply("red </answer>", [3, 2], [-0.5, -0.25], "stop", "</answer>")
    found = read_reply({"choices": [{"text": "red", "finish_reason": "length"}]}, REQUEST, vocabulary=8)
    assert found == Reply("red", None, [], "length", None)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ([1], r"expected 'choices' with one choice, got \[1\]"),
        ({"choices": []}, "expected 'choices' with one choice"),
        ({"choices": [CHOICE, CHOICE]}, "expected 'choices' with one choice"),
        (reply_of(text=None), "expected 'text' in the choice, got None"),
        (reply_of(token_ids=[]), "expected 'token_ids' with 1 to 3 ids, got 0 ids"),
        (reply_of(token_ids=[3] * 4), "expected 'token_ids' with 1 to 3 ids, got 4 ids"),
        (reply_of(token_ids=[3, True]), "expected 'token_ids' with 1 to 3 ids, got"),
        (reply_of(token_ids="32"), "expected 'token_ids' with 1 to 3 ids, got '32'"),
        (reply_of(token_ids=[3, 8]), "expected ids below 8, got 8: is it the same model"),
        (reply_of(token_ids=[3, -1]), "expected ids below 8, got -1"),
        (reply_of(prompt_token_ids=[0, 1, 3]), r"expected the 2 ids of the context.* got \[0, 1, 3\]: it saw another"),
        (reply_of(logprobs=None), "expected 'token_logprobs' with 2 numbers, got None"),
        (reply_of(logprobs={"token_logprobs": [-0.5]}), "expected 'token_logprobs' with 2 numbers, got 1"),
        (reply_of(logprobs={"token_logprobs": [-0.5, None]}), "expected log-probabilities, got None"),
        (reply_of(logprobs={"token_logprobs": [-0.5, 0.5]}), "expected log-probabilities, got 0.5"),
        (reply_of(logprobs={"token_logprobs": [-0.5, float("nan")]}), "expected log-probabilities, got nan"),
        (reply_of(logprobs={"token_logprobs": [-0.5, float("-inf")]}), "expected log-probabilities, got -inf"),
    ],
)
def test_an_answer_that_is_not_to_the_point_says_what_was_expected(reply, reason):
    with pytest.raises(ValueError, match=reason):
        read_reply(reply, REQUEST, vocabulary=8)


@pytest.mark.parametrize(
    ("text", "reason", "named", "whole"),
    [
        ("<search>red", "stop", "</search>", "<search>red</search>"),
        ("<think>x</think><search>red", "stop", None, "<think>x</think><search>red</search>"),
        ("<search>red", "length", None, "<search>red"),
        ("<search>red</search>", "stop", None, "<search>red</search>"),
        ("red", "stop", None, "red"),  # it ended by itself
        ("<search>a <answer>b", "stop", None, "<search>a <answer>b"),  # either could have ended it
    ],
)
def test_a_text_gets_back_the_stop_string_that_the_plain_protocol_cuts_off(text, reason, named, whole):
    assert with_stop(Reply(text, None, [], reason, named), ("</search>", "</answer>")) == whole


def test_a_server_reads_what_a_client_asks_and_the_client_reads_its_answer():
    asked = read_question(question(REQUEST, "base"), list, vocabulary=8)
    assert asked.model == "base" and asked.ids and asked.logprobs
    assert asked.request == GenerationRequest(0, [1, 3], 3, ("</answer>",), 0.5, 1.0, seed=5)
    body = answer(asked, Completion(0, [3, 2], [-0.5, -0.25]), "base", decode, {EOS})
    assert read_reply(body, REQUEST, vocabulary=8) == Reply("red </answer>", [3, 2], [-0.5, -0.25], "stop", "</answer>")
    assert body["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}


def test_a_plain_client_gets_plain_text_without_stop_string_ids_and_numbers():
    plain = {"prompt": "red", "max_tokens": 3, "stop": "</answer>", "seed": 1}
    asked = read_question(plain, lambda text: [3], vocabulary=8)
    (choice,) = answer(asked, Completion(0, [3, 2], [-0.5, -0.25]), "base", decode, {EOS})["choices"]
    assert choice == {
        "index": 0, "text": "red ", "finish_reason": "stop", "stop_reason": "</answer>", "logprobs": None
    }  # fmt: skip
    (choice,) = answer(asked, Completion(0, [3, 4], [-0.5, -0.25]), "base", decode, {EOS})["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("red blue ", "length")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ([], r"expected a JSON object, got \[\]"),
        ({"prompt": []}, "expected 'prompt' to be one text or one list of ids below 8"),
        ({"prompt": [9]}, "ids below 8, got .9."),
        ({"prompt": ["a", "b"]}, "expected 'prompt' to be one text"),
        ({"prompt": [1], "n": 2}, "'n' is not supported: expected 1, got 2"),
        ({"prompt": [1], "stream": True}, "'stream' is not supported: expected False, got True"),
        ({"prompt": [1], "max_tokens": 0}, "expected 'max_tokens' from 1 to 1.04858e.06, got 0"),
        ({"prompt": [1], "max_tokens": 1.5}, "expected 'max_tokens' from 1"),
        ({"prompt": [1], "temperature": "hot"}, "expected 'temperature' from 0 to 100, got 'hot'"),
        ({"prompt": [1], "top_p": 0}, "expected 'top_p' from 1e-06 to 1, got 0"),
        ({"prompt": [1], "stop": [""]}, "expected 'stop' to be strings"),
        ({"prompt": [1], "model": 3}, "expected 'model' to be a name, got 3"),
    ],
)
def test_a_question_that_cannot_be_answered_says_what_was_expected(body, reason):
    with pytest.raises(ValueError, match=reason):
        read_question(body, lambda text: [1], vocabulary=8)


def test_an_address_may_end_in_v1_and_holds_no_password():
    assert base_url("http://127.0.0.1:8000/v1/") == base_url("http://127.0.0.1:8000") == "http://127.0.0.1:8000"
    for wrong in ("127.0.0.1:8000", "ftp://a", "http://", "http://a?key=1"):
        with pytest.raises(ValueError, match="not a server: expected an address like http://127.0.0.1:8000, got"):
            base_url(wrong)
    with pytest.raises(ValueError, match="a password is in the address of host: expected it in the env") as told:
        base_url("http://me:secret@host")
    assert "secret" not in str(told.value)
