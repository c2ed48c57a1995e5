"""The generated world and the questions over it."""

import pytest

from lightning_mem1.environments.qa.encyclopedia.questions import Asked, questions, read_question, split_of
from lightning_mem1.environments.qa.encyclopedia.world import Encyclopedia


def test_the_default_world_has_more_than_five_thousand_short_passages_of_five_kinds():
    world = Encyclopedia()
    assert len(world.passages) == 5400 == len({passage.title for passage in world.passages})
    assert {kind: len(world.of_kind(kind)) for kind in ("town", "person", "work", "company", "event")} == {
        "town": 540,
        "person": 2268,
        "work": 1296,
        "company": 702,
        "event": 594,
    }
    words = [len(f"{passage.title} {passage.text}".split()) for passage in world.passages]
    assert min(words) >= 17 and max(words) <= 35


def test_a_seed_is_a_world_of_its_own(world):
    again, other = Encyclopedia(3, 600), Encyclopedia(4, 600)
    assert again.passages == world.passages
    assert len(set(other.things) & set(world.things)) < 60
    shared = set(other.things) & set(world.things)
    assert all(other.things[name].passage() != world.things[name].passage() for name in shared)


def test_every_fact_stands_in_the_passage_and_every_name_has_its_passage(world):
    for thing in world.things.values():
        text = thing.passage().text
        assert all(value in text for value in thing.facts.values()), text
        assert thing.nickname in text
    links = [thing.facts["spouse"] for thing in world.of_kind("person")]
    assert all(name in world.things for name in links)


def test_years_fit_together(world):
    for work in world.of_kind("work"):
        assert 20 <= int(work.facts["year"]) - int(world.things[work.facts["maker"]].facts["born"]) <= 60


def test_many_things_share_a_word_of_their_name_with_another(world):
    surnames = [person.name.split()[-1] for person in world.of_kind("person")]
    assert sum(surnames.count(name) > 1 for name in surnames) / len(surnames) > 0.3


def test_questions_of_one_two_and_three_hops_are_answered_by_their_supporting_passages(world):
    asked = questions(world, "train")
    assert {question.hops for question in asked} == {1, 2, 3}
    assert {question.kind for question in asked} == {"fact", "alias", "bridge", "comparison", "follow-up"}
    for question in asked:
        texts = " ".join(world.things[title].passage().contents for title in question.support)
        assert question.answers[0] in texts, question


def test_a_bridge_names_only_the_thing_it_starts_from(world):
    for question in questions(world, "val", (2, 3)):
        if question.kind == "bridge":
            assert question.support[0] in question.text
            assert not any(title in question.text.split(question.support[0])[0] for title in question.support[1:])


def test_the_splits_name_different_things(world):
    assert {split_of(name) for name in world.things} == {"train", "val", "test"}
    for split in ("train", "val", "test"):
        assert {split_of(question.support[0]) for question in questions(world, split) if not question.needs} == {split}


@pytest.mark.parametrize(
    ("text", "names", "relations"),
    [
        ("Which town is Ada Kesh from?", ("Ada Kesh",), ["home"]),
        ("Who made The Red Door?", ("The Red Door",), ["maker"]),
        ("In which year was the maker of The Red Door born?", ("The Red Door",), ["maker", "born"]),
        (
            "Which river runs through the home town of the maker of The Red Door?",
            ("The Red Door",),
            ["maker", "home", "river"],
        ),
        ("Who was born first, Ada Kesh or Odo Lin?", ("Ada Kesh", "Odo Lin"), ["born"]),
        ("What is the answer to question 3 known for?", ("#3",), ["ware"]),
        ("Ada Kesh home town?", ("Ada Kesh",), ["home"]),
        ("Oakmoor settling year?", ("Oakmoor",), ["settled"]),
        ("the home town of the maker of The Red Door river?", ("The Red Door",), ["maker", "home", "river"]),
        ("answer 12 main ware?", ("#12",), ["ware"]),
    ],
)
def test_a_question_is_read_as_it_was_made(text, names, relations):
    asked = read_question(text)
    assert (asked.names, [relation.name for relation in asked.relations]) == (names, relations)


def test_both_wordings_ask_for_the_same_and_topics_seldom_begin_alike(world):
    asked, topics = questions(world, "train"), questions(world, "train", wording="topic")
    assert [(one.id, one.answers) for one in asked] == [(one.id, one.answers) for one in topics]
    for one, other in zip(asked, topics, strict=True):
        if not one.needs:
            assert read_question(one.text) == read_question(other.text) is not None, (one, other)
    starts = [
        len({tuple(each.text.lower().split()[:2]) for each in some if each.hops == 1}) for some in (asked, topics)
    ]
    assert starts[1] > 10 * starts[0]


def test_a_question_of_another_kind_is_not_read():
    assert read_question("who got the first nobel prize in physics") is None
    assert isinstance(read_question("Who won Ulm Cup?"), Asked)


def test_too_small_a_world_is_refused():
    with pytest.raises(ValueError, match="at least 60 passages, got 5"):
        Encyclopedia(0, 5)


def test_no_seed_runs_out_of_names():
    for seed in range(40):
        assert len(Encyclopedia(seed, 60 + 30 * seed).passages) == 60 + 30 * seed


def test_a_world_can_be_written_as_a_corpus(tmp_path, world):
    from lightning_mem1.cli.make_encyclopedia import main
    from lightning_mem1.environments.qa.retrieval.corpus import read_corpus

    assert main([str(tmp_path / "w.jsonl"), "--seed", "3", "--passages", "600"]) == 0
    assert list(read_corpus(str(tmp_path / "w.jsonl"))) == world.passages
