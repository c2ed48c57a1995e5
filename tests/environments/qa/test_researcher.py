"""The scripted researcher: what it writes, how often it is right, and that it knows no more than a policy."""

import random
from statistics import fmean

import pytest

from lightning_mem1.context.tags import QA_TAGS, exact_format
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.environments.qa.scripted_researcher.researcher import (
    EXPERT_RESEARCHER,
    ResearcherSkill,
    ScriptedResearcher,
    play,
)
from lightning_mem1.environments.qa.tasks import EncyclopediaTasks
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import StopReason
from tiny import tiny_tokenizer

QUESTIONS = ["Who made The Red Door?", "Which town is the spouse of Ada Kesh from?"]
DOOR = "1 The Red Door: A film, directed by Odo Lin and dated 1900. It is set in Ulm and was issued by Vex Foods."
ADA = "1 Ada Kesh: A poet from Rom, born in 1850, who worked for Vex Foods and married Jan Lin."
JAN = "1 Jan Ost: A miner from Kiel, born in 1801, who worked for Vex Foods and married Ida Ost.\n" + (
    "2 Jan Lin: A judge from Trier, born in 1851, who worked for Vex Foods and married Ada Kesh."
)


def test_its_turns_are_compact_and_carry_all_it_knows():
    write = ScriptedResearcher(random.Random(0), EXPERT_RESEARCHER).turn
    first = write(QUESTIONS, None, "", 6)
    assert first == "<think> start; 1 ?; 2 ?</think><search> the red door</search>"
    second = write(QUESTIONS, first, DOOR, 5)
    assert second == "<think> the red door by odo lin; 1 by odo lin; 2 ?</think><search> ada kesh</search>"
    third = write(QUESTIONS, second, ADA, 4)
    assert (
        third == "<think> ada kesh married jan lin; 1 by odo lin; 2 ? married jan lin</think><search> jan lin</search>"
    )
    fourth = write(QUESTIONS, third, JAN, 3)
    assert fourth == "<think> jan lin from trier; 1 by odo lin; 2 from trier</think><answer> odo lin; trier</answer>"


def test_a_comparison_takes_two_searches():
    write, asked = (
        ScriptedResearcher(random.Random(0), EXPERT_RESEARCHER).turn,
        ["Who was born first, Ada Kesh or Jan Lin?"],
    )
    first = write(asked, None, "", 6)
    second = write(asked, first, ADA, 5)
    assert second == "<think> ada kesh born in 1850; 1 ?</think><search> jan lin</search>"
    assert (
        write(asked, second, JAN, 4) == "<think> jan lin born in 1851; 1 is ada kesh</think><answer> ada kesh</answer>"
    )


def test_what_is_not_found_is_searched_once_more_and_then_given_up():
    write = ScriptedResearcher(random.Random(0), EXPERT_RESEARCHER).turn
    first = write(QUESTIONS, None, "", 6)
    second = write(QUESTIONS, first, ADA, 5)
    assert second == "<think> nothing on the red door; 1 ?; 2 ?</think><search> the red door by</search>"
    third = write(QUESTIONS, second, "No passage found.", 4)
    assert third == "<think> start; 1 is none; 2 ?</think><search> ada kesh</search>"


def test_in_its_last_turn_it_answers_what_it_has():
    write = ScriptedResearcher(random.Random(0), EXPERT_RESEARCHER).turn
    first = write(QUESTIONS, None, "", 2)
    assert write(QUESTIONS, first, DOOR, 1).endswith("<answer> odo lin; none</answer>")


