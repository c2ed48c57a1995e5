"""An index in a folder: of the corpus that is meant and of this version, or one line that says what it is of."""

import json
import os
from pathlib import Path

import pytest

from lightning_mem1.cli import serve_retriever
from lightning_mem1.data.qa import QAData
from lightning_mem1.environments.qa.encyclopedia.world import EncyclopediaSettings
from lightning_mem1.environments.qa.files import content_hash as hashing
from lightning_mem1.environments.qa.retrieval import bm25
from lightning_mem1.environments.qa.retrieval.bm25 import BM25, code_version
from lightning_mem1.environments.qa.retrieval.corpus import Corpus
from lightning_mem1.environments.qa.retrieval.factory import built
from lightning_mem1.environments.qa.retrieval.passage import Passage


def written(path, *titles):
    path.write_text("".join(json.dumps({"title": title, "text": f"About {title}."}) + "\n" for title in titles))
    return str(path)


def questions(path, place):
    paragraphs = [{"title": place, "text": f"{place} lies on the Danube."}]
    rows = [{"question": f"where is {place} {n}?", "answers": ["x"], "paragraphs": paragraphs} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def found(retriever, query):
    return [passage.title for passage in retriever.search([query])[0]]


def test_an_index_of_another_corpus_is_refused_with_what_to_do(tmp_path):
    one, other, folder = (
        written(tmp_path / "one.jsonl", "Ulm"),
        written(tmp_path / "other.jsonl", "Rom"),
        tmp_path / "i",
    )
    assert found(built(BM25, Corpus.of_file(one), folder), "Ulm") == ["Ulm"]
    with pytest.raises(ValueError) as error:
        built(BM25, Corpus.of_file(other), folder)
    mine, yours = (Corpus.of_file(path).fingerprint() for path in (one, other))
    assert str(error.value) == (
        f"index '{folder}' is of another corpus: expected '{other}' ({yours}), got {mine} with 1 passages; delete "
        f"'{folder}' and run again to rebuild it, or set data.index to another folder"
    )


def test_a_corpus_is_told_by_its_content_wherever_it_lies(tmp_path):
    folder, one = tmp_path / "i", written(tmp_path / "one.jsonl", "Ulm")
    built(BM25, Corpus.of_file(one), folder)
    os.rename(one, moved := str(tmp_path / "moved.jsonl"))
    assert found(built(BM25, Corpus.of_file(moved), folder), "Ulm") == ["Ulm"]
    written(tmp_path / "moved.jsonl", "Ulm", "Rom")
    with pytest.raises(ValueError, match="is of another corpus"):
        built(BM25, Corpus.of_file(moved), folder)


def test_an_index_is_opened_without_reading_its_corpus_and_a_large_file_is_hashed_once(tmp_path, monkeypatch):
    path, folder = written(tmp_path / "one.jsonl", "Ulm"), tmp_path / "i"
    built(BM25, Corpus.of_file(path), folder)
    monkeypatch.setattr(hashing, "TRUST_STAT_FROM", 0)
    corpus, hashed = Corpus.of_file(path), []
    corpus.read = lambda: pytest.fail("read again")
    real = hashing.hashlib.file_digest
    monkeypatch.setattr(hashing.hashlib, "file_digest", lambda *given: hashed.append(1) or real(*given))
    for _ in range(3):
        assert found(built(BM25, corpus, folder), "Ulm") == ["Ulm"]
    assert len(hashed) == 1
    stat = os.stat(path)
    Path(path).write_text(Path(path).read_text().replace("Ulm", "Rom"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(ValueError, match="is of another corpus"):
        built(BM25, corpus, folder)


def test_an_index_of_before_is_refused_with_what_to_do(tmp_path):
    folder = tmp_path / "i"
    built(BM25, Corpus.of_file(path := written(tmp_path / "one.jsonl", "Ulm")), folder)
    (folder / "passages.json").write_text(json.dumps({"format": 1, "num_passages": 1}))
    with pytest.raises(
        ValueError, match=r"is of an earlier version, .* expected format 2, got 1; delete '.*/i' and run a"
    ):
        built(BM25, Corpus.of_file(path), folder)
    (folder / "passages.json").write_text("{half")
    with pytest.raises(ValueError, match="expected format 2, got None"):
        BM25.open(folder)


def test_an_index_made_by_code_that_splits_words_otherwise_is_refused(tmp_path, monkeypatch):
    folder, corpus = tmp_path / "i", Corpus.of_file(written(tmp_path / "one.jsonl", "Ulm"))
    built(BM25, corpus, folder)
    here, real = code_version(), bm25.words
    code_version.cache_clear()
    monkeypatch.setattr(bm25, "words", lambda text, single=False: [*real(text, single), "more"])
    with pytest.raises(
        ValueError, match=rf"splits or weighs words otherwise: expected {code_version()}, got {here}; del"
    ):
        built(BM25, corpus, folder)
    monkeypatch.undo()
    code_version.cache_clear()
    assert code_version() == here and found(built(BM25, corpus, folder), "Ulm") == ["Ulm"]


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_index_is_named_with_the_file(tmp_path, damage):
    folder, corpus = tmp_path / "i", Corpus.of_file(written(tmp_path / "one.jsonl", "Ulm"))
    built(BM25, corpus, folder)
    lines = folder / "passages.jsonl"
    if damage == "cut":
        lines.write_bytes(lines.read_bytes()[:-3])
    else:
        lines.unlink()
    with pytest.raises(ValueError, match=r"is damaged: expected \d+ bytes in passages.jsonl; delete"):
        built(BM25, corpus, folder)


def test_a_folder_with_something_else_in_it_is_not_written_into(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    corpus = Corpus("three", lambda: pytest.fail("made for nothing"))
    with pytest.raises(ValueError, match="expected an empty folder or none, got other files; name another"):
        built(BM25, corpus, tmp_path)
    with pytest.raises(FileNotFoundError, match="no index in '.*': give --corpus as well"):
        built(BM25, None, tmp_path / "i")


def test_data_index_belongs_to_its_questions_its_corpus_or_its_encyclopedia(tmp_path):
    index = str(tmp_path / "i")
    ulm, rom = questions(tmp_path / "ulm.jsonl", "Ulm"), questions(tmp_path / "rom.jsonl", "Rom")
    assert found(QAData(questions=ulm, index=index).source.retriever, "Ulm") == ["Ulm"]
    for other in (
        QAData(questions=rom, index=index),
        QAData(questions=ulm, corpus=written(tmp_path / "c.jsonl", "Ulm"), index=index),
        QAData(index=index),
    ):
        with pytest.raises(ValueError, match=rf"index '{index}' is of another corpus: expected .*delete '{index}'"):
            other.setup("fit")
    small = EncyclopediaSettings(60, seed=3)
    data = QAData(index=str(tmp_path / "w"), encyclopedia=small)
    kept, world = data.source, QAData(encyclopedia=small).source
    query = world.task("val", 0).objectives[0].question
    assert kept.retriever.search([query]) == world.retriever.search([query])
    with pytest.raises(ValueError, match="expected the encyclopedia of 60 passages and seed 4"):
        QAData(index=str(tmp_path / "w"), encyclopedia=EncyclopediaSettings(60, seed=4)).setup("fit")


def test_the_server_opens_any_index_and_checks_the_one_of_a_corpus(tmp_path, capsys):
    one, other = written(tmp_path / "one.jsonl", "Ulm"), written(tmp_path / "other.jsonl", "Rom")
    index = str(tmp_path / "i")
    assert found(serve_retriever.load("bm25", one, index, ""), "Ulm") == ["Ulm"]
    assert found(serve_retriever.load("bm25", None, index, ""), "Ulm") == ["Ulm"]
    assert serve_retriever.main(["--corpus", other, "--index", index]) == 1
    assert capsys.readouterr().err.startswith(f"error: index '{index}' is of another corpus: expected '{other}'")


def test_what_is_indexed_changes_only_with_the_code_version():
    """Another digest means that indexes made before are refused: that is what it is for."""
    assert code_version() == "184783c5"


def test_a_saved_index_without_a_corpus_serves_whoever_asks_for_none(tmp_path):
    BM25([Passage("Ulm", "A town.")]).save(tmp_path / "i")
    assert found(BM25.open(tmp_path / "i"), "Ulm") == ["Ulm"]
    with pytest.raises(ValueError, match=r"expected two \(abc\), got unknown with 1 passages"):
        BM25.open(tmp_path / "i", "abc", "two")
