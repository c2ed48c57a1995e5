"""Files of any length are read entry by entry, and mistakes in them are named."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mem1.environments.webshop.catalogue import json_stream
from lightning_mem1.environments.webshop.catalogue.json_stream import list_entries, object_entries
from lightning_mem1.environments.webshop.catalogue.keyed_file import KeyedFile

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def tiny_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read seven characters at a time, so that everything is cut somewhere."""
    monkeypatch.setattr(json_stream, "PIECE_CHARS", 7)


def write(folder: Path, text: str) -> Path:
    path = folder / "some.json"
    path.write_text(text, encoding="utf-8")
    return path


@given(entries=st.lists(JSON, max_size=6), indent=st.none() | st.integers(0, 3))
def test_the_entries_of_a_list_are_those_json_loads_gives(tmp_path_factory: Any, entries: list, indent: Any) -> None:
    path = write(tmp_path_factory.mktemp("json"), json.dumps(entries, indent=indent))
    assert list(list_entries(path)) == entries


@given(entries=st.dictionaries(st.text(), JSON, max_size=6))
def test_the_entries_of_an_object_are_those_json_loads_gives(tmp_path_factory: Any, entries: dict) -> None:
    path = write(tmp_path_factory.mktemp("json"), json.dumps(entries, ensure_ascii=True))
    assert dict(object_entries(path)) == entries


def test_a_number_at_the_edge_of_a_piece_is_read_whole(tmp_path: Path) -> None:
    assert list(list_entries(write(tmp_path, "[123456789012, 3]"))) == [123456789012, 3]


@pytest.mark.parametrize("size", [1, 7, 8, 14, 20, 30])
def test_a_file_cut_anywhere_is_an_error_after_its_whole_entries(tmp_path: Path, size: int) -> None:
    path, found = write(tmp_path, json.dumps([{"a": 1}, {"b": 2}, {"c": "x"}])[:size]), []
    with pytest.raises(
        ValueError, match=rf"expected complete JSON in '.*some.json', got .* \({size} bytes\): download"
    ):
        for entry in list_entries(path):
            found.append(entry)
    assert found == [{"a": 1}, {"b": 2}, {"c": "x"}][: len(found)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected complete JSON"),
        ('{"a": 1}', "must hold a JSON list, got dict"),
        ('"text"', "must hold a JSON list, got str"),
        ("[1] 2", r"expected the end of the file at character 4"),
        ("[1 2]", r"expected , or \] at character 3"),
        ("[1, 2, oops]", r"Expecting value at character 7"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(list_entries(write(tmp_path, text)))


def test_an_entry_without_an_end_does_not_read_in_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "MAX_ENTRY_CHARS", 1000)
    path = write(tmp_path, '["' + "x" * 1_000_000)
    read: list[int] = []
    real = io.TextIOWrapper.read

    class Counting(io.TextIOWrapper):
        def read(self, size: int = -1) -> str:  # type: ignore[override]
            read.append(size)
            return real(self, size)

    reader = json_stream._Reader(Counting(path.open("rb"), encoding="utf-8"), path)
    reader.begin("[")
    with pytest.raises(json.JSONDecodeError):
        reader.value()
    assert sum(read) < 4000


def test_other_bytes_than_utf_8_and_a_broken_gzip_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'["\xff"]')
    with pytest.raises(ValueError, match="expected complete JSON.*utf-8"):
        list(list_entries(tmp_path / "a.json"))
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(b"[1, 2, 3]" * 100)[:-9])
    with pytest.raises(ValueError, match="expected complete JSON"):
        list(list_entries(tmp_path / "b.json.gz"))


def test_a_keyed_file_gives_the_last_value_of_a_key(tmp_path: Path) -> None:
    with (tmp_path / "scratch").open("w+b") as file:
        keyed = KeyedFile([("a", [1]), ("b", {"x": "\ud800é"}), ("a", [2]), ("", None)], file)
        assert [keyed.get(key) for key in ("a", "b", "", "c")] == [[2], {"x": "\ud800é"}, None, None]
        assert keyed.get("c", "none") == "none"
