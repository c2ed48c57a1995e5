"""The kinds of a context's tokens, whatever its parts name besides."""

from lightning_mem1.evaluation.report.layout_plot import COPY, INFORMATION, PROMPT, _kinds


def test_a_part_may_name_where_in_its_turn_it_begins():
    context = [["prompt", None, 2], ["turn", 0, 1, 5], ["information", 0, 1], ["other", None, 1]]
    assert _kinds(context) == [PROMPT, PROMPT, COPY, INFORMATION, COPY]
