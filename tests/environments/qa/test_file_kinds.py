"""Question files as people have them: every format with the same nine questions, and every way to be broken."""

import bz2
import csv
import gzip
import json
import lzma
import os
import pickle
import zipfile

import datasets
import pandas
import pyarrow
import pytest
from pyarrow import ipc
from pyarrow.parquet import write_table

from lightning_mem1.data.qa import QAData
from lightning_mem1.environments.qa.question_files import read_questions
from lightning_mem1.environments.qa.retrieval.corpus import passages_of, read_corpus
from lightning_mem1.environments.qa.retrieval.passage import Passage

ROWS = [{"question": f"Which river {n}?", "golden_answers": [f"Danube {n}", "Donau"]} for n in range(9)]
PRINTED = [{"question": row["question"], "golden_answers": str(row["golden_answers"])} for row in ROWS]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
BOM = b"\xef\xbb\xbf"


def squad(rows):
    asked = [
        {"id": str(n), "question": row["question"], "answers": [{"text": a, "answer_start": 0} for a in row[ANSWERS]]}
        for n, row in enumerate(rows)
    ]
    paragraphs = [{"context": f"It is the Danube {start}.", "qas": asked[start : start + 3]} for start in (0, 3, 6)]
    return {"version": "1.1", "data": [{"title": "Ulm", "paragraphs": paragraphs}]}


ANSWERS = "golden_answers"
FILES = {
    "lines.jsonl": LINES,
    "lines.json": LINES,
    "lines.ndjson": LINES,
    "LINES.JSONL": LINES,
    "crlf.jsonl": LINES.replace(b"\n", b"\r\n"),
    "blank.jsonl": LINES.replace(b"\n", b"\n\n"),
    "mark.jsonl": BOM + LINES,
    "mark.json": BOM + json.dumps(ROWS).encode(),
    "array.json": json.dumps(ROWS).encode(),
    "array.jsonl": json.dumps(ROWS).encode(),
    "pretty.json": json.dumps(ROWS, indent=2).encode(),
    "array of lines.json": b"[" + b",\n".join(json.dumps(row).encode() for row in ROWS) + b"]",
    "object.json": json.dumps({"version": "1", "data": ROWS}).encode(),
    "pretty object.json": json.dumps({"version": "1", "data": ROWS}, indent=1).encode(),
    "viewer.json": json.dumps({"rows": [{"row_idx": n, "row": row} for n, row in enumerate(ROWS)]}).encode(),
    "columns.json": json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}).encode(),
    "pandas.json": pandas.DataFrame(ROWS).to_json().encode(),
    "by id.json": json.dumps({f"q{n}": row for n, row in enumerate(ROWS)}).encode(),
    "squad.json": json.dumps(squad(ROWS)).encode(),
    "utf16.jsonl": LINES.decode().encode("utf-16"),
    "utf16be.json": b"\xfe\xff" + json.dumps(ROWS).encode("utf-16-be"),
    "zipped.jsonl.gz": gzip.compress(LINES),
    "zipped.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "zipped twice.jsonl.gz": gzip.compress(LINES[:300]) + gzip.compress(LINES[300:]),
    "not zipped.jsonl.gz": LINES,
    "zipped in secret.jsonl": gzip.compress(LINES),
    "bz.jsonl.bz2": bz2.compress(LINES),
    "xz.jsonl.xz": lzma.compress(LINES),
}


def written(path, content):
    path.write_bytes(content)
    return str(path)


def asked(path):
    return [(question.text, question.answers) for question in read_questions(path)]


NINE = [(f"Which river {n}?", (f"Danube {n}", "Donau")) for n in range(9)]


