"""Decoded images and tokens on disk, memory-mapped: paid once per data set, shared by all processes of a machine.

A table is keyed by the content of all images or texts of a data set and by the settings, lies in one Arrow file, and
is written by whoever comes first while the others wait. What goes into it is compared with its key once more.
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

_SHOWN = 5

_LOOK_S = 2.0  # between two looks at what another process has written

_STILL_S = 600.0  # without anything new, before it is given up

_TRIES = 3  # times that a table is begun while files change

_KEPT = 512_000_000  # bytes of decoded images that one prediction keeps for its other members


class Table(Protocol):
    """Rows of the source of some records: images [h, w, 3] uint8, or tokens [length] int32."""

    def __getitem__(self, row: int) -> NDArray[Any]: ...

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        ...


def content_digests(records: MediaColumn) -> list[str]:
    """A digest of the content of each record, such as SHA-256 of an image's file."""
    digests: list[str] = modality_kinds.of(records.kind).call("digests", list(records.values))
    return digests


def image_digests(values: Sequence[str | bytes]) -> list[str]:
    """SHA-256 of each image's file."""
    return [info.digest for info in index.inspect(list(values))]


def faults(records: MediaColumn) -> dict[int, str]:
    """What is wrong with each record that cannot be used, by position."""
    found: dict[int, str] = modality_kinds.of(records.kind).call("record_faults", list(records.values))
    return found


def image_faults(values: Sequence[Any]) -> dict[int, str]:
    """Why each image that cannot be used cannot, by position: the files are read."""
    faults = {row: fault for row, value in enumerate(values) if (fault := image_fault(value))}
    good = [row for row in range(len(values)) if row not in faults]
    inspected = index.inspect([values[row] for row in good])
    return faults | {row: info.fault for row, info in zip(good, inspected, strict=True) if info.fault}


# Images


class _Changed(Exception):
    """The file of an image is no longer what it was when it was looked at."""


def decoded(records: MediaColumn, short_side: int, *, cached: bool = True) -> Table:
    """All images of the records' source, with that short side in pixels. Raises InputError for what cannot be
    decoded, or where the disk is too full for them."""
    source = records.source
    if not cached:
        shared = _shared.get(records)
        if shared is None:
            return _Computed(lambda row: _image(source[row], short_side))
        if short_side not in shared:
            shared[short_side] = _Computed(lambda row: _image(source[row], short_side), room=_KEPT)
        return shared[short_side]
    anew: set[str] = set()
    for _ in range(_TRIES):
        seen = index.inspect(list(source), anew=anew)
        _refuse_unreadable(source, seen)
        digests = [found.digest for found in seen]

        def rows(digests: list[str] = digests) -> Iterator[tuple[bytes, int]]:
            with ThreadPoolExecutor(index.THREADS) as pool:
                for start in range(0, len(source), _BATCH):
                    some = slice(start, start + _BATCH)
                    make = functools.partial(_expected, short_side=short_side)
                    for array in pool.map(make, source[some], digests[some]):
                        yield array.tobytes(), array.shape[0]

        try:
            # Most images are up to half as long again as they are high.
            needed = int(1.5 * _bytes(short_side, len(source)))
            return _made(_Images, _images_path(digests, short_side), rows, needed=needed)
        except _Changed as error:
            anew |= {str(error)}
    raise InputError([f"{path}: is written to while it is read; wait until it is whole" for path in sorted(anew)])


def needed_bytes(records: MediaColumn, short_side: int) -> int:
    """What `decoded` is about to write to the disk; 0 where its table lies there already. What another process, alive
    or dead, has written of it needs no room any more."""
    path = _images_path([seen.digest for seen in index.inspect(list(records.source))], short_side)
    if path.exists():
        return 0
    begun = 0
    with contextlib.suppress(OSError):
        begun = _part(path).stat().st_size
    return max(0, _bytes(short_side, len(records.source)) - begun)


def keep(records: MediaColumn) -> MediaColumn:
    """The same images for one prediction: what is decoded for one member of an ensemble is there for the others, as
    long as these records are in use and as far as the memory for it goes."""
    own = MediaColumn(records.kind, records.source, records.at)
    _shared[own] = {}
    return own


def _images_path(digests: list[str], short_side: int) -> Path:
    return _path("image", [short_side, PIL.__version__], digests)


def _bytes(short_side: int, count: int) -> int:
    return 3 * short_side**2 * count


def _expected(value: str | bytes, digest: str, short_side: int) -> NDArray[np.uint8]:
    """The image whose content has this digest. Raises _Changed where it has another one by now."""
    try:
        with decoding.opened(value) as file:
            content = file.read()
    except (OSError, decoding.Unreadable):
        content = b""
    if hashlib.sha256(content).hexdigest() != digest:
        raise _Changed(value)
    return decoding.decode(content, short_side)


