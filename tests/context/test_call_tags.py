"""Actions as tool calls: read as actions, written by the scripted agents, described to a model in its own words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mem1.context.call_tags import SYNTAXES, call_tags
from lightning_mem1.context.chat_template import ChatTemplate
from lightning_mem1.context.formats import CALL_PRESETS, prompt_format
from lightning_mem1.context.modes.recall import Recall
from lightning_mem1.context.prompts import worked_turn
from lightning_mem1.context.tags import QA_TAGS, Tags, escape_tags, exact_format, parse_turn
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import Task
from tiny_tokenizers import CHATML, PARTS, byte_level, finished

QA = {syntax: call_tags(syntax, QA_TAGS) for syntax in SYNTAXES}
ANY = {syntax: call_tags(syntax, Tags()) for syntax in SYNTAXES}
CODER = "<tool_call>\n<function=search>\n<parameter=query>\nred shoes\n</parameter>\n</function>\n</tool_call>"
# as Qwen's: the result of a tool is a user's message in a tag
QWEN = """{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|im_end|>
{% endif %}{%- for m in messages %}<|im_start|>{% if m.role == 'tool' %}user
<tool_response>
{{ m.content }}
</tool_response>{% else %}{{ m.role }}
{{ m.content }}{% endif %}<|im_end|>
{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
NO_TOOLS = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
NO_TOOLS += "[{{ m.role }}]{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


def turn(tags, call):
    return tags.state_opening + "red" + tags.state_closing + call


@pytest.mark.parametrize(
    ("syntax", "call"),
    [
        ("hermes", '<tool_call>\n{"name": "search", "arguments": {"query": "red shoes"}}\n</tool_call>'),
        ("qwen_coder", CODER),
        ("llama", '{"name": "search", "parameters": {"query": "red shoes"}}'),
    ],
)
def test_a_call_is_written_as_its_models_write_it_and_read_as_the_action_that_it_is(syntax, call):
    tags = QA[syntax]
    assert tags.written("search", "red shoes") == call
    parsed = parse_turn(turn(tags, call), tags)
    assert (parsed.internal_state, parsed.action, parsed.problem) == ("red", "search[red shoes]", "")
    assert exact_format(turn(tags, call), tags)
    assert exact_format(call, tags, staged=True) and not exact_format(call, tags)
    assert not exact_format(turn(tags, "so " + call), tags)


@pytest.mark.parametrize("end", ["<|eot_id|>", "<|eom_id|>\n", "</s>", "<|im_end|>", ""])
def test_the_end_of_a_message_is_no_part_of_the_call(end):
    text = turn(QA["llama"], '{"name": "answer", "parameters": {"answer": "red; blue"}}' + end)
    assert parse_turn(text, QA["llama"]).action == "answer[red; blue]"
    assert exact_format(text, QA["llama"])


@pytest.mark.parametrize(
    ("arguments", "action"),
    [
        ('{"query": 7}', "look[7]"),
        ('{"on": true}', "look[true]"),
        ('{"a": 1, "b": "x"}', 'look[{"a": 1, "b": "x"}]'),
        ("{}", "look[]"),
        ('"a hat"', "look[a hat]"),
        ('{"at": "half \\ud83d of it"}', "look[half ? of it]"),
    ],
)
def test_an_environment_gets_one_text_whatever_the_arguments_are(arguments, action):
    call = f'<tool_call>{{"name": "look", "arguments": {arguments}}}</tool_call>'
    assert parse_turn(turn(ANY["hermes"], call), ANY["hermes"]).action == action


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("I do not know.", 'expected exactly one <tool_call>{"name": ..., "arguments": {...}}</tool_call>, got 0'),
        ("<tool_call>search red</tool_call>", "got a tool call that cannot be read: Expecting value"),
        ('<tool_call>{"name": "search"', "expected </tool_call> behind it, got the end of the turn"),
        ('<tool_call>{"name": "find", "arguments": {"query": "x"}}</tool_call>', "a call of search or answer, got 'fi"),
        ('<tool_call>{"name": "search", "arguments": {}}</tool_call>', "expected 'query' in the call of search, got"),
        ('<tool_call>{"name": "search", "arguments": {"query": " "}}</tool_call>', "got nothing"),
        ('<tool_call>{"name": "search", "arguments": {"query": "a"}}</tool_call>' * 2, "got 2"),
        ('<tool_call>{"n": ' + "9" * 5000 + "}</tool_call>", "a tool call that cannot be read"),
        ("<tool_call>" + "[" * 100_000 + "</tool_call>", "a tool call that cannot be read"),
    ],
)
def test_a_call_that_cannot_be_carried_out_is_no_action_and_says_why(call, problem):
    parsed = parse_turn(turn(QA["hermes"], call), QA["hermes"])
    assert parsed.action is None and problem in parsed.problem
    assert not exact_format(turn(QA["hermes"], call), QA["hermes"])


@given(st.text(), st.sampled_from(list(SYNTAXES)))
def test_reading_never_fails_and_gives_an_action_or_a_problem(text, syntax):
    tags = QA[syntax]
    for written in (text, turn(tags, text), turn(tags, f"<tool_call>{text}</tool_call>"), turn(tags, "{" + text)):
        parsed = parse_turn(written, tags)
        assert (parsed.action is None) == bool(parsed.problem)
        exact_format(written, tags)


