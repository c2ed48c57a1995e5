import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mem1.environments.qa.scoring import exact_match, normalise, score, token_f1

GOLDEN = Path(__file__).parents[3].parent / "shared/golden/rl/official_qa_scores.json"
TARGETS = [["Paris", "City of Paris"], ["Albert Einstein"]]


def test_case_punctuation_articles_and_spaces_do_not_matter():
    assert normalise("  The  U.S.-based\tAn Apple, a day ") == ["usbased", "apple", "day"]


def test_an_article_inside_a_word_stays():
    assert normalise("theatre of Athena") == ["theatre", "of", "athena"]


def test_an_objective_takes_its_best_alias():
    assert score("the city of paris; Einstein", TARGETS).em == (1.0, 0.0)


def test_f1_counts_the_tokens_that_are_shared():
    # given {new, york, city}, accepted {york, city, hall, usa}: 2 shared, precision 2/3, recall 1/2, F1 = 4/7
    assert token_f1("New York City", "York City Hall USA") == pytest.approx(4 / 7)


def test_f1_counts_a_repeated_token_as_often_as_both_have_it():
    assert token_f1("bye bye bye", "bye bye") == pytest.approx(4 / 5)
    assert token_f1("bye bye bye", "bye bye", "official") == 1.0


def test_the_task_score_is_the_sum_and_the_mean_stands_beside_it():
    result = score("Paris; Einstein", TARGETS)  # F1 of "einstein" against "albert einstein": 2/3
    assert (result.em_sum, result.em_mean) == (1.0, 0.5)
    assert (result.f1_sum, result.f1_mean) == pytest.approx((1 + 2 / 3, (1 + 2 / 3) / 2))


def test_a_missing_answer_is_wrong_and_the_others_stand():
    assert score("Paris", TARGETS).em == (1.0, 0.0)
    assert score("; Albert Einstein", TARGETS).em == (0.0, 1.0)


def test_an_answer_too_many_changes_nothing():
    assert score("Paris; Albert Einstein; Rome", TARGETS).em == (1.0, 1.0)


def test_answers_count_in_the_order_of_the_questions():
    assert score("Albert Einstein; Paris", TARGETS).em == (0.0, 0.0)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("1 odo lin 2 trier 3 1843", (1, 1, 1)),
        ("1. Odo Lin; 2. Trier; 3. 1843", (1, 1, 1)),
        ("1 odo lin 3 1843", (1, 0, 1)),  # a missing answer moves no other
        ("2 trier", (0, 1, 0)),
        ("1 odo lin 3 1843 2 trier", (1, 0, 0)),  # numbers go up: what follows 3 belongs to it
        ("1 odo lin 4 trier", (0, 0, 0)),  # no question has this number
        ("odo lin; trier; 1843", (1, 1, 1)),  # without numbers as in fixed
        ("2; trier; 1843", (0, 1, 1)),
        ("so 1 odo lin", (0, 0, 0)),
    ],
)
def test_an_answer_may_stand_behind_its_number(answer, right):
    assert score(answer, [["Odo Lin"], ["Trier"], ["1843"]], "numbered").em == right


def test_numbers_begin_where_the_prompts_begin():
    targets = [["Odo Lin"], ["Trier"]]
    assert score("11 odo lin 12 trier", targets, "numbered", first=11).em == (1, 1)
    assert score("11 odo lin 12 trier", targets, "numbered").em == (0, 0)
    assert score("1 ulm 2 1843 11 odo lin 12 trier", targets, "numbered", first=11).em == (1, 1)
    assert score("1 ulm 2 1843", targets, "numbered", first=11).em == (0, 0)
    assert score("1 odo lin 2 trier", targets).em == (0, 0)  # fixed takes the numbers for words


@given(st.text(alphabet="12.; ab", max_size=30))
def test_numbered_answers_give_each_objective_one_score(answer):
    result = score(answer, [["a"], ["b"]], "numbered")
    assert len(result.em) == len(result.f1) == 2 and all(0 <= each <= 1 for each in (*result.em, *result.f1))


@pytest.mark.parametrize("answer", [None, "", " ; "])
@pytest.mark.parametrize("variant", ["fixed", "official", "numbered"])
def test_no_answer_scores_nothing(answer, variant):
    result = score(answer, TARGETS, variant)
    assert (result.em, result.f1) == ((0.0, 0.0), (0.0, 0.0))


def test_the_answer_to_a_single_question_may_hold_a_semicolon():
    assert score("Tom; Jerry", [["Tom; Jerry"]]).em == (1.0,)


def test_an_answer_of_one_letter_or_sign_can_be_right_and_an_empty_one_cannot():
    assert exact_match("a", "A") == 1.0
    assert exact_match("+", "+") == 1.0
    assert exact_match("", "A") == 0.0
    assert exact_match("", "") == 0.0


@given(st.text(max_size=30), st.text(max_size=30))
def test_f1_is_symmetric_bounded_and_one_for_an_exact_match(left, right):
    f1 = token_f1(left, right)
    assert 0.0 <= f1 <= 1.0 and f1 == token_f1(right, left)
    assert exact_match(left, right) <= f1


@pytest.mark.parametrize(
    ("targets", "variant", "message"),
    [
        ([], "fixed", "at least one objective"),
        ([["Paris"], []], "fixed", r"objective 1 must have a list of accepted answers, got \[\]"),
        (["Paris"], "fixed", "objective 0 must have a list of accepted answers, got 'Paris'"),
        ([["Paris"]], "squad", "one of fixed, official, numbered, got 'squad'"),
    ],
)
def test_targets_that_cannot_be_scored_are_refused(targets, variant, message):
    with pytest.raises(ValueError, match=message):
        score("Paris", targets, variant)


def test_the_official_variant_equals_the_public_code_and_the_fixed_one_its_training_reward():
    if not GOLDEN.exists():
        pytest.skip(f"golden cases are not here: {GOLDEN.name}")
    golden = json.loads(GOLDEN.read_text())
    for case in golden["cases"]:
        official = score(case["answer"], golden["targets"], "official")
        assert (official.em_sum, official.f1_sum) == pytest.approx((case["em"], case["f1"])), case
        assert score(case["answer"], golden["targets"]).em_sum == case["train_reward"], case
