"""A lock between processes, by a file: it ends with the process that holds it, however that ends.

The file says who holds the lock, and is removed when it is given up. On this machine the operating system knows whether
a holder is alive. A holder on another machine that shares the file system touches the file now and then.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TOUCH_S = 15.0
WATCH_S = 120.0  # a holder on another machine that does not touch the file for so long is gone; caches are slower
OLD_S = 3600.0  # nor is anybody there whose file is older, however the clocks of two machines differ
LOOK_S = 0.1

_held: set[str] = set()  # of this process: the system's own locks do not keep two threads apart
_guard = threading.Lock()


class Locked(OSError):
    """Somebody else holds the lock; the message says who."""


class FileLock:
    """A lock that one process at a time holds.

    Args:
        path: The lock's file; its folder has to be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None
        self._ended = threading.Event()

    def acquire(self, report: Callable[[str], None] = lambda who: None) -> None:
        """Take the lock; waits only to see whether a holder on another machine is still there.

        Args:
            report: Called with who that is.

        Raises:
            Locked: another one holds it.
        """
        key = os.path.realpath(self.path)
        with _guard:
            if key in _held:
                raise Locked(f"process {os.getpid()} of this machine")
            _held.add(key)
        try:
            handle = self._opened(report)
        except BaseException:
            with _guard:
                _held.discard(key)
            raise
        os.lseek(handle, 0, os.SEEK_SET)
        os.ftruncate(handle, 0)
        with contextlib.suppress(OSError):  # a full disk: it is held all the same, nobody can read by whom
            os.write(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        self._handle, self._key = handle, key
        self._ended.clear()
        threading.Thread(target=self._touch, daemon=True, name="lock").start()

    def release(self) -> None:
        """Give the lock up; nothing if it is not held."""
        if self._handle is None:
            return
        self._ended.set()
        with contextlib.suppress(OSError):
            if self._is_ours(self._handle):
                self.path.unlink()
        with contextlib.suppress(OSError):
            os.close(self._handle)
        with _guard:
            _held.discard(self._key)
        self._handle = None

    def _opened(self, report: Callable[[str], None]) -> int:
        """The locked file."""
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _lock(handle)
                if not self._is_ours(handle):  # its holder removed it in between
                    os.close(handle)
                    continue
                _check_other_machine(handle, report)
                return handle
            except BlockingIOError:
                who = _holder(handle)
                os.close(handle)
                raise Locked(who) from None
            except Locked:
                os.close(handle)
                raise

    def _is_ours(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _touch(self) -> None:
        while not self._ended.wait(TOUCH_S):
            with contextlib.suppress(OSError):
                os.utime(self.path)


def _check_other_machine(handle: int, report: Callable[[str], None]) -> None:
    """Some shared file systems lock for one machine alone: there the file itself has to say who is alive.

    Raises:
        Locked: its holder touches it.
    """
    since = os.fstat(handle).st_mtime
    if _content(handle).get("host") in (None, socket.gethostname()) or time.time() - since > OLD_S:
        return
    report(_holder(handle))
    until = time.monotonic() + WATCH_S
    while time.monotonic() < until:
        if os.fstat(handle).st_mtime != since:
            raise Locked(_holder(handle))
        time.sleep(LOOK_S)


@contextlib.contextmanager
def waiting_for(path: Path, report: Callable[[str], None] = lambda who: None) -> Iterator[None]:
    """Hold a lock as soon as nobody else does.

    Args:
        path: The lock's file.
        report: Called once with who holds it, when it has to be waited for.
    """
    lock, reported = FileLock(path), False
    while True:
        try:
            lock.acquire()
            break
        except Locked as error:
            if not reported:
                report(str(error))
            reported = True
            time.sleep(LOOK_S)
    try:
        yield
    finally:
        lock.release()


def _lock(handle: int) -> None:
    """Take the system's lock on a file; without one where the file system has none.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        if fcntl is not None:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            raise BlockingIOError(error.errno, "held by another process") from None


def _content(handle: int) -> dict[str, object]:
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        found = json.loads(os.read(handle, 1000))
    except (ValueError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def _holder(handle: int) -> str:
    found = _content(handle)
    here = found.get("host") == socket.gethostname()
    return f"process {found.get('pid', '?')} of {'this machine' if here else found.get('host', 'another machine')}"
