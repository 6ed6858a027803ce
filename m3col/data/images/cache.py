"""On-disk cache of decoded images and tokens: written once per data set, memory-mapped by all processes of a machine.

Each table is one Arrow file. Its key is a digest of the settings and of the content of all images or texts. The first
process that needs a table writes it, and the others wait. While images are decoded, the content of each file is
compared with its digest in the key again, because a file may change in between.
"""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import filelock
import numpy as np
import PIL
import pyarrow as pa
from numpy.typing import NDArray

from m3col.data import modality_kinds
from m3col.data.columns import MediaColumn, image_fault
from m3col.data.images import decoding, index
from m3col.data.images.index import ImageInfo
from m3col.errors import InputError
from m3col.storage import atomic_files

_FORMAT = 1

_BATCH = 256  # rows per record batch of a file

_SHOWN = 5  # images listed individually in a message; the others are only counted

_POLL_S = 2.0  # seconds between two checks of the progress of another process

_STALL_S = 600.0  # seconds without progress of another process after which waiting ends with an error

_TRIES = 3  # attempts to write a table while image files change

_SHARED_BYTES = 512_000_000  # decoded images that ensemble members of one prediction share, per image size


class Table(Protocol):
    """Decoded rows of the source of a `MediaColumn`: images [h, w, 3] uint8, or tokens [length] int32."""

    def __getitem__(self, row: int) -> NDArray[Any]: ...

    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each row."""
        ...


def content_digests(records: MediaColumn) -> list[str]:
    """A digest of the content of each record, such as the SHA-256 of an image file."""
    digests: list[str] = modality_kinds.of(records.kind).call("digests", list(records.values))
    return digests


def image_digests(values: Sequence[str | bytes]) -> list[str]:
    """SHA-256 of each image's file."""
    return [info.digest for info in index.inspect(list(values))]


def faults(records: MediaColumn) -> dict[int, str]:
    """The fault of each unusable record, by position."""
    by_row: dict[int, str] = modality_kinds.of(records.kind).call("record_faults", list(records.values))
    return by_row


def image_faults(values: Sequence[Any]) -> dict[int, str]:
    """The fault of each unusable image, by position. The files are read."""
    faults = {row: fault for row, value in enumerate(values) if (fault := image_fault(value))}
    good = [row for row in range(len(values)) if row not in faults]
    inspected = index.inspect([values[row] for row in good])
    return faults | {row: info.fault for row, info in zip(good, inspected, strict=True) if info.fault}


# Images


class _Changed(Exception):
    """An image file has changed since its digest was computed."""


def decoded(records: MediaColumn, short_side: int, *, cached: bool = True) -> Table:
    """Returns all images of the source of `records`, decoded.

    Args:
        records: the images.
        short_side: length of the short side of the decoded images, in pixels.
        cached: whether to store the decoded images on disk; otherwise each image is decoded on access.

    Raises:
        InputError: an image cannot be decoded or keeps changing, or there is not enough disk space.
    """
    source = records.source
    if not cached:
        shared = _shared.get(records)
        if shared is None:
            return _Computed(lambda row: _image(source[row], short_side))
        if short_side not in shared:
            shared[short_side] = _Computed(lambda row: _image(source[row], short_side), capacity=_SHARED_BYTES)
        return shared[short_side]
    changed: set[str] = set()
    for _ in range(_TRIES):
        infos = index.inspect(list(source), reread=changed)
        _refuse_unreadable(source, infos)
        digests = [info.digest for info in infos]

        def rows(digests: list[str] = digests) -> Iterator[tuple[bytes, int]]:
            with ThreadPoolExecutor(index.THREADS) as pool:
                for start in range(0, len(source), _BATCH):
                    batch = slice(start, start + _BATCH)
                    decode = functools.partial(_expected, short_side=short_side)
                    for array in pool.map(decode, source[batch], digests[batch]):
                        yield array.tobytes(), array.shape[0]

        try:
            # The long side of most images is at most 1.5 times the short side.
            needed = int(1.5 * _bytes(short_side, len(source)))
            return _open_or_write(_Images, _images_path(digests, short_side), rows, needed=needed)
        except _Changed as error:
            changed |= {str(error)}
    raise InputError([f"{path}: is written to while it is read; wait until it is whole" for path in sorted(changed)])


