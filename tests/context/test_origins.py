from lightning_mem1.context.origins import single_copy, token_origins, traced
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task

P = [1, 2]
TURNS = [Turn([10, 11], [0.0] * 2, [20]), Turn([12], [0.0], [21, 22])]


def test_every_token_of_a_context_knows_its_place_whatever_the_mode_looks_at():
    trajectory = Trajectory(task(), P, [*TURNS, Turn([13], [0.0])], StopReason.DONE)
    assert token_origins(trajectory, "mem1") == [[0, 1], [0, 1, 2, 3, 4], [0, 1, 5, 6, 7]]
    assert token_origins(trajectory, "none") == [[0, 1], [0, 1, 4], [0, 1, 6, 7]]
    turns = [Turn([ids], [0.0], [9]) for ids in (5, 6, 5, 5)]
    found = token_origins(Trajectory(task(), P, turns, StopReason.DONE), {"mode": "amem", "window": 1})
    assert found[3] == [0, 1, 2, 3, 6, 7]  # the first turn's words are the last one's; places alone would be all unlike


def recap(turns):
    return [[99, *turns[-1].action_ids[:1]]] if turns else []


def test_a_token_that_a_mode_made_itself_has_no_place():
    assert token_origins(Trajectory(task(), P, TURNS, StopReason.DONE), recap) == [[0, 1], [0, 1, None, 2]]


def test_a_memory_written_apart_stands_with_its_opening_behind_the_reply_it_is_made_of():
    memory = Turn([31], [0.0], kind="memory", opening_ids=[30])
    trajectory = Trajectory(task(), P, [TURNS[0], memory, TURNS[1]], StopReason.DONE)
    assert single_copy(trajectory) == [1, 2, 10, 11, 20, 30, 31, 12, 21, 22]
    assert token_origins(trajectory, "summary") == [[0, 1], [0, 1, 2, 3, 4, 5], [0, 1, 5, 6, 4]]


def test_an_id_that_knows_its_place_is_the_id():
    known = traced(Trajectory(task(), P, TURNS, StopReason.DONE))
    assert known.prompt_ids == P and known.turns == TURNS
    assert {known.turns[0].action_ids[1]: "found"}[11] == "found"
    assert [each.place for each in known.turns[1].information_ids] == [6, 7]
