"""Several writers of one file: whoever reads it sees what one of them wrote, and nothing is left beside it."""

import errno
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError

from lightning_mem1.io.atomic_files import keep, write_atomic
from lightning_mem1.io.disk_room import room_for

ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from pathlib import Path
from lightning_mem1.io.atomic_files import keep, write_atomic
folder, letter = Path(sys.argv[1]), sys.argv[2].encode()
for number in range(40):
    write_atomic(folder / "last.ckpt", letter * 1_000_000)
    keep(folder / "last.ckpt", folder / f"rl_step_{number:06d}.ckpt", "rl_step_*.ckpt", 2)
"""


def test_two_processes_that_write_one_checkpoint_never_tear_it(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, letter], env=env) for letter in ("a", "b")]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        for path in [tmp_path / "last.ckpt"]:
            if path.exists():
                content = path.read_bytes()
                seen.add((len(content), bytes(set(content))))
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen <= {(1_000_000, b"a"), (1_000_000, b"b")} and seen
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"last.ckpt", "rl_step_000038.ckpt", "rl_step_000039.ckpt"}


def test_what_a_killed_writer_left_is_deleted_by_the_next_one_and_what_a_living_one_writes_is_not(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    host = "".join(each if each.isalnum() or each in "_." else "_" for each in socket.gethostname())[:64]
    left = tmp_path / f"last.ckpt.{host}-{ended.pid}-0.tmp"
    living = tmp_path / f"last.ckpt.{host}-{os.getppid()}-0.tmp"
    fresh, old = (tmp_path / f"last.ckpt.elsewhere-7-{number}.tmp" for number in (0, 1))
    other = tmp_path / f"best.ckpt.{host}-{ended.pid}-0.tmp"
    for path in (left, living, fresh, old, other):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    write_atomic(tmp_path / "last.ckpt", b"new")
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", living.name, fresh.name, other.name}


def test_a_full_disk_is_named_with_the_path_whoever_writes(tmp_path):
    for error in (OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Disk quota exceeded")):
        with (
            pytest.raises(OSError, match="^cannot write 'x': expected room on the disk, got '.*'; make"),
            room_for("x"),
        ):
            raise error
    full = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(OSError, match="^cannot write 'x': .*, got 'No space left on device'; make room"), room_for("x"):
        raise SafetensorError(full)
    with pytest.raises(PermissionError), room_for("x"):
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(KeyError), room_for("x"):
        raise KeyError("x")


def test_a_name_with_signs_of_patterns_means_itself(tmp_path):
    write_atomic(tmp_path / "a[1]*.ckpt", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["a[1]*.ckpt"]


def test_a_content_that_is_kept_twice_under_one_name_leaves_nothing_beside_it(tmp_path):
    write_atomic(tmp_path / "last.ckpt", b"x")
    for _ in range(2):
        keep(tmp_path / "last.ckpt", tmp_path / "rl_step_1.ckpt", "rl_step_*.ckpt", 2)
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "rl_step_1.ckpt"}
