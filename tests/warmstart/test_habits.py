"""The experts that a warm start clones use what their memory mode is for, and know nothing that is out of sight."""

import re

import pytest

from lightning_mem1.context.contexts import contexts
from lightning_mem1.context.formats import READING_TAGS
from lightning_mem1.context.modes import MODES
from lightning_mem1.context.tags import QA_TAGS
from lightning_mem1.environments.qa.scripted_researcher.researcher import EXPERT_RESEARCHER
from lightning_mem1.environments.reading.scripted_reader import EXPERT_READER
from lightning_mem1.environments.reading.tasks import ReadingTasks
from lightning_mem1.warmstart.demonstrations import Demonstrations
from lightning_mem1.warmstart.settings import (
    DemonstrationSettings,
    QADemonstrations,
    ReadingDemonstrations,
    Stage,
    WarmStart,
)
from lightning_mem1.warmstart.subtasks import of_document, of_questions
from tiny import tiny_tokenizer

QUESTIONS, PARTS = 6, 8
NARROW = {"compaction": {"mode": "compaction", "budget": 700}, "masked": {"mode": "masked", "window": 2}}
WORDS = [word for word in MODES if word not in ("recorded", "none")]  # `none` sees no state, and its expert goes on
DIRECTIVES = {"fold": {"branch", "return"}, "edit": {"delete"}, "recall": {"recall"}, "multiscale": {"fold"}}


def played(memory, world="qa", slip=0.0):
    qa = QADemonstrations(num_passages=60, notation="next", wording="topic", skill=EXPERT_RESEARCHER)
    kinds = ["needle", "conflict", "hops"]
    reading = ReadingDemonstrations(kinds=kinds, turns_per_part=3, skill=EXPERT_READER)
    stages = {
        "qa": Stage(2, 0, 3, passages=3, objectives=[QUESTIONS], hops=[1]),
        "reading": Stage(2, 0, 0, reading_episodes=3, lengths=[240], part=30),
    }
    data = DemonstrationSettings(slip=slip, qa=qa, reading=reading)
    config = WarmStart("unused", memory=NARROW.get(memory, memory), data=data, stages=[stages[world]])
    config.rollout.max_information_tokens = 2000
    found = [trajectory for step in Demonstrations(config, tiny_tokenizer()) for trajectory in step]
    return found, [contexts(trajectory, config.mode) for trajectory in found]


def searches(trajectories):
    return [[turn.info["query"] for turn in each.acts if "query" in turn.info] for each in trajectories]


def longest(seen):
    return max(len(ids) for each in seen for ids in each)


@pytest.mark.parametrize("world", ["qa", "reading"])
@pytest.mark.parametrize("memory", WORDS)
def test_the_expert_of_a_mode_succeeds_in_it_and_uses_its_actions(memory, world):
    trajectories, _ = played(memory, world)
    assert [t.reward for t in trajectories] == [float(QUESTIONS if world == "qa" else 1)] * len(trajectories)
    names = {turn.directive.name for t in trajectories for turn in t.turns if turn.directive}
    assert names == DIRECTIVES.get(memory, set())
    refused = [turn for t in trajectories for turn in t.turns if not turn.valid]
    assert not refused or memory == "recall"  # it is shown what to do behind a broken turn
    assert any(turn.kind == "memory" for t in trajectories for turn in t.turns) == (memory in ("summary", "compaction"))


