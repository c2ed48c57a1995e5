"""A lock between processes: one holds it, it ends with its holder, and a holder elsewhere is believed for a while."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lightning_mem1.io import file_lock
from lightning_mem1.io.file_lock import FileLock, Locked, waiting_for

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from lightning_mem1.io.file_lock import FileLock
lock = FileLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.readline()
lock.release()
"""


@pytest.fixture
def holder(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run.lock")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_one_process_holds_it_and_the_other_is_told_who(tmp_path, holder):
    with pytest.raises(Locked, match=f"process {holder.pid} of this machine"):
        FileLock(tmp_path / "run.lock").acquire()
    holder.communicate("\n")
    assert list(tmp_path.iterdir()) == []
    lock = FileLock(tmp_path / "run.lock")
    lock.acquire()
    with pytest.raises(Locked, match=f"process {os.getpid()} of this machine"):
        FileLock(tmp_path / "run.lock").acquire()
    lock.release()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_was_killed_holds_nothing_any_more(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert json.loads((tmp_path / "run.lock").read_text())["pid"] == holder.pid
    lock = FileLock(tmp_path / "run.lock")
    lock.acquire()
    assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()
    lock.release()


def test_a_holder_on_another_machine_is_there_as_long_as_it_touches_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(file_lock, "WATCH_S", 1.0)
    path, told = tmp_path / "run.lock", []
    path.write_text('{"pid": 7, "host": "elsewhere"}')

    def touch(who):
        told.append(who)
        os.utime(path, (1e9 + len(told), time.time() - len(told)))

    with pytest.raises(Locked, match="process 7 of elsewhere"):
        FileLock(path).acquire(touch)
    assert told == ["process 7 of elsewhere"]
    lock = FileLock(path)
    lock.acquire(told.append)  # nobody touches it any more
    lock.release()
    assert len(told) == 2


def test_an_old_file_of_another_machine_is_nobodys(tmp_path):
    (tmp_path / "run.lock").write_text('{"pid": 7, "host": "elsewhere"}')
    os.utime(tmp_path / "run.lock", (time.time() - 7200, time.time() - 7200))
    lock = FileLock(tmp_path / "run.lock")
    lock.acquire(pytest.fail)
    lock.release()


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"pid": "x"}', "\x00"])
def test_a_file_that_says_nothing_is_nobodys(tmp_path, content):
    (tmp_path / "run.lock").write_text(content)
    lock = FileLock(tmp_path / "run.lock")
    lock.acquire()
    lock.release()


def test_who_waits_gets_it_and_says_once_for_whom_it_waits(tmp_path, holder):
    told = []

    def tell(who):
        told.append(who)
        threading.Timer(0.3, holder.stdin.close).start()

    with waiting_for(tmp_path / "run.lock", tell):
        assert (tmp_path / "run.lock").exists()
    assert told == [f"process {holder.pid} of this machine"]