def _image(value: str | bytes, short_side: int) -> NDArray[np.uint8]:
    """An image that was judged before: what is wrong with it now happened meanwhile."""
    try:
        return decoding.decode(value, short_side)
    except decoding.Unreadable as error:
        raise RuntimeError(f"{_shown(value)}: {error}") from error


def _shown(value: str | bytes) -> str:
    return value if isinstance(value, str) else "an image"


def _refuse_unreadable(source: NDArray[np.object_], seen: Sequence[ImageInfo]) -> None:
    found = {row: each.fault for row, each in enumerate(seen) if each.fault}
    lines = [f"{_shown(source[row])}: {text}" for row, text in list(found.items())[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append(f"{len(found) - _SHOWN} more images that cannot be read")
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
    """The tokens of all texts of the records' source. `settings`: a digest of all that `encode` depends on."""
    source = records.source
    if not cached:
        return _Computed(lambda row: encode([source[row]])[0], count=len(source))

    def rows() -> Iterator[tuple[bytes, int]]:
        for start in range(0, len(source), _BATCH):
            for tokens in encode(list(source[start : start + _BATCH])):
                yield tokens.astype("<i4").tobytes(), len(tokens)

    whole = MediaColumn(records.kind, source, np.arange(len(source)))
    path = _path("text", [settings], content_digests(whole))
    return _made(_Tokens, path, rows, needed=sum(4 * len(text) for text in source))


# Files


def _path(kind: str, settings: list[Any], digests: list[str]) -> Path:
    key = hashlib.sha256(json.dumps([_FORMAT, kind, settings, digests]).encode()).hexdigest()
    return index.folder() / f"{kind}-{key[:32]}.arrow"


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


class _Images(_Mapped):
    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        return np.frombuffer(self.buffer(row), np.uint8).reshape(int(self.counts[row]), -1, 3)


class _Tokens(_Mapped):
    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return np.frombuffer(self.buffer(row), "<i4")


class _Computed:
    """Rows that are made when they are asked for; those that fit into `room` bytes are kept."""

    def __init__(self, make: Callable[[int], NDArray[Any]], count: int = 0, room: int = 0) -> None:
        self._make, self._count, self._room = make, count, room
        self._rows: dict[int, NDArray[Any]] = {}

    def __getitem__(self, row: int) -> NDArray[Any]:
        found = self._rows.get(row)
        if found is None:
            found = self._make(row)
            if found.nbytes <= self._room:
                self._room -= found.nbytes
                self._rows[row] = found
        return found

    def lengths(self) -> NDArray[np.int64]:
        return np.array([len(self[row]) for row in range(self._count)], dtype=np.int64)


_shared: "weakref.WeakKeyDictionary[MediaColumn, dict[int, _Computed]]" = weakref.WeakKeyDictionary()

Found = TypeVar("Found", bound=_Mapped)


def _made(
    kind: Callable[[Path], Found], path: Path, rows: Callable[[], Iterator[tuple[bytes, int]]], *, needed: int
) -> Found:
    """The table in the file, which is written unless it lies there whole; of several processes one writes and the
    others wait."""
    found = _whole(kind, path)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            found = _whole(kind, path)
            if found is not None:
                return found
            _part(path).unlink(missing_ok=True)  # of a process that was killed: its room is ours
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
    """While it lasts, no other process writes this table. One that does is waited for as long as it gets on: it may be
    stopped, or hang. Raises InputError when it has written nothing for ten minutes."""
    file = path.with_suffix(".lock")
    lock = filelock.FileLock(file)
    written, since = -1, time.monotonic()
    while True:
        try:
            lock.acquire(timeout=_LOOK_S)
            break
        except filelock.Timeout:
            pass
        now = 0
        with contextlib.suppress(OSError):
            now = _part(path).stat().st_size
        if now != written:
            written, since = now, time.monotonic()
        elif time.monotonic() - since > _STILL_S:
            raise InputError(
                [f"{file}: {atomic_files.holder(file) or 'another process'} has this lock, and has written nothing for "
                 f"{_STILL_S:g} s; end it, name another folder in M3COL_CACHE, or set data.cache=false"]
            ) from None  # fmt: skip
    try:
        yield
    finally:
        lock.release()


def _whole(kind: Callable[[Path], Found], path: Path) -> Found | None:
    """The table in the file; None where there is none, or one that a dying disk or machine has torn."""
    try:
        return kind(path)
    except (OSError, pa.ArrowInvalid):
        return None


def _part(path: Path) -> Path:
    """What is written of a table so far."""
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
