"""Secrets are taken out by name, by shape and by value, in every form in which a message may hold them."""

import json
import os
import random
from urllib.parse import quote

import pytest
import yaml

from lightning_mem1.io import redaction
from lightning_mem1.io.redaction import is_secret, redacted, redacted_settings, remember, remember_arguments

NUM_SECRETS = int(os.environ.get("LIGHTNING_MEM1_FUZZ", "200"))


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(redaction, "_remembered", set())


def words(text):
    return text.split()


SECRET = words(
    """token hf_token hfToken HFToken tokens api_tokens access_token accessTokens refresh_token private_key
    privateKey private_keys access_key accessKeyId secret_access_key api_key apiKey APIKey api_keys OPENAI_API_KEY
    X-API-KEY passphrase passphrases pwd db_pwd userPwd password passwords dbPassword passwd secret secrets
    clientSecret credential credentials my_credentials authorization cookie signing_key encryption_key jwt"""
)
PLAIN = words(
    """max_tokens num_tokens loss_unit max_new_tokens max_context_tokens max_information_tokens key key_variable
    max_tokens_per_microbatch eos_token pad_token_id tokenizer stop_token_ids special_tokens sort_key primary_key
    public_key secretary token_ids num_action_tokens tokens_per_s context_tokens peak_tokens passed keyboard
    monkey bypass token_f1 per_token token_level skip_special_tokens return_token_ids password_file
    private_key_path api_key_variable use_token compass author"""
)


@pytest.mark.parametrize("name", SECRET)
def test_a_name_that_says_that_it_is_secret(name):
    assert is_secret(name) and is_secret(f"data.{name}.user")
    assert redacted_settings({name: "x", "other": "x"}) == {name: "***", "other": "x"}


@pytest.mark.parametrize("name", PLAIN)
def test_a_name_that_says_nothing_of_the_kind(name):
    assert not is_secret(name) and redacted_settings({name: "x"}) == {name: "x"}