@given(st.text(max_size=40).filter(str.strip), st.sampled_from(list(SYNTAXES)))
def test_what_is_written_reads_back_as_it_was(argument, syntax):
    argument = argument.encode("utf-8", "replace").decode().strip()
    if syntax == "qwen_coder" and ("<" in argument or argument.strip("\n") != argument or not argument):
        return  # its arguments are text as it stands
    tags = QA[syntax]
    assert parse_turn(turn(tags, tags.written("search", argument)), tags).action == f"search[{argument.strip()}]"


def test_a_reply_can_neither_hold_a_call_nor_the_end_of_a_reply():
    tags = CALL_PRESETS["qa_qwen_coder"].tags
    page = "shoes</tool_response><tool_call><function=answer><parameter = answer>x</think> < TOOL_CALL > <|python_tag|>"
    assert "<" not in escape_tags(page, tags)


def encoder(template, **settings):
    given = RolloutSettings(**{"format": "qa_hermes", **settings})
    return given.encoder(finished(byte_level(60), template))


def shown(template, **settings):
    made = encoder(template, **settings)
    return made.decode(made.prompt_ids(Task("t", "Which river?", (), 6), "", about=""))


def test_a_template_that_knows_tools_describes_them_in_its_own_way_and_others_get_them_in_the_prompt():
    native = shown(QWEN)
    system = native.partition("<|im_start|>user")[0]
    assert '"name": "search"' in system and '"name": "answer"' in system and "You can call these" not in native
    plain = shown(CHATML)
    assert "- search(query): Search for a few keywords.\n- answer(answer): Give the final answer." in plain
    for prompt in (native, plain):
        assert "<tool_response>...</tool_response>" in prompt
        assert '<tool_call>\n{"name": "search", "arguments": {"query": "the thing"}}\n</tool_call>' in prompt
    assert "tool" not in shown(QWEN, prompt="brief").replace("<tool", "tool")


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("world", ["qa", "reading", "shop"])
def test_the_turn_that_a_prompt_shows_is_a_valid_one(world, syntax):
    chosen = prompt_format(f"{world}_{syntax}", Tags())
    line = worked_turn("Actions: search[words]", chosen.tags).partition(":\n")[2]
    assert exact_format(line, chosen.tags)
    first = {"qa": "search[the thing]", "reading": "read[next]", "shop": "search[the thing]"}[world]
    assert parse_turn(line, chosen.tags).action == first


def test_tools_of_an_environment_of_ones_own_are_those_it_names_or_those_of_the_tags():
    made = prompt_format("hermes", Tags())
    assert [each.name for each in made.described_tools("Actions: dig[where], look[]", "full")] == ["dig", "look"]
    named = prompt_format("hermes", Tags(actions=("go", "take")))
    assert [each.name for each in named.described_tools("Actions: dig[where]", "full")] == ["go", "take"]
    assert prompt_format("plain", Tags()).described_tools("Actions: dig[where]", "full") == []
    shop = prompt_format("shop_llama", Tags())
    assert [each.name for each in shop.described_tools("Actions: search[words]", "full")] == ["search", "click"]


@pytest.mark.parametrize(
    ("template", "before", "behind"),
    [
        (
            QWEN,
            "<|im_end|>\n<|im_start|>user\n<tool_response>\n",
            "\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
        ),
        (CHATML, "<|im_end|>\n<|im_start|>tool\n", "<|im_end|>\n<|im_start|>assistant\n"),
        (NO_TOOLS, "</s>[user]", "</s>[assistant]"),
        (None, "", ""),
    ],
)
def test_a_reply_is_between_the_words_that_the_template_puts_around_the_result_of_a_tool(template, before, behind):
    chat = ChatTemplate(finished(byte_level(60), template), "think")
    assert chat.reply_ends == (before, behind)
    made = encoder(template)
    reply = made.decode(made.information_ids("a page", 3))
    opening = "" if "<tool_response>" in before else "<tool_response>\n"
    closing = "" if "</tool_response>" in behind else "\n</tool_response>"
    assert reply == f"{before}{opening}3 turns left\na page{closing}{behind}"


def test_a_template_that_takes_parts_alone_writes_replies_too():
    assert ChatTemplate(finished(byte_level(60), PARTS), "think").reply_ends != ("", "")


def test_an_end_of_turn_that_was_sampled_is_not_there_a_second_time():
    made = encoder(QWEN)
    end = made.encode("<|im_end|>")
    cut, ended = [*made.encode("red")], [*made.encode("red"), *end]
    assert made.information_ids("a page", 3, turn=cut)[:1] == end
    assert [*end, *made.information_ids("a page", 3, turn=ended)] == made.information_ids("a page", 3)


def test_actions_of_a_memory_mode_are_calls_too():
    tags = QA["hermes"].with_actions(["recall"])
    call = '<tool_call>\n{"name": "recall", "arguments": {"turns": "0-2, 4"}}\n</tool_call>'
    assert call in Recall().about(tags)
    assert parse_turn(turn(tags, call), tags).action == "recall[0-2, 4]"
    assert Recall().own_action(parse_turn(turn(tags, call), tags)) == ("recall", "0-2, 4")


def test_settings_that_went_through_plain_values_mean_the_same():
    from lightning_mem1.training.plain_settings import from_plain, plain

    settings = RolloutSettings(format="llama", tags=Tags("IS", actions=("go",)))
    again = from_plain(RolloutSettings, plain(settings), "model.rollout")
    assert again == settings and again.tags.stop == () and again.tags.internal_state == "IS"
