"""The trial with real weights: its scripted reader, its deadline, and the whole command with a tiny random policy."""

import gzip
import json
import random
import sys
import time
from pathlib import Path

import pytest

from tiny import tiny_policy

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments" / "claim"))

import real_weights  # noqa: E402
from scripted_reader import Reader, carried_on, worded  # noqa: E402

from lightning_mem1.context.tags import QA_TAGS  # noqa: E402
from lightning_mem1.environments.qa.question import Question  # noqa: E402
from lightning_mem1.environments.qa.retrieval.bm25 import BM25  # noqa: E402
from lightning_mem1.environments.qa.retrieval.passage import Passage  # noqa: E402
from lightning_mem1.environments.qa.scoring import final_answer  # noqa: E402
from lightning_mem1.environments.qa.tasks import QATasks  # noqa: E402
from lightning_mem1.rollout.settings import RolloutSettings  # noqa: E402
from lightning_mem1.types import Objective, StopReason, Task  # noqa: E402
from lightning_mem1.warmstart.model import save  # noqa: E402
from lightning_mem1.warmstart.settings import Stage, WarmStart  # noqa: E402


def test_the_reader_asks_each_question_copies_its_answer_and_lists_them_all():
    asked = (Objective("who sang Fly by Night", ("Rush",)), Objective("where is Ulm", ("Germany", "Swabia")))
    reader = Reader(Task("t", "", asked, 4), QA_TAGS)
    assert reader("1 who ...") == ("<think>| 1 who sang Fly by Night</think><search>who sang Fly by Night</search>")
    assert reader("germany <information>3 turns left\n1 Band: a song of rush.</information>") == (
        "<think>1 rush | 2 where is Ulm</think><search>where is Ulm</search>"
    )
    assert reader("<information>2 turns left\n1 Ulm: in Swabia</information>") == (
        "<think>1 rush; 2 Swabia | 3</think><answer>rush; Swabia</answer>"
    )


def test_a_reader_that_sees_its_turns_notes_each_answer_once_and_gathers_them_at_the_end():
    asked = (Objective("who sang Fly by Night", ("Rush",)), Objective("where is Ulm", ("Germany",)))
    task = Task("t", "", asked, 4, data={"first": 3, "carried": ["spurs", "1970"]})
    reader = Reader(task, QA_TAGS, numbered=True, restated=False)
    question = "who sang Fly by Night"
    assert reader("") == f"<think>1 spurs; 2 1970 | 3 {question}</think><search>{question}</search>"
    found = reader("<information>1 Band: of Rush.</information>")
    assert found == "<think>3 Rush | 4 where is Ulm</think><search>where is Ulm</search>"
    gathered = reader("<information>1 Ulm: in Germany</information>")
    assert gathered == "<think>4 Germany | 5</think><answer>1 spurs; 2 1970; 3 Rush; 4 Germany</answer>"


def test_a_list_that_is_carried_on_is_shown_kept_and_answered_by_its_numbers():
    asked = Task("t", "1 where is Ulm", (Objective("where is Ulm", ("Germany",)),), 4)
    others = [Question(f"q{n}", f"who is {n}?", (f"name {n}",)) for n in range(5)]
    prompts = set()
    for seed in range(8):
        task = carried_on(asked, 4, others, random.Random(seed))
        earlier = [f"{number} {answer}" for number, answer in enumerate(task.data["carried"], 1)]
        reader = Reader(task, QA_TAGS, numbered=True)
        assert reader("") == f"<think>{'; '.join(earlier)} | 4 where is Ulm</think><search>where is Ulm</search>"
        turn = reader("<information>1 Ulm: in Germany</information>")
        listed = "; ".join([*earlier, "4 Germany"])
        assert turn == f"<think>{listed} | 5</think><answer>{listed}</answer>"
        assert final_answer(listed, task, "em", "numbered").reward == 1
        prompts.add(len(task.prompt.splitlines()))
    assert prompts == {1, 4} and task.prompt.splitlines()[-1] == "4 where is Ulm"


def test_what_nobody_could_know_is_not_cloned(tmp_path):
    asked = [Question(f"q{n}", f"who is {n}?", (f"name {n}",)) for n in range(9)]
    source = QATasks({"train": {"own": asked}, "val": {}, "test": {}}, BM25([Passage("Ulm", "a town")]))
    config = WarmStart(output=str(tmp_path), stages=[Stage(6, objectives=[1, 2])], rollout=RolloutSettings(format="qa"))
    steps = real_weights.Cloned(source, tiny_policy().tokenizer, config, 4, largest_first=6)
    played = [each for step in range(6) for each in steps[step]]
    carried = [each for each in played if each.task.data.get("carried")]
    assert 0 < len(carried) < len(played)
    assert not any(each.turns[0].valid for each in carried)
    assert all(turn.valid for each in played for turn in each.turns[each in carried :])