def test_all_of_a_mapping_or_a_list_with_a_secret_name_is_hidden():
    settings = {"credentials": {"user": "me", "number": 5, "more": [{"a": "b"}], "on": True, "none": None, "empty": ""}}
    assert redacted_settings(settings) == {
        "credentials": {"user": "***", "number": "***", "more": [{"a": "***"}], "on": True, "none": None, "empty": ""}
    }
    assert redacted_settings({"api_keys": ["a", "b"], "pwd": 12345678}) == {"api_keys": ["***", "***"], "pwd": "***"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pa/55@host/db", "http://***@host/db"),
        ("http://me:p@ss/w@host/db?x=a@b", "http://***@ss/w@host/db?x=a@b"),
        ("https://ghp_abc@github.com/x", "https://***@github.com/x"),
        ("postgresql+psycopg2://me:pa55@host:5432/db", "postgresql+psycopg2://***@host:5432/db"),
        ("https://h/x?hf_token=abc&page=2#top", "https://h/x?hf_token=***&page=2#top"),
        (
            "https://h/x?page=2&X-Amz-Signature=abc;sig=d&key=e",
            "https://h/x?page=2&X-Amz-Signature=***;sig=***&key=***",
        ),
        ("http://host.de:80/a@b and http://host/a@b", "http://host.de:80/a@b and http://host/a@b"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: *** ***"),
        ("{'password': 'a b', \"api_key\": \"c d\", 'n': 1}", "{'password': '***', \"api_key\": \"***\", 'n': 1}"),
        ("--data.api_key=abc --data.n=1", "--data.api_key=*** --data.n=1"),
        ("passphrase: abc, then more", "passphrase: ***, then more"),
        ("hf_abcdefghijklmnopqrstuvwxyz and sk-abcdefghijklmnopqrstu", "*** and ***"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----.", "***."),
        ("invalid token: x; got 'token' for loss_unit", "invalid token: x; got 'token' for loss_unit"),
        ("wrong value for 'api_key': expected str, got 5", "wrong value for 'api_key': expected str, got 5"),
    ],
)
def test_secrets_are_known_by_their_shape(text, shown):
    assert redacted(text) == shown


def test_of_two_secrets_one_of_which_begins_the_other_nothing_is_left(monkeypatch):
    monkeypatch.setenv("A_KEY", "abcdefgh")
    monkeypatch.setenv("B_KEY", "abcdefgh12345")
    assert redacted("abcdefgh12345 abcdefgh") == "*** ***"


AWKWARD = 'it\'s "so"\nsecret\\ä'


@pytest.mark.parametrize(
    "form",
    [str, repr, json.dumps, lambda value: " ".join(value.split()), lambda value: quote(value, safe=""),
     lambda value: yaml.safe_dump({"a": value}, allow_unicode=True), lambda value: f"{value!r:.500}",
     lambda value: json.dumps(value, ensure_ascii=False)],
)  # fmt: skip
def test_a_secret_with_quotes_and_newlines_is_found_in_every_form(monkeypatch, form):
    monkeypatch.setenv("AWKWARD_SECRET", AWKWARD)
    shown = redacted(f"got {form(AWKWARD)}!")
    assert "secret" not in shown and "***" in shown


def test_the_password_of_an_address_in_the_environment_is_known_alone(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:very%20secret@host/db")
    assert redacted("login failed for 'very secret' (very%20secret)") == "login failed for '***' (***)"


def test_folders_and_short_values_of_the_environment_stay(monkeypatch):
    monkeypatch.setenv("PWD", "/home/somebody")
    monkeypatch.setenv("ANOTHER_TOKEN", "yes")
    assert redacted("/home/somebody yes") == "/home/somebody yes"


def test_the_values_of_secret_settings_are_known_wherever_they_are_said_afterwards():
    remember(
        {"data": {"api_key": "abc123def", "credentials": [{"user": "someone-else"}], "pwd": "short", "name": "plain1"}}
    )
    remember_arguments(["fit", "--model.hf_token", "from-argv-1", "--data.api_key=from-argv-2", "--data.name=plain2"])
    said = "abc123def someone-else short plain1 from-argv-1 from-argv-2 plain2"
    assert redacted(said) == "*** *** short plain1 *** *** plain2"


def test_settings_that_hold_themselves_are_read_once():
    settings = {"api_key": "abcdefgh12345678", "list": []}
    settings["list"].append(settings)
    remember(settings)
    assert redacted("abcdefgh12345678 is gone") == "*** is gone"


def test_no_secret_survives_whatever_it_is_made_of_and_whatever_is_around_it(monkeypatch):
    rng = random.Random(0)
    signs = "abcXYZ019-_.~+/=%&?:@#!$'\"\\ \n\té€😀"
    for _ in range(NUM_SECRETS):
        value = "s" + "".join(rng.choices(signs, k=rng.randint(10, 30))) + "t"
        monkeypatch.setenv("FUZZED_SECRET", value)
        form = rng.choice([str, repr, json.dumps, lambda v: " ".join(v.split()), lambda v: quote(v, safe="")])
        text = f"{rng.choice(['', 'x ', 'http://', '?a='])}{form(value)}{rng.choice(['', ' y', '@h', '&b=1'])}"
        assert form(value) not in redacted(text), (value, text, redacted(text))


@pytest.mark.parametrize(
    "text",
    ["://a:" + "/" * 20_000, "://a:b" * 5000, "a.b-" * 20_000, "password: " * 5000, "'" * 50_000, "a='" * 20_000,
     "key= " + " " * 50_000, "eyJ" + "a" * 50_000, "-----BEGIN PRIVATE KEY-----" * 1000],
)  # fmt: skip
def test_a_text_made_to_be_slow_is_read_in_reasonable_time(text):
    redacted(text)
