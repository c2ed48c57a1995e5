"""Replies that are longer than their room are named at the start, once, in one line."""

import warnings

import pytest

from lightning_mem1.context.encoder import ContextEncoder
from lightning_mem1.context.formats import PRESETS
from lightning_mem1.environments.qa.tasks import EncyclopediaTasks
from lightning_mem1.environments.reading.file_tasks import FileTasks
from lightning_mem1.environments.reading.question_rows import read_asked
from lightning_mem1.environments.reading.tasks import ReadingTasks
from lightning_mem1.rollout.reply_room import warn_of_cut_replies
from tiny import tiny_tokenizer


def encoder(room):
    return ContextEncoder(tiny_tokenizer(), PRESETS["reading"], room)


def needed(source):
    """The room that the warning asks for."""
    with pytest.warns(UserWarning, match="max_information_tokens 20, got") as found:
        warn_of_cut_replies(source, encoder(20))
    (line,) = (str(each.message) for each in found)
    assert "\n" not in line and "parts of documents lose their middle" in line
    return int(line.rpartition("set that to ")[2].partition(",")[0])


def test_a_part_that_would_lose_its_middle_is_named_with_the_room_that_it_needs():
    source = ReadingTasks(["needle"], length=200, part=50)
    room = needed(source)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_cut_replies(source, encoder(room))
    with pytest.warns(UserWarning):
        warn_of_cut_replies(source, encoder(room - 1))
    env = source.env(task := source.task("train", 0))
    for _ in range(task.max_turns - 2):  # with that room nothing is lost
        reply = env.step("read[next]").information
        told = encoder(room).information_ids(reply, 9)
        assert told == encoder(10**6).information_ids(reply, 9)


def test_parts_of_files_are_looked_at_and_sources_that_show_no_samples_are_not(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "Who?", "answers": ["Odo"], "context": "' + "a b c. " * 60 + '"}\n')
    assert needed(FileTasks({"test": read_asked(str(path))}, part=40)) > 40
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_cut_replies(EncyclopediaTasks(0, 60, [1]), encoder(5))
        warn_of_cut_replies(None, encoder(5))
