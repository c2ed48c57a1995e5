"""MLflow's store before its first call: complete, free, reachable; or why it cannot be used now.

MLflow makes a sqlite store in place, over many seconds: two first runs at once, or one that is killed meanwhile, would
leave something that no later run can open. Here it is made in a temporary place, under a lock, and moved there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning_mem1.io.atomic_files import beside_of
from lightning_mem1.io.file_lock import waiting_for
from lightning_mem1.io.http_client import TROUBLES, StatusError, fetch, one_line
from lightning_mem1.io.redaction import redacted

DEFAULT = "sqlite:///mlflow.db"
VARIABLE = "MLFLOW_TRACKING_URI"
WAIT_S = 60.0  # for a store that is locked, or that another program makes
LOOK_S, SHORT_LOOK_S = 10.0, 2.0  # for a server's first answer, and for its later ones
PAUSE_S = 0.2
# MLflow would try a server that is gone for four minutes, in silence
SERVER_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
QUIET = ("mlflow.store", "alembic", "sqlalchemy", "urllib3.connectionpool")  # they log what they raise as well

Report = Callable[[str], None]


class StoreUnavailable(RuntimeError):
    """The store cannot be used now; it may be later."""


def tracking_uri(given: str | None) -> str:
    """The store that is meant: the one given, else that of ``MLFLOW_TRACKING_URI``, else a file in this folder."""
    return given or os.environ.get(VARIABLE) or DEFAULT


def use(uri: str) -> None:
    """Let MLflow's own functions use a store; the environment stays as it is: it says what a later run is to use."""
    import mlflow

    before = os.environ.get(VARIABLE)
    mlflow.set_tracking_uri(uri)
    if before is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = before


def prepare(uri: str, report: Report, patient: bool = True) -> None:
    """See that a store can be used; makes a sqlite store that is not there.

    Args:
        uri: MLflow's name of it.
        report: Called with a line when it takes longer.
        patient: Whether to wait for a store that is locked, and for a server's answer, for long.

    Raises:
        StoreUnavailable: it is locked or unreachable.
        OSError, Exception: it cannot be made; each library raises its own kinds.
    """
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if (path := sqlite_path(uri)) is not None:
        if not _is_made(path):
            _make(path, report)
        _wait_until_free(path, report if patient else lambda line: None, WAIT_S if patient else 0)
    elif uri.startswith(("http://", "https://")):
        for name, value in SERVER_LIMITS.items():
            os.environ.setdefault(name, value)
        _look_at(uri, LOOK_S if patient else SHORT_LOOK_S)
    elif (address := urlsplit(uri)).hostname and "sql" in address.scheme:
        _connect(address.hostname, address.port)


def make_beside(uri: str) -> threading.Thread | None:
    """Begin to make a sqlite store in a thread, where there is none yet; `prepare` finds it made, or makes it.

    Returns:
        The thread, to be waited for before the store is used; None where nothing is to be made.
    """
    path = sqlite_path(uri)
    if path is None or (path.is_file() and path.stat().st_size):
        return None

    def make() -> None:
        with contextlib.suppress(Exception):  # `prepare` meets it again, and says it
            _make(path, lambda line: None)

    thread = threading.Thread(target=make, name="MLflow's store", daemon=True)  # one that is killed leaves no store
    thread.start()
    return thread


def sqlite_path(uri: str) -> Path | None:
    """The file of a sqlite store; None for any other store, and for one in memory."""
    if not uri.startswith("sqlite:"):
        return None
    from sqlalchemy import make_url

    name = make_url(uri).database
    return Path(name) if name and name != ":memory:" and not name.startswith("file:") else None


def _is_made(path: Path) -> bool:
    """Whether a store is complete; one that holds runs is, whichever version made it."""
    if not path.is_file() or not path.stat().st_size:
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1)) as store:
            (version,) = store.execute("SELECT version_num FROM alembic_version").fetchone() or (None,)
            return bool(store.execute("SELECT 1 FROM runs LIMIT 1").fetchone()) or version == _newest_version(version)
    except sqlite3.OperationalError as error:
        return "locked" in str(error)  # somebody uses it
    except sqlite3.DatabaseError:
        return True  # no store at all: MLflow says so


