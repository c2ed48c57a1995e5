"""Question files that are odd in every way that a seed can think of: right questions, or one line with the file's name.

`LIGHTNING_MEM1_FUZZ` says how many cases; 2,000 take a minute.
"""

import csv
import gzip
import json
import os
import random
import warnings
from collections.abc import Mapping

import pyarrow
import pytest
from pyarrow.parquet import write_table

from lightning_mem1.environments.qa.answers import unwrapped
from lightning_mem1.environments.qa.question import readable
from lightning_mem1.environments.qa.question_files import read_questions
from lightning_mem1.environments.qa.retrieval.corpus import passages_of, read_corpus
from lightning_mem1.environments.qa.scoring import score

NUM_CASES = int(os.environ.get("LIGHTNING_MEM1_FUZZ", "25"))
WORDS = ["Ulm", "the Danube", "Donau; Ister", "C++", "東京", "</answer>", "[sic]", "{x}", "", " ", "a" * 3000, "\x00",
         "\ud800", "\x1b[2J", "\ufffd", "<" + " " * 30_000, "Question: who?", "?; ?", "<|im_end|>", "['a' 'b']",
         '["Danube"]', "['Danube']", '{"text": ["Danube"]}', "true", "5", "NaN", "null"]  # fmt: skip
ENDS = ["?", ", or\n?", '"?"', "\t?", ";?", "'?"]
SCALARS = [None, True, False, 5, -1, 0.5, float("nan"), float("inf"), 10**30]
KEYS = ["question", "golden_answers", "answers", "answer", "answer_aliases", "id", "_id", "prompt", "reward_model",
        "extra_info", "answerable", "is_impossible", "supporting_titles", "supporting_facts", "paragraphs", "context",
        "title", "text", "contents", "metadata", "type", "Question", " Answer ", "query", "possible_answers",
        "ctxs"]  # fmt: skip
INNER = ["text", "answer_start", "value", "aliases", "target", "ground_truth", "title", "sentences", "question", "role",
         "content", "paragraph_text", "is_supporting", "index", "split", "a", "answer"]  # fmt: skip


def value(rng, depth=0):
    """Anything that JSON can hold."""
    kind = rng.random()
    if depth > 3 or kind < 0.45:
        return rng.choice(WORDS)
    if kind < 0.55:
        return rng.choice(SCALARS)
    if kind < 0.8:
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return {name: value(rng, depth + 1) for name in rng.sample(INNER, rng.randint(0, 3))}


def row(rng, number):
    """A good row, one with something odd in it, or anything."""
    good = {
        "id": number,
        "question": f"Which river runs through town {number}?",
        "golden_answers": [f"Danube {number}"],
    }
    kind = rng.random()
    if kind < 0.3:
        return good
    if kind < 0.6:
        return {**good, rng.choice(KEYS): value(rng)}
    if kind < 0.75:
        truth = {"target": value(rng)} if rng.random() < 0.5 else value(rng)
        prompt = rng.choice(["Question: who?", "Answer the following questions: who?; where?", "who?", value(rng)])
        chat = [{"role": "user", "content": prompt}] if rng.random() < 0.7 else prompt
        return {"prompt": chat, "reward_model": {"ground_truth": truth}, "extra_info": value(rng)}
    return value(rng) if kind < 0.8 else {name: value(rng) for name in rng.sample(KEYS, rng.randint(0, 5))}


def content_of(rng, rows):
    """The bytes of a file, and its ending."""
    lines = [json.dumps(each) for each in rows]
    kind = rng.choice(["jsonl", "jsonl", "json", "pretty", "object", "csv", "tsv", "noise"])
    if kind == "jsonl":
        return "\n".join(lines).encode(), rng.choice([".jsonl", ".json", ".jsonl.gz"])
    if kind in ("json", "pretty"):
        return json.dumps(rows, indent=1 if kind == "pretty" else None).encode(), rng.choice([".json", ".jsonl"])
    if kind == "object":
        return json.dumps({rng.choice(["data", "rows", "question"]): rows, "version": value(rng)}).encode(), ".json"
    if kind == "noise":
        return rng.randbytes(rng.randint(0, 200)), rng.choice([".jsonl", ".json", ".csv", ".parquet", ".arrow", ".xyz"])
    objects = [each for each in rows if isinstance(each, dict)]
    names, separator = sorted({name for each in objects for name in each}), "," if kind == "csv" else "\t"
    cells = [[printed(each.get(name, "")) for name in names] for each in objects]
    return "\n".join(separator.join(map(quoted, line)) for line in [names, *cells]).encode(
        "utf-8", "replace"
    ), f".{kind}"


def printed(cell):
    return cell if isinstance(cell, str) else str(cell)


def quoted(cell):
    return f'"{cell.replace(chr(34), chr(34) * 2)}"' if set(cell) & set(',\t"\n') else cell


