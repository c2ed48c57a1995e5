"""Words, stems and ranks."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mem1.environments.webshop import Product, Shop
from lightning_mem1.environments.webshop.search import postings
from lightning_mem1.environments.webshop.search.analyzer import analyze, words
from lightning_mem1.environments.webshop.search.postings import PostingsBuilder, quantised_length
from lightning_mem1.environments.webshop.search.search import SearchIndex, _candidates, search_text
from lightning_mem1.environments.webshop.search.stemmer import stem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t-shirt & 6.6ft, 1,000", ["t", "shirt", "6.6ft", "1,000"]),
        ("women's men’s size:large a.b. 3.", ["women's", "men’s", "size:large", "a.b", "3"]),
        ("hair_care _x_ ___ '' 5'2\"x7'4\"", ["hair_care", "_x_", "5'2", "x7'4"]),
        ("★ best★buy ❤️ 1️⃣ #️⃣", ["★", "best", "★", "buy", "❤️", "1️⃣", "#️⃣"]),
        ("👨\u200d💼 👍🏽 🇩🇪🇫🇷 ®", ["👨\u200d💼", "👍🏽", "🇩🇪", "🇫🇷", "®"]),
        ("食品 ひら カタカナ 라면 ไทยดี", ["食", "品", "ひ", "ら", "カタカナ", "라면", "ไทยดี"]),
        ("cafe\u0301 soft\u00adhyphen 1⁄2 ½", ["cafe\u0301", "soft\u00adhyphen", "1⁄2"]),
        ("a, b,c 1,a a:1 x'y", ["a", "b", "c", "1", "a", "a", "1", "x'y"]),
    ],
)
def test_text_is_cut_at_unicode_word_boundaries(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_a_word_longer_than_255_units_is_cut() -> None:
    assert [len(word) for word in words("x" * 600 + " y")] == [255, 255, 90, 1]
    assert words("1," * 200)[0] == "1," * 127 + "1"


def test_stop_words_go_after_lower_case_and_possessives_before_stemming() -> None:
    assert analyze("The WOMEN’S ponies' For's") == ["women", "poni"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("caresses", "caress"),
        ("ties", "ti"),
        ("agreed", "agre"),
        ("feed", "feed"),
        ("plastered", "plaster"),
        ("hopping", "hop"),
        ("falling", "fall"),
        ("filing", "file"),
        ("conflated", "conflat"),
        ("happy", "happi"),
        ("sky", "sky"),
        ("vietnamization", "vietnam"),
        ("possibly", "possibl"),
        ("apology", "apolog"),
        ("apologies", "apolog"),
        ("adoption", "adopt"),
        ("controll", "control"),
        ("rate", "rate"),
        ("cease", "ceas"),
        ("is", "is"),
        ("1s", "1s"),
    ],
)
def test_stems_are_porters_with_his_two_later_rules(word: str, expected: str) -> None:
    assert stem(word) == expected


ENDINGS = [
    "ational", "tional", "enci", "anci", "izer", "bli", "alli", "entli", "eli", "ousli", "ization", "ation", "ator",
    "alism", "iveness", "fulness", "ousness", "aliti", "iviti", "biliti", "logi", "icate", "ative", "alize", "iciti",
    "ical", "ful", "ness", "ance", "ence", "able", "ible", "ement", "ment", "ent", "ion", "ism", "ate", "ize", "s",
    "es", "ies", "eed", "ed", "ing", "y", "e", "ll",
]  # fmt: skip


def test_stems_are_those_of_nltk() -> None:
    porter = pytest.importorskip("nltk.stem.porter", reason="nltk is not installed (extra textarena)")
    stemmer, rng = porter.PorterStemmer(mode="MARTIN_EXTENSIONS"), random.Random(0)
    letters = "aeiouybcdfglmnrstvwxz0é中"
    words = ["".join(rng.choices(letters, k=rng.randrange(9))) + rng.choice(ENDINGS) for _ in range(20_000)]
    assert [word for word in words if stem(word) != stemmer.stem(word, to_lowercase=False)] == []


def test_lengths_are_exact_up_to_40_and_then_keep_four_bits() -> None:
    assert [quantised_length(n) for n in (0, 23, 39, 40, 41, 42, 55, 56, 57, 60, 1000)] == [
        0, 23, 39, 40, 40, 42, 54, 56, 56, 60, 984
    ]  # fmt: skip


def test_a_score_is_lucenes_bm25() -> None:
    """Two texts of 2 and 4 terms, average 3; 'red' is in one: idf = ln(1 + 1.5 / 1.5), frequency 2 of length 4."""
    index = SearchIndex(["b", "a"], ["blue shoe", "red red lamp desk"])
    idf = math.log(2)
    expected = idf - idf / (1 + 2 / (0.9 * (0.6 + 0.4 * 4 / 3)))
    assert index.search("red") == [("a", pytest.approx(expected, abs=1e-4))]
    assert index.search("red red")[0][1] == pytest.approx(2 * expected, abs=1e-4)


def test_equal_scores_are_ordered_by_id_and_set_apart() -> None:
    (first, high), (second, low) = SearchIndex(["b", "a", "c"], ["red shoe", "red lamp", "green desk"]).search("red")
    assert (first, second) == ("a", "b")
    assert high - low == pytest.approx(1e-6)


def test_no_more_than_k_are_found_and_nothing_for_unknown_words() -> None:
    index = SearchIndex([f"{n:03}" for n in range(300)], ["red shoe"] * 300)
    assert [doc for doc, _ in index.search("shoes", k=3)] == ["000", "001", "002"]
    assert index.search("unheard of") == index.search("") == index.search(" the ") == []


def test_a_caller_cannot_change_the_remembered_hits() -> None:
    index = SearchIndex(["a"], ["red"])
    index.search("red").clear()
    assert len(index.search("red")) == 1


def test_leaving_out_what_cannot_win_changes_no_rank_and_no_bit() -> None:
    """Words by Zipf's law, so that queries mix rare and very common ones; asking for every text leaves nothing out."""
    rng = random.Random(0)
    vocabulary = [f"w{number}" for number in range(3000)]
    weights = [1 / (rank + 1) for rank in range(3000)]
    texts = [" ".join(rng.choices(vocabulary, weights, k=rng.randint(5, 60))) for _ in range(12_000)]
    index = SearchIndex([f"{number:05}" for number in range(len(texts))], texts)
    pruned = 0
    for _ in range(60):
        query = " ".join(rng.choices(vocabulary, weights, k=rng.randint(2, 12)))
        asked = [index._asked(term, 1) for term in set(analyze(query))]
        candidates = _candidates([each for each in asked if each], len(texts), 50)
        pruned += len(candidates) < len(set().union(*(each.docs.tolist() for each in asked if each)))
        everything = index.search(query, k=len(texts))[:50]
        best = index.search(query, k=50)
        assert [doc for doc, _ in best] == [doc for doc, _ in everything], query
        assert best == everything
    assert pruned > 40