def needed_bytes(records: MediaColumn, short_side: int) -> int:
    """Estimates how many bytes `decoded` will still write to disk; 0 if its table is complete.

    Bytes that another process has written to an unfinished table already occupy disk space and are subtracted.
    """
    path = _images_path([info.digest for info in index.inspect(list(records.source))], short_side)
    if path.exists():
        return 0
    written = 0
    with contextlib.suppress(OSError):
        written = _part(path).stat().st_size
    return max(0, _bytes(short_side, len(records.source)) - written)


def keep(records: MediaColumn) -> MediaColumn:
    """Returns a copy of `records` whose decoded images are shared by the members of an ensemble.

    Images are decoded once per size and kept in memory, up to `_SHARED_BYTES`, for as long as the copy is in use.
    """
    copy = MediaColumn(records.kind, records.source, records.at)
    _shared[copy] = {}
    return copy


def _images_path(digests: list[str], short_side: int) -> Path:
    return _path("image", [short_side, PIL.__version__], digests)


def _bytes(short_side: int, count: int) -> int:
    return 3 * short_side**2 * count


def _expected(value: str | bytes, digest: str, short_side: int) -> NDArray[np.uint8]:
    """Decodes an image. Raises _Changed if the digest of its content is not `digest` any more."""
    try:
        with decoding.opened(value) as file:
            content = file.read()
    except (OSError, decoding.Unreadable):
        content = b""
    if hashlib.sha256(content).hexdigest() != digest:
        raise _Changed(value)
    return decoding.decode(content, short_side)


def _image(value: str | bytes, short_side: int) -> NDArray[np.uint8]:
    """Decodes an image that could be decoded before. A failure is a RuntimeError: the file has changed since."""
    try:
        return decoding.decode(value, short_side)
    except decoding.Unreadable as error:
        raise RuntimeError(f"{_shown(value)}: {error}") from error


def _shown(value: str | bytes) -> str:
    return value if isinstance(value, str) else "an image"


def _refuse_unreadable(source: NDArray[np.object_], infos: Sequence[ImageInfo]) -> None:
    unreadable = {row: info.fault for row, info in enumerate(infos) if info.fault}
    lines = [f"{_shown(source[row])}: {text}" for row, text in list(unreadable.items())[:_SHOWN]]
    if len(unreadable) > _SHOWN:
        lines.append(f"{len(unreadable) - _SHOWN} more images that cannot be read")
    if lines:
        raise InputError(lines)


# Texts


def encoded(
    records: MediaColumn,
    encode: Callable[[Sequence[str]], list[NDArray[np.int32]]],
    *,
    settings: str,
    cached: bool = True,
) -> Table:
    """Returns the tokens of all texts of the source of `records`.

    Args:
        records: the texts.
        encode: returns the tokens of each text.
        settings: a digest of everything that `encode` depends on.
        cached: whether to store the tokens on disk; otherwise each text is encoded on access.
    """
    source = records.source
    if not cached:
        return _Computed(lambda row: encode([source[row]])[0], count=len(source))

    def rows() -> Iterator[tuple[bytes, int]]:
        for start in range(0, len(source), _BATCH):
            for tokens in encode(list(source[start : start + _BATCH])):
                yield tokens.astype("<i4").tobytes(), len(tokens)

    whole = MediaColumn(records.kind, source, np.arange(len(source)))
    path = _path("text", [settings], content_digests(whole))
    return _open_or_write(_Tokens, path, rows, needed=sum(4 * len(text) for text in source))


# Files


def _path(kind: str, settings: list[Any], digests: list[str]) -> Path:
    key = hashlib.sha256(json.dumps([_FORMAT, kind, settings, digests]).encode()).hexdigest()
    return index.folder() / f"{kind}-{key[:32]}.arrow"


class _Mapped:
    """Rows of a memory-mapped Arrow file. Every record batch but the last has _BATCH rows."""

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


class _Images(_Mapped):
    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        return np.frombuffer(self.buffer(row), np.uint8).reshape(int(self.counts[row]), -1, 3)


class _Tokens(_Mapped):
    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return np.frombuffer(self.buffer(row), "<i4")


