"""BM25: what it finds, in memory and from disk."""

import os
import subprocess
import sys
import threading

import pytest

from lightning_mem1.environments.qa.encyclopedia.questions import questions
from lightning_mem1.environments.qa.retrieval.bm25 import BM25
from lightning_mem1.environments.qa.retrieval.corpus import Corpus
from lightning_mem1.environments.qa.retrieval.factory import built
from lightning_mem1.environments.qa.retrieval.passage import Passage, from_contents, write_passages

PASSAGES = [
    Passage("Ulm", "A town on the Danube."),
    Passage("New Ulm", "A town in Bavaria."),
    Passage("Ada Kesh", "A poet from Ulm."),
]


def titles(found):
    return [[passage.title for passage in passages] for passages in found]


def test_the_passage_about_a_thing_stands_before_those_that_mention_it():
    assert titles(BM25(PASSAGES).search(["ulm", "poet"])) == [["Ulm", "New Ulm", "Ada Kesh"], ["Ada Kesh"]]


@pytest.mark.parametrize("query", ["", "zebra", "the of and", "?!", "\udcff", "x" * 10_000, "ulm " * 5_000])
def test_a_query_with_nothing_to_find_finds_nothing_and_an_odd_one_does_no_harm(query):
    (found,) = BM25(PASSAGES).search([query])
    assert len(found) == (3 if "ulm" in query else 0)


def test_an_index_on_disk_finds_the_same_and_is_not_read_into_memory(tmp_path, library):
    library.save(tmp_path / "index")
    opened = BM25.open(tmp_path / "index")
    queries = [passage.title for passage in library.passages[::50]]
    assert opened.search(queries) == library.search(queries)
    assert len(opened.passages) == len(library.passages) and opened.passages[7] == library.passages[7]


def test_processes_that_make_the_same_index_at_once_share_one(tmp_path):
    corpus = Corpus("three", lambda: PASSAGES)
    makers = [threading.Thread(target=built, args=(BM25, corpus, tmp_path / "i")) for _ in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert titles(built(BM25, None, tmp_path / "i").search(["poet"])) == [["Ada Kesh"]]
    assert [path.name for path in tmp_path.iterdir()] == ["i"]


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no bm25 index: expected a folder with passages.json"):
        BM25.open(tmp_path)


def test_nothing_to_index_is_refused():
    with pytest.raises(ValueError, match="expected passages with words, got 1 without"):
        BM25([Passage("", " ")])


def test_a_second_fact_is_not_found_by_the_first_search(world, library):
    asked = questions(world, "train")
    share = {}
    for kind in ("fact", "bridge"):
        chosen = [question for question in asked if question.kind == kind][:200]
        found = [{p.title for p in library.search([question.text])[0]} for question in chosen]
        share[kind] = sum(set(q.support) <= titles for q, titles in zip(chosen, found, strict=True)) / len(chosen)
    assert share["fact"] > 0.9 and share["bridge"] < 0.3


def test_passages_are_written_compactly_or_as_the_public_code_does():
    assert write_passages(PASSAGES[:2]) == "1 Ulm: A town on the Danube.\n2 New Ulm: A town in Bavaria."
    assert write_passages(PASSAGES[:1], "release") == 'Doc 1(Title: "Ulm") A town on the Danube.'
    assert write_passages([]) == "No passage found."


def test_contents_are_taken_apart_as_they_were_put_together():
    assert from_contents(PASSAGES[0].contents) == PASSAGES[0]
    assert from_contents("no title") == Passage("", "no title")


def test_a_search_does_not_start_jax(tmp_path):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise SystemExit('jax was started')")
    code = (
        "import sys; from lightning_mem1.environments.qa.retrieval.bm25 import BM25, Passage;"
        "print(BM25([Passage('red shoes', 'a pair')]).search(['red'], 1)[0][0].title, 'jax' in sys.modules)"
    )
    places = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": places},
        check=False,
    )
    assert done.stdout == "red shoes False\n", done.stderr
