"""Generated documents: what decides an answer stands in them, in order, and nothing else decides it."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mem1.environments.reading.document import sentences
from lightning_mem1.environments.reading.parts import num_tokens
from lightning_mem1.environments.reading.stories import KINDS, story

SEEDS = st.integers(0, 10**9)


def document(kind, seed, length):
    told = story(kind, random.Random(seed))
    return told, sentences(told, length, random.Random(seed + 1))


@given(st.sampled_from(KINDS), SEEDS, st.integers(1, 600))
def test_a_document_holds_its_facts_once_in_order_and_is_as_long_as_asked(kind, seed, length):
    told, text = document(kind, seed, length)
    assert [sentence for sentence in text if sentence in told.facts] == list(told.facts)
    total, least = sum(map(num_tokens, text)), max(length, sum(map(num_tokens, told.facts)))
    assert least <= total < least + 20  # it ends with the sentence that reaches the length


@given(SEEDS)
def test_the_last_word_on_a_fact_is_the_answer_of_a_conflict(seed):
    told, text = document("conflict", seed, 400)
    attribute, name = re.fullmatch(r"What is the (\w+) of (.+)\?", told.question).groups()
    said = [found[1] for each in text if (found := re.fullmatch(rf"The {attribute} of {name} is (.+)\.", each))]
    assert 2 <= len(said) <= 4 and len(set(said)) == len(said) and told.answers == (said[-1],)


@given(SEEDS)
def test_a_needle_is_told_once_and_asked_for_as_a_conflict_is(seed):
    told, text = document("needle", seed, 400)
    attribute, name = re.fullmatch(r"What is the (\w+) of (.+)\?", told.question).groups()
    assert [each for each in text if each.startswith(f"The {attribute} of {name} is")] == list(told.facts)
    assert told.facts[0].endswith(f" is {told.answers[0]}.")


@given(SEEDS)
def test_the_second_of_two_hops_names_what_the_first_one_found(seed):
    told, text = document("hops", seed, 400)
    attribute, name = re.fullmatch(r"What is the (\w+) of the home of (.+)\?", told.question).groups()
    homes = [each for each in text if each.startswith(f"The home of {name} is")]
    town = homes[0].split()[-1].rstrip(".")
    ends = [each for each in text if each.startswith(f"The {attribute} of {town} is")]
    assert homes + ends == list(told.facts) and ends[0].endswith(f" is {told.answers[0]}.")


@given(SEEDS)
def test_the_vaults_of_a_number_are_those_that_the_statements_lead_to(seed):
    told, text = document("tracking", seed, 400)
    number = re.fullmatch(r"Which vaults hold (\d+)\?", told.question)[1]
    holds: dict[str, str] = {}
    for each in text:
        if found := re.fullmatch(r"Vault (.+?) holds (?:what vault (.+) holds|(\d+))\.", each):
            name, same, told_number = found.groups()
            holds[name] = holds.get(same, "") if same else told_number
    assert told.answers == (" ".join(name for name, held in holds.items() if held == number),)


@given(SEEDS)
def test_the_ships_are_as_many_as_the_sentences_that_tell_of_one(seed):
    told, text = document("counting", seed, 400)
    town = re.fullmatch(r"How many ships from (\w+) arrive\?", told.question)[1]
    assert told.answers == (str(text.count(f"A ship from {town} arrives.")),)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_tells_the_same_document_and_another_another(kind):
    assert document(kind, 1, 300)[1] == document(kind, 1, 300)[1] != document(kind, 2, 300)[1]


def test_facts_stand_anywhere_between_the_first_and_the_last_sentence():
    places = []
    for seed in range(400):
        told, text = document("needle", seed, 300)
        places.append(text.index(told.facts[0]) / (len(text) - 1))
    quarters = [sum(q / 4 <= place < (q + 1) / 4 for place in places) for q in range(4)]
    assert all(60 < number < 140 for number in quarters), quarters  # 100 each, within five deviations
