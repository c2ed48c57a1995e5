"""Readers of question files: every format, and every kind of bad row."""

import gzip
import json
import warnings
from pathlib import Path

import pytest

from lightning_mem1.environments.qa.question_files import hashed_split, read_questions, split_questions
from lightning_mem1.environments.qa.question_rows import asked_in
from lightning_mem1.environments.qa.retrieval.corpus import passages_of, read_corpus
from lightning_mem1.environments.qa.retrieval.passage import Passage

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "qa"


def write(path, *rows):
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows))
    return str(path)


def plain(questions):
    return [(question.id, question.text, question.answers) for question in questions]


def test_flashrag_lines(tmp_path):
    path = write(tmp_path / "nq.jsonl", {"id": "test_0", "question": "who?", "golden_answers": ["Ada", "Ada K"]})
    assert plain(read_questions(path)) == [("nq:test_0", "who?", ("Ada", "Ada K"))]


def test_lines_with_support_and_gzip(tmp_path):
    row = {
        "id": "hotpotqa:5a",
        "question": "who?",
        "answers": ["Ada"],
        "type": "bridge",
        "supporting_titles": ["A", "B"],
    }
    path = tmp_path / "hotpotqa.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(row).encode()))
    (question,) = read_questions(str(path))
    assert (question.id, question.hops, question.kind, question.support) == ("hotpotqa:5a", 2, "bridge", ("A", "B"))


def mem1_row(prompt, target):
    return {
        "data_source": "nq",
        "prompt": [{"role": "user", "content": prompt}],
        "ability": "fact-reasoning",
        "reward_model": {"style": "rule", "ground_truth": {"target": target}},
        "extra_info": {"split": "train", "indices": 7},
    }


def parquet(path, rows):
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def test_mem1_parquet_is_taken_apart_into_single_questions(tmp_path):
    prompt = "You will answer ...\nAnswer the following questions: who wrote A?; what is B; or C?"
    path = parquet(tmp_path / "train.parquet", [mem1_row(prompt, [["Ada"], ["Bob", "Rob"]])])
    assert plain(read_questions(path)) == [
        ("train:train/7/0", "who wrote A?", ("Ada",)),
        ("train:train/7/1", "what is B; or C?", ("Bob", "Rob")),
    ]


def test_mem1_rows_whose_questions_and_targets_do_not_match_are_left_out(tmp_path):
    good = mem1_row("Answer the following questions: a?; b?", [["1"], ["2"]])
    bad = mem1_row("Answer the following questions: c?", [["1"], ["2"]])
    with pytest.warns(UserWarning, match=r"kept 2 questions of 2 rows; row not understood 1 \(row 2\)"):
        assert len(read_questions(parquet(tmp_path / "x.parquet", [good, bad]))) == 2


def test_search_r1_parquet(tmp_path):
    path = parquet(tmp_path / "s.parquet", [mem1_row("Answer the given question. Question: who is it?", ["Ada", "A"])])
    assert plain(read_questions(path)) == [("s:train/7", "who is it?", ("Ada", "A"))]


def test_bad_rows_are_counted_told_and_survived(tmp_path):
    path = write(
        tmp_path / "x.jsonl",
        {"question": "good?", "answers": ["a"]},
        {"question": "no answers?", "answers": []},
        {"question": "w" * 10_000, "answers": ["a"]},
        {"question": "good?", "answers": ["twice"]},
        {"question": 5, "answers": ["a"]},
        {"question": "separator?", "answers": ["a; b", "</answer>"]},
        b'{"question": "caf\xe9?", "answers": ["a"]}',
        b"{half",
        b"[1]",
    )
    expected = (
        "no answer 1 (row 2), question too long 1 (row 3), same question twice 1 (row 4), row not understood 1 "
        "(row 5), answers repaired 1 (row 6), not UTF-8 1 (row 7), not JSON 1 (row 8), not an object 1 (row 9)"
    )
    with pytest.warns(UserWarning) as told:
        kept = read_questions(path)
    line, _, reasons = str(told[0].message).partition("; ")
    assert line == f"{path}: kept 2 questions of 9 rows"
    assert sorted(reasons.split(", ")) == sorted(expected.split(", "))
    assert [(q.text, q.answers) for q in kept] == [("good?", ("a",)), ("separator?", ("a b", "answer"))]


