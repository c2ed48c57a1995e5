"""Tasks over generated documents, and the scripted reader that plays them."""

import random

import pytest

from lightning_mem1.context.formats import READING_TAGS
from lightning_mem1.context.tags import parse_turn
from lightning_mem1.environments.reading.notes import notes_on
from lightning_mem1.environments.reading.scripted_reader import EXPERT_READER, ReaderSkill, ScriptedReader, play
from lightning_mem1.environments.reading.stories import KINDS
from lightning_mem1.environments.reading.tasks import ReadingTasks
from lightning_mem1.testing import check_env


def test_a_task_is_its_question_and_turns_for_every_part_the_answer_and_a_mistake():
    source = ReadingTasks(["needle"], length=300, part=100)
    task = source.task("val", 4)
    env = source.env(task)
    assert task.prompt == task.objectives[0].question
    assert task.id == "reading/val/needle/300/4" and task.max_turns == len(env.parts) + 2
    assert source.task("val", 4) == task and source.env(task).parts == env.parts


def test_seed_split_and_index_each_draw_another_document():
    first = ReadingTasks(length=100)
    others = [ReadingTasks(length=100, seed=1).task("val", 0), first.task("test", 0), first.task("val", 1)]
    assert len({first.task("val", 0).prompt, *(task.prompt for task in others)}) == 4


def test_a_longer_document_asks_the_same_question():
    short, long = ReadingTasks(length=200), ReadingTasks(length=5000)
    for index in range(20):
        assert short.task("test", index).objectives == long.task("test", index).objectives
    text = " ".join(long.env(long.task("test", 3)).parts)
    assert 5000 <= sum(1 for _ in text.split()) * 1.3 <= 6500


def test_kinds_and_lengths_are_drawn_evenly():
    source = ReadingTasks(length=[50, 100])
    drawn = [source.task("train", index).data for index in range(500)]
    assert all(60 < sum(each["kind"] == kind for each in drawn) < 140 for kind in KINDS)
    assert 190 < sum(each["length"] == 50 for each in drawn) < 310


def test_chat_models_are_told_what_to_do():
    prompt = ReadingTasks(["needle"], length=50, style="explained").task("val", 0).prompt
    assert prompt.startswith("A document arrives part by part.") and "\nQuestion: What is the " in prompt


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": []}, "data.kinds is empty: expected some of needle, conflict"),
        ({"kinds": ["needles"]}, "needles"),
        ({"length": 0}, "data.source.length too small: expected at least 1, got 0"),
        ({"length": []}, r"got \[\]; set data.length"),
        ({"part": 0}, "part too small: expected at least 1, got 0"),
        ({"style": "long"}, "data.style"),
    ],
)
def test_a_setting_out_of_range_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ReadingTasks(**settings)


def test_an_index_behind_the_end_of_a_split_is_refused():
    with pytest.raises(IndexError, match="0 to 999 in split 'val', got 1000"):
        ReadingTasks().task("val", 1000)


@pytest.mark.parametrize("kind", KINDS)
def test_one_who_keeps_only_what_the_question_names_answers_every_question(kind):
    source = ReadingTasks([kind], length=400, part=60)
    assert source.baselines("test", range(60)) == {"reader": 1.0}


def test_the_reader_keeps_its_place_in_two_hops_in_the_words_of_the_document():
    reader, question = ScriptedReader(random.Random(0), EXPERT_READER), "What is the river of the home of Odo Lin?"
    first = reader.turn(question, None, "", 5)
    assert first == "<think>the home of Odo Lin is ?</think><read>next</read>"
    second = reader.turn(question, first, "Part 1 of 3\nThe home of Odo Lin is Torham. The pet of Odo Lin is Owl.", 4)
    assert second == "<think>the home of Odo Lin is Torham; the river of Torham is ?</think><read>next</read>"
    third = reader.turn(question, second, "Part 2 of 3\nIn spring the Sella is high.", 3)
    assert third == second
    last = reader.turn(question, third, "Part 3 of 3\nThe river of Torham is Sella.\nThe end.", 2)
    expected = "the home of Odo Lin is Torham; the river of Torham is Sella"
    assert last == f"<think>{expected}</think><answer>Sella</answer>"


def test_the_newest_word_on_a_fact_replaces_what_the_notes_say():
    notes = notes_on("What is the pet of Odo Lin?")
    notes.recall("the pet of Odo Lin is Owl")
    assert notes.answer == "Owl"
    notes.read("The pet of Odo Lin is Fox. The pet of Ida Lin is Hare. The pet of Odo Lin is Lynx.")
    assert notes.written == "the pet of Odo Lin is Lynx"


def test_vaults_and_ships_are_noted_as_they_come():
    vaults, ships = notes_on("Which vaults hold 417?"), notes_on("How many ships from Torham arrive?")
    vaults.read("Vault Red Door holds 417. Vault Old Tower holds what vault Red Door holds. Vault Lost Key holds 41.")
    assert (vaults.written, vaults.answer) == ("417 is in Red Door, Old Tower", "Red Door Old Tower")
    again = notes_on("Which vaults hold 417?")
    again.recall(vaults.written)
    again.read("Vault Wild Garden holds what vault Old Tower holds.")
    assert again.answer == "Red Door Old Tower Wild Garden"
    ships.recall("ships from Torham 2")
    ships.read("A ship from Torham arrives. A ship from Velham arrives. A ship from Torham arrives.")
    assert ships.written == "ships from Torham 4"


def test_a_question_of_others_is_refused():
    with pytest.raises(ValueError, match="reads generated questions only, got 'Who wrote Emma\\?'"):
        notes_on("Who wrote Emma?")


def test_a_hasty_reader_answers_as_soon_as_it_knows_something_and_is_wrong_where_facts_change():
    source = ReadingTasks(["conflict"], length=600, part=60)
    tasks = [source.task("val", index) for index in range(40)]
    played = [play(source.env(task), task, ReaderSkill(early=1.0, miss=0.0), seed=n) for n, task in enumerate(tasks)]
    assert sum(each.reward for each in played) < 12
    assert all(each.info["read"] < 1.0 for each in played if not each.reward)


def test_a_broken_turn_loses_the_notes_and_costs_nothing_else():
    reader, question = ScriptedReader(random.Random(0), EXPERT_READER), "What is the pet of Odo Lin?"
    turn = reader.turn(question, "<think>the pet of Odo", "Nothing was read.", 3)
    assert parse_turn(turn, reader.tags).action == "read[next]" and "Odo Lin is ?" in turn


def test_the_environment_keeps_the_rules_of_environments():
    source = ReadingTasks(["hops"], length=100, part=30)
    task = source.task("val", 0)
    actions = ["read[next]", "read[next]", f"answer[{task.objectives[0].answers[0]}]"]
    report = check_env(source, task, actions=actions, tags=READING_TAGS)
    assert (report.num_episodes, report.num_done > 0, report.num_valid > 0) == (6, True, True)
