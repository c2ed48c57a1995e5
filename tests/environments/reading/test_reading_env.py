"""The environment of a document: reading on, answering, and what costs a turn."""

import pytest

from lightning_mem1.environments.reading.env import ReadingEnv
from lightning_mem1.types import Objective, StepResult, Task

TASK = Task("reading/0", "Where is Ulm?", (Objective("Where is Ulm?", ("Danube",)),), 4)


def env(**settings):
    return ReadingEnv(TASK, ["Ulm is old.", "Ulm is on the Danube."], **settings)


def test_nothing_is_shown_before_the_first_part_and_the_latest_one_stays_to_be_seen():
    played = env()
    assert played.observe() == ""
    assert played.step("read[next]").information == "Part 1 of 2\nUlm is old." == played.observe()
    assert played.step("read[next]").information == "Part 2 of 2\nUlm is on the Danube.\nThe end." == played.observe()


def test_there_is_nothing_behind_the_end_and_to_ask_for_it_costs_a_turn():
    played = env()
    played.step("read[next]")
    played.step("read[next]")
    result = played.step("read[next]")
    assert (result.information, result.valid, result.done) == ("There is nothing left to read.", False, False)


def test_an_answer_ends_the_episode_and_says_how_much_was_read():
    played = env()
    played.step("read[next]")
    result = played.step("answer[the danube]")
    assert (result.done, result.reward, result.info["success"], result.info["read"]) == (True, 1.0, 1.0, 0.5)
    over = StepResult("", done=True, valid=False, info={"invalid": "the episode is over"})
    assert played.step("answer[danube]") == over == played.step("read[next]")


@pytest.mark.parametrize("action", ["", "danube", "search[danube]", "read"])
def test_what_is_neither_reading_nor_answering_shows_nothing_and_costs_a_turn(action):
    played = env()
    result = played.step(action)
    assert (result.information, result.valid, result.reward) == ("Nothing was read.", False, 0.0)
    assert played.step("read[next]").information.startswith("Part 1 of 2")


def test_a_part_of_an_answer_pays_its_share_when_f1_pays():
    assert env(reward="f1").step("answer[the danube river]").reward == pytest.approx(2 / 3)
