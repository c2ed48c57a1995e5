"""The trajectory page: what it says of a turn, worked by hand; no text acts; a browser shows and filters it."""

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chromium import Chromium, find_chromium
from lightning_mem1.context.modes.masked import Masked
from lightning_mem1.context.tags import Tags
from lightning_mem1.evaluation.report.episode import (
    MAX_CHARS,
    dropped,
    episode,
    finite,
    parts,
    pieces,
    shortened,
    word_diff,
)
from lightning_mem1.evaluation.report.page import page
from lightning_mem1.evaluation.view import View
from lightning_mem1.types import Directive, Objective, StopReason, Task, Trajectory, Turn

TASK = Task("shop/1", "buy shoes", (Objective("shoes"),), 8)
EVIL = (
    "<script>document.title='owned'</script></script><img src=x onerror=\"document.title='owned'\">"
    "</information></summary><!--\x1b[2J\x1b]0;owned\x07\u202e&amp;\ud800"
)


def decode(ids) -> str:
    """An id is a character."""
    return "".join(map(chr, ids))


def ids(text: str) -> list[int]:
    return [ord(char) for char in text]


def turn(text: str, information: str = "", **more) -> Turn:
    return Turn(ids(text), [-0.5] * len(text), ids(information), information=information, **more)


def played(stop: StopReason = StopReason.DONE, **more) -> Trajectory:
    """A prompt of 5; turns with states red, blue and none; replies of 4 and 6."""
    turns = [
        turn("<summary>red</summary><answer>a</answer>", "page", action="a"),
        turn("<summary>blue</summary><answer>b</answer>", "result", action="b", valid=False),
        turn("end", action=None, reward=0.25, info={"success": 1.0}),
    ]
    return Trajectory(TASK, ids("hello"), turns, stop, **more)


def shown(trajectory: Trajectory | None = None, memory: str = "mem1", **more):
    return episode(trajectory or played(), View(decode, Tags(), memory), **more)


def note(turns):
    return [[99, 99], *(turn.information_ids for turn in turns[-1:])]


def test_a_context_is_told_by_its_parts_and_what_the_history_has_beside_them_is_dropped():
    turns = [Turn([7] * 3, [0.0] * 3, [8] * 2), Turn([7] * 4, [0.0] * 4, [8]), Turn([7], [0.0])]
    trajectory = Trajectory(TASK, [1] * 5, turns, StopReason.DONE)
    prompt = ["prompt", -1, 5]
    mem1 = parts(trajectory, "mem1")
    assert mem1 == [
        [prompt],
        [prompt, ["turn", 0, 3], ["information", 0, 2]],
        [prompt, ["turn", 1, 4], ["information", 1, 1]],
    ]
    full = parts(trajectory, "full")
    assert full[2] == [prompt, ["turn", 0, 3], ["information", 0, 2], ["turn", 1, 4], ["information", 1, 1]]
    assert [dropped(f, m) for f, m in zip(full, mem1, strict=True)] == [[], [], [["turn", 0, 3], ["information", 0, 2]]]
    assert parts(trajectory, "none")[2] == [prompt, ["information", 1, 1]]
    assert parts(trajectory, note)[1] == [prompt, ["other", -1, 2], ["information", 0, 2]]


def test_a_state_of_which_no_more_is_left_and_a_note_are_told_as_what_they_are():
    turns = [Turn([7] * 3, [0.0] * 3, [8] * 2, state_tokens=1, note_ids=[9]) for _ in range(4)]
    turns[1].directive, turns[2].directive = Directive("fold", (0,)), Directive("fold", (1,))
    turns[3].directive = Directive("fold", (0, 1))
    trajectory, prompt = Trajectory(TASK, [1] * 5, [*turns, Turn([7], [0.0])], StopReason.DONE), ["prompt", -1, 5]
    assert parts(trajectory, "multiscale")[3:] == [
        [prompt, ["turn", 1, 1, 0], ["turn", 2, 3], ["information", 2, 2]],
        [prompt, ["turn", 3, 1, 0], ["turn", 2, 2, 1], ["information", 2, 2], ["turn", 3, 2, 1], ["information", 3, 2]],
    ]
    masked = parts(trajectory, Masked(1))[2]
    assert masked == [prompt, ["turn", 0, 3], ["other", -1, 1], ["turn", 1, 3], ["information", 1, 2]]
    json.dumps(shown(trajectory, "multiscale"))