@pytest.mark.parametrize("world", ["qa", "reading"])
@pytest.mark.parametrize("memory", ["compaction", "fold", "edit", "multiscale", "recall"])
def test_contexts_stay_as_short_as_the_mode_promises(memory, world):
    _, seen = played(memory, world)
    _, whole = played("full", world)
    if memory == "compaction":
        assert longest(seen) <= 700 + 20  # the opening of a memory comes on top
    assert longest(seen) < longest(whole)
    if memory in ("edit", "multiscale", "recall"):  # from the middle of an episode on they grow no more
        assert all(max(map(len, each)) < 1.5 * max(map(len, each[: len(each) // 2])) for each in seen)


@pytest.mark.parametrize("slip", [0.0, 0.2])
@pytest.mark.parametrize("memory", WORDS)
def test_an_expert_writes_down_no_answer_that_its_context_does_not_show(memory, slip):
    tokenizer = tiny_tokenizer()
    trajectories, seen = played(memory, slip=slip)
    for trajectory, each in zip(trajectories, seen, strict=True):
        answers = [answer.lower() for objective in trajectory.task.objectives for answer in objective.answers]
        for turn, ids in zip(trajectory.turns, each, strict=True):
            if turn.valid:
                context, text = (tokenizer.decode(part).lower() for part in (ids, turn.action_ids))
                assert [answer for answer in answers if answer in text and answer not in context] == []


@pytest.mark.parametrize("memory", ["full", "window", "masked", "compaction", "summary", "fold", "edit", "multiscale"])
def test_a_broken_turn_costs_no_answer_where_the_last_whole_one_is_in_view(memory):
    (faultless, _), (slipping, _) = played(memory), played(memory, slip=0.12)
    assert sum(not turn.valid for t in slipping for turn in t.turns) > 4
    assert searches(faultless) == searches(slipping)  # what was found once is not looked up again


def test_a_turn_that_was_lost_behind_a_broken_one_is_fetched_back_and_continued():
    trajectories, seen = played("recall", slip=0.2)
    assert [t.reward for t in trajectories] == [float(QUESTIONS)] * len(trajectories)
    assert min(t.reward for t in played("mem1", slip=0.2)[0]) < QUESTIONS  # where it has to begin again, turns run out
    tokenizer, fetches = tiny_tokenizer(), 0
    for trajectory, each in zip(trajectories, seen, strict=True):
        for number, turn in enumerate(trajectory.turns):
            if turn.directive:
                fetches += 1
                (fetched,) = turn.directive.turns
                assert not trajectory.turns[number - 1].valid and trajectory.turns[fetched].valid
                if number + 1 < len(each):
                    assert tokenizer.decode(trajectory.turns[fetched].ids) in tokenizer.decode(each[number + 1])
    assert fetches > 2


def test_a_branch_is_opened_for_what_comes_next_and_returns_with_what_it_found():
    first = next(t for t in played("fold")[0] if len(t.turns) == 11)  # each question takes one search
    texts = [tiny_tokenizer().decode(turn.ids) for turn in first.turns]
    actions = [re.search(r"<(branch|return|search|answer)> ?(.*)</", text) for text in texts]
    kinds = [found[1] for found in actions]
    assert kinds == [*(["branch", *["search"] * 3, "return"] * 2), "answer"]
    asked, answers = [o.question for o in first.task.objectives], [o.answers[0].lower() for o in first.task.objectives]
    assert actions[0][2] == f"1 {asked[0].lower()}" and actions[5][2] == f"4 {asked[3].lower()}"
    assert actions[4][2] == " ".join(f"{number} {answer}" for number, answer in enumerate(answers[:3], 1))


def test_how_far_a_researcher_and_a_reader_are_is_read_from_their_turns():
    parts = of_questions(["Ulm river?", "Odo Lin spouse?"], QA_TAGS, first=4)
    now = parts.progress("<think> ulm on the river isar; 4 isar | 5 odo lin spouse?</think><search> odo lin</search>")
    assert (now.done, now.ahead, now.found(0), now.found(1)) == (1, "5 odo lin spouse?", "4 isar", "none")
    assert parts.progress("<think> x; 4 isar 5 ulf | 6</think><answer> 4 isar 5 ulf</answer>").ahead == ""
    source = ReadingTasks(["needle"], length=60, part=30)
    env = source.env(source.task("train", 0))
    env.step("read[next]")
    now = of_document(env, READING_TAGS).progress("<think>the room of Odo Lin is ?</think><read>next</read>")
    assert (now.done, now.ahead, now.found(0)) == (1, "next", "the room of Odo Lin is ?")


def test_the_shop_has_no_parts_and_its_expert_opens_no_branch():
    config = WarmStart("unused", memory="fold", stages=[Stage(1, 2, 0)])
    config.data.shop.num_products = 40
    (trajectories,) = Demonstrations(config, tiny_tokenizer())
    assert not any(turn.directive for t in trajectories for turn in t.turns)
    assert all(turn.valid for t in trajectories for turn in t.turns[:1])


def test_a_task_has_more_turns_for_modes_whose_actions_cost_some():
    once, thrice = (ReadingTasks(["needle"], 90, 30, turns).task("train", 0).max_turns for turns in (1, 3))
    assert (thrice - 2) == 3 * (once - 2)


@pytest.mark.parametrize(("memory", "carries"), [("mem1", True), ("summary", True), ("compaction", False)])
def test_a_list_to_carry_on_is_given_only_where_a_first_state_shows_it(memory, carries):
    config = WarmStart("unused", memory=memory, stages=[Stage(2, 0, 6, objectives=[2], hops=[1])])
    config.data.qa = QADemonstrations(num_passages=60, notation="next", largest_first=8, carried=1.0)
    tasks = [t.task for step in Demonstrations(config, tiny_tokenizer()) for t in step]
    assert any("carried" in task.data for task in tasks) == carries