@pytest.mark.parametrize("name", FILES)
def test_nine_questions_are_read_from_every_form_of_json(tmp_path, recwarn, name):
    assert asked(written(tmp_path / name, FILES[name])) == NINE
    assert not recwarn.list


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("b.tsv", "\t"), ("c.csv", ";"), ("D.CSV", ",")])
def test_nine_questions_are_read_from_tables_with_a_header(tmp_path, recwarn, name, separator):
    path = tmp_path / name
    pandas.DataFrame(ROWS).to_csv(path, index=False, sep=separator)
    assert asked(str(path)) == NINE
    assert asked(written(path, BOM + path.read_bytes())) == NINE
    assert asked(written(tmp_path / f"{name}.gz", gzip.compress(path.read_bytes()))) == NINE
    assert not recwarn.list


def test_what_a_spreadsheet_would_change_stays_a_text(tmp_path):
    path = tmp_path / "x.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows(
            [["Question", "Answer"], ["code of Namibia?", "NA"], ["of Bond?", "007"], ['"quoted",\nor?', "a"]]
        )
    assert asked(str(path)) == [("code of Namibia?", ("NA",)), ("of Bond?", ("007",)), ('"quoted", or?', ("a",))]


def test_parquet_arrow_and_saved_folders_are_read(tmp_path, recwarn):
    table = pyarrow.Table.from_pylist(ROWS)
    write_table(table, tmp_path / "x.parquet")
    with ipc.new_stream(tmp_path / "stream.arrow", table.schema) as stream:
        stream.write_table(table)
    with ipc.new_file(tmp_path / "file.arrow", table.schema) as file:
        file.write_table(table)
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    for name in ("x.parquet", "stream.arrow", "file.arrow", "saved"):
        assert asked(str(tmp_path / name)) == NINE, name
    assert not recwarn.list


def test_a_folder_of_several_splits_asks_which(tmp_path):
    one = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": one, "validation": one}).save_to_disk(tmp_path / "both")
    with pytest.raises(ValueError) as error:
        read_questions(str(tmp_path / "both"))
    names = f"'{tmp_path}/both/train', '{tmp_path}/both/validation'"
    assert str(error.value) == f"'{tmp_path}/both' holds several splits: expected one of {names}; name it"
    assert asked(f"{tmp_path}/both/train") == NINE
    (tmp_path / "other").mkdir()
    with pytest.raises(
        ValueError, match=r"/other' is a folder that datasets has not saved: expected state.json in it, g"
    ):
        read_questions(str(tmp_path / "other"))


def cut(content, lost):
    return content[:-lost]


def noisy_gzip():
    return gzip.compress(LINES + os.urandom(4000).hex().encode())


