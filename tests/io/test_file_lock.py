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

from lightning_mem1.io.file_lock import DEAD_S, FileLock, Locked, waiting_for

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


def test_a_holder_on_another_machine_is_believed_as_long_as_it_touches_the_file(tmp_path):
    path = tmp_path / "run.lock"
    path.write_text('{"pid": 7, "host": "elsewhere"}')
    with pytest.raises(Locked, match="process 7 of elsewhere; if it has ended, wait 120 s"):
        FileLock(path).acquire()
    os.utime(path, (time.time() - DEAD_S - 1, time.time() - DEAD_S - 1))
    lock = FileLock(path)
    lock.acquire()
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
