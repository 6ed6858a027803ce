"""Decoded pictures and tokens on disk, memory-mapped: paid once per data set, shared by all processes of a machine.

A table is keyed by the content of all pictures or texts of a data set and by the settings, lies in one Arrow file, and
is written by whoever comes first while the others wait. What a picture file holds is remembered by path, size and time
of change, so that a second look at a data set reads no picture.
"""

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import filelock
import numpy as np
import PIL
import pyarrow as pa
from numpy.typing import NDArray

from m3col.data import pictures
from m3col.data.columns import Records
from m3col.faults import BadInput

_FORMAT = 1
_BATCH = 256  # rows per record batch of a file
_THREADS = min(8, os.cpu_count() or 1)
_SHOWN = 5
_REMEMBERED = "pictures.db"
_SCHEMA = "create table if not exists pictures (path text primary key, size int, mtime int, sha text, fault text)"


def folder() -> Path:
    """Where tables are kept: $M3COL_CACHE, or m3col in the user's cache folder."""
    given = os.environ.get("M3COL_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "m3col"


class Table(Protocol):
    """Rows of the source of some records: pictures [h, w, 3] uint8, or tokens [length] int32."""

    def __getitem__(self, row: int) -> NDArray[Any]: ...

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        ...


def content_digests(records: Records) -> list[str]:
    """SHA-256 of each picture's file or each text, in the order of the records."""
    return [found[0] for found in _looked_at(records)]


def faults(records: Records) -> dict[int, str]:
    """What is wrong with each picture that cannot be decoded, by position in the records; nothing for texts."""
    return {row: found[1] for row, found in enumerate(_looked_at(records)) if found[1]}


def _looked_at(records: Records) -> list[tuple[str, str]]:
    """(digest, fault or "") of each record."""
    values = list(records.values)
    if records.kind == "text":
        return [(hashlib.sha256(text.encode()).hexdigest(), "") for text in values]
    known = _Remembered(value for value in values if isinstance(value, str))
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(known.look, values))
    known.keep()
    return found


class _Remembered:
    """What is known of picture files that have not changed since. A folder that cannot be written costs time only."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._wanted = list(dict.fromkeys(paths))
        self._new: dict[str, tuple[int, int, str, str]] = {}
        self._old: dict[str, tuple[int, int, str, str]] = {}
        try:
            with closing(self._open()) as database:
                for start in range(0, len(self._wanted), 500):
                    some = self._wanted[start : start + 500]
                    marks = ",".join("?" * len(some))
                    rows = database.execute(f"select * from pictures where path in ({marks})", some)
                    self._old |= {path: tuple(rest) for path, *rest in rows}
        except (sqlite3.Error, OSError):
            pass

    def _open(self) -> sqlite3.Connection:
        folder().mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(folder() / _REMEMBERED, timeout=60)
        database.execute(_SCHEMA)
        return database

    def look(self, value: str | bytes) -> tuple[str, str]:
        if isinstance(value, bytes):
            return hashlib.sha256(value).hexdigest(), _fault(value)
        try:
            status = os.stat(value)
        except OSError as error:
            return "", f"cannot be read ({error.strerror})"
        old = self._old.get(value)
        if old is not None and old[:2] == (status.st_size, status.st_mtime_ns):
            return old[2], old[3]
        content = Path(value).read_bytes()
        found = hashlib.sha256(content).hexdigest(), _fault(content)
        self._new[value] = (status.st_size, status.st_mtime_ns, *found)
        return found

    def keep(self) -> None:
        if not self._new:
            return
        try:
            with closing(self._open()) as database, database:
                rows = [(path, *rest) for path, rest in self._new.items()]
                database.executemany("insert or replace into pictures values (?, ?, ?, ?, ?)", rows)
        except (sqlite3.Error, OSError):
            pass


def _fault(content: bytes) -> str:
    try:
        pictures.decode(content, 8)
    except pictures.Unreadable as error:
        return str(error)
    return ""


def decoded(records: Records, short_side: int, *, cached: bool = True) -> Table:
    """All pictures of the records' source, with that short side in pixels. Raises BadInput for what cannot be decoded,
    or where the disk is too full for them."""
    if not cached:
        return _Computed(lambda row: pictures.decode(records.source[row], short_side))
    whole = Records(records.kind, records.source, np.arange(len(records.source)))

    def rows() -> Iterator[tuple[bytes, int]]:
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(whole), _BATCH):
                for array in pool.map(lambda v: pictures.decode(v, short_side), whole.source[start : start + _BATCH]):
                    yield array.tobytes(), array.shape[0]

    digests = content_digests(whole)
    _refuse_unreadable(whole)
    path = _path("image", [short_side, PIL.__version__], digests)
    needed = int(1.5 * 3 * short_side**2 * len(whole))
    return _Pictures(_made(path, rows, needed=needed))


def _refuse_unreadable(records: Records) -> None:
    found = faults(records)
    lines = [f"{records.source[row]}: {text}" for row, text in list(found.items())[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append(f"{len(found) - _SHOWN} more pictures that cannot be read")
    if lines:
        raise BadInput(lines)


def encoded(
    records: Records, encode: Callable[[Sequence[str]], list[NDArray[np.int32]]], *, settings: str, cached: bool = True
) -> Table:
    """The tokens of all texts of the records' source. `settings`: a digest of all that `encode` depends on."""
    if not cached:
        return _Computed(lambda row: encode([records.source[row]])[0], count=len(records.source))
    source = records.source

    def rows() -> Iterator[tuple[bytes, int]]:
        for start in range(0, len(source), _BATCH):
            for tokens in encode(list(source[start : start + _BATCH])):
                yield tokens.astype("<i4").tobytes(), len(tokens)

    whole = Records(records.kind, source, np.arange(len(source)))
    path = _path("text", [settings], content_digests(whole))
    return _Tokens(_made(path, rows, needed=sum(4 * len(text) for text in source)))