class _Computed:
    """Rows that are computed on access. Computed rows are kept until they fill `capacity` bytes."""

    def __init__(self, make: Callable[[int], NDArray[Any]], count: int = 0, capacity: int = 0) -> None:
        self._make, self._count, self._capacity = make, count, capacity
        self._rows: dict[int, NDArray[Any]] = {}

    def __getitem__(self, row: int) -> NDArray[Any]:
        value = self._rows.get(row)
        if value is None:
            value = self._make(row)
            if value.nbytes <= self._capacity:
                self._capacity -= value.nbytes
                self._rows[row] = value
        return value

    def lengths(self) -> NDArray[np.int64]:
        return np.array([len(self[row]) for row in range(self._count)], dtype=np.int64)


_shared: "weakref.WeakKeyDictionary[MediaColumn, dict[int, _Computed]]" = weakref.WeakKeyDictionary()

MappedTable = TypeVar("MappedTable", bound=_Mapped)


def _open_or_write(
    kind: Callable[[Path], MappedTable], path: Path, rows: Callable[[], Iterator[tuple[bytes, int]]], *, needed: int
) -> MappedTable:
    """Opens the table at `path`; writes it first unless it is complete. Of several processes one writes, others wait.

    Args:
        kind: class of the table.
        path: the file.
        rows: yields content and count of each row, called only if the table must be written.
        needed: estimated bytes of the table; an InputError is raised if the disk has less free space.
    """
    table = _open_complete(kind, path)
    if table is not None:
        return table
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            table = _open_complete(kind, path)
            if table is not None:
                return table
            _part(path).unlink(missing_ok=True)  # left by a killed process; frees its disk space
            free = shutil.disk_usage(path.parent).free
            if free < needed:
                raise InputError(
                    [f"{path.parent}: the cache needs about {needed / 1e6:,.0f} MB, but only {free / 1e6:,.0f} MB "
                     "are free; free some, name another folder in M3COL_CACHE, or set data.cache=false"]
                )  # fmt: skip
            _write(path, rows())
            return kind(path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            [f"{path.parent}: cannot be written ({reason}); name another one in M3COL_CACHE, or set data.cache=false"]
        ) from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock for writing this table.

    Waits for a process that has the lock for as long as its file grows. That process may be stopped or hang, so
    InputError is raised after `_STALL_S` seconds without progress.
    """
    file = path.with_suffix(".lock")
    lock = filelock.FileLock(file)
    written, since = -1, time.monotonic()
    while True:
        try:
            lock.acquire(timeout=_POLL_S)
            break
        except filelock.Timeout:
            pass
        size = 0
        with contextlib.suppress(OSError):
            size = _part(path).stat().st_size
        if size != written:
            written, since = size, time.monotonic()
        elif time.monotonic() - since > _STALL_S:
            raise InputError(
                [f"{file}: {atomic_files.holder(file) or 'another process'} has this lock, and has written nothing for "
                 f"{_STALL_S:g} s; end it, name another folder in M3COL_CACHE, or set data.cache=false"]
            ) from None  # fmt: skip
    try:
        yield
    finally:
        lock.release()


def _open_complete(kind: Callable[[Path], MappedTable], path: Path) -> MappedTable | None:
    """The table in the file; None if there is no file, or if it is damaged."""
    try:
        return kind(path)
    except (OSError, pa.ArrowInvalid):
        return None


def _part(path: Path) -> Path:
    """The file of a table while it is being written."""
    return path.with_suffix(".part")


def _write(path: Path, rows: Iterator[tuple[bytes, int]]) -> None:
    schema = pa.schema([("content", pa.large_binary()), ("count", pa.int32())])
    part = _part(path)
    try:
        with pa.OSFile(str(part), "wb") as stream, pa.ipc.new_file(stream, schema) as writer:
            batch: list[tuple[bytes, int]] = []
            for row in rows:
                batch.append(row)
                if len(batch) == _BATCH:
                    _write_batch(writer, schema, batch)
                    batch = []
            if batch:
                _write_batch(writer, schema, batch)
        atomic_files.flush(part)
        os.replace(part, path)
        atomic_files.flush(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _write_batch(writer: Any, schema: Any, batch: list[tuple[bytes, int]]) -> None:
    contents, counts = zip(*batch, strict=True)
    arrays = [pa.array(contents, pa.large_binary()), pa.array(counts, pa.int32())]
    writer.write_batch(pa.record_batch(arrays, schema=schema))
