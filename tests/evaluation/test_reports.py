"""From a trajectory to a row: numbers worked by hand, intervals, remarks."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from rich.console import Console

from lightning_mem1.context.tags import QA_TAGS
from lightning_mem1.evaluation.bootstrap import bootstrap
from lightning_mem1.evaluation.ledger import Record
from lightning_mem1.evaluation.measures import answers, by_turn, cost, group_deviations, measures, outcome
from lightning_mem1.evaluation.published import PUBLISHED
from lightning_mem1.evaluation.tables import Baseline, as_metrics, on_screen, remarks, row
from lightning_mem1.evaluation.view import View
from lightning_mem1.types import Objective, StopReason, Task, Trajectory, Turn

WORDS = ["<think>", "</think>", "<search>", "</search>", "<answer>", "</answer>", "red", "; ", "blue", "?"]
TASK = Task("qa/test/2/0", "1 who\n2 where", (Objective("who", ("red",)), Objective("where", ("blue sky",))), 7)


def decode(ids: Sequence[int]) -> str:
    return "".join(WORDS[i] for i in ids)


def turn(ids: list[int], information: list[int], **more) -> Turn:
    return Turn(ids, [0.0] * len(ids), information, **more)


def played() -> Trajectory:
    """Prompt of 5; a search after two words of thought; a stray turn; an answer, one of two right."""
    return Trajectory(
        TASK,
        [9] * 5,
        [
            turn([0, 6, 8, 1, 2, 6, 3], [9] * 6, action="search[red]", info={"search": 1.0}),
            turn([6, 6], [9] * 3, valid=False),
            turn([0, 6, 1, 4, 6, 7, 8, 5], [], action="answer[red; blue]", reward=1.0, info={"em": 1.0, "f1": 1.5}),
        ],
        StopReason.DONE,
        seconds=4.0,
    )


def test_the_measures_of_a_trajectory_are_those_worked_by_hand():
    # mem1: contexts 5, 5 + 7 + 6 = 18, 5 + 2 + 3 = 10; written 7, 2, 8; windows at the ends of turns 12, 20, 18
    assert measures(played(), View(decode, QA_TAGS, "mem1")) == {
        "em": 1.0,
        "em_mean": 0.5,
        "f1": 1.5,
        "f1_mean": 0.75,
        "success": 0.0,
        "reward": 1.0,
        "valid": pytest.approx(2 / 3),
        "exact_format": pytest.approx(2 / 3),
        "peak_tokens": 20.0,
        "peak_tokens_without_prompt": 15.0,
        "dependency": (10 + 7) * 7 / 2 + (36 + 2) * 2 / 2 + (20 + 8) * 8 / 2,
        "turns": 3.0,
        "searches": 1.0,
        "internal_state_tokens": pytest.approx((2 + 0 + 1) / 3),
        "repeated_actions": 0.0,
        "recall_rate": 0.0,
        "seconds": 4.0,
    }


def test_a_measure_is_the_numbers_that_are_averaged_one_of_a_trajectory_or_one_of_each_turn():
    ended = outcome(played())
    assert (ended["reward"], ended["turns"], ended["seconds"]) == ([1.0], [3.0], [4.0])
    assert ended["valid"] == [1.0, 0.0, 1.0] and (ended["stop_done"], ended["stop_error"]) == ([1.0], [0.0])
    found = answers(played(), View(decode, QA_TAGS, "mem1"))
    assert (found["em"], found["f1"], found["objectives"]) == ([1.0], [1.5], [2.0])
    assert (found["answered"], found["searches"]) == ([0.0], [1.0])  # its environment did not say what was answered
    assert found["exact_format"] == [1.0, 0.0, 1.0]
    used = cost(played(), View(decode, QA_TAGS, "mem1"))
    assert used["context_tokens"] == [5.0, 18.0, 10.0] and used["peak_tokens"] == [20.0]
    assert used["internal_state_tokens"] == [2.0, 0.0, 1.0] and used["internal_state_copy_rate"] == []


def test_a_group_deviates_by_the_rewards_that_are_numbers():
    def rewarded(group, reward):
        return Trajectory(TASK, [9], [turn([6], [], reward=reward)], StopReason.DONE, group)

    played = [rewarded(0, 0.0), rewarded(1, 3.0), rewarded(0, 1.0), rewarded(1, float("nan"))]
    assert group_deviations(played) == [0.5, 0.0]
    assert group_deviations([]) == []


def test_the_full_history_peaks_higher_than_memory():
    # contexts 5, 18, 18 + 2 + 3 = 23; windows 12, 20, 31
    found = measures(played(), View(decode, QA_TAGS, "full"))
    assert (found["peak_tokens"], found["peak_tokens_without_prompt"]) == (31.0, 26.0)


def test_a_memory_written_apart_counts_with_the_context_it_was_written_in():
    search = turn([6, 2, 6, 3], [9] * 6, action="search[red]", info={"search": 1.0})
    memory = Turn([6, 8, 1], [0.0] * 3, kind="memory", opening_ids=[0])
    answer = turn([4, 6, 7, 8, 5], [], action="answer[red; blue]", reward=1.0, info={"em": 1.0, "f1": 1.5})
    trajectory = Trajectory(TASK, [9] * 5, [search, memory, answer], StopReason.DONE)
    # contexts 5, 5 + 4 + 6 + 1 = 16, 5 + 4 + 6 = 15; written 4, 3, 5
    found = measures(trajectory, View(decode, QA_TAGS, "summary"))
    assert (found["peak_tokens"], found["peak_tokens_without_prompt"]) == (20.0, 15.0)
    assert found["dependency"] == (10 + 4) * 4 / 2 + (32 + 3) * 3 / 2 + (30 + 5) * 5 / 2
    assert (found["turns"], found["searches"], found["valid"], found["em"]) == (2.0, 1.0, 1.0, 1.0)
    assert (found["exact_format"], found["internal_state_tokens"]) == (1.0, 2.0)
    assert by_turn(trajectory, View(decode, QA_TAGS, "summary")) == {
        "context_tokens": [16, 15],
        "internal_state_tokens": [2],
    }


def test_an_episode_that_broke_before_its_first_turn_counts_with_zeros():
    found = measures(Trajectory(TASK, [], [], StopReason.ERROR, error="on fire"), View(decode, QA_TAGS, "mem1"))
    assert set(found.values()) == {0.0} and "em" in found


def test_a_shop_has_no_answers_and_counts_searches_by_their_action():
    shop = Task("webshop/test/0", "Instruction: shoes", (Objective("shoes"),), 10)
    turns = [
        turn([6], [9], action="search[red shoes]"),
        turn([6], [9], action="search[nowhere]", valid=False),
        turn([6], [], action="click[search]"),
    ]
    found = measures(Trajectory(shop, [9], turns, StopReason.DONE), View(decode, QA_TAGS, "mem1"))
    assert found["searches"] == 1.0 and "em" not in found and "f1_mean" not in found


def test_a_bootstrap_of_two_reaches_from_one_to_the_other_and_equal_numbers_have_no_width():
    # a resample of (0, 1) is 0 in a quarter of the cases and 1 in another, so both ends lie inside 95%
    found = bootstrap({"coin": [0.0, 1.0], "same": [0.1, 0.1]})
    assert found["coin"] == (0.5, 0.0, 1.0)
    assert found["same"] == (0.1, pytest.approx(0.1), pytest.approx(0.1))
    assert bootstrap({"one": [3.0]})["one"] == (3.0, 3.0, 3.0)


def test_a_bootstrap_interval_of_many_is_two_standard_errors_wide_and_repeatable():
    numbers = [0.0, 1.0] * 200  # standard error 0.5 / 20 = 0.025
    first = bootstrap({"x": numbers, "double": [2 * n for n in numbers]})
    assert first["x"].mean == 0.5
    assert first["x"].low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.003)
    assert first["x"].high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.003)
    assert np.allclose(first["double"], 2 * np.array(first["x"]))  # columns are drawn together
    assert bootstrap({"x": numbers})["x"] == first["x"]


@pytest.mark.parametrize("columns", [{}, {"x": []}, {"x": [1.0], "y": [1.0, 2.0]}])
def test_a_bootstrap_of_nothing_or_of_ragged_columns_is_refused(columns):
    with pytest.raises(ValueError, match="same number of trajectories"):
        bootstrap(columns)


def record(index: int, reason: str, reward: float, error: str = "") -> Record:
    return Record("full", 8, index, f"t/{index}", reason, error, {"reward": reward, "turns": 2.0})


def test_a_row_counts_every_trajectory_and_tells_of_those_cut_off():
    found = row([record(0, "done", 1.0), record(1, "context", 0.0), record(2, "context", 0.0)], 4096)
    assert found.measures["reward"].mean == pytest.approx(1 / 3)
    assert found.stops == {"done": 1, "max_turns": 0, "context": 2, "error": 0}
    assert remarks([found]) == [
        "full, 8 objectives: 2 of 3 trajectories outgrew the 4096 tokens that the policy has positions for; "
        "they count as they stood"
    ]
    ((step, metrics),) = as_metrics([found], "test")
    assert step == 8 and metrics["test/full/stop_context"] == pytest.approx(2 / 3)
    assert metrics["test/full/turns_low"] == 2.0


def test_a_failed_environment_is_told_with_its_first_error_and_no_control_characters():
    found = row([record(0, "done", 1.0), record(1, "error", 0.0, "OSError: \x1b[2J"), record(2, "error", 0.0, "x")], 99)
    assert remarks([found]) == [
        "full, 8 objectives: environment or engine failed in 2 of 3 trajectories, first with OSError: \\x1b[2J"
    ]


def test_a_name_with_markup_stands_in_the_table_as_it_is():
    console = Console(width=120, file=io.StringIO())
    for table in on_screen([row([record(0, "done", 1.0)], 100)], [Baseline("[bold]rule[/bold]", 8, 0.5)], PUBLISHED):
        console.print(table)
    assert "[bold]rule[/bold]" in console.file.getvalue()


def test_a_table_has_a_column_for_each_memory_mode_and_writes_pairs_in_millions():
    full = row([Record("full", 8, 0, "t/0", "done", "", {"reward": 0.25, "dependency": 2_400_000.0})], 100)
    mem1 = row([Record("mem1", 8, 0, "t/0", "done", "", {"reward": 0.5, "dependency": 120_000.0})], 100)
    console = Console(width=80, file=io.StringIO())
    for table in on_screen([mem1, full], [Baseline("rule", 8, 0.125)], []):
        console.print(table)
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert "mean [95% interval] mem1, n=1 full, n=1" in lines
    assert "reward 0.500 [0.500, 0.500] 0.250 [0.250, 0.250]" in lines
    assert "dependency, 1e6 pairs 0.120 [0.120, 0.120] 2.400 [2.400, 2.400]" in lines
    assert "reward of rule 0.125" in lines and "stopped by context 0 0" in lines


def test_published_rows_name_their_source_and_the_ratios_of_the_paper_come_out():
    assert all(each.source.startswith("arXiv 2506.15841, ") for each in PUBLISHED)
    table = {(p.model, p.objectives): p for p in PUBLISHED if p.source.endswith("table 1")}
    memory = table["MEM1-QA 7B, trained on 2", 16]
    full = table["Qwen2.5-14B-Instruct, full context", 16]
    assert memory.em / full.em == pytest.approx(3.5, abs=0.05)  # "3.5x" and "3.7x" of its abstract
    assert full.peak_tokens_without_prompt / memory.peak_tokens_without_prompt == pytest.approx(3.7, abs=0.05)
