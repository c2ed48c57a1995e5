"""What an environment may do to a rollout: calls that never return, answers that are none."""

import sys
import threading
from asyncio import CancelledError
from fractions import Fraction

import numpy as np
import pytest

from lightning_mem1.rollout.env_guard import EnvError, EnvGuard, checked, checked_task
from lightning_mem1.rollout.episodes import make_env
from lightning_mem1.rollout.plain_values import plain
from lightning_mem1.types import Objective, StepResult, Task


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
    with pytest.raises(EnvError, match="KeyError: 'no such page'"):
        guard.step(env, "raise")
    assert others() == [thread]
    guard.close()
    thread.join(60)
    assert others() == []


def test_a_call_that_does_not_return_is_given_up_and_its_late_answer_is_nobodys(env):
    guard = EnvGuard(0.05)
    line = r"expected step\(\) to return within 0\.05 s, got nothing; fix the environment or raise model\.rollout\.env"
    with pytest.raises(EnvError, match=f"TimeoutError: {line}"):
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
        (
            StepResult("", reward="high"),
            ValueError,
            "reward to be a finite number of at most 1e\\+09, got 'high' \\(str\\)",
        ),
        (StepResult("", reward=None), ValueError, "reward to be a finite number of at most .*, got None"),
        (StepResult("", reward=float("-inf")), ValueError, "reward to be a finite number of at most .*, got -inf"),
        (StepResult("", reward=1j), ValueError, "reward to be a finite number of at most .*, got 1j"),
        (StepResult("", reward=10**400), ValueError, "reward to be .*, got an integer of about 401 digits"),
        (StepResult("", done="no"), TypeError, "expected done to be True or False, got 'no'"),
        (StepResult("", valid=None), TypeError, "expected valid to be True or False, got None"),
        (StepResult("", info=None), TypeError, "expected info to be a dict, got NoneType"),
        (StepResult("", info=[1]), TypeError, "expected info to be a dict, got list"),
        (
            StepResult("", info={"success": "yes"}),
            ValueError,
            r"expected info\['success'\] to be a finite number of at most 1e\+09, got 'yes' \(str\)",
        ),
        (
            StepResult("", info={"em": float("nan")}),
            ValueError,
            r"expected info\['em'\] to be a finite number of at most 1e\+09, got nan \(float\)",
        ),
        (
            StepResult("", info={"search": None}),
            ValueError,
            r"expected info\['search'\] to be a finite number .* got None",
        ),
    ],
)
def test_an_answer_that_is_none_is_told(answer, error, line):
    with pytest.raises(error, match=line):
        checked(answer, 100)


def test_an_answer_is_kept_as_plain_values_that_can_be_written():
    found = checked(StepResult("a\ud800b", Fraction(1, 2), 1, 0, {1: "x" * 9, "success": True}), 4)
    assert found == StepResult("a?b", 0.5, True, False, {"1": "xxxx", "success": 1.0})
    assert (type(found.reward), type(found.done), type(found.valid)) == (float, bool, bool)
    assert checked(StepResult("0123456789"), 4).information == "0189"


class Mute(Exception):
    """An error that cannot even be printed."""

    def __str__(self):
        raise RuntimeError("no words")


def leave():
    sys.exit("enough")


RAISED = {
    "SystemExit: enough": leave,
    "CancelledError:": lambda: (_ for _ in ()).throw(CancelledError()),
    "GeneratorExit:": lambda: (_ for _ in ()).throw(GeneratorExit()),
    "Mute: (cannot be printed)": lambda: (_ for _ in ()).throw(Mute()),
    "RuntimeError: ? boom": lambda: (_ for _ in ()).throw(RuntimeError("\ud800 boom")),
}


class Raising:
    def __init__(self, call):
        self.call = call

    def observe(self):
        return self.call()

    def step(self, action):
        return self.call()


@pytest.mark.parametrize("timeout_s", [None, 60.0])
@pytest.mark.parametrize("line", RAISED)
def test_whatever_an_environment_raises_is_the_error_of_its_episode_with_file_and_line(line, timeout_s):
    guard = EnvGuard(timeout_s)
    for call in (lambda: guard.observe(Raising(RAISED[line])), lambda: guard.step(Raising(RAISED[line]), "look")):
        with pytest.raises(EnvError) as raised:
            call()
        assert (str(raised.value), raised.value.at.rpartition(":")[0]) == (line, __file__)
    guard.close()


def test_ctrl_c_is_nobodys_environment():
    with pytest.raises(KeyboardInterrupt):
        EnvGuard(None).step(Raising(lambda: (_ for _ in ()).throw(KeyboardInterrupt())), "look")


def test_an_environment_that_leaves_while_it_is_made_ends_its_own_episode():
    class Source:
        def env(self, task):
            sys.exit(3)

    env = make_env(Source(), Task("t", "", (), 1))
    with pytest.raises(EnvError, match="^SystemExit: 3$"):
        EnvGuard(None).observe(env)


@pytest.mark.parametrize(
    ("reward", "kept"), [(np.float32(0.5), 0.5), (np.bool_(True), 1.0), (True, 1.0), (10**9, 1e9), (-3, -3.0)]
)
def test_rewards_of_numpy_and_whole_numbers_are_numbers(reward, kept):
    assert checked(StepResult("", reward=reward, done=np.bool_(False)), 9).reward == kept


@pytest.mark.parametrize("reward", [1e200, 1e308, 10**5000, Fraction(10**400), -2e9], ids=list("abcde"))
def test_a_reward_that_float32_cannot_square_is_an_error(reward):
    with pytest.raises(ValueError, match="reward to be a finite number of at most"):
        checked(StepResult("", reward=reward), 9)


def test_info_holds_plain_values_of_bounded_size_whatever_was_put_in():
    class Unprintable:
        def __str__(self):
            raise RuntimeError("no words")

    deep = {}
    deep["again"] = deep
    found = plain(
        {
            "n": 10**5000,
            "object": Unprintable(),
            "list": list(range(1000)),
            "text": "x" * 10**7,
            "texts": ["y" * 10**7] * 3,
            "\ud800": "\udfff",
            "numpy": np.float32(0.25),
            "array": np.arange(3),
        },
        max_chars=800,
    )
    assert found["n"] == "an integer of about 5,001 digits" and found["object"] == "(cannot be printed)"
    assert found["list"][:3] == [0, 1, 2] and len(found["list"]) == 201 and found["list"][-1] == "800 left out"
    assert len(found["text"]) == 800 and [len(text) for text in found["texts"]] == [266, 266, 266]
    assert found["?"] == "?" and found["numpy"] == 0.25 and found["array"] == [0, 1, 2]
    assert plain(deep, 100)["again"]["again"]["again"]["again"]["again"] == {"again": "(dict in 6 others)"}


def test_a_task_is_copied_before_its_environment_can_change_it_and_its_words_are_valid_text():
    task = Task("t\ud800", "count \ud800 to", (Objective("?"),), 3)
    kept = checked_task(task)
    object.__setattr__(task, "max_turns", "x")
    assert (kept.id, kept.prompt, kept.max_turns) == ("t?", "count ? to", 3)
    with pytest.raises(EnvError, match=r"expected a task's max_turns to be int, got 'x' \(str\)"):
        checked_task(task)
