"""A catalogue's saved form: made once from the official files, then mapped into memory and shared by processes.

It lies in ``.lightning_mem1`` next to the data, or, where that folder may not be written, in the user's cache. Its
folder is named for the format and the content of the data, so a saved form of other data or of another version is
never opened: it is made again and the old one is removed. The files hold numbers and JSON, nothing executable.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mem1.environments.webshop.catalogue.catalogue import Findings, ProductReader
from lightning_mem1.environments.webshop.catalogue.files import OfficialFiles
from lightning_mem1.environments.webshop.catalogue.ids import Ids
from lightning_mem1.environments.webshop.catalogue.keyed_file import KeyedFile
from lightning_mem1.environments.webshop.catalogue.records import RecordedProducts, RecordWriter
from lightning_mem1.environments.webshop.catalogue.stock import Columns, Stock, StockBuilder
from lightning_mem1.environments.webshop.goals.goals import Draws
from lightning_mem1.environments.webshop.goals.requests import Requests
from lightning_mem1.environments.webshop.search.postings import Postings, PostingsBuilder
from lightning_mem1.io.disk_room import room_for

FORMAT = 1  # raise it with every change of what is saved or of how a text becomes terms
PROBE = (  # words of every kind, and more of them than are counted exactly
    "Women's running shoes, size 7.5 (pack of 2) $49.99 - B07U1FOZ2D",
    "the and of running runs cities' naïve café straße 東京 i.e. u.s. x2 e-mail under_score",
    " ".join(f"word{number % 50}" for number in range(120)),
)
TRUST_STAT_FROM = 64 << 20  # bytes; larger files are read again only when their dates or sizes changed

_HEADER, _RECORDS = "header.json", "products.bin"
_PARTS: Mapping[str, type] = {
    "ids": Ids, "columns": Columns, "synthetic": Requests, "human": Requests, "postings": Postings
}  # fmt: skip
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedStock(Stock):
    """A catalogue in a folder.

    Attributes:
        folder: Where it is saved.
        ends: Where each product's record begins.
        findings: What was left out of the official files.
    """

    folder: Path
    ends: np.ndarray
    findings: Findings

    def products(self, prices: np.ndarray) -> RecordedProducts:
        """Return the products at drawn prices."""
        return RecordedProducts(self.folder / _RECORDS, self.ends, prices)

    def draws(self, human: bool, seed: int) -> Draws:
        """Return prices and price bounds of a seed; they are drawn once and kept next to the rest."""
        names = [f"draws.{'human' if human else 'synthetic'}.{seed}.{each}.npy" for each in ("prices", "bounds")]
        try:
            return Draws(*(_load(self.folder / name) for name in names))
        except (OSError, ValueError):
            drawn = super().draws(human, seed)
        with contextlib.suppress(OSError):
            for name, values in zip(names, (drawn.prices, drawn.bounds), strict=True):
                _save(self.folder / name, values)
        return drawn


def open_stock(folder: str | Path, *, skip_malformed: bool = False) -> SavedStock:
    """Open the saved form of a folder of official files; make it when there is none of this very data.

    Args:
        folder: See `files.load_products`, also for the errors.
        skip_malformed: Skip and count malformed products instead of raising.
    """
    files = OfficialFiles(folder)
    home = _home(Path(folder))
    with _locked(home):
        key = _key(files, home)
        stock = _opened(home / key)
        if stock is None:
            stock = _built(files, home, key, skip_malformed)
    stock.findings.judge(skip_malformed)
    return stock


def _home(folder: Path) -> Path:
    """Return the folder of saved forms: next to the data, else in the user's cache, else one for this process."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning_mem1"
    beside = [folder / ".lightning_mem1"] if folder.stat().st_mode & 0o222 else []  # root may write, but should not
    for home in [*beside, cache / sha256(str(folder.resolve()).encode()).hexdigest()[:16]]:
        with contextlib.suppress(OSError):
            home.mkdir(parents=True, exist_ok=True)
            if os.access(home, os.W_OK):
                return home
    _log.warning("the index of %s cannot be saved: neither it nor %s can be written; set XDG_CACHE_HOME", folder, cache)
    return Path(tempfile.mkdtemp(prefix="lightning_mem1-"))


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Let one process at a time look and build."""
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _key(files: OfficialFiles, home: Path) -> str:
    """Return the name of the saved form of this data: format, code, Unicode version (words depend on it), content."""
    known = _read_json(home / "hashes.json") or {}
    now = {str(path.resolve()): _fingerprint(path) for path in files.paths}
    hashes = {}
    for name, mark in now.items():
        size = mark[0]
        old = known.get(name)
        if size >= TRUST_STAT_FROM and isinstance(old, list) and len(old) == 2 and old[0] == mark:
            hashes[name] = str(old[1])
        else:
            hashes[name] = _hash(Path(name))
    fresh = {name: [now[name], hashes[name]] for name in now}
    if fresh != known:
        _write(home / "hashes.json", json.dumps(fresh).encode())
    content = sha256("".join(f"{Path(name).name}:{hashes[name]};" for name in now).encode()).hexdigest()[:24]
    return f"v{FORMAT}-c{_code_version()}-u{unicodedata.unidata_version}-{content}"


def _code_version() -> str:
    """Return what this version makes of a few texts, as eight hex digits; one that scores otherwise has others."""
    builder, digest = PostingsBuilder(), sha256()
    for text in PROBE:
        builder.add(text)
    postings = builder.finish(np.arange(len(PROBE), dtype=np.int64))
    for name in _arrays(Postings):
        digest.update(getattr(postings, name).tobytes())
    return digest.hexdigest()[:8]


def _fingerprint(path: Path) -> list[int]:
    """Return what no write to a file leaves as it is; the time of change cannot be set by hand."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _hash(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _opened(folder: Path) -> SavedStock | None:
    """Open a saved form; None when there is none or a file of it is not as long as it was."""
    header = _read_json(folder / _HEADER)
    if not header or any(_size(folder / name) != size for name, size in header["sizes"].items()):
        return None
    parts = {
        part: kind(**{name: _load(folder / f"{part}.{name}.npy") for name in _arrays(kind)})
        for part, kind in _PARTS.items()
    }
    return SavedStock(**parts, folder=folder, ends=_load(folder / "ends.npy"), findings=Findings(**header["findings"]))