def _newest_version(known: str | None) -> str | None:
    """The version of a store that is finished; the one known where MLflow does not say."""
    from mlflow.store.db import utils

    newest = getattr(utils, "_get_latest_schema_revision", None)
    return known if newest is None else str(newest())


def _make(path: Path, report: Report) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with waiting_for(lock, lambda who: report(f"MLflow's store '{path}' is being made by {who}: waiting for it")):
        if path.is_file() and path.stat().st_size:
            _wait_for_other_program(path, report)
        if _is_made(path):
            return
        _tidy(path)
        beside = beside_of(path)
        try:
            _fill(beside)
            if path.is_file() and path.stat().st_size:
                left = path.with_name(f"{path.name}.incomplete")
                os.replace(path, left)
                report(f"MLflow's store '{path}' was never finished and holds no run: it is made again, see '{left}'")
            os.replace(beside, path)
        finally:
            _tidy(path)


def _tidy(path: Path) -> None:
    """Delete temporary files next to the store, of this process and of killed ones; to be called under the lock."""
    for each in path.parent.glob(f"{path.name}.*.tmp*"):
        each.unlink(missing_ok=True)


def _wait_for_other_program(path: Path, report: Report) -> None:
    """A program that knows no lock (``mlflow ui``) may be making the store: as long as it changes, it is."""
    until, changed = time.monotonic() + WAIT_S, -1.0
    while not _is_made(path) and time.monotonic() < until and path.stat().st_mtime != changed:
        if changed < 0:
            report(f"MLflow's store '{path}' is incomplete: waiting for who makes it")
        changed = path.stat().st_mtime
        time.sleep(max(PAUSE_S, WAIT_S / 20))


def _fill(path: Path) -> None:
    """Make a store with all its tables and its default experiment; it is on the disk when this returns."""
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # alembic configures loggers of its own, and logs each table
    store: Any = None
    event.listen(Engine, "connect", _without_waiting)
    try:
        store = SqlAlchemyStore(f"sqlite:///{path}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
    finally:
        event.remove(Engine, "connect", _without_waiting)
        logging.disable(disabled)
        if store is not None:
            store.engine.dispose()
    with path.open("rb") as made:
        os.fsync(made.fileno())


def _without_waiting(connection: Any, record: Any) -> None:
    """Write a store that is not in its place yet without waiting for the disk at each of its hundreds of changes."""
    connection.execute("PRAGMA synchronous=OFF")


def _wait_until_free(path: Path, report: Report, wait_s: float) -> None:
    """Until a write could begin.

    Raises:
        StoreUnavailable: it is locked for too long.
    """
    until, reported = time.monotonic() + wait_s, False
    while problem := _lock_on(path):
        if time.monotonic() > until:
            raise StoreUnavailable(problem)
        if not reported:
            report(f"MLflow's store '{path}' is locked by another process: waiting up to {wait_s:.0f} s")
        reported = True
        time.sleep(PAUSE_S)


def _lock_on(path: Path) -> str:
    """What keeps a write from beginning; empty when nothing does, or when it is no lock."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as store:
            store.execute("BEGIN IMMEDIATE")
            store.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        return str(error) if "locked" in str(error) else ""
    except sqlite3.DatabaseError:
        return ""
    return ""


def _look_at(uri: str, look_s: float) -> None:
    """Whether a server answers at all.

    Raises:
        StoreUnavailable: it does not.
    """
    address = urlsplit(uri)
    place = f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path.rstrip('/')}"
    try:
        fetch(f"{place}/health", timeout_s=look_s, max_bytes=1 << 20)
    except StatusError:
        return
    except TROUBLES as error:
        raise StoreUnavailable(f"no answer from {redacted(place)} within {look_s:.0f} s: {one_line(error)}") from None


def _connect(host: str, port: int | None) -> None:
    """Whether a database's server takes connections; the port is known or not looked at."""
    if port is None:
        return
    try:
        socket.create_connection((host, port), LOOK_S).close()
    except OSError as error:
        raise StoreUnavailable(f"no connection to {host}:{port}: {one_line(error)}") from None
