"""When the engine waits for agents, and when it stops doing so."""

from lightning_mem1.rollout.gateway.pacing import LEAST_S, MOST_S, SELDOM, Pacing


def test_it_waits_for_agents_that_were_just_answered_about_as_long_as_a_step_takes():
    pacing = Pacing()
    assert pacing.wait_s() == 0.0  # nobody is expected
    pacing.stepped(0.02, num_answered=2)
    assert pacing.wait_s() == 0.02
    pacing.came()
    assert pacing.wait_s() == 0.02
    pacing.came()
    assert pacing.wait_s() == 0.0
    for seconds, wait_s in ((0.0001, LEAST_S), (9.0, MOST_S)):
        pacing.stepped(seconds, num_answered=1)
        assert pacing.wait_s() == wait_s


def test_whoever_does_not_come_is_waited_for_once():
    pacing = Pacing()
    pacing.stepped(0.02, num_answered=3)
    pacing.missed()
    assert pacing.wait_s() == 0.0


def test_where_agents_are_at_work_elsewhere_waiting_is_tried_only_now_and_then():
    pacing, waits = Pacing(), []
    for _ in range(60):
        pacing.stepped(0.02, num_answered=5)
        waits.append(pacing.wait_s() > 0)
        if waits[-1]:
            pacing.missed()
    assert waits[0] and sum(waits[10:]) == len(waits[10:]) // (SELDOM + 1) + 1
    for _ in range(40):  # they come again
        pacing.came()
    pacing.stepped(0.02, num_answered=1)
    assert pacing.wait_s() == 0.02