BROKEN = {
    "cut.jsonl.gz": (lambda: cut(noisy_gzip(), 900), "is damaged or cut short after row 9: Compressed file ended"),
    "cut.json.gz": (lambda: cut(noisy_gzip(), 900), "is damaged or cut short after row 9: Compressed file ended"),
    "cut.csv.gz": (lambda: cut(gzip.compress(b"question,answer\na?,b\n" + os.urandom(9000)), 900), "is damaged or cut"),
    "changed.jsonl.gz": (
        lambda: (z := gzip.compress(LINES))[:60] + b"\0\0\0" + z[63:],
        "is damaged or cut short after",
    ),
    "cut.jsonl.xz": (lambda: cut(lzma.compress(LINES), 20), "is damaged or cut short after row"),
    "cut.json": (lambda: cut(json.dumps(ROWS, indent=1).encode(), 9), "is neither JSON nor JSON lines: "),
    "one.json": (lambda: b"5", "got not an object 1 (row 1)"),
    "settings.json": (
        lambda: json.dumps({"a": {"b": 1}, "c": 2}, indent=1).encode(),
        "holds no rows: expected a list of",
    ),
    "pointer.parquet": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid x\n",
        "it is a pointer of Git LFS; fet",
    ),
    "pointer.jsonl": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid x\n",
        "it is a pointer of Git LFS; fetc",
    ),
    "page.parquet": (lambda: b"\n<!DOCTYPE html><html></html>", "it is a web page; download the file itself"),
    "lines.parquet": (lambda: LINES, 'is no Parquet file: it begins with b\'{"question"'),
    "empty.parquet": (lambda: b"", "is no Parquet file: it begins with b''"),
    "cut.parquet": (lambda: b"PAR1" + b"x" * 400, "after row 0: "),
    "lines.arrow": (lambda: LINES, "after row 0: "),
    "quote.csv": (
        lambda: b'question,answer\na?,b\n"c?,d\ne?,f\n',
        "row 2 (line 3): a quote is opened and never closed",
    ),
    "book.csv": (lambda: b"PK\x03\x04rest", "it is a zip archive (or a spreadsheet); unpack it, or save it as .csv"),
    "dense.jsonl": (lambda: b"(\xb5/\xfdrest", "it is compressed with zstd; decompress it with zstd -d"),
    "empty.jsonl": (lambda: b"", "got no rows"),
    "empty.csv": (lambda: b"", "got no rows"),
    "bare.csv": (lambda: b"who?,Ada\nwhere?,Ulm\n", "got row not understood 1 (row 1); the first row has who?, ada"),
    "kind.pkl": (
        lambda: pickle.dumps(ROWS),
        "unknown kind of data: expected .jsonl, .json, .ndjson, .parquet, .arrow, ",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("read", [read_questions, lambda path: list(read_corpus(path))], ids=["questions", "corpus"])
def test_a_broken_file_is_one_line_with_its_name_and_what_is_wrong(tmp_path, name, read):
    make, message = BROKEN[name]
    path = written(tmp_path / name, make())
    with pytest.raises(ValueError) as error:
        read(path)
    said = str(error.value)
    assert path in said and "\n" not in said
    assert message.lower() in said.lower().replace("no passage", "row not understood")


def test_a_zip_and_a_cut_parquet_file_of_real_tools_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.jsonl", "w") as archive:
        archive.writestr("lines.jsonl", LINES)
    with pytest.raises(ValueError, match="it is a zip archive"):
        read_questions(str(tmp_path / "x.jsonl"))
    write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "x.parquet")
    path = written(tmp_path / "x.parquet", (tmp_path / "x.parquet").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cannot read '.*x\.parquet' after row 0: .*; copy or download it again"):
        read_questions(path)


def told(path):
    with pytest.warns(UserWarning) as warned:
        kept = read_questions(path)
    (line,) = [str(each.message) for each in warned]
    return [question.text for question in kept], line.removeprefix(f"{path}: ")


def test_rows_of_every_kind_that_are_not_understood_are_counted_with_the_first_of_them(tmp_path):
    good = {"id": "a", "question": "who?", "golden_answers": ["x"]}
    rows = [
        good,
        {"question": "true?", "answer": True},
        {"question": "five?", "golden_answers": 5},
        {"question": "dict?", "golden_answers": {"a": 1}},
        {"prompt": None, "golden_answers": ["x"]},
        {"prompt": [{"role": "user", "content": None}], "reward_model": {"ground_truth": {"target": ["x"]}}},
        {"prompt": 5, "reward_model": 5},
        {"prompt": [{"content": "Question: b?"}], "reward_model": {"ground_truth": {"target": {"a": "b"}}}},
        {"question": "unanswerable?", "answer": "x", "answerable": False},
        {"question": "impossible?", "answers": {"text": ["x"], "answer_start": [0]}, "is_impossible": True},
        {"question": "unanswered?", "answers": {"text": [], "answer_start": []}},
        {"question": "of many words?" * 200, "answer": "x"},
    ]
    path = written(tmp_path / "x.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    assert told(path) == (
        ["who?"],
        "kept 1 questions of 12 rows; answers not understood 4 (first row 2), row not understood 3 (first row 5), not "
        "answerable 2 (first row 9), no answer 1 (row 11), question too long 1 (row 12)",
    )


def test_what_stands_beside_a_good_question_and_is_odd_costs_nothing(tmp_path, recwarn):
    odd = [
        {"extra_info": "text"},
        {"extra_info": [1]},
        {"supporting_titles": 5},
        {"type": {"a": 1}},
        {"id": [1, {"a": 2}]},
        {"id": "\ud800\x1b[2J</script>"},
        {"metadata": "none"},
        {"context": 7},
        {"paragraphs": 7},
    ]
    rows = [{"question": f"who {n}?", "answer": "x", **each} for n, each in enumerate(odd)]
    path = written(tmp_path / "x.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    kept = read_questions(path)
    assert [question.text for question in kept] == [f"who {n}?" for n in range(len(odd))]
    assert len({question.id for question in kept}) == len(odd) and all(q.id.isprintable() for q in kept)
    assert not recwarn.list


@pytest.mark.parametrize("bad", [b"[1, 2", b"{", b"[", b'{"question": "a?"', b"half"])
def test_a_first_line_that_is_cut_costs_itself_alone(tmp_path, bad):
    path = written(tmp_path / "x.jsonl", bad + b"\n" + LINES)
    assert told(path)[1] == "kept 9 questions of 10 rows; not JSON 1 (row 1)"
    one = written(tmp_path / "one.json", b"[\n" + LINES[: LINES.index(b"\n")] + b"\n]\n")
    assert asked(one) == NINE[:1]


def test_a_row_of_a_table_that_is_none_costs_its_lines_alone(tmp_path):
    table = b'question,answer\na?,b\n"c"x?,d\ne?,f,g\nh?\n"i\n?",j\n'
    kept, line = told(written(tmp_path / "x.csv", table))
    assert kept == ["a?", "i ?"]
    assert line == "kept 2 questions of 5 rows; not CSV 1 (row 2), not 2 columns 2 (first row 3)"


def test_ids_that_several_questions_share_are_told_apart(tmp_path):
    rows = [{"id": "a", "question": f"who {n}?", "answer": "x"} for n in range(3)]
    path = written(tmp_path / "x.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    names = [question.id for question in read_questions(path)]
    assert names[0] == "x:a" and len(set(names)) == 3 and all(name.startswith("x:a") for name in names)


def chat(content, target, **more):
    graded = {"style": "rule", "ground_truth": target}
    return {"data_source": "nq", "prompt": [{"role": "user", "content": content}], "reward_model": graded, **more}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (chat("Answer it. Question: who wrote A?\n", {"target": ["Ada", "A."]}), ("who wrote A?", ("Ada", "A."))),
        (chat("who wrote A?", "Ada"), ("who wrote A?", ("Ada",))),
        (chat("who wrote A?", '{"target": ["Ada"]}'), ("who wrote A?", ("Ada",))),
        (chat("Think first.\nSolve it.", "Ada", extra_info={"question": "who wrote A?"}), ("who wrote A?", ("Ada",))),
        (chat("Think first.", "B", question="who wrote A?", golden_answers=["Ada"]), ("who wrote A?", ("Ada",))),
        (chat([{"type": "text", "text": "Question: who wrote A?"}], ["Ada"]), ("who wrote A?", ("Ada",))),
        ({"prompt": "Question: who wrote A?", "golden_answers": ["Ada"]}, ("who wrote A?", ("Ada",))),
        (
            {"prompt": [{"role": "system", "content": "Question: none"}, {"role": "user", "content": "Question: who?"}],
             "reward_model": {"ground_truth": {"target": "Ada"}}},
            ("who?", ("Ada",)),
        ),
        (chat("Question: a" + " " * 60_000 + "b" + " " * 60_000 + ".", {"target": "x"}), ("a b .", ("x",))),
    ],
)  # fmt: skip
def test_rows_of_verl_and_search_r1_are_read_in_every_form(tmp_path, row, expected):
    assert asked(written(tmp_path / "x.jsonl", json.dumps(row).encode())) == [expected]
    write_table(pyarrow.Table.from_pylist([row]), tmp_path / "x.parquet")
    assert asked(str(tmp_path / "x.parquet")) == [expected]


@pytest.mark.parametrize(
    "row",
    [
        chat("Think first, then answer.\nWho wrote A?", ["Ada"]),  # where does the question begin?
        chat("<|im_start|>user\nQuestion: who?<|im_end|>", ["Ada"]),
        chat("Answer the following questions: who?; where?", ["Ada", "Ulm"]),  # whose answers are they?
        chat("Answer the following questions: who?; where?", [["Ada"]]),
        chat("Question: who?", 5),
        {"prompt": [], "reward_model": {"ground_truth": "x"}},
        {"prompt": "Question: who?", "reward_model": "x"},
    ],
)
def test_a_prompt_that_could_be_read_in_several_ways_is_left_out(tmp_path, row):
    with pytest.raises(ValueError, match=r"got (row|answers) not understood 1 \(row 1\)|got no answer 1 \(row 1\)"):
        read_questions(written(tmp_path / "x.jsonl", json.dumps(row).encode()))


MUSIQUE = {
    "id": "2hop__1_2", "question": "Which river runs through Ulmx?", "answer": "Danube", "answer_aliases": ["Donau"],
    "answerable": True,
    "paragraphs": [{"idx": 0, "title": "Ulmx", "paragraph_text": "Ulmx lies on the Danube.", "is_supporting": True},
                   {"idx": 1, "title": "Rom", "paragraph_text": "A city.", "is_supporting": False}],
}  # fmt: skip
HOTPOT = {
    "_id": "5a", "question": "Which river?", "answer": "Danube", "type": "bridge", "level": "hard",
    "supporting_facts": [["Ulmx", 0], ["Ulmx", 1]],
    "context": [["Ulmx", ["Ulmx is a town.", " It lies on the Danube."]], ["Rom", ["A city."]]],
}  # fmt: skip
HUB_HOTPOT = {
    **HOTPOT, "supporting_facts": {"title": ["Ulmx", "Ulmx"], "sent_id": [0, 1]},
    "context": {"title": ["Ulmx", "Rom"], "sentences": [["Ulmx is a town.", " It lies on the Danube."], ["A city."]]},
}  # fmt: skip
OF_HOTPOT = [Passage("Ulmx", "Ulmx is a town. It lies on the Danube."), Passage("Rom", "A city.")]


@pytest.mark.parametrize(
    ("row", "answers", "support", "passages"),
    [
        (
            MUSIQUE,
            ("Danube", "Donau"), ("Ulmx",), [Passage("Ulmx", "Ulmx lies on the Danube."), Passage("Rom", "A city.")],
        ),
        (HOTPOT, ("Danube",), ("Ulmx",), OF_HOTPOT),
        (HUB_HOTPOT, ("Danube",), ("Ulmx",), OF_HOTPOT),
        ({**HOTPOT, "context": json.dumps(HOTPOT["context"])}, ("Danube",), ("Ulmx",), OF_HOTPOT),  # 2Wiki on the hub
        (
            {"id": "t", "question": "Which river?", "golden_answers": ["Danube"],
             "metadata": {k: HUB_HOTPOT[k] for k in ("type", "supporting_facts", "context")}},
            ("Danube",), ("Ulmx",), OF_HOTPOT,
        ),
        (
            {"id": "s", "title": "Ulm", "context": "It is the Danube.", "question": "Which river?",
             "answers": {"text": ["Danube"], "answer_start": [10]}},
            ("Danube",), (), [Passage("Ulm", "It is the Danube.")],
        ),
        (
            {"question": "Which river?", "answers": ["Danube"], "ctxs": [{"title": "Ulm", "text": "On it."}]},
            ("Danube",), (), [Passage("Ulm", "On it.")],
        ),
        (
            {"question": "Which river?", "answer": ["Danube"], "paragraphs": ["Ulm lies on the Danube."]},
            ("Danube",), (), [Passage("", "Ulm lies on the Danube.")],
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_the_own_files_of_each_set_bring_answers_support_and_passages(
    tmp_path, recwarn, row, answers, support, passages, kind
):
    content = json.dumps([row] if kind == "json" else row).encode()
    path = written(tmp_path / f"x.{kind}", content)
    (question,) = read_questions(path)
    assert (question.answers, question.support, question.hops) == (answers, support, len(support))
    assert list(passages_of(path)) == passages
    assert not recwarn.list


def test_triviaqas_and_squads_own_files_are_read_whole(tmp_path, recwarn):
    answer = {"Value": "Danube", "Aliases": ["Donau"], "NormalizedValue": "danube", "Type": "WikipediaEntity"}
    trivia = {"Data": [{"Question": "Which river?", "QuestionId": "q1", "Answer": answer}], "Domain": "unfiltered-web"}
    assert asked(written(tmp_path / "t.json", json.dumps(trivia).encode())) == [("Which river?", ("Danube", "Donau"))]
    path = written(tmp_path / "s.json", json.dumps(squad(ROWS), indent=1).encode())
    assert asked(path) == NINE
    assert list(passages_of(path)) == [Passage("Ulm", f"It is the Danube {start}.") for start in (0, 3, 6)]
    assert not recwarn.list


def test_musique_asks_what_can_be_answered_and_finds_its_paragraphs(tmp_path):
    def row(n):
        paragraph = {"title": f"Town{n}x", "paragraph_text": f"Town{n}x lies on Danube{n}.", "is_supporting": True}
        return {**MUSIQUE, "id": str(n), "question": f"Which river runs through Town{n}x?", "paragraphs": [paragraph],
                "answer": f"Danube{n}", "answer_aliases": [f"Donau{n}"], "answerable": n % 2 == 0}  # fmt: skip

    path = written(tmp_path / "musique.jsonl", "".join(json.dumps(row(n)) + "\n" for n in range(30)).encode())
    with pytest.warns(UserWarning, match=r"kept 15 questions of 30 rows; not answerable 15 \(first row 2\)"):
        source = QAData(questions=path, objectives=1).source
    assert sum(source.size(split) for split in ("train", "val", "test")) == 15
    task = source.task("train", 0)
    number = task.objectives[0].question.removesuffix("x?").partition("Town")[2]
    assert task.objectives[0].answers == (f"Danube{number}", f"Donau{number}")
    reply = source.env(task).step(f"search[{task.objectives[0].question}]").information
    assert reply.startswith(f"1 Town{number}x: Town{number}x lies on Danube{number}.")


def test_a_corpus_keeps_its_good_rows_and_counts_the_others(tmp_path):
    rows = [{"title": "Ulm", "text": "A town."}, {"title": "Rom"}, {"text": None}, {"text": 5}, {"contents": '"X"\ny'}]
    path = written(tmp_path / "c.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode() + b"{half\n")
    with pytest.warns(UserWarning, match=r"2 passages of 6 rows; no passage 3 \(first row 2\), not JSON 1 \(row 6\)"):
        assert list(read_corpus(path)) == [Passage("Ulm", "A town."), Passage("X", "y")]
    table = written(tmp_path / "psgs.tsv", b'id\ttext\ttitle\n1\t"A ""town""."\tUlm\n')
    assert list(read_corpus(table)) == [Passage("Ulm", 'A "town".')]


def test_questions_without_passages_say_where_to_name_a_corpus(tmp_path):
    path = written(tmp_path / "x.jsonl", LINES)
    with pytest.raises(
        ValueError, match=r"no passages: expected paragraphs with the questions of '.*x\.jsonl', got none"
    ):
        QAData(questions=path).setup("fit")
    with pytest.raises(
        ValueError, match="data.questions is empty: expected at least 1 file, got none; null for the gen"
    ):
        QAData(questions=[])