def test_special_queries_are_plain_words_to_the_index(tiny_shop: Shop) -> None:
    assert [asin for asin, _ in tiny_shop.search("<c> lamp")] == ["B0LAMP0001"]


def test_an_index_that_spills_and_sorts_in_pieces_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"red lamp number {number} lamp {'big ' * (number % 7)}" for number in range(500)]
    numbers = np.arange(len(texts), dtype=np.int32)[::-1].copy()
    whole, pieces = PostingsBuilder(), PostingsBuilder(tmp_path)
    for text in texts:
        whole.add(text)
    expected = whole.finish(numbers)
    monkeypatch.setattr(postings, "SPILL_AT", 64)
    monkeypatch.setattr(postings, "SORTED_AT_ONCE", 100)
    for text in texts:
        pieces.add(text)
    found = pieces.finish(numbers)
    for name in ("letters", "ends", "starts", "docs", "saturations", "tops", "counted"):
        assert np.array_equal(getattr(expected, name), getattr(found, name)), name


@given(text=st.text(alphabet=st.sampled_from(list("aB1 ,.:'’-_★❤\ufe0f\u200d👨💼\u202f\u00a0\n食ไ")), max_size=40))
def test_words_of_a_text_are_the_words_between_its_spaces(text: str) -> None:
    assert words(text) == [word for piece in text.split(" ") for word in words(piece)]


def test_texts_without_words_are_never_found_and_do_not_break_the_index() -> None:
    assert SearchIndex(["a", "b"], ["", "red"]).search("red")[0][0] == "b"
    assert SearchIndex(["a"], ["!!"]).search("red") == []


def test_the_indexed_text_holds_title_description_first_bullet_and_options(tiny_products: list[Product]) -> None:
    assert search_text(tiny_products[0]) == (
        "acme trail running shoes, waterproof made for muddy hills. waterproof upper  "
        "color: black, blue | red, and size: large, x-large"
    )


def test_golden_texts_have_the_reference_terms(golden: Callable[[str], Any]) -> None:
    for case in golden("analyzer.json"):
        assert analyze(case["text"]) == case["tokens"], case["id"]


def test_golden_queries_have_the_reference_top_50(golden: Callable[[str], Any], real_shops: dict[str, Shop]) -> None:
    for case in golden("search_bm25.json.gz")["queries"]:
        hits = real_shops["synthetic"].search(case["query"])
        assert analyze(case["query"]) == case["tokens"]
        assert [asin for asin, _ in hits] == [asin for asin, _ in case["hits"]], case["query"]
        assert [value for _, value in hits] == pytest.approx([value for _, value in case["hits"]], abs=1e-4)