def apart() -> Trajectory:
    """Two acts with a memory written after the first."""
    memory = Turn(ids("red</summary>"), [-0.5] * 13, kind="memory", opening_ids=ids("<summary>"))
    first, last = turn("<answer>a</answer>", "page", action="a"), turn("<answer>b</answer>", action="b", reward=1.0)
    return Trajectory(TASK, ids("hello"), [first, memory, last], StopReason.DONE)


def test_a_memory_written_apart_is_a_part_of_its_own_and_belongs_to_the_act_before_it():
    prompt, act, page_, memory = ["prompt", -1, 5], ["turn", 0, 18], ["information", 0, 4], ["memory", 0, 22]
    assert parts(apart(), "summary") == [
        [prompt],
        [prompt, act, page_, ["memory", 0, 9]],  # its opening ends the context that it is written in
        [prompt, memory, page_],
    ]
    told = shown(apart(), "summary")
    first, second, third = told["turns"]
    assert (told["acts"], told["invalid"]) == (2, 0)
    assert [(each["kind"], each["number"]) for each in told["turns"]] == [("act", 0), ("memory", 0), ("act", 1)]
    assert (first["diff"], second["diff"], third["diff"]) == (None, [["+", "red"]], None)
    assert second["state"] == [0, 3] and "".join(second["pieces"]) == "red</summary>"
    assert third["dropped"] == [act]


def test_the_difference_of_two_states_is_over_words():
    assert word_diff("buy red shoes", "buy blue shoes") == [["=", "buy "], ["-", "red"], ["+", "blue"], ["=", " shoes"]]
    assert word_diff("", "new") == [["+", "new"]] and word_diff("old", "") == [["-", "old"]]
    assert word_diff("", "") == []


def test_a_character_of_several_ids_stands_at_the_last_of_them():
    whole = "é😀".encode()

    def bytewise(part) -> str:
        return bytes(part).decode(errors="replace")

    assert pieces([*b"a", *whole], bytewise) == ["a", "", "é", "", "", "", "😀"]
    assert pieces([0xC3], bytewise) == ["\ufffd"]  # cut off by the end of the turn


def test_a_piece_keeps_the_space_before_it_though_a_text_that_begins_with_it_would_lose_it():
    words = ["tried", " none", ";", " search"]

    def trimmed(part) -> str:
        return "".join(words[i] for i in part).lstrip()

    assert pieces([0, 1, 2, 3], trimmed) == words


def test_a_turn_is_told_with_its_state_its_tokens_and_what_came_back():
    first, second, third = shown()["turns"]
    assert (second["context"][0], second["valid"], second["action"]) == (["prompt", -1, 5], False, "b")
    assert second["diff"] == [["-", "red"], ["+", "blue"]]
    assert second["state"] == [9, 13] and "".join(second["pieces"][9:13]) == "blue"
    assert second["logprobs"] == [-0.5] * second["written"] and second["advantages"] is None
    assert (first["information"], first["information_tokens"]) == ("page", 4)
    assert (third["action"], third["reward"], third["info"]) == (None, 0.25, {"success": "1"})
    assert third["diff"] == [["-", "blue"]]


def test_advantages_stand_beside_their_tokens_and_must_align():
    trajectory = played()
    total = sum(len(each.action_ids) for each in trajectory.turns)
    found = shown(trajectory, advantages=[float(n) for n in range(total)])["turns"]
    assert found[2]["advantages"] == [total - 3.0, total - 2.0, total - 1.0]
    with pytest.raises(ValueError, match=f"advantages must align with trajectory 'shop/1': expected {total} tokens"):
        shown(trajectory, advantages=[0.0])


