"""Documents of question files: what has to be read is in them, whatever else is mixed in."""

import json
from pathlib import Path

import pytest

from lightning_mem1.environments.reading.file_tasks import FileTasks, split_asked
from lightning_mem1.environments.reading.parts import num_tokens
from lightning_mem1.environments.reading.question_rows import read_asked

REAL = Path(__file__).parents[4] / "shared" / "data" / "qa"


def write(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def hotpot(number):
    """A row as HotpotQA has it: pairs of a title and sentences, two of which hold the facts."""
    return {
        "_id": f"q{number}",
        "question": f"Where is hill {number}?",
        "answer": f"land {number}",
        "supporting_facts": [[f"Hill {number}", 0], [f"Town {number}", 0]],
        "context": [[f"Other {number}", ["Not this one."]], [f"Hill {number}", ["It is near", " town."]]]
        + [[f"Town {number}", [f"In land {number}."]]],
    }


def test_a_row_of_hotpotqa_has_its_facts_first_and_its_distractors_behind(tmp_path):
    (asked,) = read_asked(write(tmp_path / "hotpot.jsonl", [hotpot(1)]))
    assert asked.paragraphs == ("Hill 1: It is near town.", "Town 1: In land 1.", "Other 1: Not this one.")
    assert (asked.num_support, asked.whole, asked.question.answers) == (2, False, ("land 1",))


def test_a_document_is_filled_with_paragraphs_of_other_rows_and_always_holds_the_facts(tmp_path):
    path = write(tmp_path / "hotpot.jsonl", [hotpot(number) for number in range(40)])
    for length in (1, 30, 200):
        source = FileTasks(split_asked([path]), length=length, part=1000)
        for index in range(source.size("train")):
            asked = source.asked["train"][index]
            (text,) = source.env(source.task("train", index)).parts
            assert all(needed in text for needed in asked.paragraphs[:2])
            facts = sum(map(num_tokens, asked.paragraphs[:2]))
            assert max(length, facts) <= num_tokens(text) < max(length, facts) + 12
        assert source.env(source.task("train", 0)).parts == source.env(source.task("train", 0)).parts


def test_a_length_beyond_what_there_is_takes_every_paragraph_once(tmp_path):
    path = write(tmp_path / "hotpot.jsonl", [hotpot(number) for number in range(5)])
    source = FileTasks({"train": read_asked(path)}, length=10**6, part=10**6)
    (text,) = source.env(source.task("train", 2)).parts
    assert sorted(text.count(piece) for piece in source.pool) == [1] * 15


def test_no_row_is_in_two_splits(tmp_path):
    path = write(tmp_path / "hotpot.jsonl", [hotpot(number) for number in range(100)])
    splits = split_asked([path])
    rows = [{asked.row for asked in splits[split]} for split in ("train", "val", "test")]
    assert sum(map(len, rows)) == len(set.union(*rows)) == 100 and min(map(len, rows)) >= 3
    held_out = split_asked([path], test=[write(tmp_path / "more.jsonl", [hotpot(7)])])
    assert [len(held_out[split]) for split in ("train", "val", "test")] == [100 - len(rows[1]), len(rows[1]), 1]


def test_a_text_in_context_is_the_whole_document_with_ruler_s_input_as_the_question(tmp_path):
    text = "Document 1:\nUlm is old. Is it? Yes!\n\nDocument 2:\nUlm is on the Danube."
    row = {"index": 0, "input": "Where is Ulm?", "answers": ["Danube"], "context": text, "num_docs": 2}
    source = FileTasks({"test": read_asked(write(tmp_path / "eval_50.json", [row]))}, length=5, part=8)
    task = source.task("test", 0)
    expected = ["Document 1: Ulm is old.", "Is it? Yes! Document 2:", "Ulm is on the Danube."]
    assert source.env(task).parts == expected and task.max_turns == 5


def test_the_training_rows_of_memagent_are_read_by_their_prompt_and_target(tmp_path):
    row = {
        "prompt": [{"role": "user", "content": "Name the river of Ulm"}],
        "context": "Ulm is on the Danube.",
        "reward_model": {"style": "rule", "ground_truth": ["Danube", "the Danube"]},
        "extra_info": {"index": 4, "question": "Name the river of Ulm", "num_docs": 1},
    }
    (asked,) = read_asked(write(tmp_path / "train.jsonl", [row]))
    assert (asked.question.text, asked.question.answers) == ("Name the river of Ulm", ("Danube", "the Danube"))


def test_questions_of_one_document_share_it_and_its_split(tmp_path):
    row = {
        "context": "The pet of Odo is Owl. The pet of Ida is Fox.",
        "questions": ["What is the pet of Odo?", "What is the pet of Ida?"],
        "answers": [["Owl"], ["Fox", "a fox"]],
        "metadata": {"source": "made up"},
    }
    first, second = read_asked(write(tmp_path / "bench.jsonl", [row]))
    assert first.row == second.row and first.paragraphs == second.paragraphs
    assert [first.question.answers, second.question.answers] == [("Owl",), ("Fox", "a fox")]


def test_a_row_without_a_document_is_left_out_and_counted(tmp_path):
    path = write(tmp_path / "mixed.jsonl", [hotpot(1), {"question": "Where?", "answer": "Ulm"}])
    with pytest.warns(UserWarning, match=r"kept 1 questions of 2 rows; no document 1 \(row 2\)"):
        assert len(read_asked(path)) == 1


def test_a_file_without_a_document_is_one_line(tmp_path):
    path = write(tmp_path / "bare.jsonl", [{"question": "Where?", "answer": "Ulm"}])
    with pytest.raises(ValueError, match=r"no document can be read from '.*bare.jsonl': expected rows with a question"):
        read_asked(path)


@pytest.mark.parametrize(
    "path", ["hub:ai-hyz/MemoryAgentBench::Conflict_Resolution", "hub:BytedTsinghua-SIA/hotpotqa/eval_50.json"]
)
def test_a_hub_that_cannot_be_reached_is_one_line(path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=rf"cannot read '{path}'.*; check its .*, and the network") as failure:
        read_asked(path)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("name", ["hotpotqa", "2wikimultihopqa", "musique"])
def test_real_files_make_documents_of_a_thousand_to_sixteen_thousand_tokens(name):
    path = REAL / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{name}.jsonl.gz is not beside the checkout")
    asked = split_asked([str(path)])
    for length in (1000, 16_000):
        source = FileTasks(asked, length=length, part=500)
        env = source.env(source.task("val", 0))
        assert length <= num_tokens(" ".join(env.parts)) <= length + 400
        text = " ".join(" ".join(env.parts).split())
        assert all(piece in text for piece in asked["val"][0].paragraphs[: asked["val"][0].num_support])