def spoilt(rng, content):
    """Now and then zipped, cut, changed in one place, or with something before it."""
    kind = rng.random()
    place = rng.randrange(len(content) + 1)
    if kind < 0.15:
        return content[:place]
    if kind < 0.3:
        return content[:place] + rng.choice([b"\xff", b'"', b"{", b"\x00", b"\n", b"]", b",", b"\r"]) + content[place:]
    if kind < 0.4:
        return b"\xef\xbb\xbf" + content
    if kind < 0.5:
        return content.decode("utf-8", "replace").encode("utf-16")
    if kind < 0.6:
        zipped = gzip.compress(content)
        return zipped if rng.random() < 0.5 else zipped[: rng.randrange(len(zipped))]
    return content


def leaves(value):
    """Every text in a value, those inside of written-out lists too."""
    value = unwrapped(value)
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from leaves(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from leaves(each)


def bare(text):
    return "".join(sign for sign in text if sign.isalnum())


def check(path, rows=None):
    """Read it; whatever comes must be fit to ask, or one line."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            kept = read_questions(path)
        except ValueError as error:
            assert path in str(error) and "\n" not in str(error), error
            return 0
    assert len(warned) <= 1 and not any("\n" in str(each.message) for each in warned)
    assert len({question.id for question in kept}) == len(kept)
    for question in kept:
        assert question.text == " ".join(question.text.split()) and 0 < len(question.text) <= 2000
        assert all(map(readable, (question.id, question.text, question.kind, *question.answers)))
        assert question.answers and score("; ".join(question.answers[:1]), [question.answers]).em == (1.0,)
    if rows is not None:
        texts = {bare(text) for each in rows for text in leaves(each)}
        for question in kept:  # nothing is made up, no name of a field is an answer
            assert all(bare(answer) in texts for answer in question.answers), question
    return len(kept)


def passages(path):
    for read in (passages_of, read_corpus):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = list(read(path))
        except ValueError as error:
            assert path in str(error) and "\n" not in str(error), error
        else:
            assert all(isinstance(p.title, str) and isinstance(p.text, str) and (p.title or p.text) for p in found)


@pytest.mark.parametrize("part", range(4))
def test_a_file_of_any_rows_in_any_form_gives_questions_that_can_be_asked_or_one_line(tmp_path, part):
    kept = 0
    for number in range(part, NUM_CASES, 4):
        rng = random.Random(f"rows/{number}")
        rows = [row(rng, each) for each in range(rng.randint(0, 8))]
        content, ending = content_of(rng, rows)
        whole = rng.random() < 0.4 and ending != ".xyz"
        path = tmp_path / f"{number}{ending}"
        path.write_bytes(content if whole else spoilt(rng, content))
        kept += check(str(path), rows if whole and ending.startswith(".json") and content[:1] in b"[{" else None)
        passages(str(path))
    assert kept or NUM_CASES < 8


def test_a_parquet_file_of_any_columns_gives_questions_that_can_be_asked_or_one_line(tmp_path):
    kept = 0
    for number in range(NUM_CASES):
        rng = random.Random(f"columns/{number}")
        names = ["question", "golden_answers", *rng.sample(KEYS[3:], rng.randint(0, 3))]
        columns = {name: column(rng, name) for name in names}
        path = tmp_path / f"{number}.parquet"
        write_table(pyarrow.table(columns), path)
        if rng.random() < 0.3:
            path.write_bytes(spoilt(rng, path.read_bytes()))
        kept += check(str(path))
        passages(str(path))
    assert kept or NUM_CASES < 8


def column(rng, name):
    """Six values of one type, as a table wants them."""
    kinds = [
        pyarrow.array([rng.choice([f"which {name} {n}?", None]) for n in range(6)]),
        pyarrow.array([[f"{name} {n}", None][: rng.randint(0, 2)] for n in range(6)], pyarrow.list_(pyarrow.string())),
        pyarrow.array(range(6)),
        pyarrow.array([True, None] * 3),
        pyarrow.array([{"text": [f"{name} {n}"], "answer_start": [n]} for n in range(6)]),
        pyarrow.array([{"target": [[f"{name} {n}"]]} for n in range(6)]),
        pyarrow.array([b"\xff", b"Ulm", None] * 2),
        pyarrow.array([f"{name} {n}".encode() for n in range(6)]).cast(pyarrow.string()),
        pyarrow.StringArray.from_buffers(6, pyarrow.array([0, 1, 2, 3, 4, 5, 6], pyarrow.int32()).buffers()[1],
                                         pyarrow.py_buffer(b"\xffbcdef")),
        pyarrow.array([10**12] * 6, pyarrow.timestamp("s")),  # years that Python has not
        pyarrow.nulls(6),
    ]  # fmt: skip
    return kinds[0] if name == "question" and rng.random() < 0.7 else rng.choice(kinds)


def test_a_table_of_any_cells_is_read_as_it_is_written(tmp_path):
    for number in range(NUM_CASES):
        rng = random.Random(f"cells/{number}")
        cells = [[f"who is {n}{rng.choice(ENDS)}", f"name {n}"] for n in range(5)]
        path = tmp_path / f"{number}.csv"
        with path.open("w", newline="") as file:
            table = csv.writer(
                file, delimiter=rng.choice(",;\t"), quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
            )
            table.writerows([["question", "answer"], *cells])
        read = read_questions(str(path))
        assert [(q.text, q.answers) for q in read] == [(" ".join(text.split()), (name,)) for text, name in cells]