def test_long_texts_lose_their_middle_and_long_trajectories_their_end():
    assert shortened("x" * 3 + "y" * 5000 + "z", 8) == "xxxyyy ... 4,996 characters left out ... yz"
    long = Trajectory(TASK, ids("p" * 9000), [turn("a" * 700)] * 61, StopReason.MAX_TURNS)
    found = shown(long)
    assert len(found["prompt"]) < MAX_CHARS + 60 and "5,000 characters left out" in found["prompt"]
    assert (len(found["turns"]), found["turns_left_out"]) == (60, 1)
    assert (found["turns"][0]["written"], len(found["turns"][0]["pieces"])) == (700, 600)


def test_numbers_that_are_not_finite_are_none_because_json_has_no_word_for_them():
    assert [finite(n) for n in (math.nan, -math.inf, 0.123456789)] == [None, None, 0.123457]


def test_a_page_keeps_to_its_size_and_says_how_many_are_missing():
    one = shown()
    size = len(json.dumps(one, separators=(",", ":")))
    text = page([one] * 5, "title", num_trajectories=9, max_bytes=int(3.5 * size))
    assert "3 trajectories, 6 more left out" in text
    assert len(data_of(text)) == 3
    assert "1 trajectory<" in page([one], "title")


def data_of(text: str) -> list[dict]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1])["episodes"]


def evil() -> Trajectory:
    """Every text that somebody else wrote is hostile."""
    turns = [turn(EVIL, EVIL, action=EVIL, info={EVIL: EVIL}, valid=False), turn(f"<summary>{EVIL}", action=None)]
    return Trajectory(replace(TASK, id=EVIL), ids(EVIL), turns, StopReason.ERROR, error=EVIL)


def test_hostile_texts_stand_in_the_file_as_data_without_a_tag_or_a_control_character():
    text = page([shown(evil(), row=EVIL)], EVIL)
    assert text.count("<script") == 2 and text.count("</script>") == 2  # the page's own
    assert "<img" not in text and "<!--" not in text
    assert not [char for char in text if not char.isprintable() and char != "\n"]
    (back,) = data_of(text)
    assert back["task"].startswith("<script>") and "\\x1b[2J" in back["task"] and "\\u202e" in back["task"]


def test_a_page_asks_for_nothing_from_outside():
    text = page([shown()], "title")
    assert not re.findall(r"""(?:src|href)\s*=\s*["']|url\(|@import|https?:""", text)
    assert "default-src 'none'" in text


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    if (program := find_chromium()) is None:
        pytest.skip("no chromium on the PATH: install one to look at the page in a browser")
    browser = Chromium(program, tmp_path / "profile")
    yield browser
    browser.close()


def opened(browser: Chromium, folder: Path, episodes: list[dict], title: str = "episodes") -> None:
    path = folder / "page.html"
    path.write_text(page(episodes, title), encoding="utf-8")
    browser.load("Page.navigate", url=path.as_uri())


