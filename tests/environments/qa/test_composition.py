"""Composition: which questions meet in a task, and that it is the same for everybody who asks."""

import pytest

from lightning_mem1.environments.qa.composition import Composer, check_schedule, num_objectives
from lightning_mem1.environments.qa.question import Question
from lightning_mem1.types import Objective


def numbered(name, count):
    return [Question(f"{name}:{n}", f"{name} {n}?", (str(n),), name) for n in range(count)]


SOURCES = {"a": numbered("a", 7), "b": numbered("b", 5)}


def ids(composer, k):
    return [[question.id for question in composer.compose(k, i).questions] for i in range(composer.size(k))]


def test_the_paper_takes_consecutive_rows_of_one_set_and_leaves_a_rest_out():
    assert ids(Composer(SOURCES, "paper"), 3) == [
        ["a:0", "a:1", "a:2"],
        ["a:3", "a:4", "a:5"],
        ["b:0", "b:1", "b:2"],
    ]


@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_a_mix_deals_every_question_once_before_any_comes_again(k):
    tasks = ids(Composer(SOURCES), k)
    dealt = [name for task in tasks for name in task]
    assert len(tasks) == 12 // k and len(dealt) == len(set(dealt)) == k * len(tasks)


def test_tasks_depend_on_seed_and_index_alone():
    assert ids(Composer(SOURCES, seed=1), 2) == ids(Composer(SOURCES, seed=1), 2)
    assert ids(Composer(SOURCES, seed=1), 2) != ids(Composer(SOURCES, seed=2), 2)
    assert any({name[0] for name in task} == {"a", "b"} for task in ids(Composer(SOURCES, seed=1), 2))


def test_weights_are_shares_of_the_largest_mix_without_repeats():
    dealt = [name for task in ids(Composer(SOURCES, weights={"a": 1, "b": 1}), 1) for name in task]
    assert sorted(name[0] for name in dealt) == ["a"] * 5 + ["b"] * 5
    only = [name for task in ids(Composer(SOURCES, weights={"a": 1, "b": 0}), 1) for name in task]
    assert sorted(only) == [f"a:{n}" for n in range(7)]


CHAIN = [
    Question("q1", "Who made The Red Door?", ("Ada",)),
    Question("q2", "Where is {before} from?", ("Ulm",), needs="q1"),
    Question("q3", "Who leads Ulm?", ("Bob",)),
]


def test_an_interdependent_question_names_the_one_it_needs():
    composed = Composer({"x": CHAIN}, "interdependent").compose(2, 0)
    assert composed.objectives == (
        Objective("Who made The Red Door?", ("Ada",)),
        Objective("Where is the answer to question 1 from?", ("Ulm",)),
    )


def test_a_chain_is_filled_up_with_single_questions_and_never_cut_open():
    (task,) = ids(Composer({"x": CHAIN}, "interdependent"), 3)
    assert task.index("q1") < task.index("q2") and set(task) == {"q1", "q2", "q3"}


def test_follow_ups_stay_out_of_other_compositions():
    assert sorted(sum(ids(Composer({"x": CHAIN}), 1), [])) == ["q1", "q3"]
    assert sum(ids(Composer({"x": CHAIN}, "paper"), 1), []) == ["q1", "q3"]


def test_questions_that_begin_alike_are_dealt_together_and_what_is_left_of_a_beginning_is_left_out():
    texts = [
        "Who made Emma?",
        "Who made Ulysses?",
        "who made Faust?",
        "Who leads Ulm?",
        "Who leads Jena?",
        "Where is Ulm?",
    ]
    asked = {"x": [Question(f"q{n}", text, ("",)) for n, text in enumerate(texts)]}
    tasks = ids(Composer(asked, "alike"), 2)
    pairs = sorted(tuple(sorted(task)) for task in tasks)
    assert len(pairs) == 2 and pairs[1] == ("q3", "q4") and set(pairs[0]) < {"q0", "q1", "q2"}
    assert ids(Composer(asked, "alike"), 2) == tasks != ids(Composer(asked, "alike", seed=3), 2)


@pytest.mark.parametrize(("k", "singles"), [(1, 1), (2, 0), (3, 1), (4, 0)])
def test_paired_questions_have_the_same_answer_and_an_odd_one_is_filled_up(k, singles):
    answers = ["Ulm", "ulm", "Jena", "Jena", "Rome", "1843"]
    questions = {f"q{n}": Question(f"q{n}", f"question {n}?", (each,)) for n, each in enumerate(answers)}
    tasks = ids(Composer({"x": list(questions.values())}, "paired"), k)
    assert tasks and all(len(set(task)) == k for task in tasks)
    for task in tasks:
        told = [questions[each].answers[0].lower() for each in task]
        assert sorted(told.count(each) for each in set(told)) == sorted([1] * singles + [2] * (k // 2))
    asked = [each for task in tasks for each in task]
    assert len(asked) == len(set(asked)), "no question comes twice before all have come"


def test_the_number_of_objectives_follows_the_schedule():
    assert [num_objectives(2, step) for step in (1, 99)] == [2, 2]
    assert [num_objectives([1, 2, 4], 1, position) for position in range(4)] == [1, 2, 4, 1]
    assert [num_objectives({1: 1, 50: 2, 80: 4}, step) for step in (0, 1, 49, 50, 80, 999)] == [1, 1, 1, 2, 4, 4]


@pytest.mark.parametrize("schedule", [0, [], [1, 0], {}, {5: 1}])
def test_a_schedule_that_leaves_a_step_without_questions_is_refused(schedule):
    with pytest.raises(ValueError, match="set data.objectives"):
        check_schedule(schedule)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"a": []},), "no questions: expected at least 1 in a, got 0"),
        ((SOURCES, "official"), "expected one of mixed, paper, interdependent, alike, paired, got 'official'"),
        ((SOURCES, "mixed", {"c": 1.0}), "weights name no source: expected a, b, got c"),
        ((SOURCES, "mixed", {"a": -1.0}), "weights must be positive numbers"),
        ((SOURCES, "paper", {"a": 1.0}), "weights belong to the composition 'mixed', got 'paper'"),
    ],
)
def test_a_composition_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Composer(*arguments)


def test_too_many_objectives_make_no_task_and_say_so():
    assert Composer(SOURCES).size(13) == 0
    with pytest.raises(IndexError, match="too few questions"):
        Composer(SOURCES).compose(13, 0)