@pytest.mark.parametrize(("hops", "k", "least"), [(1, 1, 0.9), (1, 4, 0.9), (2, 1, 0.75), (2, 4, 0.75), (3, 2, 0.6)])
def test_with_full_skill_it_is_mostly_right_whatever_the_number_of_objectives(hops, k, least):
    source = EncyclopediaTasks(3, 600, (hops,), objectives=k)
    tasks = [source.task("val", index) for index in range(min(40 // k, source.size("val")))]
    played = [play(source.env(task), task, EXPERT_RESEARCHER) for task in tasks]
    assert fmean(game.info["em_mean"] for game in played) >= least


def test_interdependent_questions_are_answered_one_through_the_other():
    source = EncyclopediaTasks(3, 600, (1,), objectives=3, compose="interdependent")
    tasks = [source.task("val", index) for index in range(10)]
    assert all("the answer to question" in task.prompt for task in tasks)
    assert fmean(play(source.env(task), task, EXPERT_RESEARCHER).info["em_mean"] for task in tasks) >= 0.9


@pytest.mark.parametrize("skill", [EXPERT_RESEARCHER, ResearcherSkill(), ResearcherSkill(0.0, 0.0, 0.5, 0.0)])
def test_every_turn_is_in_exact_format_whatever_the_skill(skill):
    source = EncyclopediaTasks(3, 600, (1, 2, 3), objectives=3)
    for index in range(10):
        task = source.task("train", index)
        assert all(exact_format(text, QA_TAGS) for text in play(source.env(task), task, skill, seed=index).texts)


def test_less_skill_earns_less():
    source = EncyclopediaTasks(3, 600, (2,), objectives=2)
    tasks = [source.task("train", index) for index in range(40)]
    rewards = [
        fmean(play(source.env(task), task, skill, seed=n).reward for n, task in enumerate(tasks))
        for skill in (EXPERT_RESEARCHER, ResearcherSkill(), ResearcherSkill(0.2, 0.2, 0.2))
    ]
    assert rewards == sorted(rewards, reverse=True) and rewards[0] - rewards[2] > 0.5


def test_played_through_the_rollout_it_earns_what_it_earns_by_itself():
    """Text becomes ids in lower case and back: what a policy is cloned from is right as well."""
    source = EncyclopediaTasks(3, 600, (1, 2), objectives=2)
    tasks = [source.task("train", index) for index in range(12)]
    alone = [play(source.env(task), task, ResearcherSkill(), seed) for seed, task in enumerate(tasks)]
    episodes, writers = [], []
    for seed, task in enumerate(tasks):
        env = source.env(task)
        episodes.append(Episode(task, env, seed))
        writers.append(hand(ScriptedResearcher(random.Random(seed), ResearcherSkill()), env, task))
    settings = RolloutSettings(format="qa", prompt="brief")
    played = collect(episodes, ScriptedEngine(tiny_tokenizer(), writers), tiny_tokenizer(), settings)
    assert [t.reward for t in played] == [game.reward for game in alone]
    assert {t.stop_reason for t in played} == {StopReason.DONE} and all(turn.valid for t in played for turn in t.turns)


def hand(researcher, env, task):
    turns, questions = [], [objective.question for objective in task.objectives]

    def write(context):
        previous = turns[-1] if turns else None
        turns.append(researcher.turn(questions, previous, env.observe(), task.max_turns - len(turns)))
        return turns[-1]

    return write


def test_in_the_other_notation_it_lists_what_is_answered_and_spells_out_the_question_that_is_due():
    write = ScriptedResearcher(random.Random(0), EXPERT_RESEARCHER, notation="next", first=7).turn
    first = write(QUESTIONS, None, "", 6)
    assert first == "<think> start; | 7 who made the red door?</think><search> the red door</search>"
    second = write(QUESTIONS, first, DOOR, 5)
    due = "8 which town is the spouse of ada kesh from?"
    assert second == f"<think> the red door by odo lin; 7 odo lin | {due}</think><search> ada kesh</search>"
    third = write(QUESTIONS, second, ADA, 4)
    assert third == f"<think> ada kesh married jan lin; 7 odo lin | {due}</think><search> jan lin</search>"
    fourth = write(QUESTIONS, third, JAN, 3)
    assert fourth == "<think> jan lin from trier; 7 odo lin 8 trier | 9</think><answer> 7 odo lin 8 trier</answer>"
    assert (
        write(QUESTIONS, first, DOOR, 1)
        == "<think> the red door by odo lin; 7 odo lin | 8</think><answer> 7 odo lin</answer>"
    )
    assert write(QUESTIONS, None, "", 1) == "<think> start; | 7</think><answer> none</answer>"


@pytest.mark.parametrize("needed", ["answer 7", "the answer to question 7"])
def test_a_question_that_needs_an_answer_is_searched_for_by_its_number_and_the_answer(needed):
    asked = ["Who made The Red Door?", f"Which town is {needed} from?"]
    write = ScriptedResearcher(random.Random(0), ResearcherSkill(1, 1, 0, query=0), notation="next", first=7).turn
    first = write(asked, None, "", 6)
    assert first.endswith("<search> who made the red door</search>")
    second = write(asked, first, DOOR, 5)
    assert second == (
        f"<think> the red door by odo lin; 7 odo lin | 8 which town is {needed} from?</think>"
        f"<search> {needed} odo lin</search>"
    )
    third = write(asked, second, "1 Odo Lin: A poet from Ulm, born in 1801.", 4)
    assert third.startswith("<think> odo lin from ulm; 7 odo lin 8 ulm | 9</think>")


def test_entries_of_questions_that_are_no_longer_asked_are_carried_on_until_a_turn_is_lost():
    write = ScriptedResearcher(
        random.Random(0), EXPERT_RESEARCHER, notation="next", first=3, carried="1 ulm 2 1843"
    ).turn
    asked = ["The Red Door maker?"]
    first = write(asked, None, "", 6)
    assert first == "<think> start; 1 ulm 2 1843 | 3 the red door maker?</think><search> the red door</search>"
    second = write(asked, first, DOOR, 5)
    listed = "1 ulm 2 1843 3 odo lin"
    assert second == f"<think> the red door by odo lin; {listed} | 4</think><answer> {listed}</answer>"
    assert write(asked, "<think> start; 1 ulm 1 ulm 1", "", 4).startswith("<think> start; | 3 the red door maker?")


def test_with_the_whole_history_in_sight_an_answer_is_written_down_once_before_the_last_turn():
    write = ScriptedResearcher(
        random.Random(0), EXPERT_RESEARCHER, notation="react", first=3, carried="1 ulm 2 1843"
    ).turn
    asked = ["Who made The Red Door?", "Which town is answer 3 from?"]
    first = write(asked, None, "", 6)
    assert first == "<think> start; 1 ulm 2 1843 | 3 who made the red door?</think><search> the red door</search>"
    second = write(asked, first, DOOR, 5)
    assert second == (
        "<think> the red door by odo lin; 3 odo lin | 4 which town is answer 3 from?</think>"
        "<search> answer 3 odo lin</search>"
    )
    assert write(asked, "<think> the red door by by by", "", 4) == second  # broken off: the history has what it needs
    third = write(asked, second, "1 Odo Lin: A poet from Ulm, born in 1801.", 3)
    listed = "1 ulm 2 1843 3 odo lin 4 ulm"
    assert third == f"<think> odo lin from ulm; 4 ulm | 5</think><answer> {listed}</answer>"
    fresh = ScriptedResearcher(random.Random(0), EXPERT_RESEARCHER, notation="react").turn
    assert fresh(asked, None, "", 6).startswith("<think> start; | 1 who made the red door?</think>")
    assert fresh(asked, "<think> start st", "", 1) == "<think> start; | 1</think><answer> none</answer>"


@pytest.mark.parametrize("notation", ["next", "react"])
@pytest.mark.parametrize("wording", ["question", "topic"])
@pytest.mark.parametrize("compose", ["mixed", "interdependent"])
def test_in_the_other_notations_it_answers_as_many_questions(compose, wording, notation):
    source = EncyclopediaTasks(3, 600, (1,), objectives=4, compose=compose, variant="numbered", wording=wording)
    tasks = [source.task("val", index) for index in range(10)]
    assert (
        fmean(play(source.env(task), task, EXPERT_RESEARCHER, notation=notation).info["em_mean"] for task in tasks)
        >= 0.9
    )