def press(browser: Chromium, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
        browser("Input.dispatchKeyEvent", type=kind, key=key, **text)


@pytest.mark.slow
def test_in_a_browser_nothing_acts_and_everything_is_shown(browser, tmp_path):
    opened(browser, tmp_path, [shown(evil(), row=EVIL)], EVIL)
    assert browser.run("document.querySelectorAll('img, iframe, object').length") == 0
    assert browser.run("document.scripts.length") == 2
    assert browser.run("document.title").startswith("<script>document.title='owned'</script>")
    body = browser.run("document.querySelectorAll('details').forEach(d => d.open = true); document.body.innerText")
    assert body.count("<script>document.title='owned'</script>") >= 5
    assert "\x1b" not in body and "\\x1b[2J" in body
    # what an escaping that failed would have let in is stopped by the policy
    browser.run("document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 1'}))")
    assert browser.run("document.title") != "1"


@pytest.mark.slow
def test_in_a_browser_a_memory_written_apart_has_a_card_of_its_own(browser, tmp_path):
    opened(browser, tmp_path, [shown(apart(), "summary"), shown()])
    titles = browser.run("[...document.querySelectorAll('h3')].map(h => h.innerText).join()")
    assert titles == "turn 0,memory after turn 0,turn 1"
    assert "2 turns" in browser.run("document.querySelector('main p').innerText")
    card = browser.run("document.querySelector('#turn-1').innerText")
    assert "internal state" in card and "action" not in card
    assert browser.run("document.querySelector('#turn-1 .diff').innerHTML") == "<ins>red</ins>"
    opened_parts = "(() => {{ const d = {}.querySelector('details'); d.open = true; "
    opened_parts += "d.dispatchEvent(new Event('toggle')); return 1; }})()"
    browser.run(opened_parts.format("document.querySelector('#turn-1')"))
    assert browser.run("document.querySelector('#turn-1 pre.memory').innerText") == "(the opening that asks for it)"
    last = "document.querySelector('#turn-2')"
    assert "kept: prompt (5), memory 0 (22), information 0 (4)" in browser.run(f"{last}.innerText")
    assert "internal state," not in browser.run(f"{last}.innerText")
    browser.run(opened_parts.format(last))
    assert browser.run(f"{last}.querySelector('pre.memory').innerText") == "red</summary>"


@pytest.mark.slow
def test_in_a_browser_trajectories_are_filtered_and_walked_through_by_keys(browser, tmp_path):
    cut = replace(played(StopReason.MAX_TURNS), task=replace(TASK, id="shop/2"))
    fine = Trajectory(replace(TASK, id="shop/3"), ids("hi"), [turn("ok", action="ok", reward=1.0)], StopReason.DONE)
    total = sum(len(each.action_ids) for each in played().turns)
    opened(browser, tmp_path, [shown(advantages=[0.5] * total), shown(cut, row="full"), shown(fine)])
    titles = "[...document.querySelectorAll('#list button')].map(b => b.firstChild.textContent).join()"

    def choose(control: str, change: str) -> str:
        event = "new Event('input', {bubbles: true})"
        return browser.run(f"(() => {{ const c = {control}; {change}; c.dispatchEvent({event}); return {titles}; }})()")

    assert browser.run(titles) == "shop/1,shop/2,shop/3"
    assert choose("find('stop')", "c.value = 'max_turns'") == "shop/2"
    assert browser.run("document.querySelector('main h2').innerText") == "shop/2"
    assert choose("find('stop')", "c.value = ''") == "shop/1,shop/2,shop/3"
    assert choose("find('invalid')", "c.checked = true") == "shop/1,shop/2"
    assert choose("find('below')", "c.value = '0.2'") == ""
    assert "no trajectory passes" in browser.run("document.querySelector('main').innerText")
    choose("find('invalid')", "c.checked = false")
    assert choose("find('below')", "c.value = '0.5'") == "shop/1,shop/2"
    choose("find('below')", "c.value = ''")
    press(browser, "k")
    press(browser, "j")
    press(browser, "j")
    assert browser.run("document.querySelector('main h2').innerText") == "shop/3"
    for key in "kk":
        press(browser, key)
    press(browser, "n")
    press(browser, "n")
    assert browser.run("document.activeElement.id") == "turn-1"
    assert "dropped: turn 0" in browser.run("document.querySelector('#turn-2').innerText")
    assert browser.run("document.querySelector('#turn-1 .diff').innerHTML") == "<del>red</del><ins>blue</ins>"
    browser.run("document.querySelector('#turn-1 .tokens').focus()")
    press(browser, "ArrowRight")
    read = "document.querySelector('#turn-1 .read').textContent"
    assert browser.run(read) == 'token 0 "<": log-prob -0.5000 nats, probability 0.607, advantage +0.500'
    folder = Path(os.environ.get("PAGE_SCREENSHOTS", tmp_path))
    browser.screenshot(folder / "wide.png")
    browser("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=2, mobile=True)
    assert browser.run("document.documentElement.scrollWidth") == 390  # a phone scrolls up and down only
    browser.screenshot(folder / "phone.png")
