"""What an environment may do to a rollout: calls that never return, answers that are none."""

import threading
from fractions import Fraction

import pytest

from lightning_mem1.rollout.env_guard import EnvGuard, checked
from lightning_mem1.types import StepResult


class Slow:
    """Replies with the thread that it was called in; the action `hang` does not return before it is told to."""

    def __init__(self):
        self.released, self.left = threading.Event(), threading.Event()

    def observe(self):
        return threading.current_thread().name

    def step(self, action):
        if action == "hang":
            self.released.wait()
            self.left.set()
        elif action == "raise":
            raise KeyError("no such page")
        return StepResult(threading.current_thread().name)


@pytest.fixture
def env():
    env = Slow()
    yield env
    env.released.set()


def others():
    return [thread for thread in threading.enumerate() if thread.name == "environments"]


def test_without_a_limit_an_environment_is_called_where_it_was_made(env):
    here = threading.current_thread().name
    guard = EnvGuard(None)
    assert (guard.observe(env), guard.step(env, "look").information) == (here, here)
    assert others() == []


def test_with_a_limit_all_calls_happen_in_one_thread_that_ends_with_the_guard(env):
    guard = EnvGuard(60.0)
    assert (guard.observe(env), guard.step(env, "look").information) == ("environments", "environments")
    (thread,) = others()
    with pytest.raises(KeyError, match="no such page"):
        guard.step(env, "raise")
    assert others() == [thread]
    guard.close()
    thread.join(60)
    assert others() == []


def test_a_call_that_does_not_return_is_given_up_and_its_late_answer_is_nobodys(env):
    guard = EnvGuard(0.05)
    line = r"expected step\(\) to return within 0\.05 s, got nothing; fix the environment or raise model\.rollout\.env"
    with pytest.raises(TimeoutError, match=line):
        guard.step(env, "hang")
    assert guard.step(Slow(), "look").information == "environments"  # by a fresh thread
    stuck, fresh = others()
    guard.close()
    fresh.join(60)
    assert others() == [stuck]
    env.released.set()
    stuck.join(60)
    assert env.left.is_set() and others() == []


@pytest.mark.parametrize(
    ("answer", "error", "line"),
    [
        (None, TypeError, r"expected step\(\) to return a StepResult, got NoneType"),
        (("page", 1.0, True), TypeError, "expected step.* got tuple"),
        (StepResult(b"page"), TypeError, "expected information to be text, got bytes"),
        (StepResult(None), TypeError, "expected information to be text, got NoneType"),
        (StepResult("", reward="high"), ValueError, "reward must be a finite number, got high"),
        (StepResult("", reward=None), ValueError, "reward must be a finite number, got None"),
        (StepResult("", reward=float("-inf")), ValueError, "reward must be a finite number, got -inf"),
        (StepResult("", reward=1j), ValueError, "reward must be a finite number, got 1j"),
        (StepResult("", reward=10**400), OverflowError, "too large"),
        (StepResult("", done="no"), TypeError, "expected done to be True or False, got no"),
        (StepResult("", valid=None), TypeError, "expected valid to be True or False, got None"),
        (StepResult("", info=None), TypeError, "expected info to be a dict, got NoneType"),
        (StepResult("", info=[1]), TypeError, "expected info to be a dict, got list"),
        (
            StepResult("", info={"success": "yes"}),
            ValueError,
            r"expected info\['success'\] to be a finite number, got y",
        ),
        (
            StepResult("", info={"em": float("nan")}),
            ValueError,
            r"expected info\['em'\] to be a finite number, got nan",
        ),
        (StepResult("", info={"search": None}), ValueError, r"expected info\['search'\] to be a finite number, got N"),
    ],
)
def test_an_answer_that_is_none_is_told(answer, error, line):
    with pytest.raises(error, match=line):
        checked(answer, 100)


def test_an_answer_is_kept_as_plain_values_that_can_be_written():
    found = checked(StepResult("a\ud800b", Fraction(1, 2), 1, 0, {1: "x" * 9, "success": True}), 4)
    assert found == StepResult("a?b", 0.5, True, False, {"1": "xxxx", "success": True})
    assert (type(found.reward), type(found.done), type(found.valid)) == (float, bool, bool)
    assert checked(StepResult("0123456789"), 4).information == "0189"