@pytest.mark.parametrize(
    ("text", "answers", "found"),
    [
        ("born in Paris, France", ("paris",), "Paris"),
        ("parisian", ("Paris",), None),
        ("yes, no and 12 of them", ("yes", "no", "12"), None),  # they stand anywhere and answer nothing
        ("C++ (1985)", ("Java", "C++"), "C++"),
    ],
)
def test_an_answer_is_copied_as_the_text_words_it(text, answers, found):
    assert worded(text, answers) == found


def data(folder: Path, number: int = 60) -> Path:
    """Questions of which every other one has its answer in the corpus."""
    rows = [{"id": str(i), "question": f"who made thing{i}", "answers": [f"maker{i}"]} for i in range(number)]
    told = [{"title": f"thing{i}", "text": f"made by maker{i}" if i % 2 else "unknown"} for i in range(number)]
    for name, lines in (("hotpotqa", rows[: number // 2]), ("nq_open", rows[number // 2 :]), ("corpus", told)):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    return folder


def arguments(folder: Path) -> list[str]:
    save(tiny_policy(), str(folder / "tiny"))
    sizes = "--data.tasks_per_step=1", "--data.group_size=2", "--data.num_val_tasks=1", "--trainer.accelerator=cpu"
    shown = "--model.rollout.max_new_tokens=16", "--model.rollout.max_information_tokens=48"
    return [
        f"--output={folder / 'out'}", f"--policy={folder / 'tiny'}", f"--data={data(folder)}", "--workers=0",
        "--warm_steps=2", "--warm_episodes=2", "--warm_objectives=1,2", "--objectives=1,2", "--tasks=2",
        "--rl=--data.num_rl_steps=1", *(f"--set={each}" for each in (*sizes, *shown)),
    ]  # fmt: skip


def test_one_command_goes_from_the_warm_start_to_the_table_and_repeats_nothing(tmp_path, capsys, monkeypatch):
    argv = arguments(tmp_path)
    assert real_weights.main(argv) == 0
    told = json.loads((tmp_path / "out" / "results.json").read_text())
    found = json.loads((tmp_path / "out" / "questions.json").read_text())["found"]
    assert found and all(int(name.split(":")[1]) % 2 for name in found)
    table = (tmp_path / "out" / "results.md").read_text()
    for mode, memory in (("mem1", "mem1"), ("full", "full"), ("react", "full")):
        assert told[f"warm_{mode}"]["steps"] == 2 and told[f"rl_{mode}"]["rl_steps"] == 1
        assert {"rollout/reward", "val/reward"} <= {name for row in told["rl_curve"][mode] for name in row}
        for stage in (f"before_{mode}", f"after_{mode}"):
            rows = told[stage]["rows"]
            assert [(row["memory"], row["objectives"], row["num_trajectories"]) for row in rows] == [
                (memory, 1, 2),
                (memory, 2, 2),
            ]
            assert all(row["measures"]["peak_tokens"]["mean"] > 10 for row in rows) and told[stage]["unfinished"] == 0
            assert [row["unfinished"] for row in rows] == [0, 0]
        assert f"| `{mode}`, after RL | 2 | 2 | 0 |" in table
    assert "| MEM1-QA 7B, trained on 2" in table and (tmp_path / "out" / "rl.png").stat().st_size > 1000

    monkeypatch.setattr(real_weights.Run, "_opened", lambda *_: pytest.fail("nothing is left to do"))
    assert real_weights.main(argv) == 0
    with pytest.raises(SystemExit):
        real_weights.main([*argv, "--stages=warm_mem1,rl"])
    assert "argument --stages: expected some of weights" in capsys.readouterr().err


def test_a_stage_waits_for_what_another_process_does_and_then_gives_up(tmp_path):
    run = real_weights.Run(real_weights.parsed([f"--output={tmp_path}", "--wait_seconds=0.3"]))
    with pytest.raises(FileNotFoundError, match="from stage warm_mem1, got none"):
        run.before("mem1")


def test_a_deadline_leaves_episodes_as_they_stand():
    tasks = [Task(f"qa/test/1/{i}", "", (Objective("who", ("me",)),), 3) for i in range(2)]

    class Slow:
        def play(self, tasks, engine, on_turn, on_end):
            on_end(0, real_weights.Trajectory(tasks[0], [1], [], StopReason.DONE, group=0))
            on_turn(real_weights.Trajectory(tasks[1], [2], [], StopReason.MAX_TURNS, group=1), None)
            pytest.fail("the deadline is over")

    played, unfinished = real_weights.play_until(time.perf_counter() - 1, Slow(), tasks, None)
    assert unfinished == {1} and [each.prompt_ids for each in played] == [[1], [2]]