def _path(kind: str, settings: list[Any], digests: list[str]) -> Path:
    key = hashlib.sha256(json.dumps([_FORMAT, kind, settings, digests]).encode()).hexdigest()
    return folder() / f"{kind}-{key[:32]}.arrow"


def _made(path: Path, rows: Callable[[], Iterator[tuple[bytes, int]]], *, needed: int) -> Path:
    """The file, written unless it is there; of several processes one writes and the others wait."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock")):
            if not path.exists():
                free = shutil.disk_usage(path.parent).free
                if free < needed:
                    raise BadInput(
                        [f"{path.parent}: the cache needs about {needed / 1e6:,.0f} MB, but only {free / 1e6:,.0f} MB "
                         "are free; free some, name another folder in M3COL_CACHE, or set data.cache=false"]
                    )  # fmt: skip
                _write(path, rows())
    except OSError as error:
        reason = error.strerror or error
        raise BadInput(
            [f"{path.parent}: cannot be written ({reason}); name another one in M3COL_CACHE, or set data.cache=false"]
        ) from None
    return path


def _write(path: Path, rows: Iterator[tuple[bytes, int]]) -> None:
    schema = pa.schema([("content", pa.large_binary()), ("count", pa.int32())])
    part = path.with_suffix(".part")
    with pa.OSFile(str(part), "wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        batch: list[tuple[bytes, int]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == _BATCH:
                _write_batch(writer, schema, batch)
                batch = []
        if batch:
            _write_batch(writer, schema, batch)
    os.replace(part, path)


def _write_batch(writer: Any, schema: Any, batch: list[tuple[bytes, int]]) -> None:
    contents, counts = zip(*batch, strict=True)
    arrays = [pa.array(contents, pa.large_binary()), pa.array(counts, pa.int32())]
    writer.write_batch(pa.record_batch(arrays, schema=schema))


class _Mapped:
    """Rows of a file that is mapped into memory, not read. Every batch but the last one has _BATCH rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        counts = [batch.column(1).to_numpy() for batch in self._batches]
        self.counts = np.concatenate(counts).astype(np.int64) if counts else np.zeros(0, np.int64)

    def buffer(self, row: int) -> Any:
        return self._batches[row // _BATCH].column(0)[row % _BATCH].as_buffer()

    def lengths(self) -> NDArray[np.int64]:
        return self.counts

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return type(self), (self.path,)


class _Pictures(_Mapped):
    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        return np.frombuffer(self.buffer(row), np.uint8).reshape(int(self.counts[row]), -1, 3)


class _Tokens(_Mapped):
    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return np.frombuffer(self.buffer(row), "<i4")


class _Computed:
    """Rows that are made anew each time."""

    def __init__(self, make: Callable[[int], NDArray[Any]], count: int = 0) -> None:
        self._make, self._count = make, count

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self._make(row)

    def lengths(self) -> NDArray[np.int64]:
        return np.array([len(self[row]) for row in range(self._count)], dtype=np.int64)