def test_a_file_without_a_single_good_row_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no question can be asked from .*: expected rows with .*, got not JSON 1"):
        read_questions(write(tmp_path / "x.jsonl", b"{half"))
    with pytest.raises(ValueError, match=r"x.jsonl' is neither JSON nor JSON lines: .* at line 1, column 2; correct"):
        read_questions(write(tmp_path / "x.jsonl", b"{"))
    with pytest.raises(ValueError, match="got no rows"):
        read_questions(write(tmp_path / "y.jsonl"))


def test_a_missing_file_and_an_unknown_kind_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such data: expected a file, got 'nowhere.jsonl'"):
        read_questions("nowhere.jsonl")
    with pytest.raises(ValueError, match=r"unknown kind of data: expected .*, got '.*x.pkl'"):
        read_questions(write(tmp_path / "x.pkl", {}))


def test_a_tenth_is_parted_off_unless_validation_has_its_own_files(tmp_path):
    rows = [{"id": n, "question": f"{n}?", "answers": ["a"]} for n in range(200)]
    path, other = write(tmp_path / "a.jsonl", *rows), write(tmp_path / "b.jsonl", {"question": "b?", "answers": ["b"]})
    parted = split_questions([path], None, None)
    assert all(hashed_split(q.id) == split for split in parted for q in parted[split]["a"])
    assert sum(len(parted[split]["a"]) for split in parted) == 200 and 8 <= len(parted["val"]["a"]) <= 32
    given = split_questions([path], [other], [])
    assert {split: {name: len(q) for name, q in sets.items()} for split, sets in given.items()} == {
        "train": {"a": 200},
        "val": {"b": 1},
        "test": {},
    }


def test_a_corpus_is_read_in_either_form(tmp_path):
    rows = ({"id": "0", "contents": '"Ulm"\nA town.'}, {"title": "Rom", "text": "A city."})
    path = write(tmp_path / "c.jsonl", *rows)
    assert list(read_corpus(path)) == [Passage("Ulm", "A town."), Passage("Rom", "A city.")]
    with pytest.raises(ValueError, match=r"expected rows with text or contents, got no passage 1 \(row 1\); .* has id"):
        list(read_corpus(write(tmp_path / "d.jsonl", {"id": "0"})))


def test_paragraphs_that_come_with_questions_are_a_corpus(tmp_path):
    paragraphs = [{"title": "Ulm", "text": "A town."}]
    rows = [{"question": f"{n}?", "answers": ["a"], "paragraphs": paragraphs} for n in range(2)]
    assert list(passages_of(write(tmp_path / "q.jsonl", *rows))) == [Passage("Ulm", "A town.")]


@pytest.mark.parametrize(("name", "number"), [("hotpotqa", 694), ("musique", 300), ("2wikimultihopqa", 664)])
def test_real_questions_are_read_whole(name, number):
    path = REAL / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"the real questions are not here: {path.name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = read_questions(str(path))
    assert len(kept) >= 0.97 * number and all(question.id.startswith(f"{name}:") for question in kept)


def test_a_prompt_of_spaces_is_read_in_one_pass(tmp_path):
    """Two ways to read a run of spaces would take the square of its length: minutes for this row."""
    spaces = " " * 1_000_000
    prompt = f"Question: who?{spaces}\nor what?{spaces}"
    rows = [
        {"prompt": [{"content": prompt}], "reward_model": {"ground_truth": {"target": ["Ada <" + spaces + "x"]}}},
        {"prompt": [{"content": "Question:" + spaces}], "reward_model": {"ground_truth": {"target": ["Ada"]}}},
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"no answer 1 \(row 1\), row not understood 1 \(row 2\)"):
            read_questions(write(tmp_path / "spaces.jsonl", *rows))  # an answer of a million characters is none
    assert asked_in(rows[0]["prompt"]) == [f"who?{spaces}\nor what?"] and asked_in(rows[1]["prompt"]) == []