def _built(files: OfficialFiles, home: Path, key: str, skip_malformed: bool) -> SavedStock:
    """Make the saved form in a temporary folder, then move it and remove those of other data or versions."""
    with tempfile.TemporaryDirectory(dir=home, prefix="building-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch) / "done"
        folder.mkdir()
        findings = _build(files, folder, Path(scratch), skip_malformed)
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
        _write(folder / _HEADER, json.dumps({"sizes": sizes, "findings": asdict(findings)}).encode())
        for old in [path for path in home.iterdir() if path.is_dir() and path != Path(scratch)]:
            shutil.rmtree(old, ignore_errors=True)  # a process that has it open keeps it until it ends
        folder.rename(home / key)
    stock = _opened(home / key)
    assert stock is not None
    return stock


def _build(files: OfficialFiles, folder: Path, scratch: Path, skip_malformed: bool) -> Findings:
    with (
        room_for(folder),
        (scratch / "ins").open("w+b") as ins_file,
        (scratch / "human").open("w+b") as human_file,
        (folder / _RECORDS).open("wb") as records,
    ):
        ins = KeyedFile(files.annotations(), ins_file)
        human = KeyedFile(files.human_instructions(), human_file)
        reader = ProductReader(files.entries(), ins, human, str(files.items))
        writer, builder = RecordWriter(records), StockBuilder(scratch)
        for product in reader:
            writer.add(product)
            builder.add(product)
    if not reader.findings.num_products:  # nothing at all is no catalogue
        reader.findings.judge(skip_malformed)
    for part, value in builder.finish().items():
        for name in _arrays(type(value)):
            _save(folder / f"{part}.{name}.npy", getattr(value, name))
    _save(folder / "ends.npy", writer.ends())
    return reader.findings


def _arrays(kind: type) -> list[str]:
    return [field.name for field in fields(kind) if not field.name.startswith("_")]


def _load(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)


def _save(path: Path, values: np.ndarray) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        np.save(file, values, allow_pickle=False)
    part.rename(path)


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.rename(path)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
