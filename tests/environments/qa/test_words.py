"""The words of a text: of any length and in any script, and the same as ever in plain English."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mem1.environments.qa.encyclopedia.questions import questions
from lightning_mem1.environments.qa.retrieval.bm25 import BM25
from lightning_mem1.environments.qa.retrieval.passage import Passage
from lightning_mem1.environments.qa.retrieval.words import STOP_WORDS, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Vitamin C, Town 6", "vitamin c town 6"),
        ("C++ and F#, C++11, A+ or 18+", "c c++ f f# c c++ 11 a a+ 18 18+"),
        ("a+b=c, 1+1, ++i", "a b c 1 1 i"),
        ("women's O'Brien's rock 'n' roll, the 'C' language", "women o brien rock n roll c language"),
        ("A river in a (small) town", "river small town"),
        ("Vitamin A", "vitamin a"),
        ("who discovered vitamin A?", "who discovered vitamin a"),
        ("R&B at AT&T: 7-Eleven, U.S.", "r b t 7 eleven u s"),
        ("The", "the"),
        ("It is not", "it is not"),
        ("___ x_y _", "x_y"),
        ("Ｃ＋＋ E=mc²", "c c++ e mc2"),
        ("cafe\u0301 CAFÉ naïve’s", "café café naïve"),
        ("東京タワー", "東京 京タ タワ ワー"),
        ("北京 和 上海。", "北京 和 上海"),
        ("水", "水"),
        ("iPhone手机", "iphone 手机"),
        ("・東・京・", "東 京"),
        ("서울에서", "서울 울에 에서"),
        ("हिन्दी भाषा", "हिन्दी भाषा"),
        ("мир, ΑΒΓ", "мир αβγ"),
        ("co\u00adoperate می\u200cخواهم", "cooperate میخواهم"),
        ("?! \u2026 \udcff \x00", ""),
    ],
)
def test_the_words_of_a_text(text, expected):
    assert words(text) == expected.split()


def test_a_passage_counts_characters_of_scripts_without_spaces_singly_too():
    assert words("東京の水", single=True) == ["東", "京", "の", "水", "東京", "京の", "の水"]
    assert words("水 water", single=True) == ["水", "water"]


KINDS = [
    Passage("Vitamin A", "Vitamin A is found in carrots."),
    Passage("Vitamin C", "Vitamin C is found in lemons."),
    Passage("Town 6", "Town 6 lies on a river."),
    Passage("Town 16", "Town 16 lies on a lake."),
    Passage("C", "C is a language of 1972."),
    Passage("C++", "C++ is a language of 1985."),
    Passage("C#", "C# is a language of 2000."),
    Passage("東京タワー", "東京タワーは東京都港区にある塔です。"),
    Passage("長江", "长江是中国最长的河流。"),
    Passage("서울", "서울은 대한민국의 수도이다."),
    Passage("It", "A novel about a clown."),
    Passage("Notepad++", "Notepad++ edits text."),
    Passage("Jan Ö", "Jan Ö was a painter."),
]


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("Vitamin C", "Vitamin C"),
        ("vitamin c", "Vitamin C"),
        ("Vitamin A", "Vitamin A"),
        ("Town 6", "Town 6"),
        ("town 16", "Town 16"),
        ("C++", "C++"),
        ("c#", "C#"),
        ("C", "C"),
        ("東京", "東京タワー"),
        ("タワー", "東京タワー"),
        ("港区", "東京タワー"),
        ("塔", "東京タワー"),
        ("中国最长的河流", "長江"),
        ("대한민국", "서울"),
        ("It", "It"),
        ("notepad", "Notepad++"),
        ("Ö", "Jan Ö"),
    ],
)
def test_a_thing_with_an_odd_name_is_found_first(query, title):
    assert BM25(KINDS).search([query])[0][0].title == title


def test_the_encyclopedia_is_searched_by_the_same_words_as_ever(world):
    texts = [text for passage in world.passages for text in (passage.title, passage.text)]
    texts += [q.text for split in ("train", "val", "test") for q in questions(world, split, (1, 2, 3))]
    for text in texts:
        plain = [each for each in re.findall(r"\b\w\w+\b", text.lower()) if each not in STOP_WORDS]
        assert words(text) == plain


@given(st.text(max_size=60))
def test_any_text_has_words_that_a_passage_of_it_has_too(text):
    found = words(text)
    assert set(found) <= set(words(text, single=True)) and all(word and word == word.strip() for word in found)


@given(st.text("ab '’+#_\t\n東京1", max_size=40))
def test_letters_marks_and_signs_in_any_order_lose_no_word_of_two_letters(text):
    plain = set(re.findall(r"(?a:\b\w\w+\b)", text.lower()))
    kept = set(words(text))
    for word in plain - {each for each in plain if not each.strip("_")}:
        assert any(word in each for each in kept), (word, kept)
